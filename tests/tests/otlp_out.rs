//! The export to an OTLP receiver, decoded by code that shares no line with it.
#![allow(clippy::unwrap_used)]

mod world;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use lens_model::Stage;
use lens_segment::Recorder;
use serde_json::Value;
use world::{Agent, PATIENCE, Process, World, choices, latency, recorder, slice, until};

const DURATION: &str = "lens.stage.duration";

/// The Python with the peers' libraries; `None`, said loudly, where it is not and need not be.
#[allow(clippy::print_stderr, reason = "said loudly")]
fn python() -> Option<PathBuf> {
    let dir = std::env::var_os("LENS_TEST_PEERS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/test-peers"),
        PathBuf::from,
    );
    let python = dir.join("bin/python");
    let mut ask = Command::new(&python);
    ask.args(["-c", "import google.rpc.status_pb2, grpc, opentelemetry.proto"]);
    if ask.output().is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    let missing = format!("{} has no OTLP libraries: run deploy/test-peers.sh", python.display());
    assert!(std::env::var_os("CI").is_none(), "{missing}");
    eprintln!("\n!!! NOT CHECKED AGAINST THE PEER: {missing}\n");
    None
}

/// The receiver, answering as told.
struct Receiver {
    process: Process,
    grpc: String,
    http: String,
}

impl Receiver {
    fn start(world: &World, answers: &str) -> Option<Self> {
        let mut command = Command::new(python()?);
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/otlp_recv.py");
        command.arg(script).arg("--answers").arg(answers);
        let mut process = Process::start("otlp_recv", world.dir(), command);
        let ready = process.ready();
        let address = |key: &str| format!("http://{}", ready[key].as_str().unwrap());
        let (grpc, http) = (address("grpc"), address("http"));
        Some(Self { process, grpc, http })
    }

    /// The next request; what the receiver found wrong with it fails the test.
    fn request(&mut self) -> Value {
        let line = self.process.line(PATIENCE);
        assert_eq!(line["event"], "request", "{line}");
        assert_eq!(line["problems"], serde_json::json!([]), "{line}");
        line
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
        assert!(end(0) * (1.0 - 1e-9) <= api && api <= end(1) * (1.0 + 1e-9), "{quantile}: {point}");
        assert!(end(1) / end(0) <= 1.0219, "{point}");
    }
}

#[test]
fn cumulative_histograms_over_grpc_agree_with_the_api_and_outlive_the_aggregator() {
    let mut world = World::bare();
    let Some(mut receiver) = Receiver::start(&world, "UNAVAILABLE,ok,partial=2") else { return };
    let settings = [("otlp.endpoint", &*receiver.grpc.clone()), ("otlp.interval_s", "1")];
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
