//! `/api/v1/captures`: the last minutes in fine steps, begun, listed and taken away.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use lens_model::{Arm, Nanos, Slice, Stage, UnixNanos};
use lens_service::time::rfc3339;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::params::Params;
use super::sign_in::body;
use super::{Api, Problem};
use crate::auth::{Principal, Verb};
use crate::capture::{
    AgentPart, BeginError, Format, Part, SPAN_DEFAULT, SlowRequest, Stand, Summary,
};
use crate::window::{Selection, Span};

/// Longest that can be asked for; agents keep an hour at most.
const LAST_SECS_MAX: u64 = 3_600;

/// Longest reason, bytes.
const REASON_BYTES_MAX: usize = 200;

/// Every capture.
#[derive(Serialize, ToSchema)]
pub(super) struct CapturesAnswer {
    /// The captures, newest first.
    captures: Vec<CaptureAnswer>,
}

/// One capture.
#[derive(Serialize, ToSchema)]
pub(super) struct CaptureAnswer {
    /// Its id.
    #[schema(example = "18a4f0c2d1e3b5a7")]
    id: String,
    /// How far it is.
    state: Stand,
    /// Why it failed; `null` when it did not.
    failure: Option<String>,
    /// Why it was begun.
    #[schema(example = "tail/backend/rust/large/stage_c/canary")]
    reason: String,
    /// Who began it; `alert` for a violation.
    #[schema(example = "ann")]
    by: String,
    /// When it was begun.
    #[schema(format = DateTime)]
    begun: String,
    /// When it was over; `null` while it is collected.
    #[schema(format = DateTime)]
    finished: Option<String>,
    /// Beginning of the time captured.
    #[schema(format = DateTime)]
    from: String,
    /// First instant past it.
    #[schema(format = DateTime)]
    to: String,
    /// Only this slice; `null` for all.
    #[schema(value_type = Option<String>, example = "backend/rust/large")]
    slice: Option<Slice>,
    /// Only this stage; `null` for all.
    #[schema(value_type = Option<String>, example = "stage_c")]
    stage: Option<Stage>,
    /// Only this arm; `null` for both.
    #[schema(value_type = Option<String>, example = "canary")]
    arm: Option<Arm>,
    /// Agents and what became of their part.
    agents: Vec<PartAnswer>,
    /// Steps in it, over all series and nodes.
    steps: u64,
    /// Series and nodes in it.
    series: u64,
    /// Samples in it.
    samples: u64,
    /// Whether it was cut at the bound on a capture's size.
    truncated: bool,
    /// Slow requests of the time, slowest first.
    exemplars: Vec<SlowAnswer>,
    /// Its files, by format.
    files: Vec<FileAnswer>,
}

/// One agent's part of a capture.
#[derive(Serialize, ToSchema)]
pub(super) struct PartAnswer {
    /// The agent.
    #[schema(example = "host-3")]
    agent: String,
    /// What became of it.
    state: Part,
    /// From when on it held anything; `null` before it answered.
    #[schema(format = DateTime)]
    held_from: Option<String>,
    /// Steps it gave.
    steps: u64,
    /// Steps it had let go before their time for want of memory, since it began.
    steps_left_out: u64,
}

/// A slow request of the time captured.
#[derive(Serialize, ToSchema)]
pub(super) struct SlowAnswer {
    /// When it was recorded.
    #[schema(format = DateTime)]
    t: String,
    /// The slice.
    #[schema(value_type = String, example = "backend/rust/large")]
    slice: Slice,
    /// The stage.
    #[schema(value_type = String, example = "stage_c")]
    stage: Stage,
    /// The arm.
    #[schema(value_type = String, example = "canary")]
    arm: Arm,
    /// How long it took, milliseconds.
    #[schema(example = 412.7)]
    latency_ms: f64,
    /// Its trace, 32 hexadecimal digits.
    #[schema(example = "4bf92f3577b34da6a3ce929d0e0e4736")]
    trace_id: String,
    /// The agent that sent it.
    #[schema(example = "host-3")]
    agent: String,
    /// The search node that served it.
    #[schema(example = "node-7")]
    instance: String,
}

/// A file of a capture.
#[derive(Serialize, ToSchema)]
pub(super) struct FileAnswer {
    /// Its format: `hlog`, `parquet` or `heat`.
    #[schema(example = "parquet")]
    format: String,
    /// Its length, bytes.
    #[schema(example = 184_312)]
    bytes: u64,
    /// Where it is.
    #[schema(example = "/api/v1/captures/18a4f0c2d1e3b5a7?format=parquet")]
    href: String,
}

