//! `/api/v1/slices`, `quantiles`, `histogram`, `tail`, `agents`.

use base64::Engine;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

use super::*;

const RUST_A: &str = "slice=backend/rust/large&stage=stage_a&arm=baseline";

fn lognormal(count: u64) -> Vec<u64> {
    // Values at evenly spaced probabilities of a lognormal, by its quantile function at z from a
    // logistic approximation: what matters is that they are skewed and exactly known.
    let value = |at: u64| {
        let p = (at as f64 + 0.5) / count as f64;
        let z = (p / (1.0 - p)).ln() / 1.702;
        3e6 * (0.5 * z).exp()
    };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    (0..count).map(|at| value(at) as u64).collect()
}

#[tokio::test]
async fn quantiles_are_within_one_percent_of_the_exact_ones() {
    let state = state();
    let mut values = lognormal(20_000);
    feed(&state, &key("rust", Stage::A, Arm::Baseline), 20, values.iter().copied().take(12_000));
    feed(&state, &key("rust", Stage::A, Arm::Baseline), 10, values.iter().copied().skip(12_000));
    values.sort_unstable();
    let (router, _) = served(state);
    let answer = get(&router, &format!("/api/v1/quantiles?{RUST_A}&q=0.5,0.95&q=0.99")).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let json = answer.json();
    assert_eq!(json["series"].as_array().unwrap().len(), 1);
    let point = &json["series"][0]["points"][0];
    assert_eq!(point["count"], 20_000);
    for (quantile, rank) in [("0.5", 10_000), ("0.95", 19_000), ("0.99", 19_800)] {
        let exact = values[rank - 1] as f64 / 1e6;
        let value = &point["quantiles"][quantile];
        assert!(close(&value["value_ms"], exact), "{quantile}: {value} for {exact}");
        assert!(value["low_ms"].as_f64().unwrap() <= exact);
        assert!(value["high_ms"].as_f64().unwrap() >= exact);
    }
    assert!(point["quantiles"].get("0.999").is_none());
}

#[tokio::test]
async fn steps_add_up_to_the_whole_and_empty_ones_are_absent() {
    let state = state();
    for (ago, count) in [(300, 100), (200, 50), (10, 400)] {
        feed(&state, &key("rust", Stage::B, Arm::Canary), ago, vec![7_000_000; count]);
    }
    let (router, _) = served(state);
    let json = get(&router, "/api/v1/quantiles?step=5s&from=-10m").await.json();
    assert_eq!(json["step_s"], 5.0);
    let points = json["series"][0]["points"].as_array().unwrap();
    let counts: Vec<u64> = points.iter().map(|point| point["count"].as_u64().unwrap()).collect();
    assert_eq!(counts, [100, 50, 400]);
    let below = &points[1]["quantiles"]["0.95"];
    assert!(below["value_ms"].is_null());
    assert_eq!(below["reason"], "50 samples; a 95 % interval needs 72");
    assert!(close(&points[0]["quantiles"]["0.95"]["value_ms"], 7.0));
    let minute = get(&router, "/api/v1/quantiles?step=1m&from=-10m").await.json();
    let points = minute["series"][0]["points"].as_array().unwrap().clone();
    let total: u64 = points.iter().map(|point| point["count"].as_u64().unwrap()).sum();
    assert_eq!(total, 550);
}

