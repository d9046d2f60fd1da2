//! The router as a client sees it, over windows filled with known values.

mod alerts;
mod canary;
mod data;
mod described;
mod doors;
mod health;
mod judged;
mod metrics;
mod past;
mod refused;
mod stream;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use lens_hist::{Sparse, block};
use lens_model::{AgentName, Arm, InstanceName, Nanos, SeriesKey, Slice, Stage, UnixNanos};
use serde_json::Value;
use tower::ServiceExt;

use crate::state::{Rules, State};
use crate::window::{Host, RequestCounts, Windows};

pub(super) fn slice(language: &str) -> Slice {
    Slice::new("backend", language, "large").unwrap()
}

pub(super) fn key(language: &str, stage: Stage, arm: Arm) -> SeriesKey {
    SeriesKey { slice: slice(language), stage, arm }
}

pub(super) fn host() -> Host {
    Host { agent: AgentName::new("a1").unwrap(), instance: InstanceName::new("n1").unwrap() }
}

/// A state that knows the slices of rust and go, and has run for ten minutes.
pub(super) fn state() -> State {
    let rules = Rules { slices_known: vec![slice("rust"), slice("go")], ..Rules::default() };
    let windows = Windows::new(Nanos::from_secs(5), Nanos::from_secs(60));
    let now = lens_service::time::unix_now();
    State::new(lens_service::env::Env::system(), rules, windows, now.minus(Nanos::from_secs(600)))
}

/// Merges values (nanoseconds) recorded `ago` seconds before now.
pub(super) fn feed(
    state: &State,
    key: &SeriesKey,
    ago: u64,
    values: impl IntoIterator<Item = u64>,
) {
    let mut bytes = Vec::new();
    block::encode(&values.into_iter().collect::<Sparse>(), &mut bytes);
    let (block, _) = block::BlockRef::parse(&bytes).unwrap();
    let now = state.now();
    let mut windows = state.windows.write();
    let host = windows.host(&host()).unwrap();
    let handle = windows.handle(key, &host).unwrap();
    windows.merge(handle, now.minus(Nanos::from_secs(ago)), &block, now).unwrap();
}

pub(super) fn feed_requests(state: &State, language: &str, arm: Arm, ok: u64, error: u64) {
    let now = state.now();
    let mut windows = state.windows.write();
    let host = windows.host(&host()).unwrap();
    windows
        .merge_requests(&slice(language), arm, &host, now, RequestCounts { ok, error }, now)
        .unwrap();
}

pub(super) fn feed_gauge(state: &State, name: &str, value: f64, at: UnixNanos) {
    let mut windows = state.windows.write();
    let host = windows.host(&host()).unwrap();
    windows.set_gauge(&host, name, value, at).unwrap();
}

/// Values spread evenly between two latencies in milliseconds: every quantile is known.
pub(super) fn uniform(count: u64, low_ms: f64, high_ms: f64) -> Vec<u64> {
    let step = (high_ms - low_ms) * 1e6 / count as f64;
    let low = low_ms * 1e6;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    (0..count).map(|at| (low + step * (at as f64 + 0.5)) as u64).collect()
}

pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    pub(super) fn content_type(&self) -> &str {
        self.headers["content-type"].to_str().unwrap()
    }
}

pub(super) async fn ask(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, 1 << 26).await.unwrap();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    Answer { status: parts.status, headers: parts.headers, text }
}

pub(super) async fn get(router: &Router, uri: &str) -> Answer {
    let request = Request::builder().method(Method::GET).uri(uri).body(Body::empty()).unwrap();
    ask(router, request).await
}

pub(super) fn served(state: State) -> (Router, Arc<State>) {
    // As if what was fed were known whole.
    state.judge_until(state.now().plus(Nanos::from_secs(15)));
    let state = Arc::new(state);
    (super::router(Arc::clone(&state)), state)
}

pub(super) fn close(value: &Value, expected: f64) -> bool {
    let value = value.as_f64().unwrap_or_else(|| panic!("{value} is no number"));
    (value - expected).abs() <= 0.01 * expected
}