/// What to capture.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Only this slice; all when left out.
    #[serde(default)]
    #[schema(example = "backend/rust/large")]
    slice: Option<String>,
    /// Only this stage; all when left out.
    #[serde(default)]
    #[schema(example = "stage_c")]
    stage: Option<String>,
    /// Only this arm; both when left out.
    #[serde(default)]
    #[schema(example = "canary")]
    arm: Option<String>,
    /// How much of the past, seconds, 1 to 3,600; 600 when left out.
    #[serde(default)]
    #[schema(example = 600)]
    last_s: Option<u64>,
    /// Why.
    #[serde(default)]
    #[schema(example = "users report slow searches")]
    reason: Option<String>,
    /// Who; taken where nobody signs in.
    #[serde(default)]
    #[schema(example = "ann")]
    by: Option<String>,
}

impl From<&Summary> for CaptureAnswer {
    fn from(summary: &Summary) -> Self {
        let id = summary.name();
        let file = |(format, bytes): &(String, u64)| FileAnswer {
            format: format.clone(),
            bytes: *bytes,
            href: format!("/api/v1/captures/{id}?format={format}"),
        };
        Self {
            state: summary.stand,
            failure: summary.failure.clone(),
            reason: summary.reason.clone(),
            by: summary.by.clone(),
            begun: rfc3339(summary.begun),
            finished: summary.finished.map(rfc3339),
            from: rfc3339(summary.from),
            to: rfc3339(summary.to),
            slice: summary.slice.clone(),
            stage: summary.stage,
            arm: summary.arm,
            agents: summary.agents.iter().map(PartAnswer::from).collect(),
            steps: summary.steps,
            series: summary.series,
            samples: summary.samples,
            truncated: summary.truncated,
            exemplars: summary.exemplars.iter().map(SlowAnswer::from).collect(),
            files: summary.files.iter().map(file).collect(),
            id,
        }
    }
}

impl From<&AgentPart> for PartAnswer {
    fn from(part: &AgentPart) -> Self {
        Self {
            agent: part.agent.to_string(),
            state: part.state,
            held_from: part.held_from.map(rfc3339),
            steps: part.steps,
            steps_left_out: part.steps_left_out,
        }
    }
}

impl From<&SlowRequest> for SlowAnswer {
    fn from(slow: &SlowRequest) -> Self {
        Self {
            t: rfc3339(slow.t),
            slice: slow.slice.clone(),
            stage: slow.stage,
            arm: slow.arm,
            latency_ms: slow.latency_ms,
            trace_id: slow.trace_id.clone(),
            agent: slow.agent.clone(),
            instance: slow.instance.clone(),
        }
    }
}

