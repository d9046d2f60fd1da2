//! The spread shape: sorted indices with repeats, in Elias-Fano coding.
//!
//! `varint first | varint range | high part | low part`. An index is `first + (high << w | low)`
//! with w low bits, w = ⌊log2(range / samples)⌋ (0 when there are more samples than range). The
//! high part writes, for each high value from 0 on, a one per index that has it, then a zero (no
//! zero after the last value); the low part packs the w low bits of each index. Both lowest bit
//! first, each padded with zeros to a byte.

use super::varint::{put_varint, take_varint};
use super::{BlockError, SPREAD_SAMPLES_LIMIT};
use crate::layout::SLOTS;
use crate::paged::PagedCounts;
use crate::sparse::Sparse;

/// Bytes of the low part of most blocks; one less than a power of two.
const NEAR: usize = 127;

#[derive(Clone, Copy, Debug)]
pub(super) struct Spread<'a> {
    samples: usize,
    first: usize,
    low_bits: u32,
    high: &'a [u8],
    low: &'a [u8],
}

/// Low bits of an index for this many samples over this range.
const fn low_bits(samples: usize, range: usize) -> u32 {
    match range / samples {
        0 => 0,
        spacing => spacing.ilog2(),
    }
}

impl<'a> Spread<'a> {
    pub(super) fn parse(total: u64, bytes: &'a [u8]) -> Result<(Self, &'a [u8]), BlockError> {
        let (spread, range, rest) = Self::split(total, bytes)?;
        if range > 0 {
            spread.check(total, range)?;
        }
        Ok((spread, rest))
    }

    /// As [`Spread::parse`], for bytes whose content was checked before.
    pub(super) fn known(total: u64, bytes: &'a [u8]) -> Result<(Self, &'a [u8]), BlockError> {
        Self::split(total, bytes).map(|(spread, _, rest)| (spread, rest))
    }

    /// Takes the parts apart, with the range, which is what lengths follow from.
    fn split(total: u64, bytes: &'a [u8]) -> Result<(Self, usize, &'a [u8]), BlockError> {
        if total > SPREAD_SAMPLES_LIMIT {
            return Err(BlockError::Reserved);
        }
        let empty = Self { samples: 0, first: 0, low_bits: 0, high: &[], low: &[] };
        let samples = usize::try_from(total).map_err(|_| BlockError::Reserved)?;
        if samples == 0 {
            return Ok((empty, 0, bytes));
        }
        let (first, rest) = take_varint(bytes)?;
        let (range, rest) = take_varint(rest)?;
        let last = first.checked_add(range).ok_or(BlockError::Index)?;
        if last >= SLOTS as u64 {
            return Err(BlockError::Index);
        }
        let (first, range) = (index(first)?, index(range)?);
        if range == 0 {
            return Ok((Self { samples, first, ..empty }, 0, rest));
        }
        let low_bits = low_bits(samples, range);
        let high_bits = samples + (range >> low_bits);
        let (high, rest) =
            rest.split_at_checked(high_bits.div_ceil(8)).ok_or(BlockError::Truncated)?;
        let low_bytes = (samples * low_bits as usize).div_ceil(8);
        let (low, rest) = rest.split_at_checked(low_bytes).ok_or(BlockError::Truncated)?;
        Ok((Self { samples, first, low_bits, high, low }, range, rest))
    }

    /// The ones are as many as declared, none lies past the end, and no index past the range.
    fn check(&self, total: u64, range: usize) -> Result<(), BlockError> {
        let high_bits = self.samples + (range >> self.low_bits);
        let found: u64 = words(self.high).map(|word| u64::from(word.count_ones())).sum();
        if found != total {
            return Err(BlockError::Total { declared: total, found });
        }
        let spare = self.high.len() * 8 - high_bits;
        let tail = self.high.last().copied().unwrap_or(0);
        if spare > 0 && tail >> (8 - spare) != 0 {
            return Err(BlockError::Index);
        }
        // Only an index with the highest high value can exceed the range, and those stand last.
        let limit = range & ((1 << self.low_bits) - 1);
        let mut at = high_bits;
        let mut sample = self.samples;
        while at > 0 && self.high[(at - 1) / 8] >> ((at - 1) % 8) & 1 == 1 {
            (at, sample) = (at - 1, sample - 1);
            if self.low_at(sample) > limit {
                return Err(BlockError::Index);
            }
        }
        Ok(())
    }

    fn low_at(&self, sample: usize) -> usize {
        let bits = self.low_bits as usize;
        let start = sample * bits;
        (0..bits).fold(0, |low, bit| {
            let at = start + bit;
            low | usize::from(self.low[at / 8] >> (at % 8) & 1) << bit
        })
    }

    #[inline]
    pub(super) fn for_each(&self, each: impl FnMut(usize)) {
        if self.high.is_empty() {
            std::iter::repeat_n(self.first, self.samples).for_each(each);
        } else if self.low.len() <= NEAR {
            // Most blocks: a copy with zeroes behind, so that no read needs its bounds checked.
            let mut near = [0_u8; NEAR + 4];
            near[..self.low.len()].copy_from_slice(self.low);
            self.walk(each, |byte| {
                let at = byte % (NEAR + 1);
                [near[at], near[at + 1], near[at + 2], near[at + 3]]
            });
        } else {
            let byte = |at: usize| self.low.get(at).copied().unwrap_or(0);
            self.walk(each, |at| match self.low.get(at..).and_then(<[u8]>::first_chunk) {
                Some(four) => *four,
                None => [byte(at), byte(at + 1), byte(at + 2), byte(at + 3)],
            });
        }
    }

