//! The test of p99 ≤ r·p95 on one histogram.
//!
//! The rule is broken exactly when P(X > r·q95) > 1 %, that is when of the slowest 5 % more than a
//! fifth exceed r·q95. As q95 is unknown, every bucket that could hold it is tried: what it costs
//! to believe that q95 lies there, plus what it costs to believe the rule holds if it does. The
//! cheapest such belief is the evidence against the rule: a likelihood ratio profiled over q95
//! (empirical likelihood for a ratio of quantiles, Owen 2001, chapter 3).
//! Within a bucket the counts on both sides are taken so that binning can only weaken the
//! evidence, whichever way it points. For r = 2 every edge needed is a bucket edge.

use std::ops::Range;

use lens_hist::layout::{self, COUNTERS};

use crate::judge::math::{kl, ln, ln_beta_binomial, ln_sum_exp};
use crate::judge::survivors::{OCTAVE, Survivors, edge_at_or_above, edge_at_or_below};

/// Share of samples above p95.
pub const SHARE: f64 = 0.05;

/// Share of those that lie above p99.
pub const BEYOND: f64 = 0.2;

/// A bucket with more than this share of the samples above p95 is a value that many have.
const HEAVY: f64 = 0.25;

/// Two-sided 95 % of a standard normal.
pub const Z_95: f64 = 1.959_963_984_540_054;

/// Alternatives the anytime test bets on: shares beyond the limit, as multiples of [`BEYOND`].
const BETS: [f64; 7] = [1.05, 1.1, 1.2, 1.4, 1.8, 2.5, 3.5];

/// Strength of the anytime test's prior on the share above p95.
const CONCENTRATION: f64 = 1_000.0;

/// Largest ratio an interval can name: 2^10.
const RATIO_OCTAVES: usize = 10;

/// Which side of the limit evidence is sought for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// That the ratio is above.
    Above,
    /// That it is below.
    Below,
}

/// Standard deviations by which the samples speak for p99 > `limit`·p95; 0 when they do not.
///
/// `phi` is the samples' overdispersion: how many of them count as one.
pub fn z_above(samples: &Survivors, limit: f64, phi: f64) -> f64 {
    deviations(samples, limit, phi, Side::Above, 0..COUNTERS)
}

/// Standard deviations by which the samples speak for p99 < `limit`·p95; 0 when they do not.
pub fn z_below(samples: &Survivors, limit: f64, phi: f64) -> f64 {
    deviations(samples, limit, phi, Side::Below, 0..COUNTERS)
}

fn deviations(samples: &Survivors, limit: f64, phi: f64, side: Side, within: Range<usize>) -> f64 {
    let cost = |here: &Bucket| match side {
        Side::Above => {
            let beyond = here.beyond_at_least(samples, limit);
            here.cost(beyond, here.above_most, |share| share > BEYOND)
        }
        Side::Below => {
            let beyond = here.beyond_at_most(samples, limit);
            here.cost(beyond, here.above_least, |share| share < BEYOND)
        }
    };
    let cheapest = profile(samples, within, |here| here.belief_cost(), cost);
    (2.0 * cheapest / phi).sqrt()
}

/// [`z_above`] when p95 is known to lie in `buckets`.
pub fn z_above_within(samples: &Survivors, limit: f64, phi: f64, buckets: Range<usize>) -> f64 {
    deviations(samples, limit, phi, Side::Above, buckets)
}

/// Standard deviations by which the samples say that the canary's p95 is above `margin` times the
/// baseline's; 0 when they do not.
pub fn z_slower(baseline: &Survivors, canary: &Survivors, margin: f64, phi: f64) -> f64 {
    arms(baseline, canary, phi, |bucket| {
        let over = canary.at_least(edge_at_or_above(margin * layout::low(bucket + 1) as f64));
        (over, |share| share > SHARE)
    })
}

/// Standard deviations by which the samples say that it is below.
pub fn z_not_slower(baseline: &Survivors, canary: &Survivors, margin: f64, phi: f64) -> f64 {
    arms(baseline, canary, phi, |bucket| {
        let over = canary.at_least(edge_at_or_below(margin * layout::low(bucket) as f64));
        (over, |share| share < SHARE)
    })
}

/// The profile over the bucket of the baseline's p95. `over` counts the canary's samples above the
/// limit such a p95 sets, and says which share of them speaks against it.
fn arms<Against: Fn(f64) -> bool>(
    baseline: &Survivors,
    canary: &Survivors,
    phi: f64,
    over: impl Fn(usize) -> (u64, Against),
) -> f64 {
    let n = canary.total() as f64;
    if n == 0.0 {
        return 0.0;
    }
    let cost = |here: &Bucket| {
        let (over, against) = over(here.index);
        let share = over as f64 / n;
        if against(share) { n * kl(share, SHARE) } else { 0.0 }
    };
    let cheapest = profile(baseline, 0..COUNTERS, |here| here.belief_cost(), cost);
    (2.0 * cheapest / phi).sqrt()
}

/// Logarithm of the anytime-valid evidence that p99 > `limit`·p95, for samples counted from one
/// known start on: whenever it is looked at, it exceeds ln(1/α) with probability at most α while
/// the rule holds, for independent samples.
pub fn ln_e(samples: &Survivors, limit: f64, phi: f64) -> f64 {
    ln_e_within(samples, limit, phi, 0..COUNTERS)
}

