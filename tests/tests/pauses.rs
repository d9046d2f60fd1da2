//! Processes that are stopped and go on, and two that think they are the same.
#![allow(clippy::unwrap_used)]

mod world;

use rustix::process::Signal;
use world::node::RecordingNode;
use world::{Tally, World, holds, recorder, same, slice, until};

#[test]
fn an_agent_stopped_past_the_idle_timeout_loses_nothing_and_counts_nothing_twice() {
    let world = World::new(&[]);
    let agent = world.agent("host-1", &[]);
    let node = RecordingNode::new("node-1", &agent.segments, world.dir(), 1);
    until("samples", || holds(!world.merged()?.is_empty(), &"none"));
    agent.process.signal(Signal::STOP);
    until("the aggregator gave the connection up", || {
        let seen = world.seen("host-1")?;
        holds(seen["connected"] == false, &seen)
    });
    agent.process.signal(Signal::CONT);
    agent.until_connected(true);
    let recorded = node.kill();
    world.until_merged(&recorded.samples);
    agent.until_acknowledged();
    assert_eq!(world.merged().unwrap(), recorded.samples);
}

#[test]
fn an_aggregator_stopped_past_the_idle_timeout_loses_nothing_and_counts_nothing_twice() {
    let mut world = World::new(&[]);
    let agent = world.agent("host-1", &[]);
    let node = RecordingNode::new("node-1", &agent.segments, world.dir(), 1);
    until("samples", || holds(!world.merged()?.is_empty(), &"none"));
    world.aggregator().signal(Signal::STOP);
    agent.until_connected(false);
    world.aggregator().signal(Signal::CONT);
    agent.until_connected(true);
    let recorded = node.kill();
    world.until_merged(&recorded.samples);
    agent.until_acknowledged();
    assert_eq!(world.merged().unwrap(), recorded.samples);
}

#[test]
fn a_node_that_is_stopped_is_not_taken_for_dead() {
    let world = World::new(&[]);
    let agent = world.agent("host-1", &[]);
    let node = RecordingNode::new("node-1", &agent.segments, world.dir(), 1);
    until("samples", || holds(!world.merged()?.is_empty(), &"none"));
    node.process.signal(Signal::STOP);
    // Read over and over while its process stands still, perhaps in the middle of a record.
    let harvests = || Ok::<_, String>(agent.status()?["harvest"]["harvests_total"].as_u64());
    let before = harvests().unwrap().unwrap();
    until("harvests", || holds(harvests()? > Some(before + 10), &before));
    assert!(node.segment().exists(), "its segment was removed");
    let stopped = world.merged().unwrap();
    node.process.signal(Signal::CONT);
    until("it is harvested on", || holds(world.merged()? != stopped, &stopped));
    let recorded = node.kill();
    world.until_merged(&recorded.samples);
}

#[test]
fn of_two_agents_with_one_identity_the_older_yields_and_nothing_is_lost_or_double() {
    let world = World::new(&[]);
    let agent = world.agent("host-1", &[]);
    let node = recorder(&agent.segments, "node-1");
    let series = node.series(slice("rust"), lens_model::Stage::A).unwrap();
    let key = series.key().clone();
    let merged = |count| world.until_merged(&Tally::from([(key.clone(), count)]));
    (0..100).for_each(|n| series.record(1_000_000 + n));
    merged(100);

    // The same certificate on a second host, with segments and spool of its own.
    let elsewhere = world.dir().join("elsewhere");
    let dir = |name: &str| elsewhere.join(name).display().to_string();
    let (segments, spool) = (dir("segments"), dir("spool"));
    let settings = [("segments.dir", segments.as_str()), ("spool.dir", spool.as_str())];
    let mut twin = world.start_agent("host-1", &settings);
    let twin_node = recorder(elsewhere.join("segments").as_path(), "node-2");
    let twin_series = twin_node.series(slice("rust"), lens_model::Stage::A).unwrap();
    until("the older yields and says why", || {
        let told = agent.status()?["connection"].clone();
        let why = told["last_error"].as_str().unwrap_or_default();
        holds(why.contains("issue each its own certificate"), &told)
    });
    (0..30).for_each(|n| twin_series.record(1_000_000 + n));
    (0..5).for_each(|n| series.record(1_000_000 + n));
    // They take turns from now on; each keeps what it has until it is its turn.
    merged(135);
    until("both lives are told apart", || {
        let incarnations = [agent.status()?, twin.status()?].map(|s| s["incarnation"].clone());
        holds(incarnations[0] != incarnations[1], &incarnations)
    });
    drop((twin_series, twin_node));
    twin.process.terminate();
    (0..7).for_each(|n| series.record(1_000_000 + n));
    merged(142);
    agent.until_acknowledged();
    same(world.merged().unwrap(), &Tally::from([(key, 142)])).unwrap();
}
