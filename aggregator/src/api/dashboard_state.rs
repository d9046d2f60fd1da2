//! `/monitoring/dashboard`: the state tree monitoring tools already read.
//!
//! The tree has the fields it always had; a field that is not measured is `null`, and `reasons`
//! beside the tree names why by the field's path. Stage quantiles are merged over all slices and
//! arms; quality comes from the gauges of the search nodes, averaged over them.

mod tree;

use std::collections::BTreeMap;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use lens_model::UnixNanos;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::params::Params;
use super::{Api, Problem};
use crate::snapshot::{Incomplete, rfc3339};
use crate::state;
use tree::Tree;

/// The state tree.
#[derive(Serialize, ToSchema)]
pub(super) struct DashboardAnswer {
    /// Whether there is an answer.
    success: bool,
    /// `metrics`, `health`, `canary_status`, `sla_compliance` and `recent_alerts`.
    #[schema(value_type = Object, example = json!({
        "metrics": {"performance": {"stageA": {"p95_latency_ms": 3.2, "throughput_rps": 120.5}}},
        "health": {"status": "healthy", "active_alerts": 0, "critical_alerts": 0, "uptime_percent": null},
        "sla_compliance": {"stage_a_p95_compliant": true, "tail_latency_compliant": true,
            "span_coverage_compliant": null, "quality_gates_passing": null}}))]
    dashboard_state: Value,
    /// Why each field of the tree that is `null` is, by its path.
    #[schema(value_type = Object, example = json!({
        "metrics.quality.ndcg_at_10": "no search node reports the gauge ndcg_at_10"}))]
    reasons: BTreeMap<String, String>,
    /// Stretches within the summary window that an agent did not account for; empty when all did.
    incomplete: Vec<Incomplete>,
    /// The instant it is as of.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    timestamp: UnixNanos,
    /// How long the answer took, milliseconds.
    #[schema(example = 1.3)]
    latency_ms: f64,
}

/// The state tree
///
/// Measured data only: what is not measured is `null`, and `reasons` says why. `health.status` is
/// `critical` while an absolute limit is broken or a critical alert fires, `degraded` while any rule
/// is broken, any alert fires or nothing is measured.
#[utoipa::path(get, path = "/monitoring/dashboard", tag = "health",
    responses(
        (status = 200, description = "The tree", body = DashboardAnswer),
        (status = 400, description = "A parameter was given", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn dashboard_state(
    State(api): State<Api>,
    params: Params,
) -> Result<Json<DashboardAnswer>, Problem> {
    let begun = Instant::now();
    params.only(&[]).map_err(Problem::with_success)?;
    let work = move |state: &state::State, live: &super::live::Live| {
        let snapshot = live.snapshot();
        let (dashboard_state, reasons) = Tree::new(state, &snapshot).build();
        DashboardAnswer {
            success: true,
            dashboard_state,
            reasons,
            incomplete: snapshot.incomplete.clone(),
            timestamp: snapshot.t,
            latency_ms: begun.elapsed().as_secs_f64() * 1e3,
        }
    };
    api.work(work).await.map(Json).map_err(Problem::with_success)
}
