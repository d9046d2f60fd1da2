//! Captures: the last minutes in fine steps, from a node's records to files that others read.
#![allow(clippy::unwrap_used)]

mod world;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lens_hist::layout::{index_of, low};
use lens_model::{Stage, Trace};
use rustix::process::Signal;
use serde_json::{Value, json};
use world::process::run;
use world::{Agent, World, holds, http, latency, recorder, slice, until};

/// Begins a capture and waits until it is over.
fn take(world: &World, wanted: &Value) -> Value {
    let (status, body) = http::post(world.http(), "/api/v1/captures", &wanted.to_string()).unwrap();
    assert_eq!(status, 202, "{body}");
    let begun: Value = serde_json::from_str(&body).unwrap();
    over(world, begun["id"].as_str().unwrap())
}

fn over(world: &World, id: &str) -> Value {
    until("the capture", || {
        let capture = world.api(&format!("/api/v1/captures/{id}"));
        holds(capture["state"] != "collecting", &capture)?;
        Ok(capture)
    })
}

/// A file of a capture, written down.
fn file(world: &World, capture: &Value, format: &str) -> std::path::PathBuf {
    let id = capture["id"].as_str().unwrap();
    let out = world.dir().join(format!("{id}.{format}"));
    let (url, path) = (format!("http://{}", world.http()), out.display().to_string());
    let done = run(&["capture", "get", id, "--format", format, "--url", &url, "--out", &path]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let listed = capture["files"].as_array().unwrap();
    let listed = listed.iter().find(|file| file["format"] == format).unwrap();
    assert_eq!(listed["bytes"], std::fs::metadata(&out).unwrap().len());
    out
}

/// Waits until an agent looks at the segment in its fine steps, which begins with its next scan.
fn looked(agent: &Agent) {
    until("fine steps", || {
        let status = http::json(&agent.admin, "/status")?;
        holds(status["hindsight"]["since"].is_string(), &status["hindsight"])?;
        holds(status["segments"].as_array().is_some_and(|all| !all.is_empty()), &status)
    });
    std::thread::sleep(Duration::from_millis(1_500));
}

fn node(world: &mut World, settings: &[(&str, &str)]) -> (Agent, lens_segment::Recorder) {
    world.start_aggregator(settings);
    let agent = world.agent("host-1", &[("segments.scan_interval_ms", "200")]);
    let node = recorder(&agent.segments, "node-1");
    node.series(slice("rust"), Stage::A).unwrap().record(1);
    looked(&agent);
    (agent, node)
}

#[test]
fn the_last_minutes_are_there_in_fine_steps_and_read_by_arrow_and_by_replay() {
    let Some(python) = world::peers::python() else { return };
    let mut world = World::bare();
    let (_agent, node) = node(&mut world, &[]);
    let (a, c) = (
        node.series(slice("rust"), Stage::A).unwrap(),
        node.series(slice("rust"), Stage::C).unwrap(),
    );
    node.series(slice("go"), Stage::A).unwrap().record(1_000_000);
    // Fast, a pause, and then a burst of slow ones: what 5 s slots would blur.
    (0..1_000).for_each(|_| a.record(1_000_000));
    std::thread::sleep(Duration::from_millis(600));
    (0..40).for_each(|_| a.record(90_000_000));
    let trace = Trace::new([0x5e; 16], [1; 8]).unwrap();
    c.record_traced(250_000_000, &trace);
    until("the trace here", || {
        let found = world.api("/api/v1/exemplars?stage=stage_c");
        holds(!found["exemplars"].as_array().unwrap().is_empty(), &found)
    });
    std::thread::sleep(Duration::from_millis(300));
    let wanted = json!({"slice": "backend/rust/small", "last_s": 120, "reason": "a test",
        "by": "ann"});
    let capture = take(&world, &wanted);
    assert_eq!((&capture["state"], &capture["by"]), (&"done".into(), &"ann".into()), "{capture}");
    assert_eq!(capture["reason"], "a test");
    assert_eq!(capture["samples"], 1_041, "{capture}");
    assert_eq!(capture["series"], 2, "{capture}");
    assert_eq!(capture["agents"][0]["state"], "answered", "{capture}");
    assert_eq!(capture["exemplars"][0]["trace_id"], trace.id_hex(), "{capture}");

    let parquet = file(&world, &capture, "parquet");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/captures.py");
    let read = Command::new(python).arg(script).arg(&parquet).output().unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let read: Value = serde_json::from_slice(&read.stdout).unwrap();
    let edges = |nanos| format!("{}-{}", low(index_of(nanos)), low(index_of(nanos) + 1));
    let of =
        |stage: &str| &read["groups"][format!("backend/rust/small/{stage}/baseline host-1 node-1")];
    let mut wanted = json!({});
    wanted[edges(1_000_000)] = 1_000.into();
    wanted[edges(90_000_000)] = 40.into();
    assert_eq!(of("stage_a"), &wanted, "{read}");
    assert_eq!(of("stage_c")[edges(250_000_000)], 1, "{read}");
    assert_eq!(read["groups"].as_object().unwrap().len(), 2, "the slice asked for alone");
    assert_eq!(read["columns"]["t"], "timestamp[ns, tz=UTC]", "{read}");
    let at = |key: &str| read[key].as_i64().unwrap();
    let apart = Duration::from_nanos(u64::try_from(at("last") - at("first")).unwrap());
    assert!(apart >= Duration::from_millis(500), "the burst stands apart: {apart:?}");

    // The interval log is what `lens replay` and every HdrHistogram reads.
    let log = file(&world, &capture, "hlog");
    let replay = run(&["replay", log.to_str().unwrap()]);
    assert!(replay.status.success(), "{}", String::from_utf8_lossy(&replay.stderr));
    let heat =
        world.api(&format!("/api/v1/captures/{}?format=heat", capture["id"].as_str().unwrap()));
    assert_eq!(heat["series"][0]["count"], 1_040, "most samples first: {heat}");
    assert!(heat["series"][0]["columns"].as_array().unwrap().len() >= 2, "{heat}");
}

#[test]
fn a_violation_captures_its_slice_once() {
    let mut world = World::bare();
    let settings = ["interval_s", "pending_s", "clear_s", "hold_s"]
        .map(|key| (format!("alerts.{key}"), if key == "interval_s" { "1" } else { "0" }));
    let settings: Vec<(&str, &str)> = settings.iter().map(|(key, on)| (&**key, *on)).collect();
    let (_agent, node) = node(&mut world, &settings);
    let series = node.series(slice("rust"), Stage::A).unwrap();
    // Both limits of the stage are broken at once.
    (0..1_000).for_each(|_| series.record(20_000_000));
    let id = until("a capture", || {
        let all = world.api("/api/v1/captures");
        let found = all["captures"].get(0).ok_or_else(|| all.to_string())?;
        Ok(found["id"].as_str().unwrap().to_owned())
    });
    let capture = over(&world, &id);
    assert_eq!(
        (&capture["by"], &capture["slice"]),
        (&"alert".into(), &"backend/rust/small".into())
    );
    let reason = capture["reason"].as_str().unwrap();
    assert!(reason.ends_with("backend/rust/small/stage_a/baseline"), "{capture}");
    assert_eq!(capture["samples"], 1_000, "{capture}");
    until("both alerts", || {
        let open = world.api("/api/v1/alerts?state=firing");
        holds(open["alerts"].as_array().unwrap().len() >= 2, &open)
    });
    let all = world.api("/api/v1/captures");
    assert_eq!(all["captures"].as_array().unwrap().len(), 1, "one in ten minutes: {all}");
}

#[test]
fn captures_outlive_the_aggregator_and_what_is_wrong_is_said() {
    let mut world = World::bare();
    world.start_aggregator(&[]);
    let refused =
        |world: &World, body: &str| http::post(world.http(), "/api/v1/captures", body).unwrap();
    let (status, body) = refused(&world, "");
    assert!(status == 409 && body.contains("no agent is connected"), "{status} {body}");
    for (body, named) in [
        (r#"{"slice": "x"}"#, "slice"),
        (r#"{"stage": "d"}"#, "stage"),
        (r#"{"last_s": 0}"#, "last_s"),
        (r#"{"last_s": 3601}"#, "3600"),
        (r#"{"lasts": 3}"#, "lasts"),
    ] {
        let (status, said) = refused(&world, body);
        assert!(status == 400 && said.contains(named), "{body}: {status} {said}");
    }
    let agent = world.agent("host-1", &[("segments.scan_interval_ms", "200")]);
    let node = recorder(&agent.segments, "node-1");
    let series = node.series(slice("rust"), Stage::A).unwrap();
    series.record(1);
    looked(&agent);
    let mut rng = world::choices(3);
    (0..500).for_each(|_| series.record(latency(&mut rng)));
    std::thread::sleep(Duration::from_millis(300));
    let capture = take(&world, &json!({}));
    assert_eq!(capture["samples"], 500, "{capture}");
    world.aggregator().kill();
    world.start_aggregator(&[]);
    let again = world.api(&format!("/api/v1/captures/{}", capture["id"].as_str().unwrap()));
    assert_eq!(again, capture);
    file(&world, &capture, "parquet");
    for (path, status, named) in [
        ("/api/v1/captures/0000000000000000", 404, "no capture"),
        ("/api/v1/captures/xyz", 400, "16 hexadecimal digits"),
        ("/api/v1/captures?x=1", 400, "x"),
    ] {
        let (got, said) = http::get(world.http(), path).unwrap();
        assert!(got == status && said.contains(named), "{path}: {got} {said}");
    }
    let path = format!("/api/v1/captures/{}?format=csv", capture["id"].as_str().unwrap());
    let (status, said) = http::get(world.http(), &path).unwrap();
    assert!(status == 400 && said.contains("parquet"), "{status} {said}");
}

/// The state of each thread of a process.
fn threads(pid: u32) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let state = |task: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        let after = stat.rsplit_once(") ").map_or("", |(_, after)| after);
        after.split(' ').next().unwrap_or_default().to_owned()
    };
    tasks.flatten().map(state).collect()
}

#[test]
fn an_agent_that_keeps_nothing_answers_so_and_one_that_is_gone_is_named() {
    let mut world = World::bare();
    world.start_aggregator(&[]);
    let _idle = world.agent("host-1", &[("hindsight.span_s", "0")]);
    let gone = world.agent("host-2", &[]);
    until("both connected", || {
        let seen = [world.seen("host-1")?, world.seen("host-2")?];
        holds(seen.iter().all(|agent| agent["connected"] == true), &seen)
    });
    gone.process.signal(Signal::STOP);
    // Each of its threads stops when it gets there.
    until("the agent stopped", || {
        let states = threads(gone.process.pid());
        holds(states.iter().all(|state| state == "T"), &states)
    });
    let capture = take(&world, &json!({"last_s": 60}));
    let state = |name: &str| {
        let agents = capture["agents"].as_array().unwrap();
        agents.iter().find(|agent| agent["agent"] == name).unwrap()["state"].clone()
    };
    assert_eq!(state("host-1"), "answered");
    // Its connection ends within the time it is given, or that time does.
    assert!(["lost", "too_late"].contains(&state("host-2").as_str().unwrap()), "{capture}");
    assert_eq!(capture["steps"], 0);
    gone.process.signal(Signal::CONT);
}
