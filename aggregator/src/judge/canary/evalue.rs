//! Evidence of one window as a bet: the logarithm of an e-value for two arms' counts.
//!
//! An e-value is never negative and has expectation at most 1 while the null hypothesis holds, so
//! products over windows may be looked at after every window: the chance that one ever reaches
//! 1/α is at most α (Ville). The 2×2 form (Turner, Ly & Grünwald 2024) holds for any baseline
//! rate, changing from window to window, and any share, so load swings and share changes need no
//! model. The ratio form for errors conditions on their sum (Lindon & Malek 2022); the bounded form
//! is a balanced bet on a mean (Waudby-Smith & Ramdas 2024).
//! Promise: 0 without data in either arm; finite for every input the constructors accept.

use crate::judge::math::{k_ln, ln};

/// How many of an arm's requests did what is counted: exceeded a threshold, failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hits {
    /// Those that did.
    pub hits: u64,
    /// All of them, at least `hits`.
    pub n: u64,
}

impl Hits {
    /// Both sums.
    pub const fn plus(self, other: Self) -> Self {
        Self { hits: self.hits.saturating_add(other.hits), n: self.n.saturating_add(other.n) }
    }

    /// What is left without `other`, a part of this.
    pub const fn minus(self, other: Self) -> Self {
        Self { hits: self.hits.saturating_sub(other.hits), n: self.n.saturating_sub(other.n) }
    }

    #[allow(clippy::cast_precision_loss)]
    fn split(self) -> (f64, f64) {
        (self.hits as f64, self.n.saturating_sub(self.hits) as f64)
    }
}

/// The rate whose odds are `psi` times those of `rate`.
pub fn odds_times(rate: f64, psi: f64) -> f64 {
    psi * rate / (1.0 - rate + psi * rate)
}

/// A bet that the canary's odds of a hit are `psi` times the baseline's.
///
/// With psi > 1 it is an e-value while the canary's rate is at most the baseline's, with psi < 1
/// while it is at least the baseline's.
#[derive(Clone, Copy, Debug)]
pub struct OddsBet {
    canary: f64,
    baseline: f64,
    /// Logarithms of both rates and of what is left of 1.
    ln_canary: (f64, f64),
    ln_baseline: (f64, f64),
}

impl OddsBet {
    /// A bet around `pi`, a guess of the baseline's rate made before the window, 0 < pi < 1.
    pub fn new(pi: f64, psi: f64) -> Self {
        let canary = odds_times(pi, psi);
        Self {
            canary,
            baseline: pi,
            ln_canary: (ln(canary), ln(1.0 - canary)),
            ln_baseline: (ln(pi), ln(1.0 - pi)),
        }
    }

    /// ln e of one window's counts.
    #[allow(clippy::cast_precision_loss)]
    pub fn ln_e(&self, canary: Hits, baseline: Hits) -> f64 {
        if canary.n == 0 || baseline.n == 0 {
            return 0.0;
        }
        let (n_c, n_b) = (canary.n as f64, baseline.n as f64);
        let pooled = (n_c * self.canary + n_b * self.baseline) / (n_c + n_b);
        let (ln_hit, ln_miss) = (ln(pooled), ln(1.0 - pooled));
        let (c_hit, c_miss) = canary.split();
        let (b_hit, b_miss) = baseline.split();
        c_hit * (self.ln_canary.0 - ln_hit)
            + c_miss * (self.ln_canary.1 - ln_miss)
            + b_hit * (self.ln_baseline.0 - ln_hit)
            + b_miss * (self.ln_baseline.1 - ln_miss)
    }
}

/// ln e of the 2×2 bet.
pub fn ln_e_2x2(canary: Hits, baseline: Hits, pi: f64, psi: f64) -> f64 {
    OddsBet::new(pi, psi).ln_e(canary, baseline)
}

