//! Verbs of administration: keep an agent out, let it in again, take up tokens and certificates.
//!
//! Each is recorded, durably, before anything happens.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, Path, State};
use lens_model::AgentName;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::sign_in::body;
use super::{Api, Problem};
use crate::audit::{AuditError, Decision, Entry, Receipt};
use crate::auth::{Principal, Verb};
use crate::security::RevocationError;

/// What may be said with a verb.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Said {
    /// Why, for those who read the record; only its digest is kept there.
    #[serde(default)]
    #[schema(example = "host was stolen")]
    #[allow(dead_code, reason = "part of the request's bytes, whose digest is recorded")]
    reason: Option<String>,
}

/// That it was done.
#[derive(Serialize, ToSchema)]
pub(super) struct Done {
    /// What was done.
    #[schema(example = "agent.revoke")]
    verb: &'static str,
    /// To what.
    #[schema(example = "host-7")]
    target: String,
    /// Number of its record in the audit chain.
    audit: u64,
}

impl Api {
    /// Records what is about to be done; without a receipt it must not be.
    pub(super) async fn record(
        &self,
        principal: &Principal,
        verb: Verb,
        target: &str,
        arguments: &[u8],
    ) -> Result<Receipt, Problem> {
        let entry = Entry {
            principal: principal.name.clone(),
            credential: principal.credential.clone(),
            role: principal.role_names(),
            verb: verb.as_str().into(),
            target: target.into(),
            arguments: arguments.to_vec(),
            decision: Decision::Allowed,
        };
        self.state.security.audit.record(entry).await.map_err(|error| match error {
            AuditError::Off => Problem::conflict(error.to_string()),
            error => Problem::unavailable(format!("not recorded, so not done: {error}")),
        })
    }
}

async fn set(
    api: &Api,
    principal: &Principal,
    verb: Verb,
    name: &str,
    bytes: &[u8],
) -> Result<Json<Done>, Problem> {
    let agent = AgentName::new(name);
    let agent = agent.map_err(|error| Problem::bad_parameter("name", error.to_string()))?;
    let _: Said = body(bytes)?;
    let revocations = &api.state.security.revocations;
    if !revocations.is_set() {
        return Err(Problem::conflict(RevocationError::Unset.to_string()));
    }
    let receipt = api.record(principal, verb, agent.as_str(), bytes).await?;
    let out = verb == Verb::AgentRevoke;
    let set = revocations.set(&api.state.env, &agent, out, receipt).await;
    set.map_err(|error| Problem::unavailable(format!("recorded and not done: {error}")))?;
    let told = if out { "kept out" } else { "let in again" };
    let message = format!("agent {agent} is {told}, by {}", principal.name);
    api.state.tell("agent", agent.as_str(), message);
    Ok(done(verb, agent.as_str(), receipt))
}

fn done(verb: Verb, target: &str, receipt: Receipt) -> Json<Done> {
    Json(Done { verb: verb.as_str(), target: target.into(), audit: receipt.number() })
}

/// Keep an agent out
///
/// Its connections are closed at once and new ones refused, whatever certificate it holds. Kept in
/// the file `identity.revoked`. Role: admin.
#[utoipa::path(post, path = "/api/v1/agents/{name}/revoke", tag = "control",
    params(("name" = String, Path, description = "The agent's name", example = "host-7")),
    request_body(content = Option<Said>, description = "May be left out"),
    responses(
        (status = 200, description = "It is kept out", body = Done),
        (status = 403, description = "Not the role", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "No file, or no audit record, is configured", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn revoke(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
    Path(name): Path<String>,
    bytes: Bytes,
) -> Result<Json<Done>, Problem> {
    set(&api, &principal, Verb::AgentRevoke, &name, &bytes).await
}

/// Let an agent in again
///
/// Takes its name off the list; a serial number on it stays. Role: admin.
#[utoipa::path(post, path = "/api/v1/agents/{name}/restore", tag = "control",
    params(("name" = String, Path, description = "The agent's name", example = "host-7")),
    request_body(content = Option<Said>, description = "May be left out"),
    responses(
        (status = 200, description = "It may come in", body = Done),
        (status = 403, description = "Not the role", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "No file, or no audit record, is configured", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn restore(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
    Path(name): Path<String>,
    bytes: Bytes,
) -> Result<Json<Done>, Problem> {
    set(&api, &principal, Verb::AgentRestore, &name, &bytes).await
}

/// Take up the token file
///
/// As SIGHUP and a change of the file do; a file that cannot be taken leaves the tokens that were.
/// Role: admin.
#[utoipa::path(post, path = "/api/v1/tokens/reload", tag = "control",
    request_body(content = Option<Said>, description = "May be left out"),
    responses(
        (status = 200, description = "Taken up", body = Done),
        (status = 403, description = "Not the role", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "The file cannot be taken", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn reload_tokens(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
    bytes: Bytes,
) -> Result<Json<Done>, Problem> {
    let _: Said = body(&bytes)?;
    let receipt = api.record(&principal, Verb::TokensReload, "tokens", &bytes).await?;
    let reload = crate::reload::tokens(&api.state).await;
    reload.map_err(Problem::conflict)?;
    Ok(done(Verb::TokensReload, "tokens", receipt))
}

/// Take up renewed certificates
///
/// As SIGHUP and a change of the files do; connections that stand keep theirs until they are
/// renewed, at `quic.connection_age_max_s` at the latest. Role: admin.
#[utoipa::path(post, path = "/api/v1/certificates/reload", tag = "control",
    request_body(content = Option<Said>, description = "May be left out"),
    responses(
        (status = 200, description = "Taken up", body = Done),
        (status = 403, description = "Not the role", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "They cannot be taken; the old ones stay", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn reload_certificates(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
    bytes: Bytes,
) -> Result<Json<Done>, Problem> {
    let _: Said = body(&bytes)?;
    let verb = Verb::CertificatesReload;
    let receipt = api.record(&principal, verb, "certificates", &bytes).await?;
    crate::reload::certificates(&api.state).await.map_err(Problem::conflict)?;
    Ok(done(verb, "certificates", receipt))
}
