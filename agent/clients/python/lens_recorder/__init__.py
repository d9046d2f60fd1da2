"""Records the latencies of a search node into a lens segment, in pure Python.

    from lens_recorder import Recorder

    node = Recorder.create(service="lens", version="1.4.2", instance="node-7")
    lexical = node.series("backend/rust/large", "stage_a")

    @lexical.timed
    def search(query): ...

    with lexical.time():
        ...

    lexical.record(1_250_000)          # nanoseconds
    lexical.record_traced(1_250_000, context.trace_id, context.span_id)
    node.requests("backend/rust/large").ok()
    node.gauge("span_coverage_percent").set(98.7)
    node.flags.enabled("stageB.lruCaching")
    node.canary.arm("user-42")         # "canary" or "baseline"

Creating and registering raise what is wrong. Recording raises nothing, waits for nobody and needs no
agent: counts stay in the file until one reads them. What was recorded outlives a killed process.
"""

import functools
import os
import threading
import time
import weakref

from . import _layout as layout
from ._segment import Segment

__all__ = ["Recorder", "Series", "Timer"]
__version__ = "0.1.0"

_recorders = weakref.WeakSet()


def _after_fork_in_child():
    for recorder in list(_recorders):
        recorder._reopen()


os.register_at_fork(after_in_child=_after_fork_in_child)


class Recorder:
    """One segment of one process.

    A forked child gets a segment of its own, with the same series, at the fork: two processes never
    add to one counter.
    """

    def __init__(self, make, shards):
        self._make, self._shards = make, shards
        self._lock = threading.Lock()
        self._series, self._requests, self._gauges = {}, {}, {}
        self._begin()
        _recorders.add(self)

    @classmethod
    def create(
        cls,
        directory=None,
        *,
        service,
        version,
        instance,
        arm="baseline",
        threads=8,
        series_max=256,
    ):
        """A new segment.

        `directory` is $LENS_SEGMENT_DIR, else /dev/shm/lens, when none is given; it should be a
        tmpfs. `threads` is how many threads record without a lock (1 to 63); further ones share a
        counter under one. Raises ValueError for a name that is not allowed and OSError where the
        file cannot be made.
        """
        where = directory or os.environ.get("LENS_SEGMENT_DIR") or "/dev/shm/lens"
        geometry = layout.Geometry(threads + 1, series_max)

        def make():
            return Segment(os.fspath(where), geometry, arm, service, version, instance)

        recorder = cls(make, geometry.shards)
        recorder._arm = arm
        recorder._request = recorder.requests("all/all/all")
        return recorder

    def _begin(self):
        self._segment = self._make()
        self._words = self._segment.words
        self._local = threading.local()
        self._owners = {}
        self._shared = threading.Lock()

    def _reopen(self):
        old, self._lock = self._segment, threading.Lock()
        try:
            self._begin()
            for key, series in self._series.items():
                self._segment.publish_series(series._place, layout.series_entry(*key))
            for (parts, arm), requests in self._requests.items():
                self._segment.publish_requests(requests._place, layout.requests_entry(parts, arm))
            for name, gauge in self._gauges.items():
                self._segment.publish_gauge(gauge._place, layout.gauge_entry(name))
        except OSError:
            # A child must run all the same: what it records goes nowhere, and says so.
            self._words = memoryview(bytearray(self._segment.geometry.total)).cast("I")
            self._segment = None
        for series in self._series.values():
            series._moved()
        old.abandon()

    @property
    def path(self):
        """The segment's file; None in a forked child for which none could be made."""
        return self._segment.path if self._segment else None

    def series(self, slice, stage, arm=None):
        """The histogram of a slice (`repo_type/language/size`), stage and arm."""
        arm = arm or self._arm
        key = (tuple(layout.slice_parts(slice)), stage, arm)
        with self._lock:
            if key not in self._series:
                place = len(self._series)
                entry = layout.series_entry(*key)
                self._segment.publish_series(place, entry)
                self._series[key] = Series(self, place)
            return self._series[key]

    def requests(self, slice="all/all/all", arm=None):
        """The counters of answered and failed requests of a slice and arm."""
        key = (tuple(layout.slice_parts(slice)), arm or self._arm)
        with self._lock:
            if key not in self._requests:
                place = len(self._requests)
                self._segment.publish_requests(place, layout.requests_entry(*key))
                self._requests[key] = Requests(self, place)
            return self._requests[key]

    def gauge(self, name):
        """A quality signal, such as `span_coverage_percent`."""
        with self._lock:
            if name not in self._gauges:
                place = len(self._gauges)
                self._segment.publish_gauge(place, layout.gauge_entry(name))
                self._gauges[name] = Gauge(self, place)
            return self._gauges[name]

    @property
    def flags(self):
        """What the control plane wants of this node."""
        return Flags(self)

    @property
    def canary(self):
        """Assigns users to arms."""
        return Canary(self)

    def close(self):
        """Ends recording in order. A process that ends without it loses nothing either."""
        _recorders.discard(self)
        with self._lock:
            if self._segment:
                segment, self._segment = self._segment, None
                self._words = memoryview(bytearray(segment.geometry.total)).cast("I")
                for series in self._series.values():
                    series._moved()
                segment.close()

    def _claim(self):
        """The calling thread's shard: one of its own, or the last, which all others share."""
        me = threading.current_thread()
        with self._lock:
            for shard in range(self._shards - 1):
                owner = self._owners.get(shard)
                owner = owner and owner()
                if owner is None or not owner.is_alive():
                    self._owners[shard] = weakref.ref(me)
                    break
            else:
                shard = self._shards - 1
            if self._segment:
                self._segment.use_shard(shard)
        self._local.shard = shard
        return shard


