//! `/flags` and `/canary/assignment`: what is decided, and for whom.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, Path, State};
use lens_flags::{Control, Measured, Path as Setting, Rollback, Value};
use lens_model::{Arm, Flag, UnixNanos};
use lens_service::time::{parse_rfc3339, rfc3339};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value as Tree, json};
use utoipa::ToSchema;

use super::params::Params;
use super::sign_in::body;
use super::{Api, Problem};
use crate::auth::token::hex;
use crate::auth::{Principal, Verb};
use crate::flags::{FlagsError, Status, Told};

/// Rollbacks shown.
const ROLLBACKS_SHOWN: usize = 10;

/// Longest user id asked about, bytes.
const USER_BYTES_MAX: usize = 512;

/// Everything decided.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct FlagsAnswer {
    /// The instant it is as of.
    #[schema(format = DateTime, example = "2026-11-21T19:40:20Z")]
    t: String,
    /// Grows with every change; agents say which they have in force.
    generation: u64,
    /// The tree of settings, overrides included.
    #[schema(value_type = Object, example = json!({"stageB": {"enabled": false}}))]
    config: Tree,
    /// Flags that are on now, for nobody in particular, after kill switch, emergency and safety.
    #[schema(value_type = Object, example = json!({"qualityGating": true}))]
    enabled: BTreeMap<&'static str, bool>,
    /// Overrides in force, by setting.
    #[schema(value_type = Object)]
    overrides: Tree,
    /// What was measured of flags, by setting.
    #[schema(value_type = Object)]
    metrics: Tree,
    /// The last flags taken back, oldest first.
    #[schema(value_type = Vec<Object>)]
    rollback_history: Vec<Tree>,
    /// The experiment that is on, if one is.
    active_experiment: Option<String>,
    /// The rollout under way, if one is.
    #[schema(value_type = Option<Object>)]
    rollout: Option<Tree>,
    /// The kill switch, while it is engaged.
    #[schema(value_type = Option<Object>)]
    killed: Option<Tree>,
    /// The emergency, while there is one.
    #[schema(value_type = Option<Object>)]
    emergency: Option<Tree>,
    /// When what agents were told ends unless they are told anew.
    #[schema(format = DateTime)]
    expires_at: String,
    /// The public key that agents verify with, hex.
    control_key: String,
    /// Why the last change is not durable yet; `null` when it is.
    undurable: Option<String>,
}

/// What a setting is to hold.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// The value; `null` lets the setting hold its own again.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Object>, example = true)]
    value: Option<Option<Value>>,
    /// Why.
    #[serde(default)]
    #[schema(example = "ticket 4711: lower tail on large repositories")]
    reason: String,
    /// Until when; left out, until it is set back.
    #[serde(default)]
    #[schema(format = DateTime, example = "2026-12-01T00:00:00Z")]
    expires_at: Option<String>,
}

/// What came of it.
#[derive(Serialize, ToSchema)]
pub(super) struct Set {
    /// The setting.
    #[schema(example = "stageB.lruCaching")]
    path: &'static str,
    /// What it holds now.
    #[schema(value_type = Object, example = true)]
    value: Value,
    /// The generation that carries it.
    generation: u64,
    /// Whether that changed anything.
    changed: bool,
    /// Number of its record in the audit chain.
    audit: u64,
}

/// Whom a user belongs to.
#[derive(Serialize, ToSchema)]
pub(super) struct AssignmentAnswer {
    /// The user asked about.
    #[schema(example = "user-42")]
    user: String,
    /// `baseline` or `canary`.
    #[schema(example = "baseline")]
    arm: &'static str,
    /// The version of that arm: the one rolled out, or `null` for the baseline.
    version: Option<String>,
    /// The generation it is as of.
    generation: u64,
    /// Decides which users.
    salt: u32,
    /// The share of everyone that is in the canary now, percent.
    share_percent: f64,
}

/// A field that was given, `null` included.
fn given<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<Value>>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// The tree of settings, groups nested.
fn tree(control: &Control, now: UnixNanos) -> Tree {
    let mut root = Map::new();
    for path in Setting::all() {
        let value = json!(control.value(path, now));
        match path.as_str().split_once('.') {
            None => drop(root.insert(path.to_string(), value)),
            Some((group, name)) => {
                let group = root.entry(group).or_insert_with(|| json!({}));
                if let Some(group) = group.as_object_mut() {
                    group.insert(name.into(), value);
                }
            }
        }
    }
    Tree::Object(root)
}

