//! Crashes, pauses and silence: nothing is lost, nothing is counted twice, nothing reads as well.
#![allow(clippy::unwrap_used)]

mod world;

use std::time::{Duration, Instant};

use lens_model::{Arm, SeriesKey, Stage};
use rustix::process::Signal;
use serde_json::Value;
use world::{Tally, World, choices, holds, http, latency, recorder, slice, until};

fn key() -> SeriesKey {
    SeriesKey { slice: slice("rust"), stage: Stage::A, arm: Arm::Baseline }
}

fn tally(count: u64) -> Tally {
    Tally::from([(key(), count)])
}

/// Harvests done so far.
fn harvests(agent: &world::Agent) -> u64 {
    let status = until("status", || agent.status());
    status["harvest"]["harvests_total"].as_u64().unwrap()
}

/// Waits until some more harvests were done.
fn until_harvested(agent: &world::Agent) {
    let before = harvests(agent);
    until("harvests", || holds(harvests(agent) >= before + 4, &before));
}

#[test]
fn an_agent_ships_on_to_an_aggregator_that_was_killed_and_started_again() {
    let mut world = World::new(&[]);
    let mut agent = world.agent("host-1", &[]);
    let node = recorder(&agent.segments, "node-1");
    let series = node.series(slice("rust"), Stage::A).unwrap();
    let mut rng = choices(1);
    let mut record = |count: u64| (0..count).for_each(|_| series.record(latency(&mut rng)));

    record(1_000);
    world.until_merged(&tally(1_000));
    agent.until_acknowledged();
    world.aggregator().kill();
    // Recorded while nobody is there to take it.
    record(500);
    until_harvested(&agent);
    world.start_aggregator(&[]);
    // What was acknowledged before is there as it was; what was not comes now, once.
    world.until_merged(&tally(1_500));
    record(300);
    world.until_merged(&tally(1_800));
    agent.until_acknowledged();
    agent.until_connected(true);

    // And again, to the same agent, with nothing recorded in between.
    world.aggregator().kill();
    until_harvested(&agent);
    world.start_aggregator(&[]);
    agent.until_connected(true);
    record(70);
    world.until_merged(&tally(1_870));
    agent.process.terminate();
    assert_eq!(world.merged().unwrap(), tally(1_870));
}

#[test]
fn an_agent_is_told_by_the_next_aggregator_that_its_connection_is_no_more() {
    let mut world = World::new(&[]);
    // A port that is configured, as everywhere but in tests.
    let address = world.quic().to_owned();
    world.aggregator().terminate();
    world.start_aggregator(&[("quic.listen", &address)]);
    let agent = world.agent("host-1", &[]);
    let node = recorder(&agent.segments, "node-1");
    let series = node.series(slice("rust"), Stage::A).unwrap();
    agent.until_connected(true);
    world.aggregator().kill();
    world.start_aggregator(&[("quic.listen", &address)]);
    (0..100).for_each(|n| series.record(1_000_000 + n));
    // It need not find out by five seconds of silence.
    until("reset", || {
        let log = agent.process.log();
        holds(log.contains("reset by peer"), &log)
    });
    world.until_merged(&tally(100));
}

#[test]
fn an_aggregator_that_was_killed_gives_the_same_answers_for_the_past() {
    let mut world = World::new(&[]);
    let mut agent = world.agent("host-1", &[]);
    let node = recorder(&agent.segments, "node-1");
    let series = node.series(slice("rust"), Stage::A).unwrap();
    let mut rng = choices(3);
    let mut recorded = 0;
    let mut record = |count: u64| {
        (0..count).for_each(|_| series.record(latency(&mut rng)));
        recorded += count;
        recorded
    };
    let total = record(2_000);
    world.until_merged(&tally(total));
    agent.until_acknowledged();
    // Slots that are over: nothing recorded from here on falls into them.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let over = now.as_secs() / 5 * 5 + 5;
    until("the slot is over", || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        holds(now.as_secs() > over, &now)
    });
    let path = format!("/api/v1/histogram?from={}&to={over}", over - 60);
    let (before, totals) = (world.api(&path), world.api("/api/v1/slices"));
    assert_eq!(before["count"], 2_000);

    // Mid-stream: killed at five arbitrary moments while samples come.
    for round in 0..5 {
        for _ in 0..10 {
            record(40);
            std::thread::sleep(Duration::from_millis(7 + 13 * round));
        }
        world.aggregator().kill();
        record(40);
        world.start_aggregator(&[]);
        let after = world.api(&path);
        assert_eq!(after["buckets"], before["buckets"], "round {round}");
    }
    let total = record(1);
    world.until_merged(&tally(total));
    agent.until_connected(true);
    // While the agent was not back, time was missing; with it, none is.
    until("nothing is missing", || {
        let missing = world.api(&path)["incomplete"].clone();
        holds(missing == serde_json::json!([]), &missing)
    });
    agent.process.terminate();
    assert_eq!(world.merged().unwrap(), tally(total));
    let merged = |answer: &Value| answer["slices"][0]["merged_total"].as_u64();
    assert_eq!((merged(&totals), merged(&world.api("/api/v1/slices"))), (Some(2_000), Some(total)));
}

