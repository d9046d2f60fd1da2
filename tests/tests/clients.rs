//! Clients in other languages through a real agent and aggregator: every count where it belongs.
#![allow(clippy::unwrap_used)]

mod world;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use lens_hist::layout::{OVERFLOW, index_of};
use lens_model::{Arm, SeriesKey, Slice, Stage};
use serde_json::Value;
use world::{Agent, Tally, World, peers, same, until};

const PEERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers");

/// The latencies that both scripts record once a thread, nanoseconds.
fn values() -> Vec<u64> {
    let edges = (0..36).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit, (1 << bit) + 1]);
    let spread = (0..2_000).map(|n| 1_000 + n * n * 37);
    edges.chain(spread).chain([(1 << 36) - 1, 1 << 36, 1 << 40]).collect()
}

fn key(language: &str, stage: Stage, arm: Arm) -> SeriesKey {
    SeriesKey { slice: Slice::new("backend", language, "large").unwrap(), stage, arm }
}

/// Runs a client script to its end against this agent's directory.
fn run(program: &Path, script: &str, agent: &Agent) -> Value {
    let output = Command::new(program)
        .arg(format!("{PEERS}/{script}"))
        .env("LENS_SEGMENT_DIR", &agent.segments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Counts by counter of a series, as the API gives them.
fn buckets(world: &World, key: &SeriesKey) -> BTreeMap<usize, u64> {
    let path = format!(
        "/api/v1/histogram?slice={}&stage={}&arm={}&format=json",
        key.slice, key.stage, key.arm
    );
    let answer = world.api(&path);
    let in_range = answer["buckets"].as_array().unwrap().iter().map(|bucket| {
        let nanos = bucket[0].as_f64().unwrap() * 1e6;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let index = index_of(nanos.round() as u64);
        (index, bucket[2].as_u64().unwrap())
    });
    let overflow = answer["overflow"].as_u64().unwrap();
    in_range.chain([(OVERFLOW, overflow)]).filter(|(_, count)| *count > 0).collect()
}

/// The same counts from the values themselves, `times` each.
fn expected(times: u64) -> BTreeMap<usize, u64> {
    let mut counts = BTreeMap::new();
    for nanos in values() {
        *counts.entry(index_of(nanos)).or_default() += times;
    }
    counts
}

/// What a client in this language should have led to, and did.
fn holds_for(world: &World, language: &str, times: u64, more: &[(SeriesKey, u64)], said: &Value) {
    let a = key(language, Stage::A, Arm::Baseline);
    let c = key(language, Stage::C, Arm::Canary);
    let each = values().len() as u64 * times;
    let mut tally = Tally::from([(a.clone(), each), (c.clone(), 3)]);
    tally.extend(more.iter().cloned());
    world.until_merged(&tally);
    assert_eq!(buckets(world, &a), expected(times));
    let requests = BTreeMap::from([((a.slice.clone(), Arm::Baseline), (7, 2))]);
    until("requests", || {
        let mut merged = world.merged_requests()?;
        merged.retain(|_, counts| *counts != (0, 0));
        same(merged, &requests)
    });
    // Before the control plane has spoken its defaults hold.
    assert_eq!(said["quality_gating"], true, "{said}");
    assert_eq!(said["lru_caching"], false, "{said}");
    assert_eq!(said["arm"], "baseline", "{said}");
}

#[test]
fn python_counts_from_many_threads_and_forked_children_arrive_to_the_count() {
    let Some(program) = peers::program("python3") else { return };
    let world = World::new(&[]);
    let agent = world.agent("host-1", &[]);
    let said = run(&program, "client.py", &agent);
    let traced = key("python", Stage::B, Arm::Baseline);
    // Four threads, and two of a forked child.
    holds_for(&world, "python", 6, &[(traced, 4)], &said);
    let found = until("its slowest request", || {
        let answer = world.api("/api/v1/exemplars?stage=stage_b");
        answer["exemplars"].get(0).cloned().ok_or_else(|| answer.to_string())
    });
    assert_eq!((&found["latency_ms"], &found["instance"]), (&9.0.into(), &"py-node".into()));
    assert_eq!(found["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(found["span_id"], "00f067aa0ba902b7");
}

#[test]
fn node_counts_arrive_to_the_count() {
    let Some(program) = peers::program("node") else { return };
    let world = World::new(&[]);
    let agent = world.agent("host-1", &[]);
    let said = run(&program, "client.mjs", &agent);
    // Main thread, one worker thread.
    holds_for(&world, "javascript", 2, &[], &said);
}

/// A client that is killed without warning: it says how many it recorded before.
fn killed(program: &str, script: &str, language: &str, may_lose: bool) {
    let Some(program) = peers::program(program) else { return };
    let world = World::new(&[]);
    let agent = world.agent("host-1", &[]);
    let output = Command::new(program)
        .args([format!("{PEERS}/{script}"), "--die".into()])
        .env("LENS_SEGMENT_DIR", &agent.segments)
        .output()
        .unwrap();
    assert!(!output.status.success(), "it killed itself");
    let recorded: u64 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    let key = key(language, Stage::A, Arm::Baseline);
    until("what it recorded", || {
        let merged = world.merged()?.get(&key).copied().unwrap_or(0);
        let good = if may_lose { (1..=recorded).contains(&merged) } else { merged == recorded };
        if good { Ok(()) } else { Err(format!("{merged} of {recorded}")) }
    });
}

#[test]
fn a_python_process_that_is_killed_loses_nothing() {
    killed("python3", "client.py", "python", false);
}

#[test]
fn a_node_process_that_is_killed_loses_at_most_what_was_not_flushed() {
    killed("node", "client.mjs", "javascript", true);
}