/// ln e against "the canary's error rate is at most `rho` times the baseline's".
///
/// Exact for Poisson counts, conservative for requests that each fail or do not (Hoeffding 1963).
#[allow(clippy::cast_precision_loss)]
pub fn ln_e_ratio(canary: Hits, baseline: Hits, rho: f64, psi: f64) -> f64 {
    if canary.n == 0 || baseline.n == 0 || canary.hits.saturating_add(baseline.hits) == 0 {
        return 0.0;
    }
    let weight = rho * canary.n as f64;
    let null = weight / (weight + baseline.n as f64);
    let bet = odds_times(null, psi);
    canary.hits as f64 * ln(bet / null) + baseline.hits as f64 * ln((1.0 - bet) / (1.0 - null))
}

/// ln e against "the canary's error rate is at most `rate`" with psi > 1, "at least" with psi < 1.
pub fn ln_e_absolute(canary: Hits, rate: f64, psi: f64) -> f64 {
    if canary.n == 0 {
        return 0.0;
    }
    let bet = odds_times(rate, psi);
    let (hit, miss) = canary.split();
    k_ln(hit, bet / rate) + k_ln(miss, (1.0 - bet) / (1.0 - rate))
}

/// Values in [0, 1] of one arm: how many fell on each of 101 marks from 0 to 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marks {
    counts: Vec<u64>,
}

/// Marks on [0, 1].
pub const MARKS: usize = 101;

impl Default for Marks {
    fn default() -> Self {
        Self { counts: vec![0; MARKS] }
    }
}

impl Marks {
    /// Counts a value at its nearest mark; one outside [0, 1] counts at the end it is beyond, and
    /// one that is no number is not counted.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    pub fn add(&mut self, value: f64, count: u64) {
        if value.is_nan() {
            return;
        }
        let mark = (value.clamp(0.0, 1.0) * (MARKS - 1) as f64).round() as usize;
        self.counts[mark] = self.counts[mark].saturating_add(count);
    }

    /// Values counted.
    pub fn n(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The sum of the values.
    pub fn sum(&self) -> f64 {
        self.each().map(|(value, count)| value * count).sum()
    }

    /// Adds the values of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count = count.saturating_add(*more);
        }
    }

    #[allow(clippy::cast_precision_loss)]
    fn each(&self) -> impl Iterator<Item = (f64, f64)> {
        let marks = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        marks.map(|(mark, &count)| (mark as f64 / (MARKS - 1) as f64, count as f64))
    }
}

