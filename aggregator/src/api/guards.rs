//! `/api/v1/guards`.

use axum::Json;
use axum::extract::State;
use lens_model::UnixNanos;
use serde::Serialize;
use utoipa::ToSchema;

use super::params::Params;
use super::{Api, Problem};
use crate::guards::GuardState;
use crate::snapshot::rfc3339;

/// Every guard that is configured.
#[derive(Serialize, ToSchema)]
pub(super) struct GuardsAnswer {
    /// The instant it is as of.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    t: UnixNanos,
    /// Detectors, probes and switches; empty where none is configured.
    guards: Vec<GuardState>,
    /// Why what is known would not outlive a restart, while that is so.
    trouble: Option<String>,
}

/// Guards
///
/// Detectors on quality gauges, sentinel probes and switches, each with how it stands and the numbers
/// behind it. What has no data reads `insufficient_data`.
#[utoipa::path(get, path = "/api/v1/guards", tag = "alerts",
    responses(
        (status = 200, description = "The guards", body = GuardsAnswer),
        (status = 400, description = "A parameter was given", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn guards(
    State(api): State<Api>,
    params: Params,
) -> Result<Json<GuardsAnswer>, Problem> {
    params.only(&[])?;
    let (guards, t) = (&api.state.guards, api.state.now());
    Ok(Json(GuardsAnswer { t, guards: guards.states(), trouble: guards.trouble() }))
}
