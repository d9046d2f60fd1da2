//! The sparse form of a histogram: a few bytes that say exactly which counters hold what.
//!
//! Two shapes, the encoder choosing whichever suits the counts:
//! - *Spread* (few samples): the sorted counter indices, repeats included, in Elias-Fano coding –
//!   about 2 + log2(range / samples) bits a sample, close to the entropy of such data.
//! - *Pages* (many samples): for each touched page of 64 counters either a list of 6-bit
//!   positions, or the counts as bit planes (eight buckets a table look-up when decoding), or
//!   plain varints for counts beyond 255.
//!
//! docs/wire.md, section "Blocks", gives the bytes; requirement numbers stand at the code.
//! Promise: [`BlockRef::parse`] takes any bytes and gives a block whose every index and count is
//! known to be valid, or a typed refusal; merging a parsed block cannot fail. Sizes: at most
//! `BLOCK_BYTES_MAX`. Cost and size beside other encodings: benches/history.

mod pages;
mod spread;
mod varint;

use lens_model::limits::BLOCK_BYTES_MAX;
use thiserror::Error;

use crate::counts::Counts;
use crate::paged::PagedCounts;
use crate::sparse::Sparse;

pub use varint::{put_varint, take_varint, varint_len};

/// Largest sample count in the spread shape: beyond it pages decode faster.
const SPREAD_SAMPLES_MAX: u64 = 256;

/// Largest sample count the spread shape may hold: taken for it when all samples are alike, which
/// then are five bytes.
const SPREAD_SAMPLES_LIMIT: u64 = 1_024;

/// Why bytes are not a block. Every variant means the sender is at fault; nothing was merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BlockError {
    /// The bytes end inside the block.
    #[error("block ends early")]
    Truncated,
    /// A number is longer than it may be.
    #[error("block holds a malformed number")]
    Varint,
    /// An index beyond the overflow counter.
    #[error("block counts beyond the last counter")]
    Index,
    /// The counts do not add up to the total declared in front of them.
    #[error("block declares {declared} samples but holds {found}")]
    Total {
        /// What the block says it holds.
        declared: u64,
        /// What it holds.
        found: u64,
    },
    /// A page code or sample count that this version does not define.
    #[error("block holds a reserved code")]
    Reserved,
    /// The block is larger than `BLOCK_BYTES_MAX`.
    #[error("block is larger than {BLOCK_BYTES_MAX} bytes")]
    TooLarge,
}

