//! `/canary`: where the rollout stands, why, and what people do about it.
//!
//! What is done in an emergency needs no body and no header. The kill switch acts first and is
//! recorded in the same breath; everything else is recorded first, where there is a record. A refusal
//! for want of evidence is 409 with everything that stands in the way.

pub(super) mod decisions;
mod refusal;
mod status;

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use lens_model::UnixNanos;
use lens_model::limits::NAME_BYTES_MAX;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::params::Params;
use super::sign_in::body;
use super::{Api, Problem};
use crate::audit::{Decision, Entry};
use crate::auth::{Principal, Verb};
use crate::canary::controller::REASON_BYTES_MAX;
use crate::canary::live::{self, Cannot, Released};
use crate::canary::{Live, settle};
use crate::snapshot::rfc3339;
use crate::state;
use refusal::Refusal;

/// Reason of a kill that names none.
const KILL_REASON: &str = "Manual kill switch activation";

/// Reason of an abort that names none.
const ABORT_REASON: &str = "aborted by hand";

/// Which version to begin with.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Start {
    /// The version under test, 1 to 128 bytes.
    #[schema(example = "1.5.0-rc.1")]
    version: String,
    /// What chooses its users; a fresh one when absent, so that they are others than last time.
    #[schema(example = "autumn")]
    salt: Option<String>,
}

/// Why.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Why {
    /// In a sentence, for those who read it later.
    #[schema(example = "searches return nothing")]
    reason: Option<String>,
}

/// Who agrees to a release.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Release {
    /// Names, where everyone may act. Where callers are known, each agrees by asking; only their own
    /// name may stand here.
    #[schema(example = json!(["ann", "bob"]))]
    approvals: Vec<String>,
}

/// Where the rollout stands.
#[derive(Serialize, ToSchema)]
pub(super) struct StatusAnswer {
    /// Whether there is an answer.
    success: bool,
    /// The rollout: `trafficPercentage` is the step's share, `share_percent` what is routed now.
    #[schema(value_type = Object, example = json!({"trafficPercentage": 25.0, "share_percent": 25.0,
        "killSwitchEnabled": true, "progressiveRollout": true, "nextStage": "100%", "phase": "step",
        "stageFlags": {"stageA_native_scanner": false, "stageB_enabled": false,
            "stageC_enabled": false}, "rollbackHistory": [], "version": "1.5.0-rc.1",
        "dwell_remaining_s": 120.0, "blockers": [], "generation": 7}))]
    canary_deployment: Value,
    /// The instant it is as of.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    timestamp: UnixNanos,
    /// How long the answer took, milliseconds.
    #[schema(example = 0.4)]
    latency_ms: f64,
}

/// That it was done.
#[derive(Serialize, ToSchema)]
pub(super) struct Done {
    /// That it was.
    success: bool,
    /// In a sentence.
    #[schema(example = "the canary is at 25 % now")]
    message: String,
    /// What more is to be said, by name: `new_percentage` and `stage` of a progress, `reason` and
    /// `traffic_percentage` of a kill, `version` and `salt` of a start, `approvals` of a release.
    #[serde(flatten)]
    #[schema(value_type = Object, example = json!({"new_percentage": 25.0, "stage": "medium"}))]
    more: Value,
    /// How long it took, milliseconds.
    #[schema(example = 3.1)]
    latency_ms: f64,
}

fn done(begun: Instant, message: impl Into<String>, more: Value) -> Response {
    let latency_ms = begun.elapsed().as_secs_f64() * 1e3;
    Json(Done { success: true, message: message.into(), more, latency_ms }).into_response()
}

/// Runs what takes the rollout's lock or the disk, off the threads that serve the network.
async fn with<T: Send + 'static>(
    shared: &Arc<state::State>,
    act: impl FnOnce(&Live, &state::State) -> T + Send + 'static,
) -> Result<T, Problem> {
    let held = Arc::clone(shared);
    let done = shared.env.blocking(move || act(&held.canary, &held)).await;
    done.map_err(|_| Problem::internal("the command could not be worked on").with_success())
}

async fn refused(api: &Api, cannot: Cannot) -> Response {
    let standing = with(&api.state, |live, _| live.look(|book, _| status::standing(book))).await;
    Refusal::of(cannot, standing.unwrap_or_default()).into_response()
}

/// Who acts, recorded first where there is a record.
async fn actor(
    api: &Api,
    principal: &Principal,
    verb: Verb,
    target: &str,
    bytes: &[u8],
) -> Result<String, Problem> {
    let by = api.actor(principal, verb, target, bytes, None).await;
    by.map_err(Problem::with_success)
}

