//! Recorder to harvest over a real file: equality, limits, thread slots, registration.
#![cfg(not(loom))]
// Helpers are not in a `#[test]` function, where the house allows unwrap.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use lens_hist::Sparse;
use lens_hist::layout::{OVERFLOW, index_of};
use lens_model::limits::{SEGMENT_GAUGES_MAX, SEGMENT_REQUESTS_MAX};
use lens_model::{Arm, Nanos, Slice, Stage};
use lens_segment::{
    Flag, Harvest, Node, Origin, RECORD_MANY_MAX, ReadPolicy, Recorder, RecorderOptions,
    RegisterError, SegmentReader,
};
use proptest::prelude::*;

const NODE: Node<'_> = Node { service: "lens", version: "1.4.2", instance: "node-7" };
const LONG: Nanos = Nanos::from_secs(3_600);

fn slice() -> Slice {
    Slice::new("backend", "rust", "large").unwrap()
}

fn options(shards: usize, series_max: usize) -> RecorderOptions {
    RecorderOptions { shards, series_max, ..RecorderOptions::default() }
}

fn reader(node: &Recorder) -> SegmentReader {
    SegmentReader::open(node.path(), &ReadPolicy::default()).unwrap()
}

fn harvest(reader: &mut SegmentReader) -> Harvest {
    let mut out = Harvest::default();
    reader.harvest(LONG, &mut out).unwrap();
    out
}

#[test]
fn many_at_once_are_as_many_records_up_to_the_limit_and_not_one_more() {
    let dir = tempfile::tempdir().unwrap();
    let node = Recorder::create(dir.path(), NODE).unwrap();
    let series = node.series(slice(), Stage::A).unwrap();
    let mut reader = reader(&node);
    for round in 1..=5 {
        // Five times the limit is more than a counter holds: it goes around, and nothing is lost.
        series.record_many(255, RECORD_MANY_MAX).unwrap();
        series.record_many(u64::MAX, round).unwrap();
        series.record_many(7, 0).unwrap();
        assert!(series.record_many(255, RECORD_MANY_MAX + 1).is_err());
        node.requests().add(3, 2);
        let found = harvest(&mut reader);
        let counts = [(255, u64::from(RECORD_MANY_MAX)), (OVERFLOW as u16, u64::from(round))];
        assert_eq!(found.series[0].counts.entries(), counts);
        assert_eq!((found.requests[0].ok, found.requests[0].error), (3, 2));
        reader.commit();
    }
}

#[test]
fn what_is_recorded_is_what_is_harvested() {
    let dir = tempfile::tempdir().unwrap();
    let node = Recorder::create(dir.path(), NODE).unwrap();
    let a = node.series(slice(), Stage::A).unwrap();
    let b = node.series_in_arm(slice(), Stage::B, Arm::Canary).unwrap();
    let unused = node.series(slice(), Stage::C).unwrap();
    let values = [0, 1, 255, 256, 3_000_000, (1 << 36) - 1, 1 << 36, u64::MAX];
    for nanos in values {
        a.record(nanos);
        b.local().record(nanos);
        b.record(nanos);
    }
    let mut reader = reader(&node);
    let found = harvest(&mut reader);
    assert_eq!(found.series.len(), 2, "a series without a record does not appear: {unused:?}");
    assert_eq!(*found.series[0].key, *a.key());
    assert_eq!(found.series[0].counts, values.into_iter().collect::<Sparse>());
    assert_eq!(found.series[0].counts.entries().last(), Some(&(OVERFLOW as u16, 2)));
    assert_eq!(found.series[1].key.arm, Arm::Canary);
    assert_eq!(found.series[1].counts.total(), 16);
    assert_eq!(found.records, 24);

    // Not committed: the same again. Committed: only what is new.
    assert_eq!(harvest(&mut reader).records, 24);
    reader.commit();
    assert!(harvest(&mut reader).is_empty());
    reader.commit();
    a.record(7);
    let found = harvest(&mut reader);
    assert_eq!(found.series[0].counts.entries(), [(7, 1)]);
    assert_eq!(node.recorded_totals().iter().map(|(_, total)| total).sum::<u64>(), 25);
}

