//! Slow requests that can be looked up: the slowest of each series, of each half minute, with traces.
//!
//! They are examples beside the counts, held in memory alone: a restart begins without any, and what
//! comes twice, as after an agent's restart, is held once.
//! Bounds: [`PER_SLOT_MAX`] a series and slot, [`RETENTION`] of slots, `AGGREGATOR_EXEMPLARS_MAX` in
//! all. Promise: pure; `now` is an argument.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use lens_model::limits::{AGGREGATOR_EXEMPLARS_MAX, EVENT_FUTURE_SECS_MAX};
use lens_model::{AgentName, InstanceName, Nanos, SeriesKey, Trace, UnixNanos};

use crate::window::{Selection, Span};

/// The time in which the slowest compete.
const SLOT: Nanos = Nanos::from_secs(30);

/// Held of each series and slot.
const PER_SLOT_MAX: usize = 2;

/// How long they are held: the span of a question that names none.
pub const RETENTION: Nanos = Nanos::from_secs(15 * 60);

/// One slow request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exemplar {
    /// Which request it was.
    pub trace: Trace,
    /// How long it took.
    pub latency: Nanos,
    /// When it was recorded, by the aggregator's clock: the same each time it is shown, or whoever
    /// collects them would store it again.
    pub at: UnixNanos,
}

impl Exemplar {
    /// How long it took, seconds.
    pub fn seconds(&self) -> f64 {
        self.latency.as_secs_f64()
    }
}

/// One slow request, and where it was served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The request.
    pub exemplar: Exemplar,
    /// When it came here.
    pub came: UnixNanos,
    /// The agent that sent it.
    pub agent: AgentName,
    /// The search node it was served by.
    pub instance: InstanceName,
}

/// Why one was not held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOut {
    /// It is older than what is held, or from the future.
    OtherTime,
    /// As many are held as may be.
    Full,
}

impl LeftOut {
    /// As `/api/v1/agents` counts it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OtherTime => "exemplar of another time",
            Self::Full => "more exemplars than are held",
        }
    }
}

/// All that are held.
#[derive(Debug, Default)]
pub struct Exemplars {
    of: BTreeMap<SeriesKey, BTreeMap<u64, Vec<Held>>>,
    held: usize,
    /// The oldest slot that is held.
    oldest: u64,
}

impl Exemplars {
    /// Takes one, unless slower ones of its slot are held.
    ///
    /// # Errors
    /// [`LeftOut`] says why it could not be held.
    pub fn take(&mut self, key: &SeriesKey, new: Held, now: UnixNanos) -> Result<(), LeftOut> {
        self.prune(now);
        let slot = new.exemplar.at.0 / SLOT.0;
        let newest = now.0.saturating_add(Nanos::from_secs(EVENT_FUTURE_SECS_MAX).0);
        if slot < self.oldest || new.exemplar.at.0 > newest {
            return Err(LeftOut::OtherTime);
        }
        let full = self.held >= AGGREGATOR_EXEMPLARS_MAX;
        if full && !self.of.get(key).is_some_and(|slots| slots.contains_key(&slot)) {
            return Err(LeftOut::Full);
        }
        let held = self.of.entry(key.clone()).or_default().entry(slot).or_default();
        if held.iter().any(|held| held.exemplar == new.exemplar) {
            return Ok(());
        }
        let at = held.partition_point(|held| held.exemplar.latency >= new.exemplar.latency);
        let before = held.len();
        if before < PER_SLOT_MAX && full {
            return Err(LeftOut::Full);
        }
        held.insert(at, new);
        held.truncate(PER_SLOT_MAX);
        self.held += held.len() - before;
        Ok(())
    }

    /// Forgets slots that are older than they are held.
    fn prune(&mut self, now: UnixNanos) {
        let oldest = now.minus(RETENTION).0 / SLOT.0;
        if oldest <= self.oldest {
            return;
        }
        self.oldest = oldest;
        self.of.retain(|_, slots| {
            *slots = slots.split_off(&oldest);
            !slots.is_empty()
        });
        self.held = self.of.values().flat_map(BTreeMap::values).map(Vec::len).sum();
    }

