//! Quality signals in [0, 1], such as recall of scored queries: a balanced bet on the means.
//!
//! The same evidence as for latency, for and against, on the mean instead of a quantile. A signal
//! takes part once it was seen before the rollout's weights were fixed.

use std::collections::VecDeque;

use lens_model::Arm;
use serde::{Deserialize, Serialize};

use super::evalue::{Marks, ln_e_mean};
use super::process::{Mixture, STAKES, tempered};

/// Baseline windows whose mean is the guess for the next: ten minutes.
const WINDOWS_MAX: usize = 120;

/// Signals one comparison follows.
pub const SIGNALS_MAX: usize = 16;

/// One window of one signal of one arm.
#[derive(Clone, Debug, PartialEq)]
pub struct QualityWindow {
    /// The signal's name.
    pub signal: Box<str>,
    /// The arm.
    pub arm: Arm,
    /// Its values.
    pub marks: Marks,
}

/// One signal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Its name.
    pub signal: Box<str>,
    harm: Mixture<5>,
    not_worse: Mixture<5>,
    /// Number and sum of the baseline's values by window.
    baseline: VecDeque<(u64, f64)>,
}

impl Quality {
    /// A signal that has seen nothing.
    pub fn new(signal: Box<str>) -> Self {
        let not_worse = Mixture::started();
        Self { signal, harm: Mixture::default(), not_worse, baseline: VecDeque::new() }
    }

    /// Starts a part of the mass.
    pub fn start(&mut self, mass: f64) {
        self.harm.start(mass);
    }

    /// Begins a step.
    pub fn begin_step(&mut self) {
        self.not_worse = Mixture::started();
    }

    /// The baseline's mean over the windows kept; `None` without a value.
    #[allow(clippy::cast_precision_loss)]
    fn baseline_mean(&self) -> Option<f64> {
        let (n, sum) = self.baseline.iter().fold((0, 0.0), |(n, s), w| (n + w.0, s + w.1));
        (n > 0).then(|| sum / n as f64)
    }

    /// Takes in a window; `judged` once the rollout has begun.
    pub fn take(&mut self, canary: &Marks, baseline: &Marks, drop: f64, phi: f64, judged: bool) {
        if let (true, Some(nu)) = (judged, self.baseline_mean()) {
            let worse = |stake| tempered(ln_e_mean(canary, baseline, nu, stake, drop), phi);
            self.harm.multiply(&STAKES.map(worse));
            // Arms swapped: against "the baseline's mean is at least the canary's plus the drop".
            let better = |stake| tempered(ln_e_mean(baseline, canary, nu, stake, -drop), phi);
            self.not_worse.multiply(&STAKES.map(better));
        }
        self.baseline.push_back((baseline.n(), baseline.sum()));
        if self.baseline.len() > WINDOWS_MAX {
            self.baseline.pop_front();
        }
    }

    /// ln E that the canary is worse.
    pub fn ln_harm(&self) -> f64 {
        self.harm.ln_e()
    }

    /// ln E that it is not.
    pub fn ln_not_worse(&self) -> f64 {
        self.not_worse.ln_e()
    }
}
