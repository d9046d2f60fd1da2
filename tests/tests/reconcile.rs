//! What nodes recorded is what the aggregator merged, series by series, to the last sample.
#![allow(clippy::unwrap_used)]

mod world;

use std::time::{Duration, Instant};

use lens_model::{Arm, Slice, Stage};
use lens_segment::Recorder;
use rand::RngExt;
use world::node::RecordingNode;
use world::{Outcomes, Tally, World, choices, holds, http, latency, recorder, same, slice, until};

/// What threads recorded through one recorder: samples by series, requests by slice and arm.
#[derive(Default)]
struct Recorded {
    samples: Tally,
    requests: Outcomes,
}

impl Recorded {
    fn add(&mut self, other: Self) {
        for (key, count) in other.samples {
            *self.samples.entry(key).or_default() += count;
        }
        for (key, (ok, error)) in other.requests {
            let held = self.requests.entry(key).or_default();
            *held = (held.0 + ok, held.1 + error);
        }
    }
}

/// Records from one thread until `end`, in short bursts over every slice, stage and arm.
fn record(node: &Recorder, seed: u64, end: Instant) -> Recorded {
    let mut rng = choices(seed);
    let mut recorded = Recorded::default();
    while Instant::now() < end {
        for language in ["rust", "go", "python"] {
            let arm = Arm::ALL[rng.random_range(0..2)];
            let requests = node.requests_for(slice(language), arm).unwrap();
            for stage in [Stage::A, Stage::B, Stage::E2e] {
                let series = node.series_in_arm(slice(language), stage, arm).unwrap();
                let burst = rng.random_range(1..40);
                (0..burst).for_each(|_| series.record(latency(&mut rng)));
                *recorded.samples.entry(series.key().clone()).or_default() += burst;
            }
            let held = recorded.requests.entry((slice(language), arm)).or_default();
            if rng.random_bool(0.1) {
                requests.error();
                held.1 += 1;
            } else {
                requests.ok();
                held.0 += 1;
            }
        }
        std::thread::sleep(Duration::from_millis(3));
    }
    recorded
}

/// Requests that were counted at all: a counter that is registered and never used is no fact.
fn counted(requests: Outcomes) -> Outcomes {
    requests.into_iter().filter(|(_, counts)| *counts != (0, 0)).collect()
}

#[test]
fn what_threads_record_while_agents_harvest_is_merged_to_the_last_sample() {
    let world = World::new(&[]);
    let agents = [world.agent("host-1", &[]), world.agent("host-2", &[])];
    let nodes = [
        recorder(&agents[0].segments, "node-1"),
        recorder(&agents[0].segments, "node-2"),
        recorder(&agents[1].segments, "node-3"),
    ];
    let end = Instant::now() + Duration::from_secs(3);
    let mut recorded = Recorded::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> = nodes
            .iter()
            .zip(0_u64..)
            .flat_map(|(node, n)| {
                (0..3).map(move |t| scope.spawn(move || record(node, n * 10 + t, end)))
            })
            .collect();
        threads.into_iter().for_each(|thread| recorded.add(thread.join().unwrap()));
    });
    nodes[0].gauge("span_coverage_percent").set(98.75);
    nodes[2].gauge("ndcg_at_10").set(0.5);
    assert_eq!(recorded.samples.len(), 3 * 3 * 2, "every series was recorded into");

    world.until_merged(&recorded.samples);
    until("requests", || same(counted(world.merged_requests()?), &recorded.requests));
    until("gauges", || {
        let (_, metrics) = http::get(world.http(), "/metrics")?;
        let reading = |instance: &str, name: &str, value: &str| {
            metrics.lines().any(|line| {
                line.starts_with("lens_node_reading{")
                    && line.contains(&format!("\"{instance}\""))
                    && line.contains(&format!("\"{name}\""))
                    && line.ends_with(&format!(" {value}"))
            })
        };
        let all = reading("node-1", "span_coverage_percent", "98.75")
            && reading("node-3", "ndcg_at_10", "0.5");
        holds(all, &metrics)
    });
    // Both hosts' samples stand under their own names, and add up.
    let total: u64 = recorded.samples.values().sum();
    let of = |agent| world.seen(agent).unwrap()["samples"].as_u64().unwrap();
    assert_eq!(of("host-1") + of("host-2"), total);
    // Harvests that find nothing add nothing.
    let harvests = |at: usize| agents[at].status().unwrap()["harvest"]["harvests_total"].as_u64();
    let before = harvests(0).unwrap();
    until("further harvests", || holds(harvests(0) > Some(before + 5), &before));
    assert_eq!(world.merged().unwrap(), recorded.samples);
}

