//! Which stretches of time an agent has accounted for, and which it never will.
//!
//! Within one life an agent's deltas follow each other without a hole (their numbers do, and the
//! store takes none out of turn), so everything up to the end of its newest delta is accounted for.
//! A *gap* is the time between the end of the newest delta of one life and the start of the first
//! of the next, unless the agent said goodbye: it ended with counts nobody will ever deliver. An
//! agent that neither said goodbye nor is heard of has a gap that is still open.
//! Bound: [`GAPS_MAX`] gaps an agent; one more joins its nearest neighbour, so that what is unknown
//! is at worst said to be more than it is, never less.
//! Promise: pure. Times are by the aggregator's clock.

use lens_model::limits::EVENT_FUTURE_SECS_MAX;
use lens_model::{Nanos, UnixNanos};
use serde::{Deserialize, Serialize};

use crate::window::Span;

/// Gaps kept per agent.
pub const GAPS_MAX: usize = 64;

/// Shorter holes are clocks that were measured a little differently.
pub const TOLERANCE: Nanos = Nanos::from_secs(2);

/// Silence after which an agent that is not connected is missing: long enough to connect anew.
pub const SILENCE: Nanos = Nanos::from_secs(5);

/// What is known of one agent's past.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// End of the newest interval accounted for; `None` before the first delta.
    pub to: Option<UnixNanos>,
    /// Whether it said goodbye after it.
    pub left: bool,
    /// Stretches that are not accounted for, in order, disjoint.
    pub gaps: Vec<(UnixNanos, UnixNanos)>,
}

impl Coverage {
    /// Takes in a delta of `span`. `first` says that it is the first of a life not known before.
    pub fn cover(&mut self, span: Span, first: bool, now: UnixNanos) {
        let newest = now.plus(Nanos::from_secs(EVENT_FUTURE_SECS_MAX));
        let span = Span { from: span.from.min(newest), to: span.to.min(newest) };
        if let Some(to) = self.to
            && first
            && !self.left
            && span.from.since(to) > TOLERANCE
        {
            self.add(to, span.from);
        }
        // Deltas of the same life reach back to its last one, however long that is ago.
        let from = match self.to {
            Some(to) if !first => span.from.min(to),
            _ => span.from,
        };
        self.close(Span { from, to: span.to });
        self.to = Some(self.to.map_or(span.to, |to| to.min(newest).max(span.to)));
        self.left = false;
    }

    /// The stretches within `span` that nothing accounts for; one without an end is still open.
    /// `heard` as for [`Coverage::open`].
    pub fn missing(
        &self,
        span: Span,
        heard: Option<UnixNanos>,
        now: UnixNanos,
    ) -> Vec<(UnixNanos, Option<UnixNanos>)> {
        let touches = |from: UnixNanos, to: UnixNanos| from < span.to && to > span.from;
        let closed = self.gaps.iter().filter(|(from, to)| touches(*from, *to));
        let mut missing: Vec<_> = closed.map(|(from, to)| (*from, Some(*to))).collect();
        if let Some(from) = self.open(heard, now).filter(|from| touches(*from, now)) {
            missing.push((from, None));
        }
        missing
    }

    /// Since when the agent is missing, if it is. `heard` is when the life that these deltas are of
    /// was last heard of, `None` while it is connected: its silence is then an answer.
    pub fn open(&self, heard: Option<UnixNanos>, now: UnixNanos) -> Option<UnixNanos> {
        let to = self.to.filter(|_| !self.left)?;
        heard.is_some_and(|heard| now.since(heard) > SILENCE).then_some(to)
    }

    fn add(&mut self, from: UnixNanos, to: UnixNanos) {
        self.gaps.push((from, to));
        self.gaps.sort_unstable();
        while self.gaps.len() > GAPS_MAX {
            let apart = |at: &usize| self.gaps[at + 1].0.since(self.gaps[*at].1);
            let Some(at) = (0..self.gaps.len() - 1).min_by_key(apart) else { return };
            self.gaps[at].1 = self.gaps[at].1.max(self.gaps[at + 1].1);
            self.gaps.remove(at + 1);
        }
    }