/// A block that has been checked: its indices are in range and its counts add up.
#[derive(Clone, Copy, Debug)]
pub struct BlockRef<'a> {
    total: u64,
    shape: Shape<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Shape<'a> {
    Spread(spread::Spread<'a>),
    Pages(pages::Pages<'a>),
}

impl<'a> BlockRef<'a> {
    /// Checks the block at the front of `bytes` and gives it with what follows it.
    ///
    /// # Errors
    /// Any [`BlockError`]: the bytes are not a block this version defines.
    pub fn parse(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), BlockError> {
        let (head, rest) = take_varint(bytes)?;
        let total = head >> 1;
        let (shape, rest) = if head & 1 == 0 {
            let (spread, rest) = spread::Spread::parse(total, rest)?;
            (Shape::Spread(spread), rest)
        } else {
            let (pages, rest) = pages::Pages::parse(total, rest)?;
            (Shape::Pages(pages), rest)
        };
        if bytes.len() - rest.len() > BLOCK_BYTES_MAX {
            return Err(BlockError::TooLarge);
        }
        Ok((Self { total, shape }, rest))
    }

    /// The block at the front of bytes that [`BlockRef::parse`] has accepted before, with what
    /// follows it: only where it ends is found again, its content is not checked again.
    ///
    /// Total all the same: of other bytes it gives none, or a block with counts that mean nothing.
    pub fn known(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (head, rest) = take_varint(bytes).ok()?;
        let total = head >> 1;
        let (shape, rest) = if head & 1 == 0 {
            let (spread, rest) = spread::Spread::known(total, rest).ok()?;
            (Shape::Spread(spread), rest)
        } else {
            let (pages, rest) = pages::Pages::known(rest).ok()?;
            (Shape::Pages(pages), rest)
        };
        Some((Self { total, shape }, rest))
    }

    /// The sum of all counts.
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// Calls `each` with counter index and count; indices come in ascending order, and one may
    /// come more than once.
    pub fn for_each(&self, mut each: impl FnMut(usize, u64)) {
        match &self.shape {
            Shape::Spread(spread) => spread.for_each(|index| each(index, 1)),
            Shape::Pages(pages) => pages.for_each(each),
        }
    }

    /// Adds the counts to an open window.
    pub fn merge_into(&self, window: &mut PagedCounts) {
        if !window.make_room(self.total) {
            return self.for_each(|index, count| window.add(index, count));
        }
        match &self.shape {
            Shape::Spread(spread) => spread.merge_into(window),
            Shape::Pages(pages) => pages.merge_into(window),
        }
    }

    /// Adds the counts to a dense histogram.
    pub fn merge_into_dense(&self, counts: &mut Counts) {
        self.for_each(|index, count| counts.add(index, count));
    }

    /// The counts as a sparse histogram.
    pub fn to_sparse(&self) -> Sparse {
        let mut sparse = Sparse::new();
        let mut run: Option<(usize, u64)> = None;
        self.for_each(|index, count| match &mut run {
            Some((last, sum)) if *last == index => *sum = sum.saturating_add(count),
            _ => {
                if let Some((last, sum)) = run.replace((index, count)) {
                    sparse.push(last, sum);
                }
            }
        });
        if let Some((last, sum)) = run {
            sparse.push(last, sum);
        }
        sparse
    }
}

/// Appends the block of `counts` to `out`.
pub fn encode(counts: &Sparse, out: &mut Vec<u8>) {
    let total = counts.total();
    if total == 0 {
        out.push(0);
        return;
    }
    if prefer_spread(counts) {
        put_varint(out, total << 1);
        spread::encode(counts, out);
    } else {
        put_varint(out, total << 1 | 1);
        pages::encode(counts, out);
    }
}

fn prefer_spread(counts: &Sparse) -> bool {
    let samples = counts.total();
    samples <= SPREAD_SAMPLES_MAX
        || (samples <= SPREAD_SAMPLES_LIMIT && counts.entries().len() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{OVERFLOW, SLOTS};
    use proptest::prelude::*;

    fn round_trip(sparse: &Sparse) -> usize {
        let mut bytes = Vec::new();
        encode(sparse, &mut bytes);
        let length = bytes.len();
        bytes.extend([0xAB, 0xCD]);
        let (block, rest) = BlockRef::parse(&bytes).unwrap();
        assert_eq!(rest, [0xAB, 0xCD]);
        assert_eq!(block.total(), sparse.total());
        assert_eq!(&block.to_sparse(), sparse);
        let mut paged = PagedCounts::new();
        block.merge_into(&mut paged);
        assert_eq!(&paged.to_sparse(), sparse);
        let (again, rest) = BlockRef::known(&bytes).unwrap();
        assert_eq!(rest, [0xAB, 0xCD]);
        assert_eq!((again.total(), &again.to_sparse()), (sparse.total(), sparse));
        length
    }

    fn sparse_of(mut counts: Vec<(usize, u64)>) -> Sparse {
        counts.sort_unstable();
        counts.dedup_by_key(|entry| entry.0);
        let mut sparse = Sparse::new();
        counts.into_iter().for_each(|(index, count)| sparse.push(index, count));
        sparse
    }

    proptest! {
        #[test]
        fn any_counts_come_back_from_their_block(
            counts in prop::collection::vec((0..SLOTS, 1_u64..=1 << 40), 0..400),
        ) {
            round_trip(&sparse_of(counts));
        }

        #[test]
        fn small_counts_come_back_from_their_block(
            start in 0_usize..3_000,
            counts in prop::collection::vec((0_usize..700, 1_u64..=9), 0..300),
        ) {
            round_trip(&sparse_of(counts.into_iter().map(|(i, n)| (start + i, n)).collect()));
        }

        #[test]
        fn any_bytes_are_a_block_or_a_refusal(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            if let Ok((block, _)) = BlockRef::parse(&bytes) {
                let mut paged = PagedCounts::new();
                block.merge_into(&mut paged);
                prop_assert_eq!(paged.total(), block.total());
            }
        }

        #[test]
        fn bytes_that_were_never_checked_still_merge_without_a_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..600),
        ) {
            if let Some((block, _)) = BlockRef::known(&bytes) {
                let mut paged = PagedCounts::new();
                block.merge_into(&mut paged);
                block.merge_into_dense(&mut Counts::new());
            }
        }

        #[test]
        fn a_window_that_is_nearly_full_saturates_and_holds_what_a_dense_one_does(
            counts in prop::collection::vec((0..SLOTS, 1_u64..=300), 1..200),
        ) {
            let sparse = sparse_of(counts);
            let mut bytes = Vec::new();
            encode(&sparse, &mut bytes);
            let (block, _) = BlockRef::parse(&bytes).unwrap();
            let (mut paged, mut dense) = (PagedCounts::new(), Counts::new());
            let nearly = u64::MAX - 1;
            paged.add(usize::from(sparse.entries()[0].0), nearly);
            dense.add(usize::from(sparse.entries()[0].0), nearly);
            for _ in 0..2 {
                block.merge_into(&mut paged);
                block.merge_into_dense(&mut dense);
            }
            prop_assert_eq!(paged.to_sparse(), dense.to_sparse());
            prop_assert_eq!(paged.total(), dense.total());
        }

        #[test]
        fn a_damaged_block_never_yields_other_than_its_declared_total(
            counts in prop::collection::vec((0..SLOTS, 1_u64..=300), 1..200),
            at in any::<prop::sample::Index>(),
            flip in 1_u8..,
        ) {
            let mut bytes = Vec::new();
            encode(&sparse_of(counts), &mut bytes);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            if let Ok((block, _)) = BlockRef::parse(&bytes) {
                let mut found = 0;
                block.for_each(|index, count| {
                    assert!(index < SLOTS);
                    found += count;
                });
                prop_assert_eq!(found, block.total());
            }
        }
    }

    #[test]
    fn extremes_come_back_and_the_largest_block_keeps_its_bound() {
        round_trip(&sparse_of(vec![]));
        round_trip(&sparse_of(vec![(0, 1)]));
        round_trip(&sparse_of(vec![(OVERFLOW, u64::MAX >> 1)]));
        round_trip(&sparse_of(vec![(0, 1), (OVERFLOW, 1)]));
        let full = sparse_of((0..SLOTS).map(|index| (index, (u64::MAX >> 1) / 3_841)).collect());
        assert!(round_trip(&full) <= BLOCK_BYTES_MAX);
    }

    #[test]
    fn a_block_cut_anywhere_is_refused() {
        for sparse in [
            sparse_of((0..40).map(|i| (i * 37, 1)).collect()),
            sparse_of((0..900).map(|i| (i, 3 + i as u64 % 5)).collect()),
        ] {
            let mut bytes = Vec::new();
            encode(&sparse, &mut bytes);
            for cut in 0..bytes.len() {
                assert!(BlockRef::parse(&bytes[..cut]).is_err(), "cut at {cut}");
            }
        }
    }
}
