//! A network that loses packets, one way, both ways, for longer than a connection lasts: real
//! packets over a wire between two network namespaces, dropped by the kernel's own filter.
//!
//! Needs root and iptables (deploy/test-peers.sh); says so and tests nothing where they lack.
#![allow(clippy::unwrap_used)]

mod world;

use std::process::Command;
use std::time::{Duration, Instant};

use lens_model::{Arm, SeriesKey};
use lens_segment::{Recorder, Series};
use world::spaces::{Wire, skipped};
use world::{Process, Tally, World, holds, recorder, slice, until};

/// Everything that goes from the agent to the aggregator is lost.
const TO_AGGREGATOR: &str = "OUTPUT -o far -j DROP";

/// Everything that comes back is lost.
const FROM_AGGREGATOR: &str = "INPUT -i far -j DROP";

/// An aggregator here, an agent at the far end of a wire, a node beside the agent.
struct Apart {
    world: World,
    agent: Process,
    series: Series,
    recorded: u64,
    node: Recorder,
    wire: Wire,
}

impl Apart {
    fn new() -> Option<Self> {
        let wire = match Wire::new() {
            Ok(wire) => wire,
            Err(why) => {
                skipped(&why);
                return None;
            }
        };
        let mut world = World::bare();
        world.listen_on(&format!("{}:0", wire.near));
        world.start_aggregator(&[]);
        world.issue("host-1");
        let mut settings = world.agent_settings("host-1");
        settings.push(("aggregator.server_name".into(), "localhost".into()));
        let command = wire.space.bring(&Process::command("agent", &settings));
        let mut agent = Process::start("host-1", world.dir(), command);
        agent.ready();
        let node = recorder(&world.segments("host-1"), "node-1");
        let series = node.series(slice("rust"), lens_model::Stage::A).unwrap();
        let mut apart = Self { world, agent, series, recorded: 0, node, wire };
        apart.record_for(Duration::from_millis(500));
        apart.until_merged();
        Some(apart)
    }

    fn key(&self) -> SeriesKey {
        self.series.key().clone()
    }

    /// Records steadily for a while.
    fn record_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.record();
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn record(&mut self) {
        (0..20).for_each(|n| self.series.record(1_000_000 + n));
        self.recorded += 20;
    }

    fn until_merged(&self) {
        self.world.until_merged(&Tally::from([(self.key(), self.recorded)]));
    }

    /// Records until the aggregator has given the agent's connection up, which takes as long as a
    /// connection may be idle, and then a little longer.
    fn record_past_the_idle_timeout(&mut self) {
        until("the connection is given up", || {
            self.record();
            let seen = self.world.seen("host-1")?;
            holds(seen["connected"] == false, &seen)
        });
        self.record_for(Duration::from_secs(1));
    }

    /// Ends the agent, which must have shipped everything by then, and nothing twice.
    fn end(mut self) {
        self.record();
        self.agent.terminate();
        self.until_merged();
        let seen = self.world.seen("host-1").unwrap();
        assert_eq!(seen["rejected"], serde_json::json!({}), "{seen}");
    }
}

#[test]
fn a_partition_both_ways_past_the_idle_timeout_loses_nothing() {
    let Some(mut apart) = Apart::new() else { return };
    apart.wire.rule(&format!("-A {TO_AGGREGATOR}"));
    apart.wire.rule(&format!("-A {FROM_AGGREGATOR}"));
    apart.record_past_the_idle_timeout();
    apart.wire.rule("-F");
    apart.until_merged();
    apart.end();
}

/// What curl is answered to a POST, as the runbook prints it.
fn post(world: &World, path: &str, body: &[&str]) -> serde_json::Value {
    let address = format!("http://{}{path}", world.http());
    let mut command = Command::new("curl");
    let out = command.args(["-sS", "-X", "POST", &address]).args(body).output().unwrap();
    serde_json::from_slice(&out.stdout).unwrap_or_else(|error| panic!("{error}: {out:?}"))
}

/// How many of a thousand users a node has in the canary.
fn canaries(node: &Recorder) -> usize {
    (0..1_000).filter(|n| node.canary().arm(format!("user-{n}")) == Arm::Canary).count()
}

#[test]
fn a_node_cut_off_while_the_canary_is_killed_obeys_the_kill_when_the_network_is_back() {
    let Some(mut apart) = Apart::new() else { return };
    let begun = post(&apart.world, "/canary/start", &["-d", r#"{"version": "1.5.0"}"#]);
    assert_eq!(begun["success"], true, "{begun}");
    until("the node has a canary", || {
        let share = apart.node.flags().canary_ppm();
        holds(share == 50_000, &share)
    });
    let before = apart.node.flags().generation();
    apart.wire.rule(&format!("-A {TO_AGGREGATOR}"));
    apart.wire.rule(&format!("-A {FROM_AGGREGATOR}"));
    let killed = post(&apart.world, "/canary/killswitch", &[]);
    assert_eq!(killed["success"], true, "{killed}");
    apart.record_past_the_idle_timeout();
    assert_eq!(apart.node.flags().generation(), before, "it cannot have heard");
    assert!(canaries(&apart.node) > 0);
    apart.wire.rule("-F");
    until("the node obeys", || {
        let now = (apart.node.flags().canary_ppm(), canaries(&apart.node));
        holds(now == (0, 0) && apart.node.flags().killed(), &now)
    });
    apart.until_merged();
    apart.end();
}

#[test]
fn acknowledgements_that_never_arrive_make_nothing_count_twice() {
    let Some(mut apart) = Apart::new() else { return };
    apart.wire.rule(&format!("-A {FROM_AGGREGATOR}"));
    // Deltas arrive and are merged; the agent cannot know, and sends them again afterwards.
    apart.record_past_the_idle_timeout();
    apart.wire.rule("-F");
    apart.until_merged();
    apart.end();
}

#[test]
fn deltas_that_never_arrive_are_sent_again_on_another_connection() {
    let Some(mut apart) = Apart::new() else { return };
    apart.wire.rule(&format!("-A {TO_AGGREGATOR}"));
    apart.record_past_the_idle_timeout();
    apart.wire.rule("-F");
    apart.until_merged();
    apart.end();
}

#[test]
fn a_network_that_loses_a_third_of_its_packets_loses_no_sample() {
    let Some(mut apart) = Apart::new() else { return };
    for chain in ["INPUT -i far", "OUTPUT -o far"] {
        apart
            .wire
            .rule(&format!("-A {chain} -m statistic --mode random --probability 0.3 -j DROP"));
    }
    apart.record_for(Duration::from_secs(5));
    apart.until_merged();
    let dropped = apart.wire.dropped();
    assert!(dropped > 20, "only {dropped} packets were lost");
    apart.end();
}