#[test]
fn an_aggregator_that_hung_takes_everything_once_it_goes_on() {
    let mut world = World::new(&[]);
    let mut agent = world.agent("host-1", &[]);
    let node = recorder(&agent.segments, "node-1");
    let series = node.series(slice("rust"), Stage::A).unwrap();
    let mut rng = choices(2);
    let mut recorded = 0;
    let mut record = || {
        (0..50).for_each(|_| series.record(latency(&mut rng)));
        recorded += 50;
        std::thread::sleep(Duration::from_millis(20));
        recorded
    };
    (0..20).for_each(|_| {
        record();
    });
    world.aggregator().signal(Signal::STOP);
    // Until the agent has given the connection up and tries for another.
    until("the connection is given up", || {
        record();
        let status = agent.status()?;
        holds(status["connection"]["connected"] == false, &status["connection"])
    });
    (0..20).for_each(|_| {
        record();
    });
    world.aggregator().signal(Signal::CONT);
    agent.until_connected(true);
    let recorded = record();
    world.until_merged(&tally(recorded));

    // A short pause, over which the connection stands.
    world.aggregator().signal(Signal::STOP);
    let end = Instant::now() + Duration::from_secs(1);
    while Instant::now() < end {
        record();
    }
    world.aggregator().signal(Signal::CONT);
    let recorded = record();
    world.until_merged(&tally(recorded));
    agent.process.terminate();
    assert_eq!(world.merged().unwrap(), tally(recorded));
}

#[test]
fn an_agent_that_is_asked_to_end_ships_everything_first() {
    let world = World::new(&[]);
    // Its next harvest is up to a minute away: what arrives was harvested because it ended.
    let slow = [("harvest.interval_ms", "60000")];
    let mut agent = world.agent("host-1", &slow);
    let node = recorder(&agent.segments, "node-1");
    let series = node.series(slice("rust"), Stage::A).unwrap();
    agent.until_connected(true);
    (0..5_000).for_each(|n| series.record(1_000_000 + n));
    node.requests().ok();
    agent.process.terminate();
    assert_eq!(world.merged().unwrap(), tally(5_000));
    until("the aggregator saw it leave", || {
        let seen = world.seen("host-1")?;
        holds(seen["connected"] == false, &seen)
    });

    // Its successor goes on where it stopped.
    (0..234).for_each(|n| series.record(2_000_000 + n));
    let mut agent = world.start_agent("host-1", &[]);
    world.until_merged(&tally(5_234));
    until_harvested(&agent);
    agent.process.terminate();
    assert_eq!(world.merged().unwrap(), tally(5_234));
}

#[test]
fn agents_killed_in_mid_flow_lose_nothing_and_count_nothing_twice() {
    let world = World::new(&[]);
    let mut agent = world.agent("host-1", &[]);
    let node = recorder(&agent.segments, "node-1");
    let series = node.series(slice("rust"), Stage::A).unwrap();
    let mut recorded = 0;
    let mut rng = choices(3);
    for round in 0..6 {
        // Killed at some other point of its half a second each time, mostly between harvests.
        let end = Instant::now() + Duration::from_millis(350 + 37 * round);
        while Instant::now() < end {
            (0..25).for_each(|_| series.record(latency(&mut rng)));
            node.requests().ok();
            recorded += 25;
            std::thread::sleep(Duration::from_millis(2));
        }
        agent.process.kill();
        // Recorded while no agent runs.
        (0..40).for_each(|_| series.record(latency(&mut rng)));
        recorded += 40;
        agent = world.start_agent("host-1", &[]);
    }
    world.until_merged(&tally(recorded));
    agent.until_acknowledged();
    until_harvested(&agent);
    assert_eq!(world.merged().unwrap(), tally(recorded));
    let status = agent.status().unwrap();
    assert_eq!(status["spool"]["recovered"]["created"], false, "{status}");
    assert_eq!(status["spool"]["recovered"]["segments"], 1, "{status}");
}