#[tokio::test]
async fn nothing_fed_gives_empty_answers_and_no_zeros() {
    let (router, _) = served(state());
    let slices = get(&router, "/api/v1/slices").await.json();
    assert_eq!(slices["slices"].as_array().unwrap().len(), 2);
    assert_eq!(slices["slices"][0]["reason"], "no samples were received yet");
    for (path, list) in [("quantiles", "series"), ("tail", "series"), ("agents", "agents")] {
        let json = get(&router, &format!("/api/v1/{path}")).await.json();
        assert_eq!(json[list], serde_json::json!([]), "{path}");
    }
    let json = get(&router, "/api/v1/histogram").await.json();
    assert_eq!((&json["count"], json["buckets"].as_array().unwrap().len()), (&0.into(), 0));
    assert!(json["quantiles"][99]["value_ms"].is_null());
    assert!(json["quantiles_reason"].as_str().unwrap().starts_with("0 samples"));
    for format in ["hdr", "hlog", "hgrm"] {
        let answer = get(&router, &format!("/api/v1/histogram?format={format}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{format}: {}", answer.text);
    }
}

#[tokio::test]
async fn the_hdr_forms_read_back_count_for_count() {
    let state = state();
    let values = lognormal(5_000);
    feed(&state, &key("rust", Stage::A, Arm::Baseline), 10, values.iter().copied());
    let mut expected = Histogram::<u64>::new_with_bounds(1, (1 << 36) - 1, 2).unwrap();
    values.iter().for_each(|value| expected.record(*value).unwrap());
    let (router, _) = served(state);
    let decode = |text: &str| -> Histogram<u64> {
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
        Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap()
    };
    let hdr = get(&router, &format!("/api/v1/histogram?{RUST_A}&format=hdr")).await;
    assert_eq!(hdr.headers["lens-overflow"], "0");
    assert_eq!(decode(&hdr.text), expected);
    for step in ["", "&step=5s"] {
        let log = get(&router, &format!("/api/v1/histogram?{RUST_A}&format=hlog{step}")).await.text;
        let mut intervals = Vec::new();
        for entry in IntervalLogIterator::new(log.as_bytes()) {
            if let LogEntry::Interval(interval) = entry.unwrap() {
                assert_eq!(interval.tag().unwrap().as_str(), "backend/rust/large/stage_a/baseline");
                intervals.push(decode(interval.encoded_histogram()));
            }
        }
        assert_eq!(intervals, std::slice::from_ref(&expected), "{log}");
    }
}

#[tokio::test]
async fn the_otlp_form_holds_every_sample_once_and_names_what_was_asked() {
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
    use opentelemetry_proto::tonic::metrics::v1::metric::Data;
    let state = state();
    let values = lognormal(5_000);
    feed(&state, &key("rust", Stage::A, Arm::Baseline), 20, values[..3_000].iter().copied());
    feed(&state, &key("rust", Stage::A, Arm::Baseline), 10, values[3_000..].iter().copied());
    feed(&state, &key("go", Stage::A, Arm::Baseline), 10, [u64::MAX]);
    let (router, _) = served(state);
    for (query, points, samples, overflow, named) in [
        (RUST_A, 1, 5_000, "0", 5),
        ("stage=stage_a", 1, 5_001, "1", 1),
        ("step=5s&arm=baseline", 2, 5_001, "1", 1),
    ] {
        let answer = get(&router, &format!("/api/v1/histogram?{query}&format=otlp")).await;
        assert_eq!(answer.content_type(), "application/json");
        assert_eq!(answer.headers["lens-overflow"], overflow);
        let request: ExportMetricsServiceRequest = serde_json::from_str(&answer.text).unwrap();
        let metric = &request.resource_metrics[0].scope_metrics[0].metrics[0];
        assert_eq!((&*metric.name, &*metric.unit), ("lens.stage.duration", "s"));
        let Some(Data::ExponentialHistogram(histogram)) = &metric.data else {
            panic!("{metric:?}")
        };
        assert_eq!(histogram.aggregation_temporality, 1, "delta");
        let points_of = &histogram.data_points;
        assert_eq!(points_of.len(), points, "{query}");
        assert_eq!(points_of.iter().map(|point| point.count).sum::<u64>(), samples);
        for point in points_of {
            assert_eq!(point.attributes.len(), named);
            let filled: u64 = point.positive.as_ref().unwrap().bucket_counts.iter().sum();
            assert_eq!(filled + point.zero_count, point.count);
            assert!(point.start_time_unix_nano < point.time_unix_nano);
        }
    }
}

#[tokio::test]
async fn the_percentile_table_ends_at_the_last_sample() {
    let state = state();
    feed(&state, &key("rust", Stage::A, Arm::Baseline), 10, uniform(1_000, 10.0, 20.0));
    let (router, _) = served(state);
    let text = get(&router, "/api/v1/histogram?format=hgrm").await.text;
    let rows: Vec<Vec<f64>> = text
        .lines()
        .filter(|line| line.starts_with(' ') && !line.contains("Value"))
        .map(|line| line.split_whitespace().map(|cell| cell.parse().unwrap()).collect())
        .collect();
    assert!(rows.windows(2).all(|pair| pair[0][0] <= pair[1][0] && pair[0][2] <= pair[1][2]));
    assert_eq!(rows.last().unwrap()[1..], [1.0, 1_000.0]);
    assert!((rows.last().unwrap()[0] - 20.0).abs() < 0.2);
    assert!(text.contains("Total count    =         1000]"), "{text}");
}

#[tokio::test]
async fn histogram_json_and_heat_map_hold_every_sample() {
    let state = state();
    feed(&state, &key("rust", Stage::A, Arm::Baseline), 10, uniform(1_000, 1.0, 9.0));
    feed(&state, &key("go", Stage::A, Arm::Canary), 30, [u64::MAX, 5_000_000]);
    let (router, _) = served(state);
    let json = get(&router, "/api/v1/histogram").await.json();
    assert_eq!((&json["count"], &json["overflow"]), (&1_002.into(), &1.into()));
    let buckets = json["buckets"].as_array().unwrap();
    assert_eq!(buckets.iter().map(|b| b[2].as_u64().unwrap()).sum::<u64>(), 1_001);
    assert!(buckets.iter().all(|b| b[0].as_f64() < b[1].as_f64()));
    let spectrum = json["quantiles"].as_array().unwrap();
    assert_eq!((spectrum.len(), &spectrum[39]["q"]), (100, &0.99.into()));
    assert!(close(&spectrum[39]["value_ms"], 8.92));
    let heat = get(&router, "/api/v1/histogram?step=5s").await.json();
    let edges = heat["edges_ms"].as_array().unwrap();
    assert_eq!(edges.len(), 241);
    let columns = heat["columns"].as_array().unwrap();
    assert_eq!(columns.len(), 2);
    let mut samples = 0;
    for column in columns {
        for bucket in column["buckets"].as_array().unwrap() {
            let row = usize::try_from(bucket[0].as_u64().unwrap()).unwrap();
            let (low, high) = (edges[row].as_f64().unwrap(), edges[row + 1].as_f64().unwrap());
            assert!(low <= 9.0 && high > 1.0, "row {row}: {low}..{high}");
            samples += bucket[1].as_u64().unwrap();
        }
        samples += column["overflow"].as_u64().unwrap();
    }
    assert_eq!(samples, 1_002);
    assert!(columns[0]["p99_ms"].is_null());
    assert!(close(&columns[1]["p99_ms"], 8.92));
}

#[tokio::test]
async fn tails_are_judged_with_their_evidence() {
    let state = state();
    let long_tail = |count: usize| [vec![10_000_000; count * 97], vec![30_000_000; count * 3]];
    feed(&state, &key("rust", Stage::B, Arm::Canary), 10, long_tail(40).concat());
    feed(&state, &key("rust", Stage::B, Arm::Canary), 400, long_tail(40).concat());
    feed(&state, &key("go", Stage::B, Arm::Canary), 10, uniform(2_000, 10.0, 20.0));
    feed(&state, &key("go", Stage::C, Arm::Canary), 10, uniform(367, 10.0, 20.0));
    let (router, _) = served(state);
    let json = get(&router, "/api/v1/tail?arm=canary").await.json();
    let verdicts: Vec<&str> =
        json["series"].as_array().unwrap().iter().map(|s| s["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["ok", "insufficient_data", "violation"]);
    let broken = &json["series"][2];
    assert!(close(&broken["ratio"], 3.0), "{broken}");
    assert_eq!(broken["consecutive_windows"], 2);
    assert_eq!(broken["evidence"]["samples"], 4_000);
    assert!(broken["ratio_low"].as_f64().unwrap() > 1.0 && broken["interval_reason"].is_null());
    assert!(broken["ratio_high"].as_f64().unwrap() >= 3.0 && broken["since"].is_string());
    let decided = &broken["evidence"]["decided"];
    assert!(decided["z"].as_f64().unwrap() > decided["z_needed"].as_f64().unwrap(), "{decided}");
    let reason = json["series"][1]["reason"].as_str().unwrap();
    assert!(reason.starts_with("367 samples in the window; the tail rule needs 1000"), "{reason}");
    assert!(json["series"][1]["ratio_low"].is_null() && json["series"][1]["trend"].is_null());
    let stage_b = &json["comparison"][0];
    assert_eq!(
        (&stage_b["slices"], &stage_b["worst_slice"]),
        (&2.into(), &"backend/rust/large".into())
    );
    let only = get(&router, "/api/v1/tail?slice=backend/go/large&stage=c").await.json();
    assert_eq!(only["series"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn slices_reconcile_with_what_was_fed() {
    let state = state();
    feed(&state, &key("rust", Stage::A, Arm::Baseline), 10, uniform(500, 1.0, 2.0));
    feed(&state, &key("rust", Stage::A, Arm::Baseline), 4_000, uniform(70, 1.0, 2.0));
    feed(&state, &key("c", Stage::E2e, Arm::Canary), 10, [3_000_000]);
    feed_requests(&state, "rust", Arm::Baseline, 498, 2);
    let (router, _) = served(state);
    let json = get(&router, "/api/v1/slices").await.json();
    let names: Vec<(&str, bool)> = json["slices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|slice| (slice["slice"].as_str().unwrap(), slice["known"].as_bool().unwrap()))
        .collect();
    let expected =
        [("backend/c/large", false), ("backend/go/large", true), ("backend/rust/large", true)];
    assert_eq!(names, expected);
    let rust = &json["slices"][2];
    assert_eq!((&rust["count"], &rust["merged_total"]), (&500.into(), &570.into()));
    assert_eq!(rust["series"][0]["hosts"], 1);
    assert_eq!(rust["requests"][0]["error_total"], 2);
}
