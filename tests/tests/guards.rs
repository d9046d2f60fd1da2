//! Guards through real processes: an engine that finds nothing, one that is gone, and their return.
#![allow(clippy::unwrap_used)]

mod world;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use serde_json::Value;
use world::process::run;
use world::{World, holds, http, until};

/// An engine on loopback until it is dropped: so many results, with this status.
struct Engine {
    url: String,
    results: Arc<AtomicU16>,
    status: Arc<AtomicU16>,
    stop: Arc<AtomicBool>,
    address: std::net::SocketAddr,
}

impl Engine {
    fn new(results: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (results, status) = (Arc::new(results.into()), Arc::new(200.into()));
        let stop = Arc::new(AtomicBool::new(false));
        let engine = Self {
            url: format!("http://{address}/search"),
            results: Arc::clone(&results),
            status: Arc::clone(&status),
            stop: Arc::clone(&stop),
            address,
        };
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let mut request = [0; 4_096];
                let read = stream.read(&mut request).unwrap_or(0);
                let asked = String::from_utf8_lossy(&request[..read]).into_owned();
                let good = asked.starts_with("POST /search?q=");
                let status = if good { status.load(Ordering::Relaxed) } else { 400 };
                let hits = vec!["1"; results.load(Ordering::Relaxed).into()].join(",");
                let body = format!("{{\"hits\": [{hits}]}}");
                let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n", body.len());
                drop(stream.write_all((head + &body).as_bytes()));
            }
        });
        engine
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(std::net::TcpStream::connect(self.address));
    }
}

/// Two probes a second, and switches that kill.
fn start(world: &mut World, engine: &Engine, rollback: &str) {
    let audit = world.dir().join("audit").display().to_string();
    let mut settings: Vec<(String, String)> = vec![("audit.dir".into(), audit)];
    for (place, name) in ["class", "def"].iter().enumerate() {
        let mut probe = |key: &str, value: &str| {
            settings.push((format!("guards.probe.{place}.{key}"), value.into()));
        };
        probe("name", name);
        probe("query", name);
        probe("url", &engine.url);
        probe("every_s", "1");
        probe("retries", "0");
    }
    for (key, value) in [
        ("guards.again_s", "1"),
        ("guards.recover_s", "4"),
        ("guards.rollback", rollback),
        ("guards.zero_results_emergency", "kill"),
        ("guards.search_system_failure", "alert"),
        ("alerts.interval_s", "1"),
        ("alerts.clear_s", "0"),
        ("alerts.hold_s", "0"),
    ] {
        settings.push((key.into(), value.into()));
    }
    let borrowed: Vec<(&str, &str)> = settings.iter().map(|(a, b)| (&**a, &**b)).collect();
    world.start_aggregator(&borrowed);
}

fn until_guard(world: &World, name: &str, state: &str) -> Value {
    until(&format!("{name} {state}"), || {
        let answer = http::json(world.http(), "/api/v1/guards")?;
        let all = answer["guards"].as_array().unwrap();
        let guard = all.iter().find(|guard| guard["guard"] == name).cloned().unwrap_or_default();
        holds(guard["state"] == state, &answer).map(|()| guard)
    })
}

fn until_alert(world: &World, key: &str, state: &str) {
    until(&format!("alert {key} {state}"), || {
        let answer = http::json(world.http(), "/api/v1/alerts")?.to_string();
        let all: Value = serde_json::from_str(&answer).unwrap();
        let found = ["alerts", "past"].iter().any(|list| {
            let alerts = all[list].as_array().cloned().unwrap_or_default();
            alerts.iter().any(|alert| alert["key"] == key && alert["state"] == state)
        });
        holds(found, &answer)
    });
}

fn killed(world: &World) -> bool {
    !http::json(world.http(), "/flags").unwrap()["killed"].is_null()
}

fn lens(world: &World, args: &[&str]) {
    let url = format!("http://{}", world.http());
    let out = run(&[args, &["--url", &url]].concat());
    assert!(out.status.success(), "{out:?}");
}

#[test]
fn an_engine_that_finds_nothing_twice_is_killed_and_the_kill_is_recorded_and_ended_by_people_alone()
{
    let engine = Engine::new(2);
    let mut world = World::bare();
    start(&mut world, &engine, "false");
    until_guard(&world, "probe/class", "ok");
    assert!(!killed(&world));
    lens(&world, &["canary", "start", "1.5.0"]);
    engine.results.store(0, Ordering::Relaxed);
    let switch = until_guard(&world, "switch/zero_results_emergency", "alarm");
    assert!(switch["message"].as_str().unwrap().contains("fewer than 1 results"), "{switch}");
    until("the kill", || holds(killed(&world), &"not killed"));
    until_alert(&world, "guard/switch/zero_results_emergency", "firing");
    let status = http::json(world.http(), "/canary/status").unwrap()["canary_deployment"].clone();
    assert_eq!(status["phase"], "killed", "{status}");
    until("the record", || {
        let audit = http::json(world.http(), "/api/v1/audit")?.to_string();
        holds(audit.contains("kill.engage") && audit.contains("\"guard\""), &audit)
    });
    let (_, metrics) = http::get(world.http(), "/metrics").unwrap();
    let sample = "lens_guard_state{guard=\"switch/zero_results_emergency\",state=\"alarm\"} 1";
    assert!(metrics.contains(sample), "{metrics}");
    let out = run(&["status", "--url", &format!("http://{}", world.http())]);
    let told = String::from_utf8(out.stdout).unwrap();
    let line = told.lines().find(|line| line.starts_with("guard switch/zero_results_emergency"));
    assert!(line.is_some_and(|line| line.contains(": alarm since 20")), "{told}");
    // It outlives a kill -9, and results alone do not end it.
    world.aggregator().kill();
    start(&mut world, &engine, "false");
    assert!(killed(&world));
    engine.results.store(1, Ordering::Relaxed);
    until_guard(&world, "probe/class", "ok");
    until_guard(&world, "switch/zero_results_emergency", "alarm");
    lens(&world, &["canary", "release-kill", "--approval", "ann", "--approval", "bob"]);
    until_guard(&world, "switch/zero_results_emergency", "ok");
    until_alert(&world, "guard/switch/zero_results_emergency", "resolved");
    assert!(!killed(&world));
}

#[test]
fn an_engine_that_fails_takes_the_rollout_back_and_its_return_ends_the_switch() {
    let engine = Engine::new(2);
    let mut world = World::bare();
    start(&mut world, &engine, "true");
    until_guard(&world, "switch/search_system_failure", "ok");
    lens(&world, &["canary", "start", "1.5.0"]);
    engine.status.store(503, Ordering::Relaxed);
    let probe = until_guard(&world, "probe/def", "alarm");
    assert!(probe["message"].as_str().unwrap().contains("503"), "{probe}");
    until_guard(&world, "switch/search_system_failure", "alarm");
    until_alert(&world, "guard/switch/search_system_failure", "firing");
    engine.status.store(200, Ordering::Relaxed);
    until_guard(&world, "switch/search_system_failure", "ok");
    // Its act is to tell people; the rollout that was under way was taken back by the probe.
    assert!(!killed(&world));
    let status = http::json(world.http(), "/canary/status").unwrap()["canary_deployment"].clone();
    assert_eq!(status["phase"], "rolled_back", "{status}");
    assert!(status["reason"].as_str().unwrap().starts_with("guard probe/"), "{status}");
    // What errors was never taken for finding nothing.
    let (_, events) = http::get(world.http(), "/api/v1/audit").unwrap();
    assert!(!events.contains("kill.engage"), "{events}");
}
