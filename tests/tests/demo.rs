//! `lens demo` as a stranger runs it: to its end, broken in the middle, and interrupted.
#![allow(clippy::unwrap_used)]

mod world;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use world::process::{program, runs, signal};
use world::{holds, until};

/// Files of the corpus: enough for a few slices, few enough for an unoptimised build.
const FILES: usize = 60;

/// Longest a demo may take beside its queries.
const DEMO_MAX: Duration = Duration::from_secs(60);

/// Longest a rollout may take until evidence has ended it.
const DECIDED_MAX: Duration = Duration::from_secs(100);

/// Source files of this very workspace, copied.
fn corpus(dir: &Path) -> PathBuf {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        let mut entries: Vec<PathBuf> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    for package in ["shared", "agent", "aggregator"] {
        walk(&root.join(package), &mut files);
    }
    assert!(files.len() >= FILES, "{}", files.len());
    let to = dir.join("corpus");
    for file in files.iter().take(FILES) {
        let copy = to.join(file.strip_prefix(root).unwrap());
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(file, copy).unwrap();
    }
    to
}

/// A demo in a process group of its own, its temporary files in a directory of the test's.
struct Demo {
    child: std::process::Child,
    dir: tempfile::TempDir,
}

impl Demo {
    fn start(length: &str) -> Self {
        Self::start_with(length, &[])
    }

    fn start_with(length: &str, more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let corpus = corpus(dir.path());
        let file = |name: &str| fs::File::create(dir.path().join(name)).unwrap();
        fs::create_dir(dir.path().join("tmp")).unwrap();
        let mut command: Command = program();
        command
            .args(["demo", "--for", length, "--json", "--no-browser"])
            .args(["--http", "127.0.0.1:0", "--corpus"])
            .arg(corpus)
            .args(if more.contains(&"--rate") { &[][..] } else { &["--rate", "25"] })
            .args(more)
            .env("TMPDIR", dir.path().join("tmp"))
            .stdin(Stdio::null())
            .stdout(file("stdout"))
            .stderr(file("stderr"));
        Self { child: command.spawn().unwrap(), dir }
    }

    fn said(&self, name: &str) -> String {
        fs::read_to_string(self.dir.path().join(name)).unwrap()
    }

    /// The processes it started, by name, once it tells of them.
    fn processes(&mut self) -> Vec<(String, u32)> {
        until("the demo names its processes", || {
            let said = self.said("stderr");
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "ended with {ended:?}: {said}");
            let line = said.lines().find_map(|line| line.split_once("processes: "));
            let (_, line) = line.ok_or_else(|| said.clone())?;
            Ok(line
                .split(", ")
                .map(|one| one.rsplit_once(' ').unwrap())
                .map(|(name, pid)| (name.to_owned(), pid.parse().unwrap()))
                .collect())
        })
    }

    /// Where its API listens.
    fn http(&self) -> String {
        let said = self.said("stderr");
        let (_, rest) = said.split_once("dashboard: http://").unwrap();
        rest.split('/').next().unwrap().to_owned()
    }

    /// Waits until the aggregator merged something of its queries.
    fn until_measuring(&self) {
        let http = self.http();
        until("samples", || {
            let answer = world::http::json(&http, "/api/v1/slices")?;
            let slices = answer["slices"].as_array().ok_or("no slices")?;
            let merged: u64 = slices.iter().filter_map(|s| s["merged_total"].as_u64()).sum();
            holds(merged > 20, &merged)
        });
    }

    /// Exit code and standard error.
    fn ended(&mut self) -> (Option<i32>, String) {
        let deadline = Instant::now() + DEMO_MAX;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status.code(), self.said("stderr"));
            }
            assert!(Instant::now() < deadline, "still running: {}", self.said("stderr"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Nothing that it started runs, and no directory that it made is there.
    fn assert_nothing_left(&self, processes: &[(String, u32)]) {
        until("every process ended", || {
            let left: Vec<_> = processes.iter().filter(|(_, pid)| runs(*pid)).collect();
            holds(left.is_empty(), &left)
        });
        let own = format!("lens-demo-{}", self.child.id());
        for dir in [Path::new("/dev/shm"), &self.dir.path().join("tmp")] {
            let left: Vec<_> = fs::read_dir(dir)
                .into_iter()
                .flatten()
                .map(|entry| entry.unwrap().file_name())
                .filter(|name| name.to_string_lossy().starts_with(&own))
                .collect();
            assert!(left.is_empty(), "{}: {left:?}", dir.display());
        }
    }

    /// The summary, which is all there is on standard output.
    fn summary(&self) -> Value {
        let said = self.said("stdout");
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said:?}"))
    }
}

