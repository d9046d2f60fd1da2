//! `/api/v1/quantiles`: quantiles over time.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use lens_hist::{Counts, Quantile};
use lens_model::limits::QUERY_POINTS_MAX;
use lens_model::{Arm, Nanos, SeriesKey, Slice, Stage, UnixNanos};
use serde::Serialize;
use utoipa::ToSchema;

use super::params::Params;
use super::past::Past;
use super::{Api, Problem};
use crate::judge;
use crate::snapshot::{Incomplete, Value, incomplete, rfc3339};
use crate::state;
use crate::window::{Selection, Span};

/// Points of all series of one answer together: ten full series.
const ANSWER_POINTS_MAX: usize = 10 * QUERY_POINTS_MAX;

/// Quantiles over time.
#[derive(Serialize, ToSchema)]
pub(super) struct QuantilesAnswer {
    /// Start of the first step.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    from: UnixNanos,
    /// End of the last step.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    to: UnixNanos,
    /// Width of a step, seconds; `null` for one point over the whole span.
    #[schema(example = 5.0)]
    step_s: Option<f64>,
    /// Width of the windows it was answered from, seconds.
    #[schema(example = 5.0)]
    resolution_s: f64,
    /// Start of the oldest window still held at this width: before it there are no points.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    held_from: UnixNanos,
    /// Stretches within the span that an agent did not account for; empty when all did.
    incomplete: Vec<Incomplete>,
    /// One entry a series, in order of slice, stage and arm.
    series: Vec<SeriesPoints>,
}

/// The points of one series.
#[derive(Serialize, ToSchema)]
pub(super) struct SeriesPoints {
    /// The slice.
    #[schema(value_type = String, example = "backend/rust/large")]
    slice: Slice,
    /// The stage.
    #[schema(value_type = String, example = "stage_a")]
    stage: Stage,
    /// The arm.
    #[schema(value_type = String, example = "baseline")]
    arm: Arm,
    /// How many samples count as one, by how they depended on each other in the last hour: intervals
    /// are those of as many fewer independent samples.
    #[schema(example = 1.0)]
    phi: f64,
    /// The steps that hold samples, in order; a step without any is absent.
    points: Vec<Point>,
}

/// The quantiles of one step.
#[derive(Serialize, ToSchema)]
pub(super) struct Point {
    /// Start of the step.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    t: UnixNanos,
    /// Samples in it.
    #[schema(example = 431)]
    count: u64,
    /// The quantiles asked for, by ratio.
    #[schema(example = json!({"0.95": {"value_ms": 3.214, "low_ms": 3.05, "high_ms": 3.41, "low_confidence": false},
        "0.999": {"value_ms": null, "low_ms": 9.8, "high_ms": null, "low_confidence": false,
            "reason": "431 samples; a 95 % interval needs 3688"}}))]
    quantiles: BTreeMap<String, Value>,
    /// p99/p95 with its interval, if it was asked for.
    #[serde(flatten)]
    ratio: Option<Ratio>,
}

/// p99 over p95 in one step.
#[derive(Serialize, ToSchema)]
pub(super) struct Ratio {
    /// p99/p95; `null` below p99's sample floor.
    #[schema(example = 1.62)]
    ratio: Option<f64>,
    /// Lower end of its 95 % interval, for the dependence of the series' load.
    #[schema(example = 1.51)]
    ratio_low: Option<f64>,
    /// Upper end of its 95 % interval; `null` where no ratio is too large.
    #[schema(example = 1.74)]
    ratio_high: Option<f64>,
}

/// What is asked of every step.
struct Asked {
    quantiles: Vec<Quantile>,
    ratio: bool,
}

