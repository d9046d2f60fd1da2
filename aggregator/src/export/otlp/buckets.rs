//! Re-bucketing: the counters of our layout as base-2 exponential buckets of seconds.
//!
//! Every counter goes whole into the bucket its middle falls in. That is linear, so the buckets of a
//! sum are the sum of the buckets, whichever way series were merged before; a split of a counter
//! over two buckets would have to round and would not be.
//! Bucket `i` of scale `s` holds (b^i, b^(i+1)] seconds with b = 2^(2^-s). A latency read from the
//! bucket is within [`error_max`] of the recorded one, and within one bucket width (b − 1) of the
//! middle that our own API reports. Latencies above range count in the bucket of 68.7 s.
//! Source: OpenTelemetry metrics data model, ExponentialHistogram.

use lens_hist::Counts;
use lens_hist::layout::{SLOTS, mid};

/// Widest half of a counter of ours, as a share of its value.
const HALF_COUNTER: f64 = 1.0 / 256.0;

/// Where each counter goes at one scale.
#[derive(Clone, Debug)]
pub struct Buckets {
    scale: u8,
    /// The bucket of each counter's middle. Counter 0, whose middle is no time at all, has none.
    of: Box<[i32]>,
}

/// Counts in exponential buckets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// Latencies of 0 s.
    pub zero: u64,
    /// The bucket that the first of `counts` is of.
    pub offset: i32,
    /// Counts of consecutive buckets; the first and the last are above 0.
    pub counts: Vec<u64>,
}

impl Buckets {
    /// The buckets of a scale from 0, 100 % wide, to 8, 0.27 % wide: narrower than our counters.
    pub fn new(scale: u8) -> Self {
        let of = (0..SLOTS).map(|counter| bucket_of(mid(counter), scale)).collect();
        Self { scale, of }
    }

    /// The scale.
    pub fn scale(&self) -> i32 {
        i32::from(self.scale)
    }

    /// The counts of a histogram, each in its bucket.
    pub fn spread(&self, counts: &Counts) -> Spread {
        let slots = counts.slots();
        let held = || (1..SLOTS).filter(|counter| slots[*counter] > 0);
        let mut spread = Spread { zero: slots[0], ..Spread::default() };
        // Buckets ascend with counters.
        let (Some(first), Some(last)) = (held().next(), held().next_back()) else { return spread };
        spread.offset = self.of[first];
        let place = |counter: usize| usize::try_from(self.of[counter] - self.of[first]);
        spread.counts = vec![0; place(last).unwrap_or(0) + 1];
        for counter in held() {
            let bucket = &mut spread.counts[place(counter).unwrap_or(0)];
            *bucket = bucket.saturating_add(slots[counter]);
        }
        spread
    }
}

/// Largest relative difference between a recorded latency of 128 ns or more and any point of the
/// bucket it is counted in: half a counter and one bucket. 2.6 % at scale 5.
pub fn error_max(scale: u8) -> f64 {
    base(scale) * (1.0 + HALF_COUNTER) - 1.0
}

fn base(scale: u8) -> f64 {
    2_f64.powi(-i32::from(scale)).exp2()
}

/// The upper end of a bucket, seconds.
fn upper(bucket: i32, scale: u8) -> f64 {
    (f64::from(bucket + 1) / f64::from(1_u32 << scale)).exp2()
}

/// The bucket of a latency; without meaning for 0.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
fn bucket_of(nanos: u64, scale: u8) -> i32 {
    let seconds = nanos.max(1) as f64 / 1e9;
    let mut bucket = (seconds.log2() * f64::from(1_u32 << scale)).ceil() as i32 - 1;
    // The logarithm may be off in its last digit; the ends of buckets decide.
    while seconds > upper(bucket, scale) {
        bucket += 1;
    }
    while seconds <= upper(bucket - 1, scale) {
        bucket -= 1;
    }
    bucket
}

#[cfg(test)]
mod tests {
    use super::*;
    use lens_hist::Quantile;
    use lens_hist::layout::{COUNTERS, OVERFLOW, high, low};
    use proptest::prelude::*;

    fn counted(values: &[u64]) -> Counts {
        let mut counts = Counts::new();
        values.iter().for_each(|&value| counts.record(value));
        counts
    }

