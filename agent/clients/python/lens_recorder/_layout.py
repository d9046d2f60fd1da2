"""The segment as bytes: offsets, entries, and which counter a latency belongs to.

The contract is docs/segment.md; every number here is one of its numbers.
"""

import os
import re
import struct

PAGE = 4096
FLAGS = PAGE
SERIES = 2 * PAGE
SERIES_ENTRY = 192
REQUESTS_MAX, REQUESTS_ENTRY = 128, 192
GAUGES_MAX, GAUGE_ENTRY = 64, 128
BLOCK_COUNTERS, BLOCK_STRIDE = 3841, 15424
SHARDS_MAX, SERIES_MAX = 64, 256
NANOS_MAX = (1 << 36) - 1
OVERFLOW = 3840

STATE, SERIES_LEN, REQUESTS_LEN, GAUGES_LEN, SHARDS_USED = 512, 516, 520, 524, 528
EXEMPLARS_WRITTEN, EXEMPLARS_PLACED, EXEMPLARS = 576, 584, 640
EXEMPLARS_MAX, EXEMPLAR = 48, 64
READY, CLOSED = 1, 2
KILL_BIT = 1 << 63

STAGES = {"stage_a": 0, "stage_b": 1, "stage_c": 2, "e2e": 3}
ARMS = {"baseline": 0, "canary": 1}
FLAG_BITS = {
    path: bit
    for bit, path in enumerate(
        [
            "stageCOptimizations",
            "isotonicCalibration",
            "confidenceGating",
            "optimizedHNSW",
            "stageA.native_scanner",
            "stageB.enabled",
            "stageB.lruCaching",
            "stageB.precompilePatterns",
            "stageC.enabled",
            "stageC.confidenceCutoff",
            "stageC.isotonicCalibration",
            "canary.killSwitchEnabled",
            "canary.progressiveRollout",
            "experimentalReranker",
            "advancedCalibration",
            "hnswAutoTuning",
            "performanceMonitoring",
            "qualityGating",
            "abTesting.enabled",
        ]
    )
}
DEFAULT_FLAGS = (
    "canary.killSwitchEnabled",
    "canary.progressiveRollout",
    "performanceMonitoring",
    "qualityGating",
)

_MASK = (1 << 64) - 1
_PART = re.compile(r"[a-z0-9._+#-]{1,48}\Z")
_LABEL = re.compile(r"[!-~]{1,64}\Z")
_INSTANCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_GAUGE = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")


