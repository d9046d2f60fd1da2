//! From another histogram's buckets to ours: each at the middle of its bucket, counts kept exactly.
//!
//! Why the middle: it is linear, so that converting two deltas and adding is converting their sum.
//! Promise: the counts that come out add up to the counts that went in, or all is refused. The
//! error bound is the most a reported value may be off, as a share of itself: half the width of the
//! widest bucket that held samples, and half of ours.
//! Bounds: `POINT_SAMPLES_MAX` samples a point. No I/O.

use opentelemetry_proto::tonic::metrics::v1::{ExponentialHistogramDataPoint, HistogramDataPoint};

use super::refusal::Refusal;
use super::unit::{Unit, whole};

/// Samples in one data point: so many a second are more than one node can count.
pub const POINT_SAMPLES_MAX: u64 = 1 << 28;

/// Half a bucket of ours, as a share of its value.
const OWN_ERROR: f64 = 0.0079 / 2.0;

/// A histogram in our terms.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rebucketed {
    /// Nanoseconds and how often.
    pub counts: Vec<(u64, u32)>,
    /// Most a value may be off, as a share of itself; 0 without samples.
    pub error: f64,
}

impl Rebucketed {
    /// Samples in it.
    pub fn samples(&self) -> u64 {
        self.counts.iter().map(|(_, count)| u64::from(*count)).sum()
    }
}

/// Puts buckets into place, within what minimum and maximum allow.
struct Builder {
    unit: Unit,
    min: Option<f64>,
    max: Option<f64>,
    out: Rebucketed,
    samples: u64,
}

impl Builder {
    fn new(unit: Unit, min: Option<f64>, max: Option<f64>) -> Self {
        let good = |edge: Option<f64>| edge.filter(|edge| edge.is_finite() && *edge >= 0.0);
        Self { unit, min: good(min), max: good(max), out: Rebucketed::default(), samples: 0 }
    }

    /// Adds the samples between two edges in the metric's own unit.
    fn add(&mut self, low: f64, high: f64, count: u64) -> Result<(), Refusal> {
        if count == 0 {
            return Ok(());
        }
        let low = self.min.filter(|min| *min <= high).map_or(low, |min| min.max(low));
        let high = self.max.filter(|max| *max >= low).map_or(high, |max| max.min(high));
        self.samples = self.samples.saturating_add(count);
        let count = u32::try_from(count).map_err(|_| Refusal::TooMany)?;
        if self.samples > POINT_SAMPLES_MAX {
            return Err(Refusal::TooMany);
        }
        let (width, sum) = (high - low, high + low);
        let error = if sum > 0.0 { width / sum } else { 0.0 };
        // Two infinite edges make no number; neither do they say where the samples were.
        let error = if error.is_finite() { error } else { 1.0 };
        self.out.error = self.out.error.max(error + OWN_ERROR);
        self.out.counts.push((whole(sum / 2.0 * self.unit.nanos()), count));
        Ok(())
    }

    fn finish(self, count: u64) -> Result<Rebucketed, Refusal> {
        if self.samples == count { Ok(self.out) } else { Err(Refusal::Inconsistent) }
    }
}

/// An exponential histogram in our terms.
///
/// # Errors
/// Why not.
pub fn exponential(
    point: &ExponentialHistogramDataPoint,
    unit: Unit,
) -> Result<Rebucketed, Refusal> {
    let negative = point.negative.iter().flat_map(|buckets| &buckets.bucket_counts);
    if negative.into_iter().any(|count| *count > 0) {
        return Err(Refusal::Negative);
    }
    if !(-10..=20).contains(&point.scale) {
        return Err(Refusal::Scale);
    }
    let mut builder = Builder::new(unit, point.min, point.max);
    let threshold = point.zero_threshold;
    if !(threshold >= 0.0 && threshold.is_finite()) {
        return Err(Refusal::Inconsistent);
    }
    builder.add(0.0, threshold, point.zero_count)?;
    let step = f64::from(-point.scale).exp2();
    let edge = |index: f64| (index * step).exp2();
    if let Some(buckets) = &point.positive {
        for (place, count) in (0_u32..).zip(&buckets.bucket_counts) {
            let index = f64::from(buckets.offset) + f64::from(place);
            builder.add(edge(index), edge(index + 1.0), *count)?;
        }
    }
    builder.finish(point.count)
}

