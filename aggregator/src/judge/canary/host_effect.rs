//! What hosts differ by for good, and what that leaves to be shown when arms live on hosts of their
//! own.
//!
//! A host's lasting difference does not average out over time, only over hosts: with few canary
//! hosts it looks like a difference of versions. So the margin of harm is widened by what the
//! difference of two groups of such hosts exceeds with a stated probability, and the margins of
//! promotion are narrowed by the same. A margin that is narrowed to nothing cannot be shown, which
//! is said before the rollout and not after it.

use crate::judge::math::{exp, ln, normal_cdf};

/// Hosts of each arm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hosts {
    /// Hosts that carry the canary.
    pub canary: usize,
    /// Hosts that carry the baseline.
    pub baseline: usize,
}

/// Standard deviation over hosts of the logarithm of a quantile; `None` for fewer than two hosts.
#[allow(clippy::cast_precision_loss)]
pub fn tau(ln_quantiles: &[f64]) -> Option<f64> {
    let n = ln_quantiles.len() as f64;
    if ln_quantiles.len() < 2 {
        return None;
    }
    let mean = ln_quantiles.iter().sum::<f64>() / n;
    let squares: f64 = ln_quantiles.iter().map(|x| (x - mean) * (x - mean)).sum();
    Some((squares / (n - 1.0)).sqrt())
}

/// The ratio of quantiles that two groups of hosts differ by with the confidence given, though
/// nothing but their hosts differs; `known` hosts gave `tau`.
#[allow(clippy::cast_precision_loss)]
pub fn factor(tau: f64, known: usize, hosts: Hosts, confidence: f64) -> f64 {
    if known < 2 || hosts.canary == 0 || hosts.baseline == 0 {
        return f64::INFINITY;
    }
    let spread = (1.0 / hosts.canary as f64 + 1.0 / hosts.baseline as f64).sqrt();
    exp(student_quantile(confidence, known - 1) * tau * spread)
}

/// Canary hosts, of all there are, from which the factor is below a margin; `None` if none suffice.
pub fn hosts_needed(
    tau: f64,
    known: usize,
    all: usize,
    margin: f64,
    confidence: f64,
) -> Option<usize> {
    let enough = |canary: &usize| {
        let hosts = Hosts { canary: *canary, baseline: all - *canary };
        factor(tau, known, hosts, confidence) < margin
    };
    (1..all).find(enough)
}

/// The t with P(T ≤ t) = p for a Student T of whole degrees of freedom, 0.5 ≤ p < 1.
pub fn student_quantile(p: f64, degrees: usize) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    while student_cdf(high, degrees) < p && high < 1e12 {
        high *= 2.0;
    }
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if student_cdf(middle, degrees) < p { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// P(T ≤ t), t ≥ 0: the finite series for whole degrees of freedom (Abramowitz & Stegun 26.7.3-4);
/// the normal distribution above 400 degrees, where they agree to 1e-3.
#[allow(clippy::cast_precision_loss)]
fn student_cdf(t: f64, degrees: usize) -> f64 {
    if degrees > 400 {
        return normal_cdf(t);
    }
    let angle = libm::atan(t / (degrees as f64).sqrt());
    let (sin, cos) = (libm::sin(angle), libm::cos(angle));
    let odd = degrees % 2 == 1;
    let (mut term, mut sum) = if odd { (cos, cos) } else { (1.0, 1.0) };
    let first = if odd { 3 } else { 2 };
    for k in (first..degrees.saturating_sub(1)).step_by(2) {
        term *= cos * cos * (k as f64 - 1.0) / k as f64;
        sum += term;
    }
    let within = match degrees {
        0 => 0.0,
        1 => std::f64::consts::FRAC_2_PI * angle,
        _ if odd => std::f64::consts::FRAC_2_PI * (angle + sin * sum),
        _ => sin * sum,
    };
    0.5 * (1.0 + within)
}

/// The mean of logarithms of positive quantiles, weighted; for hosts of several slices.
pub fn ln_mean(quantiles: &[(f64, f64)]) -> Option<f64> {
    let weight: f64 = quantiles.iter().map(|(_, weight)| weight).sum();
    let sum: f64 = quantiles.iter().map(|(value, weight)| weight * ln(*value)).sum();
    (weight > 0.0).then(|| sum / weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn student_quantiles_are_those_of_the_tables() {
        for (p, degrees, t) in [
            (0.90, 1, 3.078),
            (0.95, 2, 2.920),
            (0.90, 3, 1.638),
            (0.95, 4, 2.132),
            (0.90, 19, 1.328),
            (0.95, 19, 1.729),
            (0.99, 19, 2.539),
            (0.95, 30, 1.697),
            (0.95, 1_000, 1.645),
        ] {
            let found = student_quantile(p, degrees);
            assert!((found - t).abs() < 2e-3, "{p} {degrees}: {found}");
        }
    }

    #[test]
    fn one_canary_host_of_twenty_widens_the_margin_most() {
        let widened = |canary| factor(0.05, 20, Hosts { canary, baseline: 20 - canary }, 0.99);
        assert!((widened(1) - 1.139).abs() < 1e-3, "{}", widened(1));
        assert!(widened(1) > widened(5) && widened(5) > widened(10));
        assert_eq!(factor(0.05, 1, Hosts { canary: 1, baseline: 1 }, 0.9), f64::INFINITY);
        assert_eq!(factor(0.05, 9, Hosts { canary: 0, baseline: 9 }, 0.9), f64::INFINITY);
    }

    #[test]
    fn how_many_hosts_a_margin_needs_is_the_fewest_that_do() {
        let needed = hosts_needed(0.05, 20, 20, 1.10, 0.95).unwrap();
        let at = |canary| factor(0.05, 20, Hosts { canary, baseline: 20 - canary }, 0.95);
        assert!(at(needed) < 1.10 && at(needed - 1) >= 1.10, "{needed}");
        assert_eq!(hosts_needed(0.3, 20, 20, 1.05, 0.95), None);
    }

    #[test]
    fn hosts_that_are_alike_have_no_effect() {
        assert_eq!(tau(&[2.0, 2.0, 2.0]), Some(0.0));
        assert_eq!(tau(&[2.0]), None);
        assert!((tau(&[1.0, 3.0]).unwrap() - 2_f64.sqrt()).abs() < 1e-12);
    }
}