/// Quantiles over time
///
/// Per series and step: how many samples, and each quantile with its 95 % interval. Below a
/// quantile's sample floor `value_ms` is `null` with the reason; with fewer than ten samples beyond it
/// `low_confidence` is true. Samples that depend on each other count as fewer: `phi` says by how much. Without `step` there is one point
/// over the whole span. Windows are counted to the step they begin in. Within the summary
/// window they are 5 s wide; further back they may be 1 min or 1 h, `resolution_s` says which, and span
/// and step are then widened to whole ones.
#[utoipa::path(get, path = "/api/v1/quantiles", tag = "data",
    params(
        ("slice" = Option<String>, Query, description = "Only this slice, `repo_type/language/size`", example = "backend/rust/large"),
        ("stage" = Option<String>, Query, description = "Only this stage: `stage_a`, `stage_b`, `stage_c`, `e2e`", example = "stage_a"),
        ("arm" = Option<String>, Query, description = "Only this arm: `baseline`, `canary`", example = "baseline"),
        ("from" = Option<String>, Query, description = "RFC 3339, Unix seconds or relative; by default 15 minutes before `to`", example = "-15m"),
        ("to" = Option<String>, Query, description = "RFC 3339, Unix seconds or relative; by default now", example = "now"),
        ("step" = Option<String>, Query, description = "Width of a step, a multiple of 5 s; by default the whole span", example = "5s"),
        ("q" = Option<String>, Query, description = "Ratios, repeated or separated by commas; by default `0.5,0.95,0.99,0.999`", example = "0.95,0.99"),
        ("ratio" = Option<String>, Query, description = "`true` gives each point p99/p95 with its interval, too", example = "true"),
    ),
    responses(
        (status = 200, description = "The quantiles", body = QuantilesAnswer),
        (status = 400, description = "A parameter is unknown or its value wrong", body = Problem,
            content_type = "application/problem+json"),
        (status = 503, description = "It took too long", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn quantiles(
    State(api): State<Api>,
    params: Params,
) -> Result<Json<QuantilesAnswer>, Problem> {
    params.only(&["slice", "stage", "arm", "from", "to", "step", "q", "ratio"])?;
    let now = api.state.now();
    let base = api.state.windows.read().base();
    let selection = params.selection()?;
    let span = aligned(params.span(now)?, base, now);
    let step = params.step(span, base)?;
    let asked = Asked { quantiles: params.quantiles()?, ratio: params.flag("ratio")? };
    api.work(move |state, _| answer(state, &selection, span, step, &asked, now)).await?.map(Json)
}

/// A span from the start of a window on, and no further than now.
pub(super) fn aligned(span: Span, base: Nanos, now: UnixNanos) -> Span {
    let to = span.to.min(UnixNanos(now.0.saturating_add(1))).max(span.from);
    Span { from: UnixNanos(span.from.0 / base.0 * base.0), to }
}

/// The selected series, in order.
pub(super) fn selected(state: &state::State, selection: &Selection) -> Vec<SeriesKey> {
    let keys = state.windows.read().series().into_keys();
    keys.filter(|key| selection.slice.as_ref().is_none_or(|slice| *slice == key.slice))
        .filter(|key| selection.stage.is_none_or(|stage| stage == key.stage))
        .filter(|key| selection.arm.is_none_or(|arm| arm == key.arm))
        .collect()
}

fn answer(
    state: &state::State,
    selection: &Selection,
    span: Span,
    step: Option<Nanos>,
    asked: &Asked,
    now: UnixNanos,
) -> Result<QuantilesAnswer, Problem> {
    let base = state.windows.read().base();
    let keys = selected(state, selection);
    let past = Past::of(state, span, step, now)?;
    if let Some(step) = past.step {
        refuse_too_many(keys.len(), past.span, step, base)?;
    }
    let mut series = Vec::new();
    for key in keys {
        let selection = Selection::series(&key);
        // How the samples of the series depend on each other is what the judge found it to be.
        let phi = state.judge.read().stream(&key).map_or(1.0, |stream| stream.tail().phi());
        let mut points = Vec::new();
        match past.step {
            Some(step) => past.each_step(&selection, step, |t, counts| {
                points.push(point(t, counts, asked, phi));
            })?,
            None => {
                let mut counts = Counts::new();
                past.sum(&selection, &mut counts)?;
                points.push(point(past.span.from, &counts, asked, phi));
            }
        }
        let (slice, stage, arm) = (key.slice, key.stage, key.arm);
        series.push(SeriesPoints { slice, stage, arm, phi, points });
    }
    Ok(QuantilesAnswer {
        from: past.span.from,
        to: past.span.to,
        step_s: past.step.map(Nanos::as_secs_f64),
        resolution_s: past.resolution().as_secs_f64(),
        held_from: past.held_from,
        incomplete: incomplete(state, past.span, now),
        series,
    })
}

fn refuse_too_many(series: usize, span: Span, step: Nanos, base: Nanos) -> Result<(), Problem> {
    let width = span.to.since(span.from).0;
    let most = (ANSWER_POINTS_MAX / series.max(1)).max(1) as u64;
    if width.div_ceil(step.0) <= most {
        return Ok(());
    }
    let fits = width.div_ceil(most).div_ceil(base.0).saturating_mul(base.0 / 1_000_000_000);
    Err(Problem::bad_parameter(
        "step",
        format!(
            "{series} series at this step are more than {ANSWER_POINTS_MAX} points: use {fits}s or \
             more, or name a slice, stage or arm"
        ),
    ))
}

fn point(t: UnixNanos, counts: &Counts, asked: &Asked, phi: f64) -> Point {
    let quantiles = &asked.quantiles;
    let estimates = counts.quantiles_of_dependent(quantiles, phi);
    let values = quantiles.iter().zip(&estimates);
    Point {
        t,
        count: estimates.first().map_or_else(|| counts.total(), |estimate| estimate.samples),
        quantiles: values.map(|(q, e)| (q.to_string(), Value::new(*q, e))).collect(),
        ratio: asked.ratio.then(|| {
            let (ratio, ratio_low, ratio_high) = judge::ratio(counts, phi);
            Ratio { ratio, ratio_low, ratio_high }
        }),
    }
}
