//! Where a question about a span of time is answered from: memory, or the store.
//!
//! Memory is asked as long as it has all of the span; otherwise the store is, at the finest
//! resolution it keeps for all of it, or a coarser one that says the same. Either way the answer is
//! the exact sum of what was merged, and says at which resolution.

use lens_hist::{Counts, Sparse};
use lens_model::{Nanos, UnixNanos};

use super::Problem;
use crate::state::State;
use crate::store::{Resolution, StoreError, View};
use crate::window::{Selection, Span};

/// Steps copied out under one lock.
const STEPS_PER_LOCK: u64 = 32;

/// One question's span, as it is answered.
pub(super) struct Past<'a> {
    state: &'a State,
    /// The span, widened to whole slots of the resolution.
    pub(super) span: Span,
    /// The step, widened to whole slots.
    pub(super) step: Option<Nanos>,
    /// Start of the oldest slot that is held at this resolution.
    pub(super) held_from: UnixNanos,
    resolution: Resolution,
    view: Option<View>,
}

fn failed(error: &StoreError) -> Problem {
    Problem::unavailable(format!("{error}: ask again later"))
}

impl<'a> Past<'a> {
    /// Chooses where to ask.
    pub(super) fn of(
        state: &'a State,
        span: Span,
        step: Option<Nanos>,
        now: UnixNanos,
    ) -> Result<Self, Problem> {
        let held_from = state.windows.read().held_from(now);
        let recent =
            Self { state, span, step, held_from, resolution: Resolution::Base, view: None };
        if span.from >= held_from {
            return Ok(recent);
        }
        let Some(history) = state.history() else {
            let held = lens_service::time::rfc3339(held_from);
            let closed = |why| format!("the store is not open: {why}: ask from {held} on");
            return state
                .faulted()
                .map_or(Ok(recent), |why| Err(Problem::unavailable(closed(why))));
        };
        let view = history.view().map_err(|error| failed(&error))?;
        let resolution = view.resolution(span, step);
        let width = resolution.width().0;
        let up = |nanos: u64| nanos.div_ceil(width).saturating_mul(width);
        // What is not rolled up yet has no need to be widened.
        let whole = resolution == Resolution::Base || span.to >= view.rolled_to();
        let to = if whole { span.to } else { UnixNanos(up(span.to.0)) };
        let span = Span { from: UnixNanos(span.from.0 / width * width), to };
        let step = step.map(|step| Nanos(up(step.0)));
        let held_from = view.begins(resolution).map_err(|error| failed(&error))?;
        Ok(Self { state, span, step, held_from, resolution, view: Some(view) })
    }

    /// The width of the slots it is answered from.
    pub(super) const fn resolution(&self) -> Nanos {
        self.resolution.width()
    }

    /// Adds the selected series' counts over the whole span.
    pub(super) fn sum(&self, selection: &Selection, counts: &mut Counts) -> Result<(), Problem> {
        let Some(view) = &self.view else {
            self.state.windows.read().sum(selection, self.span, counts);
            return Ok(());
        };
        let width = self.span.to.since(self.span.from);
        let each = |_, sum: &Counts| counts.merge(sum);
        let summed = view.steps(selection, self.span, self.resolution, width, each);
        summed.map_err(|error| failed(&error))
    }

    /// Calls `each` with the start and counts of every step that holds samples. In memory the lock
    /// is held for a few steps at a time, and never while `each` runs.
    pub(super) fn each_step(
        &self,
        selection: &Selection,
        step: Nanos,
        mut each: impl FnMut(UnixNanos, &Counts),
    ) -> Result<(), Problem> {
        if let Some(view) = &self.view {
            let stepped = view.steps(selection, self.span, self.resolution, step, each);
            return stepped.map_err(|error| failed(&error));
        }
        let skipped = self.held_from.since(self.span.from).0 / step.0;
        let chunk = Nanos(step.0.saturating_mul(STEPS_PER_LOCK));
        let mut from = self.span.from.plus(Nanos(skipped.saturating_mul(step.0)));
        let mut counts = Counts::new();
        while from < self.span.to {
            let part = Span { from, to: from.plus(chunk).min(self.span.to) };
            let mut found: Vec<(UnixNanos, Sparse)> = Vec::new();
            self.state.windows.read().steps(selection, part, step, |t, counts| {
                found.push((t, counts.to_sparse()));
            });
            for (t, sparse) in &found {
                counts.clear();
                counts.merge_sparse(sparse);
                each(*t, &counts);
            }
            from = part.to;
        }
        Ok(())
    }
}
