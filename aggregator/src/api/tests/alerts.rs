//! Alerts through the API: the promises monitoring makes, and what people do.

use super::*;
use crate::alerts::sense::Sense;
use crate::alerts::sink::{Kind, Sink};
use crate::alerts::transport::Nowhere;
use crate::alerts::{Config, Desk, Policy, Severity};
use crate::judge::standing::Standing;

/// A state that alerts at once, with a log for a sink.
fn alerting() -> (Router, Arc<State>, Sense) {
    let mut state = state();
    let policy = Policy { pending: Nanos(0), clear: Nanos(0), hold: Nanos(0), ..Policy::default() };
    let sinks = vec![Sink { name: "log".into(), kind: Kind::Log, severity_min: Severity::Warning }];
    let config = Config { policy, sinks, ..Config::default() };
    let desk = Desk::open(state.env.clone(), config, Arc::new(Nowhere)).unwrap();
    state.alerts = Arc::new(desk);
    let (router, state) = served(state);
    (router, state, Sense::default())
}

/// Judges all that was fed as if it had just come, and lets alerting look at it once.
fn turn(state: &State, sense: &mut Sense) {
    *state.judge.write() = Standing::new(&state.rules);
    state.judge_until(state.now().plus(Nanos::from_secs(15)));
    crate::alerts::turn(state, sense);
}

async fn post(router: &Router, uri: &str, body: &str) -> Answer {
    let request = Request::builder().method(Method::POST).uri(uri);
    ask(router, request.body(Body::from(body.to_owned())).unwrap()).await
}

async fn alerts(router: &Router) -> Vec<Value> {
    get(router, "/api/v1/alerts").await.json()["alerts"].as_array().unwrap().clone()
}

fn stage_a() -> SeriesKey {
    key("rust", Stage::A, Arm::Baseline)
}

#[tokio::test]
async fn check_23_and_27_the_dashboard_state_has_every_field_of_alerting() {
    let (router, state, mut sense) = alerting();
    feed(&state, &stage_a(), 1, uniform(1_000, 5.5, 6.5));
    turn(&state, &mut sense);
    let tree = get(&router, "/monitoring/dashboard").await.json()["dashboard_state"].clone();
    for stage in ["stageA", "stageB", "stageC"] {
        assert!(tree["metrics"]["performance"][stage].is_object(), "{stage}");
    }
    for field in ["span_coverage_percent", "lsif_coverage_percent", "semantic_gating_rate"] {
        assert!(tree["metrics"]["quality"].as_object().unwrap().contains_key(field), "{field}");
    }
    for field in ["stage_a_p95_compliant", "tail_latency_compliant", "span_coverage_compliant"] {
        assert!(tree["sla_compliance"].as_object().unwrap().contains_key(field), "{field}");
    }
    let operational = &tree["metrics"]["operational"];
    assert_eq!(operational["alerts_fired"], 1, "{operational}");
    assert_eq!(operational["alert_categories"], serde_json::json!({"critical": 1}));
    assert_eq!(operational["on_call_escalations"], 0);
    assert_eq!(operational["incident_count"], 1);
    assert!(operational.as_object().unwrap().contains_key("uptime_percent"));
}

#[tokio::test]
async fn check_24_one_measurement_shows_and_what_was_not_measured_is_no_breach() {
    let (router, state, mut sense) = alerting();
    feed(&state, &stage_a(), 1, uniform(1_000, 4.4, 4.6));
    feed_gauge(&state, "span_coverage_percent", 98.7, state.now());
    turn(&state, &mut sense);
    let tree = get(&router, "/monitoring/dashboard").await.json()["dashboard_state"].clone();
    assert!(close(&tree["metrics"]["performance"]["stageA"]["p95_latency_ms"], 4.59));
    assert_eq!(tree["metrics"]["quality"]["span_coverage_percent"], 98.7);
    assert!(tree["metrics"]["quality"]["recall_at_50"].is_null());
    assert_eq!(tree["recent_alerts"], serde_json::json!([]));
    assert!(alerts(&router).await.is_empty());
}

#[tokio::test]
async fn check_25_health_counts_active_and_critical_alerts() {
    let (router, state, mut sense) = alerting();
    let health = || async {
        get(&router, "/monitoring/dashboard").await.json()["dashboard_state"]["health"].clone()
    };
    let before = health().await;
    assert_eq!((&before["status"], &before["active_alerts"]), (&"degraded".into(), &0.into()));
    feed(&state, &stage_a(), 1, uniform(1_000, 5.5, 6.5));
    turn(&state, &mut sense);
    let after = health().await;
    assert_eq!((&after["status"], &after["critical_alerts"]), (&"critical".into(), &1.into()));
    assert!(after.as_object().unwrap().contains_key("uptime_percent"));
}

