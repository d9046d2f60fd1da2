//! What the merged counts mean: verdicts on tails, absolute limits, and the health of it all.
//!
//! Promise: everything here is a pure function of counts, rules and instants given; nothing reads
//! a clock, takes a lock or sends anything but through the caller's own hands.

pub mod canary;
pub mod decision;
pub mod dispersion;
pub mod drift;
mod health;
pub mod math;
pub mod peers;
pub mod pyramid;
pub mod replay;
mod slo;
pub mod slot;
pub mod standing;
pub mod survivors;
pub mod tail;
pub mod trend;
mod verdict;
mod watch;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use health::{Health, HealthStatus, Violation, ViolationKind, health};
pub use slo::{Slo, slo};
pub use verdict::{Decided, Evidence, TailVerdict, ratio, tail_verdict};
pub use watch::Watch;

/// What a series' samples say about a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The rule holds.
    Ok,
    /// The rule is broken.
    Violation,
    /// Too few samples to say.
    InsufficientData,
    /// Nothing was heard for longer than the configured silence.
    Stale,
}

impl Verdict {
    /// Every verdict.
    pub const ALL: [Self; 4] = [Self::Ok, Self::Violation, Self::InsufficientData, Self::Stale];

    /// The name used in JSON, labels and events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Violation => "violation",
            Self::InsufficientData => "insufficient_data",
            Self::Stale => "stale",
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
