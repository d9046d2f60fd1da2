//! The node's HTTP face: `/search`, `/health`, `/stats`, `/queries`, `/recorded`.
//!
//! Queries run on the blocking pool. At most [`WORKERS_MIN`] or one a core run at once, the others
//! wait their turn, which counts in their end-to-end latency; beyond [`QUERIES_ADMITTED_MAX`] a
//! query is answered 503 at once and counted as an error of the node.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Query as UrlQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use lens_model::{Arm, Trace};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;

use super::engine::{self, Asked, Slowdown};
use super::index::SearchIndex;
use super::queries::{self, QUERIES_DEFAULT, QUERIES_MAX};
use super::recording::Recording;
use super::request::{Query, Refusal};

/// Queries running or waiting; one more is refused.
pub const QUERIES_ADMITTED_MAX: usize = 256;

/// Queries that run at once, however few cores there are.
pub const WORKERS_MIN: usize = 2;

/// Largest request body, bytes: a query of 1,000 characters with room to spare.
pub const BODY_BYTES_MAX: usize = 64 << 10;

/// Longest trace id that is taken over.
const TRACE_ID_BYTES_MAX: usize = 128;

/// Repositories that `/stats` lists.
const REPOSITORIES_SHOWN_MAX: usize = 1_000;

const API_VERSION: &str = "v1";
const POLICY_VERSION: &str = "v1";

/// Everything the handlers share.
pub(super) struct Served {
    pub(super) index: SearchIndex,
    pub(super) recording: Recording,
    pub(super) slowdown: Slowdown,
    pub(super) version: String,
    pub(super) index_version: String,
    pub(super) instance: String,
    pub(super) arm: Arm,
    admitted: Arc<Semaphore>,
    running: Arc<Semaphore>,
    workers: u32,
}

/// Who a node is, as its answers tell.
pub(super) struct About {
    pub(super) version: String,
    pub(super) index_version: String,
    pub(super) instance: String,
    pub(super) arm: Arm,
}

impl Served {
    pub(super) fn new(
        index: SearchIndex,
        recording: Recording,
        slowdown: Slowdown,
        about: About,
    ) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let workers = cores.max(WORKERS_MIN);
        let About { version, index_version, instance, arm } = about;
        Self {
            index,
            recording,
            slowdown,
            version,
            index_version,
            instance,
            arm,
            admitted: Arc::new(Semaphore::new(QUERIES_ADMITTED_MAX)),
            running: Arc::new(Semaphore::new(workers)),
            workers: crate::numbers::index32(workers),
        }
    }

    /// Waits until no query runs any more. New ones would be let in again afterwards, so this
    /// is for when nothing listens any longer.
    pub(super) async fn idle(&self) {
        if self.running.acquire_many(self.workers).await.is_err() {
            tracing::debug!("the query pool was closed");
        }
    }
}

/// The routes of the node.
pub(super) fn router(served: Arc<Served>) -> Router {
    Router::new()
        .route("/search", post(search))
        .route("/health", get(health))
        .route("/stats", get(stats))
        .route("/queries", get(sample_queries))
        .route("/recorded", get(recorded))
        .fallback(unknown_path)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(served)
}

type Shared = State<Arc<Served>>;

async fn search(
    State(served): Shared,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let arrived = Instant::now();
    let (trace_id, trace) = trace(&headers);
    let body = match body {
        Ok(body) => body,
        Err(rejection) => {
            let message = format!("{rejection}; send at most {BODY_BYTES_MAX} bytes of JSON");
            let refusal = Refusal { field: "body".into(), message };
            return refused(rejection.status(), &refusal, &trace_id);
        }
    };
    let query = match Query::parse(&body, &served.index) {
        Ok(query) => query,
        Err(refusal) => return refused(StatusCode::BAD_REQUEST, &refusal, &trace_id),
    };
    let arm = served.recording.arm_of(query.user.as_deref());
    let Ok(admitted) = Arc::clone(&served.admitted).try_acquire_owned() else {
        served.recording.slice(query.slice, arm).refused();
        let message = format!("{QUERIES_ADMITTED_MAX} queries are waiting already; try later");
        return failed(StatusCode::SERVICE_UNAVAILABLE, "overloaded", &message, &trace_id);
    };
    let Ok(turn) = Arc::clone(&served.running).acquire_owned().await else {
        served.recording.slice(query.slice, arm).refused();
        let message = "the node is stopping";
        return failed(StatusCode::SERVICE_UNAVAILABLE, "stopping", message, &trace_id);
    };
    let worker = Arc::clone(&served);
    let slice = query.slice;
    let done = tokio::task::spawn_blocking(move || {
        let recording = worker.recording.slice(query.slice, arm);
        let entered = recording.enter();
        let answer = engine::search(
            &worker.index,
            recording,
            &worker.slowdown,
            &query,
            Asked { arrived, trace },
        );
        match &answer {
            Ok(_) => recording.answered(),
            Err(_) => recording.failed(),
        }
        drop(entered);
        drop((turn, admitted));
        answer
    })
    .await;
    match done {
        Ok(Ok(answer)) => Json(json!({
            "hits": answer.hits,
            "total": answer.total,
            "latency_ms": answer.latency_ms,
            "trace_id": trace_id,
            "slice": served.index.slices[slice].slice,
            "arm": arm,
            "version": served.version,
            "api_version": API_VERSION,
            "index_version": served.index_version,
            "policy_version": POLICY_VERSION,
        }))
        .into_response(),
        Ok(Err(error)) => {
            tracing::error!(%error, trace_id, "stage A failed");
            let message = format!("stage A failed: {error}");
            failed(StatusCode::INTERNAL_SERVER_ERROR, "stage_a_failed", &message, &trace_id)
        }
        Err(error) => {
            served.recording.slice(slice, arm).refused();
            tracing::error!(%error, trace_id, "a query did not come back");
            let message = "the query did not come back; see the node's log";
            failed(StatusCode::INTERNAL_SERVER_ERROR, "internal", message, &trace_id)
        }
    }
}

