//! Unmodified HTTP servers behind the proxy: what an independent client saw is what was merged.
//!
//! The engines are Python's standard library, the client is curl; neither knows of lens.
#![allow(clippy::unwrap_used)]

mod world;

use std::collections::BTreeMap;
use std::path::Path;

use lens_agent::config::{KEYS, PREFIX};
use lens_agent::proxy::{Proxy, ProxyConfig};
use lens_flags::{Assignment, Share};
use lens_service::config::{Settings, Sources};
use lens_service::shutdown::Shutdown;
use tokio::sync::watch;
use world::engines::{SLICE, curl, engine, until_merged};
use world::peers::program;
use world::{Agent, World, holds, http, until};

/// Paths in turn, each as a user of its own.
fn asked(paths: &[&str], count: usize) -> Vec<(String, String)> {
    let each = |n: usize| (paths[n % paths.len()].to_owned(), format!("user-{n}"));
    (0..count).map(each).collect()
}

fn proxied(agent: &Agent) -> String {
    agent.proxy.clone().unwrap()
}

#[test]
fn what_curl_saw_is_what_was_merged_by_outcome_and_after_the_agent_is_killed() {
    let mut world = World::bare();
    let (Some((_engine, at)), Some(_)) = (engine("stable", world.dir(), 1.0), program("curl"))
    else {
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
    let stable = engine("stable", world.dir(), 1.0);
    let canary = engine("canary", world.dir(), 1.0);
    let (Some((_s, stable)), Some((_c, canary)), Some(_)) = (stable, canary, program("curl"))
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
