//! `/api/v1/slices`.

use axum::Json;
use axum::extract::State;
use lens_model::{Arm, Slice, Stage, UnixNanos};
use serde::Serialize;
use utoipa::ToSchema;

use super::params::Params;
use super::{Api, Problem};
use crate::judge::Verdict;
use crate::snapshot::{Incomplete, Row, Snapshot, rfc3339};
use crate::state;

/// Every slice known or seen.
#[derive(Serialize, ToSchema)]
pub(super) struct SlicesAnswer {
    /// The instant it is as of.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    t: UnixNanos,
    /// Width of the window `count` and `verdict` speak of, seconds.
    #[schema(example = 300.0)]
    window_s: f64,
    /// Stretches within the window that an agent did not account for; empty when all did.
    incomplete: Vec<Incomplete>,
    /// The slices, in order.
    slices: Vec<SliceAnswer>,
}

/// One slice.
#[derive(Serialize, ToSchema)]
pub(super) struct SliceAnswer {
    /// The slice, `repo_type/language/size`.
    #[schema(value_type = String, example = "backend/rust/large")]
    slice: Slice,
    /// Whether the configuration names it.
    known: bool,
    /// Samples in the window, over its series.
    count: u64,
    /// Samples ever merged, over its series.
    merged_total: u64,
    /// Its series.
    series: Vec<SeriesAnswer>,
    /// Request outcomes by arm.
    requests: Vec<ArmRequests>,
    /// Why there are no series.
    reason: Option<String>,
}

/// One series of a slice.
#[derive(Serialize, ToSchema)]
pub(super) struct SeriesAnswer {
    /// The stage.
    #[schema(value_type = String, example = "stage_a")]
    stage: Stage,
    /// The arm.
    #[schema(value_type = String, example = "baseline")]
    arm: Arm,
    /// Samples in the window.
    count: u64,
    /// Samples ever merged.
    merged_total: u64,
    /// When samples were last recorded.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    last_seen: UnixNanos,
    /// How long ago that was, seconds.
    age_s: f64,
    /// Hosts that report it.
    hosts: usize,
    /// Its tail verdict.
    verdict: Verdict,
    /// One sentence saying what it rests on.
    reason: String,
}

/// Request outcomes of one arm of a slice.
#[derive(Serialize, ToSchema)]
pub(super) struct ArmRequests {
    /// The arm.
    #[schema(value_type = String, example = "baseline")]
    arm: Arm,
    /// Answered within the window.
    ok: u64,
    /// Failed within the window.
    error: u64,
    /// Answered, ever.
    ok_total: u64,
    /// Failed, ever.
    error_total: u64,
}

/// Slices known and seen
///
/// Every slice the configuration names or an agent reported, with counts, last sample and tail
/// verdict of each of its series.
#[utoipa::path(get, path = "/api/v1/slices", tag = "data",
    responses(
        (status = 200, description = "The slices", body = SlicesAnswer),
        (status = 400, description = "A parameter was given", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn slices(
    State(api): State<Api>,
    params: Params,
) -> Result<Json<SlicesAnswer>, Problem> {
    params.only(&[])?;
    api.work(|state, live| Json(answer(state, &live.snapshot()))).await
}

fn answer(state: &state::State, snapshot: &Snapshot) -> SlicesAnswer {
    let slices = snapshot.slices.iter().map(|slice| slice_answer(state, snapshot, slice));
    SlicesAnswer {
        t: snapshot.t,
        window_s: snapshot.window_s,
        incomplete: snapshot.incomplete.clone(),
        slices: slices.collect(),
    }
}

fn slice_answer(state: &state::State, snapshot: &Snapshot, slice: &Slice) -> SliceAnswer {
    let begin = snapshot.rows.partition_point(|row| row.slice < *slice);
    let end = snapshot.rows.partition_point(|row| row.slice <= *slice);
    let rows = &snapshot.rows[begin..end];
    let requests = snapshot.requests.iter().filter(|requests| requests.slice == *slice);
    SliceAnswer {
        slice: slice.clone(),
        known: state.rules.slices_known.contains(slice),
        count: rows.iter().map(|row| row.count).sum(),
        merged_total: rows.iter().map(|row| row.merged_total).sum(),
        series: rows.iter().map(series_answer).collect(),
        requests: requests
            .map(|requests| ArmRequests {
                arm: requests.arm,
                ok: requests.ok,
                error: requests.error,
                ok_total: requests.ok_total,
                error_total: requests.error_total,
            })
            .collect(),
        reason: rows.is_empty().then(|| "no samples were received yet".to_owned()),
    }
}

fn series_answer(row: &Row) -> SeriesAnswer {
    SeriesAnswer {
        stage: row.stage,
        arm: row.arm,
        count: row.count,
        merged_total: row.merged_total,
        last_seen: row.last_seen,
        age_s: row.age_s,
        hosts: row.hosts,
        verdict: row.verdict,
        reason: row.reason.clone(),
    }
}
