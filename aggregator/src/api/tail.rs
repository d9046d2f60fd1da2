//! `/api/v1/tail`: the verdicts on tails, and what they rest on.

use axum::Json;
use axum::extract::State;
use lens_model::{Arm, Slice, Stage, UnixNanos};
use serde::Serialize;
use utoipa::ToSchema;

use super::params::Params;
use super::quantiles::selected;
use super::{Api, Problem};
use crate::judge::peers::{Differs, Tail, differing};
use crate::judge::standing::{Forecast, Trend};
use crate::judge::{Evidence, Slo, Verdict};
use crate::snapshot::{E2eRegression, Incomplete, Row, Snapshot, rfc3339, some_rfc3339};
use crate::state;
use crate::window::Selection;

const NO_INTERVAL: &str = "fewer than 368 samples in the window";
const NO_TREND: &str = "fewer than 18 points of 320 s with 1,000 samples each";
const NO_FORECAST: &str = "no rise beyond chance that would reach the limit within a day";
const NO_DRIFT: &str = "no hour with 20,000 samples yet to compare with";

/// The tail verdicts.
#[derive(Serialize, ToSchema)]
pub(super) struct TailAnswer {
    /// The instant they are as of.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    t: UnixNanos,
    /// Width of the window they speak of, seconds.
    #[schema(example = 300.0)]
    window_s: f64,
    /// Stretches within the window that an agent did not account for; empty when all did.
    incomplete: Vec<Incomplete>,
    /// One entry a series, in order of slice, stage and arm.
    series: Vec<SeriesTail>,
    /// The slices against each other, by stage and arm.
    comparison: Vec<Comparison>,
    /// The whole query of each slice's canary against its baseline's, in order of slice.
    e2e_regression: Vec<E2eRegression>,
}

/// The tail of one series.
#[derive(Serialize, ToSchema)]
pub(super) struct SeriesTail {
    /// The slice.
    #[schema(value_type = String, example = "backend/rust/large")]
    slice: Slice,
    /// The stage.
    #[schema(value_type = String, example = "stage_b")]
    stage: Stage,
    /// The arm.
    #[schema(value_type = String, example = "canary")]
    arm: Arm,
    /// Samples in the window.
    #[schema(example = 4_812)]
    count: u64,
    /// 95th percentile, milliseconds.
    #[schema(example = 12.4)]
    p95_ms: Option<f64>,
    /// 99th percentile, milliseconds.
    #[schema(example = 20.1)]
    p99_ms: Option<f64>,
    /// p99/p95; `null` below the sample floor.
    #[schema(example = 1.62)]
    ratio: Option<f64>,
    /// Lower end of the ratio's 95 % interval.
    ratio_low: Option<f64>,
    /// Upper end of the ratio's 95 % interval.
    ratio_high: Option<f64>,
    /// Why the ratio has no interval; `null` when it has one.
    interval_reason: Option<&'static str>,
    /// Largest ratio that is not a violation.
    #[schema(example = 2.0)]
    threshold: f64,
    /// The verdict.
    verdict: Verdict,
    /// One sentence saying what it rests on.
    reason: String,
    /// The same in numbers.
    evidence: Evidence,
    /// How many disjoint windows in a row, up to the present one, are violations.
    #[schema(example = 0)]
    consecutive_windows: u32,
    /// The stage's absolute limits beside it.
    slo: Vec<Slo>,
    /// Beginning of the window that showed the violation; `null` without one.
    #[serde(serialize_with = "some_rfc3339")]
    #[schema(value_type = Option<String>, format = DateTime)]
    since: Option<UnixNanos>,
    /// Where the ratio is going.
    #[schema(value_type = Option<Object>)]
    trend: Option<Trend>,
    /// Why there is no trend; `null` when there is.
    trend_reason: Option<&'static str>,
    /// When it will be a violation.
    #[schema(value_type = Option<Object>)]
    forecast: Option<Forecast>,
    /// Why there is no forecast; `null` when there is.
    forecast_reason: Option<&'static str>,
    /// Whether very slow requests became more than the first hour had, beyond what chance does in
    /// 30 days.
    drift: Option<bool>,
    /// Why that cannot be said; `null` when it can.
    drift_reason: Option<&'static str>,
}

/// The slices of one stage and arm against each other.
#[derive(Serialize, ToSchema)]
pub(super) struct Comparison {
    /// The stage.
    #[schema(value_type = String, example = "stage_b")]
    stage: Stage,
    /// The arm.
    #[schema(value_type = String, example = "baseline")]
    arm: Arm,
    /// Slices whose ratio is known.
    #[schema(example = 11)]
    slices: usize,
    /// The middle one of their ratios.
    #[schema(example = 1.58)]
    median_ratio: Option<f64>,
    /// The largest of their ratios.
    #[schema(example = 1.91)]
    worst_ratio: Option<f64>,
    /// The slice it belongs to.
    #[schema(value_type = Option<String>, example = "backend/rust/large")]
    worst_slice: Option<Slice>,
    /// Slices whose ratio is more than a tenth away from their peers', beyond chance.
    differing: Vec<Differs>,
    /// Why there is nothing to compare; `null` when there is.
    reason: Option<&'static str>,
}

