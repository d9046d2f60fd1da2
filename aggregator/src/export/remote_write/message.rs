//! A sheet as requests of remote write 1.0: `prometheus.WriteRequest`, compressed with snappy.
//!
//! The messages are written by hand, only what is sent, with upstream's names and numbers. Labels of
//! a series are in order of their names, which receivers rely on; empty ones are left out, which is
//! what they mean.

use std::collections::BTreeMap;

use lens_model::UnixNanos;
use prost::Message;

use super::Config;
use crate::exemplars::Exemplar;
use crate::export::family::{Families, Family, Kind, Metric, Value, canonical};
use crate::export::native::{self, CLASSIC, SCHEMA, ZERO_THRESHOLD};

/// `prometheus`, as far as it is sent.
mod prompb {
    use prost::Message;

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Label {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(string, tag = "2")]
        pub(super) value: String,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Sample {
        #[prost(double, tag = "1")]
        pub(super) value: f64,
        #[prost(int64, tag = "2")]
        pub(super) timestamp: i64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Exemplar {
        #[prost(message, repeated, tag = "1")]
        pub(super) labels: Vec<Label>,
        #[prost(double, tag = "2")]
        pub(super) value: f64,
        #[prost(int64, tag = "3")]
        pub(super) timestamp: i64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct BucketSpan {
        #[prost(sint32, tag = "1")]
        pub(super) offset: i32,
        #[prost(uint32, tag = "2")]
        pub(super) length: u32,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Histogram {
        #[prost(uint64, optional, tag = "1")]
        pub(super) count_int: Option<u64>,
        #[prost(double, tag = "3")]
        pub(super) sum: f64,
        #[prost(sint32, tag = "4")]
        pub(super) schema: i32,
        #[prost(double, tag = "5")]
        pub(super) zero_threshold: f64,
        #[prost(uint64, optional, tag = "6")]
        pub(super) zero_count_int: Option<u64>,
        #[prost(message, repeated, tag = "11")]
        pub(super) positive_spans: Vec<BucketSpan>,
        #[prost(sint64, repeated, tag = "12")]
        pub(super) positive_deltas: Vec<i64>,
        #[prost(int64, tag = "15")]
        pub(super) timestamp: i64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct TimeSeries {
        #[prost(message, repeated, tag = "1")]
        pub(super) labels: Vec<Label>,
        #[prost(message, repeated, tag = "2")]
        pub(super) samples: Vec<Sample>,
        #[prost(message, repeated, tag = "3")]
        pub(super) exemplars: Vec<Exemplar>,
        #[prost(message, repeated, tag = "4")]
        pub(super) histograms: Vec<Histogram>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct MetricMetadata {
        #[prost(int32, tag = "1")]
        pub(super) r#type: i32,
        #[prost(string, tag = "2")]
        pub(super) metric_family_name: String,
        #[prost(string, tag = "4")]
        pub(super) help: String,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct WriteRequest {
        #[prost(message, repeated, tag = "1")]
        pub(super) timeseries: Vec<TimeSeries>,
        #[prost(message, repeated, tag = "3")]
        pub(super) metadata: Vec<MetricMetadata>,
    }
}

use prompb::{Label, TimeSeries};

/// One request, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The compressed message.
    pub body: Vec<u8>,
    /// Samples and histograms in it.
    pub samples: u64,
    /// When they were collected.
    pub collected: UnixNanos,
}

/// A sheet as requests of bounded size, all as of one instant. What families mean goes with the
/// first.
pub fn batches(families: &Families, config: &Config, at: UnixNanos) -> Vec<Batch> {
    let writer = Writer {
        more: &config.labels,
        native: config.native,
        millis: i64::try_from(at.0 / 1_000_000).unwrap_or(i64::MAX),
    };
    let all: Vec<TimeSeries> = families
        .all()
        .iter()
        .flat_map(|family| family.metrics.iter().map(move |metric| (family, metric)))
        .flat_map(|(family, metric)| writer.metric(family, metric))
        .collect();
    let mut metadata: Vec<_> = families.all().iter().map(meaning).collect();
    all.chunks(config.samples.max(1))
        .map(|part| {
            let metadata = std::mem::take(&mut metadata);
            pack(&prompb::WriteRequest { timeseries: part.to_vec(), metadata }, at)
        })
        .collect()
}

fn pack(request: &prompb::WriteRequest, collected: UnixNanos) -> Batch {
    let plain = request.encode_to_vec();
    // Fails only for what is longer than 4 GiB, of which a request has a small part.
    let body = snap::raw::Encoder::new().compress_vec(&plain).unwrap_or_default();
    Batch { body, samples: request.timeseries.len() as u64, collected }
}

fn meaning(family: &Family) -> prompb::MetricMetadata {
    let kind = match family.kind {
        Kind::Counter => 1,
        Kind::Gauge => 2,
        Kind::Histogram => 3,
        Kind::Summary => 5,
    };
    prompb::MetricMetadata {
        r#type: kind,
        metric_family_name: family.sample_name(),
        help: family.help.clone(),
    }
}

struct Writer<'a> {
    more: &'a BTreeMap<String, String>,
    native: bool,
    millis: i64,
}

impl Writer<'_> {
    fn metric(&self, family: &Family, metric: &Metric) -> Vec<TimeSeries> {
        let name = family.sample_name();
        match &metric.value {
            Value::Number(number) => vec![self.sample(&name, metric, None, number.real())],
            Value::Summary(summary) => {
                let quantiles = summary.quantiles.iter().map(|(quantile, value)| {
                    self.sample(&name, metric, Some(("quantile", canonical(*quantile))), *value)
                });
                let lifetime = summary.lifetime.into_iter();
                let lifetime = lifetime.flat_map(|(sum, n)| self.lifetime(&name, metric, sum, n));
                quantiles.chain(lifetime).collect()
            }
            Value::Histogram(histogram) if self.native => {
                vec![self.native(&name, metric, histogram)]
            }
            Value::Histogram(histogram) => self.classic(&name, metric, histogram),
        }
    }

    #[allow(clippy::cast_precision_loss)]
    fn lifetime(&self, name: &str, metric: &Metric, sum: f64, count: u64) -> [TimeSeries; 2] {
        [
            self.sample(&format!("{name}_sum"), metric, None, sum),
            self.sample(&format!("{name}_count"), metric, None, count as f64),
        ]
    }

    #[allow(clippy::cast_precision_loss)]
    fn classic(
        &self,
        name: &str,
        metric: &Metric,
        histogram: &native::Histogram,
    ) -> Vec<TimeSeries> {
        let bucket = format!("{name}_bucket");
        let ladder = CLASSIC.iter().copied().zip(histogram.classic);
        let ladder = ladder.chain([(f64::INFINITY, histogram.count)]).enumerate();
        let buckets = ladder.map(|(at, (bound, count))| {
            let le = Some(("le", canonical(bound)));
            let mut series = self.sample(&bucket, metric, le, count as f64);
            series.exemplars = histogram.exemplar(at).map(exemplar).into_iter().collect();
            series
        });
        buckets.chain(self.lifetime(name, metric, histogram.sum, histogram.count)).collect()
    }

    fn native(&self, name: &str, metric: &Metric, histogram: &native::Histogram) -> TimeSeries {
        let (spans, positive_deltas) = histogram.spans();
        let span =
            |span: native::Span| prompb::BucketSpan { offset: span.offset, length: span.length };
        let held = prompb::Histogram {
            count_int: Some(histogram.count),
            sum: histogram.sum,
            schema: SCHEMA,
            zero_threshold: ZERO_THRESHOLD,
            zero_count_int: Some(histogram.zeros),
            positive_spans: spans.into_iter().map(span).collect(),
            positive_deltas,
            timestamp: self.millis,
        };
        TimeSeries {
            labels: self.labels(name, metric, None),
            samples: Vec::new(),
            exemplars: histogram.exemplars.iter().map(exemplar).collect(),
            histograms: vec![held],
        }
    }

    fn sample(
        &self,
        name: &str,
        metric: &Metric,
        more: Option<(&str, String)>,
        value: f64,
    ) -> TimeSeries {
        TimeSeries {
            labels: self.labels(name, metric, more),
            samples: vec![prompb::Sample { value, timestamp: self.millis }],
            exemplars: Vec::new(),
            histograms: Vec::new(),
        }
    }

    fn labels(&self, name: &str, metric: &Metric, more: Option<(&str, String)>) -> Vec<Label> {
        let mut labels: BTreeMap<&str, &str> =
            self.more.iter().map(|(name, value)| (&**name, &**value)).collect();
        labels.extend(metric.labels.iter().map(|(name, value)| (*name, &**value)));
        labels.extend(more.iter().map(|(name, value)| (*name, &**value)));
        labels.insert("__name__", name);
        let filled = labels.into_iter().filter(|(_, value)| !value.is_empty());
        filled.map(|(name, value)| Label { name: name.into(), value: value.into() }).collect()
    }
}

fn exemplar(exemplar: &Exemplar) -> prompb::Exemplar {
    prompb::Exemplar {
        labels: vec![Label { name: "trace_id".into(), value: exemplar.trace.id_hex() }],
        value: exemplar.seconds(),
        timestamp: i64::try_from(exemplar.at.0 / 1_000_000).unwrap_or(i64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lens_hist::Counts;
    use lens_service::config::{Settings, Sources};

    fn config(more: &[(&str, &str)]) -> Config {
        let mut flags = vec![("remote_write.url".into(), "http://127.0.0.1:1/".into())];
        flags.extend(more.iter().map(|(a, b)| (format!("remote_write.{a}"), (*b).into())));
        let sources = Sources { flags, ..Sources::default() };
        let (keys, prefix) = (crate::config::KEYS, crate::config::PREFIX);
        let settings = Settings::load(keys, prefix, &sources).unwrap();
        Config::check(&settings, &mut Vec::new()).unwrap()
    }

    fn sheet() -> Families {
        let mut counts = Counts::new();
        [1_000_000, 1_000_000, 3_000_000].iter().for_each(|nanos| counts.record(*nanos));
        let mut sheet = Families::default();
        sheet.family("lens_samples", "counter", "How many.");
        sheet.sample("lens_samples_total", &[("stage", "stage_a"), ("arm", "")], 3_u64);
        sheet.family("lens_duration_seconds", "histogram", "How long.");
        let labels = [("stage", "stage_a"), ("arm", "canary")];
        sheet.histogram(&labels, native::Histogram::of(&counts, &[]));
        sheet
    }

    fn read(batch: &Batch) -> prompb::WriteRequest {
        let plain = snap::raw::Decoder::new().decompress_vec(&batch.body).unwrap();
        prompb::WriteRequest::decode(plain.as_slice()).unwrap()
    }

    fn line(series: &TimeSeries) -> String {
        let labels = series.labels.iter().map(|label| format!("{}={}", label.name, label.value));
        labels.collect::<Vec<_>>().join(",")
    }

    #[test]
    fn labels_are_in_order_empty_ones_left_out_and_a_series_own_win() {
        let config = config(&[("labels", "zone=a,arm=x,Zone=b")]);
        let all = batches(&sheet(), &config, UnixNanos(1_500_000_000));
        let request = read(&all[0]);
        assert_eq!(
            line(&request.timeseries[0]),
            "Zone=b,__name__=lens_samples_total,stage=stage_a,zone=a"
        );
        assert_eq!(request.timeseries[0].samples[0].timestamp, 1_500);
        let first = &request.timeseries[1];
        let wanted = "Zone=b,__name__=lens_duration_seconds_bucket,arm=canary,le=0.0005,stage=stage_a,zone=a";
        assert_eq!(line(first), wanted);
        assert_eq!(request.metadata.len(), 2);
    }

    #[test]
    fn a_histogram_is_one_series_in_exponential_buckets_and_seventeen_in_classic_ones() {
        let at = UnixNanos(2_000_000_000);
        let native =
            read(&batches(&sheet(), &config(&[("send_native_histograms", "true")]), at)[0]);
        assert_eq!(native.timeseries.len(), 2);
        let held = &native.timeseries[1].histograms[0];
        assert_eq!((held.count_int, held.schema, held.timestamp), (Some(3), 5, 2_000));
        assert_eq!(held.positive_deltas, [2, -1]);
        let classic = read(&batches(&sheet(), &config(&[]), at)[0]);
        assert_eq!(classic.timeseries.len(), 1 + 17);
        assert!(classic.timeseries.iter().all(|series| series.histograms.is_empty()));
    }

    #[test]
    fn no_request_has_more_samples_than_it_may_and_none_is_missing() {
        let all = batches(&sheet(), &config(&[("samples_per_request", "10")]), UnixNanos(7));
        let counts: Vec<u64> = all.iter().map(|batch| batch.samples).collect();
        assert_eq!(counts, [10, 8]);
        assert!(read(&all[1]).metadata.is_empty());
        assert!(batches(&Families::default(), &config(&[]), UnixNanos(7)).is_empty());
    }
}
