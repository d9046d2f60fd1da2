//! A merged histogram as Prometheus holds one: exponential buckets of schema 5, and a short ladder
//! of classic ones for whatever knows no others.
//!
//! Every counter of the layout goes whole to the bucket that holds its middle. That is linear, so
//! the histograms of parts add up to the histogram of the sum exactly, and `rate` over any range is
//! that of the merged counts. Splitting a counter over two buckets would be smoother and is not.
//! Bounds: a quantile read within its exponential bucket is off by at most that bucket's width,
//! 2^(1/32) − 1 = 2.2 %, beside our own reading, and by half a counter more, 0.4 %, beside the truth.
//! Finer schemas gain little, because a counter is 0.8 % wide, and cost twice the buckets each.
//! What was above range stands in the first bucket wholly above it, 69.8 s to 71.4 s.

use std::sync::LazyLock;

use lens_hist::Counts;
use lens_hist::layout::{OVERFLOW, SLOTS, mid};

use crate::exemplars::Exemplar;

/// The resolution: 2^5 buckets an octave.
pub const SCHEMA: i32 = 5;

/// Width of a bucket: latencies in it differ by this factor at most, less 1.
pub const WIDTH: f64 = 0.021_897_148_654_116_7;

/// Latencies up to this count as 0, seconds: 2^-128, less than any that is not 0.
pub const ZERO_THRESHOLD: f64 = 0.5 / (1_u128 << 127) as f64;

/// Upper bounds of the classic buckets, seconds. The default limits of the stages are among them,
/// so that the share within a limit can be read; quantiles between them cannot.
pub const CLASSIC: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.3, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Consecutive buckets: how many are passed over before them, and how many they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Buckets passed over since the last span; the first index for the first one.
    pub offset: i32,
    /// Buckets in it.
    pub length: u32,
}

/// A distribution, cumulative since the store began.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// Samples.
    pub count: u64,
    /// Their sum, seconds, each at the middle of its counter.
    pub sum: f64,
    /// Samples of 0 ns.
    pub zeros: u64,
    /// Samples by exponential bucket, in order; bucket `i` ends at 2^(i/32) s and holds its end.
    pub buckets: Vec<(i32, u64)>,
    /// Samples up to each bound of [`CLASSIC`].
    pub classic: [u64; CLASSIC.len()],
    /// Slow requests among them.
    pub exemplars: Vec<Exemplar>,
}

/// Where each counter of the layout goes; the counter of 0 ns has no bucket.
static PLACES: LazyLock<Vec<i32>> = LazyLock::new(|| {
    let mut places: Vec<i32> = (0..SLOTS).map(|slot| place(seconds(mid(slot)))).collect();
    places[OVERFLOW] = place(seconds(mid(OVERFLOW))) + 1;
    places
});

/// The bucket that holds a positive latency in seconds.
#[allow(clippy::cast_possible_truncation)]
fn place(seconds: f64) -> i32 {
    (libm::log2(seconds) * f64::from(1 << SCHEMA)).ceil() as i32
}

#[allow(clippy::cast_precision_loss)]
fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

impl Histogram {
    /// The distribution of these counts.
    #[allow(clippy::cast_precision_loss)]
    pub fn of(counts: &Counts, exemplars: &[Exemplar]) -> Self {
        let mut own = Self { exemplars: exemplars.to_vec(), ..Self::default() };
        own.sum = counts.sum_nanos() as f64 / 1e9;
        let slots = counts.slots().iter().enumerate().filter(|(_, count)| **count > 0);
        for (slot, &count) in slots {
            own.count = own.count.saturating_add(count);
            let within = seconds(mid(slot));
            for (bound, below) in CLASSIC.iter().zip(&mut own.classic) {
                if within <= *bound {
                    *below = below.saturating_add(count);
                }
            }
            match (slot, own.buckets.last_mut()) {
                (0, _) => own.zeros = count,
                (_, Some((place, held))) if *place == PLACES[slot] => {
                    *held = held.saturating_add(count);
                }
                _ => own.buckets.push((PLACES[slot], count)),
            }
        }
        own
    }

    /// The exponential buckets as the formats hold them: where they are, and each count as what it
    /// is more than the one before.
    pub fn spans(&self) -> (Vec<Span>, Vec<i64>) {
        let mut spans: Vec<Span> = Vec::new();
        let mut deltas = Vec::with_capacity(self.buckets.len());
        let (mut next, mut before) = (0, 0_i64);
        for &(place, count) in &self.buckets {
            match spans.last_mut() {
                Some(span) if place == next => span.length += 1,
                _ => spans.push(Span { offset: place - next, length: 1 }),
            }
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            deltas.push(count - before);
            (next, before) = (place + 1, count);
        }
        (spans, deltas)
    }

