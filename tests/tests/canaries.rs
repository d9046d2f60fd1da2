//! Rollouts through real processes: nodes' segments, agents, an aggregator that is killed, curl.
#![allow(clippy::unwrap_used)]

mod world;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use lens_model::{Arm, Stage};
use lens_segment::Recorder;
use rand::RngExt;
use serde_json::Value;
use world::process::run;
use world::{World, choices, holds, http, recorder, slice, until, until_within};

/// Longest a rollout of these plans is waited for: a dozen windows and what a busy machine adds.
const ROLLOUT: Duration = Duration::from_secs(150);

/// One short step with as many canary as baseline requests.
const PLAN: [(&str, &str); 4] = [
    ("canary.shares_percent", "50"),
    ("canary.dwell_s", "10"),
    ("canary.hold_back_percent", "0"),
    ("alerts.interval_s", "1"),
];

/// Nodes that serve both arms until it is dropped.
struct Traffic {
    stop: Arc<AtomicBool>,
    node: Option<JoinHandle<()>>,
}

impl Traffic {
    /// Every 50 ms some requests of each arm; the canary's stage B slower by a factor.
    fn new(node: Recorder, factor: f64, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let node = std::thread::spawn(move || {
            let mut rng = choices(seed);
            while !stopped.load(Ordering::Relaxed) {
                serve(&node, factor, &mut rng);
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        Self { stop, node: Some(node) }
    }
}

fn serve(node: &Recorder, factor: f64, rng: &mut impl RngExt) {
    for arm in Arm::ALL {
        let series = |stage| node.series_in_arm(slice("rust"), stage, arm).unwrap();
        let (b, e2e) = (series(Stage::B), series(Stage::E2e));
        let requests = node.requests_for(slice("rust"), arm).unwrap();
        for _ in 0..200 {
            let slow = if arm == Arm::Canary { factor } else { 1.0 };
            // Exponential of 2 ms on top of 4: p99 well under twice p95.
            let nanos = 4e6 - 2e6 * rng.random::<f64>().max(1e-9).ln();
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let (stage, whole) = ((nanos * slow) as u64, (nanos * slow + 1e6) as u64);
            b.record(stage);
            e2e.record(whole);
            requests.ok();
        }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(node) = self.node.take() {
            node.join().unwrap();
        }
    }
}

/// An exchange by curl, as the runbook prints it.
fn curl(world: &World, args: &[&str], path: &str) -> Value {
    let address = format!("http://{}{path}", world.http());
    let out = Command::new("curl").arg("-sS").args(args).arg(address).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text} {out:?}"))
}

fn canary(world: &World) -> Result<Value, String> {
    Ok(http::json(world.http(), "/canary/status")?["canary_deployment"].clone())
}

fn until_phase(world: &World, phase: &str) -> Value {
    until_within(ROLLOUT, phase, || {
        let canary = canary(world)?;
        let at = (&canary["phase"], &canary["blockers"], &canary["reason"]);
        holds(canary["phase"] == phase, &at).map(|()| canary.clone())
    })
}

fn lens(world: &World, args: &[&str]) -> (Option<i32>, String) {
    let url = format!("http://{}", world.http());
    let out = run(&[args, &["--url", &url]].concat());
    let text =
        format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    (out.status.code(), text)
}

#[test]
fn curl_alone_kills_the_kill_outlives_kill_9_and_two_people_release_it() {
    let mut world = World::bare();
    let audit = world.dir().join("audit").display().to_string();
    let settings = [("audit.dir", audit.as_str())];
    world.start_aggregator(&settings);
    let (code, said) = lens(&world, &["canary", "start", "1.5.0", "--salt", "autumn"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(canary(&world).unwrap()["share_percent"], 5.0);
    let (code, said) = lens(&world, &["canary", "progress"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("no_canary"), "{said}");
    let killed = curl(&world, &["-X", "POST"], "/canary/killswitch");
    assert_eq!((&killed["success"], &killed["traffic_percentage"]), (&true.into(), &0.into()));
    assert_eq!(killed["trouble"], serde_json::json!([]));
    world.aggregator().kill();
    world.start_aggregator(&settings);
    let now = canary(&world).unwrap();
    assert_eq!((&now["killed"], &now["share_percent"]), (&true.into(), &0.0.into()), "{now}");
    assert_eq!(now["rollbackHistory"][0]["flagName"], "canary_kill_switch");
    assert_eq!(lens(&world, &["canary", "start", "1.6.0"]).0, Some(1));
    assert_eq!(lens(&world, &["canary", "release-kill", "--approval", "ann"]).0, Some(1));
    let (code, said) = lens(&world, &["canary", "release-kill", "--approval", "bob"]);
    assert_eq!(code, Some(0), "{said}");
    world.aggregator().kill();
    world.start_aggregator(&settings);
    assert_eq!(canary(&world).unwrap()["phase"], "idle");
    let text = lines_of(Path::new(&audit));
    for verb in ["canary.start", "canary.progress", "kill.engage", "kill.release"] {
        assert!(text.contains(verb), "{verb} is not in the record");
    }
}

#[test]
fn a_healthy_canary_completes_though_the_aggregator_is_killed_at_every_step() {
    let mut world = World::bare();
    let mut plan = PLAN;
    plan[0].1 = "25,50";
    world.start_aggregator(&plan);
    let agent = world.agent("host-1", &[]);
    let _traffic = Traffic::new(recorder(&agent.segments, "node-1"), 1.0, 11);
    agent.until_connected(true);
    assert_eq!(lens(&world, &["canary", "start", "1.5.0"]).0, Some(0));
    for share in [25.0, 50.0] {
        let before = until_within(ROLLOUT, "some evidence at the step", || {
            let canary = canary(&world)?;
            let windows = canary["evidence"]["windows"].as_u64().unwrap_or(0);
            let at = (&canary["share_percent"], &canary["blockers"], &canary["evidence_reason"]);
            holds(canary["share_percent"] == share && windows >= 1, &at).map(|()| windows)
        });
        world.aggregator().kill();
        world.start_aggregator(&plan);
        let resumed = canary(&world).unwrap();
        assert_eq!((&resumed["phase"], &resumed["rollout"]), (&"step".into(), &1.into()));
        // It may have gone on between the look and the kill, and never goes back.
        assert!(resumed["share_percent"].as_f64() >= Some(share), "{resumed}");
        assert!(resumed["evidence"]["windows"].as_u64().unwrap() >= before, "{resumed}");
    }
    until_phase(&world, "complete");
    world.aggregator().kill();
    world.start_aggregator(&plan);
    assert_eq!(canary(&world).unwrap()["phase"], "complete");
    until("all of it", || {
        let canary = canary(&world)?;
        holds(canary["share_percent"] == 100.0, &canary["share_percent"])
    });
    let list = world.api("/canary/decisions")["decisions"].clone();
    let words: Vec<&str> =
        list.as_array().unwrap().iter().filter_map(|kept| kept["word"].as_str()).collect();
    assert_eq!(words.iter().filter(|word| **word == "complete").count(), 1, "{words:?}");
}

#[test]
fn a_slower_stage_b_is_rolled_back_on_record_and_the_replay_decides_the_same() {
    let mut world = World::bare();
    let audit = world.dir().join("audit").display().to_string();
    let mut settings = PLAN.to_vec();
    settings.push(("audit.dir", audit.as_str()));
    world.start_aggregator(&settings);
    let agent = world.agent("host-1", &[]);
    let _traffic = Traffic::new(recorder(&agent.segments, "node-1"), 1.5, 12);
    agent.until_connected(true);
    assert_eq!(lens(&world, &["canary", "start", "1.5.0"]).0, Some(0));
    let back = until_phase(&world, "rolled_back");
    assert_eq!(back["rollbackHistory"][0]["flagName"], "canary_rollback");
    let id = back["rollbackHistory"][0]["decision"].as_u64().unwrap();
    let kept = world.api(&format!("/canary/decisions/{id}"));
    assert_eq!((&kept["word"], &kept["replay"]), (&"rollback".into(), &Value::Null));
    until("the share is taken", || {
        let canary = canary(&world)?;
        holds(canary["share_percent"] == 0.0, &canary["share_percent"])
    });
    until("the alert", || {
        let alerts = http::json(world.http(), "/api/v1/alerts")?["alerts"].clone();
        holds(alerts.to_string().contains("canary/rolled_back"), &alerts)
    });
    until("the record", || {
        let digest = kept["digest"].as_str().unwrap();
        let text = lines_of(Path::new(&audit));
        holds(text.contains("canary.decide") && text.contains(digest), &text.len())
    });
    let dir = world.dir().join("replay").display().to_string();
    let (code, said) = lens(&world, &["canary", "replay", &id.to_string(), "--dir", &dir]);
    assert_eq!(code, Some(0), "{said}");
    let (windows, plan) = (format!("{dir}/windows.jsonl"), format!("{dir}/plan.toml"));
    let out = run(&["replay", &windows, "--canary", "--plan", &plan]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    let decided = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let again = decided.clone().find(|line| line["decision"] == "rollback");
    let again = again.unwrap_or_else(|| panic!("no rollback in {text}"));
    let t_ms = kept["decision"]["t_ms"].as_i64().unwrap() - kept["began_ms"].as_i64().unwrap();
    assert_eq!(again["t_ms"], t_ms);
    for part in ["harm", "promotion", "arms"] {
        let own = &kept["decision"]["evidence"][part];
        assert_eq!(again["evidence"]["evidence"][part], *own, "{part}");
    }
}

fn lines_of(dir: &Path) -> String {
    let files = std::fs::read_dir(dir).unwrap().flatten();
    files.filter_map(|file| String::from_utf8(std::fs::read(file.path()).ok()?).ok()).collect()
}
