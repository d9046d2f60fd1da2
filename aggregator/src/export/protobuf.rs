//! The metrics as Prometheus protobuf: `io.prometheus.client.MetricFamily`, each with its length
//! before it. The one scrape format that carries exponential buckets.
//!
//! The messages are written by hand, only what is sent, with upstream's names and numbers. Classic
//! buckets and their exemplars go with the exponential ones: a server before 2.50 takes exemplars
//! from there alone, and one that takes no native histograms takes the ladder.

use prost::Message;

use super::family::{Families, Family, Kind, Metric, Summary, Value};
use super::native::{self, CLASSIC, SCHEMA, ZERO_THRESHOLD};
use crate::exemplars::Exemplar;

/// `io.prometheus.client`, as far as it is sent.
mod message {
    use prost::{Enumeration, Message};

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct LabelPair {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(string, tag = "2")]
        pub(super) value: String,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Single {
        #[prost(double, optional, tag = "1")]
        pub(super) value: Option<f64>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Quantile {
        #[prost(double, tag = "1")]
        pub(super) quantile: f64,
        #[prost(double, tag = "2")]
        pub(super) value: f64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Summary {
        #[prost(uint64, optional, tag = "1")]
        pub(super) sample_count: Option<u64>,
        #[prost(double, optional, tag = "2")]
        pub(super) sample_sum: Option<f64>,
        #[prost(message, repeated, tag = "3")]
        pub(super) quantile: Vec<Quantile>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Timestamp {
        #[prost(int64, tag = "1")]
        pub(super) seconds: i64,
        #[prost(int32, tag = "2")]
        pub(super) nanos: i32,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Exemplar {
        #[prost(message, repeated, tag = "1")]
        pub(super) label: Vec<LabelPair>,
        #[prost(double, tag = "2")]
        pub(super) value: f64,
        #[prost(message, optional, tag = "3")]
        pub(super) timestamp: Option<Timestamp>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Bucket {
        #[prost(uint64, tag = "1")]
        pub(super) cumulative_count: u64,
        #[prost(double, tag = "2")]
        pub(super) upper_bound: f64,
        #[prost(message, optional, tag = "3")]
        pub(super) exemplar: Option<Exemplar>,
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
        pub(super) sample_count: Option<u64>,
        #[prost(double, optional, tag = "2")]
        pub(super) sample_sum: Option<f64>,
        #[prost(message, repeated, tag = "3")]
        pub(super) bucket: Vec<Bucket>,
        #[prost(sint32, optional, tag = "5")]
        pub(super) schema: Option<i32>,
        #[prost(double, optional, tag = "6")]
        pub(super) zero_threshold: Option<f64>,
        #[prost(uint64, optional, tag = "7")]
        pub(super) zero_count: Option<u64>,
        #[prost(message, repeated, tag = "12")]
        pub(super) positive_span: Vec<BucketSpan>,
        #[prost(sint64, repeated, tag = "13")]
        pub(super) positive_delta: Vec<i64>,
        #[prost(message, repeated, tag = "16")]
        pub(super) exemplars: Vec<Exemplar>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Metric {
        #[prost(message, repeated, tag = "1")]
        pub(super) label: Vec<LabelPair>,
        #[prost(message, optional, tag = "2")]
        pub(super) gauge: Option<Single>,
        #[prost(message, optional, tag = "3")]
        pub(super) counter: Option<Single>,
        #[prost(message, optional, tag = "4")]
        pub(super) summary: Option<Summary>,
        #[prost(message, optional, tag = "5")]
        pub(super) untyped: Option<Single>,
        #[prost(message, optional, tag = "7")]
        pub(super) histogram: Option<Histogram>,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
    #[repr(i32)]
    pub(super) enum MetricType {
        Counter = 0,
        Gauge = 1,
        Summary = 2,
        Untyped = 3,
        Histogram = 4,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct MetricFamily {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(string, tag = "2")]
        pub(super) help: String,
        #[prost(enumeration = "MetricType", optional, tag = "3")]
        pub(super) r#type: Option<i32>,
        #[prost(message, repeated, tag = "4")]
        pub(super) metric: Vec<Metric>,
    }
}

use message::MetricType;

/// The sheet as delimited messages. A family without metrics is left out, as scrapers expect.
pub fn render(families: &Families) -> Vec<u8> {
    families
        .all()
        .iter()
        .filter(|family| !family.metrics.is_empty())
        .flat_map(|family| convert(family).encode_length_delimited_to_vec())
        .collect()
}

fn convert(family: &Family) -> message::MetricFamily {
    let kind = match family.kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Summary if family.metrics.iter().any(is_quantiles_alone) => MetricType::Untyped,
        Kind::Summary => MetricType::Summary,
        Kind::Histogram => MetricType::Histogram,
    };
    message::MetricFamily {
        name: family.sample_name(),
        help: family.help.clone(),
        r#type: Some(kind.into()),
        metric: family.metrics.iter().flat_map(|metric| metrics(metric, kind)).collect(),
    }
}

/// A summary here always has sum and count: absent, they would be stored as 0, which nobody
/// measured. Its quantiles alone go without a type, as the very series they are in text.
fn is_quantiles_alone(metric: &Metric) -> bool {
    matches!(&metric.value, Value::Summary(summary) if summary.lifetime.is_none())
}

fn metrics(metric: &Metric, kind: MetricType) -> Vec<message::Metric> {
    let label: Vec<_> = metric.labels.iter().map(|(name, value)| pair(name, value)).collect();
    let own = message::Metric { label, ..Default::default() };
    match (&metric.value, kind) {
        (Value::Number(number), MetricType::Counter) => {
            let counter = Some(message::Single { value: Some(number.real()) });
            vec![message::Metric { counter, ..own }]
        }
        (Value::Number(number), _) => {
            let gauge = Some(message::Single { value: Some(number.real()) });
            vec![message::Metric { gauge, ..own }]
        }
        (Value::Summary(summary), MetricType::Untyped) => untyped(&own, summary),
        (Value::Summary(held), _) => {
            vec![message::Metric { summary: Some(summary(held)), ..own }]
        }
        (Value::Histogram(held), _) => {
            vec![message::Metric { histogram: Some(histogram(held)), ..own }]
        }
    }
}

fn pair(name: &str, value: &str) -> message::LabelPair {
    message::LabelPair { name: name.into(), value: value.into() }
}

fn untyped(own: &message::Metric, summary: &Summary) -> Vec<message::Metric> {
    let one = |(quantile, value): &(f64, f64)| {
        let mut metric = own.clone();
        metric.label.push(pair("quantile", &super::family::canonical(*quantile)));
        metric.untyped = Some(message::Single { value: Some(*value) });
        metric
    };
    summary.quantiles.iter().map(one).collect()
}

fn summary(summary: &Summary) -> message::Summary {
    let quantile = summary.quantiles.iter();
    message::Summary {
        sample_sum: summary.lifetime.map(|(sum, _)| sum),
        sample_count: summary.lifetime.map(|(_, count)| count),
        quantile: quantile
            .map(|(quantile, value)| message::Quantile { quantile: *quantile, value: *value })
            .collect(),
    }
}

fn histogram(histogram: &native::Histogram) -> message::Histogram {
    let (spans, positive_delta) = histogram.spans();
    let ladder = CLASSIC.iter().copied().zip(histogram.classic);
    let ladder = ladder.chain([(f64::INFINITY, histogram.count)]);
    let bucket = |(at, (upper_bound, cumulative_count))| message::Bucket {
        cumulative_count,
        upper_bound,
        exemplar: histogram.exemplar(at).map(exemplar),
    };
    let span =
        |span: &native::Span| message::BucketSpan { offset: span.offset, length: span.length };
    message::Histogram {
        sample_count: Some(histogram.count),
        sample_sum: Some(histogram.sum),
        bucket: ladder.enumerate().map(bucket).collect(),
        schema: Some(SCHEMA),
        zero_threshold: Some(ZERO_THRESHOLD),
        zero_count: Some(histogram.zeros),
        positive_span: spans.iter().map(span).collect(),
        positive_delta,
        exemplars: histogram.exemplars.iter().map(exemplar).collect(),
    }
}

fn exemplar(exemplar: &Exemplar) -> message::Exemplar {
    let at = exemplar.at.0;
    let timestamp = message::Timestamp {
        seconds: i64::try_from(at / 1_000_000_000).unwrap_or(i64::MAX),
        nanos: i32::try_from(at % 1_000_000_000).unwrap_or(0),
    };
    message::Exemplar {
        label: vec![pair("trace_id", &exemplar.trace.id_hex())],
        value: exemplar.seconds(),
        timestamp: Some(timestamp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lens_hist::Counts;
    use lens_model::{Nanos, UnixNanos};

    fn read(mut bytes: &[u8]) -> Vec<message::MetricFamily> {
        let mut all = Vec::new();
        while !bytes.is_empty() {
            all.push(message::MetricFamily::decode_length_delimited(&mut bytes).unwrap());
        }
        all
    }

    #[test]
    fn a_histogram_carries_its_buckets_both_ways_and_its_exemplars_twice() {
        let mut counts = Counts::new();
        [0, 1_000_000, 1_000_000, 3_000_000].iter().for_each(|nanos| counts.record(*nanos));
        let slow = Exemplar {
            trace: lens_model::Trace::new([0xab; 16], [0; 8]).unwrap(),
            latency: Nanos::from_millis(3),
            at: UnixNanos(5_000_000_007),
        };
        let mut families = Families::default();
        families.family("lens_duration_seconds", "histogram", "x");
        let labels = [("stage", "stage_a")];
        families.histogram(&labels, native::Histogram::of(&counts, &[slow]));
        families.family("lens_nothing", "gauge", "left out");
        let all = read(&render(&families));
        assert_eq!((all.len(), all[0].r#type), (1, Some(4)));
        let held = all[0].metric[0].histogram.as_ref().unwrap();
        assert_eq!((held.sample_count, held.schema, held.zero_count), (Some(4), Some(5), Some(1)));
        assert_eq!(held.positive_delta, [2, -1]);
        assert_eq!(held.bucket[3].cumulative_count, 4);
        assert_eq!(held.bucket[3].exemplar.as_ref(), held.exemplars.first());
        let label = &held.exemplars[0].label[0];
        assert_eq!((&*label.name, &*label.value), ("trace_id", &*"ab".repeat(16)));
        let at = held.exemplars[0].timestamp.as_ref().unwrap();
        assert_eq!((at.seconds, at.nanos), (5, 7));
    }

    #[test]
    fn quantiles_without_sum_and_count_go_untyped_rather_than_with_zeros() {
        let mut families = Families::default();
        families.family("lens_low_seconds", "summary", "x");
        let quantiles = vec![(0.5, 0.1), (0.99, 0.2)];
        families.summary(&[("arm", "canary")], Summary { quantiles, lifetime: None });
        let all = read(&render(&families));
        assert_eq!(all[0].r#type, Some(3));
        let labels = |at: usize| {
            let label = all[0].metric[at].label.iter();
            label.map(|pair| format!("{}={}", pair.name, pair.value)).collect::<Vec<_>>()
        };
        assert_eq!(labels(1), ["arm=canary", "quantile=0.99"]);
        assert!(all[0].metric.iter().all(|metric| metric.summary.is_none()));
    }
}
