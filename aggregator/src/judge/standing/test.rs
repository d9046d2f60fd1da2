//! The rules that are watched all the time, each as a test with two sides.

use lens_hist::{Quantile, layout};
use lens_model::Nanos;

use crate::judge::math::{kl, rank_interval};
use crate::judge::survivors::{Survivors, edge_at_or_above, edge_at_or_below};
use crate::judge::tail::rule;

/// A rule of the form "a value is at most its limit".
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Test {
    /// p99/p95 is at most `limit`.
    Tail {
        /// Largest ratio that is no violation.
        limit: f64,
        /// p99 below which no ratio is judged.
        floor: Nanos,
    },
    /// A quantile is at most `limit`.
    Limit {
        /// Which quantile.
        quantile: Quantile,
        /// The largest that is no violation.
        limit: Nanos,
    },
}

impl Test {
    /// Fewest samples of a window that is judged: ten beyond the quantile in question, so that an
    /// interval has two ends and some width to spare.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn samples_min(&self) -> u64 {
        (10.0 / (1.0 - self.quantile().ratio())).round() as u64
    }

    /// The highest quantile it looks at.
    pub const fn quantile(&self) -> Quantile {
        match self {
            Self::Tail { .. } => Quantile::P99,
            Self::Limit { quantile, .. } => *quantile,
        }
    }

    /// Standard deviations by which the samples say that the value is above its limit.
    pub fn z_above(&self, samples: &Survivors, phi: f64) -> f64 {
        match self {
            Self::Tail { limit, floor } => {
                if certainly_below(samples, Quantile::P99, *floor) {
                    return 0.0;
                }
                if above_range(samples) {
                    return f64::INFINITY;
                }
                rule::z_above(samples, *limit, phi)
            }
            Self::Limit { quantile, limit } => {
                let over = samples.at_least(edge_at_or_above(limit.0 as f64 + 1.0));
                one_sided(over, samples.total(), 1.0 - quantile.ratio(), phi).max(0.0)
            }
        }
    }

    /// Standard deviations by which the samples say that the value is below its limit.
    pub fn z_below(&self, samples: &Survivors, phi: f64) -> f64 {
        match self {
            Self::Tail { limit, floor } => {
                if certainly_below(samples, Quantile::P99, *floor) {
                    return f64::INFINITY;
                }
                rule::z_below(samples, *limit, phi)
            }
            Self::Limit { quantile, limit } => {
                let over = samples.at_least(edge_at_or_below(limit.0 as f64 + 1.0));
                -one_sided(over, samples.total(), 1.0 - quantile.ratio(), phi).min(0.0)
            }
        }
    }

    /// The value as a multiple of its limit, from the samples of the right ranks; infinite above
    /// range.
    pub fn relative(&self, samples: &Survivors) -> f64 {
        let value = |quantile| point(samples, quantile).map_or(f64::INFINITY, |v| v.0 as f64);
        match self {
            Self::Tail { limit, .. } => {
                value(Quantile::P99) / value(Quantile::P95).max(1.0) / limit
            }
            Self::Limit { quantile, limit } => value(*quantile) / limit.0.max(1) as f64,
        }
    }

    /// The value and its 95 % interval: a ratio, or milliseconds.
    pub fn measure(&self, samples: &Survivors, phi: f64) -> Measure {
        match self {
            Self::Tail { .. } => {
                let (low, high) = rule::interval(samples, phi);
                let of = |quantile| point(samples, quantile).map(|value| value.0 as f64);
                let value = of(Quantile::P99).zip(of(Quantile::P95));
                let value = value.filter(|(_, p95)| *p95 > 0.0).map(|(p99, p95)| p99 / p95);
                Measure { value, low, high }
            }
            Self::Limit { quantile, .. } => {
                let n = samples.total();
                let (low, high) = rank_interval(n, quantile.ratio(), phi);
                let bucket = |rank: u64| samples.first_at_most((n - rank) as f64).checked_sub(1);
                let low = low.and_then(bucket).map(|at| Nanos(layout::low(at)));
                let high = high.and_then(bucket).filter(|at| *at < layout::COUNTERS);
                Measure {
                    value: point(samples, *quantile).map(Nanos::as_millis_f64),
                    low: low.map(Nanos::as_millis_f64),
                    high: high.map(|at| Nanos(layout::high(at)).as_millis_f64()),
                }
            }
        }
    }

    /// Trials and hits of one slot, from which the overdispersion of its evidence is estimated:
    /// of the samples above the bucket edge `p95` those beyond the limit times it, or of all those
    /// above it. A slot of few samples has no p95 of its own: without one it tells nothing.
    pub fn tally(&self, samples: &Survivors, p95: Option<usize>) -> (u64, u64) {
        match self {
            Self::Tail { limit, .. } => {
                let Some(edge) = p95 else { return (0, 0) };
                let beyond = edge_at_or_above(limit * layout::low(edge) as f64);
                (samples.at_least(edge), samples.at_least(beyond))
            }
            Self::Limit { limit, .. } => {
                let over = samples.at_least(edge_at_or_above(limit.0 as f64 + 1.0));
                (samples.total(), over)
            }
        }
    }
}

impl Test {
    /// The bucket edge next to the samples' p95.
    pub fn p95_edge(samples: &Survivors) -> usize {
        samples.first_at_most(rule::SHARE * samples.total() as f64)
    }