    fn total(spread: &Spread) -> u64 {
        spread.zero + spread.counts.iter().sum::<u64>()
    }

    #[test]
    fn every_counters_middle_lies_in_the_bucket_it_goes_to_at_every_scale() {
        for scale in 0..=8 {
            let buckets = Buckets::new(scale);
            for counter in 1..SLOTS {
                let (at, seconds) = (buckets.of[counter], mid(counter) as f64 / 1e9);
                let (from, to) = (upper(at - 1, scale), upper(at, scale));
                assert!(from < seconds && seconds <= to, "{seconds} not in ({from}, {to}]");
            }
        }
    }

    #[test]
    fn no_point_of_a_bucket_is_further_from_a_latency_in_it_than_the_bound() {
        for scale in 0..=8 {
            let buckets = Buckets::new(scale);
            for counter in 128..COUNTERS {
                let at = buckets.of[counter];
                for exact in [low(counter) as f64 / 1e9, high(counter) as f64 / 1e9] {
                    for read in [upper(at - 1, scale), upper(at, scale)] {
                        let off = (read - exact).abs() / exact;
                        assert!(off <= error_max(scale), "scale {scale}, {exact}: {off}");
                    }
                }
            }
        }
        assert!((0.0258..0.0260).contains(&error_max(5)), "{}", error_max(5));
    }

    #[test]
    fn powers_of_two_of_a_second_belong_to_the_bucket_below() {
        // (b^i, b^(i+1)]: 1 s = b^0 ends bucket -1.
        for scale in 0..=8 {
            assert_eq!(bucket_of(1_000_000_000, scale), -1);
            assert_eq!(bucket_of(1_000_000_001, scale), 0);
            assert_eq!(bucket_of(2_000_000_000, scale), (1 << scale) - 1);
            assert_eq!(bucket_of(500_000_000, scale), -(1 << scale) - 1);
        }
    }

    #[test]
    fn what_is_above_range_and_what_took_no_time_are_counted() {
        let buckets = Buckets::new(5);
        let spread = buckets.spread(&counted(&[0, 0, 1, u64::MAX]));
        assert_eq!((spread.zero, total(&spread)), (2, 4));
        assert_eq!(*spread.counts.last().unwrap(), 1);
        let last = spread.offset + i32::try_from(spread.counts.len()).unwrap() - 1;
        assert_eq!(last, buckets.of[OVERFLOW]);
        assert_eq!(buckets.spread(&Counts::new()), Spread::default());
    }

    proptest! {
        #[test]
        fn the_buckets_of_a_sum_are_the_sum_of_the_buckets(
            a in prop::collection::vec(0_u64..1 << 37, 1..200),
            b in prop::collection::vec(0_u64..1 << 37, 1..200),
            scale in 0_u8..=8,
        ) {
            let buckets = Buckets::new(scale);
            let mut both = counted(&a);
            both.merge(&counted(&b));
            let mut sum = std::collections::BTreeMap::new();
            let mut zero = 0;
            for part in [&a, &b] {
                let spread = buckets.spread(&counted(part));
                zero += spread.zero;
                for (at, count) in (spread.offset..).zip(spread.counts) {
                    *sum.entry(at).or_insert(0) += count;
                }
            }
            let spread = buckets.spread(&both);
            prop_assert_eq!(spread.zero, zero);
            prop_assert_eq!(total(&spread), both.total());
            for (at, count) in (spread.offset..).zip(spread.counts) {
                prop_assert_eq!(sum.get(&at).copied().unwrap_or(0), count);
            }
        }

        #[test]
        fn a_quantile_of_the_api_lies_in_the_bucket_of_its_rank(
            values in prop::collection::vec(1_000_u64..1 << 35, 400..800),
        ) {
            let counts = counted(&values);
            let spread = Buckets::new(5).spread(&counts);
            for quantile in [Quantile::P50, Quantile::P95, Quantile::P99] {
                let rank = quantile.rank(counts.total());
                let mut below = spread.zero;
                let mut at = spread.offset;
                for count in &spread.counts {
                    below += count;
                    if below >= rank {
                        break;
                    }
                    at += 1;
                }
                let api = counts.quantile(quantile).value.unwrap().as_secs_f64();
                prop_assert!(upper(at - 1, 5) < api && api <= upper(at, 5));
            }
        }
    }
}