/// Captures
///
/// The last minutes in steps of 100 ms, as agents held them when something went wrong or someone
/// asked; newest first, the one being collected included. Of 32 kept the oldest gives way.
#[utoipa::path(get, path = "/api/v1/captures", tag = "data",
    responses(
        (status = 200, description = "The captures", body = CapturesAnswer),
        (status = 400, description = "A parameter was given", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn captures(
    State(api): State<Api>,
    params: Params,
) -> Result<Json<CapturesAnswer>, Problem> {
    params.only(&[])?;
    let captures = api.state.captures.all().iter().map(CaptureAnswer::from).collect();
    Ok(Json(CapturesAnswer { captures }))
}

fn known(api: &Api, id: &str) -> Result<Summary, Problem> {
    let shown: String = id.chars().take(40).collect();
    let number = u64::from_str_radix(id, 16).ok().filter(|_| id.len() == 16);
    let number = number.ok_or_else(|| {
        let detail = format!("{shown:?} is no capture's id: use 16 hexadecimal digits");
        Problem::bad_parameter("id", detail)
    })?;
    api.state.captures.one(number).ok_or_else(|| {
        Problem::no_such("capture", format!("no capture {shown} is kept: see /api/v1/captures"))
    })
}

/// One capture, or a file of it
///
/// Without `format` what is known of it. `hlog`: an HdrHistogram interval log in steps of 100 ms, one
/// tag a series, all nodes together, which `lens replay` reads. `parquet`: a row for each bucket of
/// each step, series and node. `heat`: JSON for heat maps, at most 600 columns a series.
#[utoipa::path(get, path = "/api/v1/captures/{id}", tag = "data",
    params(
        ("id" = String, Path, description = "The capture's id", example = "18a4f0c2d1e3b5a7"),
        ("format" = Option<String>, Query, description = "`hlog`, `parquet` or `heat`",
            example = "hlog"),
    ),
    responses(
        (status = 200, description = "The capture", content(
            (CaptureAnswer = "application/json"),
            (String = "text/plain", example = json!("#[HistogramLogVersion=1.3]…")),
            (Vec<u8> = "application/vnd.apache.parquet"),
        )),
        (status = 400, description = "A parameter is wrong", body = Problem,
            content_type = "application/problem+json"),
        (status = 404, description = "No such capture", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "It is being collected, or its files are gone", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn capture(
    State(api): State<Api>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response, Problem> {
    params.only(&["format"])?;
    let summary = known(&api, &id)?;
    let Some(wanted) = params.one("format")? else {
        return Ok(Json(CaptureAnswer::from(&summary)).into_response());
    };
    let format = Format::ALL.into_iter().find(|format| format.as_str() == wanted);
    let format = format.ok_or_else(|| {
        let wanted: String = wanted.chars().take(40).collect();
        let detail = format!("{wanted:?} is no format: use hlog, parquet or heat");
        Problem::bad_parameter("format", detail)
    })?;
    if summary.stand == Stand::Collecting {
        return Err(Problem::conflict(
            "it is being collected: its files are there when it is done",
        ));
    }
    let number = summary.id;
    let bytes = api.work(move |state, _| state.captures.file(number, format)).await?;
    let bytes = bytes.map_err(|error| {
        Problem::conflict(format!("its {} file is not there: {error}", format.as_str()))
    })?;
    let name = format!("attachment; filename=\"lens-{id}.{}\"", format.as_str());
    let headers = [
        (header::CONTENT_TYPE, format.content_type().to_owned()),
        (header::CONTENT_DISPOSITION, name),
    ];
    Ok((headers, bytes).into_response())
}

fn selection(wanted: &Wanted) -> Result<Selection, Problem> {
    let refused =
        |what: &str, error: &dyn std::fmt::Display| Problem::bad_body(format!("{what}: {error}"));
    let slice = wanted.slice.as_deref().map(str::parse).transpose();
    let stage = wanted.stage.as_deref().map(str::parse).transpose();
    let arm = wanted.arm.as_deref().map(str::parse).transpose();
    Ok(Selection {
        slice: slice.map_err(|error: lens_model::ParseSeriesError| refused("slice", &error))?,
        stage: stage.map_err(|error: lens_model::ParseSeriesError| refused("stage", &error))?,
        arm: arm.map_err(|error: lens_model::ParseSeriesError| refused("arm", &error))?,
        host: None,
    })
}

/// Capture the last minutes
///
/// Asks every connected agent for what it holds; the answer comes at once, and the capture is whole
/// within 20 s. One is collected at a time. Role: operator.
#[utoipa::path(post, path = "/api/v1/captures", tag = "control",
    request_body(content = Option<Wanted>, description = "What; may be absent"),
    responses(
        (status = 202, description = "It is being collected", body = CaptureAnswer),
        (status = 400, description = "The body cannot be used", body = Problem,
            content_type = "application/problem+json"),
        (status = 403, description = "Not the role", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "One is being collected, or no agent is connected",
            body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn begin(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
    bytes: Bytes,
) -> Result<(StatusCode, Json<CaptureAnswer>), Problem> {
    let wanted: Wanted = body(&bytes)?;
    let selection = selection(&wanted)?;
    let last = match wanted.last_s {
        None => SPAN_DEFAULT,
        Some(secs) if (1..=LAST_SECS_MAX).contains(&secs) => Nanos::from_secs(secs),
        Some(secs) => {
            let detail = format!("last_s is {secs}: use 1 to {LAST_SECS_MAX} seconds");
            return Err(Problem::bad_body(detail));
        }
    };
    let reason = wanted.reason.unwrap_or_else(|| "asked for".into());
    if reason.len() > REASON_BYTES_MAX || reason.chars().any(char::is_control) {
        let detail = format!("reason: use at most {REASON_BYTES_MAX} bytes without line ends");
        return Err(Problem::bad_body(detail));
    }
    let by = api.actor(&principal, Verb::CaptureBegin, "capture", &bytes, wanted.by).await?;
    let now: UnixNanos = api.state.now();
    let span = Span { from: now.minus(last), to: now };
    let begun = api.state.captures.begin(&api.state, span, selection, &by, &reason);
    let summary = begun.map_err(|error: BeginError| Problem::conflict(error.to_string()))?;
    Ok((StatusCode::ACCEPTED, Json(CaptureAnswer::from(&summary))))
}
