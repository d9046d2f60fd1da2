//! Agents that fall silent, return, leave and lose their spool: what is missing is named, everywhere.
#![allow(clippy::unwrap_used)]

mod world;

use lens_model::{Arm, SeriesKey, Stage};
use serde_json::{Value, json};
use world::{Agent, Tally, World, http, recorder, same, slice, until};

/// Every question whose answer may be short of an agent's counts.
const ANSWERS: [&str; 5] = [
    "/api/v1/quantiles",
    "/api/v1/histogram?format=json",
    "/api/v1/tail",
    "/api/v1/slices",
    "/health",
];

fn tally(count: u64) -> Tally {
    let key = SeriesKey { slice: slice("rust"), stage: Stage::A, arm: Arm::Baseline };
    Tally::from([(key, count)])
}

/// The gaps of an agent, as it is listed.
fn gaps(world: &World, agent: &str) -> Result<Value, String> {
    Ok(world.seen(agent)?["gaps"].clone())
}

/// Waits until every answer says that exactly this is missing.
fn until_missing(world: &World, missing: &Value) {
    for path in ANSWERS {
        until(path, || {
            let answer = http::json(world.http(), path)?;
            same(answer["incomplete"].clone(), missing)
        });
    }
}

/// Waits for the open gap of a killed agent, and gives its beginning.
fn until_open(world: &World, agent: &str) -> Value {
    until("an open gap", || {
        let gaps = gaps(world, agent)?;
        let from = gaps[0]["from"].clone();
        same(gaps, &json!([{ "from": from, "to": null }]))?;
        Ok(from)
    })
}

/// An agent killed with everything acknowledged, and until when it had accounted for its counts.
fn killed(world: &World, mut agent: Agent) -> String {
    agent.until_acknowledged();
    agent.process.kill();
    until("the connection is given up", || {
        let seen = world.seen("host-1")?;
        same(seen["connected"].clone(), &json!(false))?;
        Ok(seen["covered_to"].as_str().unwrap().to_owned())
    })
}

#[test]
fn a_killed_agent_is_an_open_gap_until_it_is_back_with_its_spool_and_one_that_left_is_none() {
    let world = World::new(&[]);
    let agent = world.agent("host-1", &[]);
    let mut leaving = world.agent("host-2", &[]);
    let node = recorder(&agent.segments, "node-1");
    let series = node.series(slice("rust"), Stage::A).unwrap();
    let other = recorder(&leaving.segments, "node-2");
    other.series(slice("rust"), Stage::A).unwrap().record(1_000_000);
    (0..1_000).for_each(|n| series.record(1_000_000 + n));
    world.until_merged(&tally(1_001));
    until_missing(&world, &json!([]));

    leaving.process.terminate();
    let covered_to = killed(&world, agent);
    let from = until_open(&world, "host-1");
    assert_eq!(from, covered_to);
    // The one that said goodbye has been gone for longer.
    until_missing(&world, &json!([{ "agent": "host-1", "from": from, "to": null }]));
    let left = world.seen("host-2").unwrap();
    assert_eq!((&left["left"], &left["gaps"]), (&json!(true), &json!([])), "{left}");

    // Recorded while nobody was there to harvest it.
    (0..500).for_each(|n| series.record(2_000_000 + n));
    let agent = world.start_agent("host-1", &[]);
    assert_eq!(agent.status().unwrap()["spool"]["recovered"]["created"], false);
    world.until_merged(&tally(1_501));
    until("the gap is closed", || same(gaps(&world, "host-1")?, &json!([])));
    until_missing(&world, &json!([]));
}

#[test]
fn a_lost_spool_leaves_a_gap_with_the_agents_name_a_beginning_and_an_end() {
    let world = World::new(&[]);
    let agent = world.agent("host-1", &[]);
    let node = recorder(&agent.segments, "node-1");
    let series = node.series(slice("rust"), Stage::A).unwrap();
    (0..1_000).for_each(|n| series.record(1_000_000 + n));
    world.until_merged(&tally(1_000));

    let covered_to = killed(&world, agent);
    assert_eq!(until_open(&world, "host-1"), covered_to);
    std::fs::remove_dir_all(world.spool("host-1")).unwrap();
    let agent = world.start_agent("host-1", &[]);
    until("the segment is taken up", || {
        let status = agent.status()?;
        same(status["segments"][0]["instance"].clone(), &json!("node-1"))
    });
    (0..200).for_each(|n| series.record(2_000_000 + n));
    world.until_merged(&tally(1_200));
    let gap = until("a closed gap", || {
        let gaps = gaps(&world, "host-1")?;
        let gap = gaps.as_array().filter(|gaps| gaps.len() == 1).map(|gaps| gaps[0].clone());
        gap.filter(|gap| gap["to"].is_string()).ok_or_else(|| gaps.to_string())
    });
    assert_eq!(gap["from"], covered_to);
    assert!(gap["to"].as_str() > gap["from"].as_str(), "{gap}");
    // It stays, with the agent connected and delivering.
    agent.until_connected(true);
    (0..100).for_each(|n| series.record(2_000_000 + n));
    world.until_merged(&tally(1_300));
    until_missing(&world, &json!([{ "agent": "host-1", "from": gap["from"], "to": gap["to"] }]));
}
