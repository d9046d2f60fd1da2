//! A node on a tiny corpus, queried over HTTP, with its ledger held beside its segment.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use lens_benches::load::record::{self, RecordLoad};
use lens_benches::load::search::{self, SearchLoad};
use lens_benches::load::{Arrival, Distribution};
use lens_benches::node::{self, Event, KeptLedger, Ledger, NodeOptions};
use lens_model::{Arm, Nanos, SeriesKey, Stage};
use lens_segment::{Harvest, ReadPolicy, SegmentReader};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

fn write(root: &Path, name: &str, text: &str) {
    let path = root.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// Two packages in two languages, enough windows of each for stage C to run.
fn corpus(root: &Path) {
    write(root, "engine/Cargo.toml", "[package]\nname = \"engine\"");
    write(root, "site/package.json", "{}");
    for at in 0..30 {
        let rust = format!("pub fn parse_header_{at}(line: &str) {{}}\npub struct Header{at};\n");
        write(root, &format!("engine/src/f{at:02}.rs"), &rust);
        let script = format!("export function renderPage{at}(view) {{ return view; }}\n");
        write(root, &format!("site/f{at:02}.js"), &script);
    }
}

struct Running {
    url: String,
    stop: oneshot::Sender<()>,
    events: mpsc::UnboundedReceiver<Event>,
    node: tokio::task::JoinHandle<Result<(), node::NodeError>>,
    segments: tempfile::TempDir,
    _corpus: tempfile::TempDir,
}

async fn start(regress: &[&str]) -> Running {
    let (files, segments) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    corpus(files.path());
    let options = NodeOptions {
        corpus: vec![files.path().into()],
        listen: "127.0.0.1:0".parse().unwrap(),
        segment_dir: segments.path().into(),
        ledger: Some(segments.path().join("node-7.ledger")),
        instance: "node-7".parse().unwrap(),
        version: "1.4.2".into(),
        arm: Arm::Canary,
        by_assignment: false,
        regress: regress.iter().map(|text| text.parse().unwrap()).collect(),
        files_max: 100,
        bytes_max: 1 << 20,
    };
    let (sender, mut events) = mpsc::unbounded_channel();
    let (stop, stopped) = oneshot::channel::<()>();
    let on_event = move |event| assert!(sender.send(event).is_ok(), "the test still listens");
    let node = tokio::spawn(node::run_with(options, on_event, async {
        stopped.await.ok();
    }));
    let url = loop {
        match events.recv().await.expect("the node is ready before it ends") {
            Event::Ready { listen, files, repos, slices, .. } => {
                assert_eq!((files, repos, slices.len()), (60, 2, 2));
                break format!("http://{listen}");
            }
            other => assert!(matches!(other, Event::Indexing { of: 60, .. }), "{other:?}"),
        }
    };
    Running { url, stop, events, node, segments, _corpus: files }
}

impl Running {
    async fn ask(&self, body: Value) -> (u16, Value) {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client.post(format!("{}/search", self.url)).json(&body);
        let response = request.header("x-trace-id", "trace-1").send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    /// Stops the node; its ledger, and what its segment holds.
    async fn stop(mut self) -> (Ledger, Vec<(SeriesKey, u64)>, u64) {
        self.stop.send(()).unwrap();
        let mut last = None;
        while let Some(event) = self.events.recv().await {
            last = Some(event);
        }
        self.node.await.unwrap().unwrap();
        let Some(Event::Recorded(ledger)) = last else { panic!("the ledger is the last event") };
        // The file says the same, and that nothing was on the way.
        let kept = KeptLedger::read(&self.segments.path().join("node-7.ledger")).unwrap();
        assert_eq!((&kept.ledger, kept.on_the_way.len()), (&ledger, 0));
        let (totals, requests) = harvest(self.segments.path());
        (ledger, totals, requests)
    }
}

/// What the one segment in a directory holds, read as an agent reads it: samples per series, and
/// requests in all.
fn harvest(directory: &Path) -> (Vec<(SeriesKey, u64)>, u64) {
    let segments = lens_segment::scan(directory).unwrap().paths;
    assert_eq!(segments.len(), 1, "one recorder, one segment");
    let mut harvest = Harvest::default();
    let mut reader = SegmentReader::open(&segments[0], &ReadPolicy::default()).unwrap();
    reader.harvest(Nanos::from_secs(1), &mut harvest).unwrap();
    let mut totals: Vec<_> = harvest
        .series
        .iter()
        .map(|series| (SeriesKey::clone(&series.key), series.counts.total()))
        .collect();
    totals.sort();
    (totals, harvest.requests.iter().map(|requests| requests.ok + requests.error).sum())
}

fn of_ledger(ledger: &Ledger) -> Vec<(SeriesKey, u64)> {
    let mut totals: Vec<_> = ledger
        .series
        .iter()
        .map(|s| (SeriesKey { slice: s.slice.clone(), stage: s.stage, arm: s.arm }, s.recorded))
        .collect();
    totals.sort();
    totals
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_says_it_recorded_is_what_its_segment_holds() {
    let node = start(&[]).await;
    let (status, found) = node.ask(json!({"q": "parse_header_7", "repo": "engine", "k": 5})).await;
    assert_eq!(status, 200, "{found}");
    assert_eq!(found["hits"][0]["file"], "engine/src/f07.rs");
    assert_eq!(found["hits"][0]["line"], 1);
    assert_eq!(found["hits"].as_array().unwrap().len(), 5);
    assert_eq!(found["trace_id"], "trace-1");
    assert_eq!(found["arm"], "canary");
    assert_eq!(found["slice"], "backend/rust/small");
    for stage in ["stage_a", "stage_b", "stage_c", "total"] {
        assert!(found["latency_ms"][stage].as_f64().unwrap() > 0.0, "{found}");
    }

    let load = SearchLoad::new(std::slice::from_ref(&node.url), 200.0, Duration::from_secs(1), 7);
    let report = search::run(load, std::future::pending()).await.unwrap();
    assert_eq!((report.failed, report.unsent), (0, 0), "{report:?}");
    assert_eq!(report.offered, report.ok);

    let (ledger, totals, requests) = node.stop().await;
    assert_eq!(ledger.instance, "node-7");
    assert_eq!(of_ledger(&ledger), totals);
    let ran: u64 = report.stages.iter().map(|stage| stage.count).sum();
    assert_eq!(totals.iter().map(|(_, n)| n).sum::<u64>(), ran + 4);
    assert_eq!(requests, report.ok + 1);
    assert_eq!(ledger.requests.iter().map(|r| r.ok).sum::<u64>(), requests);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_query_names_its_field_and_counts_nothing() {
    let node = start(&[]).await;
    for (body, field, hint) in [
        (json!({}), "q", "1 to 1000"),
        (json!({"q": ""}), "q", "1 to 1000"),
        (json!({"q": "x".repeat(1001)}), "q", "1 to 1000"),
        (json!({"q": 5}), "q", "string"),
        (json!({"q": "x", "k": 201}), "k", "1 to 200"),
        (json!({"q": "x", "k": 1.5}), "k", "1 to 200"),
        (json!({"q": "x", "mode": "fast"}), "mode", "hybrid"),
        (json!({"q": "x", "mod": "lex"}), "mod", "\"mode\""),
        (json!({"q": "x", "repo": "engin"}), "repo", "\"engine\""),
        (json!({"q": "x", "slice": "backend/rust"}), "slice", "three parts"),
        (json!({"q": "x", "slice": "backend/go/small"}), "slice", "frontend/javascript/small"),
        (json!({"q": "x", "repo": "site", "slice": "backend/rust/small"}), "slice", "leave"),
        (json!(["q"]), "body", "object"),
    ] {
        let (status, answer) = node.ask(body.clone()).await;
        assert_eq!((status, answer["field"].as_str()), (400, Some(field)), "{body}: {answer}");
        assert!(answer["message"].as_str().unwrap().contains(hint), "{body}: {answer}");
    }
    let (ledger, totals, requests) = node.stop().await;
    assert_eq!((ledger.series.len(), totals.len(), requests), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn modes_choose_stages_and_a_query_without_hits_is_an_answer() {
    let node = start(&["stage_a=2@canary"]).await;
    let (_, lex) = node.ask(json!({"q": "renderPage", "repo": "site", "mode": "lex"})).await;
    assert!(lex["latency_ms"]["stage_b"].is_null() && lex["latency_ms"]["stage_c"].is_number());
    let (_, few) =
        node.ask(json!({"q": "renderPage", "repo": "site", "mode": "lex", "k": 2})).await;
    assert!(few["latency_ms"]["stage_c"].is_null(), "8 windows are too few to rerank: {few}");
    let (status, none) = node.ask(json!({"q": "zzzzzzzzzz", "repo": "site"})).await;
    assert_eq!((status, none["total"].as_u64()), (200, Some(0)), "{none}");
    let (ledger, totals, _) = node.stop().await;
    assert_eq!(of_ledger(&ledger), totals);
}

#[tokio::test]
async fn a_node_without_a_usable_corpus_says_which_directory_and_what_would_be_right() {
    let empty = tempfile::tempdir().unwrap();
    let options = NodeOptions {
        corpus: vec![empty.path().into()],
        listen: "127.0.0.1:0".parse().unwrap(),
        segment_dir: empty.path().into(),
        ledger: None,
        instance: "node-7".parse().unwrap(),
        version: "1".into(),
        arm: Arm::Baseline,
        by_assignment: false,
        regress: Vec::new(),
        files_max: 10,
        bytes_max: 1 << 20,
    };
    let error = node::run_with(options, |_| {}, std::future::pending()).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&empty.path().display().to_string()) && text.contains("checkout"));
}

fn synthetic(dir: &Path, arms: &[Arm]) -> RecordLoad {
    RecordLoad {
        dir: dir.into(),
        instance: "load-1".parse().unwrap(),
        version: "1".into(),
        slices: vec!["backend/rust/large".parse().unwrap(), "a/b/c".parse().unwrap()],
        stages: Stage::ALL.to_vec(),
        arms: arms.to_vec(),
        canary_share: 0.25,
        rate: 1_000.0,
        arrival: Arrival::Poisson,
        duration: Duration::from_secs(20),
        distribution: "lognormal:median=5ms,sigma=0.7".parse::<Distribution>().unwrap(),
        regress: vec!["stage_b=3@canary:after=10s".parse().unwrap()],
        errors: 0.01,
        seed: 42,
        raw_out: Some(dir.join("raw.csv")),
        paced: false,
    }
}

#[test]
fn recorded_load_is_in_the_segment_to_the_count_and_in_the_file_to_the_line() {
    let dir = tempfile::tempdir().unwrap();
    let load = synthetic(dir.path(), &Arm::ALL);
    let report = record::run(&load, &AtomicBool::new(false)).unwrap();
    let mut said: Vec<_> =
        report.series.iter().map(|s| (s.key.clone(), s.quantiles.count)).collect();
    said.sort();
    let (totals, requests) = harvest(dir.path());
    assert_eq!(said, totals);
    assert_eq!(requests, report.requests_total);
    assert_eq!(report.recorded_total, 4 * report.requests_total);
    let raw = std::fs::read_to_string(dir.path().join("raw.csv")).unwrap();
    assert_eq!(raw.lines().count() as u64, report.recorded_total + 1);
    assert_eq!(raw.lines().next(), Some("t_ms,slice,stage,arm,host,latency_ms,ok"));
    let failed = report.requests.iter().map(|r| r.error).sum::<u64>();
    assert!((100..300).contains(&failed), "1 % of 20,000: {failed}");

    let p50 = |stage, arm| {
        let found = report.series.iter().find(|s| s.key.stage == stage && s.key.arm == arm);
        found.unwrap().quantiles.p50_ms.unwrap()
    };
    assert!((p50(Stage::B, Arm::Baseline) - 5.0).abs() < 0.3);
    assert!(p50(Stage::B, Arm::Canary) > 1.3 * p50(Stage::A, Arm::Canary));
}

#[test]
fn a_seed_gives_the_same_recording_again() {
    let run = |seed| {
        let dir = tempfile::tempdir().unwrap();
        let load = RecordLoad { seed, raw_out: None, ..synthetic(dir.path(), &[Arm::Canary]) };
        record::run(&load, &AtomicBool::new(false)).unwrap().series
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

#[test]
fn load_that_makes_no_sense_is_refused_before_anything_is_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let load = synthetic(dir.path(), &[]);
    let error = record::run(&load, &AtomicBool::new(false)).unwrap_err().to_string();
    assert!(error.contains("--arms"), "{error}");
    let load = RecordLoad { rate: 1e7, ..synthetic(dir.path(), &Arm::ALL) };
    let error = record::run(&load, &AtomicBool::new(false)).unwrap_err().to_string();
    assert!(error.contains("--rate"), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