fn measured(path: Setting, measured: &Measured, control: &Control, now: UnixNanos) -> Tree {
    json!({
        "flagName": path,
        "enabled": control.is_path_enabled(path.as_str(), None, now),
        "usageCount": measured.samples,
        "lastUsed": measured.last.map(rfc3339),
        "performanceImpact": {
            "avgLatencyMs": measured.latency_ms,
            "errorRate": measured.error_rate,
            "qualityScore": measured.quality,
        },
        "rollbackEvents": measured.rollbacks,
    })
}

fn rollback(rollback: &Rollback) -> Tree {
    json!({
        "flagName": rollback.flag,
        "reason": rollback.reason,
        "timestamp": rfc3339(rollback.at),
        "metrics": rollback.measured.map(|m| json!({
            "avgLatencyMs": m.latency_ms, "errorRate": m.error_rate, "qualityScore": m.quality,
        })),
    })
}

fn overrides(control: &Control, now: UnixNanos) -> Tree {
    let shown = control.overrides(now).map(|(path, held)| {
        let shown = json!({
            "flagName": path,
            "value": held.value,
            "reason": held.reason,
            "expiresAt": held.expires_at.map(rfc3339),
            "by": held.by,
            "automatic": held.automatic,
        });
        (path.to_string(), shown)
    });
    Tree::Object(shown.collect())
}

fn answer(status: &Status, control_key: String, now: UnixNanos) -> FlagsAnswer {
    let control = &status.control;
    let each = |(path, found): (&Setting, &Measured)| {
        (path.to_string(), measured(*path, found, control, now))
    };
    let skipped = control.history().len().saturating_sub(ROLLBACKS_SHOWN);
    let experiment = control.is_enabled(Flag::AbTestingEnabled, None, now);
    FlagsAnswer {
        t: rfc3339(now),
        generation: status.generation,
        config: tree(control, now),
        enabled: Flag::ALL
            .into_iter()
            .map(|flag| (flag.path(), control.is_enabled(flag, None, now)))
            .collect(),
        overrides: overrides(control, now),
        metrics: Tree::Object(control.measured().iter().map(each).collect()),
        rollback_history: control.history().iter().skip(skipped).map(rollback).collect(),
        active_experiment: experiment
            .then(|| control.value(Setting::AbExperimentId, now).to_string()),
        rollout: control.rollout().map(|rollout| {
            json!({
                "version": rollout.version,
                "salt": rollout.salt,
                "share_percent": rollout.share.as_percent(),
            })
        }),
        killed: control.killed().map(
            |killed| json!({"reason": killed.reason, "by": killed.by, "at": rfc3339(killed.at)}),
        ),
        emergency: control
            .emergency()
            .map(|emergency| json!({"reason": emergency.reason, "at": rfc3339(emergency.at)})),
        expires_at: rfc3339(status.document.expires_at),
        control_key,
        undurable: status.undurable.clone(),
    }
}

