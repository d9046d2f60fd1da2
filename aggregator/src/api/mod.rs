//! The HTTP API: what was measured, as JSON, as metrics and as a stream.
//!
//! Handlers read one [`crate::snapshot::Snapshot`] or ask the windows; what changes something is in
//! `control` and `alerts`, and nothing runs that `guard` has not let in. What takes time runs on the blocking pool, a few at once, so that neither the
//! listener of agents nor the other handlers wait for it; every answer has a deadline.
//! Every route is registered together with its description, so `/openapi.json` cannot miss one.

mod agents;
mod alerts;
mod audit;
mod canary;
mod captures;
mod control;
mod dashboard_state;
mod docs;
mod events;
mod exemplars;
mod flags;
mod guard;
mod guards;
mod health;
mod histogram;
mod live;
mod metrics;
mod params;
mod past;
mod problem;
mod quantiles;
mod sign_in;
mod slices;
mod tail;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRef, Request};
use axum::http::{HeaderValue, Method, Uri, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use lens_model::limits::HTTP_BODY_BYTES_MAX;
use tokio::sync::Semaphore;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::state::State;
use live::Live;

pub use problem::Problem;
pub use sign_in::Secured;

/// Longest an answer may take to begin.
const DEADLINE: Duration = Duration::from_secs(20);

/// Questions worked on at once; the others wait their turn within their deadline.
const QUESTIONS_AT_ONCE: usize = 4;

/// What handlers share.
#[derive(Clone, Debug)]
struct Api {
    state: Arc<State>,
    live: Arc<Live>,
    turns: Arc<Semaphore>,
    document: docs::Document,
}

impl FromRef<Api> for Arc<State> {
    fn from_ref(api: &Api) -> Self {
        Self::clone(&api.state)
    }
}

impl Api {
    /// Runs what may take time off the async threads.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&State, &Live) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let turn = turn.map_err(|_| Problem::unavailable("the aggregator is shutting down"))?;
        let (state, live) = (Arc::clone(&self.state), Arc::clone(&self.live));
        let job = move || {
            let answer = work(&state, &live);
            drop(turn);
            answer
        };
        tokio::task::spawn_blocking(job)
            .await
            .map_err(|_| Problem::internal("the question could not be worked on"))
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "lens aggregator",
        description = "Latency quantiles, tails and health of search nodes, per slice, stage and \
            arm. Latencies are milliseconds (`_ms`), instants RFC 3339 UTC, ratios plain numbers, \
            percentages `_percent`. What could not be measured is `null` with a `reason`, never 0. \
            Errors are RFC 9457 problem details.",
    ),
    paths(page),
    components(schemas(crate::snapshot::Snapshot)),
    tags(
        (name = "health", description = "Whether it runs, takes data, and what the data says"),
        (name = "data", description = "What was measured"),
        (name = "judge", description = "What it means"),
        (name = "alerts", description = "Who is told of it, and what people do about it"),
        (name = "canary", description = "The rollout, what moves it, and what stops it"),
        (name = "control", description = "What changes something, and the record of it"),
        (name = "auth", description = "How browsers sign in"),
        (name = "export", description = "The same for other systems"),
        (name = "page", description = "The live page"),
        (name = "meta", description = "This description"),
    )
)]
struct Described;

/// The live page
///
/// One HTML document with the numbers of this moment, brought up to date from `/api/v1/events`.
/// Its style, script and icon are at `/assets/` and `/favicon.*`.
#[utoipa::path(get, path = "/", tag = "page",
    responses((status = 200, description = "The page", body = String, content_type = "text/html",
        example = json!("<!doctype html>…"))))]
#[allow(dead_code)] // Stands for `crate::dashboard`'s route in the description.
fn page() {}

/// Every route, with this state.
pub fn router(state: Arc<State>) -> Router {
    let (routes, document) = described().split_for_parts();
    let api = Api {
        live: Arc::new(Live::new(Arc::clone(&state))),
        turns: Arc::new(Semaphore::new(QUESTIONS_AT_ONCE)),
        document: docs::Document::new(&document),
        state: Arc::clone(&state),
    };
    routes
        .with_state(api)
        .merge(crate::dashboard::router().with_state(Arc::clone(&state)))
        .route_layer(from_fn_with_state(state, guard::guard))
        .fallback(|uri: Uri| async move { Problem::not_found(uri.path()) })
        .method_not_allowed_fallback(|method: Method, uri: Uri| async move {
            Problem::method_not_allowed(method.as_str(), uri.path())
        })
        .layer(DefaultBodyLimit::max(HTTP_BODY_BYTES_MAX))
        .layer(from_fn(deadline))
}

fn described() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(Described::openapi())
        .routes(routes!(health::livez))
        .routes(routes!(health::readyz))
        .routes(routes!(health::health))
        .routes(routes!(metrics::metrics))
        .routes(routes!(dashboard_state::dashboard_state))
        .routes(routes!(slices::slices))
        .routes(routes!(quantiles::quantiles))
        .routes(routes!(histogram::histogram))
        .routes(routes!(captures::captures, captures::begin))
        .routes(routes!(captures::capture))
        .routes(routes!(exemplars::exemplars))
        .routes(routes!(tail::tail))
        .routes(routes!(agents::agents))
        .routes(routes!(alerts::alerts))
        .routes(routes!(alerts::ack))
        .routes(routes!(alerts::silence))
        .routes(routes!(alerts::resolve))
        .routes(routes!(alerts::test))
        .routes(routes!(alerts::announce))
        .routes(routes!(alerts::end_maintenance))
        .routes(routes!(guards::guards))
        .routes(routes!(events::events))
        .routes(routes!(audit::audit))
        .routes(routes!(flags::flags))
        .routes(routes!(flags::set_flag))
        .routes(routes!(flags::assignment))
        .routes(routes!(control::revoke))
        .routes(routes!(control::restore))
        .routes(routes!(control::reload_tokens))
        .routes(routes!(control::reload_certificates))
        .routes(routes!(canary::status))
        .routes(routes!(canary::start))
        .routes(routes!(canary::progress))
        .routes(routes!(canary::abort))
        .routes(routes!(canary::kill))
        .routes(routes!(canary::release))
        .routes(routes!(canary::decisions::decisions))
        .routes(routes!(canary::decisions::decision))
        .routes(routes!(canary::decisions::plan))
        .routes(routes!(canary::decisions::replay))
        .routes(routes!(sign_in::sign_in_page, sign_in::sign_in))
        .routes(routes!(sign_in::sign_out))
        .routes(routes!(docs::openapi))
        .routes(routes!(docs::docs))
}

/// Refuses bodies too large, ends what takes too long, and marks every answer as of this moment.
async fn deadline(request: Request, next: Next) -> Response {
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > HTTP_BODY_BYTES_MAX) {
        return Problem::too_large(HTTP_BODY_BYTES_MAX).into_response();
    }
    let answer = tokio::time::timeout(DEADLINE, next.run(request)).await;
    let mut response = answer.unwrap_or_else(|_| {
        let detail = format!("no answer within {} s: ask for less", DEADLINE.as_secs());
        Problem::unavailable(detail).into_response()
    });
    let headers = response.headers_mut();
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
