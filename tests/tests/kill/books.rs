//! Recorded held against merged, and what a campaign came to.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use lens_benches::Quantiles;
use serde::Serialize;

use super::Victim;
use crate::world::node::Recorded;
use crate::world::{LOOK_AGAIN, Outcomes, PATIENCE, Tally, World};

/// Looks after which books that agree are believed: what comes twice comes late.
const LOOKS_AFTER: u32 = 5;

/// What nodes recorded beside what was merged of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Books {
    /// Samples in the nodes' memories.
    pub recorded: u64,
    /// Samples the aggregator merged.
    pub merged: u64,
    /// Requests in the nodes' memories.
    pub requests_recorded: u64,
    /// Requests the aggregator merged.
    pub requests_merged: u64,
    /// Recorded and not merged, over all series and request counters.
    pub lost: u64,
    /// Merged beyond what was recorded.
    pub double: u64,
}

impl Books {
    /// Waits until they agree, and a little longer; after [`PATIENCE`], as they are.
    pub fn wait(world: &World, recorded: &Recorded) -> Self {
        let deadline = Instant::now() + PATIENCE;
        let mut looks = 0;
        loop {
            let books = match (world.merged(), world.merged_requests()) {
                (Ok(samples), Ok(requests)) => Self::of(recorded, &samples, &requests),
                _ => Self::of(recorded, &Tally::new(), &Outcomes::new()),
            };
            looks = if books.agree() { looks + 1 } else { 0 };
            if looks > LOOKS_AFTER || Instant::now() > deadline {
                return books;
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    fn of(recorded: &Recorded, samples: &Tally, requests: &Outcomes) -> Self {
        let mut books = Self {
            recorded: recorded.total(),
            merged: samples.values().sum(),
            requests_recorded: recorded.requests.values().map(|(ok, error)| ok + error).sum(),
            requests_merged: requests.values().map(|(ok, error)| ok + error).sum(),
            ..Self::default()
        };
        let keys = recorded.samples.keys().chain(samples.keys());
        for key in keys.collect::<std::collections::BTreeSet<_>>() {
            let count = |tally: &Tally| tally.get(key).copied().unwrap_or(0);
            books.compare(count(&recorded.samples), count(samples));
        }
        let keys = recorded.requests.keys().chain(requests.keys());
        for key in keys.collect::<std::collections::BTreeSet<_>>() {
            let count = |outcomes: &Outcomes| outcomes.get(key).copied().unwrap_or_default();
            let (recorded, merged) = (count(&recorded.requests), count(requests));
            books.compare(recorded.0, merged.0);
            books.compare(recorded.1, merged.1);
        }
        books
    }

    fn compare(&mut self, recorded: u64, merged: u64) {
        self.lost += recorded.saturating_sub(merged);
        self.double += merged.saturating_sub(recorded);
    }

    /// Whether nothing is lost, nothing double, and there is something.
    pub const fn agree(&self) -> bool {
        self.lost == 0 && self.double == 0 && self.recorded > 0
    }
}

impl fmt::Display for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { recorded, merged, lost, double, .. } = self;
        write!(f, "recorded {recorded}, merged {merged}, lost {lost}, double {double}")
    }
}

/// How long it took until more was merged than before each kill.
#[derive(Default)]
pub struct Resumes(BTreeMap<Victim, Vec<u64>>);

impl Resumes {
    /// Takes one.
    pub fn add(&mut self, victim: Victim, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.0.entry(victim).or_default().push(nanos);
    }

    /// Quantiles by victim, milliseconds.
    pub fn summary(mut self) -> BTreeMap<String, Quantiles> {
        let quantiles = |(victim, times): (&Victim, &mut Vec<u64>)| {
            (victim.name().to_owned(), Quantiles::of(times))
        };
        self.0.iter_mut().map(quantiles).collect()
    }
}

/// What a campaign came to.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Where its choices came from.
    pub seed: u64,
    /// Kills by who was killed.
    pub kills: BTreeMap<String, u64>,
    /// Of all kinds.
    pub kills_total: u64,
    /// Kills of a process that was starting again, beside those.
    pub kills_starting: u64,
    /// Processes that recorded, all of them killed.
    pub node_lives: usize,
    /// Records that were in flight when their process was killed, by what it had said.
    pub in_flight_max: u64,
    /// Of those, made: they count as recorded.
    pub in_flight_made: u64,
    /// From a kill until the node is harvested and more is merged than before it.
    pub resume: BTreeMap<String, Quantiles>,
    /// How long it took, seconds.
    pub elapsed_s: f64,
    /// The last books.
    pub books: Books,
}