/// Flags
///
/// Every setting with what it holds, why, and what was measured of it.
#[utoipa::path(get, path = "/flags", tag = "control",
    responses(
        (status = 200, description = "Everything decided", body = FlagsAnswer),
        (status = 400, description = "A parameter was given", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn flags(
    State(api): State<Api>,
    params: Params,
) -> Result<Json<FlagsAnswer>, Problem> {
    params.only(&[])?;
    let flags = &api.state.flags;
    let key = hex(flags.public_key().as_bytes());
    Ok(Json(answer(&flags.status(), key, api.state.now())))
}

fn failed(error: FlagsError) -> Problem {
    match error {
        FlagsError::Control(lens_flags::ControlError::Elsewhere { .. }) => {
            Problem::conflict(error.to_string())
        }
        FlagsError::Control(error) => Problem::bad_body(error.to_string()),
        FlagsError::Percent(error) => Problem::bad_body(error.to_string()),
        error => Problem::unavailable(format!("recorded and not done: {error}")),
    }
}

fn until(wanted: &Wanted, now: UnixNanos) -> Result<Option<UnixNanos>, Problem> {
    let Some(text) = &wanted.expires_at else { return Ok(None) };
    let end = parse_rfc3339(text)
        .ok_or_else(|| Problem::bad_body("expires_at is no RFC 3339 time".to_owned()))?;
    let past = || Problem::bad_body(lens_flags::ControlError::Expired.to_string());
    if end > now { Ok(Some(end)) } else { Err(past()) }
}

/// Set a flag
///
/// An override with a reason, until it expires or is set to `null`. It is recorded, made durable,
/// and told to every agent. The canary's share and the kill switch have endpoints of their own.
/// Role: releaser.
#[utoipa::path(put, path = "/flags/{path}", tag = "control",
    params(("path" = String, Path, description = "The setting", example = "stageB.lruCaching")),
    request_body(content = Wanted),
    responses(
        (status = 200, description = "It holds", body = Set),
        (status = 400, description = "No such value, or no reason", body = Problem,
            content_type = "application/problem+json"),
        (status = 403, description = "Not the role", body = Problem,
            content_type = "application/problem+json"),
        (status = 404, description = "No such setting; the nearest is named", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "Not set by hand, or no audit record is configured",
            body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "It could not be made durable", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn set_flag(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
    Path(path): Path<String>,
    bytes: Bytes,
) -> Result<Json<Set>, Problem> {
    let setting = Setting::parse(&path);
    let setting = setting.map_err(|error| Problem::no_such("setting", error.to_string()))?;
    let wanted: Wanted = body(&bytes)?;
    let Some(value) = wanted.value.clone() else {
        return Err(Problem::bad_body("value is missing: give one, or null".to_owned()));
    };
    let expires_at = until(&wanted, api.state.now())?;
    let flags = &api.state.flags;
    if let Some(value) = &value {
        // What cannot be is refused before it stands in the record as done.
        let mut probe = flags.status().control;
        let tried = probe.set_override(
            setting,
            value.clone(),
            &wanted.reason,
            expires_at,
            &principal.name,
            api.state.now(),
        );
        tried.map_err(|error| failed(error.into()))?;
    }
    let receipt = api.record(&principal, Verb::FlagSet, setting.as_str(), &bytes).await?;
    let told = match value {
        Some(value) => {
            let by = &principal.name;
            flags.set_override(setting, value, &wanted.reason, expires_at, by).await
        }
        None if setting == Setting::EmergencyDisable => flags.clear_emergency().await,
        None => flags.remove_override(setting).await,
    };
    let Told { generation, changed, .. } = told.map_err(failed)?;
    let value = flags.status().control.value(setting, api.state.now());
    if changed {
        let message = format!("{setting} is {value}, by {}: {}", principal.name, wanted.reason);
        api.state.tell("flag", setting.as_str(), message);
    }
    Ok(Json(Set { path: setting.as_str(), value, generation, changed, audit: receipt.number() }))
}

/// Assignment
///
/// Which arm a user belongs to now: the same answer as on every node and proxy.
#[utoipa::path(get, path = "/canary/assignment", tag = "control",
    params(("user" = Option<String>, Query, description = "User, session or request id; `anonymous` when left out", example = "user-42")),
    responses(
        (status = 200, description = "The arm", body = AssignmentAnswer),
        (status = 400, description = "An unknown parameter", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn assignment(
    State(api): State<Api>,
    params: Params,
) -> Result<Json<AssignmentAnswer>, Problem> {
    params.only(&["user"])?;
    let user = params.one("user")?.unwrap_or("anonymous");
    if user.len() > USER_BYTES_MAX {
        let detail = format!("longer than {USER_BYTES_MAX} bytes");
        return Err(Problem::bad_parameter("user", detail));
    }
    let status = api.state.flags.status();
    let assignment = status.document.assignment;
    let arm = assignment.arm(user);
    let version = (arm == Arm::Canary).then_some(status.document.version);
    Ok(Json(AssignmentAnswer {
        user: user.to_owned(),
        arm: arm.as_str(),
        version,
        generation: status.generation,
        salt: assignment.salt,
        share_percent: assignment.effective().as_percent(),
    }))
}
