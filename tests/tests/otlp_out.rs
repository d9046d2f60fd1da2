//! The export to an OTLP receiver, decoded by code that shares no line with it.
#![allow(clippy::unwrap_used)]

mod world;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use lens_model::Stage;
use lens_segment::Recorder;
use serde_json::Value;
use world::{
    Agent, PATIENCE, Process, World, choices, holds, http, latency, recorder, slice, until,
};

const DURATION: &str = "lens.stage.duration";

/// The receiver, answering as told.
struct Receiver {
    process: Process,
    grpc: String,
    http: String,
}

impl Receiver {
    fn start(world: &World, answers: &str) -> Option<Self> {
        Self::begin(world, answers, "http", &[])
    }

    /// The same, with the aggregator's own certificate over gRPC.
    fn secured(world: &World, answers: &str) -> Option<Self> {
        let own = world.server_identity();
        let file = |path: &Path| path.display().to_string();
        Self::begin(world, answers, "https", &["--tls", &file(&own.cert), &file(&own.key)])
    }

    fn begin(world: &World, answers: &str, scheme: &str, more: &[&str]) -> Option<Self> {
        let mut command = Command::new(world::peers::python()?);
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/otlp_recv.py");
        command.arg(script).arg("--answers").arg(answers).args(more);
        let mut process = Process::start("otlp_recv", world.dir(), command);
        let ready = process.ready();
        let address = |key: &str| ready[key].as_str().unwrap().to_owned();
        let (grpc, http) = (format!("{scheme}://{}", address("grpc")), address("http"));
        Some(Self { process, grpc, http })
    }

    /// What came next; what the receiver found wrong with it fails the test.
    fn next(&mut self) -> Value {
        let line = self.process.line(PATIENCE);
        assert_eq!(line["problems"], serde_json::json!([]), "{line}");
        line
    }

    /// The next request of metrics.
    fn request(&mut self) -> Value {
        loop {
            let line = self.next();
            if line["event"] == "request" {
                return line;
            }
        }
    }

    /// Requests up to the first whose histogram of stage A was taken and satisfies this.
    fn until(&mut self, enough: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut all = Vec::new();
        for _ in 0..60 {
            all.push(self.request());
            let last = all.last().unwrap();
            if last["answer"] == "ok" && histogram(last).is_some_and(&enough) {
                return all;
            }
        }
        panic!("60 requests, none of them enough: {:?}", all.last());
    }
}

fn points<'a>(request: &'a Value, name: &str) -> Vec<&'a Value> {
    let points = request["points"].as_array().unwrap();
    points.iter().filter(|point| point["name"] == name).collect()
}

fn histogram(request: &Value) -> Option<&Value> {
    points(request, DURATION).into_iter().find(|p| p["attributes"]["lens.stage"] == "stage_a")
}

fn count(request: &Value) -> u64 {
    histogram(request).map_or(0, |point| point["count"].as_u64().unwrap())
}

/// An aggregator that exports every second, and an agent with a node.
fn exporting(settings: &[(&str, &str)], world: &mut World) -> (Agent, Recorder) {
    let mut all = vec![("otlp.interval_s", "1")];
    all.extend(settings);
    world.start_aggregator(&all);
    let agent = world.agent("host-1", &[]);
    let node = recorder(&agent.segments, "node-1");
    (agent, node)
}

/// Records latencies; their sum, nanoseconds.
fn record(node: &Recorder, seed: u64, count: u64) -> u64 {
    let series = node.series(slice("rust"), Stage::A).unwrap();
    let mut rng = choices(seed);
    let mut sum = 0;
    for _ in 0..count {
        let nanos = latency(&mut rng);
        series.record(nanos);
        sum += nanos;
    }
    sum
}