#[test]
fn a_segment_older_than_its_agent_is_harvested_from_its_first_sample() {
    let world = World::new(&[]);
    let segments = world.dir().join("host-1-segments");
    let node = recorder(&segments, "node-1");
    let series = node.series(slice("rust"), Stage::B).unwrap();
    (0..1_000).for_each(|n| series.record(1_000_000 + n));
    let agent = world.agent("host-1", &[]);
    let key = series.key().clone();
    world.until_merged(&Tally::from([(key.clone(), 1_000)]));
    (0..234).for_each(|n| series.record(2_000_000 + n));
    world.until_merged(&Tally::from([(key, 1_234)]));
    assert_eq!(agent.status().unwrap()["segments"][0]["state"], "live");
}

#[test]
fn processes_of_one_name_are_merged_together_in_the_same_harvest() {
    let world = World::new(&[]);
    let segments = world.dir().join("host-1-segments");
    let mut key = None;
    // A process that died, its successor, and one that should have had another name.
    let nodes = [300, 20, 1].map(|count| {
        let node = recorder(&segments, "node-1");
        let series = node.series(slice("rust"), Stage::B).unwrap();
        (0..count).for_each(|n| series.record(1_000_000 + n));
        node.requests_for(slice("rust"), Arm::Baseline).unwrap().ok();
        key = Some(series.key().clone());
        node
    });
    let agent = world.agent("host-1", &[]);
    world.until_merged(&Tally::from([(key.unwrap(), 321)]));
    until("requests", || {
        let wanted = Outcomes::from([((slice("rust"), Arm::Baseline), (3, 0))]);
        same(counted(world.merged_requests()?), &wanted)
    });
    agent.until_acknowledged();
    drop(nodes);
}

#[test]
fn the_segment_of_a_node_that_ended_is_drained_and_removed() {
    let world = World::new(&[]);
    let agent = world.agent("host-1", &[]);
    let node = recorder(&agent.segments, "node-1");
    let path = node.path().to_owned();
    let series = node.series(slice("rust"), Stage::A).unwrap();
    let key = series.key().clone();
    until("segment found", || {
        let status = agent.status()?;
        holds(status["segments"][0]["instance"] == "node-1", &status["segments"])
    });
    (0..500).for_each(|n| series.record(1_000 + n));
    node.requests().ok();
    drop((series, node));
    until("segment removed", || holds(!path.exists(), &path));
    world.until_merged(&Tally::from([(key, 500)]));
    until("requests", || {
        let everything = (Slice::new("all", "all", "all").unwrap(), Arm::Baseline);
        same(counted(world.merged_requests()?), &Outcomes::from([(everything, (1, 0))]))
    });
    until("segment forgotten", || {
        let status = agent.status()?;
        holds(status["segments"].as_array().is_some_and(Vec::is_empty), &status["segments"])
    });
}

#[test]
fn a_node_killed_while_recording_loses_nothing_and_leaves_nothing_behind() {
    let world = World::new(&[]);
    let agent = world.agent("host-1", &[]);
    let node = RecordingNode::new("node-1", &agent.segments, world.dir(), 1);
    let path = node.segment().to_owned();
    until("some were merged", || {
        let merged: u64 = world.merged()?.values().sum();
        holds(merged > 1_000, &merged)
    });
    // What its memory held and what it said itself agree, or this panics.
    let recorded = node.kill();
    until("segment removed", || holds(!path.exists(), &path));
    world.until_merged(&recorded.samples);
    until("requests", || {
        same(counted(world.merged_requests()?), &counted(recorded.requests.clone()))
    });
    assert!(agent.segment_files().is_empty(), "{:?}", agent.segment_files());
}
