//! Quantiles with the bucket they fell in, and the 95 % interval their sample size allows.
//!
//! The point is the sample of rank ⌈q·n⌉ (Hyndman-Fan type 1), reported as its bucket's middle.
//! The interval is the order-statistic one (David & Nagaraja, Order Statistics, §7.1): two ranks
//! between which the true quantile lies with 95 % probability whatever the distribution, widened
//! to the outer edges of their buckets, so that binning can only make it wider. It speaks of
//! independent samples; what dependence between requests does to it is the judge's business.
//! A quantile without enough samples has no value here, only a count that says why.

use lens_model::Nanos;

use crate::counts::Counts;
use crate::layout::{self, OVERFLOW};

/// Two-sided error of the interval.
const ALPHA: f64 = 0.05;

/// A quantile in parts per million, so that it can be compared and used as a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantile {
    millionths: u32,
}

impl Quantile {
    /// The median.
    pub const P50: Self = Self { millionths: 500_000 };
    /// The 95th percentile.
    pub const P95: Self = Self { millionths: 950_000 };
    /// The 99th percentile.
    pub const P99: Self = Self { millionths: 990_000 };
    /// The 99.9th percentile.
    pub const P99_9: Self = Self { millionths: 999_000 };
    /// The four the system always shows.
    pub const SHOWN: [Self; 4] = [Self::P50, Self::P95, Self::P99, Self::P99_9];

    /// A quantile from a ratio above 0 and below 1, to six decimals; `None` for anything else.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn new(ratio: f64) -> Option<Self> {
        if !(ratio > 0.0 && ratio < 1.0) {
            return None;
        }
        let millionths = (ratio * 1e6).round() as u32;
        (1..1_000_000).contains(&millionths).then_some(Self { millionths })
    }

    /// The ratio, above 0 and below 1.
    pub fn ratio(self) -> f64 {
        f64::from(self.millionths) / 1e6
    }

    /// The rank ⌈q·n⌉ of this quantile among `n` samples, from 1; 0 only when `n` is 0.
    pub fn rank(self, n: u64) -> u64 {
        let rank = (u128::from(n) * u128::from(self.millionths)).div_ceil(1_000_000);
        u64::try_from(rank).unwrap_or(u64::MAX)
    }
}

impl std::fmt::Display for Quantile {
    /// `0.95`, `0.999`: the ratio without trailing zeros.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = format!("{:06}", self.millionths);
        write!(f, "0.{}", digits.trim_end_matches('0'))
    }
}

/// What a histogram says of one quantile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// Samples behind it.
    pub samples: u64,
    /// How many independent ones they are worth.
    pub effective: u64,
    /// The middle of the bucket the sample of rank ⌈q·n⌉ fell in; `None` when they are
    /// worth fewer than [`samples_min`], or when that sample lies above the layout's range.
    pub value: Option<Nanos>,
    /// Smallest latency of that bucket; `None` without a sample.
    pub bucket_low: Option<Nanos>,
    /// Largest latency of that bucket; `None` above range.
    pub bucket_high: Option<Nanos>,
    /// Lower end of the 95 % interval; `None` when no rank is low enough to be one.
    pub low: Option<Nanos>,
    /// Upper end of the 95 % interval; `None` when no rank is high enough to be one.
    pub high: Option<Nanos>,
}

impl Counts {
    /// One quantile with its bucket and interval.
    pub fn quantile(&self, quantile: Quantile) -> Estimate {
        self.quantiles(&[quantile])[0]
    }

    /// Several quantiles in one pass over the counters; the answers stand in the order asked.
    pub fn quantiles(&self, quantiles: &[Quantile]) -> Vec<Estimate> {
        self.quantiles_of_dependent(quantiles, 1.0)
    }

