//! Merged counts as an OTLP metrics request: delta exponential histograms, seconds.

use axum::http::header;
use axum::response::{IntoResponse, Response};
use lens_hist::Counts;
use lens_model::{Nanos, UnixNanos};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use prost::Message;

use super::{INCOMPLETE_HEADER, OVERFLOW_HEADER, Problem};
use crate::api::past::Past;
use crate::export::otlp::Temporality;
use crate::export::otlp::buckets::Buckets;
use crate::export::otlp::points::{Draft, Interval, Origin, text};
use crate::snapshot::incomplete;
use crate::state::State;
use crate::window::{Selection, Span};

/// Scale of the histograms: buckets 2.2 % wide.
const SCALE: u8 = 5;

/// One point over the span, or one a step that holds samples.
pub(super) fn answer(
    state: &State,
    selection: &Selection,
    span: Span,
    step: Option<Nanos>,
    packed: bool,
    now: UnixNanos,
) -> Result<Response, Problem> {
    let past = Past::of(state, span, step, now)?;
    let (attributes, buckets) = (attributes(selection), Buckets::new(SCALE));
    let mut draft = Draft::default();
    let mut overflow = 0_u64;
    let mut put = |start: UnixNanos, end: UnixNanos, counts: &Counts| {
        let interval = Interval { start, end };
        draft.histogram(&attributes, interval, counts, &buckets, &[]);
        overflow = overflow.saturating_add(counts.overflow());
    };
    match past.step {
        Some(step) => past.each_step(selection, step, |t, counts| {
            put(t, t.plus(step).min(past.span.to), counts);
        })?,
        None => {
            let mut total = Counts::new();
            past.sum(selection, &mut total)?;
            put(past.span.from, past.span.to, &total);
        }
    }
    let origin = Origin { resource: Vec::new(), temporality: Temporality::Delta };
    let request = draft.finish(&origin);
    let (kind, body) = if packed {
        ("application/x-protobuf", request.encode_to_vec())
    } else {
        let json = serde_json::to_vec(&request);
        ("application/json", json.map_err(|error| Problem::internal(error.to_string()))?)
    };
    let headers = [
        (header::CONTENT_TYPE, kind.to_owned()),
        (INCOMPLETE_HEADER, incomplete(state, past.span, now).len().to_string()),
        (OVERFLOW_HEADER, overflow.to_string()),
    ];
    Ok((headers, body).into_response())
}

/// What the question fixed; what it summed over has no attribute.
fn attributes(selection: &Selection) -> Vec<KeyValue> {
    let mut all = Vec::new();
    if let Some(slice) = &selection.slice {
        all.push(text("lens.repo_type", slice.repo_type()));
        all.push(text("lens.language", slice.language()));
        all.push(text("lens.size", slice.size()));
    }
    all.extend(selection.stage.map(|stage| text("lens.stage", stage.as_str())));
    all.extend(selection.arm.map(|arm| text("lens.arm", arm.as_str())));
    all
}
