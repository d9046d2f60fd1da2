//! One decision about a rollout, with everything it rests on.

use serde::{Deserialize, Serialize};

use crate::judge::canary::{Blocker, Evidence};

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// The canary is worse: it gets no more traffic.
    Rollback,
    /// It is not worse than the step's margins: the next step begins.
    Promote,
    /// Neither is shown.
    Hold,
    /// It is not worse than the last step's margins: the rollout is done.
    Complete,
    /// There is nothing to decide on.
    InsufficientData,
}

impl Word {
    /// The name used in JSON and events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rollback => "rollback",
            Self::Promote => "promote",
            Self::Hold => "hold",
            Self::Complete => "complete",
            Self::InsufficientData => "insufficient_data",
        }
    }
}

/// One decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// When, milliseconds from the slots' origin.
    pub t_ms: i64,
    /// What.
    pub word: Word,
    /// One sentence for people.
    pub reason: String,
    /// The rule that was applied, with its bounds.
    pub rule: String,
    /// The share of requests it was made at, percent.
    pub share: f64,
    /// The share from now on, percent.
    pub share_next: f64,
    /// What stands in the way of promotion; empty when nothing does.
    pub blockers: Vec<Blocker>,
    /// Counts, statistics and bounds, whole.
    pub evidence: Evidence,
}