    /// Takes a stretch that is accounted for out of the gaps.
    fn close(&mut self, span: Span) {
        if self.gaps.iter().all(|(from, to)| *to <= span.from || *from >= span.to) {
            return;
        }
        let gaps = std::mem::take(&mut self.gaps);
        for (from, to) in gaps {
            let before = (from, to.min(span.from));
            let after = (from.max(span.to), to);
            let outside = to <= span.from || from >= span.to;
            for (from, to) in if outside { [(from, to), (to, to)] } else { [before, after] } {
                // What is left over of less than the tolerance is measurement.
                if from < to && (outside || to.since(from) > TOLERANCE) {
                    self.add(from, to);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn at(secs: u64) -> UnixNanos {
        UnixNanos(secs * 1_000_000_000)
    }

    const fn span(from: u64, to: u64) -> Span {
        Span { from: at(from), to: at(to) }
    }

    const LONG: UnixNanos = at(1 << 30);

    #[test]
    fn a_new_life_leaves_a_gap_from_the_end_of_the_old_one() {
        let mut coverage = Coverage::default();
        coverage.cover(span(10, 11), true, LONG);
        coverage.cover(span(11, 12), false, LONG);
        coverage.cover(span(40, 41), true, LONG);
        assert_eq!(coverage.gaps, [(at(12), at(40))]);
        assert_eq!(coverage.missing(span(0, 12), None, at(41)), []);
        assert_eq!(coverage.missing(span(39, 50), None, at(41)), [(at(12), Some(at(40)))]);
    }

    #[test]
    fn silence_within_a_life_and_the_time_after_a_goodbye_are_no_gaps() {
        let mut coverage = Coverage::default();
        coverage.cover(span(10, 11), true, LONG);
        coverage.cover(span(500, 501), false, LONG);
        coverage.left = true;
        coverage.cover(span(900, 901), true, LONG);
        assert_eq!(coverage.gaps, []);
    }

    #[test]
    fn an_agent_not_heard_of_since_is_an_open_gap_unless_it_said_goodbye_or_is_connected() {
        let mut coverage = Coverage::default();
        coverage.cover(span(10, 11), true, LONG);
        let heard = Some(at(300));
        assert_eq!(coverage.open(heard, at(305)), None, "five seconds to connect anew");
        assert_eq!(coverage.open(heard, at(306)), Some(at(11)), "from its last delta, not its end");
        assert_eq!(coverage.missing(span(0, 400), heard, at(306)), [(at(11), None)]);
        assert_eq!(coverage.open(None, at(9_999)), None);
        coverage.left = true;
        assert_eq!(coverage.open(heard, at(9_999)), None);
    }

    #[test]
    fn a_later_delta_of_the_old_life_closes_what_it_covers() {
        let mut coverage = Coverage::default();
        coverage.cover(span(10, 20), true, LONG);
        coverage.cover(span(100, 110), true, LONG);
        coverage.cover(span(20, 60), false, LONG);
        assert_eq!(coverage.gaps, [(at(60), at(100))]);
        coverage.cover(span(60, 99), false, LONG);
        assert_eq!(coverage.gaps, [], "a second is within the tolerance");
    }

    #[test]
    fn one_gap_more_than_the_bound_joins_its_nearest_neighbour() {
        let mut coverage = Coverage::default();
        for n in 0..=GAPS_MAX as u64 {
            coverage.cover(span(n * 100, n * 100 + 10 + n % 7), true, LONG);
        }
        assert_eq!(coverage.gaps.len(), GAPS_MAX);
        coverage.cover(span(100_000, 100_001), true, LONG);
        assert_eq!(coverage.gaps.len(), GAPS_MAX);
        assert_eq!(coverage.gaps.last(), Some(&(at(6_411), at(100_000))));
    }

    proptest! {
        #[test]
        fn gaps_stay_in_order_and_disjoint(
            deltas in prop::collection::vec((0_u64..10_000, 1_u64..50, any::<bool>()), 1..300),
        ) {
            let mut coverage = Coverage::default();
            for (from, length, first) in deltas {
                coverage.cover(span(from, from + length), first, LONG);
                prop_assert!(coverage.gaps.len() <= GAPS_MAX);
                prop_assert!(coverage.gaps.iter().all(|(from, to)| from < to));
                prop_assert!(coverage.gaps.windows(2).all(|pair| pair[0].1 <= pair[1].0));
            }
        }
    }
}
