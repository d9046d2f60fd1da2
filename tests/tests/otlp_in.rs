//! OTLP in, through real processes: SDKs we did not write feed an agent, and what they sent is what
//! the aggregator merged, or is refused by reason.
#![allow(clippy::unwrap_used)]

mod world;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lens_model::{Arm, SeriesKey, Slice, Stage};
use lens_service::time::unix_now;
use serde_json::{Value, json};
use world::{Agent, Tally, World, holds, http, peers, same, slice, until};

const LISTENERS: [(&str, &str); 2] =
    [("ingest.otlp_grpc.listen", "127.0.0.1:0"), ("ingest.otlp_http.listen", "127.0.0.1:0")];

/// Share by which a bucket of ours may move a value.
const OWN_ERROR: f64 = 0.008;

fn key(language: &str, stage: Stage, arm: Arm) -> SeriesKey {
    SeriesKey { slice: Slice::new("backend", language, "small").unwrap(), stage, arm }
}

fn address(agent: &Agent, listener: &str) -> String {
    let status = agent.status().unwrap();
    status["ingest"]["listening"][listener].as_str().unwrap().to_owned()
}

fn listener(agent: &Agent, listener: &str) -> Value {
    agent.status().unwrap()["ingest"]["listeners"][listener].clone()
}

/// What a series is shown as.
fn shown(agent: &Agent, language: &str, stage: &str) -> Value {
    let status = agent.status().unwrap();
    let series = status["ingest"]["series"].as_array().unwrap();
    let wanted = format!("backend/{language}/small");
    let found = series.iter().find(|s| s["slice"] == wanted.as_str() && s["stage"] == stage);
    found.unwrap_or_else(|| panic!("no {wanted} {stage} in {status}")).clone()
}

