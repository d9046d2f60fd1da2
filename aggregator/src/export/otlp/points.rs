//! OTLP messages: series and verdicts as data points, points as requests that receivers take.
//!
//! A value that was not measured is absent, never 0. Base units: seconds, ratios.
//! Bounds: a request holds at most [`REQUEST_BYTES_MAX`] bytes of points, under the 4 MiB that
//! receivers decode by default; one series makes at most some 100 KiB.

use lens_hist::Counts;
use lens_model::{SeriesKey, UnixNanos};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets as Packed;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar as Example, ExponentialHistogram,
    ExponentialHistogramDataPoint, Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics,
    Sum, exemplar, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

use super::buckets::Buckets;
use super::ledger::Temporality;
use crate::exemplars::Held;

/// Points of one request, bytes.
pub const REQUEST_BYTES_MAX: usize = 3 << 20;

/// When a point begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// What it counts from; 0 when that is not known.
    pub start: UnixNanos,
    /// Until when.
    pub end: UnixNanos,
}

/// The metrics, in the order in which they are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
#[allow(missing_docs, reason = "each is described in its row of the table")]
pub enum Family {
    Duration,
    Overflow,
    Quantile,
    QuantileLow,
    QuantileHigh,
    Ratio,
    RatioLow,
    RatioHigh,
    Verdict,
    SloVerdict,
    Age,
}

/// Name, unit and description of each family.
const FAMILIES: [(&str, &str, &str); 11] = [
    ("lens.stage.duration", "s", "Latency of a stage of a query."),
    ("lens.stage.overflow", "{sample}", "Samples longer than 68.7 s, in the last bucket."),
    ("lens.stage.duration.quantile", "s", "Latency quantile over the summary window."),
    ("lens.stage.duration.quantile.low", "s", "Lower end of its 95 % interval."),
    ("lens.stage.duration.quantile.high", "s", "Upper end of its 95 % interval."),
    ("lens.tail.ratio", "1", "p99 over p95 over the summary window."),
    ("lens.tail.ratio.low", "1", "Lower end of its 95 % interval."),
    ("lens.tail.ratio.high", "1", "Upper end of its 95 % interval."),
    ("lens.tail.verdict", "1", "1 for the tail verdict that holds, 0 for the others."),
    ("lens.slo.verdict", "1", "1 for how an absolute limit stands, 0 for the others."),
    ("lens.series.age", "s", "Time since samples were last recorded."),
];

enum Point {
    Histogram(ExponentialHistogramDataPoint),
    Number(NumberDataPoint),
}

/// Who the points are of, and what they are counted since.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Attributes of the resource beside `service.name` and `service.version`.
    pub resource: Vec<(String, String)>,
    /// What counts are since.
    pub temporality: Temporality,
}

/// A request being filled.
#[derive(Default)]
pub struct Draft {
    points: Vec<(Family, Point)>,
    bytes: usize,
}

/// The attributes of a series.
pub fn attributes(key: &SeriesKey) -> Vec<KeyValue> {
    vec![
        text("lens.repo_type", key.slice.repo_type()),
        text("lens.language", key.slice.language()),
        text("lens.size", key.slice.size()),
        text("lens.stage", key.stage.as_str()),
        text("lens.arm", key.arm.as_str()),
    ]
}

/// An attribute.
pub fn text(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::StringValue(value.to_owned())) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

impl Draft {
    /// Adds a histogram and what of it was above range.
    pub fn histogram(
        &mut self,
        attributes: &[KeyValue],
        interval: Interval,
        counts: &Counts,
        buckets: &Buckets,
        exemplars: &[Held],
    ) {
        let spread = buckets.spread(counts);
        let point = ExponentialHistogramDataPoint {
            attributes: attributes.to_vec(),
            start_time_unix_nano: interval.start.0,
            time_unix_nano: interval.end.0,
            count: counts.total(),
            sum: Some(seconds(counts.sum_nanos())),
            scale: buckets.scale(),
            zero_count: spread.zero,
            positive: Some(Packed { offset: spread.offset, bucket_counts: spread.counts }),
            exemplars: exemplars.iter().map(example).collect(),
            ..ExponentialHistogramDataPoint::default()
        };
        self.put(Family::Duration, Point::Histogram(point));
        let over = number_data_point::Value::AsInt(whole(counts.overflow()));
        self.put(Family::Overflow, Point::Number(number(attributes, interval, over)));
    }

