//! The bounds of the wire that `lens_model::limits` does not already give.
//!
//! Together they bound what one connection can make the other side hold: one frame being gathered
//! ([`FRAME_LEN_MAX`] bytes) and one dictionary (docs/wire.md, section "Limits").

use lens_model::limits::{
    AGENT_SEGMENTS_MAX, BLOCK_BYTES_MAX, CONNECTION_INSTANCES_MAX, CONNECTION_SERIES_MAX,
    FRAME_BYTES_MAX, FRAME_SERIES_MAX, NAME_BYTES_MAX, SEGMENT_GAUGES_MAX, SEGMENT_REQUESTS_MAX,
    SLICE_PART_BYTES_MAX,
};

/// Bytes in front of a body: length, type, flags.
pub const HEAD_LEN: usize = 6;

/// Bytes behind a body: the checksum.
pub const TAIL_LEN: usize = 4;

/// Largest whole frame, bytes.
pub const FRAME_LEN_MAX: usize = HEAD_LEN + FRAME_BYTES_MAX + TAIL_LEN;

/// Smallest body bound an aggregator may ask for in WELCOME, bytes: any one block fits with room.
pub const FRAME_BYTES_MIN: usize = 64 << 10;

/// Request deltas in one frame.
pub const FRAME_REQUESTS_MAX: usize = FRAME_SERIES_MAX;

/// Gauges in one frame.
pub const FRAME_GAUGES_MAX: usize = FRAME_SERIES_MAX;

/// Request counters one connection may intern: as many as an agent's segments may publish.
pub const CONNECTION_REQUESTS_MAX: usize = AGENT_SEGMENTS_MAX * SEGMENT_REQUESTS_MAX;

/// Gauges one connection may intern: as many as an agent's segments may publish.
pub const CONNECTION_GAUGES_MAX: usize = AGENT_SEGMENTS_MAX * SEGMENT_GAUGES_MAX;

/// Labels in one HELLO.
pub const LABELS_MAX: usize = 16;

/// Longest reason in a REFUSE, bytes.
pub const REASON_BYTES_MAX: usize = 200;

/// Extension bytes in one HELLO or WELCOME.
pub const EXTENSION_BYTES_MAX: usize = 4_096;

/// Largest fixed part of a DELTA body, bytes: start, five numbers, three counts.
pub(crate) const DELTA_HEAD_BYTES_MAX: usize = 8 + 5 * 10 + 3 * 5;

const _: () = {
    assert!(FRAME_BYTES_MAX <= u32::MAX as usize);
    assert!(FRAME_BYTES_MIN <= FRAME_BYTES_MAX);
    // A frame of the smallest allowed size holds the head, one id and the worst block.
    assert!(DELTA_HEAD_BYTES_MAX + 5 + BLOCK_BYTES_MAX <= FRAME_BYTES_MIN);
    // Every dictionary fits its segments' worth of names.
    assert!(CONNECTION_SERIES_MAX <= u32::MAX as usize);
    assert!(CONNECTION_INSTANCES_MAX >= AGENT_SEGMENTS_MAX);
    // Lengths of names, slices and reasons fit their one-byte prefix.
    assert!(NAME_BYTES_MAX <= 255 && REASON_BYTES_MAX <= 255);
    assert!(3 * SLICE_PART_BYTES_MAX + 2 <= 255 && LABELS_MAX <= 255);
};
