//! `/canary`: shapes, refusals, and what an emergency needs not bring.

use super::*;

async fn post(router: &Router, path: &str, body: &str) -> Answer {
    // As curl sends it with `-X POST` alone: no content type.
    let request = Request::builder().method(Method::POST).uri(path);
    ask(router, request.body(Body::from(body.to_owned())).unwrap()).await
}

async fn status(router: &Router) -> Value {
    get(router, "/canary/status").await.json()["canary_deployment"].clone()
}

#[tokio::test]
async fn a_fresh_aggregator_has_the_defaults_that_tools_expect() {
    let (router, _) = served(state());
    let answer = get(&router, "/canary/status").await.json();
    assert_eq!(answer["success"], true);
    assert!(answer["latency_ms"].is_number() && answer["timestamp"].is_string());
    let canary = &answer["canary_deployment"];
    assert_eq!(
        (&canary["killSwitchEnabled"], &canary["progressiveRollout"]),
        (&true.into(), &true.into())
    );
    assert_eq!(canary["trafficPercentage"], 5.0);
    assert_eq!(canary["share_percent"], 0.0);
    for flag in ["stageA_native_scanner", "stageB_enabled", "stageC_enabled"] {
        assert_eq!(canary["stageFlags"][flag], false, "{flag}");
    }
    assert_eq!((&canary["nextStage"], &canary["phase"]), (&"25%".into(), &"idle".into()));
    assert_eq!(canary["rollbackHistory"], serde_json::json!([]));
}

#[tokio::test]
async fn a_rollout_begins_with_a_version_and_is_not_moved_without_evidence() {
    let (router, _) = served(state());
    let nowhere = post(&router, "/canary/progress", "").await;
    assert_eq!(nowhere.status, StatusCode::BAD_REQUEST);
    assert_eq!(
        (&nowhere.json()["success"], &nowhere.json()["stage"]),
        (&false.into(), &"unknown".into())
    );
    let unnamed = post(&router, "/canary/start", "").await;
    assert_eq!(unnamed.status, StatusCode::BAD_REQUEST, "{}", unnamed.text);
    let begun = post(&router, "/canary/start", r#"{"version":"1.5.0"}"#).await;
    assert_eq!(begun.status, StatusCode::OK, "{}", begun.text);
    assert_eq!(begun.json()["stage"], "small");
    assert_eq!(begun.json()["salt"].as_str().unwrap().len(), 16);
    let twice = post(&router, "/canary/start", r#"{"version":"1.5.1"}"#).await;
    assert_eq!(twice.status, StatusCode::CONFLICT);
    let canary = status(&router).await;
    assert_eq!((&canary["share_percent"], &canary["version"]), (&5.0.into(), &"1.5.0".into()));
    assert!(canary["dwell_remaining_s"].as_f64().unwrap() > 290.0);
    let early = post(&router, "/canary/progress", "").await;
    assert_eq!(early.status, StatusCode::CONFLICT);
    assert_eq!(early.content_type(), "application/problem+json");
    let early = early.json();
    assert_eq!((&early["success"], &early["current_percentage"]), (&false.into(), &5.0.into()));
    assert_eq!(early["blockers"][0]["code"], "no_canary", "{early}");
    let ended = post(&router, "/canary/abort", "").await;
    assert_eq!(ended.status, StatusCode::OK, "{}", ended.text);
    let canary = status(&router).await;
    assert_eq!((&canary["share_percent"], &canary["phase"]), (&0.0.into(), &"aborted".into()));
    assert_eq!(canary["rollbackHistory"][0]["metrics"]["previousTrafficPercentage"], 5.0);
}

#[tokio::test]
async fn the_kill_switch_needs_no_body_no_header_and_no_rollout() {
    let (router, shared) = served(state());
    assert!(shared.flags.set_stage_flags(true, true, true).await.unwrap().changed);
    assert_eq!(status(&router).await["stageFlags"]["stageB_enabled"], true);
    let killed = post(&router, "/canary/killswitch", "").await;
    assert_eq!(killed.status, StatusCode::OK, "{}", killed.text);
    let killed = killed.json();
    assert_eq!((&killed["success"], &killed["traffic_percentage"]), (&true.into(), &0.into()));
    let canary = status(&router).await;
    assert_eq!((&canary["trafficPercentage"], &canary["killed"]), (&0.0.into(), &true.into()));
    assert_eq!((&canary["killSwitchEnabled"], &canary["nextStage"]), (&true.into(), &Value::Null));
    for flag in ["stageA_native_scanner", "stageB_enabled", "stageC_enabled"] {
        assert_eq!(canary["stageFlags"][flag], false, "{flag}");
    }
    assert_eq!(canary["rollbackHistory"].as_array().unwrap().len(), 1);
    assert_eq!(canary["rollbackHistory"][0]["flagName"], "canary_kill_switch");
    // A form is none of ours and must not be in the way; the newest stands first.
    post(&router, "/canary/killswitch", "reason=smoke").await;
    let again = post(&router, "/canary/killswitch", r#"{"reason":"zero results"}"#).await;
    assert_eq!(again.json()["reason"], "zero results");
    let canary = status(&router).await;
    assert_eq!(canary["rollbackHistory"][0]["reason"], "zero results");
    assert_eq!(canary["rollbackHistory"][0]["metrics"]["trafficPercentage"], 0);
}

#[tokio::test]
async fn a_kill_is_released_by_two_different_people_and_nothing_comes_back_with_it() {
    let (router, _) = served(state());
    let idle = post(&router, "/canary/release-kill", r#"{"approvals":["ann","bob"]}"#).await;
    assert_eq!(idle.status, StatusCode::CONFLICT, "{}", idle.text);
    post(&router, "/canary/start", r#"{"version":"1.5.0"}"#).await;
    post(&router, "/canary/killswitch", "").await;
    let begun = post(&router, "/canary/start", r#"{"version":"1.5.0"}"#).await;
    assert_eq!(begun.status, StatusCode::CONFLICT);
    assert_eq!(post(&router, "/canary/release-kill", "").await.status, StatusCode::BAD_REQUEST);
    let one = post(&router, "/canary/release-kill", r#"{"approvals":["ann","ann"]}"#).await;
    assert_eq!((one.status, &one.json()["released"]), (StatusCode::ACCEPTED, &false.into()));
    assert_eq!(status(&router).await["killed"], true);
    let two = post(&router, "/canary/release-kill", r#"{"approvals":["bob"]}"#).await;
    assert_eq!((two.status, &two.json()["released"]), (StatusCode::OK, &true.into()));
    let canary = status(&router).await;
    assert_eq!((&canary["killed"], &canary["share_percent"]), (&false.into(), &0.0.into()));
    assert_eq!(
        post(&router, "/canary/start", r#"{"version":"2.0.0"}"#).await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn decisions_that_are_not_there_are_refused_and_the_list_is_empty_at_first() {
    let (router, _) = served(state());
    let list = get(&router, "/canary/decisions").await.json();
    assert_eq!((&list["decisions"], &list["next_before"]), (&serde_json::json!([]), &Value::Null));
    for path in ["/canary/decisions/7", "/canary/decisions/7/plan", "/canary/decisions/7/replay"] {
        assert_eq!(get(&router, path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(get(&router, "/canary/decisions/x").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(get(&router, "/canary/decisions?before=x").await.status, StatusCode::BAD_REQUEST);
}
