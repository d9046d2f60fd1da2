//! An export of spans to a reading: `lens_stage_a|b|c` and `lens_search` are durations. No I/O.
//!
//! A request is counted by its `lens_search` span, or by a stage's span that has no parent: by one of
//! them, so that it counts once. A span whose status is an error counts as a failed request, and its
//! duration counts too.
//! Sampling: a span that says its threshold (`ot=th:…` in the trace state) counts for those left out.
//! One that says none counts once; whether its sampler left others out cannot be seen here.

use lens_model::{Stage, UnixNanos};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;

use super::{point_tags, resource_tags, timely};
use crate::ingest::reading::{Counts, Point, Reading, Request, Slow, Source};
use crate::ingest::refusal::Refusal;
use crate::ingest::rules::{Rules, Spans, Tags, named_stage};
use crate::ingest::unit::Weight;

/// What an export of spans comes to. Spans that are not ours by name are none that was refused: a
/// trace is full of others.
pub fn read(request: &ExportTraceServiceRequest, rules: &Rules, now: UnixNanos) -> Reading {
    let mut reading = Reading::default();
    for resource in &request.resource_spans {
        let tags = resource_tags(resource.resource.as_ref());
        for span in resource.scope_spans.iter().flat_map(|scope| &scope.spans) {
            if !is_ours(span, rules) {
                reading.empty += 1;
                continue;
            }
            match point(span, rules, &tags, now) {
                Ok(point) => {
                    request_of(span, &point, &mut reading);
                    reading.points.push(point);
                }
                Err(why) => reading.refused.add(why, 1),
            }
        }
    }
    reading
}

fn is_ours(span: &Span, rules: &Rules) -> bool {
    named_stage(&span.name).is_some() || rules.stages.contains_key(&span.name)
}

fn point(span: &Span, rules: &Rules, tags: &Tags<'_>, now: UnixNanos) -> Result<Point, Refusal> {
    let key = rules.series(&span.name, &point_tags(tags, &span.attributes))?;
    let threshold = threshold(&span.trace_state)?;
    match (rules.spans, threshold) {
        (Spans::Refuse, _) => return Err(Refusal::SpanNotWanted),
        (Spans::Weighted, None) => return Err(Refusal::SpanUnweighted),
        _ => {}
    }
    let (start, end) = (span.start_time_unix_nano, span.end_time_unix_nano);
    let nanos = end.checked_sub(start).filter(|_| start > 0).ok_or(Refusal::SpanTime)?;
    timely(end, now)?;
    let counts = Counts::One { nanos, weight: threshold.unwrap_or(Weight::ONE) };
    let slow = Slow::new(nanos, &span.trace_id, &span.span_id, UnixNanos(end));
    Ok(Point { key, counts, source: Source::Spans, slow: slow.into_iter().collect() })
}

fn request_of(span: &Span, point: &Point, reading: &mut Reading) {
    if point.key.stage != Stage::E2e && !span.parent_span_id.is_empty() {
        return;
    }
    let failed = span.status.as_ref().is_some_and(|status| status.code == StatusCode::Error as i32);
    let Counts::One { weight, .. } = point.counts else { return };
    let (slice, arm) = (point.key.slice.clone(), point.key.arm);
    reading.requests.push(Request { slice, arm, failed, weight });
}

/// The weight that the sampling threshold in a trace state comes to, if it says one.
fn threshold(state: &str) -> Result<Option<Weight>, Refusal> {
    let vendor = state.split(',').filter_map(|member| member.trim().split_once('='));
    let Some((_, ours)) = vendor.into_iter().find(|(key, _)| *key == "ot") else {
        return Ok(None);
    };
    let Some(digits) = ours.split(';').find_map(|part| part.strip_prefix("th:")) else {
        return Ok(None);
    };
    if !(1..=14).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Refusal::Rate);
    }
    // Fifty-six bits, trailing zeroes left out: the share of traces that is not sampled.
    let padded = format!("{digits:0<14}");
    let rejected = u64::from_str_radix(&padded, 16).map_err(|_| Refusal::Rate)?;
    #[allow(clippy::cast_precision_loss, reason = "56 bits of a share")]
    let rate = 1.0 - rejected as f64 / (1_u64 << 56) as f64;
    Weight::of_rate(rate).map(Some).ok_or(Refusal::Rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_is_the_share_left_out() {
        let ceiling = |state| threshold(state).map(|weight| weight.map(Weight::ceiling));
        assert_eq!(ceiling("ot=th:0"), Ok(Some(1)));
        assert_eq!(ceiling("vendor=x, ot=rv:abc;th:8"), Ok(Some(2)));
        assert_eq!(ceiling("ot=th:c"), Ok(Some(4)));
        assert_eq!(ceiling(""), Ok(None));
        assert_eq!(ceiling("ot=rv:abc"), Ok(None));
        for bad in
            ["ot=th:", "ot=th:xyz", "ot=th:fffffffffffffff", "ot=th:ffffffffffffff", "ot=th:+1"]
        {
            assert_eq!(ceiling(bad), Err(Refusal::Rate), "{bad}");
        }
    }
}
