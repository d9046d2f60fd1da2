//! `/canary/decisions`: what was decided, whole, and the windows it was decided by, for replays.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::Value;
use tokio_stream::wrappers::ReceiverStream;
use utoipa::ToSchema;

use super::with;
use crate::api::params::Params;
use crate::api::{Api, Problem};
use crate::canary::tape;
use crate::judge::slot::Slot;

/// Decisions of one answer.
const PAGE: usize = 20;

/// Pieces of a replay that wait for a reader.
const PIECES: usize = 4;

/// Decisions, the newest first. Written by hand, so that each stands as it was kept.
#[derive(ToSchema)]
#[allow(dead_code)]
pub(in crate::api) struct DecisionsAnswer {
    /// Whether there is an answer.
    success: bool,
    /// Each with `id`, `word`, `version`, `digest` and the whole `decision`.
    #[schema(value_type = Vec<Object>)]
    decisions: Vec<Value>,
    /// `before` of the next page; `null` at the end.
    #[schema(example = 41)]
    next_before: Option<u64>,
}

fn json(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

fn no_such(id: u64) -> Problem {
    let detail = format!("no decision {id} is kept: GET /canary/decisions lists those that are");
    Problem::no_such("decision", detail).with_success()
}

fn number(id: &str) -> Result<u64, Problem> {
    let wrong = || Problem::bad_parameter("id", "a decision's id is a whole number such as 7");
    id.parse().map_err(|_| wrong().with_success())
}

async fn held(api: &Api, before: u64, most: usize) -> Result<Vec<String>, Problem> {
    let found = with(&api.state, move |live, _| live.decisions(before, most)).await?;
    let found = found.map_err(|error| Problem::unavailable(error.to_string()).with_success())?;
    Ok(found.into_iter().filter_map(|json| String::from_utf8(json).ok()).collect())
}

async fn one(api: &Api, id: &str) -> Result<(String, Value), Problem> {
    let id = number(id)?;
    let found = held(api, id.saturating_add(1), 1).await?.pop().ok_or_else(|| no_such(id))?;
    let value: Value = serde_json::from_str(&found).unwrap_or_default();
    if value["id"] == id { Ok((found, value)) } else { Err(no_such(id)) }
}

/// Decisions
///
/// The newest first, twenty at a time. Each rests on the evidence it carries: counts, statistics,
/// bounds, the rule. `digest` is what the audit record holds of it.
#[utoipa::path(get, path = "/canary/decisions", tag = "canary",
    params(("before" = Option<u64>, Query, example = 41, description = "Only those before this id")),
    responses(
        (status = 200, description = "The decisions", body = DecisionsAnswer),
        (status = 400, description = "A parameter cannot be used", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(in crate::api) async fn decisions(
    State(api): State<Api>,
    params: Params,
) -> Result<Response, Problem> {
    params.only(&["before"]).map_err(Problem::with_success)?;
    let before = params.one("before").map_err(Problem::with_success)?;
    let before = before.map(number).transpose()?.unwrap_or(u64::MAX);
    let decisions = held(&api, before, PAGE).await?;
    let last: Option<Value> = decisions.last().and_then(|kept| serde_json::from_str(kept).ok());
    let next = last.filter(|_| decisions.len() == PAGE).and_then(|last| last["id"].as_u64());
    let next = next.map_or_else(|| "null".into(), |next| next.to_string());
    let all = decisions.join(",");
    Ok(json(format!("{{\"success\":true,\"decisions\":[{all}],\"next_before\":{next}}}")))
}

/// One decision
///
/// As it was written when it was made.
#[utoipa::path(get, path = "/canary/decisions/{id}", tag = "canary",
    params(("id" = String, Path, description = "The decision's id", example = "7")),
    responses(
        (status = 200, description = "The decision", body = Object),
        (status = 404, description = "No such decision", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(in crate::api) async fn decision(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    Ok(json(one(&api, &id).await?.0))
}

/// The plan of a decision
///
/// As `lens replay --canary --plan FILE` takes it.
#[utoipa::path(get, path = "/canary/decisions/{id}/plan", tag = "canary",
    params(("id" = String, Path, description = "The decision's id", example = "7")),
    responses(
        (status = 200, description = "The plan, TOML", body = String, content_type = "text/plain"),
        (status = 404, description = "No such decision, or one of another rollout than the last",
            body = Problem, content_type = "application/problem+json"),
    ))]
pub(in crate::api) async fn plan(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let (_, kept) = one(&api, &id).await?;
    let plan: Option<crate::judge::canary::Plan> =
        serde_json::from_value(kept["plan"].clone()).ok();
    let text = plan.and_then(|plan| toml::to_string(&plan).ok());
    let missing = || Problem::internal("its plan cannot be read").with_success();
    let text = text.ok_or_else(missing)?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response())
}

/// The windows of a decision
///
/// As JSON lines that `lens replay FILE --canary --plan PLAN` takes: all windows the rollout was
/// judged by until then, and its history, with time 0 where it began. The replay decides the same at
/// the same place; where it may not, `replay` of the decision says why.
#[utoipa::path(get, path = "/canary/decisions/{id}/replay", tag = "canary",
    params(("id" = String, Path, description = "The decision's id", example = "7")),
    responses(
        (status = 200, description = "The windows", body = String,
            content_type = "application/x-ndjson"),
        (status = 404, description = "No such decision", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "Its windows are not kept", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(in crate::api) async fn replay(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let (_, kept) = one(&api, &id).await?;
    let whole = |name: &str| kept[name].as_i64().unwrap_or(0);
    let rollout = kept["rollout"].as_u64().unwrap_or(0);
    let began = Slot::of_millis(whole("began_ms"));
    let end = Slot::of_millis(kept["decision"]["t_ms"].as_i64().unwrap_or(0));
    let first = with(&api.state, move |live, _| live.taped(rollout, Slot(i64::MIN))).await?;
    if first.map_or(true, |slots| slots.is_empty()) {
        let detail = "the windows of this decision are not kept any more";
        return Err(Problem::conflict(detail).with_success());
    }
    let (give, take) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(PIECES);
    let live = Arc::clone(&api.state.canary);
    tokio::task::spawn_blocking(move || {
        let mut from = Slot(i64::MIN);
        while let Ok(slots) = live.taped(rollout, from) {
            let Some(last) = slots.last() else { return };
            from = last.slot.next();
            let mut piece = Vec::new();
            let own = slots.iter().filter(|slot| slot.slot < end);
            own.for_each(|slot| tape::lines(slot, began, &mut piece));
            // A reader that is gone needs no more.
            if give.blocking_send(Ok(piece.into())).is_err() || from >= end {
                return;
            }
        }
    });
    let body = Body::from_stream(ReceiverStream::new(take));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}
