//! HdrHistogram's forms, read by an implementation we did not write, and read back by our own replay.
#![allow(clippy::unwrap_used)]

mod world;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use lens_model::{Arm, Stage};
use serde_json::Value;
use world::peers::python;
use world::process::run;
use world::{Tally, World, choices, http, latency, recorder, slice};

const SEED: u64 = 20_261_126;

/// Records known latencies through an agent and saves the three forms of their histogram.
fn saved(world: &World) -> u64 {
    let agent = world.agent("host-1", &[]);
    let node = recorder(&agent.segments, "node-1");
    let series = node.series_in_arm(slice("rust"), Stage::A, Arm::Baseline).unwrap();
    let mut rng = choices(SEED);
    let edges = [1, 255, 256, 1_000_000_000, (1 << 36) - 1];
    let values = (0..20_000).map(|_| latency(&mut rng)).chain(edges);
    let count = values.map(|nanos| series.record(nanos)).count() as u64;
    world.until_merged(&Tally::from([(series.key().clone(), count)]));
    for (format, file) in [("hdr", "histogram.hdr"), ("hlog", "log.hlog"), ("hgrm", "table.hgrm")] {
        let path = format!(
            "/api/v1/histogram?slice={}&stage=stage_a&arm=baseline&format={format}",
            slice("rust")
        );
        let (status, body) = http::get(world.http(), &path).unwrap();
        assert_eq!(status, 200, "{body}");
        std::fs::write(world.dir().join(file), body).unwrap();
    }
    count
}

fn read_by_another(python: &Path, world: &World) -> Value {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/hdr.py");
    let output = Command::new(python).arg(script).arg(world.dir()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn another_implementation_reads_equal_counts_and_percentiles() {
    let Some(python) = python() else { return };
    let world = World::new(&[]);
    let count = saved(&world);
    let read = read_by_another(&python, &world);
    for form in ["hdr", "hlog"] {
        assert_eq!(read[form]["count"], count, "{form}");
    }
    assert_eq!(read["hdr"]["buckets"], read["hlog"]["buckets"]);
    assert_eq!(read["hgrm"]["count"], count);
    assert_eq!(read["tags"], serde_json::json!(["backend/rust/small/stage_a/baseline"]));

    // The same counters as ours, each by the largest latency it holds.
    let answer = world.api(&format!(
        "/api/v1/histogram?slice={}&stage=stage_a&arm=baseline&format=json",
        slice("rust")
    ));
    let ours: BTreeMap<String, u64> = answer["buckets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|bucket| {
            let above = (bucket[1].as_f64().unwrap() * 1e6).round();
            (format!("{}", above - 1.0), bucket[2].as_u64().unwrap())
        })
        .collect();
    let theirs: BTreeMap<String, u64> =
        serde_json::from_value(read["hdr"]["buckets"].clone()).unwrap();
    assert_eq!(ours, theirs);

    // Percentiles of theirs within the width of a counter of ours.
    let path = format!(
        "/api/v1/quantiles?slice={}&stage=stage_a&arm=baseline&q=0.5,0.95,0.99",
        slice("rust")
    );
    let points = world.api(&path);
    let point = points["series"][0]["points"]
        .as_array()
        .unwrap()
        .iter()
        .rfind(|p| p["count"] != 0)
        .unwrap();
    for (place, quantile) in ["0.5", "0.95", "0.99"].into_iter().enumerate() {
        let value = point["quantiles"][quantile]["value_ms"].as_f64().unwrap() * 1e6;
        let theirs = read["hdr"]["percentiles"][place].as_f64().unwrap();
        assert!((value / theirs - 1.0).abs() < 0.01, "{quantile}: {value} and {theirs}");
    }
}

#[test]
fn replay_reads_the_log_that_the_aggregator_wrote() {
    let world = World::new(&[]);
    let count = saved(&world);
    let log = world.dir().join("log.hlog");
    let output = run(&["replay", log.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    let summary: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!(summary["kind"], "summary");
    assert_eq!(summary["samples"], count, "{summary}");
}
