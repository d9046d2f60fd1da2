//! Numbers that deltas found in a spool bear, against the ones they would have without the lost ones.
//!
//! Where records are lost, those that are left are numbered side by side, and what they were sent
//! under is kept here until the aggregator has said how far it merged them.

use lens_model::{Incarnation, Sequence};

/// Deltas of which both numbers ascend one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    now: u64,
    then: u64,
    count: u64,
}

/// The numbers of one life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Former {
    pub(super) life: Incarnation,
    runs: Vec<Run>,
    /// The last number that is accounted for.
    last: u64,
    /// The first number that is missing.
    pub(super) lost: Option<Sequence>,
}

impl Former {
    /// Of a life of which everything up to `last` was dealt with.
    pub(super) const fn new(life: Incarnation, last: Sequence) -> Self {
        Self { life, runs: Vec::new(), last: last.0, lost: None }
    }

    /// Of a life that begins with so many deltas held, numbered from 1.
    pub(super) fn renumbered(life: Incarnation, held: u64) -> Self {
        let runs = (held > 0).then_some(Run { now: 1, then: 1, count: held });
        Self { life, runs: runs.into_iter().collect(), last: held, lost: None }
    }

    /// Notes that the baselines hold everything up to a number, whatever was lost before it.
    pub(super) fn sure_up_to(&mut self, then: Sequence) {
        (self.last, self.lost) = (self.last.max(then.0), None);
    }

    /// Notes a delta: its number here, and what it was sent under.
    pub(super) fn push(&mut self, now: Sequence, life: Incarnation, then: Sequence) {
        if life != self.life || then.0 <= self.last {
            // Of what does not follow nothing is sure, not even what is missing.
            self.lost = Some(Sequence(0));
            return;
        }
        if then.0 > self.last + 1 {
            self.lost = self.lost.or(Some(Sequence(self.last + 1)));
        }
        match self.runs.last_mut() {
            Some(run) if run.now + run.count == now.0 && run.then + run.count == then.0 => {
                run.count += 1;
            }
            _ => self.runs.push(Run { now: now.0, then: then.0, count: 1 }),
        }
        self.last = then.0;
    }

    /// The last number that is accounted for.
    pub(super) const fn last(&self) -> Sequence {
        Sequence(self.last)
    }

    /// The last number here of a delta that was sent under `then` or a lower number; 0 for none.
    pub(super) fn up_to(&self, then: Sequence) -> Sequence {
        let before = self.runs.iter().take_while(|run| run.then <= then.0);
        let last = before.last().map_or(0, |run| run.now + (then.0 - run.then).min(run.count - 1));
        Sequence(last)
    }

    /// Whether something that was merged up to `merged` is missing here, so that what else was
    /// counted cannot be told from it.
    pub(super) fn lost_merged(&self, merged: Sequence) -> bool {
        self.lost.is_some_and(|lost| lost <= merged) || merged.0 > self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Incarnation = Incarnation(7);

    fn of(numbers: &[u64]) -> Former {
        let mut former = Former::new(LIFE, Sequence(10));
        for (now, then) in (11..).zip(numbers) {
            former.push(Sequence(now), LIFE, Sequence(*then));
        }
        former
    }

    #[test]
    fn what_was_merged_is_found_on_both_sides_of_a_hole() {
        let former = of(&[11, 12, 15, 16, 20]);
        let up_to = |then| former.up_to(Sequence(then)).0;
        assert_eq!([10, 11, 12, 14].map(up_to), [0, 11, 12, 12]);
        assert_eq!([15, 16, 19, 20, 99].map(up_to), [13, 14, 14, 15, 15]);
    }

    #[test]
    fn only_a_merged_number_that_is_missing_makes_counts_unknown() {
        let merged = |former: &Former, to| former.lost_merged(Sequence(to));
        let whole = of(&[11, 12]);
        assert_eq!([10, 12, 13].map(|to| merged(&whole, to)), [false, false, true]);
        let holed = of(&[11, 14]);
        assert_eq!([11, 12, 14].map(|to| merged(&holed, to)), [false, true, true]);
    }

    #[test]
    fn what_is_lost_before_a_snapshot_is_in_its_baselines() {
        let mut former = of(&[11, 14]);
        former.sure_up_to(Sequence(15));
        assert!(!former.lost_merged(Sequence(15)));
        former.push(Sequence(13), LIFE, Sequence(16));
        assert_eq!(former.up_to(Sequence(16)), Sequence(13));
        assert!(!former.lost_merged(Sequence(16)) && former.lost_merged(Sequence(17)));
    }

    #[test]
    fn a_life_that_begins_anew_numbers_what_is_held_from_one() {
        let former = Former::renumbered(LIFE, 3);
        assert_eq!([0, 1, 3, 4].map(|then| former.up_to(Sequence(then)).0), [0, 1, 3, 3]);
        assert_eq!(Former::renumbered(LIFE, 0), Former::new(LIFE, Sequence(0)));
    }

    #[test]
    fn of_what_does_not_follow_nothing_is_known() {
        let mut former = of(&[11, 12]);
        former.push(Sequence(13), Incarnation(8), Sequence(13));
        assert!(former.lost_merged(Sequence(0)));
        assert!(of(&[11, 11]).lost_merged(Sequence(0)));
    }
}