#[test]
fn a_reader_says_who_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let with = RecorderOptions { shards: 3, series_max: 9, arm: Arm::Canary };
    let node = Recorder::create_with(dir.path().join("new/dir"), NODE, with).unwrap();
    let reader = reader(&node);
    let info = reader.info();
    assert_eq!((&*info.service, &*info.version), ("lens", "1.4.2"));
    assert_eq!(info.instance.as_str(), "node-7");
    assert_eq!(info.incarnation, node.incarnation());
    assert_eq!((info.pid, info.shards, info.series_max), (std::process::id(), 3, 9));
    assert_eq!(info.arm, Arm::Canary);
    let name = node.path().file_name().unwrap().to_str().unwrap();
    let short = node.incarnation() >> 96;
    assert_eq!(name, format!("node-7-{}-{short:08x}.lens", std::process::id()));
    let series = node.series(slice(), Stage::A).unwrap();
    assert_eq!(series.key().arm, Arm::Canary);
}

#[test]
fn the_same_key_is_the_same_series_and_limits_hold_at_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let node = Recorder::create_with(dir.path(), NODE, options(2, 3)).unwrap();
    for stage in [Stage::A, Stage::B, Stage::C, Stage::A] {
        node.series(slice(), stage).unwrap().record(1);
    }
    let error = node.series(slice(), Stage::E2e).unwrap_err();
    assert!(matches!(error, RegisterError::Full { limit: 3, .. }), "{error}");
    for at in 0..SEGMENT_REQUESTS_MAX - 1 {
        let slice = Slice::new("r", &format!("l{at}"), "s").unwrap();
        node.requests_for(&slice, Arm::Baseline).unwrap().ok();
    }
    assert!(node.requests_for(slice(), Arm::Baseline).is_err());
    for at in 0..SEGMENT_GAUGES_MAX {
        node.try_gauge(&format!("g{at}")).unwrap().set(at as f64);
    }
    assert!(node.try_gauge("one_more").is_err());
    node.gauge("one_more").set(1.0);
    node.gauge("bad name").set(1.0);
    node.gauge("g0").set(f64::NAN);
    assert_eq!(node.refused(), 3);
    let found = harvest(&mut reader(&node));
    assert_eq!(
        found.series.iter().map(|delta| delta.counts.total()).collect::<Vec<_>>(),
        [2, 1, 1]
    );
    assert_eq!(found.requests.len(), SEGMENT_REQUESTS_MAX - 1);
    assert_eq!(found.gauges.len(), SEGMENT_GAUGES_MAX);
    assert_eq!(found.gauges[63].value, 63.0);
}

#[test]
fn bad_names_and_sizes_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    for node in [
        Node { service: "", ..NODE },
        Node { version: "1 2", ..NODE },
        Node { instance: "../x", ..NODE },
        Node { instance: &"i".repeat(65), ..NODE },
    ] {
        let error = Recorder::create(dir.path(), node).map(drop).unwrap_err();
        assert!(error.to_string().contains("is not allowed"), "{error}");
    }
    for (shards, series) in [(0, 1), (65, 1), (1, 0), (1, 257)] {
        assert!(Recorder::create_with(dir.path(), NODE, options(shards, series)).is_err());
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn requests_and_gauges_are_read_as_set() {
    let dir = tempfile::tempdir().unwrap();
    let node = Recorder::create(dir.path(), NODE).unwrap();
    let mut reader = reader(&node);
    assert!(harvest(&mut reader).is_empty());
    node.requests().ok();
    node.requests().ok();
    node.requests().error();
    node.gauge("span_coverage_percent").set(98.7);
    drop(node.gauge("never_set"));
    let found = harvest(&mut reader);
    assert_eq!((found.requests[0].ok, found.requests[0].error), (2, 1));
    assert_eq!(found.requests[0].slice.to_string(), "all/all/all");
    assert_eq!(found.gauges.len(), 1);
    assert_eq!((&*found.gauges[0].name, found.gauges[0].value), ("span_coverage_percent", 98.7));
    reader.commit();
    node.requests_for(Slice::new("all", "all", "all").unwrap(), Arm::Baseline).unwrap().error();
    let found = harvest(&mut reader);
    assert_eq!((found.requests[0].ok, found.requests[0].error), (0, 1));
}

#[test]
fn laps_share_their_boundary_and_a_dropped_timer_records_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let node = Recorder::create(dir.path(), NODE).unwrap();
    let a = node.series(slice(), Stage::A).unwrap();
    let b = node.series(slice(), Stage::B).unwrap();
    let mut timer = a.start();
    thread::sleep(Duration::from_millis(3));
    let first = timer.lap(&b);
    thread::sleep(Duration::from_millis(1));
    let second = timer.stop();
    drop(a.start());
    assert!(first >= Nanos::from_millis(2) && second.0 >= 900_000, "{first} {second}");
    let found = harvest(&mut reader(&node));
    assert_eq!(found.series[0].counts.entries(), [(index_of(first.0) as u16, 1)]);
    assert_eq!(found.series[1].counts.entries(), [(index_of(second.0) as u16, 1)]);
}

