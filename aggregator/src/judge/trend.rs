//! Where a series is going: a slope that outliers do not move, and whether chance explains it.
//!
//! The slope is the median of all slopes between two points (Theil-Sen), its interval the slopes
//! at the ranks Sen (1968) gives, and its significance Mann-Kendall's, with the variance inflated
//! for autocorrelation (Hamed & Rao 1998): latency is not white, and white-noise formulas call
//! every slow swing a trend.

use super::math::normal_quantile;

/// A slope through points, per unit of time, with what it rests on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slope {
    /// Points.
    pub points: usize,
    /// Change per unit of time.
    pub slope: f64,
    /// Lower end of its interval.
    pub low: f64,
    /// Upper end of its interval.
    pub high: f64,
    /// The fitted value at the last point.
    pub level: f64,
    /// Half-width of the level's 95 % interval.
    pub level_error: f64,
    /// Mann-Kendall's statistic, standard normal without a trend.
    pub z: f64,
    /// How much autocorrelation inflates its variance.
    pub inflation: f64,
}

impl Slope {
    /// The slope through `points` (time, value), in ascending order of time, with an interval of
    /// error `alpha`. `None` for fewer than four points.
    pub fn of(points: &[(f64, f64)], alpha: f64, autocorrelated: bool) -> Option<Self> {
        let n = points.len();
        if n < 4 {
            return None;
        }
        let (mut slopes, mut score) = (Vec::with_capacity(n * (n - 1) / 2), 0.0);
        for (at, later) in points.iter().enumerate() {
            for earlier in &points[..at] {
                slopes.push((later.1 - earlier.1) / (later.0 - earlier.0));
                score += sign(later.1 - earlier.1);
            }
        }
        slopes.sort_unstable_by(f64::total_cmp);
        let slope = middle(&slopes);
        let mut residuals: Vec<f64> = points.iter().map(|(t, y)| y - slope * t).collect();
        let inflation = if autocorrelated { inflation(&residuals) } else { 1.0 };
        let size = n as f64;
        let variance = size * (size - 1.0) * (2.0 * size + 5.0) / 18.0 * inflation;
        residuals.sort_unstable_by(f64::total_cmp);
        let offset = middle(&residuals);
        let mut distances: Vec<f64> = residuals.iter().map(|r| (r - offset).abs()).collect();
        distances.sort_unstable_by(f64::total_cmp);
        let spread = 1.482_6 * middle(&distances);
        let (low, high) = ends(&slopes, -normal_quantile(alpha / 2.0) * variance.sqrt());
        Some(Self {
            points: n,
            slope,
            low,
            high,
            level: offset + slope * points[n - 1].0,
            level_error: 2.0 * spread * (inflation / size).sqrt(),
            z: (score - sign(score)) / variance.sqrt(),
            inflation,
        })
    }
}

/// The first whole step, from 1 to `horizon`, at which a line of this level and slope, with
/// `season(step)` added, is above `target`; `None` when it is not within the horizon.
pub fn crossing(
    level: f64,
    slope: f64,
    target: f64,
    horizon: u32,
    season: impl Fn(u32) -> f64,
) -> Option<u32> {
    (1..=horizon).find(|&step| level + slope * f64::from(step) + season(step) > target)
}

/// The slopes at the ranks Sen gives, outward.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn ends(slopes: &[f64], reach: f64) -> (f64, f64) {
    let count = slopes.len() as f64;
    let low = ((count - reach) / 2.0).floor().max(0.0) as usize;
    let high = ((count + reach) / 2.0).ceil().min(count - 1.0) as usize;
    (slopes[low.min(slopes.len() - 1)], slopes[high])
}

/// Hamed & Rao's inflation of the score's variance, from the positive and significant rank
/// autocorrelations of the detrended values.
fn inflation(residuals: &[f64]) -> f64 {
    let n = residuals.len();
    let size = n as f64;
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| residuals[a].total_cmp(&residuals[b]));
    let mut centred = vec![0.0; n];
    for (rank, &at) in order.iter().enumerate() {
        centred[at] = rank as f64 - (size - 1.0) / 2.0;
    }
    let total: f64 = centred.iter().map(|rank| rank * rank).sum();
    let significant = 1.96 / size.sqrt();
    let mut weighted = 0.0;
    for lag in 1..n {
        let products = centred[lag..].iter().zip(&centred).map(|(a, b)| a * b);
        let correlation = products.sum::<f64>() / total;
        if correlation > significant {
            let left = size - lag as f64;
            weighted += left * (left - 1.0) * (left - 2.0) * correlation;
        }
    }
    (1.0 + 2.0 / (size * (size - 1.0) * (size - 2.0)) * weighted).max(1.0)
}

/// The median of sorted values, of which there is at least one.
pub(crate) fn middle(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { (sorted[half - 1] + sorted[half]) / 2.0 }
}

fn sign(x: f64) -> f64 {
    if x == 0.0 { 0.0 } else { x.signum() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng, rngs::SmallRng};

    #[test]
    fn an_outlier_does_not_move_the_slope() {
        let mut points: Vec<(f64, f64)> =
            (0..20).map(|t| (f64::from(t), 0.5 * f64::from(t))).collect();
        points[10].1 = 1e6;
        let slope = Slope::of(&points, 0.05, true).unwrap();
        assert!((slope.slope - 0.5).abs() < 1e-9, "{slope:?}");
        assert_eq!(Slope::of(&points[..3], 0.05, true), None);
    }

    #[test]
    fn autocorrelated_noise_is_no_trend() {
        let seed = 0x5eed_0004;
        let mut rng = SmallRng::seed_from_u64(seed);
        let (mut trusting, mut wary) = (0, 0);
        for _ in 0..200 {
            let mut held = 0.0;
            let points: Vec<(f64, f64)> = (0..72)
                .map(|t| {
                    held = 0.8 * held + rng.random::<f64>() - 0.5;
                    (f64::from(t), held)
                })
                .collect();
            trusting += u32::from(Slope::of(&points, 0.01, false).unwrap().z.abs() > 4.0);
            wary += u32::from(Slope::of(&points, 0.01, true).unwrap().z.abs() > 4.0);
        }
        assert!(trusting >= 10, "{trusting} of 200: the noise tests nothing, seed {seed:#x}");
        assert!(wary * 3 <= trusting, "{wary} and {trusting} of 200, seed {seed:#x}");
    }
}
