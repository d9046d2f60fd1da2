//! Filesystems without room: under an agent's spool, an aggregator's store, a node's segment.
//!
//! Each is a small tmpfs of the test's own, filled to the last byte and emptied again. Needs leave
//! to mount one in a namespace; says so and tests nothing where that lacks.
#![allow(clippy::unwrap_used)]

mod world;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use lens_model::Stage;
use lens_segment::{CreateError, Node, Recorder, RegisterError};
use world::node::RecordingNode;
use world::spaces::{Space, skipped};
use world::{Tally, World, holds, http, slice, until};

/// A small filesystem that can be filled.
struct Small {
    space: Space,
    dir: PathBuf,
}

impl Small {
    fn new(dir: &Path, bytes: u64) -> Option<Self> {
        let space = Space::of_mounts().and_then(|space| space.tmpfs(dir, bytes).map(|()| space));
        match space {
            Ok(space) => Some(Self { space, dir: dir.into() }),
            Err(why) => {
                skipped(&why);
                None
            }
        }
    }

    fn filler(&self) -> PathBuf {
        self.space.outside(&self.dir).join("filler")
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let mut filler = File::options().create(true).append(true).open(self.filler()).unwrap();
        let full = std::iter::repeat_with(|| filler.write(&[0; 4_096])).find_map(Result::err);
        assert_eq!(full.unwrap().kind(), std::io::ErrorKind::StorageFull);
    }

    /// Gives it back.
    fn empty(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }
}

#[test]
fn an_agent_whose_spool_has_no_room_pauses_says_so_and_loses_nothing() {
    let mut world = World::new(&[]);
    world.issue("host-1");
    let Some(small) = Small::new(&world.spool("host-1"), 512 << 10) else { return };
    let agent = world.start_agent_in(&small.space, "host-1", &[("spool.max_bytes", "1048576")]);
    let node = RecordingNode::new("node-1", &agent.segments, world.dir(), 1);
    until("samples", || holds(!world.merged()?.is_empty(), &"none"));
    for _ in 0..2 {
        world.aggregator().kill();
        small.fill();
        let paused = || Ok::<_, String>(agent.status()?["harvest"]["paused_total"].as_u64());
        let before = paused().unwrap();
        until("harvesting pauses and the status says why", || {
            let status = agent.status()?;
            let why = status["spool"]["paused"].to_string();
            holds(paused()? > before && why.contains("full"), &status["spool"])
        });
        assert_eq!(http::get(&agent.admin, "/livez").unwrap().0, 200);
        small.empty();
        world.start_aggregator(&[]);
        until("it harvests again", || {
            let status = agent.status()?;
            holds(status["spool"]["paused"].is_null(), &status["spool"])
        });
    }
    let recorded = node.kill();
    world.until_merged(&recorded.samples);
    agent.until_acknowledged();
    assert_eq!(world.merged().unwrap(), recorded.samples);
}

#[test]
fn an_agent_whose_spool_has_no_room_drains_to_an_aggregator_that_takes() {
    let mut world = World::new(&[]);
    world.issue("host-1");
    // Files of 256 KiB, so that the one held in reserve is larger than any harvest.
    let Some(small) = Small::new(&world.spool("host-1"), 2 << 20) else { return };
    let agent = world.start_agent_in(&small.space, "host-1", &[("spool.max_bytes", "4194304")]);
    let node = RecordingNode::new("node-1", &agent.segments, world.dir(), 1);
    until("samples", || holds(!world.merged()?.is_empty(), &"none"));
    world.aggregator().kill();
    small.fill();
    until("harvesting pauses", || {
        let status = agent.status()?;
        holds(!status["spool"]["paused"].is_null(), &status["spool"])
    });
    // The disk stays full: what is acknowledged must make room by itself.
    world.start_aggregator(&[]);
    let recorded = node.kill();
    world.until_merged(&recorded.samples);
}

#[test]
fn an_aggregator_whose_store_has_no_room_says_so_answers_on_and_loses_nothing() {
    let mut world = World::bare();
    let Some(small) = Small::new(&world.dir().join("store"), 16 << 20) else { return };
    world.start_aggregator_in(&small.space);
    let agent = world.agent("host-1", &[]);
    let node = RecordingNode::new("node-1", &agent.segments, world.dir(), 1);
    until("samples", || holds(!world.merged()?.is_empty(), &"none"));
    for _ in 0..2 {
        small.fill();
        until("it is not ready and says why", || {
            let (status, body) = http::get(world.http(), "/readyz")?;
            holds(status == 503 && body.contains("nothing is taken in"), &body)
        });
        assert_eq!(http::get(world.http(), "/livez").unwrap().0, 200);
        assert!(!world.merged().unwrap().is_empty(), "it no longer answers");
        until("the agent says so too", || {
            let told = agent.status()?["connection"].to_string();
            holds(told.contains("storage") || told.contains("store"), &told)
        });
        small.empty();
        until("it is ready again", || {
            let (status, body) = http::get(world.http(), "/readyz")?;
            holds(status == 200, &body)
        });
    }
    let recorded = node.kill();
    world.until_merged(&recorded.samples);
    agent.until_acknowledged();
    // What it acknowledged it has, having been killed too.
    world.aggregator().kill();
    world.start_aggregator_in(&small.space);
    world.until_merged(&recorded.samples);
}

#[test]
fn a_node_without_room_for_its_segment_is_told_and_records_once_there_is() {
    let world = World::new(&[]);
    let Some(small) = Small::new(&world.segments("host-1"), 2 << 20) else { return };
    world.issue("host-1");
    let agent = world.start_agent_in(&small.space, "host-1", &[]);
    let dir = small.space.outside(&world.segments("host-1"));
    let create =
        |instance| Recorder::create(&dir, Node { service: "lens", version: "1.4.2", instance });
    small.fill();
    let error = create("node-1").map(|_| ()).unwrap_err();
    assert!(matches!(error, CreateError::NoSpace { .. }), "{error}");
    small.empty();
    let node = create("node-1").unwrap();
    let series = node.series(slice("rust"), Stage::A).unwrap();
    small.fill();
    let error = node.series(slice("go"), Stage::A).map(|_| ()).unwrap_err();
    assert!(matches!(error, RegisterError::NoSpace { .. }), "{error}");
    // The series it has is recorded into as before: its memory was there when it was registered.
    (0..1_000).for_each(|n| series.record(1_000 * n));
    world.until_merged(&Tally::from([(series.key().clone(), 1_000)]));
    small.empty();
    let other = node.series(slice("go"), Stage::A).unwrap();
    (0..70).for_each(|n| other.record(1_000 * n));
    let keys = [series.key().clone(), other.key().clone()];
    world.until_merged(&keys.into_iter().zip([1_000, 70]).collect());
    agent.until_acknowledged();
}