    /// Those of the series selected that were recorded in a span, by series and slot.
    fn within<'a>(
        &'a self,
        selection: &'a Selection,
        span: Span,
    ) -> impl Iterator<Item = (&'a SeriesKey, &'a Held)> + 'a {
        let of = self.of.iter().filter(|(key, _)| selection.admits(key));
        of.flat_map(|(key, slots)| slots.values().flatten().map(move |held| (key, held)))
            .filter(move |(_, held)| (span.from..span.to).contains(&held.exemplar.at))
    }

    /// The slowest `most` of them, slowest first.
    pub fn slowest<'a>(
        &'a self,
        selection: &'a Selection,
        span: Span,
        most: usize,
    ) -> Vec<(&'a SeriesKey, &'a Held)> {
        let mut found: Vec<_> = self.within(selection, span).collect();
        found.sort_by_key(|(_, held)| Reverse(held.exemplar.latency));
        found.truncate(most);
        found
    }

    /// The newest `most` of a series that came after an instant, oldest first.
    pub fn newest(&self, key: &SeriesKey, after: UnixNanos, most: usize) -> Vec<Held> {
        let slots = self.of.get(key).into_iter().flat_map(BTreeMap::values).flatten();
        let mut held: Vec<Held> = slots.filter(|held| held.came > after).cloned().collect();
        held.sort_by_key(|held| held.exemplar.at);
        held.split_off(held.len().saturating_sub(most))
    }

    /// How many are held.
    pub const fn len(&self) -> usize {
        self.held
    }

    /// Whether none is held.
    pub const fn is_empty(&self) -> bool {
        self.held == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lens_model::{Arm, Slice, Stage};

    const fn at(secs: u64) -> UnixNanos {
        UnixNanos(secs * 1_000_000_000)
    }

    fn key(stage: Stage) -> SeriesKey {
        let slice = Slice::new("backend", "rust", "large").unwrap();
        SeriesKey { slice, stage, arm: Arm::Baseline }
    }

    fn held(secs: u64, millis: u64, trace: u8) -> Held {
        let trace = Trace::new([trace; 16], [1; 8]).unwrap();
        let exemplar = Exemplar { trace, latency: Nanos::from_millis(millis), at: at(secs) };
        let (agent, instance) = ("a1".parse().unwrap(), InstanceName::new("n1").unwrap());
        Held { exemplar, came: at(secs + 1), agent, instance }
    }

    fn all(exemplars: &Exemplars) -> Vec<u64> {
        let span = Span { from: UnixNanos(0), to: UnixNanos(u64::MAX) };
        let selection = Selection::default();
        let found = exemplars.within(&selection, span);
        found.map(|(_, held)| held.exemplar.latency.0 / 1_000_000).collect()
    }

    #[test]
    fn of_each_series_and_half_minute_the_two_slowest_are_held() {
        let mut exemplars = Exemplars::default();
        for (trace, millis) in (1_u8..).zip([5, 9, 7, 6]) {
            exemplars.take(&key(Stage::A), held(1_000, millis, trace), at(1_001)).unwrap();
        }
        exemplars.take(&key(Stage::A), held(1_030, 1, 9), at(1_031)).unwrap();
        exemplars.take(&key(Stage::B), held(1_000, 2, 9), at(1_031)).unwrap();
        assert_eq!(all(&exemplars), [9, 7, 1, 2]);
        assert_eq!(exemplars.len(), 4);
    }

    #[test]
    fn what_comes_twice_is_held_once() {
        let mut exemplars = Exemplars::default();
        for _ in 0..3 {
            exemplars.take(&key(Stage::A), held(1_000, 5, 1), at(1_001)).unwrap();
        }
        assert_eq!(all(&exemplars), [5]);
    }

    #[test]
    fn the_old_is_forgotten_and_what_is_of_another_time_is_left_out() {
        let mut exemplars = Exemplars::default();
        let mut take = |secs, now| exemplars.take(&key(Stage::A), held(secs, 5, 1), at(now));
        assert_eq!(take(9_000, 9_000), Ok(()));
        assert_eq!(take(9_010, 9_000), Ok(()), "ten seconds ahead");
        assert_eq!(take(9_011, 9_000), Err(LeftOut::OtherTime));
        assert_eq!(take(8_099, 9_000), Err(LeftOut::OtherTime));
        assert_eq!(take(8_100, 9_000), Ok(()));
        assert_eq!(take(9_900, 9_900), Ok(()));
        assert_eq!(exemplars.len(), 3, "those from 9,000 on: 8,100 is too long ago");
    }

    #[test]
    fn no_more_are_held_than_may_be() {
        let mut exemplars = Exemplars::default();
        let now = at(9_000);
        let mut last = Ok(());
        for number in 0..=AGGREGATOR_EXEMPLARS_MAX {
            let slice = Slice::new("backend", &format!("l{number}"), "large").unwrap();
            let key = SeriesKey { slice, stage: Stage::A, arm: Arm::Baseline };
            last = exemplars.take(&key, held(9_000, 5, 1), now);
        }
        assert_eq!((last, exemplars.len()), (Err(LeftOut::Full), AGGREGATOR_EXEMPLARS_MAX));
    }

    #[test]
    fn the_newest_come_oldest_first_and_none_twice_to_one_who_asks_from_where_they_left_off() {
        let mut exemplars = Exemplars::default();
        for secs in [1_000, 1_030, 1_060] {
            exemplars.take(&key(Stage::A), held(secs, 5, 1), at(secs + 1)).unwrap();
        }
        let newest = |after, most| {
            let found = exemplars.newest(&key(Stage::A), at(after), most);
            found.iter().map(|held| held.exemplar.at.0 / 1_000_000_000).collect::<Vec<_>>()
        };
        assert_eq!(newest(0, 2), [1_030, 1_060]);
        assert_eq!(newest(1_031, 9), [1_060]);
        assert_eq!(newest(1_061, 9), [0; 0]);
    }
}