#[tokio::test]
async fn check_26_a_breach_of_stage_a_is_not_compliant_and_fires_and_is_shown() {
    let (router, state, mut sense) = alerting();
    let mut events = state.events.subscribe();
    feed(&state, &stage_a(), 1, uniform(1_000, 5.5, 6.5));
    turn(&state, &mut sense);
    let tree = get(&router, "/monitoring/dashboard").await.json()["dashboard_state"].clone();
    assert_eq!(tree["sla_compliance"]["stage_a_p95_compliant"], false);
    let open = alerts(&router).await;
    let p95 = open.iter().find(|alert| alert["rule"] == "slo_p95").unwrap();
    assert_eq!(p95["key"], "slo_p95/backend/rust/large/stage_a/baseline");
    assert_eq!((&p95["state"], &p95["severity"]), (&"firing".into(), &"critical".into()));
    assert!(close(&p95["evidence"]["value_ms"], 6.45));
    assert_eq!(p95["evidence"]["limit_ms"], 5.0);
    assert!(p95["recommended_actions"][0].as_str().unwrap().contains("/api/v1/quantiles"));
    let told = std::iter::from_fn(|| events.try_recv().ok());
    assert!(told.filter(|event| event.kind == "alert").count() == 1);
    let recent = &tree["recent_alerts"][0];
    assert_eq!((&recent["resolved"], &recent["severity"]), (&false.into(), &"critical".into()));
    assert!(get(&router, "/metrics").await.text.contains("lens_alerts{state=\"firing\"} 1"));
}

#[tokio::test]
async fn defect_paths_without_prefix_every_limit_of_every_stage_can_fire() {
    let (router, state, mut sense) = alerting();
    for (stage, low) in [(Stage::A, 20.0), (Stage::B, 400.0), (Stage::C, 400.0)] {
        feed(&state, &key("rust", stage, Arm::Baseline), 1, uniform(1_000, low, low * 1.2));
    }
    turn(&state, &mut sense);
    let open = alerts(&router).await;
    let has = |rule: &str, stage: &str| {
        open.iter().any(|alert| alert["rule"] == rule && alert["stage"] == stage)
    };
    for (rule, stage) in [
        ("slo_p95", "stage_a"),
        ("slo_p99", "stage_a"),
        ("slo_p95", "stage_b"),
        ("slo_p95", "stage_c"),
    ] {
        assert!(has(rule, stage), "{rule} {stage}: {open:?}");
    }
}

#[tokio::test]
async fn defect_zeros_taken_for_breaches_nothing_measured_alerts_nobody_and_is_not_healthy() {
    let (router, state, mut sense) = alerting();
    turn(&state, &mut sense);
    feed(&state, &stage_a(), 1, uniform(20, 50.0, 60.0));
    turn(&state, &mut sense);
    assert!(alerts(&router).await.is_empty(), "20 samples are not enough to say");
    let health = get(&router, "/health").await.json();
    assert_eq!(health["status"], "degraded");
}

#[tokio::test]
async fn a_slow_host_among_several_is_named_as_the_cause() {
    let (router, state, mut sense) = alerting();
    feed(&state, &stage_a(), 1, uniform(1_000, 1.0, 2.0));
    let mut bytes = Vec::new();
    block::encode(&uniform(1_000, 20.0, 21.0).into_iter().collect::<Sparse>(), &mut bytes);
    let (block, _) = block::BlockRef::parse(&bytes).unwrap();
    let slow = Host { instance: InstanceName::new("n2").unwrap(), ..host() };
    {
        let now = state.now();
        let mut windows = state.windows.write();
        let host = windows.host(&slow).unwrap();
        let handle = windows.handle(&stage_a(), &host).unwrap();
        windows.merge(handle, now, &block, now).unwrap();
    }
    turn(&state, &mut sense);
    let open = alerts(&router).await;
    let p95 = open.iter().find(|alert| alert["rule"] == "slo_p95").unwrap();
    let first = p95["recommended_actions"][0].as_str().unwrap();
    assert!(first.starts_with("One host is slow, n2 (agent a1): p95 20.9"), "{first}");
}

