//! Exact quantiles of values that were all kept.
//!
//! Nearest rank: the value at rank ceil(q·n) of the sorted values, so every quantile is a value
//! that occurred. This is the yardstick histograms are compared with, so it never interpolates.

use serde::Serialize;

use crate::numbers::{millis, whole};

/// The quantiles reported everywhere in this crate.
pub const QUANTILES: [f64; 4] = [0.50, 0.95, 0.99, 0.999];

/// Exact quantiles of a set of latencies, milliseconds; `None` where nothing was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Quantiles {
    /// How many values there were.
    pub count: u64,
    /// Median.
    pub p50_ms: Option<f64>,
    /// 95 in 100 are at most this.
    pub p95_ms: Option<f64>,
    /// 99 in 100 are at most this.
    pub p99_ms: Option<f64>,
    /// 999 in 1000 are at most this.
    pub p99_9_ms: Option<f64>,
    /// The largest value.
    pub max_ms: Option<f64>,
}

impl Quantiles {
    /// Sorts `nanos` in place and reads the quantiles off.
    pub fn of(nanos: &mut [u64]) -> Self {
        nanos.sort_unstable();
        let at = |q| nearest_rank(nanos, q).map(millis);
        let [p50, p95, p99, p99_9] = QUANTILES;
        Self {
            count: nanos.len() as u64,
            p50_ms: at(p50),
            p95_ms: at(p95),
            p99_ms: at(p99),
            p99_9_ms: at(p99_9),
            max_ms: nanos.last().copied().map(millis),
        }
    }
}

/// The value at rank ceil(q·n) of sorted values; `None` of none.
pub fn nearest_rank<T: Copy>(sorted: &[T], q: f64) -> Option<T> {
    // A product such as 0.95 · 100 may come out a hair above 95; that must not cost a rank.
    let exact = q * sorted.len() as f64;
    let rank = whole((exact - 1e-9 * exact.max(1.0)).ceil());
    let at = usize::try_from(rank).unwrap_or(usize::MAX).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(at).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_occurred_at_rank_ceil_qn() {
        let sorted: Vec<u64> = (1..=100).collect();
        assert_eq!(nearest_rank(&sorted, 0.5), Some(50));
        assert_eq!(nearest_rank(&sorted, 0.95), Some(95));
        assert_eq!(nearest_rank(&sorted, 0.99), Some(99));
        assert_eq!(nearest_rank(&sorted, 0.999), Some(100));
        assert_eq!(nearest_rank(&[7], 0.01), Some(7));
    }

    #[test]
    fn nothing_measured_is_none_and_never_zero() {
        assert_eq!(Quantiles::of(&mut []), Quantiles::default());
        assert_eq!(Quantiles::default().p95_ms, None);
    }
}
