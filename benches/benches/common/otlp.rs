//! The peer: OTLP exponential histograms at scale 6, the one whose error is nearest to ours.
//!
//! Built and read the way everybody does it: `opentelemetry-proto`'s types over prost. Made as
//! cheap as the format allows: one metric holds all points, names are short, buckets exist already
//! when encoding begins, and the receiver finds a window with one hash of the attributes.

use std::collections::HashMap;

use lens_model::SeriesKey;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogram, ExponentialHistogramDataPoint, Metric, ResourceMetrics, ScopeMetrics,
};
use opentelemetry_proto::tonic::resource::v1::Resource;

/// Buckets an octave are 2^6: each 1.09 % wide, midpoints within 0.54 %.
const SCALE: i32 = 6;
const DELTA_TEMPORALITY: i32 = 1;

/// One series' counts as an SDK holds them.
#[derive(Clone, Debug)]
pub(crate) struct Exponential {
    offset: i32,
    counts: Vec<u64>,
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
}

impl Exponential {
    /// The counts of latencies, nanoseconds, in seconds.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    pub(crate) fn of(latencies: &[u64]) -> Self {
        let seconds = || latencies.iter().map(|nanos| *nanos as f64 / 1e9);
        let bucket = |value: f64| (value.log2() * f64::from(1 << SCALE)).ceil() as i32 - 1;
        let offset = seconds().map(bucket).min().unwrap_or(0);
        let last = seconds().map(bucket).max().unwrap_or(0);
        let mut counts = vec![0; (last - offset + 1) as usize];
        for value in seconds() {
            counts[(bucket(value) - offset) as usize] += 1;
        }
        Self {
            offset,
            counts,
            count: latencies.len() as u64,
            sum: seconds().sum(),
            min: seconds().fold(f64::INFINITY, f64::min),
            max: seconds().fold(0.0, f64::max),
        }
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

/// The names of one series.
pub(crate) fn attributes(key: &SeriesKey) -> Vec<KeyValue> {
    vec![
        text("slice", &key.slice.to_string()),
        text("stage", &key.stage.to_string()),
        text("arm", &key.arm.to_string()),
        text("service", "lens"),
    ]
}

/// The request that ships one batch.
pub(crate) fn request(
    names: &[Vec<KeyValue>],
    batch: &[Exponential],
    start: u64,
    end: u64,
) -> ExportMetricsServiceRequest {
    let point = |(names, counts): (&Vec<KeyValue>, &Exponential)| ExponentialHistogramDataPoint {
        attributes: names.clone(),
        start_time_unix_nano: start,
        time_unix_nano: end,
        count: counts.count,
        sum: Some(counts.sum),
        scale: SCALE,
        positive: Some(Buckets { offset: counts.offset, bucket_counts: counts.counts.clone() }),
        min: Some(counts.min),
        max: Some(counts.max),
        ..ExponentialHistogramDataPoint::default()
    };
    let histogram = ExponentialHistogram {
        data_points: names.iter().zip(batch).map(point).collect(),
        aggregation_temporality: DELTA_TEMPORALITY,
    };
    let metric = Metric {
        name: "lens.stage.duration".to_owned(),
        unit: "s".to_owned(),
        data: Some(Data::ExponentialHistogram(histogram)),
        ..Metric::default()
    };
    let scope = InstrumentationScope { name: "lens".to_owned(), ..InstrumentationScope::default() };
    let resource = Resource {
        attributes: vec![text("service.name", "lens"), text("service.instance.id", "n1")],
        ..Resource::default()
    };
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(scope),
                metrics: vec![metric],
                schema_url: String::new(),
            }],
            schema_url: String::new(),
        }],
    }
}

/// One series' window: counts from `offset` on.
#[derive(Debug, Default)]
struct Window {
    offset: i32,
    counts: Vec<u64>,
    sum: f64,
    min: f64,
    max: f64,
}

impl Window {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_possible_wrap)]
    fn add(&mut self, point: &ExponentialHistogramDataPoint, buckets: &Buckets) {
        if self.counts.is_empty() {
            (self.offset, self.min) = (buckets.offset, f64::INFINITY);
        }
        if buckets.offset < self.offset {
            let before = (self.offset - buckets.offset) as usize;
            self.counts.splice(0..0, std::iter::repeat_n(0, before));
            self.offset = buckets.offset;
        }
        let at = (buckets.offset - self.offset) as usize;
        let end = at + buckets.bucket_counts.len();
        if self.counts.len() < end {
            self.counts.resize(end, 0);
        }
        for (count, more) in self.counts[at..end].iter_mut().zip(&buckets.bucket_counts) {
            *count += more;
        }
        self.sum += point.sum.unwrap_or(0.0);
        self.min = self.min.min(point.min.unwrap_or(f64::INFINITY));
        self.max = self.max.max(point.max.unwrap_or(0.0));
    }
}

/// The windows of a receiver, found by attributes.
#[derive(Debug, Default)]
pub(crate) struct Windows {
    windows: HashMap<String, Window>,
    key: String,
    samples: u64,
}

impl Windows {
    /// Adds every point of a request.
    pub(crate) fn merge(&mut self, request: &ExportMetricsServiceRequest) {
        let scopes = request.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
        for metric in scopes.flat_map(|scope| &scope.metrics) {
            let Some(Data::ExponentialHistogram(histogram)) = &metric.data else { continue };
            for point in &histogram.data_points {
                let Some(buckets) = &point.positive else { continue };
                self.key.clear();
                for attribute in &point.attributes {
                    let value = attribute.value.as_ref().and_then(|value| value.value.as_ref());
                    let Some(Value::StringValue(value)) = value else { continue };
                    for part in [&attribute.key, "=", value, ";"] {
                        self.key.push_str(part);
                    }
                }
                self.samples += point.count;
                if let Some(window) = self.windows.get_mut(&self.key) {
                    window.add(point, buckets);
                } else {
                    let window = self.windows.entry(self.key.clone()).or_default();
                    window.add(point, buckets);
                }
            }
        }
    }

    /// All samples merged so far.
    pub(crate) const fn samples(&self) -> u64 {
        self.samples
    }
}
