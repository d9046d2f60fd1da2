//! Where everything lies in a segment file: constants, offsets, and the relations between them.
//!
//! Why a type: writer and reader compute every offset from the same two numbers (shards, series),
//! so the reader never follows an offset that the file claims.
//! Units: bytes from the start of the file. Source: docs/segment.md, "Layout".

use lens_hist::layout::SLOTS;
use lens_model::limits::{
    NAME_BYTES_MAX, SEGMENT_EXEMPLARS_MAX, SEGMENT_GAUGES_MAX, SEGMENT_REQUESTS_MAX,
    SEGMENT_SERIES_MAX, SEGMENT_SHARDS_MAX, SLICE_PART_BYTES_MAX,
};

/// First eight bytes of a segment.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"LENSSEG1");
/// A reader refuses another major layout and reads a newer minor one.
pub(crate) const LAYOUT_MAJOR: u16 = 1;
/// Raised when something is added in space that was zero before.
/// 1: exemplars in the header page.
pub(crate) const LAYOUT_MINOR: u16 = 1;
/// Written in the writer's byte order.
pub(crate) const BYTE_ORDER: u32 = 0x0102_0304;

/// The unit of the file's parts, and of `fallocate`.
pub(crate) const PAGE: usize = 4_096;
/// Bytes of the header.
pub(crate) const HEADER_BYTES: usize = PAGE;
/// The flag page follows the header, at the same place in every segment.
pub(crate) const FLAGS_OFFSET: usize = HEADER_BYTES;
/// Bytes of the flag page.
pub(crate) const FLAGS_BYTES: usize = PAGE;
/// The series catalogue follows the flag page.
pub(crate) const SERIES_OFFSET: usize = FLAGS_OFFSET + FLAGS_BYTES;
/// Bytes of one catalogue entry: three cache lines.
pub(crate) const SERIES_ENTRY_BYTES: usize = 192;
/// Bytes of one request counter entry: three cache lines.
pub(crate) const REQUESTS_ENTRY_BYTES: usize = 192;
/// Bytes of one gauge entry: two cache lines.
pub(crate) const GAUGE_ENTRY_BYTES: usize = 128;

/// Bytes of one exemplar: a cache line.
pub(crate) const EXEMPLAR_BYTES: usize = 64;

/// Bytes of one block's counters that mean something.
pub(crate) const BLOCK_BYTES: usize = SLOTS * 4;
/// Distance of two blocks: 241 cache lines. Odd in lines, so equal counters of neighbouring shards
/// never share a cache set, as they would at a multiple of 4,096.
pub(crate) const BLOCK_STRIDE: usize = 15_424;

/// Header field offsets. All fields but the last group are constant once the file has its name.
pub(crate) mod at {
    pub(crate) const MAGIC: usize = 0;
    pub(crate) const MAJOR: usize = 8;
    pub(crate) const MINOR: usize = 10;
    pub(crate) const HEADER_BYTES: usize = 12;
    pub(crate) const TOTAL_BYTES: usize = 16;
    pub(crate) const BYTE_ORDER: usize = 24;
    pub(crate) const SHARDS: usize = 28;
    pub(crate) const SERIES_MAX: usize = 32;
    pub(crate) const REQUESTS_MAX: usize = 36;
    pub(crate) const GAUGES_MAX: usize = 40;
    pub(crate) const BLOCK_STRIDE: usize = 44;
    pub(crate) const BLOCK_SLOTS: usize = 48;
    pub(crate) const ARM: usize = 52;
    pub(crate) const FLAGS_OFFSET: usize = 56;
    pub(crate) const SERIES_OFFSET: usize = 64;
    pub(crate) const REQUESTS_OFFSET: usize = 72;
    pub(crate) const GAUGES_OFFSET: usize = 80;
    pub(crate) const BLOCKS_OFFSET: usize = 88;
    pub(crate) const INCARNATION: usize = 96;
    pub(crate) const BOOT_ID: usize = 112;
    pub(crate) const PID: usize = 128;
    pub(crate) const START_TICKS: usize = 136;
    pub(crate) const CREATED: usize = 144;
    pub(crate) const SERVICE: usize = 160;
    pub(crate) const VERSION: usize = 232;
    pub(crate) const INSTANCE: usize = 304;
    /// Start of the line that changes while the segment lives; the reader copies it each harvest.
    pub(crate) const LIVE: usize = 512;
    pub(crate) const STATE: usize = 512;
    pub(crate) const SERIES_LEN: usize = 516;
    pub(crate) const REQUESTS_LEN: usize = 520;
    pub(crate) const GAUGES_LEN: usize = 524;
    pub(crate) const SHARDS_USED: usize = 528;
    /// Bytes of the live line.
    pub(crate) const LIVE_BYTES: usize = 64;
    /// How many exemplars were ever written, and how many places were given. On a line of their own.
    /// Minor version 1 on.
    pub(crate) const EXEMPLARS_WRITTEN: usize = 576;
    pub(crate) const EXEMPLARS_PLACED: usize = 584;
    /// The ring of exemplars. Minor version 1 on.
    pub(crate) const EXEMPLARS: usize = 640;
    /// The incarnation once more, in the last 16 bytes.
    pub(crate) const INCARNATION_AGAIN: usize = 4_080;
}

/// Field offsets in the flag page, each word read on its own.
pub(crate) mod flag_at {
    pub(crate) const GENERATION: usize = 0;
    pub(crate) const BITS: usize = 8;
    pub(crate) const CANARY: usize = 16;
    /// Who has read the segment, 16 bytes: the agent's alone, on a cache line of its own.
    pub(crate) const READER: usize = 64;
}

/// The two numbers that fix a segment's whole layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    shards: usize,
    series_max: usize,
}