/// Where the rollout stands
///
/// With the evidence of both arms, what stands in the way of the next step, how long it must still
/// last, and what was taken back, the newest first.
#[utoipa::path(get, path = "/canary/status", tag = "canary",
    responses(
        (status = 200, description = "The rollout", body = StatusAnswer),
        (status = 400, description = "A parameter was given", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn status(
    State(api): State<Api>,
    params: Params,
) -> Result<Json<StatusAnswer>, Problem> {
    let begun = Instant::now();
    params.only(&[]).map_err(Problem::with_success)?;
    let canary_deployment = with(&api.state, status::status).await?;
    Ok(Json(StatusAnswer {
        success: true,
        canary_deployment,
        timestamp: api.state.now(),
        latency_ms: begun.elapsed().as_secs_f64() * 1e3,
    }))
}

/// Begin a rollout
///
/// At the first step of the configured plan. The windows of the last hour are its history. Role:
/// releaser.
#[utoipa::path(post, path = "/canary/start", tag = "canary",
    request_body(content = Start, description = "Which version"),
    responses(
        (status = 200, description = "It began", body = Done),
        (status = 400, description = "No version, or none that can be used", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "One is under way, or the kill switch is on", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn start(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
    bytes: Bytes,
) -> Result<Response, Problem> {
    let begun = Instant::now();
    let said: Start = body(&bytes).map_err(Problem::with_success)?;
    for (name, text) in [("version", Some(&said.version)), ("salt", said.salt.as_ref())] {
        let Some(text) = text else { continue };
        if !(1..=NAME_BYTES_MAX).contains(&text.len()) || text.chars().any(char::is_control) {
            let detail = format!(
                "{name} is {} bytes long: use 1 to {NAME_BYTES_MAX} without control characters, \
                 as {{\"version\":\"1.5.0\"}}",
                text.len()
            );
            return Err(Problem::bad_body(detail).with_success());
        }
    }
    let by = actor(&api, &principal, Verb::CanaryStart, &said.version, &bytes).await?;
    let Start { version, salt } = said;
    let started = with(&api.state, move |live, shared| {
        live.start(shared, &version, salt, &by)?;
        Ok(live.look(|book, _| {
            let rollout = book.rollout.as_ref();
            let of = |part: fn(&crate::canary::book::Rollout) -> &str| rollout.map(part);
            json!({"version": of(|r| &r.version), "salt": of(|r| &r.salt),
                "new_percentage": book.nominal(), "stage": book.stage()})
        }))
    });
    match started.await? {
        Err(cannot) => Ok(refused(&api, cannot).await),
        Ok(more) => {
            settle(&api.state).await;
            let message = format!("the rollout began, at {} %", more["new_percentage"]);
            Ok(done(begun, message, more))
        }
    }
}

/// Go to the next step now
///
/// Only where everything that must be shown is. The controller does so by itself; a person is needed
/// once a step has lasted too long. Role: releaser.
#[utoipa::path(post, path = "/canary/progress", tag = "canary",
    request_body(content = Option<Why>, description = "Not looked at"),
    responses(
        (status = 200, description = "It did", body = Done),
        (status = 400, description = "No rollout is under way", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "Evidence is missing: `blockers` has what", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn progress(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
    bytes: Bytes,
) -> Result<Response, Problem> {
    let begun = Instant::now();
    let by = actor(&api, &principal, Verb::CanaryProgress, "canary", &bytes).await?;
    let moved = with(&api.state, move |live, shared| {
        live.progress(shared, &by)?;
        Ok(live.look(|book, _| json!({"new_percentage": book.nominal(), "stage": book.stage()})))
    });
    match moved.await? {
        Err(cannot) => Ok(refused(&api, cannot).await),
        Ok(more) => {
            settle(&api.state).await;
            let message = format!("the canary is at {} % now", more["new_percentage"]);
            Ok(done(begun, message, more))
        }
    }
}

/// End the rollout
///
/// The canary gets no more traffic. Role: releaser.
#[utoipa::path(post, path = "/canary/abort", tag = "canary",
    request_body(content = Option<Why>, description = "May be left out"),
    responses(
        (status = 200, description = "It ended", body = Done),
        (status = 400, description = "None is under way", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn abort(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
    bytes: Bytes,
) -> Result<Response, Problem> {
    let begun = Instant::now();
    let said: Why = body(&bytes).map_err(Problem::with_success)?;
    let by = actor(&api, &principal, Verb::CanaryAbort, "canary", &bytes).await?;
    let reason = said.reason.unwrap_or_else(|| ABORT_REASON.into());
    let more = json!({"reason": reason, "traffic_percentage": 0});
    let ended = with(&api.state, move |live, shared| live.abort(shared, &reason, &by)).await?;
    if let Err(cannot) = ended {
        return Ok(refused(&api, cannot).await);
    }
    settle(&api.state).await;
    Ok(done(begun, "the rollout was ended", more))
}

/// Turn everything off
///
/// Works with no body and no content type, and acts before it is recorded. The canary gets nothing,
/// the stages' flags are off, and no rollout begins before two people released the switch. Role:
/// breakglass.
#[utoipa::path(post, path = "/canary/killswitch", tag = "canary",
    request_body(content = Option<Why>, description = "May be left out"),
    responses((status = 200, description = "It is off", body = Done)))]
pub(super) async fn kill(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
    bytes: Bytes,
) -> Result<Response, Problem> {
    let begun = Instant::now();
    // A body that is none of ours must not be in the way.
    let said: Why = body(&bytes).unwrap_or_default();
    let reason = said.reason.filter(|reason| !reason.trim().is_empty());
    let reason: String = reason
        .map_or_else(|| KILL_REASON.into(), |r| r.chars().take(REASON_BYTES_MAX / 4).collect());
    let entry = Entry {
        principal: principal.name.clone(),
        credential: principal.credential.clone(),
        role: principal.role_names(),
        verb: Verb::KillEngage.as_str().into(),
        target: "canary".into(),
        arguments: bytes.to_vec(),
        decision: Decision::Done,
    };
    let (why, by) = (reason.clone(), principal.name.clone());
    let act = live::kill(&api.state, why, &by);
    let (killed, recorded) = if api.state.security.audit.is_on() {
        let (killed, recorded) = api.state.security.audit.act_first(entry, act).await;
        (killed, recorded.err().map(|error| error.to_string()))
    } else {
        (act.await, None)
    };
    let trouble: Vec<String> = killed.into_iter().chain(recorded).collect();
    let more = json!({"reason": reason, "traffic_percentage": 0, "trouble": trouble,
        "generation": api.state.canary.stand().generation});
    Ok(done(begun, "the kill switch is on: the canary gets no traffic", more))
}

/// Release the kill switch
///
/// Two different people must agree within a quarter of an hour. Where callers are known each agrees
/// by asking, and the answer is 202 until the second did. No share comes back by itself. Role:
/// breakglass or releaser.
#[utoipa::path(post, path = "/canary/release-kill", tag = "canary",
    request_body(content = Option<Release>, description = "Who agrees, where everyone may act"),
    responses(
        (status = 200, description = "Rollouts may begin again", body = Done),
        (status = 202, description = "One more person must agree", body = Done),
        (status = 400, description = "Names that cannot be used", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "The switch is not on", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn release(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
    bytes: Bytes,
) -> Result<Response, Problem> {
    let begun = Instant::now();
    let said: Release = body(&bytes).map_err(Problem::with_success)?;
    let people = agreeing(&api, &principal, said.approvals)?;
    actor(&api, &principal, Verb::KillRelease, "canary", &bytes).await?;
    match live::release(&api.state, people).await {
        Err(cannot) => Ok(refused(&api, cannot).await),
        Ok(Released::Done(approvals)) => {
            settle(&api.state).await;
            let more = json!({"released": true, "approvals": approvals});
            Ok(done(begun, "the kill switch is off: a rollout may begin", more))
        }
        Ok(Released::Waiting(approvals)) => {
            let more = json!({"released": false, "approvals": approvals});
            let message = "one more person must agree within a quarter of an hour";
            Ok((StatusCode::ACCEPTED, done(begun, message, more)).into_response())
        }
    }
}

/// Who agrees: those named where everyone may act, the caller elsewhere.
fn agreeing(api: &Api, principal: &Principal, named: Vec<String>) -> Result<Vec<String>, Problem> {
    let wrong = |detail: String| Err(Problem::bad_body(detail).with_success());
    if let Some(name) = named.iter().find(|name| !(1..=NAME_BYTES_MAX).contains(&name.len())) {
        return wrong(format!("a name of {} bytes: use 1 to {NAME_BYTES_MAX}", name.len()));
    }
    if named.len() > 16 {
        return wrong(format!("{} names: name two", named.len()));
    }
    if api.state.security.gate.is_open() {
        let usage = "name two different people, as {\"approvals\":[\"ann\",\"bob\"]}";
        return if named.is_empty() { wrong(usage.into()) } else { Ok(named) };
    }
    match named.iter().find(|name| **name != principal.name) {
        Some(other) => wrong(format!(
            "{other:?} must agree with a token or certificate of their own; this one is {:?}",
            principal.name
        )),
        None => Ok(vec![principal.name.clone()]),
    }
}