/// The id that a query is answered under, and the trace its slow stages are recorded under: the
/// caller's span by its `traceparent`; else the id it says, when that is printable and short, or a new
/// one, and the trace of an id that has the form of one.
fn trace(headers: &HeaderMap) -> (String, Option<Trace>) {
    let said = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(parent) = said("traceparent").and_then(|text| text.parse::<Trace>().ok()) {
        return (parent.id_hex(), Some(parent));
    }
    let id = said("x-trace-id")
        .filter(|id| (1..=TRACE_ID_BYTES_MAX).contains(&id.len()))
        .map_or_else(|| format!("{:032x}", rand::random::<u128>()), str::to_owned);
    let digits = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
    let number = u128::from_str_radix(&id, 16).ok().filter(|_| digits);
    let trace = number.and_then(|number| Trace::new(number.to_be_bytes(), [0; 8]));
    (id, trace)
}

fn refused(status: StatusCode, refusal: &Refusal, trace_id: &str) -> Response {
    let body = json!({
        "error": "bad_request",
        "field": refusal.field,
        "message": refusal.message,
        "trace_id": trace_id,
    });
    (status, Json(body)).into_response()
}

fn failed(status: StatusCode, error: &str, message: &str, trace_id: &str) -> Response {
    let body = json!({"error": error, "message": message, "trace_id": trace_id});
    (status, Json(body)).into_response()
}

async fn unknown_path() -> Response {
    let message = "use POST /search or GET /health, /stats, /queries, /recorded";
    (StatusCode::NOT_FOUND, Json(json!({"error": "not_found", "message": message}))).into_response()
}

async fn health(State(served): Shared) -> Json<serde_json::Value> {
    let index = &served.index;
    Json(json!({
        "status": "healthy",
        "instance": served.instance,
        "arm": served.arm,
        "version": served.version,
        "index_version": served.index_version,
        "files": index.files.len(),
        "repos": index.repositories.len(),
        "slices": index.slices.len(),
        "uptime_s": served.slowdown.started.elapsed().as_secs_f64(),
    }))
}

async fn stats(State(served): Shared) -> Json<serde_json::Value> {
    let index = &served.index;
    let slices: Vec<_> = index
        .slices
        .iter()
        .map(|slice| {
            json!({
                "slice": slice.slice,
                "repos": slice.repositories,
                "files": slice.files,
                "windows": slice.windows,
                "symbols": slice.symbols.symbols().len(),
            })
        })
        .collect();
    let repos: Vec<_> = index
        .repositories
        .iter()
        .take(REPOSITORIES_SHOWN_MAX)
        .map(|repository| {
            json!({
                "name": repository.name,
                "slice": repository.slice,
                "files_found": repository.files_found,
                "bytes_found": repository.bytes_found,
            })
        })
        .collect();
    let regressions: Vec<_> = served.slowdown.regressions.iter().map(ToString::to_string).collect();
    Json(json!({
        "instance": served.instance,
        "arm": served.arm,
        "files": index.files.len(),
        "windows": index.windows.len(),
        "bytes": index.files.iter().map(|file| file.text.len()).sum::<usize>(),
        "slices": slices,
        "repos": repos,
        "regressions": regressions,
        "queries_admitted": QUERIES_ADMITTED_MAX - served.admitted.available_permits(),
        "workers": served.workers,
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct QueriesParams {
    n: Option<usize>,
    seed: Option<u64>,
}

async fn sample_queries(
    State(served): Shared,
    params: Result<UrlQuery<QueriesParams>, QueryRejection>,
) -> Response {
    let trace_id = String::new();
    let UrlQuery(params) = match params {
        Ok(params) => params,
        Err(rejection) => {
            let message = format!("{rejection}; use /queries?n=500&seed=1");
            let refusal = Refusal { field: "query".into(), message };
            return refused(StatusCode::BAD_REQUEST, &refusal, &trace_id);
        }
    };
    let count = params.n.unwrap_or(QUERIES_DEFAULT);
    if !(1..=QUERIES_MAX).contains(&count) {
        let message = format!("use a whole number from 1 to {QUERIES_MAX}");
        let refusal = Refusal { field: "n".into(), message };
        return refused(StatusCode::BAD_REQUEST, &refusal, &trace_id);
    }
    let seed = params.seed.unwrap_or(0);
    let queries = queries::sample(&served.index, count, seed);
    Json(json!({"seed": seed, "queries": queries})).into_response()
}

async fn recorded(State(served): Shared) -> Response {
    Json(served.recording.ledger()).into_response()
}