    /// The same of samples that depend on each other so much that `phi` of them are worth one
    /// (anything under 1 is 1): the ranks that enclose the quantile are those of as many independent
    /// samples, carried over to these outwards.
    pub fn quantiles_of_dependent(&self, quantiles: &[Quantile], phi: f64) -> Vec<Estimate> {
        let n = self.total();
        let effective = effective(n, phi);
        let mut ranks = Vec::with_capacity(quantiles.len() * 3);
        for quantile in quantiles {
            let (low, high) = rank_interval(effective, quantile.ratio());
            let low = low.map_or(0, |rank| carried(rank - 1, n, effective, false) + 1);
            let high = high.map_or(0, |rank| carried(rank, n, effective, true).min(n));
            ranks.extend([quantile.rank(n), low, high]);
        }
        let indices = self.indices_of_ranks(&ranks);
        let estimate = |(quantile, found): (&Quantile, &[Option<usize>])| {
            let point = found[0];
            let in_range = |index: &usize| *index < OVERFLOW;
            let enough = effective >= samples_min(*quantile);
            Estimate {
                samples: n,
                effective,
                value: point.filter(in_range).filter(|_| enough).map(|i| Nanos(layout::mid(i))),
                bucket_low: point.map(|i| Nanos(layout::low(i))),
                bucket_high: point.filter(in_range).map(|i| Nanos(layout::high(i))),
                low: found[1].map(|i| Nanos(layout::low(i))),
                high: found[2].filter(in_range).map(|i| Nanos(layout::high(i))),
            }
        };
        quantiles.iter().zip(indices.chunks(3)).map(estimate).collect()
    }

    /// The counters that hold the samples of these ranks (from 1), `None` for rank 0 or above n.
    fn indices_of_ranks(&self, ranks: &[u64]) -> Vec<Option<usize>> {
        let mut order: Vec<usize> = (0..ranks.len()).filter(|&at| ranks[at] > 0).collect();
        order.sort_unstable_by_key(|&at| ranks[at]);
        let mut found = vec![None; ranks.len()];
        let mut wanted = order.into_iter().peekable();
        let mut seen = 0_u64;
        for (index, &count) in self.slots().iter().enumerate().filter(|(_, n)| **n > 0) {
            seen = seen.saturating_add(count);
            while let Some(at) = wanted.next_if(|&at| ranks[at] <= seen) {
                found[at] = Some(index);
            }
            if wanted.peek().is_none() {
                break;
            }
        }
        found
    }
}

/// How many independent samples `n` of them are worth when `phi` count as one.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn effective(n: u64, phi: f64) -> u64 {
    if phi > 1.0 { (n as f64 / phi).floor() as u64 } else { n }
}

/// A rank among `effective` samples as one among `n`, rounded down or up.
fn carried(rank: u64, n: u64, effective: u64, up: bool) -> u64 {
    let (wide, parts) = (u128::from(rank) * u128::from(n), u128::from(effective.max(1)));
    let carried = if up { wide.div_ceil(parts) } else { wide / parts };
    u64::try_from(carried).unwrap_or(u64::MAX)
}

/// Fewest independent samples from which a quantile is sure enough to decide by: ten beyond it.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub fn samples_sure(quantile: Quantile) -> u64 {
    (10.0 / (1.0 - quantile.ratio())).round() as u64
}

/// Fewest samples at which a quantile's 95 % interval has both ends: 6 for p50, 72 for p95, 368
/// for p99, 3,688 for p99.9. Below it the extreme sample is all there is, and is no estimate.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub fn samples_min(quantile: Quantile) -> u64 {
    let tail = quantile.ratio().max(1.0 - quantile.ratio());
    ((ALPHA / 2.0).ln() / tail.ln()).ceil() as u64
}

/// Ranks (from 1) of the order statistics that enclose the `p`-quantile of `n` independent samples
/// with at least 95 % probability; an end is `None` where no rank is extreme enough.
///
/// With B ~ Bin(n, p): the lower rank is the largest l with P(B ≤ l−1) ≤ α/2, the upper the
/// smallest u ≤ n with P(B ≤ u−1) ≥ 1−α/2.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub fn rank_interval(n: u64, p: f64) -> (Option<u64>, Option<u64>) {
    if n == 0 || !(p > 0.0 && p < 1.0) {
        return (None, None);
    }
    let (first, mass) = binomial_mass(n, p);
    let (mut low, mut high) = (None, None);
    let mut cumulated = 0.0;
    for (step, probability) in mass.iter().enumerate() {
        cumulated += probability;
        // `cumulated` is P(B ≤ k) with k = l−1 = u−1.
        let rank = first + step as u64 + 1;
        if cumulated <= ALPHA / 2.0 && rank <= n {
            low = Some(rank);
        }
        if cumulated >= 1.0 - ALPHA / 2.0 {
            high = (rank <= n).then_some(rank);
            break;
        }
    }
    (low, high)
}

