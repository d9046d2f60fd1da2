//! What was exported of each series, and since when: start times, resets, and what is left to send.
//!
//! Cumulative: a series' counts since the store was made, which outlive restarts, with that instant
//! as their start. Should a counter be smaller than it was, the counts began anew: then the start is
//! the last instant at which they were still the old ones, as receivers expect of a reset.
//! Delta: what was merged since the last point that was settled. What was not settled is in the next
//! point, so a receiver that is away loses time resolution and no sample. A process begins at what
//! the store had, and what it sent is not written down: of a crash's last interval nothing is told.
//! Bound: one entry a series, `AGGREGATOR_SERIES_MAX` of them; with delta each holds its counts.
//! Promise: pure; `now` is an argument.

use std::collections::HashMap;

use lens_hist::{Counts, Sparse};
use lens_model::{SeriesKey, UnixNanos};

/// What the numbers of a point are counted since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Temporality {
    /// Since the series began.
    #[default]
    Cumulative,
    /// Since the point before it.
    Delta,
}

impl Temporality {
    /// The temporality of this name.
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "cumulative" => Some(Self::Cumulative),
            "delta" => Some(Self::Delta),
            _ => None,
        }
    }
}

#[derive(Debug, Default)]
struct Held {
    /// What the counts of the next point begin with.
    start: UnixNanos,
    /// When they were last read.
    read: UnixNanos,
    /// Samples then.
    total: u64,
    /// With delta: the counts that are settled.
    settled: Sparse,
}

/// The state of every series as its receiver knows it.
#[derive(Debug)]
pub struct Ledger {
    temporality: Temporality,
    /// When a series that is not held yet began.
    since: UnixNanos,
    held: HashMap<SeriesKey, Held>,
    /// When everything was last gathered.
    collected: UnixNanos,
}

/// What settles one point.
#[derive(Clone, Debug)]
pub struct Mark {
    key: SeriesKey,
    read: UnixNanos,
    counts: Sparse,
}

impl Ledger {
    /// An empty ledger: series it does not know began at `since`, or at an instant nobody knows
    /// when that is 0.
    pub fn new(temporality: Temporality, since: UnixNanos) -> Self {
        Self { temporality, since, held: HashMap::new(), collected: UnixNanos(0) }
    }

    /// With delta: takes a series' counts as settled at `now`, as they are at the beginning.
    pub fn begin(&mut self, key: SeriesKey, counts: &Counts, now: UnixNanos) {
        if self.temporality == Temporality::Delta {
            let (total, settled) = (counts.total(), counts.to_sparse());
            self.held.insert(key, Held { start: now, read: now, total, settled });
        }
    }

    /// Notes that everything is gathered at `now`; when that was done before.
    pub fn collect(&mut self, now: UnixNanos) -> UnixNanos {
        std::mem::replace(&mut self.collected, now)
    }

    /// Makes of a series' counts at `now` those of its next point. Gives the point's start, and what
    /// settles it where that is needed; `None` when there is nothing to tell.
    pub fn open(
        &mut self,
        key: &SeriesKey,
        counts: &mut Counts,
        now: UnixNanos,
    ) -> Option<(UnixNanos, Option<Mark>)> {
        let total = counts.total();
        let start = self.since.min(now);
        let held = self.held.entry(key.clone()).or_insert_with(|| Held {
            start,
            read: start,
            ..Held::default()
        });
        let shrank = match self.temporality {
            Temporality::Cumulative => total < held.total,
            Temporality::Delta => shrank(counts, &held.settled),
        };
        if shrank {
            (held.start, held.settled) = (held.read, Sparse::new());
        }
        (held.total, held.read) = (total, now.max(held.read));
        if self.temporality == Temporality::Cumulative {
            return (total > 0).then_some((held.start.min(now), None));
        }
        let mark = Mark { key: key.clone(), read: held.read, counts: counts.to_sparse() };
        *counts = less(counts, &held.settled);
        if counts.total() == 0 {
            held.start = held.read;
            return None;
        }
        Some((held.start, Some(mark)))
    }

    /// The instant a point that was opened at `now` ends, never before it starts.
    pub fn end(&self, key: &SeriesKey, now: UnixNanos) -> UnixNanos {
        self.held.get(key).map_or(now, |held| held.read.max(now))
    }

    /// Notes that a point needs no sending any more.
    pub fn settle(&mut self, mark: Mark) {
        if let Some(held) = self.held.get_mut(&mark.key) {
            (held.start, held.settled) = (mark.read, mark.counts);
        }
    }
}

fn shrank(counts: &Counts, before: &Sparse) -> bool {
    before.entries().iter().any(|&(at, count)| counts.slots()[usize::from(at)] < count)
}

