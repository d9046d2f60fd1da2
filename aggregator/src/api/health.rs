//! `/livez`, `/readyz`, `/health`.

use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use lens_model::UnixNanos;
use serde::Serialize;
use utoipa::ToSchema;

use super::params::Params;
use super::{Api, Problem};
use crate::judge::Health;

/// 2020-01-01: a clock before it was never set.
const CLOCK_SANE_FROM: UnixNanos = UnixNanos(1_577_836_800_000_000_000);

/// That the process runs.
#[derive(Serialize, ToSchema)]
pub(super) struct Alive {
    /// Always `true`.
    alive: bool,
    /// How long it runs, seconds.
    uptime_s: f64,
}

/// Whether agents and questions are taken.
#[derive(Serialize, ToSchema)]
pub(super) struct Ready {
    /// Whether they are.
    ready: bool,
    /// Why not.
    #[schema(example = json!(["the listener for agents is not up"]))]
    reasons: Vec<String>,
    /// What could not be taken up while it runs, such as renewed certificates; what was in force
    /// still is, so that this alone does not make it unready.
    #[schema(example = json!({"tokens": "/etc/lens/tokens: mode 644 lets others read or change it: chmod 600 it"}))]
    problems: std::collections::BTreeMap<&'static str, String>,
}

/// Whether the process runs
///
/// Always 200 while it can answer at all. A probe that restarts a process asks this one.
#[utoipa::path(get, path = "/livez", tag = "health",
    responses((status = 200, description = "It runs", body = Alive)))]
pub(super) async fn livez(State(api): State<Api>) -> Json<Alive> {
    let uptime_s = api.state.now().since(api.state.started).as_secs_f64();
    Json(Alive { alive: true, uptime_s })
}

/// Whether agents and questions are taken
///
/// A probe that routes traffic asks this one. Before the listener for agents is up, while the
/// store is not open, while shutting down and under a clock that was never set the answer is 503
/// with the reasons.
#[utoipa::path(get, path = "/readyz", tag = "health",
    responses(
        (status = 200, description = "They are", body = Ready),
        (status = 503, description = "They are not", body = Ready,
            example = json!({"ready": false, "reasons": ["the listener for agents is not up"], "problems": {}})),
    ))]
pub(super) async fn readyz(State(api): State<Api>) -> Response {
    let checks = [
        (api.state.listening.load(Ordering::Relaxed), "the listener for agents is not up"),
        (!api.state.draining.load(Ordering::Relaxed), "shutting down"),
        (api.state.now() >= CLOCK_SANE_FROM, "the clock is before 2020"),
    ];
    let mut reasons: Vec<String> =
        checks.iter().filter(|(good, _)| !good).map(|(_, reason)| (*reason).into()).collect();
    reasons.extend(api.state.faulted().map(|why| format!("nothing is taken in: {why}")));
    let ready = reasons.is_empty();
    let mut problems = api.state.security.troubles.all();
    problems.extend(
        api.state
            .alerts
            .trouble()
            .map(|(_, why)| ("alerts", format!("in memory until the disk takes them: {why}"))),
    );
    if !api.state.security.gate.is_open() {
        // Anyone may ask; what is wrong with a file is for those who run it.
        problems.values_mut().for_each(|what| *what = "see the log".into());
    }
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Ready { ready, reasons, problems })).into_response()
}

/// What the data says
///
/// A slice is healthy when at least one of its series has an `ok` tail verdict, none breaks a rule
/// and none is silent. Slices without a decided verdict stand under `insufficient_data`. With no
/// slice proven well the status is `degraded`: nothing fed is never healthy.
#[utoipa::path(get, path = "/health", tag = "health",
    responses(
        (status = 200, description = "The health of the whole; `status` says which", body = Health),
        (status = 400, description = "A parameter was given", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn health(
    State(api): State<Api>,
    params: Params,
) -> Result<Json<Health>, Problem> {
    params.only(&[])?;
    api.work(|_, live| Json(live.snapshot().health.clone())).await
}