#[tokio::test]
async fn failing_requests_fire_and_few_of_them_do_not() {
    let (router, state, mut sense) = alerting();
    feed_requests(&state, "rust", Arm::Baseline, 100, 19);
    feed_requests(&state, "go", Arm::Canary, 960, 40);
    turn(&state, &mut sense);
    let open = alerts(&router).await;
    assert_eq!(open.len(), 1, "{open:?}");
    assert_eq!(open[0]["key"], "error_rate/backend/go/large/canary");
    assert_eq!(open[0]["severity"], "warning", "3 % is the canary's first limit");
    feed_requests(&state, "rust", Arm::Baseline, 0, 1);
    turn(&state, &mut sense);
    assert_eq!(alerts(&router).await.len(), 2);
}

#[tokio::test]
async fn people_act_without_a_body_or_a_header_and_are_told_what_was_wrong() {
    let (router, state, mut sense) = alerting();
    feed(&state, &stage_a(), 1, uniform(1_000, 5.5, 6.5));
    turn(&state, &mut sense);
    let id = alerts(&router).await[0]["id"].as_str().unwrap().to_owned();
    let path = |verb: &str| format!("/api/v1/alerts/{id}/{verb}");
    let acked = post(&router, &path("ack"), "").await;
    assert_eq!(acked.status, StatusCode::OK, "{}", acked.text);
    assert_eq!(acked.json()["acknowledged_by"], "operator");
    let again = post(&router, &path("ack"), r#"{"by":"bob"}"#).await;
    assert_eq!(again.json()["acknowledged_by"], "operator");
    let quiet = post(&router, &path("silence"), r#"{"minutes":5,"by":"ann"}"#).await;
    assert_eq!(quiet.json()["state"], "silenced");
    for (uri, body, status) in [
        (path("resolve"), "", 409),
        (path("silence"), r#"{"minutes":0}"#, 400),
        (path("silence"), r#"{"minuets":5}"#, 400),
        (path("ack"), "{", 400),
        ("/api/v1/alerts/nope/ack".into(), "", 404),
        ("/api/v1/alerts/test".into(), r#"{"sink":"nope"}"#, 404),
    ] {
        let answer = post(&router, &uri, body).await;
        assert_eq!(answer.status.as_u16(), status, "{uri} {body}: {}", answer.text);
        assert_eq!(answer.content_type(), "application/problem+json");
        assert!(answer.json()["detail"].as_str().unwrap().len() > 10);
    }
    let of = |state: &'static str| {
        let router = router.clone();
        async move {
            let uri = format!("/api/v1/alerts?state={state}");
            get(&router, &uri).await.json()["alerts"].as_array().unwrap().len()
        }
    };
    assert_eq!((of("silenced").await, of("firing").await), (1, 0));
    assert_eq!(get(&router, "/api/v1/alerts?state=well").await.status, StatusCode::BAD_REQUEST);
    let tested = post(&router, "/api/v1/alerts/test", "").await.json();
    assert_eq!((&tested["sink"], &tested["delivered"]), (&"log".into(), &true.into()));
}

#[tokio::test]
async fn maintenance_is_announced_shown_and_ended() {
    let (router, state, mut sense) = alerting();
    let body = r#"{"minutes":30,"covers":"backend/rust","by":"ann","reason":"reindexing"}"#;
    let window = post(&router, "/api/v1/alerts/maintenance", body).await.json();
    feed(&state, &stage_a(), 1, uniform(1_000, 5.5, 6.5));
    turn(&state, &mut sense);
    let shown = get(&router, "/api/v1/alerts").await.json();
    assert_eq!(shown["maintenance"][0]["id"], window["id"]);
    assert_eq!(shown["deliveries"], serde_json::json!([]));
    let quiet = shown["alerts"][0]["quiet"].as_str().unwrap();
    assert!(quiet.starts_with("maintenance "), "{quiet}");
    let uri = format!("/api/v1/alerts/maintenance/{}", window["id"].as_str().unwrap());
    for status in [StatusCode::NO_CONTENT, StatusCode::NOT_FOUND] {
        let request = Request::builder().method(Method::DELETE).uri(&uri);
        assert_eq!(ask(&router, request.body(Body::empty()).unwrap()).await.status, status);
    }
    turn(&state, &mut sense);
    let shown = get(&router, "/api/v1/alerts").await.json();
    assert!(!shown["deliveries"].as_array().unwrap().is_empty(), "told once it ended");
    let bad = post(&router, "/api/v1/alerts/maintenance", r#"{"from":"soon"}"#).await;
    assert_eq!(bad.status, StatusCode::BAD_REQUEST);
}
