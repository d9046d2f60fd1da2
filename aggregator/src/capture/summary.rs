//! What is known of a capture beside its counts: whose it is, who answered, which requests were slow.

use lens_model::{AgentName, Arm, Slice, Stage, UnixNanos};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Asked;
use crate::state::State;
use crate::window::{Selection, Span};

/// Slow requests kept with a capture.
const SLOW_MAX: usize = 200;

/// How far a capture is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stand {
    /// Agents are being asked.
    Collecting,
    /// It is whole, as far as agents answered.
    Done,
    /// It could not be kept.
    Failed,
}

/// What became of one agent's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// It was asked.
    Waiting,
    /// It answered.
    Answered,
    /// It had not answered in time.
    TooLate,
    /// Its connection ended before it had answered.
    Lost,
    /// It is connected and of a version that cannot be asked.
    CannotAnswer,
}

/// One agent's part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentPart {
    /// The agent.
    pub agent: AgentName,
    /// What became of it.
    pub state: Part,
    /// From when on it held anything.
    pub held_from: Option<UnixNanos>,
    /// Steps it gave.
    pub steps: u64,
    /// Steps it had let go before their time, since it began.
    pub steps_left_out: u64,
}

impl AgentPart {
    pub(super) fn new(agent: &AgentName) -> Self {
        Self {
            agent: agent.clone(),
            state: Part::Waiting,
            held_from: None,
            steps: 0,
            steps_left_out: 0,
        }
    }
}

/// A slow request of the time captured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SlowRequest {
    /// When it was recorded.
    pub t: UnixNanos,
    /// The slice.
    pub slice: Slice,
    /// The stage.
    pub stage: Stage,
    /// The arm.
    pub arm: Arm,
    /// How long it took, milliseconds.
    pub latency_ms: f64,
    /// Its trace, 32 hexadecimal digits.
    pub trace_id: String,
    /// The agent that sent it.
    pub agent: String,
    /// The search node that served it.
    pub instance: String,
}

/// One capture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Its number.
    pub id: u64,
    /// How far it is.
    pub stand: Stand,
    /// Why it failed.
    pub failure: Option<String>,
    /// Why it was begun.
    pub reason: String,
    /// Who began it; `alert` for a violation.
    pub by: String,
    /// When it was begun.
    pub begun: UnixNanos,
    /// When it was over.
    pub finished: Option<UnixNanos>,
    /// Beginning of the time captured.
    pub from: UnixNanos,
    /// First instant past it.
    pub to: UnixNanos,
    /// Only this slice.
    pub slice: Option<Slice>,
    /// Only this stage.
    pub stage: Option<Stage>,
    /// Only this arm.
    pub arm: Option<Arm>,
    /// Agents and what became of their part.
    pub agents: Vec<AgentPart>,
    /// Steps in it, over all series and nodes.
    pub steps: u64,
    /// Series and nodes in it.
    pub series: u64,
    /// Samples in it.
    pub samples: u64,
    /// Whether it was cut at the bound on a capture's size.
    pub truncated: bool,
    /// Slow requests of the time, slowest first.
    pub exemplars: Vec<SlowRequest>,
    /// Its files: format and bytes.
    pub files: Vec<(String, u64)>,
}

impl Summary {
    pub(super) fn new(
        id: u64,
        begun: UnixNanos,
        span: Span,
        selection: &Selection,
        by: &str,
        reason: &str,
    ) -> Self {
        Self {
            id,
            stand: Stand::Collecting,
            failure: None,
            reason: reason.to_owned(),
            by: by.to_owned(),
            begun,
            finished: None,
            from: span.from,
            to: span.to,
            slice: selection.slice.clone(),
            stage: selection.stage,
            arm: selection.arm,
            agents: Vec::new(),
            steps: 0,
            series: 0,
            samples: 0,
            truncated: false,
            exemplars: Vec::new(),
            files: Vec::new(),
        }
    }

    /// Its number as addresses and files have it.
    pub fn name(&self) -> String {
        format!("{:016x}", self.id)
    }

    pub(super) fn failed(&mut self, why: &str) {
        (self.stand, self.failure) = (Stand::Failed, Some(why.to_owned()));
    }
}

/// The slowest requests of what a capture asks for.
pub(super) fn slow(state: &State, asked: &Asked) -> Vec<SlowRequest> {
    let held = state.exemplars.read();
    let slowest = held.slowest(&asked.selection, asked.span, SLOW_MAX);
    slowest
        .into_iter()
        .map(|(key, held)| SlowRequest {
            t: held.exemplar.at,
            slice: key.slice.clone(),
            stage: key.stage,
            arm: key.arm,
            latency_ms: held.exemplar.seconds() * 1e3,
            trace_id: held.exemplar.trace.id_hex(),
            agent: held.agent.to_string(),
            instance: held.instance.to_string(),
        })
        .collect()
}
