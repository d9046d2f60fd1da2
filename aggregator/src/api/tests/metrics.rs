//! `/metrics`, read by a strict little parser.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::export::openmetrics::families;
use crate::export::text::{Dialect, render};
use crate::snapshot::Snapshot;

type Labels = BTreeMap<String, String>;

/// What a scrape says, having checked that it is well formed: names declared before use and in one
/// block, label syntax and escapes, no sample twice, suffixes fitting the type.
fn parse(text: &str, open: bool) -> BTreeMap<(String, Labels), f64> {
    assert!(text.ends_with('\n') && !text.contains("\n\n"));
    let mut samples = BTreeMap::new();
    let mut closed = BTreeSet::new();
    let (mut family, mut kind) = (String::new(), String::new());
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line == "# EOF" {
            assert!(open && lines.peek().is_none());
            return samples;
        }
        if let Some(help) = line.strip_prefix("# HELP ") {
            let name = help.split(' ').next().unwrap().to_owned();
            assert!(closed.insert(name.clone()), "{name} stands twice");
            family = name;
            let of_type = lines.next().unwrap().strip_prefix("# TYPE ").unwrap();
            let (name, of) = of_type.split_once(' ').unwrap();
            assert_eq!(name, family);
            kind = of.to_owned();
            continue;
        }
        let (name, labels, value) = sample(line);
        let suffixes: &[&str] = match kind.as_str() {
            "counter" if open => &["_total"],
            "summary" => &["", "_sum", "_count"],
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        let fits = suffixes.iter().any(|suffix| name == format!("{family}{suffix}"));
        assert!(fits, "{name} under {kind} {family}");
        assert!(!labels.contains_key("quantile") || kind == "summary", "{line}");
        assert!(kind != "counter" || name.ends_with("_total"), "{line}");
        assert!(samples.insert((name, labels), value).is_none(), "twice: {line}");
    }
    assert!(!open, "no # EOF");
    samples
}

fn sample(line: &str) -> (String, Labels, f64) {
    let name_end = line.find(['{', ' ']).unwrap();
    let (name, mut rest) = line.split_at(name_end);
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_';
    assert!(name.starts_with("lens_") && name.chars().all(good), "{line}");
    let mut labels = Labels::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"").unwrap();
            assert!(label.chars().all(good), "{line}");
            let (value, after) = quoted(after);
            assert!(labels.insert(label.to_owned(), value).is_none(), "{line}");
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ').unwrap();
    (name.to_owned(), labels, value.parse().unwrap_or_else(|_| panic!("{line}")))
}

fn quoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.push(match characters.next().unwrap().1 {
                'n' => '\n',
                escaped @ ('"' | '\\') => escaped,
                other => panic!("\\{other} is no escape"),
            }),
            other => value.push(other),
        }
    }
    panic!("no closing quote: {text}")
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn fed() -> State {
    let state = state();
    feed(&state, &key("rust", Stage::A, Arm::Baseline), 5, uniform(1_000, 1.0, 2.0));
    feed(&state, &key("c++", Stage::B, Arm::Canary), 5, uniform(100, 1.0, 2.0));
    feed_requests(&state, "rust", Arm::Baseline, 990, 10);
    feed_gauge(&state, "span \"coverage\"\\\n", f64::INFINITY, state.now());
    state
}

