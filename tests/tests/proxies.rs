//! Unmodified HTTP servers behind the proxy: what an independent client saw is what was merged.
//!
//! The engines are Python's standard library, the client is curl; neither knows of lens.
#![allow(clippy::unwrap_used)]

mod world;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use lens_agent::config::{KEYS, PREFIX};
use lens_agent::proxy::{Proxy, ProxyConfig};
use lens_flags::{Assignment, Share};
use lens_model::{Arm, SeriesKey, Slice, Stage};
use lens_service::config::{Settings, Sources};
use lens_service::shutdown::Shutdown;
use tokio::sync::watch;
use world::{Agent, Outcomes, Process, Tally, World, holds, http, same, until};

const SLICE: &str = "backend/rust/large";

/// A program that must be there in CI, where `deploy/test-peers.sh` ran.
#[allow(clippy::print_stderr, reason = "said loudly")]
fn present(name: &str) -> Option<PathBuf> {
    let path = Path::new("/usr/bin").join(name);
    if path.exists() {
        return Some(path);
    }
    let missing = format!("{} is not there: run deploy/test-peers.sh", path.display());
    assert!(std::env::var_os("CI").is_none(), "{missing}");
    eprintln!("\n!!! NOT CHECKED: {missing}\n");
    None
}

/// An engine of this name, and where it listens.
fn engine(name: &str, dir: &Path) -> Option<(Process, String)> {
    let mut command = Command::new(present("python3")?);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/engine.py")).arg(name);
    let mut process = Process::start(name, dir, command);
    let at = process.ready()["http"].as_str().unwrap().to_owned();
    Some((process, at))
}

/// What one request of curl's came to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Saw {
    path: String,
    user: String,
    status: u16,
    arm: String,
}

/// Asks for every path as its user, one after the other on kept connections.
fn curl(dir: &Path, proxy: &str, asked: &[(String, String)]) -> Vec<Saw> {
    let one = |(path, user): &(String, String)| {
        format!(
            "url = \"http://{proxy}{path}\"\nheader = \"x-user: {user}\"\noutput = /dev/null\n\
             write-out = \"%{{http_code}} %header{{x-lens-arm}}\\n\"\nmax-time = 20\nsilent\n"
        )
    };
    let script = dir.join("curl.conf");
    let each: Vec<String> = asked.iter().map(one).collect();
    std::fs::write(&script, each.join("next\n")).unwrap();
    let out = Command::new("/usr/bin/curl").arg("--config").arg(&script).output().unwrap();
    let said = String::from_utf8(out.stdout).unwrap();
    let saw = said.lines().zip(asked).map(|(line, (path, user))| {
        let (status, arm) = line.split_once(' ').unwrap_or((line, ""));
        let (path, user) = (path.clone(), user.clone());
        Saw { path, user, status: status.parse().unwrap_or(0), arm: arm.to_owned() }
    });
    let saw: Vec<_> = saw.collect();
    assert_eq!(saw.len(), asked.len(), "{said}{}", String::from_utf8_lossy(&out.stderr));
    saw
}

/// Paths in turn, each as a user of its own.
fn asked(paths: &[&str], count: usize) -> Vec<(String, String)> {
    let each = |n: usize| (paths[n % paths.len()].to_owned(), format!("user-{n}"));
    (0..count).map(each).collect()
}

/// What curl saw, as the aggregator ought to have it.
fn expected(saw: &[Saw]) -> (Tally, Outcomes) {
    let slice: Slice = SLICE.parse().unwrap();
    let (mut samples, mut outcomes) = (Tally::new(), Outcomes::new());
    for saw in saw {
        let arm: Arm = saw.arm.parse().unwrap();
        let key = SeriesKey { slice: slice.clone(), stage: Stage::E2e, arm };
        let held = outcomes.entry((slice.clone(), arm)).or_default();
        let failed = saw.status >= 500 || saw.path == "/cut";
        *held = if failed { (held.0, held.1 + 1) } else { (held.0 + 1, held.1) };
        *samples.entry(key).or_default() += 1;
    }
    (samples, outcomes)
}

fn until_merged(world: &World, saw: &[Saw]) {
    let (samples, outcomes) = expected(saw);
    until("latencies", || {
        let merged = world.merged()?.into_iter().filter(|(_, count)| *count > 0).collect();
        same(merged, &samples)
    });
    until("requests", || {
        let merged = world.merged_requests()?.into_iter().filter(|(_, counts)| *counts != (0, 0));
        same(merged.collect(), &outcomes)
    });
}

fn proxied(agent: &Agent) -> String {
    agent.proxy.clone().unwrap()
}