/// ln e against "the canary's mean is at least the baseline's minus `delta`".
///
/// `nu` is the baseline's mean as known before the window, `lambda` the stake, cut to what cannot
/// be lost whole.
#[allow(clippy::cast_precision_loss)]
pub fn ln_e_mean(canary: &Marks, baseline: &Marks, nu: f64, lambda: f64, delta: f64) -> f64 {
    let (n_c, n_b) = (canary.n() as f64, baseline.n() as f64);
    if n_c == 0.0 || n_b == 0.0 {
        return 0.0;
    }
    let share = n_c / n_b;
    let worst = (1.0 - nu + delta).max(share * nu);
    let lambda = if worst > 0.0 { lambda.min(0.9 / worst) } else { lambda };
    let lost: f64 = canary.each().map(|(y, n)| n * ln(1.0 + lambda * (nu - delta - y))).sum();
    let held: f64 = baseline.each().map(|(y, n)| n * ln(1.0 + share * lambda * (y - nu))).sum();
    lost + held
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::math::{exp, ln_sum_exp};

    fn ln_binomial(n: u64, k: u64) -> f64 {
        let gamma = |x: u64| libm::lgamma(x as f64 + 1.0);
        gamma(n) - gamma(k) - gamma(n - k)
    }

    /// E[e] of a bet on all outcomes of two binomial arms.
    fn expectation(n: (u64, u64), p: (f64, f64), bet: impl Fn(Hits, Hits) -> f64) -> f64 {
        let pmf = |n: u64, k: u64, p: f64| {
            ln_binomial(n, k) + k_ln(k as f64, p) + k_ln((n - k) as f64, 1.0 - p)
        };
        let terms = (0..=n.0).flat_map(|k_c| (0..=n.1).map(move |k_b| (k_c, k_b)));
        exp(ln_sum_exp(terms.map(|(k_c, k_b)| {
            let (c, b) = (Hits { hits: k_c, n: n.0 }, Hits { hits: k_b, n: n.1 });
            pmf(n.0, k_c, p.0) + pmf(n.1, k_b, p.1) + bet(c, b)
        })))
    }

    const SIZES: [(u64, u64); 5] = [(1, 1), (1, 19), (5, 20), (20, 5), (12, 30)];
    const RATES: [f64; 6] = [0.001, 0.01, 0.05, 0.3, 0.5, 0.9];

    #[test]
    fn a_two_by_two_bet_gains_nothing_on_average_while_the_canary_is_no_worse() {
        for size in SIZES {
            for p_b in RATES {
                for pi in [0.01, 0.05, 0.5] {
                    for (psi, p_c) in [(1.5, p_b), (4.9, p_b), (1.5, p_b * 0.7), (0.5, p_b)] {
                        let e = expectation(size, (p_c, p_b), |c, b| ln_e_2x2(c, b, pi, psi));
                        assert!(e <= 1.0 + 1e-9, "{size:?} {p_b} {pi} {psi} {p_c}: {e}");
                    }
                    let better = expectation(size, (1.0_f64.min(p_b * 1.3), p_b), |c, b| {
                        ln_e_2x2(c, b, pi, 0.5)
                    });
                    assert!(better <= 1.0 + 1e-9, "{better}");
                }
            }
        }
    }

    #[test]
    fn an_error_bet_gains_nothing_on_average_while_the_canary_keeps_its_bound() {
        for size in SIZES {
            for p_b in RATES.into_iter().filter(|p| *p <= 0.3) {
                for psi in [1.2, 2.7, 33.0] {
                    for rho in [1.0, 1.25, 1.5] {
                        let p = ((rho * p_b).min(1.0), p_b);
                        let e = expectation(size, p, |c, b| ln_e_ratio(c, b, rho, psi));
                        assert!(e <= 1.0 + 1e-9, "ratio {size:?} {p_b} {psi} {rho}: {e}");
                    }
                    let e = expectation(size, (p_b, 0.5), |c, _| ln_e_absolute(c, p_b, psi));
                    assert!(e <= 1.0 + 1e-9, "absolute {size:?} {p_b} {psi}: {e}");
                    let above = (1.1 * p_b, 0.5);
                    let e = expectation(size, above, |c, _| ln_e_absolute(c, p_b, 1.0 / psi));
                    assert!(e <= 1.0 + 1e-9, "at least {size:?} {p_b} {psi}: {e}");
                }
            }
        }
    }

    #[test]
    fn a_bet_on_a_mean_gains_nothing_on_average_while_the_canary_keeps_it() {
        // Two-valued arms: 1 with probability p, else 0.2.
        let marks = |hits: Hits| {
            let mut marks = Marks::default();
            marks.add(1.0, hits.hits);
            marks.add(0.2, hits.n - hits.hits);
            marks
        };
        for size in SIZES {
            for nu in [0.3, 0.6, 0.95] {
                for lambda in [0.1, 1.0, 4.0] {
                    let e = expectation(size, (0.5, 0.5), |c, b| {
                        ln_e_mean(&marks(c), &marks(b), nu, lambda, 0.0)
                    });
                    assert!(e <= 1.0 + 1e-9, "{size:?} {nu} {lambda}: {e}");
                }
            }
        }
    }

    #[test]
    fn an_arm_without_data_is_no_evidence() {
        let some = Hits { hits: 5, n: 100 };
        assert_eq!(ln_e_2x2(Hits::default(), some, 0.05, 1.5), 0.0);
        assert_eq!(ln_e_2x2(some, Hits::default(), 0.05, 1.5), 0.0);
        assert_eq!(ln_e_ratio(some, Hits::default(), 1.25, 1.5), 0.0);
        assert_eq!(ln_e_absolute(Hits::default(), 0.01, 1.5), 0.0);
        let mut marks = Marks::default();
        assert_eq!(ln_e_mean(&marks, &marks, 0.5, 1.0, 0.0), 0.0);
        marks.add(f64::NAN, 3);
        assert_eq!(marks.n(), 0);
    }
}
