//! The whole query of the canary against the baseline's, at the same time: p95 at most so much
//! slower.
//!
//! The same windows and thresholds as for every rule. The baseline's p95 is unknown, so every
//! bucket that may hold it is tried, as for the tail. It leaves only by evidence of the opposite,
//! three deviations in a window of 80 s or more, and never before five minutes.

use lens_hist::Sparse;

use super::held::{Finding, Thresholds};
use crate::judge::Verdict;
use crate::judge::dispersion::Dispersion;
use crate::judge::pyramid::{Pyramid, Window};
use crate::judge::slot::Slot;
use crate::judge::survivors::{Survivors, edge_at_or_above};
use crate::judge::tail::rule;

/// Fewest samples of either arm in a window that is judged: ten above p95.
const SAMPLES_MIN: u64 = 200;

/// Slots a violation is held at least, and of the narrowest window that ends it.
const HOLD: i64 = 60;
const CALM_SLOTS: i64 = 16;
const Z_OPPOSITE: f64 = 3.0;

/// The canary's whole query against the baseline's, in one slice.
#[derive(Clone, Debug)]
pub struct Regression {
    /// Largest p95 of the canary that is no violation, as a multiple of the baseline's.
    margin: f64,
    baseline: Pyramid,
    canary: Pyramid,
    dispersion: Dispersion,
    newest: Option<Finding>,
    broken: Option<Finding>,
    now: Slot,
}

impl Regression {
    /// Nothing seen yet, under a margin such as 0.1.
    pub fn new(margin: f64) -> Self {
        Self {
            margin: 1.0 + margin,
            baseline: Pyramid::default(),
            canary: Pyramid::default(),
            dispersion: Dispersion::default(),
            newest: None,
            broken: None,
            now: Slot(i64::MIN),
        }
    }

    /// The verdict: an answer needs a window in which both arms had samples enough, not longer ago
    /// than its own width.
    pub fn verdict(&self) -> Verdict {
        match (self.broken, self.newest) {
            (Some(_), _) => Verdict::Violation,
            (None, Some(newest)) if self.now.0 - newest.last.0 <= newest.scale.slots() => {
                Verdict::Ok
            }
            _ => Verdict::InsufficientData,
        }
    }

    /// The window it rests on.
    pub fn finding(&self) -> Option<Finding> {
        self.broken.or(self.newest)
    }

    /// Largest p95 of the canary that is no violation, as a multiple of the baseline's.
    pub const fn margin(&self) -> f64 {
        self.margin
    }

    /// Takes in one slot of both arms.
    pub fn slot(&mut self, slot: Slot, baseline: Sparse, canary: Sparse, thresholds: &Thresholds) {
        self.now = slot;
        let (trials, hits) = self.tally(&baseline, &canary);
        self.dispersion.push(slot, trials, hits);
        let mut windows: Vec<Sparse> = Vec::new();
        self.baseline.push(slot, baseline, |window| windows.push(window.counts.clone()));
        let mut windows = windows.into_iter();
        let Self { canary: pyramid, dispersion, newest, broken, margin, .. } = self;
        pyramid.push(slot, canary, |window| {
            let baseline = windows.next().unwrap_or_default();
            if let Some(judged) = judged(window, &baseline, *margin, dispersion, thresholds) {
                if judged.ends(broken.as_ref()) {
                    *broken = None;
                }
                if broken.is_none() && judged.finding.z > judged.finding.z_needed {
                    *broken = Some(judged.finding);
                    dispersion.forget_from(window.first());
                }
                *newest = Some(judged.finding);
            }
        });
    }

    /// Of the canary's samples those above the margin over the baseline's p95 of the same slot.
    fn tally(&self, baseline: &Sparse, canary: &Sparse) -> (u64, u64) {
        if self.broken.is_some() || baseline.total() < SAMPLES_MIN {
            return (0, 0);
        }
        let (baseline, canary) = (Survivors::of_sparse(baseline), Survivors::of_sparse(canary));
        let edge = baseline.first_at_most(rule::SHARE * baseline.total() as f64);
        let above = edge_at_or_above(self.margin * lens_hist::layout::low(edge) as f64);
        (canary.total(), canary.at_least(above))
    }
}

/// One window of both arms.
struct Judged {
    finding: Finding,
    below: f64,
}

impl Judged {
    fn ends(&self, broken: Option<&Finding>) -> bool {
        broken.is_some_and(|found| {
            self.below >= Z_OPPOSITE
                && self.finding.scale.slots() >= CALM_SLOTS
                && self.finding.first() > found.last
                && self.finding.last.0 - found.last.0 >= HOLD
        })
    }
}

fn judged(
    window: &Window<'_>,
    baseline: &Sparse,
    margin: f64,
    dispersion: &Dispersion,
    thresholds: &Thresholds,
) -> Option<Judged> {
    let (samples, z_needed) = (window.counts.total(), thresholds.of(window.scale));
    if samples < SAMPLES_MIN || baseline.total() < SAMPLES_MIN || z_needed == f64::INFINITY {
        return None;
    }
    let (baseline, canary) = (Survivors::of_sparse(baseline), Survivors::of_sparse(window.counts));
    let phi = dispersion.before(window.first());
    let z = rule::z_slower(&baseline, &canary, margin, phi);
    let finding = Finding { scale: window.scale, last: window.last, samples, z, z_needed, phi };
    Some(Judged { finding, below: rule::z_not_slower(&baseline, &canary, margin, phi) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use lens_hist::layout;

    /// 1,000 samples spread over 41 latencies around `centre_micros`.
    fn counts(centre_micros: u64) -> Sparse {
        let values = (0..1_000_u64).map(|n| centre_micros * (80 + n % 41) * 10);
        let mut indices: Vec<usize> = values.map(layout::index_of).collect();
        indices.sort_unstable();
        let mut counts = Sparse::new();
        for run in indices.chunk_by(|a, b| a == b) {
            counts.push(run[0], run.len() as u64);
        }
        counts
    }

    fn after(
        slots: std::ops::Range<i64>,
        canary_micros: u64,
        regression: &mut Regression,
    ) -> Verdict {
        let thresholds = Thresholds::new(30.0, 10.0);
        for slot in slots {
            let canary = if canary_micros == 0 { Sparse::new() } else { counts(canary_micros) };
            regression.slot(Slot(slot), counts(10_000), canary, &thresholds);
        }
        regression.verdict()
    }

    #[test]
    fn a_whole_query_slower_than_the_margin_is_found_and_one_within_it_is_not() {
        let mut regression = Regression::new(0.1);
        assert_eq!(after(0..20, 0, &mut regression), Verdict::InsufficientData);
        assert_eq!(after(20..120, 10_700, &mut regression), Verdict::Ok);
        assert_eq!(after(120..124, 12_500, &mut regression), Verdict::Violation);
        assert_eq!(after(124..150, 10_000, &mut regression), Verdict::Violation, "held 5 min");
        assert_eq!(after(150..220, 10_000, &mut regression), Verdict::Ok);
    }
}