    /// Adds a gauge's reading.
    pub fn gauge(
        &mut self,
        family: Family,
        attributes: &[KeyValue],
        more: &[(&str, &str)],
        at: UnixNanos,
        value: f64,
    ) {
        let mut attributes = attributes.to_vec();
        attributes.extend(more.iter().map(|(key, value)| text(key, value)));
        let interval = Interval { start: UnixNanos(0), end: at };
        let value = number_data_point::Value::AsDouble(value);
        self.put(family, Point::Number(number(&attributes, interval, value)));
    }

    fn put(&mut self, family: Family, point: Point) {
        // A tag and a length before each.
        self.bytes += 6 + match &point {
            Point::Histogram(point) => point.encoded_len(),
            Point::Number(point) => point.encoded_len(),
        };
        self.points.push((family, point));
    }

    /// Bytes of its points.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Points in it.
    pub const fn len(&self) -> usize {
        self.points.len()
    }

    /// Whether nothing is in it.
    pub const fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// Moves the points of another one into this.
    pub fn take(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.points.extend(other.points);
    }

    /// The request with everything in it.
    pub fn finish(self, origin: &Origin) -> ExportMetricsServiceRequest {
        let mut histograms = Vec::new();
        let mut numbers: Vec<Vec<NumberDataPoint>> = vec![Vec::new(); FAMILIES.len()];
        for (family, point) in self.points {
            match point {
                Point::Histogram(point) => histograms.push(point),
                Point::Number(point) => numbers[family as usize].push(point),
            }
        }
        let temporality = match origin.temporality {
            Temporality::Cumulative => AggregationTemporality::Cumulative,
            Temporality::Delta => AggregationTemporality::Delta,
        };
        let mut metrics = Vec::new();
        if !histograms.is_empty() {
            let data = Data::ExponentialHistogram(ExponentialHistogram {
                data_points: histograms,
                aggregation_temporality: temporality.into(),
            });
            metrics.push(metric(Family::Duration as usize, data));
        }
        for (at, data_points) in numbers.into_iter().enumerate() {
            if data_points.is_empty() {
                continue;
            }
            let data = if at == Family::Overflow as usize {
                let aggregation_temporality = temporality.into();
                Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic: true })
            } else {
                Data::Gauge(Gauge { data_points })
            };
            metrics.push(metric(at, data));
        }
        envelope(origin, metrics)
    }
}

fn envelope(origin: &Origin, metrics: Vec<Metric>) -> ExportMetricsServiceRequest {
    let version = env!("CARGO_PKG_VERSION");
    let mut attributes =
        vec![text("service.name", "lens-aggregator"), text("service.version", version)];
    attributes.extend(origin.resource.iter().map(|(key, value)| text(key, value)));
    let scope = InstrumentationScope {
        name: "lens".into(),
        version: version.into(),
        ..InstrumentationScope::default()
    };
    let scope_metrics =
        vec![ScopeMetrics { scope: Some(scope), metrics, ..ScopeMetrics::default() }];
    let resource = Some(Resource { attributes, ..Resource::default() });
    let of_resource = ResourceMetrics { resource, scope_metrics, ..ResourceMetrics::default() };
    ExportMetricsServiceRequest { resource_metrics: vec![of_resource] }
}

fn metric(family: usize, data: Data) -> Metric {
    let (name, unit, description) = FAMILIES[family];
    Metric {
        name: name.into(),
        unit: unit.into(),
        description: description.into(),
        data: Some(data),
        ..Metric::default()
    }
}

fn number(
    attributes: &[KeyValue],
    interval: Interval,
    value: number_data_point::Value,
) -> NumberDataPoint {
    NumberDataPoint {
        attributes: attributes.to_vec(),
        start_time_unix_nano: interval.start.0,
        time_unix_nano: interval.end.0,
        value: Some(value),
        ..NumberDataPoint::default()
    }
}

fn example(held: &Held) -> Example {
    let Held { exemplar, agent, instance, .. } = held;
    Example {
        filtered_attributes: vec![
            text("lens.agent", agent.as_str()),
            text("service.instance.id", instance.as_str()),
        ],
        time_unix_nano: exemplar.at.0,
        trace_id: exemplar.trace.id().to_vec(),
        span_id: exemplar.trace.known_span().map(Vec::from).unwrap_or_default(),
        value: Some(exemplar::Value::AsDouble(exemplar.seconds())),
    }
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[allow(clippy::cast_precision_loss)]
fn seconds(nanos: u128) -> f64 {
    nanos as f64 / 1e9
}