impl Drop for Demo {
    #[allow(clippy::print_stderr)]
    fn drop(&mut self) {
        if self.child.try_wait().ok().flatten().is_none() {
            self.child.kill().ok();
            self.child.wait().ok();
        }
        if std::thread::panicking() {
            eprintln!("---- the demo said ----\n{}\n{}", self.said("stderr"), self.said("stdout"));
        }
    }
}

#[test]
fn a_demo_ends_with_everything_recorded_merged() {
    let mut demo = Demo::start("6s");
    let processes = demo.processes();
    let names: Vec<&str> = processes.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["aggregator", "agent-1", "agent-2", "node-1", "node-2", "node-3"]);
    let (code, said) = demo.ended();
    assert_eq!(code, Some(0), "{said}");
    demo.assert_nothing_left(&processes);

    let summary = demo.summary();
    assert_eq!(summary["reconciled"], true);
    let recorded = summary["recorded_total"].as_u64().unwrap();
    assert!(recorded > 0, "{summary}");
    assert_eq!(summary["merged_total"].as_u64(), Some(recorded));
    assert_eq!(summary["corpus_files"], FILES);
    assert!(summary["queries"].as_u64().unwrap() > 0, "{summary}");
    assert_eq!(summary["errors"], 0, "{summary}");
    assert!(summary["duration_s"].as_f64().unwrap() >= 6.0, "{summary}");
    let canary = &summary["canary"];
    let outcome = canary["outcome"].as_str().unwrap();
    assert!(["completed", "rolled_back", "held"].contains(&outcome), "{canary}");
    assert!(canary["reason"].is_string(), "{canary}");
    for field in ["detected_after_s", "samples"] {
        assert!(canary.as_object().unwrap().contains_key(field), "{canary}");
    }
    assert!(summary["alerts"].is_array(), "{summary}");
    assert_eq!((&summary["restarts"], &summary["doubts"]), (&json!([]), &json!([])));

    let series = summary["series"].as_array().unwrap();
    let mut sum = 0;
    for one in series {
        let held = one.as_object().unwrap();
        for field in [
            "slice", "stage", "arm", "recorded", "merged", "p50_ms", "p95_ms", "p99_ms",
            "p99_9_ms", "ratio", "verdict",
        ] {
            assert!(held.contains_key(field), "{field}: {one}");
        }
        assert_eq!(one["recorded"], one["merged"], "{one}");
        sum += one["recorded"].as_u64().unwrap();
    }
    assert_eq!(sum, recorded);
    for stage in ["stage_a", "stage_b", "stage_c", "e2e"] {
        let own = |one: &&Value| one["arm"] == "baseline" && one["stage"] == stage;
        assert!(series.iter().any(|one| own(&one)), "no {stage} of the baseline");
    }
    // Seconds suffice for no evidence; what is missing is told.
    assert_eq!(canary["outcome"], "held", "{canary}");
    assert!(canary["reason"].as_str().unwrap().contains("at the step of 5 %"), "{canary}");
    assert_eq!(canary["detected_after_s"], Value::Null, "nothing was made slower: {canary}");
}