#[tokio::test]
async fn both_dialects_are_well_formed_and_say_the_same() {
    let (router, _) = served(fed());
    let plain = get(&router, "/metrics").await;
    assert_eq!(plain.content_type(), "text/plain; version=0.0.4; charset=utf-8");
    let accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.1";
    let request = Request::builder().uri("/metrics").header("accept", accept);
    let open = ask(&router, request.body(Body::empty()).unwrap()).await;
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(open.content_type(), content_type);
    let (plain, open) = (parse(&plain.text, false), parse(&open.text, true));
    assert_eq!(plain.keys().collect::<Vec<_>>(), open.keys().collect::<Vec<_>>());
    let of = [("slice", "backend/rust/large"), ("stage", "stage_a"), ("arm", "baseline")];
    let get = |name: &str, more: &[(&str, &str)]| {
        open.get(&(name.to_owned(), labels(&[&of[..], more].concat()))).copied()
    };
    let p99 = get("lens_latency_seconds", &[("quantile", "0.99")]).unwrap();
    assert!((p99 - 0.001_99).abs() < 0.000_02, "{p99}");
    assert!(get("lens_latency_low_seconds", &[("quantile", "0.99")]).unwrap() <= p99);
    assert!(get("lens_latency_high_seconds", &[("quantile", "0.99")]).unwrap() >= p99);
    assert_eq!(get("lens_latency_seconds", &[("quantile", "0.999")]), None);
    assert_eq!(get("lens_latency_seconds_count", &[]), Some(1_000.0));
    assert!((get("lens_latency_seconds_sum", &[]).unwrap() - 1.5).abs() < 0.015);
    assert_eq!(get("lens_samples_total", &[]), Some(1_000.0));
    assert_eq!(get("lens_verdict", &[("verdict", "ok")]), Some(1.0));
    assert_eq!(get("lens_verdict", &[("verdict", "stale")]), Some(0.0));
    let errors = labels(&[of[0], of[2], ("outcome", "error")]);
    assert_eq!(open[&("lens_requests_total".to_owned(), errors)], 10.0);
}

#[tokio::test]
async fn protobuf_is_served_to_whoever_wants_it_most_and_caches_are_told_why() {
    let (router, _) = served(fed());
    let accept = "text/plain;q=0.5,application/vnd.google.protobuf;\
        proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6";
    let request = Request::builder().uri("/metrics").header("accept", accept);
    let response = router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.headers()["vary"], "accept");
    let kind = response.headers()["content-type"].to_str().unwrap();
    assert!(kind.starts_with("application/vnd.google.protobuf; proto=io.prometheus.client."));
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    let (length, name) = (body[0], b"lens_latency_seconds");
    assert!(length > 0x7f, "the length of the first family, a varint of more than a byte");
    assert!(body.windows(name.len()).any(|part| part == name));
}

#[tokio::test]
async fn what_has_too_few_samples_is_absent_and_odd_labels_survive() {
    let (router, _) = served(fed());
    let samples = parse(&get(&router, "/metrics").await.text, false);
    let few = |name: &str| {
        samples
            .keys()
            .filter(|(n, l)| n == name && l.get("slice").is_some_and(|s| s.contains("c++")))
            .count()
    };
    // 100 samples: p50 and p95 are known, p99 and p99.9 are not, nor is their ratio.
    assert_eq!((few("lens_latency_seconds"), few("lens_tail_ratio")), (2, 0));
    let odd = samples.iter().find(|((name, _), _)| name == "lens_node_reading").unwrap();
    assert_eq!(odd.0.1["gauge"], "span \"coverage\"\\\n");
    assert!(odd.1.is_infinite());
}

#[test]
fn an_empty_state_has_its_own_metrics_and_no_latencies() {
    let state = state();
    let snapshot = Snapshot::take(&state, state.now());
    let samples = parse(&render(&families(&state, &snapshot, 0), Dialect::OpenMetrics), true);
    let own = |name: &str| {
        name.starts_with("lens_aggregator_")
            || name.starts_with("lens_canary_")
            || name == "lens_alerts"
    };
    assert!(samples.keys().all(|(name, _)| own(name)));
    let alone = |name: &str| samples.get(&(name.to_owned(), Labels::new()));
    assert_eq!(alone("lens_aggregator_frames_total"), Some(&0.0));
    assert_eq!(alone("lens_aggregator_lag_seconds"), None);
    assert_eq!(alone("lens_canary_share_percent"), Some(&0.0));
    let phases = samples.iter().filter(|((name, _), _)| name == "lens_canary_phase");
    let holds: Vec<_> = phases.filter(|(_, holds)| **holds == 1.0).map(|((_, of), _)| of).collect();
    assert_eq!(holds, [&labels(&[("phase", "idle")])]);
}
