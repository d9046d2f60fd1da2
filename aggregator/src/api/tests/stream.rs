//! `/api/v1/events`, and the watch that feeds it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::BodyDataStream;
use futures_util::StreamExt;
use lens_model::limits::EVENT_SUBSCRIBERS_MAX;

use super::*;
use crate::judge::Watch;
use crate::snapshot::Snapshot;

async fn open(router: &Router) -> (StatusCode, BodyDataStream) {
    let request = Request::builder().uri("/api/v1/events").body(Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    (response.status(), response.into_body().into_data_stream())
}

async fn read_until(stream: &mut BodyDataStream, what: &str) -> String {
    let mut text = String::new();
    let read = async {
        while let Some(chunk) = stream.next().await {
            text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
            if text.contains(what) {
                return true;
            }
        }
        false
    };
    let found = tokio::time::timeout(Duration::from_secs(10), read).await;
    assert_eq!(found, Ok(true), "{what:?} is not in {text}");
    text
}

#[tokio::test]
async fn verdicts_and_snapshots_arrive_and_the_stream_ends_with_the_aggregator() {
    let (router, state) = served(state());
    let (status, mut stream) = open(&router).await;
    assert_eq!(status, StatusCode::OK);
    let text = read_until(&mut stream, "event: snapshot").await;
    let data = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    let snapshot: Value = serde_json::from_str(data).unwrap();
    assert_eq!(snapshot["health"]["status"], "degraded");
    state.tell("verdict", "backend/rust/large/stage_a/canary", "ok → violation");
    let text = read_until(&mut stream, "event: verdict").await;
    assert!(text.contains("id: ") && text.contains("\"kind\":\"verdict\""), "{text}");
    state.draining.store(true, Ordering::Relaxed);
    let drained = tokio::time::timeout(Duration::from_secs(10), async {
        while stream.next().await.is_some() {}
    });
    assert!(drained.await.is_ok());
}

#[tokio::test]
async fn one_subscriber_too_many_is_turned_away_until_one_leaves() {
    let (router, _) = served(state());
    let mut streams = Vec::new();
    for _ in 0..EVENT_SUBSCRIBERS_MAX {
        let (status, stream) = open(&router).await;
        assert_eq!(status, StatusCode::OK);
        streams.push(stream);
    }
    assert_eq!(open(&router).await.0, StatusCode::SERVICE_UNAVAILABLE);
    streams.pop();
    assert_eq!(open(&router).await.0, StatusCode::OK);
}

#[tokio::test]
async fn the_watch_tells_changes_once_and_repetitions_never() {
    let state = state();
    let mut events = state.events.subscribe();
    let mut watch = Watch::new();
    let mut tick = |state: &State, at: UnixNanos| watch.tick(state, &Snapshot::take(state, at));
    let key = key("rust", Stage::A, Arm::Baseline);
    feed(&state, &key, 1, uniform(10, 1.0, 2.0));
    tick(&state, state.now());
    assert!(events.try_recv().is_err(), "too few samples are where every series begins");
    feed(&state, &key, 1, uniform(1_000, 1.0, 2.0));
    state.judge_until(state.now().plus(Nanos::from_secs(15)));
    tick(&state, state.now());
    tick(&state, state.now());
    let told = events.try_recv().unwrap();
    assert_eq!((told.kind, told.subject), ("verdict", key.to_string()));
    assert!(told.message.starts_with("insufficient_data → ok: p99 is"), "{}", told.message);
    assert!(events.try_recv().is_err());
    tick(&state, state.now().plus(Nanos::from_secs(60)));
    assert!(events.try_recv().unwrap().message.starts_with("ok → stale: silent for 6"));
}
