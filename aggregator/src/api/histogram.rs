//! `/api/v1/histogram`: the merged counts themselves, in the forms other tools read.

mod otlp;
mod render;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::{IntoResponse, Response};
use lens_hist::Counts;
use lens_model::{Nanos, UnixNanos};
use serde::Serialize;
use utoipa::ToSchema;

use super::params::Params;
use super::past::Past;
use super::quantiles::aligned;
use super::{Api, Problem};
use crate::columns::{Column, column, edges_ms};
use crate::export::hlog;
use crate::snapshot::{Incomplete, incomplete, rfc3339};
use crate::state;
use crate::window::{Selection, Span};

/// Samples longer than the largest latency of the layout, told beside the text forms.
const OVERFLOW_HEADER: HeaderName = HeaderName::from_static("lens-overflow");

/// Stretches within the span that an agent did not account for, told beside the text forms.
const INCOMPLETE_HEADER: HeaderName = HeaderName::from_static("lens-incomplete");

const FORMATS: [&str; 5] = ["json", "hdr", "hlog", "hgrm", "otlp"];

/// A merged histogram.
#[derive(Serialize, ToSchema)]
pub(super) struct HistogramAnswer {
    /// Start of the span.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    from: UnixNanos,
    /// End of the span.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    to: UnixNanos,
    /// Width of the windows it was summed from, seconds.
    #[schema(example = 5.0)]
    resolution_s: f64,
    /// Stretches within the span that an agent did not account for; empty when all did.
    incomplete: Vec<Incomplete>,
    /// Samples, those above range included.
    #[schema(example = 4_812)]
    count: u64,
    /// Samples above the largest latency of the layout, 68.7 s; they are in no bucket.
    #[schema(example = 0)]
    overflow: u64,
    /// The buckets that hold samples: lower edge, upper edge (exclusive), both ms, and count.
    #[schema(value_type = Vec<Vec<f64>>, example = json!([[3.211_264, 3.227_648, 17]]))]
    buckets: Vec<(f64, f64, u64)>,
    /// A hundred quantiles, evenly spaced in the logarithm of 1/(1−q) up to 0.99999.
    quantiles: Vec<SpectrumPoint>,
    /// Why the last of them have no value; `null` when all have one.
    quantiles_reason: Option<String>,
}

/// One quantile of the spectrum.
#[derive(Serialize, ToSchema)]
pub(super) struct SpectrumPoint {
    /// The ratio.
    #[schema(example = 0.99)]
    q: f64,
    /// The quantile, milliseconds; `null` without samples enough.
    #[schema(example = 8.71)]
    value_ms: Option<f64>,
    /// Lower end of its 95 % interval.
    #[schema(example = 8.40)]
    low_ms: Option<f64>,
    /// Upper end of its 95 % interval.
    #[schema(example = 9.02)]
    high_ms: Option<f64>,
}

/// Histograms over time, for a heat map.
#[derive(Serialize, ToSchema)]
pub(super) struct HeatmapAnswer {
    /// Start of the first step.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    from: UnixNanos,
    /// End of the last step.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    to: UnixNanos,
    /// Width of a step, seconds.
    #[schema(example = 5.0)]
    step_s: f64,
    /// Width of the windows they were summed from, seconds.
    #[schema(example = 5.0)]
    resolution_s: f64,
    /// Stretches within the span that an agent did not account for; empty when all did.
    incomplete: Vec<Incomplete>,
    /// Edges of the rows, ms: row `i` reaches from `edges_ms[i]` to `edges_ms[i + 1]`. Eight rows
    /// an octave.
    #[schema(example = json!([0.0, 0.000_016]))]
    edges_ms: Vec<f64>,
    /// The steps that hold samples, in order.
    columns: Vec<Column>,
}