impl Geometry {
    /// A layout, or none when a number is zero or above its limit.
    pub(crate) const fn new(shards: usize, series_max: usize) -> Option<Self> {
        if shards == 0
            || shards > SEGMENT_SHARDS_MAX
            || series_max == 0
            || series_max > SEGMENT_SERIES_MAX
        {
            return None;
        }
        Some(Self { shards, series_max })
    }

    pub(crate) const fn shards(self) -> usize {
        self.shards
    }

    pub(crate) const fn series_max(self) -> usize {
        self.series_max
    }

    /// The shard that threads without one of their own share: the last.
    pub(crate) const fn shared_shard(self) -> usize {
        self.shards - 1
    }

    pub(crate) const fn requests_offset(self) -> usize {
        SERIES_OFFSET + page_up(self.series_max * SERIES_ENTRY_BYTES)
    }

    pub(crate) const fn gauges_offset(self) -> usize {
        self.requests_offset() + page_up(SEGMENT_REQUESTS_MAX * REQUESTS_ENTRY_BYTES)
    }

    /// Where the blocks begin: the end of the header and all tables.
    pub(crate) const fn blocks_offset(self) -> usize {
        self.gauges_offset() + page_up(SEGMENT_GAUGES_MAX * GAUGE_ENTRY_BYTES)
    }

    /// Bytes of one series: a block for each shard.
    pub(crate) const fn chunk_bytes(self) -> usize {
        self.shards * BLOCK_STRIDE
    }

    /// Where the blocks of one series begin.
    pub(crate) const fn chunk_offset(self, series: usize) -> usize {
        self.blocks_offset() + series * self.chunk_bytes()
    }

    pub(crate) const fn block_offset(self, series: usize, shard: usize) -> usize {
        self.chunk_offset(series) + shard * BLOCK_STRIDE
    }

    pub(crate) const fn series_entry(series: usize) -> usize {
        SERIES_OFFSET + series * SERIES_ENTRY_BYTES
    }

    pub(crate) const fn requests_entry(self, index: usize) -> usize {
        self.requests_offset() + index * REQUESTS_ENTRY_BYTES
    }

    pub(crate) const fn gauge_entry(self, index: usize) -> usize {
        self.gauges_offset() + index * GAUGE_ENTRY_BYTES
    }

    /// Bytes of the whole file.
    pub(crate) const fn total_bytes(self) -> usize {
        page_up(self.chunk_offset(self.series_max))
    }
}

const fn page_up(bytes: usize) -> usize {
    bytes.div_ceil(PAGE) * PAGE
}

const _: () = {
    assert!(usize::BITS == 64, "offsets of a full segment need 64-bit addresses");
    // A block holds its counters, begins on a cache line and never repeats a page's cache sets.
    assert!(BLOCK_BYTES <= BLOCK_STRIDE);
    assert!(BLOCK_STRIDE.is_multiple_of(64) && !(BLOCK_STRIDE / 64).is_multiple_of(2));
    // Tables begin and end on pages, so entries never share a line with something else.
    assert!(PAGE.is_multiple_of(64) && SERIES_OFFSET.is_multiple_of(PAGE));
    // Entries hold their longest names: 8 bytes of head, three parts, 8 bytes of check.
    assert!(8 + 3 * SLICE_PART_BYTES_MAX + 8 <= SERIES_ENTRY_BYTES);
    assert!(16 + 8 + 3 * SLICE_PART_BYTES_MAX + 8 <= REQUESTS_ENTRY_BYTES);
    assert!(8 + 8 + NAME_BYTES_MAX + 8 <= GAUGE_ENTRY_BYTES);
    // Header fields do not run into each other.
    assert!(at::SERVICE + 1 + NAME_BYTES_MAX <= at::VERSION);
    assert!(at::VERSION + 1 + NAME_BYTES_MAX <= at::INSTANCE);
    assert!(at::INSTANCE + 1 + NAME_BYTES_MAX <= at::LIVE);
    assert!(at::LIVE.is_multiple_of(64) && at::SHARDS_USED.is_multiple_of(8));
    assert!(at::SHARDS_USED + 8 <= at::LIVE + at::LIVE_BYTES);
    assert!(at::EXEMPLARS_WRITTEN == at::LIVE + at::LIVE_BYTES);
    assert!(at::EXEMPLARS == at::EXEMPLARS_WRITTEN + 64);
    assert!(at::EXEMPLARS + SEGMENT_EXEMPLARS_MAX * EXEMPLAR_BYTES <= at::INCARNATION_AGAIN);
    assert!(at::INCARNATION_AGAIN + 16 == HEADER_BYTES);
    // One bit for each shard in the used mask.
    assert!(SEGMENT_SHARDS_MAX <= 64);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_of_a_given_size_never_moves() {
        let small = Geometry::new(4, 256).unwrap();
        assert_eq!(small.requests_offset(), 57_344);
        assert_eq!(small.gauges_offset(), 81_920);
        assert_eq!(small.blocks_offset(), 90_112);
        assert_eq!(small.chunk_bytes(), 61_696);
        assert_eq!(small.block_offset(1, 2), 90_112 + 61_696 + 30_848);
        assert_eq!(small.total_bytes(), 15_884_288);
    }

    #[test]
    fn limits_hold_at_the_limit() {
        assert!(Geometry::new(SEGMENT_SHARDS_MAX, SEGMENT_SERIES_MAX).is_some());
        assert!(Geometry::new(SEGMENT_SHARDS_MAX + 1, 1).is_none());
        assert!(Geometry::new(1, SEGMENT_SERIES_MAX + 1).is_none());
        assert!(Geometry::new(0, 1).is_none());
        assert!(Geometry::new(1, 0).is_none());
    }
}