/// What was counted since `before`, every counter of which has grown or stayed.
fn less(counts: &Counts, before: &Sparse) -> Counts {
    let mut rest = Counts::new();
    let mut before = before.entries().iter().copied().peekable();
    for (at, &count) in counts.slots().iter().enumerate().filter(|(_, count)| **count > 0) {
        let gone = before.next_if(|(held, _)| usize::from(*held) == at).map_or(0, |(_, n)| n);
        rest.add(at, count.saturating_sub(gone));
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use lens_model::{Arm, Slice, Stage};
    use proptest::prelude::*;

    const fn at(secs: u64) -> UnixNanos {
        UnixNanos(secs * 1_000_000_000)
    }

    fn key() -> SeriesKey {
        let slice = Slice::new("backend", "rust", "large").unwrap();
        SeriesKey { slice, stage: Stage::A, arm: Arm::Baseline }
    }

    fn counted(values: &[u64]) -> Counts {
        let mut counts = Counts::new();
        values.iter().for_each(|&value| counts.record(value));
        counts
    }

    #[test]
    fn cumulative_counts_keep_their_start_until_they_shrink() {
        let mut ledger = Ledger::new(Temporality::Cumulative, at(5));
        let (start, mark) = ledger.open(&key(), &mut counted(&[1, 2]), at(10)).unwrap();
        assert_eq!((start, mark.is_none()), (at(5), true));
        let mut more = counted(&[1, 2, 3]);
        assert_eq!(ledger.open(&key(), &mut more, at(20)).unwrap().0, at(5));
        assert_eq!(more, counted(&[1, 2, 3]));
        assert_eq!(ledger.open(&key(), &mut counted(&[4]), at(30)).unwrap().0, at(20), "reset");
        assert_eq!(ledger.open(&key(), &mut counted(&[4, 5]), at(40)).unwrap().0, at(20));
    }

    #[test]
    fn a_start_that_a_clock_set_back_made_later_than_now_is_now() {
        let mut ledger = Ledger::new(Temporality::Cumulative, at(500));
        assert_eq!(ledger.open(&key(), &mut counted(&[1]), at(10)).unwrap().0, at(10));
        let mut ledger = Ledger::new(Temporality::Delta, at(500));
        ledger.begin(key(), &Counts::new(), at(500));
        let (start, _) = ledger.open(&key(), &mut counted(&[1]), at(10)).unwrap();
        assert!(start <= ledger.end(&key(), at(10)));
    }

    #[test]
    fn what_was_not_settled_is_in_the_next_delta() {
        let mut ledger = Ledger::new(Temporality::Delta, at(5));
        ledger.begin(key(), &counted(&[7]), at(5));
        assert!(ledger.open(&key(), &mut counted(&[7]), at(6)).is_none(), "nothing new");
        let mut first = counted(&[7, 8]);
        let (start, lost) = ledger.open(&key(), &mut first, at(10)).unwrap();
        assert_eq!((start, first), (at(6), counted(&[8])));
        drop(lost);
        let mut second = counted(&[7, 8, 9]);
        let (start, mark) = ledger.open(&key(), &mut second, at(20)).unwrap();
        assert_eq!((start, second), (at(6), counted(&[8, 9])));
        ledger.settle(mark.unwrap());
        let mut third = counted(&[7, 8, 9, 9]);
        let (start, _) = ledger.open(&key(), &mut third, at(30)).unwrap();
        assert_eq!((start, third), (at(20), counted(&[9])));
    }

    #[test]
    fn a_series_that_comes_later_is_told_whole() {
        let mut ledger = Ledger::new(Temporality::Delta, at(5));
        let mut counts = counted(&[7]);
        let (start, _) = ledger.open(&key(), &mut counts, at(10)).unwrap();
        assert_eq!((start, counts), (at(5), counted(&[7])));
    }

    #[test]
    fn deltas_after_a_reset_tell_the_new_counts_and_none_below_zero() {
        let mut ledger = Ledger::new(Temporality::Delta, at(5));
        ledger.begin(key(), &counted(&[7, 7, 9]), at(5));
        let mut counts = counted(&[7, 8, 8, 8]);
        let (start, _) = ledger.open(&key(), &mut counts, at(10)).unwrap();
        assert_eq!((start, counts), (at(5), counted(&[7, 8, 8, 8])));
    }

    proptest! {
        #[test]
        fn settled_deltas_add_up_to_everything_merged(
            steps in prop::collection::vec(
                (prop::collection::vec(0_u64..1 << 37, 0..20), any::<bool>()), 1..20),
        ) {
            let mut ledger = Ledger::new(Temporality::Delta, at(0));
            let (mut all, mut told) = (Counts::new(), Counts::new());
            let mut last_end = at(0);
            for (now, (values, taken)) in (1_u64..).zip(&steps) {
                all.merge(&counted(values));
                let mut point = all.clone();
                let Some((start, mark)) = ledger.open(&key(), &mut point, at(now)) else { continue };
                prop_assert!(start >= last_end, "no two settled points overlap");
                if *taken {
                    told.merge(&point);
                    ledger.settle(mark.unwrap());
                    last_end = at(now);
                }
            }
            let mut rest = all.clone();
            if ledger.open(&key(), &mut rest, at(99)).is_some() {
                told.merge(&rest);
            }
            prop_assert_eq!(told, all);
        }
    }
}