/// Waits until the rollout has ended by itself.
fn until_decided(demo: &Demo) {
    let http = demo.http();
    let deadline = Instant::now() + DECIDED_MAX;
    loop {
        let answer = world::http::json(&http, "/canary/status").unwrap_or_default();
        let phase = answer["canary_deployment"]["phase"].as_str().unwrap_or_default().to_owned();
        if ["rolled_back", "complete"].contains(&phase.as_str()) {
            return;
        }
        assert!(Instant::now() < deadline, "undecided: {answer}");
        std::thread::sleep(Duration::from_millis(500));
    }
}

#[test]
fn a_demo_whose_canary_is_slower_rolls_it_back_and_says_by_which_evidence() {
    let slower = ["--regress", "stage_b=20@canary", "--rate", "100", "--kill", "aggregator@12s"];
    let mut demo = Demo::start_with("120s", &slower);
    demo.processes();
    until_decided(&demo);
    signal(demo.child.id(), Signal::INT);
    let (code, said) = demo.ended();
    assert_eq!(code, Some(0), "{said}");
    let summary = demo.summary();
    assert_eq!(summary["reconciled"], true, "{summary}");
    let canary = &summary["canary"];
    assert_eq!(canary["outcome"], "rolled_back", "{canary}");
    assert!(canary["reason"].as_str().unwrap().contains("ln E"), "{canary}");
    assert!(canary["samples"].as_u64() > Some(0), "{canary}");
    assert!(canary["detected_after_s"].as_f64() > Some(0.0), "{canary}");
    assert_eq!(summary["restarts"][0]["process"], "aggregator", "{summary}");
}

/// The number of the process that runs under this name now.
fn successor(demo: &Demo, name: &str) -> Option<u32> {
    let said = demo.said("stderr");
    let marker = format!("{name} was killed; started again as ");
    let line = said.lines().rev().find_map(|line| line.split_once(&marker))?;
    line.1.trim().parse().ok()
}

/// Starts a demo, kills some of its processes at once while queries run, and holds it to its end.
fn goes_on_after_the_death_of(victims: &[&str]) {
    let mut demo = Demo::start("14s");
    let mut processes = demo.processes();
    demo.until_measuring();
    for victim in victims {
        let (_, pid) = processes.iter().find(|(name, _)| name == victim).unwrap();
        signal(*pid, Signal::KILL);
    }
    for victim in victims {
        let pid = until("a successor", || successor(&demo, victim).ok_or(demo.said("stderr")));
        processes.push(((*victim).to_owned(), pid));
    }
    let (code, said) = demo.ended();
    assert_eq!(code, Some(0), "{said}\n{}", demo.said("stdout"));
    demo.assert_nothing_left(&processes);
    let summary = demo.summary();
    assert_eq!((&summary["reconciled"], &summary["doubts"]), (&json!(true), &json!([])));
    assert_eq!(summary["recorded_total"], summary["merged_total"], "{summary}");
    let restarts = summary["restarts"].as_array().unwrap();
    let mut names: Vec<&str> = restarts.iter().filter_map(|r| r["process"].as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, victims);
    for restart in restarts {
        assert!(restart["back_after_s"].as_f64() > Some(0.0), "{restart}");
        let node = restart["process"].as_str().unwrap().starts_with("node");
        assert_eq!(restart["on_the_way_max"].is_u64(), node, "{restart}");
        assert!(said.contains(&format!("{} is back", restart["process"].as_str().unwrap())));
    }
}

#[test]
fn a_demo_whose_node_is_killed_starts_it_again_and_reconciles() {
    goes_on_after_the_death_of(&["node-2"]);
}

#[test]
fn a_demo_whose_aggregator_and_agent_are_killed_together_starts_them_again_and_reconciles() {
    goes_on_after_the_death_of(&["agent-1", "aggregator"]);
}

