//! OTLP in: metrics and spans to readings, and the two ways they come.
//!
//! Delta histograms and spans are taken. Cumulative ones are refused by name of the setting that
//! makes them delta: to take the difference, the agent would have to know how far each process had
//! been counted, across its own restarts as well; what it knew in memory alone would count the time
//! before it twice or not at all.

pub mod grpc;
pub mod http;
pub mod metrics;
pub mod spans;

use std::time::Duration;

use lens_model::{Nanos, UnixNanos};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

use super::refusal::Refusal;
use super::rules::{Rules, Tags};
use super::sink::Busy;
use super::tallies::Listener;
use super::{Ingested, Listening};

/// Largest message, bytes: what senders and receivers of OTLP agree on by default.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// Exports in work at once; more are told to come back. Bounds the memory of messages to 128 MiB.
pub const EXPORTS_MAX: usize = 32;

/// Longest a message may take to come in.
pub const MESSAGE_TIME_MAX: Duration = Duration::from_secs(10);

/// How far the time of a point may lie from the agent's clock.
const TIME_APART_MAX: Nanos = Nanos::from_secs(15 * 60);

/// What a sender is answered: how many were refused, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Data points or spans refused.
    pub refused: u64,
    /// Why; empty when none was.
    pub sentence: String,
}

/// One listener of OTLP, whichever way it is spoken.
#[derive(Clone, Debug)]
pub struct Door {
    ingested: std::sync::Arc<Ingested>,
    rules: std::sync::Arc<Rules>,
    listener: Listener,
}

impl Door {
    /// The door of a listener.
    pub fn new(ingested: std::sync::Arc<Ingested>, listening: &Listening) -> Self {
        Self {
            ingested,
            rules: std::sync::Arc::clone(&listening.rules),
            listener: listening.listener,
        }
    }

    /// Counts an export of metrics.
    ///
    /// # Errors
    /// [`Busy`]: nothing was counted.
    pub fn metrics(&self, request: &ExportMetricsServiceRequest) -> Result<Answer, Busy> {
        self.once(b'm', request, |now| metrics::read(request, &self.rules, now))
    }

    /// Counts an export of spans.
    ///
    /// # Errors
    /// [`Busy`]: nothing was counted.
    pub fn spans(&self, request: &ExportTraceServiceRequest) -> Result<Answer, Busy> {
        self.once(b't', request, |now| spans::read(request, &self.rules, now))
    }

    fn once(
        &self,
        kind: u8,
        request: &impl Message,
        read: impl FnOnce(UnixNanos) -> super::Reading,
    ) -> Result<Answer, Busy> {
        let mut bytes = vec![kind];
        bytes.extend(request.encode_to_vec());
        let tally = self.ingested.tallies.of(self.listener);
        let answer = self.ingested.repeats.answer(&bytes, || {
            let mut reading = read(self.ingested.env.now());
            let points = (reading.points.len() + reading.gauges.len()) as u64;
            let samples = self.ingested.sink.take(&mut reading)?;
            tally.counted(points, samples, &reading.refused);
            Ok(Answer { refused: reading.refused.total(), sentence: reading.refused.sentence() })
        });
        match answer {
            Ok((answer, repeated)) => {
                tally.export(repeated);
                Ok(answer)
            }
            Err(busy) => {
                tally.refuse(Refusal::Busy, 1);
                Err(busy)
            }
        }
    }

    /// Counts a message that was refused whole.
    pub fn refuse(&self, why: Refusal) {
        self.ingested.tallies.of(self.listener).refuse(why, 1);
    }
}

/// Whether a time is near enough to now for its samples to be counted as of now.
fn timely(nanos: u64, now: UnixNanos) -> Result<(), Refusal> {
    if nanos.abs_diff(now.0) <= TIME_APART_MAX.0 { Ok(()) } else { Err(Refusal::Time) }
}

fn text(value: Option<&AnyValue>) -> Option<&str> {
    match value?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

fn resource_tags(resource: Option<&Resource>) -> Tags<'_> {
    let mut tags = Tags::default();
    for KeyValue { key, value, .. } in resource.iter().flat_map(|resource| &resource.attributes) {
        if let Some(text) = text(value.as_ref()) {
            tags.resource(key, text);
        }
    }
    tags
}

fn point_tags<'a>(resource: &Tags<'a>, attributes: &'a [KeyValue]) -> Tags<'a> {
    let mut tags = *resource;
    for KeyValue { key, value, .. } in attributes {
        if let Some(text) = text(value.as_ref()) {
            tags.point(key, text);
        }
    }
    tags
}
