//! Probes, `/health` and `/monitoring/dashboard`.

use std::sync::atomic::Ordering;

use super::*;

#[tokio::test]
async fn probes_tell_alive_from_ready() {
    let (router, state) = served(state());
    assert_eq!(get(&router, "/livez").await.status, StatusCode::OK);
    let not_yet = get(&router, "/readyz").await;
    assert_eq!(not_yet.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(not_yet.json()["reasons"][0], "the listener for agents is not up");
    state.listening.store(true, Ordering::Relaxed);
    assert_eq!(get(&router, "/readyz").await.status, StatusCode::OK);
    state.draining.store(true, Ordering::Relaxed);
    assert_eq!(get(&router, "/readyz").await.json()["reasons"][0], "shutting down");
    assert_eq!(get(&router, "/livez").await.status, StatusCode::OK);
}

#[tokio::test]
async fn nothing_fed_is_degraded_and_never_healthy() {
    let (router, _) = served(state());
    let json = get(&router, "/health").await.json();
    assert_eq!((&json["status"], &json["healthy"]), (&"degraded".into(), &false.into()));
    assert_eq!(json["insufficient_data"].as_array().unwrap().len(), 2);
    assert!(json["summary"].as_str().unwrap().starts_with("No samples were received yet"));
    let dashboard = get(&router, "/monitoring/dashboard").await.json();
    assert_eq!(dashboard["dashboard_state"]["health"]["status"], "degraded");
}

#[tokio::test]
async fn one_proven_slice_is_healthy_and_the_unfed_one_is_named() {
    let state = state();
    feed(&state, &key("rust", Stage::A, Arm::Baseline), 5, uniform(1_000, 1.0, 2.0));
    let (router, _) = served(state);
    let json = get(&router, "/health").await.json();
    assert_eq!(json["status"], "healthy", "{json}");
    assert_eq!((&json["healthy_slices"], &json["total_slices"]), (&1.into(), &2.into()));
    assert_eq!(json["insufficient_data"], serde_json::json!(["backend/go/large"]));
}

#[tokio::test]
async fn a_long_tail_degrades_and_a_broken_limit_is_critical() {
    let tail = state();
    let values = [vec![10_000_000; 3_880], vec![30_000_000; 120]].concat();
    feed(&tail, &key("rust", Stage::B, Arm::Baseline), 5, values.iter().copied());
    let json = get(&served(tail).0, "/health").await.json();
    assert_eq!(
        (&json["status"], &json["violations"][0]["kind"]),
        (&"degraded".into(), &"tail".into())
    );
    let limit = state();
    feed(&limit, &key("rust", Stage::A, Arm::Baseline), 5, uniform(1_000, 6.0, 7.0));
    let json = get(&served(limit).0, "/health").await.json();
    assert_eq!(
        (&json["status"], &json["violations"][0]["kind"]),
        (&"critical".into(), &"slo".into())
    );
}

#[tokio::test]
async fn silence_is_stale_unless_the_samples_moved_to_the_other_arm() {
    let silent = state();
    feed(&silent, &key("rust", Stage::A, Arm::Baseline), 60, uniform(1_000, 1.0, 2.0));
    let (router, _) = served(silent);
    let json = get(&router, "/health").await.json();
    assert_eq!(json["status"], "degraded");
    assert_eq!(json["stale"], serde_json::json!(["backend/rust/large"]));
    let tail = get(&router, "/api/v1/tail").await.json();
    assert_eq!(tail["series"][0]["verdict"], "stale");
    let moved = state();
    feed(&moved, &key("rust", Stage::A, Arm::Baseline), 60, uniform(1_000, 1.0, 2.0));
    feed(&moved, &key("rust", Stage::A, Arm::Canary), 1, uniform(1_000, 1.0, 2.0));
    let json = get(&served(moved).0, "/health").await.json();
    assert_eq!((&json["status"], json["stale"].as_array().unwrap().len()), (&"healthy".into(), 0));
}

fn nulls(path: &str, value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Null => found.push(path.to_owned()),
        Value::Object(map) => map.iter().for_each(|(name, inner)| {
            let dot = if path.is_empty() { "" } else { "." };
            nulls(&format!("{path}{dot}{name}"), inner, found);
        }),
        _ => {}
    }
}

#[tokio::test]
async fn every_null_of_the_dashboard_has_its_reason_and_every_reason_its_null() {
    let fed = state();
    feed(&fed, &key("rust", Stage::A, Arm::Baseline), 5, uniform(1_000, 1.0, 2.0));
    feed_gauge(&fed, "span_coverage_percent", 98.7, fed.now());
    for state in [state(), fed] {
        let json = get(&served(state).0, "/monitoring/dashboard").await.json();
        let (mut found, mut named) = (Vec::new(), Vec::new());
        nulls("", &json["dashboard_state"], &mut found);
        named.extend(json["reasons"].as_object().unwrap().keys().cloned());
        found.sort();
        named.sort();
        assert_eq!(found, named);
        assert_eq!(json["success"], true);
        assert!(json["latency_ms"].as_f64().unwrap() > 0.0);
    }
}

#[tokio::test]
async fn the_dashboard_tree_carries_what_was_measured() {
    let state = state();
    feed(&state, &key("rust", Stage::A, Arm::Baseline), 5, uniform(1_000, 1.0, 2.0));
    feed(&state, &key("go", Stage::A, Arm::Canary), 5, uniform(1_000, 2.0, 3.0));
    feed_requests(&state, "rust", Arm::Baseline, 2_970, 0);
    feed_requests(&state, "go", Arm::Canary, 27, 3);
    let now = state.now();
    feed_gauge(&state, "span_coverage_percent", 98.7, now);
    feed_gauge(&state, "recall_at_50", 0.9, now.minus(Nanos::from_secs(1_000)));
    let json = get(&served(state).0, "/monitoring/dashboard").await.json();
    let tree = &json["dashboard_state"];
    let a = &tree["metrics"]["performance"]["stageA"];
    assert!(close(&a["p50_latency_ms"], 2.0) && close(&a["p99_latency_ms"], 2.98), "{a}");
    assert!(close(&a["throughput_rps"], 10.0), "{a}");
    assert!(close(&tree["metrics"]["canary"]["error_rate_percent"], 10.0));
    assert!(close(&tree["metrics"]["quality"]["span_coverage_percent"], 98.7));
    assert_eq!(json["reasons"]["metrics.quality.recall_at_50"].as_str().unwrap(), {
        "the gauge recall_at_50 was last read 1000 s ago"
    });
    let sla = &tree["sla_compliance"];
    assert_eq!(sla["stage_a_p95_compliant"], true);
    assert_eq!(sla["tail_latency_compliant"], true);
    assert_eq!(sla["span_coverage_compliant"], true);
    assert!(sla["quality_gates_passing"].is_null());
}
