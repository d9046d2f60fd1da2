"""The mapped file: made under a hidden name, locked, renamed into view; and its entries."""

import fcntl
import mmap
import os
import struct
import sys
import time

from . import _layout as layout


class Segment:
    """One segment file, held open, locked and mapped."""

    def __init__(self, directory, geometry, arm, service, version, instance):
        if sys.byteorder != "little":
            raise OSError("segments are written on little-endian machines only")
        layout.check_labels(service, version, instance)
        self.geometry = geometry
        incarnation = os.urandom(16)
        number = int.from_bytes(incarnation, "little")
        name = f"{instance}-{os.getpid()}-{number >> 96:08x}.lens"
        os.makedirs(directory, mode=0o750, exist_ok=True)
        hidden = os.path.join(directory, f".{name}.tmp")
        self.path = os.path.join(directory, name)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(hidden, flags, 0o640)
        try:
            # Held for as long as the file is open: how the agent knows that somebody records.
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.fchmod(self._fd, 0o640)
            os.ftruncate(self._fd, geometry.total)
            os.posix_fallocate(self._fd, 0, geometry.blocks)
            page = layout.header(
                geometry, arm, incarnation, time.time_ns(), service, version, instance
            )
            os.pwrite(self._fd, page, 0)
            bits = sum(1 << layout.FLAG_BITS[path] for path in layout.DEFAULT_FLAGS)
            os.pwrite(self._fd, struct.pack("=Q", bits), layout.FLAGS + 8)
            self._map = mmap.mmap(self._fd, geometry.total)
            # One 4-byte or 8-byte store each: a reader sees the old number or the new one.
            self.words = memoryview(self._map).cast("I")
            self.longs = memoryview(self._map).cast("Q")
            self.doubles = memoryview(self._map).cast("d")
            self.words[layout.STATE // 4] = layout.READY
            os.rename(hidden, self.path)
        except BaseException:
            os.close(self._fd)
            try:
                os.unlink(hidden)
            except OSError:
                pass
            raise

    def publish_series(self, place, entry):
        geometry = self.geometry
        if place >= geometry.series_max:
            raise ValueError(f"the segment already has {geometry.series_max} series, its limit")
        # A full filesystem is an error here, not a signal while recording.
        os.posix_fallocate(self._fd, geometry.block(place, 0), geometry.chunk)
        self._publish(layout.SERIES + place * layout.SERIES_ENTRY, entry, layout.SERIES_LEN, place)

    def publish_requests(self, place, entry):
        if place >= layout.REQUESTS_MAX:
            raise ValueError(
                f"the segment already has {layout.REQUESTS_MAX} request counters, its limit"
            )
        at = self.requests_at(place)
        self._publish(at, entry, layout.REQUESTS_LEN, place)

    def publish_gauge(self, place, entry):
        if place >= layout.GAUGES_MAX:
            raise ValueError(f"the segment already has {layout.GAUGES_MAX} gauges, its limit")
        self._publish(self.gauge_at(place), entry, layout.GAUGES_LEN, place)

    def requests_at(self, place):
        return self.geometry.requests + place * layout.REQUESTS_ENTRY

    def gauge_at(self, place):
        return self.geometry.gauges + place * layout.GAUGE_ENTRY

    def _publish(self, at, entry, length_at, place):
        # The entry by a system call, then the length that shows it: never the other way round.
        os.pwrite(self._fd, entry, at)
        self.words[length_at // 4] = place + 1

    def use_shard(self, shard):
        self.longs[layout.SHARDS_USED // 8] |= 1 << shard

    def _next(self, word):
        self.longs[word // 8] += 1
        return self.longs[word // 8]

    def place(self):
        """The next place in the ring of exemplars; the caller holds the recorder's lock."""
        return self._next(layout.EXEMPLARS_PLACED) % layout.EXEMPLARS_MAX

    def exemplify(self, place, series, nanos, at, trace_id, span_id):
        """Writes a slow record into a place; the caller holds the recorder's lock."""
        number = self._next(layout.EXEMPLARS_WRITTEN)
        slot = (layout.EXEMPLARS + place * layout.EXEMPLAR) // 8
        for at_word, word in enumerate(
            layout.exemplar(number, series, nanos, at, trace_id, span_id)
        ):
            self.longs[slot + at_word] = word

    def close(self):
        """Says that nobody records here any more, and lets go."""
        self.words[layout.STATE // 4] = layout.CLOSED
        self.abandon()

    def abandon(self):
        """Lets go of a segment that is another process's."""
        for view in (self.words, self.longs, self.doubles):
            view.release()
        self._map.close()
        os.close(self._fd)
