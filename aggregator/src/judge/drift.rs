//! A slow change against a fixed reference, with a known time between false alarms.
//!
//! Exceedances of a threshold that is passed with probability at most p₀ are bet against with six
//! odds. Each bet may begin at any window: M ← (M + 1)·e, the Shiryaev-Roberts sum of e-values
//! (Shin, Ramdas & Rinaldo 2024). While p ≤ p₀, the mean of M grows by at most 1 a window, so the
//! windows until it passes c are at least c on average. No window adds more than one nat, so that
//! a single burst decides nothing.

use super::math::{exp, k_ln, ln, ln_add_exp, ln_sum_exp};

/// Odds that are bet on, as multiples of p₀.
const BETS: [f64; 6] = [1.1, 1.2, 1.5, 2.0, 3.0, 5.0];

/// Most a window adds, nats.
pub const CAP: f64 = 1.0;

/// The sum of bets on an exceedance rate above p₀.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drift {
    p0: f64,
    ln_m: [f64; BETS.len()],
}

impl Drift {
    /// Nothing seen yet, against a rate of `p0`, above 0 and below 0.2.
    pub const fn new(p0: f64) -> Self {
        Self { p0, ln_m: [f64::NEG_INFINITY; BETS.len()] }
    }

    /// Takes in one window: `hits` of `trials`, `phi` of which count as one, each bet capped.
    pub fn push(&mut self, trials: u64, hits: u64, phi: f64, cap: f64) {
        if trials == 0 {
            return;
        }
        let (hits, misses) = (hits as f64, trials.saturating_sub(hits) as f64);
        for (ln_m, bet) in self.ln_m.iter_mut().zip(BETS) {
            let rate = self.p0 * bet;
            let ln_e = k_ln(hits, bet) + misses * ln((1.0 - rate) / (1.0 - self.p0));
            *ln_m = ln_add_exp(*ln_m, 0.0) + (ln_e / phi).min(cap);
        }
    }

    /// Logarithm of the mean over the bets; −∞ before the first window.
    pub fn ln_mean(&self) -> f64 {
        ln_sum_exp(self.ln_m) - ln(BETS.len() as f64)
    }

    /// The mean over the bets, at most `f64::MAX`.
    pub fn mean(&self) -> f64 {
        exp(self.ln_mean().min(709.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng, rngs::SmallRng};

    #[test]
    fn a_burst_alone_decides_nothing_and_a_lasting_rise_is_found() {
        let mut burst = Drift::new(0.01);
        burst.push(1_000, 900, 1.0, CAP);
        assert!(burst.ln_mean() < 2.0);
        let mut rise = Drift::new(0.01);
        let found = (1..).find(|_| {
            rise.push(1_000, 20, 1.0, CAP);
            rise.mean() > 259_200.0
        });
        assert!(found.unwrap() < 30, "{found:?}");
    }

    #[test]
    fn at_its_reference_a_day_passes_without_alarm() {
        let seed = 0x5eed_0005;
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut drift = Drift::new(0.01);
        let mut largest = 0.0_f64;
        for _ in 0..8_640 {
            let hits = (0..200).filter(|_| rng.random::<f64>() < 0.01).count();
            drift.push(200, hits as u64, 1.0, CAP);
            largest = largest.max(drift.mean());
        }
        assert!(largest < 259_200.0, "{largest}, seed {seed:#x}");
    }

    #[test]
    fn windows_without_samples_change_nothing() {
        let mut drift = Drift::new(0.01);
        drift.push(0, 0, 1.0, CAP);
        assert_eq!(drift, Drift::new(0.01));
    }
}
