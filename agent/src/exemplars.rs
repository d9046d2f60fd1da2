//! Slow requests on their way to the aggregator: from the harvester to the connection.
//!
//! They are examples and no counts, so they are kept in memory alone: what waits while there is no
//! connection gives way to what is newer, and what is under way when one breaks is not sent again.
//! Bounds: `HARVEST_EXEMPLARS_MAX` of a series a harvest, `AGENT_EXEMPLARS_MAX` waiting.

use std::collections::VecDeque;
use std::sync::Arc;

use lens_model::limits::{AGENT_EXEMPLARS_MAX, HARVEST_EXEMPLARS_MAX};
use lens_model::{Nanos, SeriesKey, Trace, UnixNanos};
use lens_segment::ExemplarReading;
use lens_wire::Instance;
use parking_lot::Mutex;

/// How old an exemplar may be to be sent, and how far its clock may be ahead: a node's wall clock is
/// the agent's own, but a segment may have been found late, or written by anyone.
const AGE_MAX: Nanos = Nanos::from_secs(600);
const AHEAD_MAX: Nanos = Nanos::from_secs(10);

/// One slow request.
#[derive(Clone, Debug)]
pub struct SlowRequest {
    /// The search node it was served by.
    pub instance: Arc<Instance>,
    /// What it was counted in.
    pub key: Arc<SeriesKey>,
    /// When it was recorded.
    pub at: UnixNanos,
    /// How long it took, nanoseconds.
    pub nanos: u64,
    /// Which one it was.
    pub trace: Trace,
}

/// Those that wait.
#[derive(Debug, Default)]
pub struct Waiting(Mutex<VecDeque<SlowRequest>>);

impl Waiting {
    /// Takes the slowest of each series of one harvest; how many others had to give way.
    pub fn offer(
        &self,
        instance: &Arc<Instance>,
        readings: &[ExemplarReading],
        now: UnixNanos,
    ) -> u64 {
        let (oldest, newest) = (now.minus(AGE_MAX), UnixNanos(now.0.saturating_add(AHEAD_MAX.0)));
        let mut slow: Vec<&ExemplarReading> =
            readings.iter().filter(|reading| (oldest..=newest).contains(&reading.at)).collect();
        slow.sort_by(|a, b| a.key.cmp(&b.key).then(b.nanos.cmp(&a.nanos)));
        let mut waiting = self.0.lock();
        let mut gave_way = 0;
        for of_series in slow.chunk_by(|a, b| a.key == b.key) {
            for reading in of_series.iter().take(HARVEST_EXEMPLARS_MAX) {
                if waiting.len() >= AGENT_EXEMPLARS_MAX {
                    waiting.pop_front();
                    gave_way += 1;
                }
                waiting.push_back(SlowRequest {
                    instance: Arc::clone(instance),
                    key: Arc::clone(&reading.key),
                    at: reading.at,
                    nanos: reading.nanos,
                    trace: reading.trace,
                });
            }
        }
        gave_way
    }

    /// All that wait, oldest first; none waits after that.
    pub fn take(&self) -> VecDeque<SlowRequest> {
        std::mem::take(&mut *self.0.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lens_model::{Arm, InstanceName, Slice, Stage};
    use lens_wire::Label;

    const NOW: UnixNanos = UnixNanos(1_000_000_000_000);

    fn instance() -> Arc<Instance> {
        let label = |text| Label::new(text).unwrap();
        let name = InstanceName::new("n1").unwrap();
        Arc::new(Instance { name, service: label("lens"), version: label("1"), zone: label("") })
    }

    fn reading(stage: Stage, nanos: u64, at: UnixNanos) -> ExemplarReading {
        let slice = Slice::new("backend", "rust", "large").unwrap();
        let key = Arc::new(SeriesKey { slice, stage, arm: Arm::Baseline });
        ExemplarReading { key, nanos, at, trace: Trace::new([7; 16], [1; 8]).unwrap() }
    }

    #[test]
    fn of_each_series_the_slowest_wait() {
        let waiting = Waiting::default();
        let a = (1..=5).map(|nanos| reading(Stage::A, nanos, NOW));
        let readings: Vec<_> = a.chain([reading(Stage::B, 3, NOW)]).collect();
        assert_eq!(waiting.offer(&instance(), &readings, NOW), 0);
        let taken: Vec<_> = waiting.take().iter().map(|s| (s.key.stage, s.nanos)).collect();
        assert_eq!(taken, [(Stage::A, 5), (Stage::A, 4), (Stage::B, 3)]);
        assert!(waiting.take().is_empty());
    }

    #[test]
    fn what_is_of_another_time_does_not_wait() {
        let waiting = Waiting::default();
        let ahead = |secs: u64| UnixNanos(NOW.0 + secs * 1_000_000_000);
        let back = |secs: u64| NOW.minus(Nanos::from_secs(secs));
        for (at, kept) in [(ahead(10), 1), (ahead(11), 0), (back(600), 1), (back(601), 0)] {
            waiting.offer(&instance(), &[reading(Stage::A, 5, at)], NOW);
            assert_eq!(waiting.take().len(), kept, "{at:?}");
        }
    }

    #[test]
    fn at_the_limit_the_oldest_give_way() {
        let waiting = Waiting::default();
        let offer = |nanos| waiting.offer(&instance(), &[reading(Stage::A, nanos, NOW)], NOW);
        let gave_way: u64 = (0..AGENT_EXEMPLARS_MAX as u64 + 2).map(offer).sum();
        let held = waiting.take();
        assert_eq!((gave_way, held.len()), (2, AGENT_EXEMPLARS_MAX));
        assert_eq!(held.front().unwrap().nanos, 2);
    }
}