/// A histogram with explicit bounds in our terms.
///
/// # Errors
/// Why not.
pub fn explicit(point: &HistogramDataPoint, unit: Unit) -> Result<Rebucketed, Refusal> {
    let (bounds, counts) = (&point.explicit_bounds, &point.bucket_counts);
    if counts.is_empty() && bounds.is_empty() && point.count == 0 {
        return Ok(Rebucketed::default());
    }
    let ascending = bounds.windows(2).all(|pair| pair[0] < pair[1]);
    if counts.len() != bounds.len() + 1 || !ascending || !bounds.iter().all(|at| at.is_finite()) {
        return Err(Refusal::Inconsistent);
    }
    if point.min.is_some_and(|min| min < 0.0) {
        return Err(Refusal::Negative);
    }
    let mut builder = Builder::new(unit, point.min, point.max);
    for (place, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let low = place.checked_sub(1).map_or(0.0, |before| bounds[before].max(0.0));
        let high = match bounds.get(place) {
            Some(bound) if *bound < 0.0 => return Err(Refusal::Negative),
            Some(bound) => *bound,
            None => builder.max.filter(|max| *max >= low).ok_or(Refusal::Unbounded)?,
        };
        builder.add(low, high, *count)?;
    }
    builder.finish(point.count)
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;

    use super::*;

    fn exp(scale: i32, offset: i32, counts: &[u64]) -> ExponentialHistogramDataPoint {
        ExponentialHistogramDataPoint {
            scale,
            count: counts.iter().sum(),
            positive: Some(Buckets { offset, bucket_counts: counts.to_vec() }),
            ..Default::default()
        }
    }

    fn hist(bounds: &[f64], counts: &[u64]) -> HistogramDataPoint {
        HistogramDataPoint {
            count: counts.iter().sum(),
            explicit_bounds: bounds.to_vec(),
            bucket_counts: counts.to_vec(),
            ..Default::default()
        }
    }

    #[test]
    fn a_bucket_lies_between_its_powers_of_the_base() {
        // Scale 0: bucket 3 is (8, 16], bucket 5 is (32, 64].
        let out = exponential(&exp(0, 3, &[4, 0, 6]), Unit::Millis).unwrap();
        assert_eq!(out.counts, vec![(12_000_000, 4), (48_000_000, 6)]);
        assert!((out.error - (1.0 / 3.0 + OWN_ERROR)).abs() < 1e-12, "{}", out.error);
        // Scale 1: the base is the root of 2, so bucket -2 is (1/2, 0.707].
        let out = exponential(&exp(1, -2, &[1]), Unit::Seconds).unwrap();
        assert_eq!(out.counts, vec![(603_553_391, 1)]);
    }

    #[test]
    fn minimum_and_maximum_narrow_the_outer_buckets() {
        let point =
            ExponentialHistogramDataPoint { min: Some(10.0), max: Some(10.0), ..exp(0, 3, &[5]) };
        let out = exponential(&point, Unit::Millis).unwrap();
        assert_eq!(out.counts, vec![(10_000_000, 5)]);
        assert!((out.error - OWN_ERROR).abs() < 1e-12);
    }

    #[test]
    fn every_true_value_is_within_the_bound_of_the_reported_one() {
        for scale in -2..8 {
            for milli in [1_u32, 7, 1_993, 5_336, 999_999] {
                let value = f64::from(milli) / 1_000.0;
                let index = (value.log2() * f64::from(scale).exp2()).ceil() - 1.0;
                #[allow(clippy::cast_possible_truncation)]
                let out = exponential(&exp(scale, index as i32, &[1]), Unit::Seconds).unwrap();
                let reported = out.counts[0].0 as f64 / 1e9;
                assert!((reported - value).abs() <= out.error * reported, "{scale} {value}");
            }
        }
    }

    #[test]
    fn counts_that_do_not_add_up_are_refused_whole() {
        let point = ExponentialHistogramDataPoint { count: 5, ..exp(0, 3, &[4]) };
        assert_eq!(exponential(&point, Unit::Millis), Err(Refusal::Inconsistent));
        let point = HistogramDataPoint { count: 5, ..hist(&[1.0], &[4, 0]) };
        assert_eq!(explicit(&point, Unit::Millis), Err(Refusal::Inconsistent));
        assert_eq!(
            explicit(&hist(&[2.0, 1.0], &[1, 1, 0]), Unit::Millis),
            Err(Refusal::Inconsistent)
        );
        assert_eq!(explicit(&hist(&[1.0], &[1]), Unit::Millis), Err(Refusal::Inconsistent));
    }

    #[test]
    fn limits_hold_at_the_limit_and_one_past() {
        assert!(exponential(&exp(20, 0, &[1]), Unit::Millis).is_ok());
        assert!(exponential(&exp(-10, 0, &[1]), Unit::Millis).is_ok());
        assert_eq!(exponential(&exp(21, 0, &[1]), Unit::Millis), Err(Refusal::Scale));
        assert_eq!(exponential(&exp(-11, 0, &[1]), Unit::Millis), Err(Refusal::Scale));
        let most = [POINT_SAMPLES_MAX - 1, 1];
        assert_eq!(exponential(&exp(0, 0, &most), Unit::Nanos).unwrap().samples(), 1 << 28);
        let more = [POINT_SAMPLES_MAX, 1];
        assert_eq!(exponential(&exp(0, 0, &more), Unit::Nanos), Err(Refusal::TooMany));
    }

    #[test]
    fn negative_samples_are_refused() {
        let negative = Some(Buckets { offset: 0, bucket_counts: vec![1] });
        let point = ExponentialHistogramDataPoint { count: 1, negative, ..Default::default() };
        assert_eq!(exponential(&point, Unit::Millis), Err(Refusal::Negative));
        assert_eq!(explicit(&hist(&[-1.0, 5.0], &[1, 0, 0]), Unit::Millis), Err(Refusal::Negative));
    }

    #[test]
    fn samples_above_the_last_bound_need_a_maximum() {
        let point = hist(&[5.0, 10.0], &[0, 2, 3]);
        assert_eq!(explicit(&point, Unit::Millis), Err(Refusal::Unbounded));
        let point = HistogramDataPoint { max: Some(30.0), ..point };
        let out = explicit(&point, Unit::Millis).unwrap();
        assert_eq!(out.counts, vec![(7_500_000, 2), (20_000_000, 3)]);
        assert!(out.error > 0.3);
    }

    #[test]
    fn a_histogram_without_samples_is_nothing_and_no_fault() {
        assert_eq!(explicit(&hist(&[], &[]), Unit::Millis), Ok(Rebucketed::default()));
        assert_eq!(exponential(&exp(0, 0, &[]), Unit::Millis), Ok(Rebucketed::default()));
    }
}