/// The merged histogram
///
/// The exact sum of the selected series over the span. `json`: buckets and a spectrum of
/// quantiles, or with `step` columns for a heat map. `hdr`: HdrHistogram V2, uncompressed, in
/// base64. `hlog`: an HdrHistogram interval log, one interval a `step` (by default one over the
/// span), each V2 compressed. `hgrm`: HdrHistogram's percentile table, milliseconds. The HdrHistogram
/// forms count in nanoseconds; samples above range stand in their last bucket and their number in
/// the header `lens-overflow`, and `lens-incomplete` says how many stretches of the span some agent
/// did not account for. `otlp`: an OTLP metrics request with one delta exponential histogram of
/// scale 5, seconds, or one a `step`; protobuf when `Accept` asks for `application/x-protobuf`,
/// OTLP's JSON otherwise. `resolution_s` is as for `/api/v1/quantiles`.
#[utoipa::path(get, path = "/api/v1/histogram", tag = "data",
    params(
        ("slice" = Option<String>, Query, description = "Only this slice, `repo_type/language/size`", example = "backend/rust/large"),
        ("stage" = Option<String>, Query, description = "Only this stage: `stage_a`, `stage_b`, `stage_c`, `e2e`; without it stages are summed", example = "stage_a"),
        ("arm" = Option<String>, Query, description = "Only this arm: `baseline`, `canary`", example = "baseline"),
        ("from" = Option<String>, Query, description = "RFC 3339, Unix seconds or relative; by default 15 minutes before `to`", example = "-15m"),
        ("to" = Option<String>, Query, description = "RFC 3339, Unix seconds or relative; by default now", example = "now"),
        ("format" = Option<String>, Query, description = "`json` (the default), `hdr`, `hlog`, `hgrm`, `otlp`", example = "json"),
        ("step" = Option<String>, Query, description = "`json`, `hlog` and `otlp` only: width of a step, a multiple of 5 s", example = "5s"),
    ),
    responses(
        (status = 200, description = "The histogram", content(
            (HistogramAnswer = "application/json"),
            (String = "text/plain", example = json!("HISTEwAAAAMAAAAA…")),
            (Vec<u8> = "application/x-protobuf"),
        )),
        (status = 400, description = "A parameter is unknown or its value wrong", body = Problem,
            content_type = "application/problem+json"),
        (status = 503, description = "It took too long", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn histogram(
    State(api): State<Api>,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, Problem> {
    params.only(&["slice", "stage", "arm", "from", "to", "format", "step"])?;
    let now = api.state.now();
    let base = api.state.windows.read().base();
    let selection = params.selection()?;
    let span = aligned(params.span(now)?, base, now);
    let step = params.step(span, base)?;
    let format = params.one("format")?.unwrap_or("json").to_ascii_lowercase();
    if !FORMATS.contains(&format.as_str()) {
        let detail = format!("{format:?} is no format: use json, hdr, hlog, hgrm or otlp");
        return Err(Problem::bad_parameter("format", detail));
    }
    if step.is_some() && !matches!(format.as_str(), "json" | "hlog" | "otlp") {
        let detail =
            format!("format={format} is one histogram: leave step out, or use json, hlog or otlp");
        return Err(Problem::bad_parameter("step", detail));
    }
    let packed = headers
        .get_all(header::ACCEPT)
        .iter()
        .any(|value| value.to_str().is_ok_and(|value| value.contains("application/x-protobuf")));
    api.work(move |state, _| match format.as_str() {
        "otlp" => otlp::answer(state, &selection, span, step, packed, now),
        _ => answer(state, &selection, span, step, &format, now),
    })
    .await?
}

fn answer(
    state: &state::State,
    selection: &Selection,
    span: Span,
    step: Option<Nanos>,
    format: &str,
    now: UnixNanos,
) -> Result<Response, Problem> {
    let fault = |error: std::io::Error| Problem::internal(error.to_string());
    let past = Past::of(state, span, step, now)?;
    let (span, step, resolution_s) = (past.span, past.step, past.resolution().as_secs_f64());
    let incomplete = incomplete(state, span, now);
    if let (Some(step), "json") = (step, format) {
        let mut columns = Vec::new();
        past.each_step(selection, step, |t, counts| columns.push(column(t, counts)))?;
        let (from, to, step_s) = (span.from, span.to, step.as_secs_f64());
        let edges_ms = edges_ms();
        let answer =
            HeatmapAnswer { from, to, step_s, resolution_s, incomplete, edges_ms, columns };
        return Ok(Json(answer).into_response());
    }
    let mut total = Counts::new();
    past.sum(selection, &mut total)?;
    let body = match format {
        "hdr" => render::hdr_base64(&total).map_err(fault)?,
        "hgrm" => render::hgrm(&total).map_err(fault)?,
        "hlog" => {
            let (tag, mut intervals) = (render::tag(selection), Vec::new());
            match step {
                Some(step) => past.each_step(selection, step, |t, counts| {
                    intervals.push((t, step, tag.clone(), counts.to_sparse()));
                })?,
                None => {
                    intervals.push((span.from, span.to.since(span.from), tag, total.to_sparse()));
                }
            }
            hlog::write(span.from, &intervals).map_err(fault)?
        }
        _ => {
            let answer = render::json(span, resolution_s, incomplete, &total);
            return Ok(Json(answer).into_response());
        }
    };
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8".to_owned()),
        (INCOMPLETE_HEADER, incomplete.len().to_string()),
        (OVERFLOW_HEADER, total.overflow().to_string()),
    ];
    Ok((headers, body).into_response())
}