/// Runs a program of the peer's to its end; its line of JSON.
fn run(command: &mut Command) -> Value {
    let out = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{said}{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_str(said.lines().last().unwrap()).unwrap()
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(name)
}

fn python(how: &str, address: &str, count: usize) -> Option<Value> {
    let mut command = Command::new(peers::python()?);
    command.arg(script("otlp_send.py")).args([how, address, &count.to_string(), "7"]);
    Some(run(&mut command))
}

/// Holds the API's quantiles against those of the values sent.
fn agree(world: &World, key: &SeriesKey, sent: &Value, error: f64) {
    let mut sorted: Vec<u64> =
        sent["values"].as_array().unwrap().iter().map(|value| value.as_u64().unwrap()).collect();
    sorted.sort_unstable();
    let (slice, stage, arm) = (&key.slice, key.stage, key.arm);
    let path = format!("/api/v1/quantiles?slice={slice}&stage={stage}&arm={arm}&q=0.5,0.95,0.99");
    let answer = world.api(&path);
    let point = &answer["series"][0]["points"][0];
    assert_eq!(point["count"], sorted.len(), "{answer}");
    for (q, percent) in [("0.5", 50), ("0.95", 95), ("0.99", 99)] {
        let exact = sorted[(sorted.len() * percent).div_ceil(100) - 1] as f64 / 1e6;
        let got = point["quantiles"][q]["value_ms"].as_f64().unwrap();
        let off = (got - exact).abs() / got;
        assert!(off <= error + OWN_ERROR, "{q}: {got} ms, exactly {exact} ms, bound {error}");
    }
}

/// Holds every exemplar the API has against the requests that were sent; the latencies of all,
/// nanoseconds.
fn traced(world: &World, sent: &Value) -> Vec<u64> {
    let values = sent["values"].as_array().unwrap().iter().map(|value| value.as_u64().unwrap());
    let traces = sent["traces"].as_array().unwrap().iter().map(|trace| trace.as_str().unwrap());
    let by_trace: BTreeMap<&str, u64> = traces.zip(values).collect();
    let found = until("exemplars", || {
        let answer = world.api("/api/v1/exemplars");
        let found = answer["exemplars"].as_array().unwrap().clone();
        holds(!found.is_empty(), &answer).map(|()| found)
    });
    let latency = |one: &Value| {
        let sent = by_trace[one["trace_id"].as_str().unwrap()];
        let off = one["latency_ms"].as_f64().unwrap() - sent as f64 / 1e6;
        assert!(off.abs() < 1e-6, "{one} was sent as {sent} ns");
        assert_eq!(one["instance"], "ingest", "{one}");
        sent
    };
    found.iter().map(latency).collect()
}

#[test]
fn the_python_sdk_is_counted_exactly_over_grpc_and_http_and_within_the_bound_it_is_told() {
    for (how, way) in [("grpc", "otlp_grpc"), ("http", "otlp_http")] {
        let world = World::new(&[]);
        let agent = world.agent("host-1", &LISTENERS);
        let Some(sent) = python(how, &address(&agent, way), 4_000) else { return };
        let stage_a = key("rust", Stage::A, Arm::Canary);
        world.until_merged(&Tally::from([(stage_a.clone(), 4_000)]));
        let shown = shown(&agent, "rust", "stage_a");
        let error = shown["error_percent_max"].as_f64().unwrap() / 100.0;
        assert!(error > 0.0 && error < 0.05, "{shown}");
        assert_eq!(shown["low_resolution"], false, "{shown}");
        agree(&world, &stage_a, &sent, error);
        assert!(!traced(&world, &sent).is_empty());
        let tally = listener(&agent, way);
        assert_eq!(tally["samples_total"], 4_000, "{tally}");
        // The other histogram of that process is left out, and counted as such.
        assert_eq!(tally["refused"], json!({"not_ours": 2}), "{tally}");
    }
}

#[test]
fn the_python_sdk_as_it_comes_is_refused_and_told_which_variable_to_set() {
    let world = World::new(&[]);
    let agent = world.agent("host-1", &LISTENERS);
    let Some(sent) = python("cumulative", &address(&agent, "otlp_grpc"), 100) else { return };
    let tally = listener(&agent, "otlp_grpc");
    assert_eq!(tally["refused"], json!({"cumulative": 2, "not_ours": 2}), "{tally}");
    assert_eq!((&tally["samples_total"], &tally["points_total"]), (&json!(0), &json!(0)));
    println!("the SDK logged: {}", sent["said"]);
    let metrics = http::get(&agent.admin, "/metrics").unwrap().1;
    let line = "ingest_refused_total{listener=\"otlp_grpc\",reason=\"cumulative\"} 2";
    assert!(metrics.contains(line), "{metrics}");
}

#[test]
fn the_python_sdks_own_buckets_are_counted_exactly_and_marked_as_of_low_resolution() {
    let world = World::new(&[]);
    let agent = world.agent("host-1", &LISTENERS);
    let Some(sent) = python("explicit", &address(&agent, "otlp_grpc"), 1_000) else { return };
    let stage_a = key("rust", Stage::A, Arm::Canary);
    world.until_merged(&Tally::from([(stage_a.clone(), 1_000)]));
    let shown = shown(&agent, "rust", "stage_a");
    assert_eq!(shown["low_resolution"], true, "{shown}");
    assert_eq!(shown["low_resolution_samples_total"], 1_000, "{shown}");
    let metrics = http::get(&agent.admin, "/metrics").unwrap().1;
    let labels = "slice=\"backend/rust/small\",stage=\"stage_a\",arm=\"canary\"";
    let line = format!("lens_agent_ingest_low_resolution_samples{{{labels}}} 1000");
    assert!(metrics.lines().any(|found| found == line), "{line} in {metrics}");
    agree(&world, &stage_a, &sent, shown["error_percent_max"].as_f64().unwrap() / 100.0);
}

#[test]
fn spans_of_the_python_sdk_are_durations_and_those_that_failed_are_errors() {
    let world = World::new(&[]);
    let agent = world.agent("host-1", &LISTENERS);
    let Some(sent) = python("spans", &address(&agent, "otlp_grpc"), 1_000) else { return };
    let search = key("rust", Stage::E2e, Arm::Baseline);
    world.until_merged(&Tally::from([(search.clone(), 1_000)]));
    agree(&world, &search, &sent, 0.0);
    let slowest = sent["values"].as_array().unwrap().iter().filter_map(Value::as_u64).max();
    assert_eq!(traced(&world, &sent).into_iter().max(), slowest, "the slowest has its trace");
    let outcomes = [((slice("rust"), Arm::Baseline), (900, 100))].into();
    until("requests", || {
        let mut merged = world.merged_requests()?;
        merged.retain(|_, counts| *counts != (0, 0));
        same(merged, &outcomes)
    });
}

#[test]
fn the_node_sdk_is_counted_exactly_by_the_name_the_listener_gives_its_metric() {
    let node = ["/usr/bin/node", "/usr/local/bin/node"].map(Path::new);
    let modules = peers::directory().join("node_modules");
    let node = node.into_iter().find(|path| path.exists()).unwrap_or(node[0]);
    let (Some(node), Some(modules)) = (peers::present(node), peers::present(&modules)) else {
        return;
    };
    let world = World::new(&[]);
    let mut settings = LISTENERS.to_vec();
    settings.push(("ingest.otlp_http.stages", "search.duration=stage_c"));
    let agent = world.agent("host-1", &settings);
    let mut command = Command::new(node);
    let modules = std::path::absolute(modules).unwrap();
    command.arg(script("otlp_send.mjs")).arg(modules);
    command.args([&address(&agent, "otlp_http"), "3000"]);
    let sent = run(&mut command);
    let stage_c = key("node", Stage::C, Arm::Baseline);
    world.until_merged(&Tally::from([(stage_c.clone(), 3_000)]));
    let shown = shown(&agent, "node", "stage_c");
    agree(&world, &stage_c, &sent, shown["error_percent_max"].as_f64().unwrap() / 100.0);
}

#[test]
fn grpc_answers_hostile_messages_within_bounds_and_says_what_it_did_not_count() {
    let Some(python) = peers::python() else { return };
    let world = World::bare();
    let agent = world.agent("host-1", &LISTENERS);
    let mut command = Command::new(python);
    let answers = run(command.arg(script("otlp_raw.py")).arg(address(&agent, "otlp_grpc")));
    let partial = answers["cumulative"].as_str().unwrap();
    assert!(
        partial.contains("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=delta"),
        "{partial}"
    );
    assert_eq!(answers["logs"], "UNIMPLEMENTED", "{answers}");
    assert_eq!(answers["garbage"], "INTERNAL", "{answers}");
    for large in ["large", "large_compressed"] {
        let code = answers[large].as_str().unwrap();
        assert!(["OUT_OF_RANGE", "RESOURCE_EXHAUSTED", "INTERNAL"].contains(&code), "{answers}");
    }
    assert_eq!(answers["afterwards"], "OK", "{answers}");
    assert_eq!(agent.status().unwrap()["ingest"]["segment"]["samples_total"], 0);
}

/// Posts a body; status and answer.
fn post(address: &str, path: &str, kind: &str, more: &str, body: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: {kind}\r\n\
         content-length: {}\r\n{more}\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    // A body that is refused by its length is answered before all of it was sent.
    stream.write_all(body).ok();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok();
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn post_json(address: &str, path: &str, body: &Value) -> (u16, Value) {
    let (status, text) = post(address, path, "application/json", "", body.to_string().as_bytes());
    (status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status}: {text}")))
}

/// Whether an export is taken whole.
fn taken(address: &str, export: &Value) -> bool {
    let (status, answer) = post_json(address, "/v1/metrics", export);
    status == 200 && answer["partialSuccess"].is_null()
}

/// A delta of `count` samples of a millisecond, as OTLP writes it in JSON.
fn delta(count: u64, temporality: u32) -> Value {
    let text = |text: &str| json!({"stringValue": text});
    let attributes = json!([
        {"key": "lens.repo_type", "value": text("backend")},
        {"key": "lens.language", "value": text("rust")},
        {"key": "lens.size", "value": text("small")},
    ]);
    let now = unix_now().0;
    let point = json!({
        "startTimeUnixNano": (now - 1_000_000_000).to_string(), "timeUnixNano": now.to_string(),
        "count": count.to_string(), "scale": 5, "zeroCount": "0",
        "positive": {"offset": 0, "bucketCounts": [count.to_string()]}, "attributes": attributes,
    });
    let histogram = json!({"aggregationTemporality": temporality, "dataPoints": [point]});
    let metric = json!({"name": "lens_stage_a", "unit": "ms", "exponentialHistogram": histogram});
    json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]})
}