def _page_up(count):
    return -(-count // PAGE) * PAGE


class Geometry:
    """Where everything lies, from shards and series alone."""

    def __init__(self, shards, series_max):
        if not 1 <= shards <= SHARDS_MAX or not 1 <= series_max <= SERIES_MAX:
            raise ValueError(
                f"{shards} shards and {series_max} series: use 1 to {SHARDS_MAX} shards "
                f"and 1 to {SERIES_MAX} series"
            )
        self.shards, self.series_max = shards, series_max
        self.requests = SERIES + _page_up(series_max * SERIES_ENTRY)
        self.gauges = self.requests + _page_up(REQUESTS_MAX * REQUESTS_ENTRY)
        self.blocks = self.gauges + _page_up(GAUGES_MAX * GAUGE_ENTRY)
        self.chunk = shards * BLOCK_STRIDE
        self.total = _page_up(self.blocks + series_max * self.chunk)

    def block(self, series, shard):
        return self.blocks + series * self.chunk + shard * BLOCK_STRIDE


def counter_of(nanos):
    """The counter of a latency; one that is negative counts as 0, one above 68.7 s apart."""
    if nanos > NANOS_MAX:
        return OVERFLOW
    if nanos < 256:
        return nanos if nanos > 0 else 0
    octave = nanos.bit_length() - 8
    return (octave << 7) + (nanos >> octave)


def fnv1a(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & _MASK
    return value


def in_canary(salt, ppm, user):
    """Whether `user` is in a canary of this share, parts per million."""
    data = user if isinstance(user, bytes) else str(user).encode()
    value = fnv1a(salt.to_bytes(4, "little") + data)
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    value ^= value >> 31
    return (value * 1_000_000) >> 64 < min(ppm, 1_000_000)


def slice_parts(name):
    """The three parts of `repo_type/language/size`, folded to lower case."""
    parts = name.lower().split("/") if isinstance(name, str) else list(name)
    if len(parts) != 3:
        raise ValueError(
            f"slice {name!r} needs three parts, repo_type/language/size, such as backend/rust/large"
        )
    for part in parts:
        if not _PART.match(part):
            raise ValueError(f"slice part {part!r}: use 1 to 48 of a-z 0-9 . _ + # -")
    return parts


def code(of, kind, name):
    if name not in of:
        raise ValueError(f"{kind} {name!r} is unknown: use {', '.join(of)}")
    return of[name]


def _names(into, at, parts):
    for number, part in enumerate(parts):
        into[at + number] = len(part)
        begin = at + 8 + number * 48
        into[begin : begin + len(part)] = part.encode()


def _sealed(entry, head):
    struct.pack_into("=Q", entry, len(entry) - 8, fnv1a(entry[head:-8]))
    return bytes(entry)


def series_entry(parts, stage, arm):
    entry = bytearray(SERIES_ENTRY)
    _names(entry, 0, parts)
    entry[3], entry[4] = code(STAGES, "stage", stage), code(ARMS, "arm", arm)
    return _sealed(entry, 0)


def requests_entry(parts, arm):
    entry = bytearray(REQUESTS_ENTRY)
    _names(entry, 16, parts)
    entry[20] = code(ARMS, "arm", arm)
    return _sealed(entry, 16)


def gauge_entry(name):
    if not _GAUGE.match(name):
        raise ValueError(
            f"{name!r} is not a gauge name: use 1 to 64 of a-z 0-9 _, starting with a letter"
        )
    entry = bytearray(GAUGE_ENTRY)
    struct.pack_into("=d", entry, 0, float("nan"))
    entry[8] = len(name)
    entry[9 : 9 + len(name)] = name.encode()
    return _sealed(entry, 8)


def exemplar(number, series, nanos, at, trace_id, span_id):
    """One slow record, as words: ids are integers, as OpenTelemetry's span contexts have them."""
    entry = bytearray(EXEMPLAR)
    struct.pack_into("=QQQQ", entry, 0, number, series, nanos, at)
    entry[32:48] = trace_id.to_bytes(16, "big")
    entry[48:56] = span_id.to_bytes(8, "big")
    return struct.unpack("=8Q", _sealed(entry, 0))


def check_labels(service, version, instance):
    for what, value in (("service", service), ("version", version)):
        if not _LABEL.match(value):
            raise ValueError(f"{what} {value!r}: use 1 to 64 visible ASCII characters")
    if not _INSTANCE.match(instance):
        raise ValueError(
            f"instance {instance!r}: use 1 to 64 of a-z A-Z 0-9 . _ -, a letter or digit first"
        )


def header(geometry, arm, incarnation, now_nanos, service, version, instance):
    page = bytearray(PAGE)
    struct.pack_into("=8sHHI", page, 0, b"LENSSEG1", 1, 1, PAGE)
    struct.pack_into(
        "=QIIIIIIII",
        page,
        16,
        geometry.total,
        0x01020304,
        geometry.shards,
        geometry.series_max,
        REQUESTS_MAX,
        GAUGES_MAX,
        BLOCK_STRIDE,
        BLOCK_COUNTERS,
        code(ARMS, "arm", arm),
    )
    struct.pack_into(
        "=QQQQQ", page, 56, FLAGS, SERIES, geometry.requests, geometry.gauges, geometry.blocks
    )
    page[96:112] = page[4080:4096] = incarnation
    page[112:128] = _boot_id()
    struct.pack_into("=IxxxxQQ", page, 128, os.getpid(), _start_ticks(), now_nanos)
    for at, text in ((160, service), (232, version), (304, instance)):
        page[at] = len(text)
        page[at + 1 : at + 1 + len(text)] = text.encode()
    return bytes(page)


def _boot_id():
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            number = int(file.read().strip().replace("-", ""), 16)
        return struct.pack("=QQ", number & _MASK, number >> 64)
    except (OSError, ValueError):
        return bytes(16)


def _start_ticks():
    try:
        with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:
            return int(file.read().rpartition(") ")[2].split(" ")[19])
    except (OSError, ValueError, IndexError):
        return 0