    /// The share of hits in the samples, as a multiple of the largest the rule allows.
    pub fn excess(&self, samples: &Survivors) -> f64 {
        let (trials, hits) = self.tally(samples, Some(Self::p95_edge(samples)));
        self.of_allowed(hits as f64 / trials.max(1) as f64)
    }

    /// A share of hits as a multiple of the largest the rule allows.
    pub fn of_allowed(&self, share: f64) -> f64 {
        match self {
            Self::Tail { .. } => share / rule::BEYOND,
            Self::Limit { quantile, .. } => share / (1.0 - quantile.ratio()),
        }
    }
}

/// A value with its 95 % interval; an end is `None` where the samples give none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measure {
    /// The value.
    pub value: Option<f64>,
    /// Lower end.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
}

/// The middle of the bucket that holds the sample of rank ⌈q·n⌉; `None` above range or without
/// samples.
pub fn point(samples: &Survivors, quantile: Quantile) -> Option<Nanos> {
    let n = samples.total();
    // The sample of rank r is in the last bucket from whose beginning on n − r + 1 remain.
    let beyond = samples.first_at_most((n - quantile.rank(n).min(n)) as f64);
    let index = beyond.checked_sub(1)?;
    (n > 0 && index < layout::COUNTERS).then(|| Nanos(layout::mid(index)))
}

/// Whether a quantile's interval lies wholly below `floor`.
fn certainly_below(samples: &Survivors, quantile: Quantile, floor: Nanos) -> bool {
    let over = samples.at_least(edge_at_or_below(floor.0 as f64));
    one_sided(over, samples.total(), 1.0 - quantile.ratio(), 1.0) <= -rule::Z_95
}

/// Whether p99 certainly lies above what can be measured: then no ratio can be, and it is broken.
fn above_range(samples: &Survivors) -> bool {
    let over = samples.at_least(layout::OVERFLOW);
    one_sided(over, samples.total(), 1.0 - Quantile::P99.ratio(), 1.0) >= rule::Z_95
}

/// Signed root of the likelihood ratio of `over` of `n` against `share`, in standard deviations.
fn one_sided(over: u64, n: u64, share: f64, phi: f64) -> f64 {
    if n == 0 {
        return 0.0;
    }
    let found = over as f64 / n as f64;
    let z = (2.0 * n as f64 * kl(found, share) / phi).sqrt();
    if found > share { z } else { -z }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lens_hist::Counts;
    use proptest::prelude::*;

    fn mixed(parts: &[(u64, u64)]) -> Survivors {
        let mut counts = Counts::new();
        parts.iter().for_each(|(micros, n)| counts.add(layout::index_of(micros * 1_000), *n));
        Survivors::of(&counts)
    }

    const TAIL: Test = Test::Tail { limit: 2.0, floor: Nanos::from_millis(1) };

    #[test]
    fn a_tail_under_the_absolute_floor_is_not_judged_by_its_ratio() {
        let tiny = mixed(&[(10, 97_000), (900, 3_000)]);
        assert_eq!(TAIL.z_above(&tiny, 1.0), 0.0);
        let long = mixed(&[(10, 97_000), (1_100, 3_000)]);
        assert!(TAIL.z_above(&long, 1.0) > 10.0);
    }

    #[test]
    fn a_tail_beyond_what_can_be_measured_is_a_violation() {
        let mut counts = Counts::new();
        counts.add(layout::index_of(1_000_000), 970);
        counts.add(layout::OVERFLOW, 30);
        assert_eq!(TAIL.z_above(&Survivors::of(&counts), 1.0), f64::INFINITY);
    }

    #[test]
    fn a_limit_is_spoken_against_only_beyond_chance() {
        let test = Test::Limit { quantile: Quantile::P95, limit: Nanos::from_millis(5) };
        let share = |over| mixed(&[(4_000, 1_000 - over), (6_000, over)]);
        assert_eq!(test.z_above(&share(40), 1.0), 0.0);
        assert!((0.5..2.0).contains(&test.z_above(&share(60), 1.0)));
        assert!(test.z_above(&share(120), 1.0) > 6.0);
        assert!(test.z_below(&share(10), 1.0) > 6.0);
        assert!(test.z_above(&share(120), 4.0) < test.z_above(&share(120), 1.0));
    }

    proptest! {
        #[test]
        fn the_point_is_the_histograms_own_quantile(
            values in prop::collection::vec(1_u64..1 << 30, 400..900),
        ) {
            let mut counts = Counts::new();
            values.iter().for_each(|&value| counts.record(value));
            let samples = Survivors::of(&counts);
            for quantile in [Quantile::P50, Quantile::P95, Quantile::P99] {
                prop_assert_eq!(point(&samples, quantile), counts.quantile(quantile).value);
            }
        }

        #[test]
        fn nothing_speaks_for_both_sides(
            values in prop::collection::vec(1_u64..1 << 20, 1..900),
            limit in 1.0_f64..4.0,
        ) {
            let samples = Survivors::of_sparse(&values.into_iter().collect());
            let test = Test::Tail { limit, floor: Nanos(0) };
            let sides = (test.z_above(&samples, 1.0), test.z_below(&samples, 1.0));
            prop_assert!(sides.0.min(sides.1) < 1e-6, "{:?}", sides);
        }
    }
}
