//! One line of JSON a run in `benches/history/<bench>.jsonl`: what, when, on which machine.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use lens_service::time::{rfc3339, unix_now};
use serde::Serialize;

/// One result.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: &'static str,
    /// What it was measured beside.
    pub peer: Option<&'static str>,
    /// Ours to the peer's: smaller is better.
    pub ratio: Option<f64>,
    /// What it is held to.
    pub target: Option<String>,
    /// Whether it is so.
    pub met: Option<bool>,
}

#[derive(Serialize)]
struct Line<'a> {
    date: String,
    commit: String,
    dirty: bool,
    quick: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'a str>,
    machine: Machine,
    results: &'a [Row],
}

#[derive(Serialize)]
struct Machine {
    cpu: String,
    cores: usize,
    kernel: String,
    rustc: String,
    /// Load average of the last minute: how noisy the neighbours were.
    load: String,
}

/// Appends a run, with what must be known to read it, and gives the file's place in the repository.
///
/// # Errors
/// What the system said.
pub fn append(
    bench: &str,
    quick: bool,
    note: Option<&str>,
    results: &[Row],
) -> std::io::Result<String> {
    let status = said("git", &["status", "--porcelain"]);
    let line = Line {
        date: rfc3339(unix_now()),
        commit: said("git", &["rev-parse", "HEAD"]).unwrap_or_else(|| "unknown".into()),
        dirty: status.is_none_or(|changes| !changes.is_empty()),
        quick,
        note,
        machine: machine(),
        results,
    };
    let relative = format!("benches/history/{bench}.jsonl");
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = here.join("history").join(format!("{bench}.jsonl"));
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let mut text = serde_json::to_string(&line)?;
    text.push('\n');
    file.write_all(text.as_bytes())?;
    Ok(relative)
}

fn machine() -> Machine {
    let line = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = line("/proc/cpuinfo");
    let model = cpuinfo.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split_once(':')).map(|(_, model)| model.trim());
    Machine {
        cpu: model.unwrap_or("unknown").to_owned(),
        // Not what this thread may use, which is one processor once it is pinned.
        cores: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
        kernel: line("/proc/sys/kernel/osrelease").trim().to_owned(),
        rustc: said("rustc", &["--version"]).unwrap_or_else(|| "unknown".into()),
        load: line("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
    }
}

/// What a program answers, if it does.
fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let directory = env!("CARGO_MANIFEST_DIR");
    let output = Command::new(program).args(arguments).current_dir(directory).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
