//! Evidence that the canary is not worse than a step's margin: p95, p99 and errors, each its own.
//!
//! Begun anew with every step. All of them must reach the bound (intersection-union), so none pays
//! for the others. Without data an e-value is 1 and the evidence stays where it was: what was not
//! measured never passes.

use serde::{Deserialize, Serialize};

use super::evalue::{Hits, OddsBet, ln_e_absolute};
use super::harm::{ERRORS, Phi};
use super::process::{LN_PSI_NOT_WORSE, Mixture, tempered};
use super::reference::Thresholds;
use super::tally::{ArmTally, NOT_WORSE_LEVELS};
use crate::judge::math::exp;

/// What must be shown not to be worse.
pub const PARTS: [&str; 3] = ["p95", "p99", "errors"];

/// The bets of one stream's window.
#[derive(Clone, Debug)]
pub struct PromotionBets {
    latency: [Option<[OddsBet; 5]>; 2],
}

impl PromotionBets {
    /// Bets around the baseline's rates of exceeding its thresholds.
    pub fn new(thresholds: &Thresholds) -> Self {
        let bets = |pi: f64| LN_PSI_NOT_WORSE.map(|ln_psi| OddsBet::new(pi, exp(ln_psi)));
        Self { latency: NOT_WORSE_LEVELS.map(|level| thresholds[level].map(|t| bets(t.pi))) }
    }

    /// What the latencies of one stratum say.
    pub fn window(&self, canary: &ArmTally, baseline: &ArmTally) -> PromotionWindow {
        let mut window = PromotionWindow::default();
        for (which, bets) in self.latency.iter().enumerate() {
            let Some(bets) = bets else { continue };
            let (c, b) = (canary.hits_not_worse(which), baseline.hits_not_worse(which));
            window.latency[which] = std::array::from_fn(|g| bets[g].ln_e(c, b));
        }
        window
    }
}

/// Logarithms of one window's e-values, neither tempered nor capped: strata add up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PromotionWindow {
    latency: [[f64; 5]; 2],
}

impl PromotionWindow {
    /// Adds another stratum.
    pub fn add(&mut self, other: &Self) {
        let pairs = self.latency.iter_mut().flatten().zip(other.latency.iter().flatten());
        pairs.for_each(|(a, b)| *a += b);
    }
}

/// Evidence of the windows of one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Promotion {
    latency: [Mixture<5>; 2],
    errors: Mixture<5>,
}

impl Default for Promotion {
    fn default() -> Self {
        Self { latency: [Mixture::started(), Mixture::started()], errors: Mixture::started() }
    }
}

impl Promotion {
    /// Takes in a window. `error_rate` is the rate that must be shown not to be reached, known
    /// before the window.
    pub fn take(
        &mut self,
        window: &PromotionWindow,
        canary_errors: Hits,
        error_rate: f64,
        phi: &Phi,
    ) {
        for (which, mixture) in self.latency.iter_mut().enumerate() {
            let phi = phi[NOT_WORSE_LEVELS[which]];
            mixture.multiply(&window.latency[which].map(|ln_e| tempered(ln_e, phi)));
        }
        let bet = |ln_psi: f64| ln_e_absolute(canary_errors, error_rate, exp(ln_psi));
        self.errors.multiply(&LN_PSI_NOT_WORSE.map(|ln_psi| tempered(bet(ln_psi), phi[ERRORS])));
    }

    /// ln E of each of [`PARTS`].
    pub fn ln_e(&self) -> [f64; 3] {
        [self.latency[0].ln_e(), self.latency[1].ln_e(), self.errors.ln_e()]
    }
}
