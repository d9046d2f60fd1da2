//! The spread shape: sorted indices with repeats, in Elias-Fano coding.
//!
//! `varint first | varint range | high part | low part`. An index is `first + (high << w | low)`
//! with w low bits, w = ⌊log2(range / samples)⌋ (0 when there are more samples than range). The
//! high part writes, for each high value from 0 on, a one per index that has it, then a zero (no
//! zero after the last value); the low part packs the w low bits of each index. Both lowest bit
//! first, each padded with zeros to a byte.

use super::varint::{put_varint, take_varint, varint_len};
use super::{BlockError, SPREAD_SAMPLES_LIMIT};
use crate::layout::SLOTS;
use crate::sparse::Sparse;

/// Bytes of the low part that a decoder copies so that it can read four at once.
const LOW_BYTES_MAX: usize = 1_536;

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
        if total > SPREAD_SAMPLES_LIMIT {
            return Err(BlockError::Reserved);
        }
        let empty = Self { samples: 0, first: 0, low_bits: 0, high: &[], low: &[] };
        let samples = usize::try_from(total).map_err(|_| BlockError::Reserved)?;
        if samples == 0 {
            return Ok((empty, bytes));
        }
        let (first, rest) = take_varint(bytes)?;
        let (range, rest) = take_varint(rest)?;
        let last = first.checked_add(range).ok_or(BlockError::Index)?;
        if last >= SLOTS as u64 {
            return Err(BlockError::Index);
        }
        let (first, range) = (index(first)?, index(range)?);
        if range == 0 {
            return Ok((Self { samples, first, ..empty }, rest));
        }
        let low_bits = low_bits(samples, range);
        let high_bits = samples + (range >> low_bits);
        let (high, rest) =
            rest.split_at_checked(high_bits.div_ceil(8)).ok_or(BlockError::Truncated)?;
        let low_bytes = (samples * low_bits as usize).div_ceil(8);
        let (low, rest) = rest.split_at_checked(low_bytes).ok_or(BlockError::Truncated)?;
        let spread = Self { samples, first, low_bits, high, low };
        spread.check(total, range, high_bits)?;
        Ok((spread, rest))
    }

    /// The ones are as many as declared, none lies past the end, and no index past the range.
    fn check(&self, total: u64, range: usize, high_bits: usize) -> Result<(), BlockError> {
        let found: u64 = self.high.iter().map(|byte| u64::from(byte.count_ones())).sum();
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
    pub(super) fn for_each(&self, mut each: impl FnMut(usize)) {
        if self.high.is_empty() {
            (0..self.samples).for_each(|_| each(self.first));
            return;
        }
        // The low part with four bytes to spare, so that every read is one aligned-enough load.
        let mut low = [0_u8; LOW_BYTES_MAX + 4];
        low[..self.low.len()].copy_from_slice(self.low);
        let bits = self.low_bits as usize;
        let mask = (1_u32 << bits) - 1;
        let mut sample = 0;
        for (chunk_at, chunk) in self.high.chunks(8).enumerate() {
            let mut word = [0_u8; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            let mut ones = u64::from_le_bytes(word);
            while ones != 0 {
                let position = chunk_at * 64 + ones.trailing_zeros() as usize;
                ones &= ones - 1;
                let at = sample * bits;
                let byte = (at / 8).min(LOW_BYTES_MAX);
                let four =
                    u32::from_le_bytes([low[byte], low[byte + 1], low[byte + 2], low[byte + 3]]);
                let low = (four >> (at % 8)) & mask;
                each(self.first + ((position - sample) << bits) + low as usize);
                sample += 1;
            }
        }
    }
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

/// Bytes [`encode`] appends for these counts.
pub(super) fn encoded_len(counts: &Sparse) -> usize {
    let (first, range, samples) = span(counts);
    let front = varint_len(first as u64) + varint_len(range as u64);
    if range == 0 {
        return front;
    }
    let bits = low_bits(samples, range);
    front + (samples + (range >> bits)).div_ceil(8) + (samples * bits as usize).div_ceil(8)
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
    let mut sample = 0;
    for &(index, count) in counts.entries() {
        let offset = usize::from(index) - first;
        for _ in 0..count {
            let position = sample + (offset >> bits);
            out[high_at + position / 8] |= 1 << (position % 8);
            let at = sample * bits as usize;
            // At most 12 bits from any bit of a byte: three bytes hold them.
            let low = ((offset & mask) << (at % 8)).to_le_bytes();
            for (byte, part) in low.iter().take(3).enumerate().filter(|(_, part)| **part != 0) {
                out[low_at + at / 8 + byte] |= part;
            }
            sample += 1;
        }
    }
}

const _: () = {
    // The widest low part: samples × w with w = ⌊log2(3840 / samples)⌋ is largest near 2^10.
    #[allow(clippy::cast_possible_truncation)]
    let samples = SPREAD_SAMPLES_LIMIT as usize;
    assert!(samples * 12 / 8 <= LOW_BYTES_MAX);
};
