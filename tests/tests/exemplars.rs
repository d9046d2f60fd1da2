//! Slow requests by their traces, from a node's record to everyone who shows them.
#![allow(clippy::unwrap_used)]

mod world;

use std::path::Path;
use std::process::Command;

use lens_model::{Stage, Trace};
use lens_segment::Recorder;
use serde_json::Value;
use world::prometheus::{NATIVE, Prometheus, port};
use world::{Agent, PATIENCE, Process, World, holds, http, recorder, slice, until};

const SLOWEST_NANOS: u64 = 87_654_321;

/// The trace of a latency.
fn trace(nanos: u64) -> Trace {
    let mut id = [0x4b; 16];
    id[8..].copy_from_slice(&nanos.to_be_bytes());
    Trace::new(id, nanos.to_be_bytes()).unwrap()
}

/// Records latencies from 1 ms up, one of which is the slowest by far, each under its trace.
fn record(node: &Recorder, stage: Stage) {
    let series = node.series(slice("rust"), stage).unwrap();
    for step in 0..500_u64 {
        let nanos = 1_000_000 + step * 10_007;
        series.record_traced(nanos, &trace(nanos));
    }
    series.record_traced(SLOWEST_NANOS, &trace(SLOWEST_NANOS));
}

fn with_node(world: &mut World, settings: &[(&str, &str)]) -> (Agent, Recorder) {
    world.start_aggregator(settings);
    let agent = world.agent("host-1", &[]);
    let node = recorder(&agent.segments, "node-1");
    (agent, node)
}

/// What the API says, once there are as many.
fn shown(world: &World, query: &str, many: usize) -> Vec<Value> {
    until("exemplars", || {
        let answer = world.api(&format!("/api/v1/exemplars{query}"));
        let found = answer["exemplars"].as_array().unwrap().clone();
        holds(found.len() >= many, &answer)?;
        Ok(found)
    })
}

