//! A search node gone bad: its segment is put aside within a harvest, and the others count on.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod world;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use lens_model::{Arm, SeriesKey, Stage};
use lens_segment::{Node, Recorder, RecorderOptions};
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use world::{Tally, World, holds, recorder, same, slice, until};

// Places in a segment of 2 shards and 2 series, from docs/segment.md.
const STATE: u64 = 512;
const SERIES_LEN: u64 = 516;
const SHARDS_USED: u64 = 528;
const BLOCKS: u64 = 45_056;
const BLOCK_BYTES: u64 = 15_424;

/// What is done to a segment.
struct Attack {
    name: &'static str,
    strike: fn(&File),
}

fn put(file: &File, at: u64, value: u32) {
    file.write_all_at(&value.to_ne_bytes(), at).unwrap();
}

const ATTACKS: [Attack; 6] = [
    Attack { name: "truncated", strike: |file| file.set_len(BLOCKS + 100).unwrap() },
    Attack {
        name: "punched",

        strike: |file| {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(file, flags, BLOCKS, 3 * BLOCK_BYTES).unwrap();
        },
    },
    Attack {
        name: "lowered",

        // Ten were counted in one of these.
        strike: |file| (0..3).for_each(|shard| put(file, BLOCKS + shard * BLOCK_BYTES + 20, 3)),
    },
    Attack {
        name: "absurd",

        strike: |file| {
            (0..3_800).for_each(|at| put(file, BLOCKS + at * 4, 1 << 30));
            put(file, SHARDS_USED, 3);
        },
    },
    Attack { name: "stuck", strike: |file| put(file, SERIES_LEN, 2) },
    Attack { name: "senseless", strike: |file| put(file, STATE, 9) },
];

/// A segment that nobody has mapped – truncating one kills who has – and that looks alive, because
/// its lock is held.
fn place(world: &World, segments: &Path, attack: &Attack) -> File {
    let made = world.dir().join(format!("made-{}", attack.name));
    std::fs::create_dir_all(&made).unwrap();
    let options = RecorderOptions { shards: 2, series_max: 2, ..RecorderOptions::default() };
    let node = Node { service: "lens", version: "1", instance: attack.name };
    let recorder = Recorder::create_with(&made, node, options).unwrap();
    let series = recorder.series(slice("go"), Stage::B).unwrap();
    (0..10).for_each(|_| series.record(5));
    let aside = segments.join(format!("{}.aside", attack.name));
    std::fs::copy(recorder.path(), &aside).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&aside).unwrap();
    flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
    std::fs::rename(&aside, segments.join(format!("{}.lens", attack.name))).unwrap();
    file
}

#[test]
fn a_hostile_segment_is_put_aside_and_every_other_counts_on_exactly() {
    let world = World::new(&[]);
    let mut agent = world.agent("host-1", &[]);
    std::fs::create_dir_all(&agent.segments).unwrap();
    let nodes = ["node-1", "node-2"].map(|name| recorder(&agent.segments, name));
    let series = nodes.each_ref().map(|node| node.series(slice("rust"), Stage::A).unwrap());
    let good = SeriesKey { slice: slice("rust"), stage: Stage::A, arm: Arm::Baseline };
    let bad = SeriesKey { slice: slice("go"), stage: Stage::B, arm: Arm::Baseline };
    let placed = ATTACKS.map(|attack| (place(&world, &agent.segments, &attack), attack));
    // All of it is well to begin with.
    let told = ATTACKS.len() as u64 * 10;
    until("everyone counted", || {
        let merged = world.merged()?.get(&bad).copied().unwrap_or(0);
        same(merged, &told)
    });
    let mut recorded = 0;
    let mut record = || {
        for series in &series {
            series.record(1_000_000);
            recorded += 1;
        }
        recorded
    };
    for (file, attack) in &placed {
        (attack.strike)(file);
        let found = until("put aside", || {
            record();
            let status = agent.status()?;
            let segments = status["segments"].as_array().ok_or("no segments")?;
            let name = format!("{}.lens", attack.name);
            let found = segments.iter().find(|held| held["file"] == name.as_str());
            let found = found.cloned().unwrap_or_default();
            holds(found["state"] == "quarantined", &found).map(|()| found)
        });
        assert!(!found["reason"].as_str().unwrap().is_empty(), "{found}");
    }
    let recorded = record();
    world.until_merged(&Tally::from([(good, recorded), (bad, told)]));
    let status = agent.status().unwrap();
    assert_eq!(status["dropped"]["segment quarantined"], ATTACKS.len(), "{status}");
    agent.process.terminate();
}
