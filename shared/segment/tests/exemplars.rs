//! Exemplars through the public interface: what is offered, what a harvest brings, under load.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, Ordering};

use lens_model::limits::SEGMENT_EXEMPLARS_MAX;
use lens_model::{Nanos, Slice, Stage, UnixNanos};
use lens_segment::{Harvest, Node, ReadPolicy, Recorder, SegmentReader, Series, Trace};

const SECOND: u64 = 1_000_000_000;

fn node(dir: &std::path::Path) -> Recorder {
    Recorder::create(dir, Node { service: "lens", version: "1", instance: "n1" }).unwrap()
}

fn series(node: &Recorder, language: &str) -> Series {
    node.series(Slice::new("backend", language, "large").unwrap(), Stage::A).unwrap()
}

/// A trace that says which latency it is of.
fn trace(nanos: u64) -> Trace {
    let mut id = [0xa5; 16];
    id[..8].copy_from_slice(&nanos.to_be_bytes());
    Trace::new(id, nanos.to_be_bytes()).unwrap()
}

fn harvest(reader: &mut SegmentReader) -> Harvest {
    let mut found = Harvest::default();
    reader.harvest(Nanos::from_secs(3_600), &mut found).unwrap();
    found
}

#[test]
fn what_was_slowest_so_far_is_found_once_and_counted_like_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path());
    let (rust, go) = (series(&node, "rust"), series(&node, "go"));
    for nanos in [500, 400, 900, 900, 100] {
        rust.exemplify(nanos, &trace(nanos), UnixNanos(7 * SECOND));
    }
    // More than the ring holds, each slower than the one before: they take one place.
    for nanos in 1..=10_000 {
        go.exemplify(nanos, &trace(nanos), UnixNanos(7 * SECOND));
    }
    rust.exemplify(50, &trace(50), UnixNanos(8 * SECOND));
    go.record_traced(77, &trace(77));
    let mut reader = SegmentReader::open(node.path(), &ReadPolicy::default()).unwrap();
    let found = harvest(&mut reader);
    let brought: Vec<_> =
        found.exemplars.iter().map(|e| (e.key.slice.language(), e.nanos, e.trace)).collect();
    let mut wanted = [("rust", 900), ("rust", 50), ("go", 10_000), ("go", 77)]
        .map(|(language, nanos)| (language, nanos, trace(nanos)));
    wanted.sort_by_key(|(_, nanos, _)| *nanos);
    let mut sorted = brought.clone();
    sorted.sort_by_key(|(_, nanos, _)| *nanos);
    assert_eq!(sorted, wanted);
    assert_eq!(found.records, 1, "only record_traced counts");
    assert_eq!(found.exemplars[0].at, UnixNanos(7 * SECOND));
    // The wall clock's second, as coarse as it is, is now.
    let at = found.exemplars.iter().find(|e| e.nanos == 77).unwrap().at;
    let now = UnixNanos::from_system_time(std::time::SystemTime::now());
    assert!(now.since(at) < Nanos::from_secs(5) && at <= now, "{at:?} {now:?}");
    assert!(harvest(&mut reader).exemplars.is_empty(), "none twice");
    rust.clone().exemplify(60, &trace(60), UnixNanos(8 * SECOND));
    assert_eq!(harvest(&mut reader).exemplars[0].nanos, 60);
}

#[test]
fn handles_of_one_series_share_its_bar() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path());
    series(&node, "rust").exemplify(900, &trace(900), UnixNanos(7 * SECOND));
    series(&node, "rust").exemplify(800, &trace(800), UnixNanos(7 * SECOND));
    let mut reader = SegmentReader::open(node.path(), &ReadPolicy::default()).unwrap();
    assert_eq!(harvest(&mut reader).exemplars.len(), 1);
}

#[test]
fn a_timed_stage_is_offered_under_its_trace() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path());
    let (rust, go) = (series(&node, "rust"), series(&node, "go"));
    let mut timer = rust.start();
    let first = timer.lap_traced(&go, &trace(1));
    let second = timer.stop_traced(&trace(2));
    let mut reader = SegmentReader::open(node.path(), &ReadPolicy::default()).unwrap();
    let found = harvest(&mut reader);
    let took: Vec<_> = found.exemplars.iter().map(|e| (e.nanos, e.trace)).collect();
    assert_eq!(took, [(first.0, trace(1)), (second.0, trace(2))]);
    assert_eq!(found.records, 2);
}

/// Four threads write all around the ring while it is read: what is brought is whole.
#[test]
fn what_a_harvest_brings_under_load_is_whole_and_the_counts_are_exact() {
    const ROUNDS: u64 = 20_000;
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path());
    let rust = series(&node, "rust");
    let mut reader = SegmentReader::open(node.path(), &ReadPolicy::default()).unwrap();
    let (ended, mut brought, mut counted) = (AtomicBool::new(false), 0, 0);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|thread| {
                let rust = &rust;
                scope.spawn(move || {
                    for round in 1..=ROUNDS {
                        let nanos = round * 4 + thread;
                        rust.record(nanos);
                        // Each in a second of its own, so that all pass.
                        rust.exemplify(nanos, &trace(nanos), UnixNanos(nanos * SECOND));
                    }
                })
            })
            .collect();
        let mut look = |reader: &mut SegmentReader| {
            let found = harvest(reader);
            for exemplar in &found.exemplars {
                assert_eq!(exemplar.trace, trace(exemplar.nanos), "words of two");
                assert_eq!(exemplar.at, UnixNanos(exemplar.nanos * SECOND));
            }
            assert!(found.exemplars.len() <= SEGMENT_EXEMPLARS_MAX);
            brought += found.exemplars.len();
            counted += found.records;
            reader.commit();
        };
        while !ended.load(Ordering::Relaxed) {
            look(&mut reader);
            ended.store(writers.iter().all(|writer| writer.is_finished()), Ordering::Relaxed);
        }
        look(&mut reader);
    });
    assert_eq!(counted, 4 * ROUNDS);
    assert!(brought >= SEGMENT_EXEMPLARS_MAX, "{brought}");
}

#[test]
fn an_exemplar_of_a_series_that_is_not_shown_yet_is_not_brought() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path());
    let rust = series(&node, "rust");
    let mut reader = SegmentReader::open(node.path(), &ReadPolicy::default()).unwrap();
    rust.exemplify(5, &trace(5), UnixNanos(SECOND));
    assert_eq!(harvest(&mut reader).exemplars.len(), 1);
    // The same, written by a hand that is not ours: a series far beyond the table.
    let bytes = std::fs::read(node.path()).unwrap();
    let place = 640 + 64;
    let mut forged = bytes[place..place + 64].to_vec();
    forged[..8].copy_from_slice(&1_000_u64.to_ne_bytes());
    forged[8..16].copy_from_slice(&u64::MAX.to_ne_bytes());
    let check = forged[..56].iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    forged[56..].copy_from_slice(&check.to_ne_bytes());
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::options().write(true).open(node.path()).unwrap();
    file.write_all_at(&forged, place as u64).unwrap();
    assert!(harvest(&mut reader).exemplars.is_empty());
}
