//! Numbers the judge computes with: divergences, mixtures, ranks, normal quantiles.
//!
//! Promise: the same bits on every machine. Logarithms, exponentials and the gamma function come
//! from `libm`, which is plain arithmetic, and never from the platform's library. Everything that
//! can be large stays a logarithm. Refusal: no Beta or Binomial distribution function of any
//! library: their tails are wrong at the sample sizes we have.

/// Natural logarithm; −∞ at 0.
#[inline]
pub fn ln(x: f64) -> f64 {
    libm::log(x)
}

/// e^x.
#[inline]
pub fn exp(x: f64) -> f64 {
    libm::exp(x)
}

/// ln(e^a + e^b) without overflow; −∞ is the logarithm of 0.
pub fn ln_add_exp(a: f64, b: f64) -> f64 {
    let (high, low) = if a >= b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY { high } else { high + libm::log1p(exp(low - high)) }
}

/// ln Σ e^x over `terms`; −∞ for none.
pub fn ln_sum_exp(terms: impl IntoIterator<Item = f64>) -> f64 {
    terms.into_iter().fold(f64::NEG_INFINITY, ln_add_exp)
}

/// k·ln x, 0 where k is 0 whatever x is.
#[inline]
pub fn k_ln(k: f64, x: f64) -> f64 {
    if k == 0.0 { 0.0 } else { k * ln(x) }
}

/// Kullback-Leibler divergence of Bernoulli(q) from Bernoulli(p), nats, never below 0; 0 ln 0 is 0.
pub fn kl(q: f64, p: f64) -> f64 {
    (k_ln(q, q / p) + k_ln(1.0 - q, (1.0 - q) / (1.0 - p))).max(0.0)
}

/// ln B(a, b) for a, b > 0.
pub fn ln_beta(a: f64, b: f64) -> f64 {
    libm::lgamma(a) + libm::lgamma(b) - libm::lgamma(a + b)
}

/// Logarithm of the two-sided beta-binomial mixture martingale for `k` of `n` against probability
/// `p`, prior of strength `concentration` centred at `p`. Fractional counts are tempered ones.
pub fn ln_beta_binomial(k: f64, n: f64, p: f64, concentration: f64) -> f64 {
    let (a, b) = (concentration * p, concentration * (1.0 - p));
    ln_beta(a + k, b + n - k) - ln_beta(a, b) - k_ln(k, p) - k_ln(n - k, 1.0 - p)
}

/// P(Z ≤ x) for a standard normal Z.
pub fn normal_cdf(x: f64) -> f64 {
    0.5 * libm::erfc(-x / std::f64::consts::SQRT_2)
}

/// The x with P(Z ≤ x) = p; ∓∞ at 0 and 1, NaN outside.
///
/// Acklam's rational approximation and one Halley step: absolute error under 1e-12 for
/// 1e-300 < p < 1 − 1e-16.
pub fn normal_quantile(p: f64) -> f64 {
    if !(0.0..=1.0).contains(&p) {
        return f64::NAN;
    }
    if p == 0.0 || p == 1.0 {
        return if p == 0.0 { f64::NEG_INFINITY } else { f64::INFINITY };
    }
    // The upper half by symmetry: the lower tail keeps its digits.
    if p > 0.5 {
        return -normal_quantile(1.0 - p);
    }
    let x = acklam(p);
    let error = normal_cdf(x) - p;
    let step = error * (2.0 * std::f64::consts::PI).sqrt() * exp(x * x / 2.0);
    x - step / (1.0 + x * step / 2.0)
}

/// The first guess, for p ≤ 0.5; relative error under 1.2e-9.
fn acklam(p: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969_683_028_665_376e1,
        2.209_460_984_245_205e2,
        -2.759_285_104_469_687e2,
        1.383_577_518_672_69e2,
        -3.066_479_806_614_716e1,
        2.506_628_277_459_239,
    ];
    const B: [f64; 6] = [
        -5.447_609_879_822_406e1,
        1.615_858_368_580_409e2,
        -1.556_989_798_598_866e2,
        6.680_131_188_771_972e1,
        -1.328_068_155_288_572e1,
        1.0,
    ];
    const C: [f64; 6] = [
        -7.784_894_002_430_293e-3,
        -3.223_964_580_411_365e-1,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const D: [f64; 5] = [
        7.784_695_709_041_462e-3,
        3.224_671_290_700_398e-1,
        2.445_134_137_142_996,
        3.754_408_661_907_416,
        1.0,
    ];
    let at = |coefficients: &[f64], x: f64| coefficients.iter().fold(0.0, |sum, c| sum * x + c);
    if p < 0.024_25 {
        let q = (-2.0 * ln(p)).sqrt();
        return at(&C, q) / at(&D, q);
    }
    let q = p - 0.5;
    q * at(&A, q * q) / at(&B, q * q)
}

/// Ranks (from 1) that enclose the `p`-quantile of `n` samples with 95 % probability when only
/// `n / deff` of them count as independent; an end is `None` where no rank is extreme enough.
///
/// The ranks are those of ⌊n/deff⌋ independent samples, spread outward over all `n`
/// (Woodruff 1952; Korn & Graubard 1998).
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub fn rank_interval(n: u64, p: f64, deff: f64) -> (Option<u64>, Option<u64>) {
    if deff <= 1.0 {
        return lens_hist::rank_interval(n, p);
    }
    let effective = (n as f64 / deff).floor() as u64;
    if effective == 0 {
        return (None, None);
    }
    let spread = n as f64 / effective as f64;
    let (low, high) = lens_hist::rank_interval(effective, p);
    let low = low.map(|rank| ((rank - 1) as f64 * spread).floor() as u64 + 1);
    let high = high.map(|rank| ((rank as f64 * spread).ceil() as u64).min(n));
    (low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_normal_quantile_undoes_its_distribution_function() {
        for p in [1e-12, 1e-6, 0.001, 0.024, 0.025, 0.3, 0.5, 0.8, 0.975, 0.999_999] {
            let x = normal_quantile(p);
            assert!((normal_cdf(x) - p).abs() < 1e-13 * p.max(1e-3), "{p}: {x}");
        }
        assert!((normal_quantile(0.975) - 1.959_963_984_540_054).abs() < 1e-12);
        assert_eq!(normal_quantile(0.0), f64::NEG_INFINITY);
        assert!(normal_quantile(-0.1).is_nan());
    }

    #[test]
    fn sums_of_exponentials_do_not_overflow() {
        assert!((ln_add_exp(1_000.0, 1_000.0) - (1_000.0 + 2_f64.ln())).abs() < 1e-12);
        assert_eq!(ln_add_exp(f64::NEG_INFINITY, -3.0), -3.0);
        assert_eq!(ln_sum_exp([]), f64::NEG_INFINITY);
    }

    #[test]
    fn a_divergence_is_zero_only_at_its_own_probability() {
        assert_eq!(kl(0.05, 0.05), 0.0);
        assert!(kl(0.0, 0.05) > 0.0 && kl(1.0, 0.05) > 0.0);
        assert!((kl(0.0, 0.05) + (0.95_f64).ln()).abs() < 1e-15);
    }

    #[test]
    fn dependent_samples_widen_the_ranks() {
        let (low, high) = rank_interval(1_000, 0.95, 4.0);
        let (alone_low, alone_high) = rank_interval(1_000, 0.95, 1.0);
        assert!(low < alone_low && high > alone_high, "{low:?} {high:?}");
        assert_eq!(rank_interval(1_000, 0.99, 4.0).1, None, "250 are fewer than 368");
        assert_eq!(rank_interval(3, 0.5, 4.0), (None, None));
    }
}