/// What the decoder reads from the histogram agrees with what the API says.
fn agrees(world: &World, point: &Value, sum_nanos: u64) {
    let sum = point["sum"].as_f64().unwrap();
    let exact = sum_nanos as f64 / 1e9;
    assert!((sum - exact).abs() <= 0.004 * exact, "sum {sum} of {exact}");
    let path = "/api/v1/quantiles?slice=backend/rust/small&stage=stage_a&arm=baseline\
                &q=0.5&q=0.95&q=0.99&q=0.999";
    let answer = world.api(path);
    let point_of_api = &answer["series"][0]["points"][0];
    assert_eq!(point_of_api["count"], point["count"], "{answer}");
    for quantile in ["0.5", "0.95", "0.99", "0.999"] {
        let api = point_of_api["quantiles"][quantile]["value_ms"].as_f64().unwrap() / 1e3;
        let end = |at: usize| point["quantiles"][quantile][at].as_f64().unwrap();
        // The API's value lies in the bucket of its rank, whose ends are 2.2 % apart.
        assert!(
            end(0) * (1.0 - 1e-9) <= api && api <= end(1) * (1.0 + 1e-9),
            "{quantile}: {point}"
        );
        assert!(end(1) / end(0) <= 1.0219, "{point}");
    }
}

#[test]
fn cumulative_histograms_over_grpc_agree_with_the_api_and_outlive_the_aggregator() {
    let mut world = World::bare();
    let Some(mut receiver) = Receiver::start(&world, "UNAVAILABLE,ok,partial=2") else { return };
    let endpoint = receiver.grpc.clone();
    let settings = [("otlp.endpoint", &*endpoint)];
    let (agent, node) = exporting(&settings, &mut world);
    let sum = record(&node, 7, 20_000);
    let requests = receiver.until(|point| point["count"] == 20_000);
    let last = requests.last().unwrap();
    let point = histogram(last).unwrap();
    agrees(&world, point, sum);
    assert_eq!(point["temporality"], 2, "cumulative");
    assert_eq!((&point["unit"], &point["scale"]), (&"s".into(), &5.into()));
    assert_eq!(
        point["attributes"],
        serde_json::json!({"lens.repo_type": "backend", "lens.language": "rust",
            "lens.size": "small", "lens.stage": "stage_a", "lens.arm": "baseline"})
    );
    assert_eq!(last["resource"]["service.name"], "lens-aggregator");
    let quantiles = points(last, "lens.stage.duration.quantile");
    assert_eq!(quantiles.len(), 4, "{quantiles:?}");
    let verdicts = points(last, "lens.tail.verdict");
    let held: f64 = verdicts.iter().map(|point| point["value"].as_f64().unwrap()).sum();
    assert_eq!((verdicts.len(), held), (4, 1.0), "exactly one verdict holds");
    // One process ends and another goes on counting where it was, since the same instant.
    world.aggregator().kill();
    world.start_aggregator(&[("otlp.endpoint", &receiver.grpc), ("otlp.interval_s", "1")]);
    record(&node, 8, 5_000);
    let requests = receiver.until(|point| point["count"] == 25_000);
    for request in &requests {
        if let Some(after) = histogram(request) {
            assert_eq!(after["start"], point["start"], "the start is the store's");
            assert!(after["end"].as_u64() > point["end"].as_u64());
        }
    }
    drop(agent);
}

#[test]
fn grpc_messages_are_compressed_unless_told_otherwise() {
    let mut world = World::bare();
    // It refuses what is compressed, so that what it takes is not.
    let Some(mut receiver) = Receiver::begin(&world, "", "http", &["--plain"]) else { return };
    let endpoint = receiver.grpc.clone();
    let (_agent, node) = exporting(&[("otlp.endpoint", &endpoint)], &mut world);
    record(&node, 7, 1_000);
    until("a refusal", || {
        let refused = counter(&world, "lens_otlp_requests_refused_total");
        holds(refused > 0.0, &refused)
    });
    world.aggregator().terminate();
    let plain = [("otlp.endpoint", &*endpoint), ("otlp.compression", "none")];
    world.start_aggregator(&[&plain[..], &[("otlp.interval_s", "1")]].concat());
    let requests = receiver.until(|point| point["count"] == 1_000);
    assert_eq!(counter(&world, "lens_otlp_requests_refused_total"), 0.0, "{requests:?}");
}

