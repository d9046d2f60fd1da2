//! Turns verdicts into events: says so when one changes, and only then.

use std::collections::HashMap;

use lens_model::SeriesKey;

use super::Verdict;
use crate::snapshot::Snapshot;
use crate::state::State;

/// Remembers the last verdict of every series, to tell changes from repetition.
///
/// The aggregator ticks it once per base window. A series' first verdict is told unless it is
/// `insufficient_data`, which every series begins with.
#[derive(Debug, Default)]
pub struct Watch {
    held: HashMap<SeriesKey, Verdict>,
}

impl Watch {
    /// A watch that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells `state`'s listeners of every verdict that differs from the last tick's.
    pub fn tick(&mut self, state: &State, snapshot: &Snapshot) {
        for row in &snapshot.rows {
            let key = row.key();
            let before = self.held.get(&key).copied().unwrap_or(Verdict::InsufficientData);
            if before == row.verdict {
                continue;
            }
            let (now, reason) = (row.verdict, &row.reason);
            state.tell("verdict", key.to_string(), format!("{before} → {now}: {reason}"));
            self.held.insert(key, now);
        }
    }
}