#[test]
fn more_threads_than_shards_lose_nothing_and_exited_threads_slots_are_reused() {
    let dir = tempfile::tempdir().unwrap();
    let node = Recorder::create_with(dir.path(), NODE, options(3, 4)).unwrap();
    let series = node.series(slice(), Stage::A).unwrap();
    let mut reader = reader(&node);
    let mut total = 0;
    for _ in 0..20 {
        thread::scope(|scope| {
            for _ in 0..12 {
                scope.spawn(|| (0..500_u64).for_each(|nanos| series.record(nanos)));
            }
        });
        total += harvest(&mut reader).records;
        reader.commit();
    }
    assert_eq!(total, 20 * 12 * 500);
}

#[test]
fn a_recorder_made_after_its_threads_started_is_read_completely() {
    let dir = tempfile::tempdir().unwrap();
    lens_segment::claim_thread();
    let node = Recorder::create_with(dir.path(), NODE, options(64, 4)).unwrap();
    node.series(slice(), Stage::A).unwrap().record(9);
    assert_eq!(harvest(&mut reader(&node)).records, 1);
}

/// Writers and a reader at once: the reader must really see partial states, and all must add up.
#[test]
fn concurrent_harvests_see_partial_states_and_lose_nothing() {
    const ROUNDS: u64 = 400_000;
    let dir = tempfile::tempdir().unwrap();
    let node = Recorder::create_with(dir.path(), NODE, options(3, 8)).unwrap();
    let done = AtomicBool::new(false);
    let (mut harvests, mut partial, mut total) = (0, 0, 0_u64);
    let mut sums: HashMap<_, u64> = HashMap::new();
    thread::scope(|scope| {
        let writers: Vec<_> = (0..4_u64)
            .map(|number| {
                let node = node.clone();
                scope.spawn(move || {
                    // Registered while the reader is at it; two writers for each series.
                    let stage = Stage::ALL[number as usize % 2];
                    let series = node.series(slice(), stage).unwrap();
                    for round in 0..ROUNDS {
                        series.record(number + (round % 3) * 1_000);
                        if round % 50_000 == 0 {
                            thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        let reading = scope.spawn(|| {
            let mut reader = reader(&node);
            loop {
                let last = done.load(Ordering::Acquire);
                let found = harvest(&mut reader);
                harvests += 1;
                if (1..4 * ROUNDS).contains(&found.records) {
                    partial += 1;
                }
                // Every second harvest is thrown away, as if the spool had refused it.
                if harvests % 2 == 0 || last {
                    total += found.records;
                    for delta in &found.series {
                        *sums.entry(delta.key.stage).or_default() += delta.counts.total();
                    }
                    reader.commit();
                }
                if last {
                    break;
                }
            }
        });
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Ordering::Release);
        reading.join().unwrap();
    });
    assert!(partial >= 3, "only {partial} of {harvests} harvests met the writers at work");
    assert_eq!(total, 4 * ROUNDS);
    assert_eq!(sums.values().copied().collect::<Vec<_>>(), [2 * ROUNDS, 2 * ROUNDS]);
}

/// Carries through every byte of a counter while it is copied: a torn copy must never count.
#[test]
fn a_counter_read_while_it_carries_never_goes_back_nor_ahead() {
    let dir = tempfile::tempdir().unwrap();
    let node = Recorder::create_with(dir.path(), NODE, options(64, 1)).unwrap();
    let series = node.series(slice(), Stage::A).unwrap();
    let (mut reader, mut total, mut seen) = (reader(&node), 0, 0);
    const ROUNDS: u64 = 20_000_000;
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let local = series.local();
            (0..ROUNDS).for_each(|_| local.record(9));
        });
        while !writer.is_finished() {
            let records = harvest(&mut reader).records;
            reader.commit();
            total += records;
            seen += u64::from(records > 0);
            assert!(total <= ROUNDS);
        }
    });
    total += harvest(&mut reader).records;
    assert_eq!(total, ROUNDS);
    assert!(seen > 20, "only {seen} harvests met the writer at work");
}

#[test]
fn flags_start_at_their_defaults_and_nobody_is_canary() {
    let dir = tempfile::tempdir().unwrap();
    let node = Recorder::create(dir.path(), NODE).unwrap();
    for flag in Flag::ALL {
        assert_eq!(node.flags().enabled(flag), flag.default_value(), "{flag:?}");
    }
    assert_eq!((node.flags().generation(), node.flags().canary_ppm()), (0, 0));
    assert_eq!(node.canary().arm("user-42"), Arm::Baseline);
}

#[test]
fn a_baseline_moves_to_another_reader_and_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let node = Recorder::create(dir.path(), NODE).unwrap();
    let series = node.series(slice(), Stage::A).unwrap();
    let mut first = reader(&node);
    series.record(1);
    node.requests().ok();
    harvest(&mut first);
    let pending = first.pending_export();
    assert_ne!(pending, first.baseline_export());
    first.commit();
    assert_eq!(pending, first.baseline_export());
    series.record(2);
    let mut second = reader(&node);
    second.baseline_import(&pending).unwrap();
    let found = harvest(&mut second);
    assert_eq!(found.series[0].counts.entries(), [(2, 1)]);
    assert!(found.requests.is_empty());
    let other = Recorder::create(dir.path(), NODE).unwrap();
    assert!(reader(&other).baseline_import(&pending).is_err());
    let mut bad = pending;
    bad.blocks[0].series = 4_000;
    assert!(second.baseline_import(&bad).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_values_over_any_threads_arrive_exactly_once(
        shards in 1_usize..5,
        parts in prop::collection::vec(prop::collection::vec(any::<u64>().prop_map(|v| v >> (v % 64)), 0..200), 1..6),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let node = Recorder::create_with(dir.path(), NODE, options(shards, 2)).unwrap();
        let series = node.series(slice(), Stage::E2e).unwrap();
        let mut reader = reader(&node);
        let mut found: HashMap<u16, u64> = HashMap::new();
        let mut take = |reader: &mut SegmentReader| {
            for delta in harvest(reader).series {
                for (at, count) in delta.counts.entries() {
                    *found.entry(*at).or_default() += count;
                }
            }
            reader.commit();
        };
        thread::scope(|scope| {
            for part in &parts {
                scope.spawn(|| part.iter().for_each(|nanos| series.record(*nanos)));
            }
            take(&mut reader);
        });
        take(&mut reader);
        let expected: Sparse = parts.into_iter().flatten().collect();
        let mut found: Vec<_> = found.into_iter().collect();
        found.sort_unstable();
        prop_assert_eq!(found, expected.entries());
    }
}

#[test]
fn a_killed_recorder_leaves_its_segment_without_an_owner_and_not_closed() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node { service: "lens", version: "1", instance: "n1" };
    let origin = Origin { incarnation: 7, ..Origin::system().unwrap() };
    let recorder = Recorder::create_from(dir.path(), node, options(2, 2), origin).unwrap();
    recorder.requests().ok();
    let mut reader = SegmentReader::open(recorder.path(), &ReadPolicy::default()).unwrap();
    assert_eq!(reader.info().incarnation, 7);
    assert!(reader.owner_alive().unwrap());
    recorder.kill();
    assert!(!reader.owner_alive().unwrap());
    let mut harvest = Harvest::default();
    reader.harvest(Nanos::from_secs(1), &mut harvest).unwrap();
    assert!(!harvest.closed);
    assert_eq!(harvest.requests[0].ok, 1);
}
