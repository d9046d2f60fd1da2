//! Evidence that the canary is worse: what a window says, and what all windows say together.
//!
//! Latency is the mean over the levels of their mixtures, errors the lesser of two (both "no more
//! than a ratio" and "no more than a rate" must fall); the whole weighs 6 to 4. A mean of
//! e-processes is one, and is at least each over their number: looking at everything costs a
//! logarithm, and which part carries it is what is reported.

use serde::{Deserialize, Serialize};

use super::evalue::{OddsBet, ln_e_absolute, ln_e_ratio};
use super::plan::Plan;
use super::process::{LN_PSI_ERRORS, LN_PSI_LATENCY, Mixture, tempered};
use super::reference::{N_LEVELS, Thresholds};
use super::tally::ArmTally;
use crate::judge::math::{exp, ln, ln_sum_exp};

/// Weight of latency beside errors.
pub const LATENCY_WEIGHT: f64 = 0.6;

/// Weight of errors.
pub const ERRORS_WEIGHT: f64 = 1.0 - LATENCY_WEIGHT;

/// Dispersion of each level, then of errors.
pub type Phi = [f64; N_LEVELS + 1];

/// Place of errors in [`Phi`].
pub const ERRORS: usize = N_LEVELS;

/// The bets of one stream's window.
#[derive(Clone, Debug)]
pub struct HarmBets {
    latency: [Option<[OddsBet; 6]>; N_LEVELS],
    error_ratio: f64,
    error_rate: f64,
}

impl HarmBets {
    /// Bets around the baseline's rates of exceeding its thresholds.
    pub fn new(thresholds: &Thresholds, plan: &Plan) -> Self {
        let bets = |pi: f64| LN_PSI_LATENCY.map(|ln_psi| OddsBet::new(pi, exp(ln_psi)));
        Self {
            latency: thresholds.map(|threshold| threshold.map(|t| bets(t.pi))),
            error_ratio: plan.error_ratio_harm,
            error_rate: plan.error_rate_harm,
        }
    }

    /// What the two arms of one stratum say.
    pub fn window(&self, canary: &ArmTally, baseline: &ArmTally) -> HarmWindow {
        let mut window = HarmWindow::default();
        for (level, bets) in self.latency.iter().enumerate() {
            let Some(bets) = bets else { continue };
            let (c, b) = (canary.hits(level), baseline.hits(level));
            window.latency[level] = std::array::from_fn(|g| bets[g].ln_e(c, b));
        }
        let (c, b) = (canary.errors, baseline.errors);
        for (g, ln_psi) in LN_PSI_ERRORS.into_iter().enumerate() {
            let psi = exp(ln_psi);
            window.ratio[g] = ln_e_ratio(c, b, self.error_ratio, psi);
            window.absolute[g] = ln_e_absolute(c, self.error_rate, psi);
        }
        window
    }
}

/// Logarithms of one window's e-values, neither tempered nor capped: strata add up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HarmWindow {
    latency: [[f64; 6]; N_LEVELS],
    ratio: [f64; 6],
    absolute: [f64; 6],
}

impl HarmWindow {
    /// Adds another stratum.
    pub fn add(&mut self, other: &Self) {
        self.combine(other, |a, b| *a += b);
    }

    /// Takes a stratum away.
    pub fn subtract(&mut self, other: &Self) {
        self.combine(other, |a, b| *a -= b);
    }

    fn combine(&mut self, other: &Self, apply: impl Fn(&mut f64, f64)) {
        let mine =
            self.latency.iter_mut().flatten().chain(&mut self.ratio).chain(&mut self.absolute);
        let theirs = other.latency.iter().flatten().chain(&other.ratio).chain(&other.absolute);
        mine.zip(theirs).for_each(|(a, b)| apply(a, *b));
    }
}

/// Evidence of all windows so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Harm {
    latency: [Mixture<6>; N_LEVELS],
    ratio: Mixture<6>,
    absolute: Mixture<6>,
}

impl Harm {
    /// Starts a part of the mass.
    pub fn start(&mut self, mass: f64) {
        if mass > 0.0 {
            self.latency.iter_mut().for_each(|mixture| mixture.start(mass));
            self.ratio.start(mass);
            self.absolute.start(mass);
        }
    }

    /// Takes in a window.
    pub fn take(&mut self, window: &HarmWindow, phi: &Phi) {
        for (level, mixture) in self.latency.iter_mut().enumerate() {
            mixture.multiply(&window.latency[level].map(|ln_e| tempered(ln_e, phi[level])));
        }
        self.ratio.multiply(&window.ratio.map(|ln_e| tempered(ln_e, phi[ERRORS])));
        self.absolute.multiply(&window.absolute.map(|ln_e| tempered(ln_e, phi[ERRORS])));
    }

    /// ln E of one level.
    pub fn ln_level(&self, level: usize) -> f64 {
        self.latency[level].ln_e()
    }

    /// ln E of latency.
    #[allow(clippy::cast_precision_loss)]
    pub fn ln_latency(&self) -> f64 {
        ln_sum_exp(self.latency.iter().map(Mixture::ln_e)) - ln(N_LEVELS as f64)
    }

    /// ln E of errors.
    pub fn ln_errors(&self) -> f64 {
        self.ratio.ln_e().min(self.absolute.ln_e())
    }

    /// ln E of both.
    pub fn ln_e(&self) -> f64 {
        ln_sum_exp([ln(LATENCY_WEIGHT) + self.ln_latency(), ln(ERRORS_WEIGHT) + self.ln_errors()])
    }
}
