//! What the judge is fed: the counts of one 5 s slot, by slice, stage, arm and host.
//!
//! A slot is judged once, after the watermark has passed it, in ascending order: a later delta
//! corrects what is shown and never the evidence, or it would count twice.

use std::sync::Arc;

use lens_hist::Sparse;
use lens_model::limits::WINDOW_BASE_SECS;
use lens_model::{Arm, Nanos, Slice, Stage};

use crate::window::Host;

/// Width of a slot.
pub const SLOT: Nanos = Nanos::from_secs(WINDOW_BASE_SECS);

/// The number of a slot: 5 s each from an origin of the caller's, negative before it.
///
/// Live, the origin is the Unix epoch; in a replay it is the start of the rollout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub i64);

impl Slot {
    /// The slot that a time lies in, milliseconds from the origin.
    pub const fn of_millis(millis: i64) -> Self {
        Self(millis.div_euclid(WINDOW_BASE_SECS as i64 * 1_000))
    }

    /// Its beginning, milliseconds from the origin.
    pub const fn start_millis(self) -> i64 {
        self.0 * (WINDOW_BASE_SECS as i64 * 1_000)
    }

    /// Its end, milliseconds from the origin.
    pub const fn end_millis(self) -> i64 {
        self.next().start_millis()
    }

    /// The one after it.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// What one host recorded of one series in one slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostWindow {
    /// The slice of the corpus.
    pub slice: Arc<Slice>,
    /// The stage of the query.
    pub stage: Stage,
    /// The arm of the rollout.
    pub arm: Arm,
    /// The host: one search node as one agent reports it.
    pub host: Arc<str>,
    /// Latencies, nanoseconds.
    pub counts: Sparse,
    /// Requests answered.
    pub ok: u64,
    /// Requests that failed through the node's fault.
    pub errors: u64,
}

impl HostWindow {
    /// Nothing of a host yet.
    pub fn empty(slice: &Slice, stage: Stage, arm: Arm, host: &Host) -> Self {
        Self {
            slice: Arc::new(slice.clone()),
            stage,
            arm,
            host: format!("{}/{}", host.agent, host.instance).into(),
            counts: Sparse::new(),
            ok: 0,
            errors: 0,
        }
    }

    /// Latency samples.
    pub fn n(&self) -> u64 {
        self.counts.total()
    }

    /// Requests, answered or failed.
    pub const fn requests(&self) -> u64 {
        self.ok.saturating_add(self.errors)
    }
}

/// Everything recorded in one slot, in order of slice, stage, arm and host. Empty when nothing was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotWindows {
    /// Which slot.
    pub slot: Slot,
    /// One window a host and series; no two of the same.
    pub windows: Vec<HostWindow>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_the_origin_fall_in_negative_slots() {
        for (millis, slot) in [(0, 0), (4_999, 0), (5_000, 1), (-1, -1), (-5_000, -1), (-5_001, -2)]
        {
            assert_eq!(Slot::of_millis(millis), Slot(slot), "{millis}");
            assert!(Slot(slot).start_millis() <= millis && millis < Slot(slot).end_millis());
        }
    }
}
