//! `/api/v1/agents`.

use axum::Json;
use axum::extract::State;
use lens_model::UnixNanos;
use serde::Serialize;
use utoipa::ToSchema;

use super::params::Params;
use super::{Api, Problem};
use crate::snapshot::{Agent, rfc3339};

/// Every agent that ever connected.
#[derive(Serialize, ToSchema)]
pub(super) struct AgentsAnswer {
    /// The instant it is as of.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    t: UnixNanos,
    /// How many of them are connected now.
    connected: usize,
    /// The agents, by name.
    agents: Vec<Agent>,
}

/// Agents
///
/// Identity, version, lag, clock offset and what was taken from or refused to each of them.
#[utoipa::path(get, path = "/api/v1/agents", tag = "data",
    responses(
        (status = 200, description = "The agents", body = AgentsAnswer),
        (status = 400, description = "A parameter was given", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn agents(
    State(api): State<Api>,
    params: Params,
) -> Result<Json<AgentsAnswer>, Problem> {
    params.only(&[])?;
    api.work(|_, live| {
        let snapshot = live.snapshot();
        Json(AgentsAnswer {
            t: snapshot.t,
            connected: snapshot.totals.agents_connected,
            agents: snapshot.agents.clone(),
        })
    })
    .await
}
