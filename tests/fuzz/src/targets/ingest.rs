//! Foreign telemetry: what a message comes to accounts for all of it.

use lens_agent::ingest::dogstatsd;
use lens_agent::ingest::otlp::metrics;
use lens_agent::ingest::reading::Counts;
use lens_agent::ingest::rebucket::POINT_SAMPLES_MAX;
use lens_agent::ingest::rules::Rules;
use lens_agent::ingest::unit::WEIGHT_MAX;
use lens_model::{Stage, UnixNanos};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use prost::Message;

/// The time of the corpus: a fixed one, so that a find repeats.
const NOW: UnixNanos = UnixNanos(1_544_712_660_300_000_000);

fn rules() -> Rules {
    let part = |name: &str| Some(name.to_owned());
    Rules {
        repo_type: part("backend"),
        language: part("rust"),
        size: part("small"),
        stage: Some(Stage::A),
        ..Rules::default()
    }
}

/// A datagram: no more comes out of it than it has values, each as often as a rate allows.
pub(crate) fn dogstatsd(bytes: &[u8]) {
    let (reading, told) = dogstatsd::parse(bytes, &rules());
    let most = bytes.iter().filter(|byte| matches!(byte, b'\n' | b':')).count() as u64 + 1;
    let came = reading.points.len() as u64 + reading.refused.total() + told.len() as u64;
    assert!(came <= most, "{came} of at most {most}");
    for point in &reading.points {
        let ceiling = point.counts.ceiling();
        assert!(ceiling >= 1 && ceiling as f64 <= WEIGHT_MAX + 1.0);
    }
}

/// An export: each data point is taken, empty or refused, and one that is taken has the samples it
/// names.
pub(crate) fn otlp(bytes: &[u8]) {
    let Some((which, body)) = bytes.split_first() else { return };
    let request = match which {
        b'J' => serde_json::from_slice(body).ok(),
        _ => ExportMetricsServiceRequest::decode(body).ok(),
    };
    let Some(request): Option<ExportMetricsServiceRequest> = request else { return };
    let reading = metrics::read(&request, &rules(), NOW);
    let taken = (reading.points.len() + reading.gauges.len()) as u64;
    let (points, samples) = sizes(&request);
    assert_eq!(taken + reading.empty + reading.refused.total(), points);
    let mut counted = 0_u64;
    for point in &reading.points {
        let Counts::Many(many) = &point.counts else { panic!("metrics are histograms") };
        assert!((1..=POINT_SAMPLES_MAX).contains(&many.samples()));
        assert!(many.error.is_finite() && many.error >= 0.0);
        counted += many.samples();
    }
    assert!(u128::from(counted) <= samples);
}

/// Data points in it, and samples that its histograms name.
fn sizes(request: &ExportMetricsServiceRequest) -> (u64, u128) {
    let scopes = request.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
    let (mut points, mut samples) = (0, 0);
    for data in scopes.flat_map(|scope| &scope.metrics).filter_map(|metric| metric.data.as_ref()) {
        points += match data {
            Data::Gauge(gauge) => gauge.data_points.len(),
            Data::Sum(sum) => sum.data_points.len(),
            Data::Summary(summary) => summary.data_points.len(),
            Data::Histogram(histogram) => histogram.data_points.len(),
            Data::ExponentialHistogram(histogram) => histogram.data_points.len(),
        } as u64;
        samples += match data {
            Data::Histogram(all) => all.data_points.iter().map(|p| u128::from(p.count)).sum(),
            Data::ExponentialHistogram(all) => {
                all.data_points.iter().map(|p| u128::from(p.count)).sum()
            }
            _ => 0_u128,
        };
    }
    (points, samples)
}