#[test]
fn a_lost_spool_counts_nothing_twice_and_says_so() {
    let world = World::new(&[]);
    let mut agent = world.agent("host-1", &[]);
    let node = recorder(&agent.segments, "node-1");
    let series = node.series(slice("rust"), Stage::A).unwrap();
    (0..1_000).for_each(|n| series.record(1_000_000 + n));
    world.until_merged(&tally(1_000));
    let life = agent.status().unwrap()["incarnation"].clone();
    agent.process.kill();
    std::fs::remove_dir_all(world.dir().join("host-1-spool")).unwrap();
    let agent = world.start_agent("host-1", &[]);
    until_harvested(&agent);
    let status = agent.status().unwrap();
    assert_ne!(status["incarnation"], life);
    assert_eq!(status["spool"]["recovered"]["created"], true);
    assert!(status["dropped"]["segment taken up at its present counts"] == 1, "{status}");
    (0..200).for_each(|n| series.record(1_000_000 + n));
    world.until_merged(&tally(1_200));
}

#[test]
fn an_agent_that_was_killed_is_followed_by_one_that_counts_nothing_twice() {
    let world = World::new(&[]);
    let mut agent = world.agent("host-1", &[]);
    let node = recorder(&agent.segments, "node-1");
    let series = node.series(slice("rust"), Stage::A).unwrap();
    (0..1_000).for_each(|n| series.record(1_000_000 + n));
    world.until_merged(&tally(1_000));
    agent.process.kill();
    let agent = world.start_agent("host-1", &[]);
    until("segment found", || {
        let status = agent.status()?;
        holds(status["segments"][0]["instance"] == "node-1", &status["segments"])
    });
    until_harvested(&agent);
    assert_eq!(world.merged().unwrap(), tally(1_000), "counted again");
    (0..300).for_each(|n| series.record(2_000_000 + n));
    world.until_merged(&tally(1_300));
}

#[test]
fn an_agent_that_waits_to_try_again_tries_once_more_before_it_ends() {
    let mut world = World::new(&[]);
    let mut agent = world.agent("host-1", &[]);
    let node = recorder(&agent.segments, "node-1");
    let series = node.series(slice("rust"), Stage::A).unwrap();
    (0..200).for_each(|n| series.record(1_000_000 + n));
    world.until_merged(&tally(200));
    agent.until_acknowledged();
    world.aggregator().terminate();
    // Refused for something that lasts, it waits for as long as it ever does.
    world.start_aggregator(&[("identity.trust_domain", "elsewhere.test")]);
    until("refused", || {
        let told = agent.status()?["connection"]["last_error"].to_string();
        holds(told.contains("lens.test is not served"), &told)
    });
    world.aggregator().terminate();
    world.start_aggregator(&[]);
    (0..300).for_each(|n| series.record(1_000_000 + n));
    agent.process.terminate();
    world.until_merged(&tally(500));
}

#[test]
fn an_agent_without_an_aggregator_ends_in_time_and_says_what_is_left() {
    let mut world = World::new(&[]);
    let mut agent = world.agent("host-1", &[]);
    let node = recorder(&agent.segments, "node-1");
    let series = node.series(slice("rust"), Stage::A).unwrap();
    agent.until_connected(true);
    world.aggregator().kill();
    (0..100).for_each(|n| series.record(1_000_000 + n));
    until("counts in the spool", || {
        let spool = &agent.status()?["spool"];
        holds(spool["frames"].as_u64() > Some(0), spool)
    });
    agent.process.terminate();
    let log = agent.process.log();
    assert!(log.contains("never acknowledged"), "{log}");
}