    /// Calls `each` with every index; `four` reads four bytes of the low part.
    #[inline]
    fn walk(&self, mut each: impl FnMut(usize), four: impl Fn(usize) -> [u8; 4]) {
        let bits = self.low_bits as usize;
        let mask = (1_u32 << bits) - 1;
        let (mut start, mut at) = (self.first, 0);
        for mut ones in words(self.high) {
            while ones != 0 {
                let high = start.wrapping_add((ones.trailing_zeros() as usize) << bits);
                ones &= ones - 1;
                let low = (u32::from_le_bytes(four(at / 8)) >> (at % 8)) & mask;
                each(high.wrapping_add(low as usize));
                // Each one before stands for a sample, not for a step of the high value.
                start = start.wrapping_sub(1 << bits);
                at += bits;
            }
            start = start.wrapping_add(64 << bits);
        }
    }

    /// Adds the samples to a window that has room for them.
    pub(super) fn merge_into(&self, window: &mut PagedCounts) {
        self.for_each(|index| window.bump(index, 1));
    }
}

/// The bytes eight at a time, lowest first, zeroes behind the last.
fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [0_u8; 8];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    let words = words.iter().map(|word| u64::from_le_bytes(*word));
    words.chain(std::iter::once(u64::from_le_bytes(last)))
}

fn index(value: u64) -> Result<usize, BlockError> {
    usize::try_from(value).map_err(|_| BlockError::Index)
}

/// First index, range and samples of counts that are not empty.
fn span(counts: &Sparse) -> (usize, usize, usize) {
    let entries = counts.entries();
    let first = entries.first().map_or(0, |entry| usize::from(entry.0));
    let last = entries.last().map_or(0, |entry| usize::from(entry.0));
    (first, last - first, usize::try_from(counts.total()).unwrap_or(usize::MAX))
}

/// Appends everything behind the head. `counts` holds 1 to [`SPREAD_SAMPLES_LIMIT`] samples.
pub(super) fn encode(counts: &Sparse, out: &mut Vec<u8>) {
    let (first, range, samples) = span(counts);
    put_varint(out, first as u64);
    put_varint(out, range as u64);
    if range == 0 {
        return;
    }
    let bits = low_bits(samples, range);
    let high_at = out.len();
    let low_at = high_at + (samples + (range >> bits)).div_ceil(8);
    let end = low_at + (samples * bits as usize).div_ceil(8);
    out.resize(end, 0);
    let mask = (1_usize << bits) - 1;
    let (high, low) = out[high_at..].split_at_mut(low_at - high_at);
    let mut low = BitWriter { out: low, pending: 0, bits: 0 };
    // A word of the high part is gathered in a register: its ones are set one after another.
    let (mut word, mut word_at, mut position) = (0_u64, 0, 0);
    for &(index, count) in counts.entries() {
        let offset = usize::from(index) - first;
        for _ in 0..count {
            let at = position + (offset >> bits);
            if at / 64 != word_at {
                put_word(high, word_at, word);
                (word, word_at) = (0, at / 64);
            }
            word |= 1 << (at % 64);
            low.put((offset & mask) as u64, bits);
            position += 1;
        }
    }
    put_word(high, word_at, word);
    low.finish();
}

/// Puts the word numbered `at`, as much of it as there is room for; words not put stay zero.
#[inline]
fn put_word(out: &mut [u8], at: usize, word: u64) {
    let bytes = word.to_le_bytes();
    match out.get_mut(at * 8..).map(|rest| (rest.len(), rest)) {
        Some((8.., rest)) => rest[..8].copy_from_slice(&bytes),
        Some((_, rest)) => rest.iter_mut().zip(bytes).for_each(|(to, from)| *to = from),
        None => {}
    }
}

/// Writes numbers of some bits one behind the other, lowest bit first.
struct BitWriter<'a> {
    out: &'a mut [u8],
    pending: u64,
    bits: u32,
}

impl BitWriter<'_> {
    /// Appends the low `bits` bits of `value`, at most 12.
    #[inline]
    fn put(&mut self, value: u64, bits: u32) {
        self.pending |= value << self.bits;
        self.bits += bits;
        if self.bits >= 32 {
            let (four, rest) = std::mem::take(&mut self.out).split_at_mut(4);
            #[allow(clippy::cast_possible_truncation)]
            four.copy_from_slice(&(self.pending as u32).to_le_bytes());
            self.out = rest;
            self.pending >>= 32;
            self.bits -= 32;
        }
    }

    fn finish(self) {
        let bytes = self.pending.to_le_bytes();
        self.out.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    }
}

const _: () = {
    // The widest low value leaves room beside 31 pending bits.
    assert!(SLOTS.ilog2() <= 12);
};
