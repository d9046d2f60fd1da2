//! The bucket layout: which counter a latency falls in, and which latencies a counter stands for.
//!
//! Values below 256 ns have a counter each. Above, every octave [2^k, 2^(k+1)) is cut into 128
//! equal parts. One counter more, [`OVERFLOW`], holds what is longer than [`LATENCY_NANOS_MAX`]:
//! it is counted, and known to be above range, rather than clamped into the last bucket.
//! Source: HdrHistogram's `counts_index`; `tests` hold it against the `hdrhistogram` crate.

use lens_model::limits::{HISTOGRAM_COUNTERS, LATENCY_NANOS_MAX};

/// Counters with bounds of their own.
pub const COUNTERS: usize = HISTOGRAM_COUNTERS;

/// Index of the counter for latencies above [`LATENCY_NANOS_MAX`].
pub const OVERFLOW: usize = COUNTERS;

/// All counters, the overflow one included.
pub const SLOTS: usize = COUNTERS + 1;

/// Sub-buckets of one octave.
const SUB_BUCKETS_LOG2: u32 = 7;

/// The counter of a latency; [`OVERFLOW`] for one above range. Never out of `0..SLOTS`.
///
/// Branch-free but for the clamp: the octave is the position of the highest bit, and below 256 ns
/// the octave is held at that of 128..256, where a sub-bucket is 1 ns wide.
#[inline(always)]
#[allow(clippy::cast_possible_truncation)]
pub const fn index_of(nanos: u64) -> usize {
    let clamped = if nanos > LATENCY_NANOS_MAX { LATENCY_NANOS_MAX + 1 } else { nanos };
    let octave = 63 - (clamped | 255).leading_zeros() - SUB_BUCKETS_LOG2;
    ((octave as usize) << SUB_BUCKETS_LOG2) + (clamped >> octave) as usize
}

/// The smallest latency counted at `index`, nanoseconds. For [`OVERFLOW`] that is 2^36.
#[inline]
pub const fn low(index: usize) -> u64 {
    let (octave, sub) = split(index);
    (sub as u64) << octave
}

/// The largest latency counted at `index`, nanoseconds. For [`OVERFLOW`] that is `u64::MAX`.
#[inline]
pub const fn high(index: usize) -> u64 {
    if index >= OVERFLOW {
        return u64::MAX;
    }
    let (octave, sub) = split(index);
    ((sub as u64 + 1) << octave) - 1
}

/// The value reported for a sample counted at `index`, nanoseconds: the middle of its bucket.
#[inline]
pub const fn mid(index: usize) -> u64 {
    if index >= OVERFLOW {
        return low(OVERFLOW);
    }
    let (octave, sub) = split(index);
    ((sub as u64) << octave) + ((1_u64 << octave) >> 1)
}

const fn split(index: usize) -> (u32, usize) {
    let index = if index > OVERFLOW { OVERFLOW } else { index };
    let half = 1 << SUB_BUCKETS_LOG2;
    if index < 2 * half {
        return (0, index);
    }
    let octave = (index >> SUB_BUCKETS_LOG2) - 1;
    #[allow(clippy::cast_possible_truncation)]
    (octave as u32, index - (octave << SUB_BUCKETS_LOG2))
}

const _: () = {
    assert!(index_of(0) == 0);
    assert!(index_of(255) == 255);
    assert!(index_of(256) == 256);
    assert!(index_of(LATENCY_NANOS_MAX) == COUNTERS - 1);
    assert!(index_of(LATENCY_NANOS_MAX + 1) == OVERFLOW);
    assert!(index_of(u64::MAX) == OVERFLOW);
    assert!(high(COUNTERS - 1) == LATENCY_NANOS_MAX);
    assert!(low(OVERFLOW) == LATENCY_NANOS_MAX + 1);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counters_bounds_lead_back_to_it_and_leave_no_gap() {
        for index in 0..SLOTS {
            assert_eq!(index_of(low(index)), index);
            assert_eq!(index_of(high(index)), index);
            assert_eq!(index_of(mid(index)), index);
            if index > 0 {
                assert_eq!(high(index - 1) + 1, low(index));
            }
        }
    }

    #[test]
    fn no_bucket_is_wider_than_0_79_percent_of_its_value() {
        for index in 128..COUNTERS {
            let width = high(index) - low(index) + 1;
            assert!(width as f64 <= 0.0079 * low(index) as f64, "bucket {index} of {width} ns");
        }
    }
}