/// [`ln_e`] when p95 is known to lie in `buckets`.
pub fn ln_e_within(samples: &Survivors, limit: f64, phi: f64, buckets: Range<usize>) -> f64 {
    let n = samples.total() as f64 / phi;
    if n == 0.0 {
        return 0.0;
    }
    let cost = |here: &Bucket| {
        let beyond = here.beyond_at_least(samples, limit) / phi;
        let within = here.above_most / phi - beyond;
        let bet = |multiple: f64| {
            let share = BEYOND * multiple;
            beyond * ln(multiple) + within * ln((1.0 - share) / (1.0 - BEYOND))
        };
        let place = ln_beta_binomial(here.above / phi, n, SHARE, CONCENTRATION);
        place + ln_sum_exp(BETS.map(bet)) - ln(BETS.len() as f64)
    };
    // Beliefs of every cost are compared: the bets can lose, so no bound ends the search early.
    profile(samples, buckets, |_| f64::NEG_INFINITY, cost)
}

/// The 95 % interval of p99/p95: the ratios the samples do not speak against. An end is `None`
/// where no ratio up to 1,024 is spoken against from that side.
pub fn interval(samples: &Survivors, phi: f64) -> (Option<f64>, Option<f64>) {
    if samples.total() == 0 {
        return (None, None);
    }
    let steps: Vec<usize> = (0..=RATIO_OCTAVES * OCTAVE).collect();
    let too_small = steps.partition_point(|&step| z_above(samples, ratio(step), phi) >= Z_95);
    let not_too_large = steps.partition_point(|&step| z_below(samples, ratio(step), phi) < Z_95);
    let low = too_small.checked_sub(1).map(ratio);
    (low, (not_too_large < steps.len()).then(|| ratio(not_too_large)))
}

/// The `step`-th ratio of bucket edges from 1 on: 128 an octave.
fn ratio(step: usize) -> f64 {
    const ONE: usize = 20 * OCTAVE;
    layout::low(ONE + step) as f64 / layout::low(ONE) as f64
}

/// A bucket that may hold p95.
struct Bucket {
    index: usize,
    n: f64,
    /// Samples above p95, as near to 5 % of all as the bucket allows.
    above: f64,
    /// Samples from the bucket's end on.
    above_least: f64,
    /// Samples from its beginning on.
    above_most: f64,
}

impl Bucket {
    fn new(samples: &Survivors, index: usize) -> Self {
        let n = samples.total() as f64;
        let above_most = samples.at_least(index) as f64;
        let above_least = samples.at_least(index + 1) as f64;
        let above = (SHARE * n).clamp(above_least, above_most);
        Self { index, n, above, above_least, above_most }
    }

    fn belief_cost(&self) -> f64 {
        self.n * kl(self.above / self.n, SHARE)
    }

    /// What it costs beyond [`Bucket::belief_cost`] to believe that of the samples above p95 no
    /// more, or no fewer, than [`BEYOND`] lie beyond the limit, when `beyond` do. `above` is the end
    /// of the bucket from which that is cheapest.
    ///
    /// In a bucket that holds many samples of one value that end says nothing: half of all samples
    /// may lie above it. Such samples are split at the place cheapest for both beliefs together.
    fn cost(&self, beyond: f64, above: f64, against: impl Fn(f64) -> bool) -> f64 {
        let heavy = self.above_most - self.above_least > HEAVY * self.above;
        let above = if heavy { self.cheapest_above(beyond) } else { above };
        let share = if above > 0.0 { beyond / above } else { BEYOND };
        if !against(share) {
            return 0.0;
        }
        let split =
            if heavy { self.n * kl(above / self.n, SHARE) - self.belief_cost() } else { 0.0 };
        split + above * kl(share.min(1.0), BEYOND)
    }

    /// The count above p95 that minimises the sum of both costs; where its derivative is 0.
    fn cheapest_above(&self, beyond: f64) -> f64 {
        let odds = (1.0 - SHARE) / SHARE;
        let within = 1.0 - BEYOND;
        let free = (within * self.n + odds * beyond) / (odds + within);
        free.clamp(self.above_least, self.above_most)
    }

    /// Samples certainly beyond `limit` times a p95 in this bucket.
    fn beyond_at_least(&self, samples: &Survivors, limit: f64) -> f64 {
        let end = layout::low(self.index + 1) as f64;
        samples.at_least(edge_at_or_above(limit * end)) as f64
    }

    /// Samples possibly beyond `limit` times a p95 in this bucket.
    fn beyond_at_most(&self, samples: &Survivors, limit: f64) -> f64 {
        let begin = layout::low(self.index) as f64;
        samples.at_least(edge_at_or_below(limit * begin)) as f64
    }
}

/// The smallest `floor + cost` over the buckets that may hold p95; 0 without samples.
///
/// Only buckets with samples matter: an empty one is never cheaper than its neighbour. `floor`
/// rises away from the sample p95 on both sides, so a side ends where it alone is dearer than the
/// best so far.
fn profile(
    samples: &Survivors,
    within: Range<usize>,
    floor: impl Fn(&Bucket) -> f64,
    cost: impl Fn(&Bucket) -> f64,
) -> f64 {
    let n = samples.total();
    if n == 0 {
        return 0.0;
    }
    let start = samples.first_at_most(SHARE * n as f64).clamp(1, COUNTERS) - 1;
    let mut best = f64::INFINITY;
    let mut consider = |index: usize| {
        if samples.at_least(index) == samples.at_least(index + 1) {
            return true;
        }
        let here = Bucket::new(samples, index);
        let floor = floor(&here);
        if floor >= best {
            return false;
        }
        best = best.min(floor.max(0.0) + cost(&here));
        true
    };
    let start = start.clamp(within.start, within.end);
    let _ = (start..samples.end().min(within.end)).all(&mut consider);
    let _ = (within.start..start).rev().all(&mut consider);
    if best.is_finite() { best } else { 0.0 }
}