#[test]
fn an_agent_on_an_aggregator_that_hangs_ends_in_time_and_nothing_is_counted_twice() {
    let mut world = World::new(&[]);
    let mut agent = world.agent("host-1", &[]);
    let node = recorder(&agent.segments, "node-1");
    let series = node.series(slice("rust"), Stage::A).unwrap();
    (0..400).for_each(|n| series.record(1_000_000 + n));
    world.until_merged(&tally(400));
    agent.until_acknowledged();
    world.aggregator().signal(Signal::STOP);
    (0..100).for_each(|n| series.record(1_000_000 + n));
    agent.process.terminate();
    world.aggregator().signal(Signal::CONT);
    // What was on the way when the agent gave up may have arrived or not: its successor has it all
    // in its spool, and sends what the aggregator does not say it has.
    let agent = world.start_agent("host-1", &[]);
    world.until_merged(&tally(500));
    (0..60).for_each(|n| series.record(1_000_000 + n));
    world.until_merged(&tally(560));
    agent.until_acknowledged();
}

#[test]
fn an_aggregator_that_is_asked_to_end_does_so_with_agents_and_readers_on_it() {
    let mut world = World::new(&[]);
    let agent = world.agent("host-1", &[]);
    let node = recorder(&agent.segments, "node-1");
    node.series(slice("rust"), Stage::A).unwrap().record(1_000_000);
    world.until_merged(&tally(1));
    let _reader = http::subscribe(world.http(), "/api/v1/events");
    world.aggregator().terminate();
    agent.until_connected(false);
    let (status, reasons) = http::get(&agent.admin, "/readyz").unwrap();
    assert_eq!(status, 503);
    assert!(reasons.contains(world.quic()), "{reasons}");
    assert_eq!(http::get(&agent.admin, "/livez").unwrap().0, 200);
}

#[test]
fn nothing_fed_is_degraded_and_never_healthy() {
    let world = World::new(&[("slices.known", "backend/rust/small,backend/go/small")]);
    let check = || {
        let health = world.api("/health");
        assert_eq!(health["status"], "degraded", "{health}");
        assert_eq!(health["healthy"], false);
        assert_eq!((&health["total_slices"], &health["healthy_slices"]), (&2.into(), &0.into()));
        let lacking = serde_json::json!(["backend/go/small", "backend/rust/small"]);
        assert_eq!(health["insufficient_data"], lacking);
        assert!(!health["summary"].as_str().unwrap().is_empty());
    };
    check();
    // An agent that has nothing to say proves nothing.
    let agent = world.agent("host-1", &[]);
    agent.until_connected(true);
    check();
    // Nor do a few samples.
    let node = recorder(&agent.segments, "node-1");
    let series = node.series(slice("rust"), Stage::A).unwrap();
    (0..100).for_each(|_| series.record(1_000_000));
    world.until_merged(&tally(100));
    check();
    let lens = world::process::run(&["status", "--url", &format!("http://{}", world.http())]);
    assert_eq!(lens.status.code(), Some(1), "the answer is no");
}

#[test]
fn a_slice_that_falls_silent_is_stale_and_no_longer_healthy() {
    let world = World::new(&[("windows.stale_s", "20")]);
    let agent = world.agent("host-1", &[]);
    let node = recorder(&agent.segments, "node-1");
    let series = node.series(slice("rust"), Stage::A).unwrap();
    (0..1_000).for_each(|n| series.record(1_000_000 + n * 1_000));
    world.until_merged(&tally(1_000));
    // Judged once its slots are whole.
    until("healthy", || {
        let health = world.api("/health");
        holds(health["status"] == "healthy" && health["healthy"] == true, &health)
    });

    let tail = || world.api("/api/v1/tail?slice=backend/rust/small")["series"][0].clone();
    assert_eq!(tail()["verdict"], "ok");
    until("stale", || {
        let health = world.api("/health");
        holds(health["stale"] == serde_json::json!(["backend/rust/small"]), &health)
    });
    let health = world.api("/health");
    assert_eq!((&health["status"], &health["healthy"]), (&"degraded".into(), &false.into()));
    assert_eq!(health["healthy_slices"], 0);
    let silent = tail();
    assert_eq!(silent["verdict"], "stale");
    assert!(silent["reason"].as_str().unwrap().contains("silent"), "{silent}");

    // One that speaks again is well again.
    (0..1_000).for_each(|_| series.record(1_500_000));
    until("healthy again", || {
        let health = world.api("/health");
        holds(health["status"] == "healthy" && health["stale"] == Value::Array(vec![]), &health)
    });
}
