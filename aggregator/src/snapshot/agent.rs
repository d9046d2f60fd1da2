//! One agent in the API's units.

use lens_model::{Nanos, UnixNanos};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Gap, rfc3339};
use crate::state::AgentState;
use crate::window::Span;

/// One agent, in the API's units.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Agent {
    /// Its name.
    #[schema(example = "agent-1")]
    pub name: String,
    /// Its identity, from its certificate.
    #[schema(example = "spiffe://lens.local/agent/agent-1")]
    pub identity: String,
    /// Its software version, as it says.
    pub version: String,
    /// The life its deltas are numbered in.
    pub incarnation: String,
    /// Where it connected from; `null` when it did not since this aggregator started.
    pub address: Option<String>,
    /// Whether a connection stands now.
    pub connected: bool,
    /// When its last frame came.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub last_frame: UnixNanos,
    /// How long ago that was, seconds.
    pub age_s: f64,
    /// From the end of its last delta's interval to the merge, milliseconds.
    pub lag_ms: f64,
    /// Aggregator clock minus agent clock, milliseconds.
    pub clock_offset_ms: f64,
    /// Number of the last delta merged.
    pub acked: u64,
    /// Deltas merged.
    pub deltas: u64,
    /// Deltas that came again and changed nothing.
    pub duplicates: u64,
    /// Deltas merged into a window already shown.
    pub late: u64,
    /// Deltas and frames refused, by reason.
    #[schema(example = json!({"future": 2}))]
    pub rejected: std::collections::BTreeMap<String, u64>,
    /// Samples merged.
    pub samples: u64,
    /// Search nodes it reports for.
    pub instances: Vec<String>,
    /// When the certificate it last came with ends; `null` until it came to this process.
    #[serde(serialize_with = "super::incomplete::rfc3339_or_null")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub certificate_expires: Option<UnixNanos>,
    /// Generation of the flags it has in force; 0 before it took any, `null` until it said so.
    pub applied_generation: Option<u64>,
    /// Nodes' flag pages that carry it; `null` until it said so.
    pub flag_pages: Option<u32>,
    /// Nodes' flag pages it could not write; `null` until it said so.
    pub flag_pages_failed: Option<u32>,
    /// What is wrong with the last flags it was sent, if anything is.
    #[schema(example = "signed by another control key than the agent holds")]
    pub flag_trouble: Option<&'static str>,
    /// End of what it accounted for; `null` before its first delta.
    #[serde(serialize_with = "super::incomplete::rfc3339_or_null")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub covered_to: Option<UnixNanos>,
    /// Whether it said goodbye.
    pub left: bool,
    /// Stretches of time it did not account for, the present one without an end.
    pub gaps: Vec<Gap>,
    /// Age of the oldest frame in its spool, seconds: not reported yet.
    pub spool_age_s: Option<f64>,
    /// Samples it dropped: not reported yet.
    pub dropped: Option<u64>,
    /// Why the fields that are `null` are.
    pub reason: Option<String>,
}

impl Agent {
    pub(super) fn new(name: &str, state: &AgentState, now: UnixNanos) -> Self {
        Self {
            name: name.to_owned(),
            identity: state.identity.clone(),
            version: state.version.clone(),
            incarnation: state.incarnation.to_string(),
            address: state.address.map(|at| at.to_string()),
            connected: state.connected,
            last_frame: state.last_frame,
            age_s: now.since(state.last_frame).as_secs_f64(),
            lag_ms: Nanos(state.lag_nanos).as_millis_f64(),
            clock_offset_ms: state.clock_offset_nanos as f64 / 1e6,
            acked: state.acked.0,
            deltas: state.deltas,
            duplicates: state.duplicates,
            late: state.late,
            rejected: state.rejected.clone(),
            samples: state.samples,
            instances: state.instances.clone(),
            certificate_expires: state.certificate_expires,
            applied_generation: state.applied.map(|applied| applied.generation),
            flag_pages: state.applied.map(|applied| applied.pages),
            flag_pages_failed: state.applied.map(|applied| applied.failed),
            flag_trouble: state.applied.and_then(|applied| applied.trouble.as_str()),
            covered_to: state.coverage.to,
            left: state.coverage.left && !state.connected,
            gaps: state
                .coverage
                .missing(Span::ALL, state.heard(), now)
                .into_iter()
                .map(|(from, to)| Gap { from, to })
                .collect(),
            spool_age_s: None,
            dropped: None,
            reason: Some("spool_age_s and dropped: agents do not report them yet".into()),
        }
    }
}
