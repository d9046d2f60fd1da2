//! An export of metrics to a reading: delta histograms of ours, and gauges. No I/O, no clock.

use lens_model::UnixNanos;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::exemplar::Value as ExemplarValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, DataPointFlags, Exemplar, Gauge, Metric,
};

use super::{point_tags, resource_tags, timely};
use crate::ingest::reading::{Counts, Point, Reading, Slow, Source};
use crate::ingest::rebucket::{self, Rebucketed};
use crate::ingest::refusal::Refusal;
use crate::ingest::rules::{Explicit, Rules, Tags};
use crate::ingest::unit::Unit;

/// What an export of metrics comes to.
pub fn read(request: &ExportMetricsServiceRequest, rules: &Rules, now: UnixNanos) -> Reading {
    let mut reading = Reading::default();
    for resource in &request.resource_metrics {
        let tags = resource_tags(resource.resource.as_ref());
        for metric in resource.scope_metrics.iter().flat_map(|scope| &scope.metrics) {
            Reader { rules, now, metric, tags: &tags }.read(&mut reading);
        }
    }
    reading
}

/// One metric being read.
struct Reader<'a> {
    rules: &'a Rules,
    now: UnixNanos,
    metric: &'a Metric,
    tags: &'a Tags<'a>,
}

impl Reader<'_> {
    fn read(&self, reading: &mut Reading) {
        match &self.metric.data {
            None => {}
            Some(Data::ExponentialHistogram(histogram)) => {
                let delta = temporality(histogram.aggregation_temporality);
                for point in &histogram.data_points {
                    let counts = self.counts(delta, Source::Exponential, point, |unit| {
                        rebucket::exponential(point, unit)
                    });
                    take(reading, counts);
                }
            }
            Some(Data::Histogram(histogram)) => {
                let delta = temporality(histogram.aggregation_temporality);
                for point in &histogram.data_points {
                    let counts = self.counts(delta, Source::Explicit, point, |unit| {
                        rebucket::explicit(point, unit)
                    });
                    take(reading, counts);
                }
            }
            Some(Data::Gauge(gauge)) => self.gauge(gauge, reading),
            Some(Data::Sum(sum)) => {
                reading.refused.add(Refusal::Kind, sum.data_points.len() as u64)
            }
            Some(Data::Summary(summary)) => {
                reading.refused.add(Refusal::Kind, summary.data_points.len() as u64);
            }
        }
    }

    /// One point of a histogram; `None` for one that carries nothing.
    fn counts<'a>(
        &'a self,
        delta: Result<(), Refusal>,
        source: Source,
        point: &'a impl HistogramPoint,
        rebucket: impl FnOnce(Unit) -> Result<Rebucketed, Refusal>,
    ) -> Result<Option<Point>, Refusal> {
        let name = &self.metric.name;
        let key = self.rules.series(name, &point_tags(self.tags, point.attributes()))?;
        if source == Source::Explicit && self.rules.explicit == Explicit::Refuse {
            return Err(Refusal::Explicit);
        }
        delta?;
        let unit = self.rules.unit(name, &self.metric.unit)?;
        if point.flags() & DataPointFlags::NoRecordedValueMask as u32 != 0 {
            return Ok(None);
        }
        timely(point.time(), self.now)?;
        let many = rebucket(unit)?;
        let nothing = many.counts.is_empty();
        let slow = point.exemplars().iter().filter_map(|one| self.slow(one, unit)).collect();
        Ok((!nothing).then_some(Point { key, counts: Counts::Many(many), source, slow }))
    }

    /// An exemplar that has a trace, a value and a time; an example less is nothing that was refused.
    fn slow(&self, exemplar: &Exemplar, unit: Unit) -> Option<Slow> {
        let value = match exemplar.value? {
            ExemplarValue::AsDouble(value) => value,
            #[allow(clippy::cast_precision_loss, reason = "a latency of 2^53 units is none")]
            ExemplarValue::AsInt(value) => value as f64,
        };
        timely(exemplar.time_unix_nano, self.now).ok()?;
        let at = UnixNanos(exemplar.time_unix_nano);
        Slow::new(unit.to_nanos(value)?, &exemplar.trace_id, &exemplar.span_id, at)
    }

    fn gauge(&self, gauge: &Gauge, reading: &mut Reading) {
        let name = self.metric.name.replace('.', "_");
        let Some(name) = name.strip_prefix("lens_") else {
            return reading.refused.add(Refusal::NotOurs, gauge.data_points.len() as u64);
        };
        for point in &gauge.data_points {
            let value = match point.value {
                Some(Value::AsDouble(value)) => value,
                #[allow(clippy::cast_precision_loss, reason = "a gauge is a double")]
                Some(Value::AsInt(value)) => value as f64,
                None => f64::NAN,
            };
            match timely(point.time_unix_nano, self.now) {
                Err(why) => reading.refused.add(why, 1),
                Ok(()) if !value.is_finite() => reading.refused.add(Refusal::Value, 1),
                Ok(()) => reading.gauges.push((name.to_owned(), value)),
            }
        }
    }
}

fn take(reading: &mut Reading, point: Result<Option<Point>, Refusal>) {
    match point {
        Ok(Some(point)) => reading.points.push(point),
        Ok(None) => reading.empty += 1,
        Err(why) => reading.refused.add(why, 1),
    }
}

fn temporality(said: i32) -> Result<(), Refusal> {
    match AggregationTemporality::try_from(said) {
        Ok(AggregationTemporality::Delta) => Ok(()),
        Ok(AggregationTemporality::Cumulative) => Err(Refusal::Cumulative),
        _ => Err(Refusal::Temporality),
    }
}

/// What the points of both kinds of histogram have.
trait HistogramPoint {
    fn attributes(&self) -> &[opentelemetry_proto::tonic::common::v1::KeyValue];
    fn time(&self) -> u64;
    fn flags(&self) -> u32;
    fn exemplars(&self) -> &[Exemplar];
}

macro_rules! histogram_points {
    ($($point:ident)*) => {$(
        impl HistogramPoint for opentelemetry_proto::tonic::metrics::v1::$point {
            fn attributes(&self) -> &[opentelemetry_proto::tonic::common::v1::KeyValue] {
                &self.attributes
            }
            fn time(&self) -> u64 {
                self.time_unix_nano
            }
            fn flags(&self) -> u32 {
                self.flags
            }
            fn exemplars(&self) -> &[Exemplar] {
                &self.exemplars
            }
        }
    )*};
}
histogram_points!(ExponentialHistogramDataPoint HistogramDataPoint);