/// Verdicts on tails
///
/// Per series: p99 over p95 in the summary window, the verdict, what it rests on, and for how many
/// disjoint windows in a row the rule was broken; and the slices against each other.
#[utoipa::path(get, path = "/api/v1/tail", tag = "judge",
    params(
        ("slice" = Option<String>, Query, description = "Only this slice, `repo_type/language/size`", example = "backend/rust/large"),
        ("stage" = Option<String>, Query, description = "Only this stage: `stage_a`, `stage_b`, `stage_c`, `e2e`", example = "stage_b"),
        ("arm" = Option<String>, Query, description = "Only this arm: `baseline`, `canary`", example = "canary"),
    ),
    responses(
        (status = 200, description = "The verdicts", body = TailAnswer),
        (status = 400, description = "A parameter is unknown or its value wrong", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn tail(
    State(api): State<Api>,
    params: Params,
) -> Result<Json<TailAnswer>, Problem> {
    params.only(&["slice", "stage", "arm"])?;
    let selection = params.selection()?;
    api.work(move |state, live| Json(answer(state, &live.snapshot(), &selection))).await
}

fn answer(state: &state::State, snapshot: &Snapshot, selection: &Selection) -> TailAnswer {
    let keys = selected(state, selection);
    let rows: Vec<&Row> =
        snapshot.rows.iter().filter(|row| keys.binary_search(&row.key()).is_ok()).collect();
    let own = |slice: &Slice| selection.slice.as_ref().is_none_or(|wanted| wanted == slice);
    TailAnswer {
        t: snapshot.t,
        window_s: snapshot.window_s,
        incomplete: snapshot.incomplete.clone(),
        series: rows.iter().map(|row| series_tail(row)).collect(),
        comparison: comparison(&rows),
        e2e_regression: snapshot.regressions.iter().filter(|r| own(&r.slice)).cloned().collect(),
    }
}

fn series_tail(row: &Row) -> SeriesTail {
    SeriesTail {
        slice: row.slice.clone(),
        stage: row.stage,
        arm: row.arm,
        count: row.count,
        p95_ms: row.p95.value_ms,
        p99_ms: row.p99.value_ms,
        ratio: row.ratio,
        ratio_low: row.ratio_low,
        ratio_high: row.ratio_high,
        interval_reason: row.ratio_low.is_none().then_some(NO_INTERVAL),
        threshold: row.ratio_max,
        verdict: row.verdict,
        reason: row.reason.clone(),
        evidence: row.evidence.clone(),
        consecutive_windows: row.consecutive_windows,
        slo: row.slo.clone(),
        since: row.since,
        trend: row.trend,
        trend_reason: row.trend.is_none().then_some(NO_TREND),
        forecast: row.forecast,
        forecast_reason: row.forecast.is_none().then_some(NO_FORECAST),
        drift: row.drift,
        drift_reason: row.drift.is_none().then_some(NO_DRIFT),
    }
}

fn comparison(rows: &[&Row]) -> Vec<Comparison> {
    let mut found = Vec::new();
    for stage in Stage::ALL {
        for arm in Arm::ALL {
            let own = || rows.iter().filter(|row| row.stage == stage && row.arm == arm);
            if own().next().is_none() {
                continue;
            }
            let mut ratios: Vec<(f64, &Slice)> = own()
                .filter(|row| row.verdict != Verdict::Stale)
                .filter_map(|row| Some((row.ratio?, &row.slice)))
                .collect();
            ratios.sort_by(|a, b| a.0.total_cmp(&b.0));
            let reason = "no slice has samples enough for a ratio";
            found.push(Comparison {
                stage,
                arm,
                slices: ratios.len(),
                median_ratio: ratios.get(ratios.len() / 2).map(|(ratio, _)| *ratio),
                worst_ratio: ratios.last().map(|(ratio, _)| *ratio),
                differing: differing(&tails(own())),
                worst_slice: ratios.last().map(|(_, slice)| (*slice).clone()),
                reason: ratios.is_empty().then_some(reason),
            });
        }
    }
    found
}

/// What the rows say of their slices' tails, where it has an interval.
fn tails<'a>(rows: impl Iterator<Item = &'a &'a Row>) -> Vec<Tail> {
    let of_row = |row: &&Row| {
        let (ratio, low, high) = (row.ratio?, row.ratio_low?, row.ratio_high?);
        Some(Tail { slice: row.slice.clone(), ratio, low, high })
    };
    rows.filter(|row| row.verdict != Verdict::Stale).filter_map(of_row).collect()
}