/// The binomial probabilities that matter: the first k and those from it on.
///
/// Grown from the mode by the ratio of neighbours and normalised by their sum, over ±(12 standard
/// deviations + 40); no special function, absolute error under 1e-12 up to n = 10^7.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn binomial_mass(n: u64, p: f64) -> (u64, Vec<f64>) {
    let size = n as f64;
    let reach = (12.0 * (size * p * (1.0 - p)).sqrt() + 40.0).ceil() as u64;
    let mode = (((size + 1.0) * p).floor() as u64).min(n);
    let (first, last) = (mode.saturating_sub(reach), mode.saturating_add(reach).min(n));
    let odds = p / (1.0 - p);
    let mut below = Vec::new();
    let mut weight = 1.0;
    for k in (first..mode).rev() {
        // pmf(k) = pmf(k+1) · (k+1)/(n−k) / odds
        weight *= (k + 1) as f64 / (size - k as f64) / odds;
        below.push(weight);
    }
    below.reverse();
    let mut mass = below;
    mass.push(1.0);
    weight = 1.0;
    for k in mode..last {
        // pmf(k+1) = pmf(k) · (n−k)/(k+1) · odds
        weight *= (size - k as f64) / (k + 1) as f64 * odds;
        mass.push(weight);
    }
    let sum: f64 = mass.iter().sum();
    mass.iter_mut().for_each(|weight| *weight /= sum);
    (first, mass)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng, rngs::SmallRng};

    fn counted(values: &[u64]) -> Counts {
        let mut counts = Counts::new();
        values.iter().for_each(|&value| counts.record(value));
        counts
    }

    #[test]
    fn samples_that_come_five_times_each_say_what_a_fifth_of_them_do() {
        let (mut once, mut each_five) = (Counts::new(), Counts::new());
        for n in 0..2_000_u64 {
            let value = 1_000_000 + n * 5_000;
            once.record(value);
            (0..5).for_each(|_| each_five.record(value));
        }
        let quantiles = [Quantile::P50, Quantile::P95, Quantile::P99, Quantile::P99_9];
        let wanted = once.quantiles(&quantiles);
        let found = each_five.quantiles_of_dependent(&quantiles, 5.0);
        for (wanted, found) in wanted.iter().zip(&found) {
            assert_eq!((found.samples, found.effective), (10_000, 2_000));
            assert_eq!(
                (found.low, found.high, found.value),
                (wanted.low, wanted.high, wanted.value)
            );
        }
        assert_eq!(found[3].value, None, "2,000 are too few for p99.9");
        assert!(each_five.quantile(Quantile::P99_9).value.is_some());
        // Less than independent there is not.
        assert_eq!(once.quantiles_of_dependent(&quantiles, 0.1), wanted);
        assert_eq!(each_five.quantiles_of_dependent(&quantiles, f64::NAN)[0].effective, 10_000);
    }

    #[test]
    fn a_quantile_is_sure_from_ten_samples_beyond_it_on() {
        let quantiles = [Quantile::P50, Quantile::P95, Quantile::P99, Quantile::P99_9];
        assert_eq!(quantiles.map(samples_sure), [20, 200, 1_000, 10_000]);
    }

    #[test]
    fn sample_floors_are_the_published_ones() {
        let floor = |ratio| samples_min(Quantile::new(ratio).unwrap());
        assert_eq!([0.5, 0.9, 0.95, 0.99, 0.999].map(floor), [6, 36, 72, 368, 3_688]);
        assert_eq!(floor(0.9999), 36_887);
    }

    #[test]
    fn rank_intervals_agree_with_exact_binomial_tails() {
        // Exact binomial sums in arbitrary precision: n, p, lower rank, upper rank.
        for (n, p, low, high) in [
            (5, 0.5, None, None),
            (6, 0.5, Some(1), Some(6)),
            (20, 0.5, Some(6), Some(15)),
            (71, 0.95, Some(63), None),
            (72, 0.95, Some(64), Some(72)),
            (100, 0.95, Some(90), Some(100)),
            (367, 0.99, Some(359), None),
            (368, 0.99, Some(360), Some(368)),
            (1_000, 0.95, Some(936), Some(964)),
            (1_000, 0.99, Some(983), Some(997)),
            (1_000, 0.999, Some(997), None),
            (3_688, 0.999, Some(3_680), Some(3_688)),
            (10_000, 0.999, Some(9_983), Some(9_997)),
            (1_000_000, 0.95, Some(949_572), Some(950_428)),
            (10_000_000, 0.5, Some(4_996_901), Some(5_003_100)),
        ] {
            assert_eq!(rank_interval(n, p), (low, high), "n={n} p={p}");
        }
    }

    #[test]
    fn an_interval_has_an_upper_end_exactly_from_the_sample_floor_on() {
        for quantile in Quantile::SHOWN {
            let floor = samples_min(quantile);
            assert!(rank_interval(floor, quantile.ratio()).1.is_some(), "{quantile}");
            assert!(rank_interval(floor - 1, quantile.ratio()).1.is_none(), "{quantile}");
        }
    }

    #[test]
    fn ninety_five_of_a_hundred_intervals_hold_the_true_quantile() {
        let seed = 0x5eed_0001;
        let mut rng = SmallRng::seed_from_u64(seed);
        let quantile = Quantile::P95;
        let truth = 950_000_u64;
        let runs = 2_000;
        let held = (0..runs)
            .filter(|_| {
                let values: Vec<u64> = (0..500).map(|_| rng.random_range(0..1_000_000)).collect();
                let estimate = counted(&values).quantile(quantile);
                estimate.low.unwrap().0 <= truth && truth <= estimate.high.unwrap().0
            })
            .count();
        assert!(held * 100 >= runs * 95, "{held} of {runs} held, seed {seed:#x}");
    }

    #[test]
    fn below_the_floor_there_is_no_value_and_without_samples_nothing_at_all() {
        let few = counted(&[5; 71]).quantile(Quantile::P95);
        assert_eq!((few.value, few.samples), (None, 71));
        assert_eq!(few.bucket_low, Some(Nanos(5)));
        let none = Counts::new().quantile(Quantile::P50);
        assert_eq!((none.value, none.bucket_low, none.low, none.high), (None, None, None, None));
    }

    #[test]
    fn a_quantile_above_range_has_no_value_and_no_upper_bound() {
        let estimate = counted(&[u64::MAX; 100]).quantile(Quantile::P50);
        assert_eq!((estimate.value, estimate.high), (None, None));
        assert_eq!(estimate.bucket_low, Some(Nanos(1 << 36)));
    }

    #[test]
    fn quantiles_print_as_the_ratio() {
        let shown: Vec<String> = Quantile::SHOWN.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["0.5", "0.95", "0.99", "0.999"]);
        assert_eq!(Quantile::new(0.0), None);
        assert_eq!(Quantile::new(1.0), None);
        assert_eq!(Quantile::new(f64::NAN), None);
    }

    proptest! {
        #[test]
        fn a_quantile_is_within_its_bucket_of_the_exact_sample(
            mut values in prop::collection::vec(1_u64..1 << 36, 1..2_000),
            millionths in 1_u32..1_000_000,
        ) {
            let quantile = Quantile { millionths };
            let counts = counted(&values);
            values.sort_unstable();
            let exact = values[usize::try_from(quantile.rank(values.len() as u64)).unwrap() - 1];
            let estimate = counts.quantile(quantile);
            let (low, high) = (estimate.bucket_low.unwrap().0, estimate.bucket_high.unwrap().0);
            prop_assert!(low <= exact && exact <= high);
            if let Some(value) = estimate.value {
                let error = (value.0 as f64 - exact as f64).abs();
                prop_assert!(error <= 0.01 * exact as f64 || error < 1.0);
                prop_assert!(estimate.low.unwrap() <= value && value <= estimate.high.unwrap());
            }
        }

        #[test]
        fn several_quantiles_at_once_equal_each_alone(
            values in prop::collection::vec(1_u64..1 << 40, 0..1_500),
        ) {
            let counts = counted(&values);
            let together = counts.quantiles(&Quantile::SHOWN);
            for (quantile, estimate) in Quantile::SHOWN.iter().zip(together) {
                prop_assert_eq!(counts.quantile(*quantile), estimate);
            }
        }
    }
}
