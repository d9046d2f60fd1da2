//! DogStatsD in, through real processes: clients we did not write, and lines by hand.
#![allow(clippy::unwrap_used)]

mod world;

use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lens_model::{Arm, SeriesKey, Slice, Stage};
use serde_json::{Value, json};
use world::{Agent, Tally, World, holds, http, peers, until};

const UNITS: (&str, &str) = ("ingest.dogstatsd.units", "lens.stage_b=ms,lens.search=s");
const UDP: (&str, &str) = ("ingest.dogstatsd.udp", "127.0.0.1:0");
const LABELS: (&str, &str) =
    ("ingest.dogstatsd.labels", "repo_type=backend,language=rust,size=small");

fn key(language: &str, stage: Stage, arm: Arm) -> SeriesKey {
    SeriesKey { slice: Slice::new("backend", language, "small").unwrap(), stage, arm }
}

fn ingest(agent: &Agent) -> Value {
    agent.status().unwrap()["ingest"].clone()
}

fn address(agent: &Agent) -> String {
    ingest(agent)["listening"]["dogstatsd_udp"].as_str().unwrap().to_owned()
}

fn run(command: &mut Command) -> Value {
    let out = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{said}{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_str(said.lines().last().unwrap()).unwrap()
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(name)
}

/// The one point of a series at the aggregator.
fn point(world: &World, key: &SeriesKey) -> Value {
    let (slice, stage) = (&key.slice, key.stage);
    let path = format!("/api/v1/quantiles?slice={slice}&stage={stage}&arm=baseline&q=0.5,0.95");
    world.api(&path)["series"][0]["points"][0].clone()
}

/// Waits until all that came is merged, and gives it.
fn settled(world: &World, agent: &Agent, least: u64) -> Tally {
    until("what came is merged", || {
        let taken = ingest(agent)["segment"]["samples_total"].as_u64().unwrap();
        let merged = world.merged()?;
        let sum: u64 = merged.values().sum();
        holds(taken >= least && sum == taken, &(taken, &merged)).map(|()| merged)
    })
}

#[test]
fn the_python_client_is_counted_and_what_it_lost_on_the_way_is_shown() {
    let Some(python) = peers::python() else { return };
    for way in ["udp", "unix"] {
        let world = World::new(&[]);
        let path = world.dir().join("dsd.socket").display().to_string();
        let socket = if way == "udp" { UDP } else { ("ingest.dogstatsd.unix", path.as_str()) };
        let agent = world.agent("host-1", &[UNITS, socket]);
        let to = if way == "udp" { address(&agent) } else { path.clone() };
        let mut command = Command::new(&python);
        let sent = run(command.arg(script("dogstatsd_send.py")).args([way, &to, "2000", "7"]));
        let merged = settled(&world, &agent, 1);
        let shown = ingest(&agent);
        let (stage_b, search) =
            (key("rust", Stage::B, Arm::Baseline), key("rust", Stage::E2e, Arm::Baseline));
        let count = |key| merged.get(key).copied().unwrap_or(0);
        let missing = 2_020 - count(&stage_b) - count(&search);
        let lost = shown["completeness"]["datagrams_lost_total"].as_u64().unwrap();
        println!(
            "{way}: {missing} samples missing, {lost} datagrams lost: {}",
            shown["completeness"]
        );
        assert!(missing <= lost, "{missing} samples went missing unnoticed: {shown}");
        assert!(shown["completeness"]["client_reports_total"].as_u64().unwrap() > 0, "{shown}");
        let percent = shown["completeness"]["percent"].as_f64().unwrap();
        assert_eq!(percent < 100.0, lost > 0, "{shown}");
        // Neither kind is a latency with a unit.
        let refused = shown["listeners"]["dogstatsd"]["refused"].as_object().unwrap();
        assert!(refused.keys().all(|why| why == "type" || why == "unit"), "{refused:?}");
        let mut values: Vec<u64> =
            sent["values"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap()).collect();
        values.sort_unstable();
        if missing == 0 {
            for (q, rank) in [("0.5", 1_000), ("0.95", 1_900)] {
                let exact = values[rank - 1] as f64 / 1e6;
                let got = point(&world, &stage_b)["quantiles"][q]["value_ms"].as_f64().unwrap();
                assert!((got - exact).abs() / exact <= 0.01, "{q}: {got} ms, exactly {exact} ms");
            }
        }
        // The client's timer sends seconds and calls them milliseconds; the listener knows better.
        if count(&search) > 0 {
            let median = &point(&world, &search)["quantiles"]["0.5"]["value_ms"];
            assert!(median.as_f64().unwrap() >= 2.9, "{median}");
        }
    }
}

#[test]
fn the_node_client_is_counted() {
    let node = ["/usr/bin/node", "/usr/local/bin/node"].map(Path::new);
    let node = node.into_iter().find(|path| path.exists()).unwrap_or(node[0]);
    let modules = peers::directory().join("node_modules");
    let (Some(node), Some(modules)) = (peers::present(node), peers::present(&modules)) else {
        return;
    };
    let world = World::new(&[]);
    let agent = world.agent("host-1", &[UDP]);
    let mut command = Command::new(node);
    command.arg(script("dogstatsd_send.mjs")).arg(std::path::absolute(modules).unwrap());
    let sent = run(command.args([&address(&agent), "500"]));
    assert_eq!(sent["values"].as_array().unwrap().len(), 500);
    let merged = settled(&world, &agent, 500);
    assert_eq!(merged, Tally::from([(key("node", Stage::C, Arm::Baseline), 500)]));
    // It said nothing of its losses, so completeness is not known.
    let completeness = ingest(&agent)["completeness"].clone();
    assert!(completeness["percent"].is_null() && completeness["reason"].is_string());
}

#[test]
fn rates_and_several_values_are_counted_and_refusals_have_their_reason() {
    let world = World::new(&[]);
    let agent = world.agent("host-1", &[UDP, LABELS]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = address(&agent);
    let datagrams: [&[u8]; 5] = [
        b"lens.stage_a:1:2:3|ms|@0.5|#lens.arm:canary|c:abc|T1656581400\nlens_search:4|ms",
        b"lens.stage_a:1|h\nlens.stage_a:x:-1|ms\nlens.stage_a:1|ms|@2\nweb.time:1|ms",
        b"hits:1|c\n_e{5,4}:title|text\ngarbage\n\xFF\xFE:1|ms",
        b"lens.stage_a:1|ms|#lens.arm:blue\nlens.stage_a:1|ms|#lens.language:a/b",
        b"datadog.dogstatsd.client.packets_sent:10|c\ndatadog.dogstatsd.client.packets_dropped:5|c",
    ];
    for datagram in datagrams {
        assert_eq!(socket.send_to(datagram, &to).unwrap(), datagram.len());
    }
    let merged = settled(&world, &agent, 7);
    let wanted = Tally::from([
        (key("rust", Stage::A, Arm::Canary), 6),
        (key("rust", Stage::E2e, Arm::Baseline), 1),
    ]);
    assert_eq!(merged, wanted);
    let refused = json!({
        "arm": 1, "line": 2, "not_ours": 1, "rate": 1, "slice_name": 1, "type": 2, "unit": 1,
        "value": 2,
    });
    let shown = until("everything was read", || {
        let shown = ingest(&agent);
        let found = &shown["listeners"]["dogstatsd"]["refused"];
        holds(*found == refused, found).map(|()| shown)
    });
    // Ten were sent of which five came, and five were not sent.
    let completeness = &shown["completeness"];
    assert_eq!(completeness["datagrams_lost_total"], 10, "{completeness}");
    let metrics = http::get(&agent.admin, "/metrics").unwrap().1;
    for line in [
        "lens_agent_ingest_refused_total{listener=\"dogstatsd\",reason=\"rate\"} 1",
        "lens_agent_ingest_samples_total{listener=\"dogstatsd\"} 7",
        "lens_agent_ingest_client_dropped_total 5",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} in {metrics}");
    }
}

#[test]
fn a_unix_socket_takes_a_datagram_and_is_taken_over_from_a_killed_agent() {
    let world = World::new(&[]);
    let path = world.dir().join("dsd.socket");
    let text = path.display().to_string();
    let settings = [LABELS, ("ingest.dogstatsd.unix", text.as_str())];
    let mut agent = world.agent("host-1", &settings);
    let client = UnixDatagram::unbound().unwrap();
    client.send_to(b"lens_search:4|ms", &path).unwrap();
    settled(&world, &agent, 1);
    agent.process.kill();
    let agent = world.start_agent("host-1", &settings);
    client.send_to(b"lens_search:5:6|ms", &path).unwrap();
    let wanted = Tally::from([(key("rust", Stage::E2e, Arm::Baseline), 3)]);
    world.until_merged(&wanted);
    assert_eq!(ingest(&agent)["segment"]["samples_total"], 2);
}
