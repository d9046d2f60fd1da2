//! A forked child records into its parent's segment without losing anyone's counts.
#![cfg(not(loom))]
// Helpers are not in a `#[test]` function, where the house allows unwrap.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use lens_model::{Nanos, Slice, Stage};
use lens_segment::{Harvest, Node, ReadPolicy, Recorder, RegisterError, SegmentReader};

#[test]
fn a_forked_child_records_through_the_shared_shard() {
    const ROUNDS: u64 = 200_000;
    let dir = tempfile::tempdir().unwrap();
    let node = Node { service: "lens", version: "1", instance: "forking" };
    let node = Recorder::create(dir.path(), node).unwrap();
    let series = node.series(Slice::new("a", "b", "c").unwrap(), Stage::A).unwrap();
    series.record(1);
    // WHY: nothing safe forks.
    // SAFETY: the child uses what is allowed after a fork (no lock that another thread may hold)
    // and ends with `_exit`.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    // Parent and child record the same latency at the same time.
    (0..ROUNDS).for_each(|_| series.record(7));
    if child == 0 {
        let refused = node.series(Slice::new("a", "b", "c").unwrap(), Stage::B);
        let own =
            Recorder::create(dir.path(), Node { service: "lens", version: "1", instance: "child" });
        let own_works = own.is_ok_and(|own| {
            let series = own.series(Slice::new("a", "b", "c").unwrap(), Stage::B).unwrap();
            series.record(3);
            own.recorded_totals()[0].1 == 1
        });
        let good = own_works && matches!(refused, Err(RegisterError::Forked));
        // WHY: the test harness must not run in the child.
        // SAFETY: always allowed.
        unsafe { libc::_exit(if good { 0 } else { 1 }) };
    }
    let mut status = 1;
    // WHY: nothing safe waits for a raw fork.
    // SAFETY: `status` is a valid place for the answer.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0);
    let mut reader = SegmentReader::open(node.path(), &ReadPolicy::default()).unwrap();
    let mut out = Harvest::default();
    reader.harvest(Nanos::from_secs(60), &mut out).unwrap();
    assert_eq!(out.series[0].counts.entries(), [(1, 1), (7, 2 * ROUNDS)]);
    assert!(!out.closed, "the child did not close its parent's segment");
}