#[test]
fn what_curl_saw_is_what_was_merged_by_outcome_and_after_the_agent_is_killed() {
    let mut world = World::bare();
    let (Some((_engine, at)), Some(_)) = (engine("stable", world.dir()), present("curl")) else {
        return;
    };
    world.start_aggregator(&[]);
    let settings = [
        ("proxy.listen", "127.0.0.1:0"),
        ("proxy.stable", at.as_str()),
        ("proxy.slice", SLICE),
        ("proxy.user_header", "x-user"),
    ];
    let mut agent = world.agent("host-1", &settings);
    let asked = asked(&["/a", "/b", "/bad", "/fail", "/cut"], 100);
    let mut saw = curl(world.dir(), &proxied(&agent), &asked);
    let statuses = |status| saw.iter().filter(|saw| saw.status == status).count();
    assert_eq!([statuses(200), statuses(400), statuses(500)], [60, 20, 20]);
    until_merged(&world, &saw);

    // Counted a moment ago and perhaps not yet harvested: the segment outlives the agent.
    saw.extend(curl(world.dir(), &proxied(&agent), &asked));
    agent.process.kill();
    let mut agent = world.start_agent("host-1", &settings);
    saw.extend(curl(world.dir(), &proxied(&agent), &asked));
    until_merged(&world, &saw);
    let metrics = http::get(&agent.admin, "/metrics").unwrap().1;
    let line = "lens_agent_proxy_requests_total{arm=\"baseline\",outcome=\"aborted\"} 20";
    assert!(metrics.contains(line), "{metrics}");
    let status = agent.status().unwrap();
    assert_eq!(status["proxy"]["requests"]["baseline"]["client_error"], 20, "{status}");

    // And one that is asked to end ships what it counted last.
    saw.extend(curl(world.dir(), &proxied(&agent), &asked));
    agent.process.terminate();
    until_merged(&world, &saw);
    assert!(agent.segment_files().is_empty(), "{:?}", agent.segment_files());
}

/// A proxy in this process, whose segment a real agent harvests, and whose share the test decides.
struct Own {
    at: String,
    assign: watch::Sender<Assignment>,
    _stop: lens_service::shutdown::Trigger,
    _runtime: tokio::runtime::Runtime,
}

impl Own {
    fn new(segments: &Path, stable: &str, canary: &str) -> Self {
        let flags = [
            ("proxy.listen", "127.0.0.1:0"),
            ("proxy.stable", stable),
            ("proxy.canary", canary),
            ("proxy.slice", SLICE),
            ("proxy.user_header", "x-user"),
        ];
        let flags = flags.map(|(key, text)| (key.to_owned(), text.to_owned())).to_vec();
        let sources = Sources { flags, ..Sources::default() };
        let settings = Settings::load(KEYS, PREFIX, &sources).unwrap();
        let config = ProxyConfig::check(&settings).unwrap().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (assign, assignment) = watch::channel(Assignment::default());
        let proxy = runtime.block_on(Proxy::open(config, segments, "host-1", assignment)).unwrap();
        let at = proxy.address().unwrap().to_string();
        let (stop, shutdown) = Shutdown::manual();
        runtime.spawn(proxy.run(shutdown));
        Self { at, assign, _stop: stop, _runtime: runtime }
    }
}

#[test]
fn the_share_and_the_kill_switch_are_obeyed_user_by_user_and_counted_by_arm() {
    let mut world = World::bare();
    let stable = engine("stable", world.dir());
    let canary = engine("canary", world.dir());
    let (Some((_s, stable)), Some((_c, canary)), Some(_)) = (stable, canary, present("curl"))
    else {
        return;
    };
    world.start_aggregator(&[]);
    let agent = world.agent("host-1", &[]);
    let own = Own::new(&agent.segments, &stable, &canary);
    let asked = asked(&["/a", "/bad", "/fail"], 150);
    let mut saw = Vec::new();
    let quarter =
        Assignment { salt: 7, share: Share::percent(25.0).unwrap(), ..Assignment::default() };
    let killed = Assignment { killed: true, ..quarter };
    for assignment in [Assignment::default(), quarter, killed, quarter] {
        own.assign.send(assignment).unwrap();
        let now = curl(world.dir(), &own.at, &asked);
        let mut arms = BTreeMap::<&str, usize>::new();
        for saw in &now {
            assert_eq!(saw.arm, assignment.arm(&saw.user).as_str(), "{saw:?}");
            *arms.entry(&saw.arm).or_default() += 1;
        }
        let canaries = arms.get("canary").copied().unwrap_or(0);
        if assignment == quarter {
            // 37.5 of 150 and six standard deviations.
            assert!((6..70).contains(&canaries), "{arms:?}");
        } else {
            assert_eq!(canaries, 0, "{assignment:?}");
        }
        saw.extend(now);
    }
    until_merged(&world, &saw);
    until("the proxy's own instance", || {
        let status = agent.status()?;
        holds(status["segments"][0]["instance"] == "proxy-host-1", &status["segments"])
    });
}