    /// The newest exemplar within a classic bucket, by the bucket's place in the ladder.
    pub fn exemplar(&self, at: usize) -> Option<&Exemplar> {
        let low = at.checked_sub(1).map_or(f64::NEG_INFINITY, |below| CLASSIC[below]);
        let high = CLASSIC.get(at).copied().unwrap_or(f64::INFINITY);
        let within = |e: &&Exemplar| e.seconds() > low && e.seconds() <= high;
        self.exemplars.iter().filter(within).max_by_key(|exemplar| exemplar.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lens_hist::Quantile;
    use lens_model::{Nanos, Trace, UnixNanos};
    use proptest::prelude::*;

    fn counted(values: &[u64]) -> Counts {
        let mut counts = Counts::new();
        values.iter().for_each(|value| counts.record(*value));
        counts
    }

    fn end(place: i32) -> f64 {
        libm::exp2(f64::from(place) / f64::from(1 << SCHEMA))
    }

    /// As a query reads it: the value within the first bucket that reaches the rank.
    fn bounds(histogram: &Histogram, q: f64) -> (f64, f64) {
        #[allow(clippy::cast_precision_loss)]
        let rank = q * histogram.count as f64;
        let mut below = histogram.zeros;
        for &(place, count) in &histogram.buckets {
            below += count;
            #[allow(clippy::cast_precision_loss)]
            if below as f64 >= rank {
                return (end(place - 1), end(place));
            }
        }
        (0.0, 0.0)
    }

    #[test]
    fn every_counters_middle_is_within_the_bucket_it_goes_to() {
        for slot in 1..OVERFLOW {
            let (place, value) = (PLACES[slot], seconds(mid(slot)));
            let (low, high) = (end(place - 1), end(place));
            assert!(low * (1.0 - 1e-12) < value && value <= high * (1.0 + 1e-12), "{slot}");
            assert!((high / low - 1.0 - WIDTH).abs() < 1e-12);
        }
        assert!(PLACES[1..].is_sorted());
        assert!((ZERO_THRESHOLD - libm::exp2(-128.0)).abs() < f64::MIN_POSITIVE);
    }

    #[test]
    fn what_is_above_range_stands_in_a_bucket_of_its_own() {
        let histogram = Histogram::of(&counted(&[0, (1 << 36) - 1, 1 << 36, u64::MAX]), &[]);
        assert_eq!((histogram.count, histogram.zeros), (4, 1));
        assert_eq!(histogram.buckets, [(196, 1), (197, 2)]);
        assert!(end(196) > 68.719 && end(197) < 71.4);
        assert_eq!(histogram.classic, [1; CLASSIC.len()]);
    }

    proptest! {
        #[test]
        fn parts_add_up_to_the_whole_exactly(
            a in prop::collection::vec(0_u64..1 << 37, 0..300),
            b in prop::collection::vec(0_u64..1 << 37, 0..300),
        ) {
            let mut both = counted(&a);
            both.merge(&counted(&b));
            let whole = Histogram::of(&both, &[]);
            let mut sum = std::collections::BTreeMap::new();
            for part in [Histogram::of(&counted(&a), &[]), Histogram::of(&counted(&b), &[])] {
                part.buckets.iter().for_each(|(place, n)| *sum.entry(*place).or_default() += n);
            }
            prop_assert_eq!(sum.into_iter().collect::<Vec<(i32, u64)>>(), whole.buckets.clone());
            let held = whole.zeros + whole.buckets.iter().map(|(_, n)| n).sum::<u64>();
            prop_assert_eq!(held, whole.count);
        }

        #[test]
        fn a_quantile_is_in_the_bucket_that_holds_our_own_reading(
            values in prop::collection::vec(1_000_u64..1 << 35, 30..400),
        ) {
            let counts = counted(&values);
            let histogram = Histogram::of(&counts, &[]);
            for q in [0.5, 0.9, 0.95] {
                let estimate = counts.quantile(Quantile::new(q).unwrap());
                let Some(own) = estimate.value else { continue };
                let (low, high) = bounds(&histogram, q);
                let own = own.as_secs_f64();
                prop_assert!(low * (1.0 - 1e-12) < own && own <= high * (1.0 + 1e-12), "{q}");
            }
        }

        #[test]
        fn spans_and_deltas_read_back_as_the_buckets(
            values in prop::collection::vec(1_u64..1 << 36, 0..200),
        ) {
            let histogram = Histogram::of(&counted(&values), &[]);
            let (spans, deltas) = histogram.spans();
            let (mut place, mut count, mut read) = (0, 0, Vec::new());
            let mut deltas = deltas.into_iter();
            for span in spans {
                place += span.offset;
                for _ in 0..span.length {
                    count += deltas.next().unwrap();
                    read.push((place, u64::try_from(count).unwrap()));
                    place += 1;
                }
            }
            prop_assert_eq!(read, histogram.buckets);
        }
    }

    #[test]
    fn a_classic_bucket_shows_the_newest_exemplar_that_falls_into_it() {
        let at = |millis, secs| Exemplar {
            trace: Trace::new([7; 16], [1; 8]).unwrap(),
            latency: Nanos::from_millis(millis),
            at: UnixNanos(secs),
        };
        let exemplars = [at(4, 1), at(5, 9), at(4, 5), at(20_000, 2)];
        let histogram = Histogram::of(&Counts::new(), &exemplars);
        assert_eq!(histogram.exemplar(3), Some(&at(5, 9)), "up to 5 ms");
        assert_eq!(histogram.exemplar(4), None);
        assert_eq!(histogram.exemplar(CLASSIC.len()), Some(&at(20_000, 2)));
        assert_eq!(at(1, 1).trace.id_hex(), "07".repeat(16));
    }
}