/// The value of a metric of the aggregator's own.
fn counter(world: &World, name: &str) -> f64 {
    let text = http::get(world.http(), "/metrics").unwrap().1;
    let line = text.lines().find(|line| line.split(' ').next() == Some(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in {text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

fn secret(world: &World, name: &str, text: &str) -> String {
    let path = world.dir().join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

#[test]
fn deltas_over_http_add_up_to_what_was_recorded_whatever_the_receiver_answers() {
    let mut world = World::bare();
    let Some(mut receiver) = Receiver::start(&world, "429=2,503,partial=1") else { return };
    let endpoint = format!("http://{}", receiver.http);
    let token = secret(&world, "token", "t0ken\n");
    let lines = secret(&world, "headers", "x-scope-orgid: lens\n");
    let settings = [
        ("otlp.endpoint", &*endpoint),
        ("otlp.protocol", "http/protobuf"),
        ("otlp.temporality", "delta"),
        ("otlp.scale", "4"),
        ("otlp.bearer_file", &*token),
        ("otlp.headers_file", &*lines),
    ];
    let (_agent, node) = exporting(&settings, &mut world);
    let (mut recorded, mut requests, mut last) = (0, Vec::new(), None);
    let took = |request: &Value| matches!(request["answer"].as_str().unwrap(), "ok" | "partial=1");
    for round in 0..4 {
        record(&node, round, 1_000 * (round + 1));
        recorded += 1_000 * (round + 1);
        // Each round's samples come, together with what an earlier answer kept away.
        loop {
            requests.push(receiver.request());
            let told: u64 = requests.iter().filter(|request| took(request)).map(count).sum();
            assert!(told <= recorded, "told {told} of {recorded}");
            if told == recorded {
                break;
            }
            assert!(requests.len() < 90, "{told} of {recorded}");
        }
    }
    for request in &requests {
        assert_eq!(request["headers"]["authorization"], "Bearer t0ken");
        assert_eq!(request["headers"]["x-scope-orgid"], "lens");
        assert_eq!(request["headers"]["content-encoding"], "gzip");
        assert_eq!(request["headers"]["content-type"], "application/x-protobuf");
        let Some(point) = histogram(request) else { continue };
        assert_eq!((&point["temporality"], &point["scale"]), (&1.into(), &4.into()));
        if took(request) {
            // The next begins where the last that was taken ended, or later.
            assert!(last.is_none_or(|end| point["start"].as_u64().unwrap() >= end), "{point}");
            last = point["end"].as_u64();
        }
    }
    let at = |at: usize| requests[at]["at"].as_f64().unwrap();
    assert_eq!(requests[0]["answer"], "429=2");
    assert!(at(1) - at(0) >= 2.0, "Retry-After was 2 s, and it came after {}", at(1) - at(0));
    assert_eq!(counter(&world, "lens_otlp_points_rejected_total"), 1.0);
    assert_eq!(counter(&world, "lens_otlp_requests_retried_total"), 2.0);
    assert_eq!(counter(&world, "lens_otlp_requests_refused_total"), 0.0);
}

#[test]
fn over_tls_an_exhausted_receiver_is_asked_again_when_it_says_when_and_not_otherwise() {
    let mut world = World::bare();
    let answers = "RESOURCE_EXHAUSTED=2,RESOURCE_EXHAUSTED,INVALID_ARGUMENT";
    let Some(mut receiver) = Receiver::secured(&world, answers) else { return };
    let token = secret(&world, "token", "t0ken\n");
    let ca = world.server_identity().ca.display().to_string();
    let endpoint = receiver.grpc.clone();
    let settings =
        [("otlp.endpoint", &*endpoint), ("otlp.ca", &*ca), ("otlp.bearer_file", &*token)];
    let (_agent, node) = exporting(&settings, &mut world);
    record(&node, 7, 3_000);
    let requests = receiver.until(|point| point["count"] == 3_000);
    let at = |at: usize| requests[at]["at"].as_f64().unwrap();
    assert!(at(1) - at(0) >= 2.0, "RetryInfo was 2 s, and it came after {}", at(1) - at(0));
    assert!(requests.iter().all(|r| r["headers"]["authorization"] == "Bearer t0ken"));
    assert_eq!(counter(&world, "lens_otlp_requests_retried_total"), 1.0);
    assert_eq!(counter(&world, "lens_otlp_requests_refused_total"), 2.0);
    assert!(counter(&world, "lens_otlp_points_refused_total") > 0.0);
    // What was merged after the last interval is told at the end.
    record(&node, 8, 500);
    until("everything merged", || {
        let merged: u64 = world.merged()?.values().sum();
        holds(merged == 3_500, &merged)
    });
    world.aggregator().terminate();
    receiver.until(|point| point["count"] == 3_500);
}

/// The body of an answer as it is.
fn fetch(address: &str, path: &str, accept: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "GET {path} HTTP/1.1\r\nhost: {address}\r\naccept: {accept}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    let end = all.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    let head = String::from_utf8_lossy(&all[..end]).to_lowercase();
    assert!(head.contains(&format!("content-type: {accept}\r\n")), "{head}");
    all.split_off(end)
}

fn post(address: &str, path: &str, kind: &str, body: &[u8]) {
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: {kind}\r\n\
         content-length: {length}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn the_apis_otlp_form_is_decoded_by_the_official_definitions() {
    let mut world = World::bare();
    let Some(mut receiver) = Receiver::start(&world, "") else { return };
    world.start_aggregator(&[]);
    let agent = world.agent("host-1", &[]);
    let node = recorder(&agent.segments, "node-1");
    let sum = record(&node, 9, 10_000);
    until("everything merged", || {
        let merged: u64 = world.merged()?.values().sum();
        holds(merged == 10_000, &merged)
    });
    let path = "/api/v1/histogram?slice=backend/rust/small&stage=stage_a&arm=baseline&format=otlp";
    for kind in ["application/x-protobuf", "application/json"] {
        let body = fetch(world.http(), path, kind);
        post(&receiver.http, "/v1/metrics", kind, &body);
        let request = receiver.request();
        let point = histogram(&request).unwrap();
        assert_eq!((&point["count"], &point["temporality"]), (&10_000.into(), &1.into()));
        agrees(&world, point, sum);
    }
}

#[test]
fn agent_and_aggregator_tell_of_their_own_work_until_they_end() {
    let mut world = World::bare();
    let Some(mut receiver) = Receiver::start(&world, "") else { return };
    let own = [("telemetry.otlp_endpoint", &*receiver.grpc.clone())];
    world.start_aggregator(&own);
    let mut agent = world.agent("host-1", &own);
    let node = recorder(&agent.segments, "node-1");
    record(&node, 9, 1_000);
    let mut wanted: Vec<(&str, &str)> = vec![
        ("lens-agent", "harvest"),
        ("lens-agent", "ship"),
        ("lens-aggregator", "ingest"),
        ("lens-aggregator", "commit"),
        ("lens-aggregator", "judge"),
    ];
    let deadline = std::time::Instant::now() + PATIENCE;
    while !wanted.is_empty() {
        assert!(std::time::Instant::now() < deadline, "never came: {wanted:?}");
        let line = receiver.next();
        if line["event"] == "span" {
            wanted.retain(|(service, name)| line["service"] != *service || line["name"] != *name);
        }
    }
    // What their meters read last comes with their end, which it does not hold up.
    agent.process.terminate();
    world.aggregator().terminate();
    let mut wanted = vec!["lens.agent.samples.harvested", "lens.aggregator.samples.merged"];
    while !wanted.is_empty() {
        let request = receiver.request();
        let whole = |name: &&str| points(&request, name).iter().any(|p| p["value"] == 1_000);
        wanted.retain(|name| !whole(name));
    }
}

#[test]
fn a_receiver_that_is_not_there_holds_up_neither_data_nor_the_end() {
    let mut world = World::bare();
    // Nobody listens on port 1.
    let own = [("telemetry.otlp_endpoint", "http://127.0.0.1:1")];
    let mut all = vec![("otlp.endpoint", "http://127.0.0.1:1"), ("otlp.interval_s", "1")];
    all.extend(own);
    world.start_aggregator(&all);
    let mut agent = world.agent("host-1", &own);
    let node = recorder(&agent.segments, "node-1");
    record(&node, 9, 1_000);
    until("everything merged, and the export in trouble", || {
        let merged: u64 = world.merged()?.values().sum();
        let retried = counter(&world, "lens_otlp_requests_retried_total");
        holds(merged == 1_000 && retried > 0.0, &(merged, retried))
    });
    agent.process.terminate();
    world.aggregator().terminate();
}