#[test]
fn a_demo_kills_what_it_is_asked_to_and_reconciles() {
    let kills = ["--kill", "agent-2@2s", "--kill", "node-3@3s", "--kill", "aggregator@3s"];
    let mut demo = Demo::start_with("12s", &kills);
    let (code, said) = demo.ended();
    assert_eq!(code, Some(0), "{said}\n{}", demo.said("stdout"));
    let summary = demo.summary();
    assert_eq!(summary["reconciled"], true, "{summary}");
    let killed = |name: &str| {
        let restarts = summary["restarts"].as_array().unwrap();
        restarts.iter().find(|restart| restart["process"] == name).cloned().unwrap()
    };
    for (name, after_s) in [("agent-2", 2.0), ("node-3", 3.0), ("aggregator", 3.0)] {
        let restart = killed(name);
        assert!(restart["after_s"].as_f64() >= Some(after_s), "{restart}");
        assert!(said.contains(&format!("killing {name}, as asked")), "{said}");
    }
}

#[test]
fn a_kill_of_nobody_or_after_the_end_is_refused_before_anything_runs() {
    for (kill, told) in [("agent-9@1s", "name one of"), ("agent-1@10s", "queries end after")] {
        let mut demo = Demo::start_with("10s", &["--kill", kill]);
        let (code, said) = demo.ended();
        assert!(code == Some(2) && said.contains(told), "{code:?} {said}");
    }
}

#[test]
fn a_demo_whose_process_is_killed_again_and_again_names_it_and_leaves_nothing() {
    let mut demo = Demo::start("120s");
    let mut processes = demo.processes();
    demo.until_measuring();
    let mut pid = processes.iter().find(|(name, _)| name == "agent-1").unwrap().1;
    for _ in 0..2 {
        signal(pid, Signal::KILL);
        pid = until("a successor", || {
            let next = successor(&demo, "agent-1").filter(|next| *next != pid);
            next.ok_or(demo.said("stderr"))
        });
        processes.push(("agent-1".into(), pid));
    }
    signal(pid, Signal::KILL);
    let (code, said) = demo.ended();
    assert_eq!(code, Some(1), "{said}");
    let last = said.lines().find(|line| line.contains("stopped, because")).unwrap_or(&said);
    assert!(last.contains("agent-1") && last.contains("signal: 9"), "{said}");
    assert!(said.contains("killed 3 times within 10 s"), "{said}");
    assert_eq!(demo.said("stdout"), "", "there is nothing to sum up");
    demo.assert_nothing_left(&processes);
}

#[test]
fn a_demo_whose_process_ends_by_itself_is_stopped_with_its_name() {
    let mut demo = Demo::start("120s");
    let processes = demo.processes();
    demo.until_measuring();
    let (_, pid) = processes.iter().find(|(name, _)| name == "node-1").unwrap();
    signal(*pid, Signal::ABORT);
    let (code, said) = demo.ended();
    assert_eq!(code, Some(1), "{said}");
    let last = said.lines().find(|line| line.contains("stopped, because")).unwrap_or(&said);
    assert!(last.contains("node-1") && last.contains("signal: 6"), "{said}");
    assert_eq!(demo.said("stdout"), "", "there is nothing to sum up");
    demo.assert_nothing_left(&processes);
}

#[test]
fn an_interrupted_demo_ends_early_with_its_summary() {
    let mut demo = Demo::start("120s");
    let processes = demo.processes();
    demo.until_measuring();
    signal(demo.child.id(), Signal::INT);
    let (code, said) = demo.ended();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("ending early"), "{said}");
    let summary = demo.summary();
    assert_eq!(summary["reconciled"], true, "{summary}");
    assert!(summary["duration_s"].as_f64().unwrap() < 60.0, "{summary}");
    demo.assert_nothing_left(&processes);
}

#[test]
fn a_demo_that_is_killed_takes_its_processes_with_it() {
    let mut demo = Demo::start("120s");
    let processes = demo.processes();
    demo.child.kill().unwrap();
    demo.child.wait().unwrap();
    until("every process ended", || {
        let left: Vec<_> = processes.iter().filter(|(_, pid)| runs(*pid)).collect();
        holds(left.is_empty(), &left)
    });
    // Nobody was left to do it.
    let own = format!("/dev/shm/lens-demo-{}-segments", demo.child.id());
    fs::remove_dir_all(own).ok();
}