#[test]
fn what_was_answered_ok_outlives_an_agent_killed_before_it_was_harvested() {
    let world = World::new(&[]);
    let mut settings = LISTENERS.to_vec();
    settings.push(("harvest.interval_ms", "60000"));
    let mut agent = world.agent("host-1", &settings);
    let to = address(&agent, "otlp_http");
    let export = delta(1_000, 1);
    assert!(taken(&to, &export));
    // A client that missed the answer sends the same once more, and it is counted once.
    assert!(taken(&to, &export));
    let tally = listener(&agent, "otlp_http");
    assert_eq!(
        (&tally["samples_total"], &tally["messages_repeated_total"]),
        (&json!(1_000), &json!(1))
    );
    agent.process.kill();
    let agent = world.start_agent("host-1", &LISTENERS);
    world.until_merged(&Tally::from([(key("rust", Stage::A, Arm::Baseline), 1_000)]));
    // Its own segment is gone once it is drained; the new agent has one of its own.
    until("the dead one's segment is removed", || {
        let files = agent.segment_files();
        holds(files.len() == 1, &files)
    });
}

#[test]
fn what_a_draining_agent_answered_is_in_its_last_harvest() {
    let world = World::new(&[]);
    let mut settings = LISTENERS.to_vec();
    settings.push(("harvest.interval_ms", "60000"));
    let mut agent = world.agent("host-1", &settings);
    agent.until_connected(true);
    let to = address(&agent, "otlp_http");
    assert!(taken(&to, &delta(70, 1)));
    agent.process.terminate();
    world.until_merged(&Tally::from([(key("rust", Stage::A, Arm::Baseline), 70)]));
}

