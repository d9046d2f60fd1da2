//! One thing that is compared: a stage over all its slices, or one slice of a stage.
//!
//! A stage's evidence is the sum over its slices, each held against its own thresholds, so that a
//! canary that is sent other slices than the baseline is not taken for a slower one.

use lens_model::{Slice, Stage};
use serde::{Deserialize, Serialize};

use super::harm::{ERRORS, Harm, HarmWindow, LATENCY_WEIGHT, Phi};
use super::reference::{LEVELS, N_LEVELS};
use super::slow_host::Counted;
use super::tally::ArmTally;
use crate::judge::math::ln;

/// Counts of both arms against one threshold, over the whole rollout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Both {
    /// The canary's.
    pub canary: Counted,
    /// The baseline's.
    pub baseline: Counted,
}

/// One thing that is compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unit {
    /// The stage.
    pub stage: Stage,
    /// The slice; `None` for all of them.
    pub slice: Option<Slice>,
    /// Its weight, fixed before it saw anything.
    pub weight: f64,
    harm: Harm,
    /// The same without each fold of hosts.
    without: Vec<Harm>,
    counts: [Both; N_LEVELS + 1],
}

/// One window's evidence of a unit.
#[derive(Clone, Debug, Default)]
pub struct UnitWindow {
    /// Of all hosts.
    pub all: HarmWindow,
    /// Without each fold.
    pub without: Vec<HarmWindow>,
    /// What was counted.
    pub canary: ArmTally,
    /// What was counted.
    pub baseline: ArmTally,
}

impl UnitWindow {
    /// Adds a stratum's window.
    pub fn add(&mut self, other: &Self) {
        // What a stratum without a fold of its own says is the same without any fold.
        let folds = self.without.len().max(other.without.len());
        self.without.resize(folds, self.all);
        for (fold, without) in self.without.iter_mut().enumerate() {
            without.add(other.without.get(fold).unwrap_or(&other.all));
        }
        self.all.add(&other.all);
        self.canary = self.canary.plus(&other.canary);
        self.baseline = self.baseline.plus(&other.baseline);
    }
}

/// The part of a unit that speaks loudest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Leading {
    /// The stage.
    pub stage: Stage,
    /// The slice; `null` for all of them.
    pub slice: Option<Slice>,
    /// `p50` to `p99.9`, `errors`, or a quality signal.
    pub metric: String,
    /// Logarithm of its evidence.
    pub ln_e: f64,
    /// Its weight in the whole.
    pub weight: f64,
    /// Requests that count as one.
    pub phi: f64,
    /// Requests beyond the threshold since the rollout began: for latency the canary's beyond the
    /// baseline's quantile times the margin of harm and the baseline's beyond the quantile itself,
    /// for errors those that failed.
    pub counts: Both,
}

/// The name of a level.
pub fn level_name(level: usize) -> String {
    let percent = LEVELS.get(level).map_or(0.0, |level| (level * 1_000.0).round() / 10.0);
    format!("p{percent}")
}

impl Unit {
    /// A unit that has seen nothing.
    pub fn new(stage: Stage, slice: Option<Slice>, weight: f64) -> Self {
        let counts = [Both::default(); N_LEVELS + 1];
        Self { stage, slice, weight, harm: Harm::default(), without: Vec::new(), counts }
    }

    /// Starts a part of the mass.
    pub fn start(&mut self, mass: f64) {
        self.harm.start(mass);
        self.without.iter_mut().for_each(|harm| harm.start(mass));
    }

    /// Takes in a window; `folds` are in use.
    pub fn take(&mut self, window: &UnitWindow, folds: usize, phi: &Phi) {
        while self.without.len() < folds {
            // Until now nothing was left out by it: its hosts had no canary.
            self.without.push(self.harm.clone());
        }
        for (fold, harm) in self.without.iter_mut().enumerate() {
            harm.take(window.without.get(fold).unwrap_or(&window.all), phi);
        }
        self.harm.take(&window.all, phi);
        let pairs = self.counts.iter_mut().enumerate();
        for (what, both) in pairs {
            let of =
                |tally: &ArmTally| if what == ERRORS { tally.errors } else { tally.hits(what) };
            both.canary.add(of(&window.canary));
            both.baseline.add(of(&window.baseline));
        }
    }

    /// ln E of all hosts, and ln E without one fold.
    pub fn ln_e(&self, without: Option<usize>) -> f64 {
        without.and_then(|fold| self.without.get(fold)).unwrap_or(&self.harm).ln_e()
    }

    /// ln E of latency and of errors.
    pub fn ln_parts(&self) -> (f64, f64) {
        (self.harm.ln_latency(), self.harm.ln_errors())
    }

    /// The part that adds most to the whole.
    #[allow(clippy::cast_precision_loss)]
    pub fn leading(&self, phi: &Phi) -> Leading {
        let share = self.weight * LATENCY_WEIGHT / N_LEVELS as f64;
        let levels = (0..N_LEVELS).map(|level| (level, share, self.harm.ln_level(level)));
        let errors = (ERRORS, self.weight * (1.0 - LATENCY_WEIGHT), self.harm.ln_errors());
        let loudest = levels.fold(errors, |best, part| {
            if ln(part.1) + part.2 > ln(best.1) + best.2 { part } else { best }
        });
        let (what, weight, ln_e) = loudest;
        let metric = if what == ERRORS { "errors".to_owned() } else { level_name(what) };
        Leading {
            stage: self.stage,
            slice: self.slice.clone(),
            metric,
            ln_e,
            weight,
            phi: phi[what],
            counts: self.counts[what],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_named_as_people_say_them() {
        let names: Vec<String> = (0..N_LEVELS).map(level_name).collect();
        assert_eq!(names, ["p50", "p75", "p90", "p95", "p99", "p99.9"]);
    }
}
