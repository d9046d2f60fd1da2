//! Evidence over time: a mixture of products of e-values that may be looked at after every window.
//!
//! One product for each strength of effect that is bet on; each takes in a part of the starting
//! mass at each of the times it may have begun (Robbins 1970; a weighted Shiryaev-Roberts sum). The
//! whole starts with mass 1 and stays an e-process, so the chance that it ever reaches 1/α without
//! an effect is at most α. Mass that has not started counts as 1.
//! A window adds at most [`CAP_NATS`] to any product: no single window decides, and the rare stall of
//! one host does not. The least of an e-value and a constant is an e-value, so nothing is lost.
//! Bounds: one number for each strength.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::judge::math::{ln, ln_add_exp, ln_sum_exp};

/// Most that one window adds to the logarithm of a product.
pub const CAP_NATS: f64 = 1.0;

/// Strengths bet on for latencies, as logarithms of odds ratios.
pub const LN_PSI_LATENCY: [f64; 6] = [0.05, 0.1, 0.2, 0.4, 0.8, 1.6];

/// Strengths bet on for errors.
pub const LN_PSI_ERRORS: [f64; 6] = [0.2, 0.5, 1.0, 1.7, 2.5, 3.5];

/// Strengths bet on for "not worse than the margin".
pub const LN_PSI_NOT_WORSE: [f64; 5] = [-0.05, -0.1, -0.2, -0.4, -0.8];

/// Stakes on a mean of values in [0, 1].
pub const STAKES: [f64; 5] = [0.1, 0.3, 1.0, 2.0, 4.0];

/// Windows in a minute.
const MINUTE: u64 = 12;

/// Full minutes at which a part of the mass starts.
const STARTS: u64 = 120;

/// The part of the starting mass that begins with window `t` (from 0) of a rollout, `step_begins`
/// when a step after the first begins with it. Half at once, an eighth with each of two later steps,
/// a quarter spread over the full minutes of two hours: 1 in all.
#[allow(clippy::cast_precision_loss)]
pub fn start_mass(t: u64, step_begins: bool) -> f64 {
    let first = if t == 0 { 0.5 } else { 0.0 };
    let step = if step_begins { 0.125 } else { 0.0 };
    let minute = t.is_multiple_of(MINUTE) && (1..=STARTS).contains(&(t / MINUTE));
    first + step + if minute { 0.25 / STARTS as f64 } else { 0.0 }
}

/// What a window adds to a product: tempered by `phi`, at most [`CAP_NATS`].
pub fn tempered(ln_e: f64, phi: f64) -> f64 {
    (ln_e / phi).min(CAP_NATS)
}

/// A mixture of `N` products.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mixture<const N: usize> {
    /// Logarithm of each product times the mass in it; −∞ before any has started.
    #[serde(serialize_with = "finite_or_null", deserialize_with = "null_is_nothing")]
    products: [f64; N],
    /// Mass that has started.
    started: f64,
}

impl<const N: usize> Default for Mixture<N> {
    fn default() -> Self {
        Self { products: [f64::NEG_INFINITY; N], started: 0.0 }
    }
}

impl<const N: usize> Mixture<N> {
    /// A mixture whose whole mass starts now.
    pub fn started() -> Self {
        let mut mixture = Self::default();
        mixture.start(1.0);
        mixture
    }

    /// Starts `mass` more, of what is left of 1.
    pub fn start(&mut self, mass: f64) {
        let mass = mass.min(1.0 - self.started);
        if mass <= 0.0 {
            return;
        }
        let ln_mass = ln(mass);
        for product in &mut self.products {
            *product = ln_add_exp(*product, ln_mass);
        }
        self.started += mass;
    }

    /// Multiplies each product by the e-value whose logarithm is given.
    pub fn multiply(&mut self, ln_e: &[f64; N]) {
        for (product, more) in self.products.iter_mut().zip(ln_e) {
            *product += more;
        }
    }

    /// Logarithm of the whole: the mean of the products and the mass not started.
    #[allow(clippy::cast_precision_loss)]
    pub fn ln_e(&self) -> f64 {
        let products = ln_sum_exp(self.products.iter().copied()) - ln(N as f64);
        let waiting = (1.0 - self.started).max(0.0);
        if waiting == 0.0 { products } else { ln_add_exp(products, ln(waiting)) }
    }
}

fn finite_or_null<S: Serializer, const N: usize>(
    values: &[f64; N],
    to: S,
) -> Result<S::Ok, S::Error> {
    to.collect_seq(values.iter().map(|value| value.is_finite().then_some(*value)))
}

fn null_is_nothing<'de, D: Deserializer<'de>, const N: usize>(
    from: D,
) -> Result<[f64; N], D::Error> {
    let values = Vec::<Option<f64>>::deserialize(from)?;
    let values: Vec<f64> = values.into_iter().map(|v| v.unwrap_or(f64::NEG_INFINITY)).collect();
    let found = values.len();
    let wrong = |_| serde::de::Error::custom(format!("{found} products where {N} are kept"));
    values.try_into().map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_starting_mass_of_three_steps_and_two_hours_is_one() {
        let total: f64 = (0..3_000).map(|t| start_mass(t, t == 60 || t == 180)).sum();
        assert!((total - 1.0).abs() < 1e-12, "{total}");
    }

    #[test]
    fn a_mixture_that_hears_nothing_stays_at_one() {
        let mut mixture = Mixture::<6>::default();
        for t in 0..2_000 {
            mixture.start(start_mass(t, t == 60 || t == 180));
            mixture.multiply(&[0.0; 6]);
            assert!(mixture.ln_e().abs() < 1e-12, "window {t}: {}", mixture.ln_e());
        }
    }

    #[test]
    fn products_that_were_lost_leave_what_has_not_started() {
        let mut mixture = Mixture::<6>::default();
        mixture.start(0.75);
        (0..5_000).for_each(|_| mixture.multiply(&[-1.0; 6]));
        assert!((mixture.ln_e() - ln(0.25)).abs() < 1e-12, "{}", mixture.ln_e());
    }

    #[test]
    fn no_window_adds_more_than_the_cap_and_none_starts_more_than_there_is() {
        assert_eq!(tempered(50.0, 1.25), CAP_NATS);
        assert_eq!(tempered(-50.0, 2.0), -25.0);
        let mut mixture = Mixture::<5>::started();
        mixture.start(0.5);
        mixture.multiply(&[CAP_NATS; 5]);
        assert!((mixture.ln_e() - CAP_NATS).abs() < 1e-12);
    }

    #[test]
    fn a_mixture_comes_back_from_its_stored_form_bit_for_bit() {
        let mut mixture = Mixture::<6>::default();
        let empty = serde_json::to_string(&mixture).unwrap();
        assert_eq!(serde_json::from_str::<Mixture<6>>(&empty).unwrap(), mixture);
        mixture.start(start_mass(0, false));
        mixture.multiply(&[0.1, 1.0 / 3.0, -0.7, 1e-9, 0.3, 1.0]);
        let stored = serde_json::to_string(&mixture).unwrap();
        assert_eq!(serde_json::from_str::<Mixture<6>>(&stored).unwrap(), mixture);
        assert!(serde_json::from_str::<Mixture<5>>(&stored).is_err());
    }
}