#[test]
fn each_refusal_says_why_and_what_would_be_right_and_nothing_of_it_is_counted() {
    let world = World::bare();
    let agent = world.agent("host-1", &LISTENERS);
    let to = address(&agent, "otlp_http");
    let (status, answer) = post_json(&to, "/v1/metrics", &delta(5, 2));
    assert_eq!(status, 200);
    let partial = &answer["partialSuccess"];
    let rejected = &partial["rejectedDataPoints"];
    assert!(*rejected == 1 || *rejected == "1", "{answer}");
    let message = partial["errorMessage"].as_str().unwrap();
    assert!(
        message.contains("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=delta"),
        "{message}"
    );
    let mut seconds = delta(5, 1);
    seconds["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0]["unit"] = "min".into();
    let (_, answer) = post_json(&to, "/v1/metrics", &seconds);
    assert!(answer["partialSuccess"]["errorMessage"].as_str().unwrap().contains("s, ms, us or ns"));
    let (status, answer) = post_json(&to, "/v1/logs", &json!({}));
    assert_eq!((status, answer["code"].as_i64()), (501, Some(12)), "{answer}");
    let status = agent.status().unwrap();
    let refused = &status["ingest"]["listeners"]["otlp_http"]["refused"];
    assert_eq!(refused, &json!({"cumulative": 1, "logs": 1, "unit": 1}));
    assert_eq!(status["ingest"]["segment"]["samples_total"], 0);
}

#[test]
fn hostile_messages_are_refused_within_bounds_and_every_kind_the_standard_knows_is_read() {
    let world = World::bare();
    let agent = world.agent("host-1", &LISTENERS);
    let to = address(&agent, "otlp_http");
    const PROTOBUF: &str = "application/x-protobuf";
    const JSON: &str = "application/json";
    let gzip = "content-encoding: gzip\r\n";
    let large = vec![b' '; (4 << 20) + 1];
    for (kind, more, body, expected) in [
        (PROTOBUF, "", &b"\xFF\xFF\xFF\xFF garbage"[..], 400),
        (JSON, "", b"{\"resourceMetrics\": 7}", 400),
        (JSON, "", b"not json", 400),
        (JSON, "", &[b'['; 100_000], 400),
        (PROTOBUF, gzip, b"not gzip", 400),
        (PROTOBUF, "content-encoding: br\r\n", b"", 415),
        ("text/plain", "", b"hello", 415),
        (JSON, "", &large, 413),
        (JSON, gzip, include_bytes!("../peers/zeroes.gz"), 413),
        (JSON, "", b"{}", 200),
        (JSON, "", include_bytes!("../peers/otlp_metrics_example.json"), 200),
        (PROTOBUF, "", b"", 200),
    ] {
        let (status, answer) = post(&to, "/v1/metrics", kind, more, body);
        assert_eq!(status, expected, "{kind} {more:?}: {answer}");
    }
    for path in ["/", "/v1/metric"] {
        assert_eq!(post(&to, path, JSON, "", b"{}").0, 404);
    }
    let (status, answer) =
        post(&to, "/v1/traces", JSON, "", include_bytes!("../peers/otlp_trace_example.json"));
    assert_eq!(status, 200, "{answer}");
    assert_eq!(agent.status().unwrap()["ingest"]["segment"]["samples_total"], 0);
}
