//! A rollout before two unmodified HTTP servers: the agent's proxy routes and measures, the
//! aggregator decides, and what an independent client and the servers themselves saw is what counts.
#![allow(clippy::unwrap_used)]

mod world;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use world::engines::{SLICE, Saw, curl, engine, until_merged};
use world::peers::program;
use world::{Agent, World, holds, http, until, until_within};

/// Longest the rollout is waited for: half a dozen windows and what a busy machine adds.
const ROLLOUT: Duration = Duration::from_secs(120);

/// Requests of one run of curl.
const BATCH: usize = 60;

/// One step with as many canary as baseline requests, and a small sure thing is enough.
const PLAN: [(&str, &str); 4] = [
    ("canary.shares_percent", "50"),
    ("canary.dwell_s", "10"),
    ("canary.hold_back_percent", "0"),
    ("canary.alpha", "0.1"),
];

/// Clients that ask until they are told to stop.
struct Clients {
    stop: Arc<AtomicBool>,
    each: Vec<JoinHandle<Vec<Saw>>>,
}

impl Clients {
    fn start(count: usize, dir: &Path, proxy: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let users = Arc::new(AtomicUsize::new(0));
        let one = |_| {
            let (stop, users) = (Arc::clone(&stop), Arc::clone(&users));
            let (dir, proxy) = (dir.to_owned(), proxy.to_owned());
            std::thread::spawn(move || {
                let mut saw = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let first = users.fetch_add(BATCH, Ordering::Relaxed);
                    saw.extend(curl(&dir, &proxy, &asked(first)));
                }
                saw
            })
        };
        let each = (0..count).map(one).collect();
        Self { stop, each }
    }

    /// What all of them saw.
    fn end(self) -> Vec<Saw> {
        self.stop.store(true, Ordering::Relaxed);
        self.each.into_iter().flat_map(|client| client.join().unwrap()).collect()
    }
}

/// A batch, each request as a user of its own.
fn asked(first: usize) -> Vec<(String, String)> {
    (first..first + BATCH).map(|n| ("/work".to_owned(), format!("user-{n}"))).collect()
}

fn of_canary(saw: &[Saw]) -> u64 {
    saw.iter().filter(|saw| saw.arm == "canary").count() as u64
}

/// Requests an engine has answered by its own count, this one included.
fn answered(engine: &str) -> u64 {
    let mut command = Command::new("/usr/bin/curl");
    let out = command.args(["-sS", "--max-time", "20", &format!("http://{engine}/")]).output();
    let out = out.unwrap();
    let said: Value = serde_json::from_slice(&out.stdout)
        .unwrap_or_else(|error| panic!("{engine}: {error}: {out:?}"));
    said["answer"].as_u64().unwrap()
}

/// A POST by curl, as the runbook prints it.
fn post(world: &World, path: &str, body: &str) -> Value {
    let address = format!("http://{}{path}", world.http());
    let mut command = Command::new("/usr/bin/curl");
    command.args(["-sS", "-X", "POST", "-H", "content-type: application/json", "-d", body]);
    let out = command.arg(address).output().unwrap();
    serde_json::from_slice(&out.stdout).unwrap_or_else(|error| panic!("{path}: {error}: {out:?}"))
}

fn canary(world: &World) -> Result<Value, String> {
    Ok(http::json(world.http(), "/canary/status")?["canary_deployment"].clone())
}

/// Waits until the proxy's agent has what the aggregator says now.
fn until_told(world: &World, agent: &Agent) {
    until("the agent has the share", || {
        let told = http::json(world.http(), "/flags")?["generation"].clone();
        let flags = &agent.status()?["flags"];
        holds(flags["generation"].as_u64() >= told.as_u64(), &(flags, told))
    });
}

fn rolled_back(world: &World) -> Value {
    until_within(ROLLOUT, "it is rolled back and its share taken", || {
        let canary = canary(world)?;
        let at = (&canary["phase"], &canary["blockers"], &canary["evidence"]["harm"]);
        let back = canary["phase"] == "rolled_back" && canary["share_percent"] == 0.0;
        holds(back, &at).map(|()| canary.clone())
    })
}

#[test]
fn a_slow_server_behind_the_proxy_is_rolled_back_by_evidence_and_asked_no_more() {
    let mut world = World::bare();
    let stable = engine("stable", world.dir(), 1.0);
    let canary_engine = engine("canary", world.dir(), 2.0);
    let curl_is = program("curl");
    let (Some((_s, stable)), Some((_c, slow)), Some(_)) = (stable, canary_engine, curl_is) else {
        return;
    };
    world.start_aggregator(&PLAN);
    let settings = [
        ("proxy.listen", "127.0.0.1:0"),
        ("proxy.stable", stable.as_str()),
        ("proxy.canary", slow.as_str()),
        ("proxy.slice", SLICE),
        ("proxy.user_header", "x-user"),
    ];
    let agent = world.agent("host-1", &settings);
    agent.until_connected(true);
    let proxy = agent.proxy.clone().unwrap();
    let mut saw = curl(world.dir(), &proxy, &asked(1_000_000));
    assert_eq!(of_canary(&saw), 0, "nobody is in a canary that has not begun");

    let begun = post(&world, "/canary/start", r#"{"version": "1.5.0"}"#);
    assert_eq!(begun["success"], true, "{begun}");
    let clients = Clients::start(4, world.dir(), &proxy);
    let back = rolled_back(&world);
    until_told(&world, &agent);
    let during = clients.end();
    let canaries = of_canary(&during);
    assert!(canaries > 100, "{canaries} of {} in the canary", during.len());
    saw.extend(during);

    // By evidence: a decision that is kept, with what it rests on.
    let retreat = &back["rollbackHistory"][0];
    assert_eq!(retreat["flagName"], "canary_rollback", "{back}");
    let kept = world.api(&format!("/canary/decisions/{}", retreat["decision"]));
    assert_eq!((&kept["word"], &kept["replay"]), (&"rollback".into(), &Value::Null), "{kept}");
    assert!(kept["decision"]["evidence"]["harm"].is_object(), "{kept}");

    // Taken: the same users ask again, none is sent there, and the server itself says so.
    let before = answered(&slow);
    assert_eq!(before, canaries + 1, "each request it answered is one that curl made");
    for first in [0, 60, 120, 180] {
        let after = curl(world.dir(), &proxy, &asked(first));
        assert_eq!(of_canary(&after), 0, "{after:?}");
        saw.extend(after);
    }
    assert_eq!(answered(&slow), before + 1);
    assert!(saw.iter().all(|saw| saw.status == 200));
    until_merged(&world, &saw);
}