fn agent_counter(agent: &Agent, name: &str) -> f64 {
    let text = http::get(&agent.admin, "/metrics").unwrap().1;
    let line = text.lines().find(|line| line.split(' ').next() == Some(name));
    line.unwrap_or_else(|| panic!("no {name}: {text}")).rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn the_slowest_request_is_found_by_its_trace_with_the_node_that_served_it() {
    let mut world = World::bare();
    let (agent, node) = with_node(&mut world, &[]);
    assert!(world.api("/api/v1/exemplars")["reason"].as_str().unwrap().contains("no node"));
    record(&node, Stage::A);
    record(&node, Stage::C);
    let found = shown(&world, "?stage=stage_c&from=-10m", 1);
    let slowest = &found[0];
    assert_eq!(slowest["trace_id"], trace(SLOWEST_NANOS).id_hex(), "{found:?}");
    assert_eq!(slowest["span_id"], trace(SLOWEST_NANOS).span_hex().unwrap());
    assert_eq!(slowest["latency_ms"], 87.654_321, "exact, not its bucket's");
    let place = ["slice", "stage", "arm", "agent", "instance"].map(|key| slowest[key].clone());
    assert_eq!(place, ["backend/rust/small", "stage_c", "baseline", "host-1", "node-1"]);
    let all = shown(&world, "", 2);
    assert_eq!(all[1]["latency_ms"], 87.654_321, "of every stage, slowest first");
    let none = world.api("/api/v1/exemplars?stage=stage_b");
    assert!(none["reason"].as_str().unwrap().starts_with("none of what is asked for"), "{none}");
    assert!(agent_counter(&agent, "lens_agent_exemplars_sent_total") >= 2.0);
    for (query, named) in [("?stagge=a", "stagge"), ("?stage=d", "stage"), ("?from=soon", "from")] {
        let (status, body) = http::get(world.http(), &format!("/api/v1/exemplars{query}")).unwrap();
        assert!(status == 400 && body.contains(named), "{status} {body}");
    }
}

#[test]
fn an_agent_killed_and_started_again_brings_no_request_twice() {
    let mut world = World::bare();
    let (mut agent, node) = with_node(&mut world, &[]);
    record(&node, Stage::A);
    let before = shown(&world, "", 1);
    agent.process.kill();
    let agent = world.start_agent("host-1", &[]);
    until("the ring sent again", || {
        let sent = agent_counter(&agent, "lens_agent_exemplars_sent_total");
        holds(sent > 0.0, &sent)
    });
    // What comes behind it on the connection is shown: what was before it, too.
    node.series(slice("go"), Stage::A).unwrap().record_traced(5, &trace(5));
    let after = shown(&world, "", before.len() + 1);
    assert_eq!(after.len(), before.len() + 1, "{after:?}");
    drop(node);
}

#[test]
fn an_otlp_receiver_is_sent_each_exemplar_once_with_its_trace() {
    let mut world = World::bare();
    let Some(python) = world::peers::python() else { return };
    let mut command = Command::new(python);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/otlp_recv.py"));
    let mut receiver = Process::start("otlp_recv", world.dir(), command);
    let endpoint = format!("http://{}", receiver.ready()["grpc"].as_str().unwrap());
    let settings = [("otlp.endpoint", &*endpoint), ("otlp.interval_s", "1")];
    let (_agent, node) = with_node(&mut world, &settings);
    record(&node, Stage::A);
    let (mut told, mut requests_after) = (Vec::new(), 0);
    while requests_after < 3 {
        let line = receiver.line(PATIENCE);
        assert_eq!(line["problems"], serde_json::json!([]), "{line}");
        let points = line["points"].as_array().into_iter().flatten();
        let of_stage = points.filter(|point| point["name"] == "lens.stage.duration");
        let exemplars = of_stage.flat_map(|point| point["exemplars"].as_array().unwrap().clone());
        told.extend(exemplars);
        requests_after += usize::from(!told.is_empty());
    }
    let slowest = trace(SLOWEST_NANOS);
    let of: Vec<_> = told.iter().filter(|one| one["trace_id"] == slowest.id_hex()).collect();
    assert_eq!(of.len(), 1, "once, not with every point: {told:?}");
    assert_eq!(of[0]["span_id"], slowest.span_hex().unwrap());
    assert!((of[0]["value"].as_f64().unwrap() - 0.087_654_321).abs() < 1e-12);
    assert_eq!(of[0]["attributes"]["service.instance.id"], "node-1");
    assert_eq!(of[0]["attributes"]["lens.agent"], "host-1");
}

#[test]
fn prometheus_keeps_the_exemplars_it_scrapes_and_those_written_to_it() {
    let mut world = World::bare();
    let (http, written) = (format!("127.0.0.1:{}", port()), format!("127.0.0.1:{}", port()));
    let url = format!("http://{written}/api/v1/write");
    let settings = [
        ("http.listen", &*http),
        ("remote_write.url", &*url),
        ("remote_write.interval_s", "1"),
        ("remote_write.labels", "job=written"),
    ];
    let Some(native) = Prometheus::start(world.dir(), "native", &written, &[&http], &NATIVE) else {
        return;
    };
    let text = format!("127.0.0.1:{}", port());
    let flags = ["--enable-feature=exemplar-storage"];
    let text = Prometheus::start(world.dir(), "text", &text, &[&http], &flags).unwrap();
    let (_agent, node) = with_node(&mut world, &settings);
    record(&node, Stage::A);
    // Scraped as protobuf and as OpenMetrics, and by remote write.
    for (prometheus, job) in [(&native, "lens"), (&text, "lens"), (&native, "written")] {
        let selector = format!("{{__name__=~\"lens_duration_seconds.*\",job=\"{job}\"}}");
        let found = until("the slowest request", || {
            let found = prometheus.exemplars(&selector)?;
            let wanted = trace(SLOWEST_NANOS).id_hex();
            let one = found.iter().find(|one| one["labels"]["trace_id"] == wanted).cloned();
            one.ok_or_else(|| format!("{job}: {found:?}"))
        });
        let value: f64 = found["value"].as_str().unwrap().parse().unwrap();
        assert!((value - 0.087_654_321).abs() < 1e-12, "{found}");
    }
}
