//! The bound on an agent's lives: at it, one past it, and what stays possible there.

use std::sync::Arc;

use lens_journal::testing::FaultyDisk;
use lens_model::{AgentName, Incarnation, Nanos, Sequence, UnixNanos};
use lens_service::planted::PlantedSet;
use lens_wire::ClockOffset;

use super::{LIVES_MAX, Place, Store, StoreConfig};
use crate::log::Record;
use crate::log::record::Body;

const NOW: UnixNanos = UnixNanos(1_800_000_000_000_000_000);

fn store(lives_max: u64) -> Store {
    let config = StoreConfig { dir: "/store".into(), lives_max, ..StoreConfig::default() };
    let place = Place::take(Arc::new(FaultyDisk::new(1)), config, PlantedSet::NONE).unwrap();
    Store::open(&place, NOW).unwrap()
}

fn agent(name: &str) -> AgentName {
    AgentName::new(name).unwrap()
}

/// A delta without samples.
fn delta(name: &str, life: u128, sequence: u64) -> Record {
    Record {
        identity: format!("spiffe://lens.test/agent/{name}").parse().unwrap(),
        incarnation: Incarnation(life),
        sequence: Sequence(sequence),
        received: NOW,
        body: Some(Body {
            start: NOW.minus(Nanos::from_secs(1)),
            duration: Nanos::from_secs(1),
            clock: ClockOffset { offset_nanos: 0, error_nanos: 1 },
            instances: Vec::new(),
            slices: Vec::new(),
            histograms: Vec::new(),
            requests: Vec::new(),
            gauges: Vec::new(),
        }),
    }
}

/// How many of these are merged, and how many lives are told to send again.
fn merge(store: &mut Store, records: Vec<Record>) -> (usize, usize) {
    let done = store.commit(records, 0, NOW).unwrap();
    (done.merges.len(), done.gaps.len())
}

/// What a connection of this life is told it resumes from; `None`: it is refused.
fn resumes(store: &Store, name: &str, life: u128) -> Option<u64> {
    let found = store.history().watermark(&agent(name), Incarnation(life)).unwrap();
    found.map(|sequence| sequence.0)
}

#[test]
fn a_life_is_taken_up_to_the_bound_and_refused_past_it() {
    let mut store = store(3);
    assert_eq!(merge(&mut store, vec![delta("a1", 1, 1), delta("a1", 2, 1)]), (2, 0));
    assert_eq!(resumes(&store, "a1", 3), Some(0), "room for one");
    assert_eq!(merge(&mut store, vec![delta("a1", 3, 1)]), (1, 0));
    assert_eq!(resumes(&store, "a1", 4), None);
    assert_eq!(merge(&mut store, vec![delta("a1", 4, 1)]), (0, 1), "nor merged when it comes");
    assert_eq!(resumes(&store, "a1", 4), None);
}

#[test]
fn at_the_bound_known_lives_go_on_and_no_old_one_is_forgotten() {
    let mut store = store(2);
    assert_eq!(merge(&mut store, vec![delta("a1", 1, 1), delta("a1", 2, 1)]), (2, 0));
    assert_eq!(merge(&mut store, vec![delta("a1", 1, 2), delta("a1", 2, 2)]), (2, 0));
    assert_eq!(merge(&mut store, vec![delta("a1", 1, 2)]), (0, 0), "a repeat changes nothing");
    assert_eq!((resumes(&store, "a1", 1), resumes(&store, "a1", 2)), (Some(2), Some(2)));
    assert_eq!(resumes(&store, "a2", 9), Some(0), "each agent has a bound of its own");
    assert_eq!(merge(&mut store, vec![delta("a2", 9, 1)]), (1, 0));
}

#[test]
fn two_lives_that_begin_together_do_not_both_take_the_last_room() {
    let mut store = store(2);
    let records = (1..=3).map(|life| delta("a1", life, 1)).collect();
    assert_eq!(merge(&mut store, records), (2, 1));
    assert_eq!(resumes(&store, "a1", 3), None);
}

#[test]
fn unless_a_test_says_otherwise_the_bound_is_that_of_the_documentation() {
    assert_eq!(StoreConfig::default().lives_max, LIVES_MAX);
}