class Series:
    """One histogram. From any thread."""

    __slots__ = ("_recorder", "_place", "_bases", "_words", "_bar")

    def __init__(self, recorder, place):
        self._recorder, self._place = recorder, place
        geometry = recorder._segment.geometry
        self._bar = (0, 0, 0)
        self._bases = [geometry.block(place, n) // 4 for n in range(geometry.shards)]
        self._moved()

    def _moved(self):
        self._words = self._recorder._words

    def record(self, nanos):
        """Counts one latency, nanoseconds. Raises nothing, not even for what is no number."""
        recorder = self._recorder
        try:
            # counter_of, written out: a call would cost a third of it all.
            if nanos < 256:
                at = int(nanos) if nanos > 0 else 0
            elif nanos > 68719476735:
                at = 3840
            else:
                nanos = int(nanos)
                octave = nanos.bit_length() - 8
                at = (octave << 7) + (nanos >> octave)
            try:
                shard = recorder._local.shard
            except AttributeError:
                shard = recorder._claim()
            at += self._bases[shard]
            words = self._words
            if shard == recorder._shards - 1:
                with recorder._shared:
                    words[at] = (words[at] + 1) & 0xFFFFFFFF
            else:
                words[at] = (words[at] + 1) & 0xFFFFFFFF
        except Exception:  # What is measured must not fail for being measured.
            pass

    def record_traced(self, nanos, trace_id, span_id=0):
        """Counts one latency of a request that can be looked up by its trace.

        The ids are integers, as OpenTelemetry's span contexts have them. The slowest of each second
        are kept for the agent. Raises nothing; what is no trace is counted and not kept.
        """
        self.record(nanos)
        try:
            at = time.time_ns()
            second, slowest, _ = self._bar
            now = at // 1_000_000_000
            if (now == second and nanos <= slowest) or trace_id == 0:
                return
            recorder = self._recorder
            with recorder._shared:
                second, slowest, place = self._bar
                segment = recorder._segment
                if segment and (now != second or nanos > slowest):
                    if now != second:
                        place = segment.place()
                    segment.exemplify(place, self._place, int(nanos), at, trace_id, span_id)
                    self._bar = (now, nanos, place)
        except Exception:  # As in `record`.
            pass

    def start(self):
        """A running timer that ends in this series."""
        return Timer(self)

    def time(self):
        """A context that is timed. One that ends in an exception is timed as well."""
        return Timer(self)

    def timed(self, function):
        """A function, every call of which is timed."""
        record, clock = self.record, time.perf_counter_ns

        @functools.wraps(function)
        def call(*args, **kwargs):
            begin = clock()
            try:
                return function(*args, **kwargs)
            finally:
                record(clock() - begin)

        return call


class Timer:
    """A running stage; one that is dropped without `stop` records nothing."""

    __slots__ = ("_series", "_begin")

    def __init__(self, series):
        self._series, self._begin = series, time.perf_counter_ns()

    def lap(self, series):
        """Ends the running stage and starts one that ends in `series`, with one look at the clock."""
        now = time.perf_counter_ns()
        self._series.record(now - self._begin)
        self._series, self._begin = series, now

    def stop(self):
        """Ends the running stage; nanoseconds it took."""
        took = time.perf_counter_ns() - self._begin
        self._series.record(took)
        return took

    def __enter__(self):
        self._begin = time.perf_counter_ns()
        return self

    def __exit__(self, *_):
        self.stop()


class Requests:
    """Counts answered and failed requests."""

    __slots__ = ("_recorder", "_place")

    def __init__(self, recorder, place):
        self._recorder, self._place = recorder, place

    def _add(self, offset, count):
        segment = self._recorder._segment
        if segment and count > 0:
            at = (segment.requests_at(self._place) + offset) // 8
            with self._recorder._shared:
                segment.longs[at] = (segment.longs[at] + int(count)) & 0xFFFFFFFFFFFFFFFF

    def ok(self, count=1):
        """Counts answered requests."""
        self._add(0, count)

    def error(self, count=1):
        """Counts failed requests: those the service is to blame for."""
        self._add(8, count)


class Gauge:
    """A quality signal; the last value set is the value."""

    __slots__ = ("_recorder", "_place")

    def __init__(self, recorder, place):
        self._recorder, self._place = recorder, place

    def set(self, value):
        """Sets it; what is no finite number is ignored."""
        segment = self._recorder._segment
        if segment and isinstance(value, (int, float)) and abs(value) < float("inf"):
            segment.doubles[segment.gauge_at(self._place) // 8] = value


class Flags:
    """The flag page: one load of one word a question."""

    __slots__ = ("_recorder",)

    def __init__(self, recorder):
        self._recorder = recorder

    def _word(self, at):
        segment = self._recorder._segment
        if segment is None:
            return 0
        return segment.longs[(layout.FLAGS + at) // 8]

    def enabled(self, path):
        """Whether a flag is on; always False while the kill switch is engaged."""
        bit = 1 << layout.code(layout.FLAG_BITS, "flag", path)
        return self._word(8) & (bit | layout.KILL_BIT) == bit

    @property
    def killed(self):
        """Whether the kill switch is engaged."""
        return bool(self._word(8) & layout.KILL_BIT)

    @property
    def generation(self):
        """The generation of the control plane's last word; 0 before the first."""
        return self._word(0)


class Canary:
    """Assigns requests to arms: the same user the same arm, on every node and in every language."""

    __slots__ = ("_recorder",)

    def __init__(self, recorder):
        self._recorder = recorder

    def arm(self, user):
        """`canary` or `baseline`."""
        flags = self._recorder.flags
        word = flags._word(16)
        inside = not flags.killed and layout.in_canary(word >> 32, word & 0xFFFFFFFF, user)
        return "canary" if inside else "baseline"


