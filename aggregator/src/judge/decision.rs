//! What a judge says, in the form it is printed, logged and sent.

use lens_model::{Arm, Slice, Stage};
use serde::Serialize;
use serde_json::{Map, Value};

use super::slot::SlotWindows;

/// Which judge speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The tail rule.
    Tail,
    /// The canary against the baseline.
    Canary,
    /// An absolute limit, or the whole query against its baseline.
    Slo,
    /// Trend, forecast and drift of a ratio.
    Trend,
    /// A host that differs from its peers.
    Host,
}

/// One decision and what it rests on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Decision {
    /// End of the last slot it rests on, milliseconds from the slots' origin.
    pub t_ms: i64,
    /// Which judge.
    pub kind: Kind,
    /// The slice; `null` when it is about all of them.
    pub slice: Option<Slice>,
    /// The stage; `null` when it is about all of them.
    pub stage: Option<Stage>,
    /// The arm; `null` when it is about both.
    pub arm: Option<Arm>,
    /// The word.
    pub decision: &'static str,
    /// Numbers behind it.
    pub evidence: Value,
}

/// A judge driven slot by slot.
///
/// It is given every slot once, in ascending order, the empty ones included, each after the
/// watermark has passed it; it keeps what it needs of them.
pub trait SlotJudge {
    /// Takes in one slot and adds what it decides to `decisions`.
    fn slot(&mut self, windows: &SlotWindows, decisions: &mut Vec<Decision>);

    /// Adds its part, under names of its own, to the summary after the last slot.
    fn summarise(&self, summary: &mut Map<String, Value>);
}
