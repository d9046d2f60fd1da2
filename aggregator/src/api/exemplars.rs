//! `/api/v1/exemplars`.

use axum::Json;
use axum::extract::State;
use lens_model::limits::ANSWER_EXEMPLARS_MAX;
use lens_model::{Arm, Slice, Stage, UnixNanos};
use serde::Serialize;
use utoipa::ToSchema;

use super::params::Params;
use super::{Api, Problem};
use crate::snapshot::rfc3339;
use crate::state;
use crate::window::{Selection, Span};

/// Slow requests.
#[derive(Serialize, ToSchema)]
pub(super) struct ExemplarsAnswer {
    /// The instant it is as of.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    t: UnixNanos,
    /// Beginning of the span, inclusive.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    from: UnixNanos,
    /// End of the span, exclusive.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    to: UnixNanos,
    /// The requests, slowest first, at most 1,000.
    exemplars: Vec<ExemplarAnswer>,
    /// Why there are none.
    reason: Option<&'static str>,
}

/// One slow request.
#[derive(Serialize, ToSchema)]
pub(super) struct ExemplarAnswer {
    /// When it was recorded.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    t: UnixNanos,
    /// The slice, `repo_type/language/size`.
    #[schema(value_type = String, example = "backend/rust/large")]
    slice: Slice,
    /// The stage.
    #[schema(value_type = String, example = "stage_c")]
    stage: Stage,
    /// The arm.
    #[schema(value_type = String, example = "baseline")]
    arm: Arm,
    /// How long it took, milliseconds; exact, where quantiles are those of a bucket.
    #[schema(example = 412.7)]
    latency_ms: f64,
    /// Its trace, 32 hexadecimal digits, as W3C trace context has it.
    #[schema(example = "4bf92f3577b34da6a3ce929d0e0e4736")]
    trace_id: String,
    /// Its span, 16 hexadecimal digits, where the node named one.
    #[schema(example = "00f067aa0ba902b7")]
    span_id: Option<String>,
    /// The agent that sent it.
    #[schema(example = "host-3")]
    agent: String,
    /// The search node that served it.
    #[schema(example = "node-7")]
    instance: String,
}

/// Slow requests by their traces
///
/// The two slowest of each series, of each half minute of the last 15 minutes, that their node named
/// a trace for. They are examples: what is counted stands in the histograms whether or not it is
/// here, and a restart of the aggregator begins without any.
#[utoipa::path(get, path = "/api/v1/exemplars", tag = "data",
    params(
        ("slice" = Option<String>, Query, description = "Only this slice, `repo_type/language/size`",
            example = "backend/rust/large"),
        ("stage" = Option<String>, Query, description = "Only this stage: `stage_a`, `stage_b`, `stage_c`, `e2e`",
            example = "stage_c"),
        ("arm" = Option<String>, Query, description = "Only this arm: `baseline`, `canary`",
            example = "baseline"),
        ("from" = Option<String>, Query, description = "RFC 3339, Unix seconds or relative; by default 15 minutes before `to`",
            example = "-5m"),
        ("to" = Option<String>, Query, description = "RFC 3339, Unix seconds or relative; by default now", example = "now"),
    ),
    responses(
        (status = 200, description = "The requests", body = ExemplarsAnswer),
        (status = 400, description = "A parameter is wrong", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn exemplars(
    State(api): State<Api>,
    params: Params,
) -> Result<Json<ExemplarsAnswer>, Problem> {
    params.only(&["slice", "stage", "arm", "from", "to"])?;
    let selection = params.selection()?;
    let now = api.state.now();
    let span = params.span(now)?;
    api.work(move |state, _| Json(answer(state, &selection, span, now))).await
}

fn answer(
    state: &state::State,
    selection: &Selection,
    span: Span,
    now: UnixNanos,
) -> ExemplarsAnswer {
    let held = state.exemplars.read();
    let found = held.slowest(selection, span, ANSWER_EXEMPLARS_MAX);
    let reason = if held.is_empty() {
        Some("no node has named a trace in the last 15 minutes")
    } else if found.is_empty() {
        Some("none of what is asked for has a trace; only the last 15 minutes are held")
    } else {
        None
    };
    let exemplars = found.into_iter().map(|(key, held)| ExemplarAnswer {
        t: held.exemplar.at,
        slice: key.slice.clone(),
        stage: key.stage,
        arm: key.arm,
        latency_ms: held.exemplar.seconds() * 1e3,
        trace_id: held.exemplar.trace.id_hex(),
        span_id: held.exemplar.trace.span_hex(),
        agent: held.agent.to_string(),
        instance: held.instance.to_string(),
    });
    ExemplarsAnswer { t: now, from: span.from, to: span.to, exemplars: exemplars.collect(), reason }
}
