//! HTTP servers that know nothing of lens, and what an independent client saw of them.
//!
//! The engines are Python's standard library, the client is curl.

use std::path::Path;
use std::process::Command;

use lens_model::{Arm, SeriesKey, Slice, Stage};

use super::peers::program;
use super::{Outcomes, Process, Tally, World, same, until};

/// The slice that everything asked for is of.
pub const SLICE: &str = "backend/rust/large";

/// An engine of this name, whose work takes this many times its usual time, and where it listens.
pub fn engine(name: &str, dir: &Path, slow: f64) -> Option<(Process, String)> {
    let mut command = Command::new(program("python3")?);
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/engine.py"))
        .arg(name)
        .arg(slow.to_string());
    let mut process = Process::start(name, dir, command);
    let at = process.ready()["http"].as_str().unwrap().to_owned();
    Some((process, at))
}

/// What one request of curl's came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saw {
    /// What was asked for.
    pub path: String,
    /// As whom.
    pub user: String,
    /// The status of the answer; 0 without one.
    pub status: u16,
    /// Which arm it came from.
    pub arm: String,
}

/// Asks for every path as its user, one after the other on kept connections.
pub fn curl(dir: &Path, proxy: &str, asked: &[(String, String)]) -> Vec<Saw> {
    let one = |(path, user): &(String, String)| {
        format!(
            "url = \"http://{proxy}{path}\"\nheader = \"x-user: {user}\"\noutput = /dev/null\n\
             write-out = \"%{{http_code}} %header{{x-lens-arm}}\\n\"\nmax-time = 20\nsilent\n"
        )
    };
    let script = dir.join(format!("curl-{:?}.conf", std::thread::current().id()));
    let each: Vec<String> = asked.iter().map(one).collect();
    std::fs::write(&script, each.join("next\n")).unwrap();
    let out = Command::new("/usr/bin/curl").arg("--config").arg(&script).output().unwrap();
    let said = String::from_utf8(out.stdout).unwrap();
    let saw = said.lines().zip(asked).map(|(line, (path, user))| {
        let (status, arm) = line.split_once(' ').unwrap_or((line, ""));
        let (path, user) = (path.clone(), user.clone());
        Saw { path, user, status: status.parse().unwrap_or(0), arm: arm.to_owned() }
    });
    let saw: Vec<_> = saw.collect();
    assert_eq!(saw.len(), asked.len(), "{said}{}", String::from_utf8_lossy(&out.stderr));
    saw
}

/// What curl saw, as the aggregator ought to have it.
pub fn expected(saw: &[Saw]) -> (Tally, Outcomes) {
    let slice: Slice = SLICE.parse().unwrap();
    let (mut samples, mut outcomes) = (Tally::new(), Outcomes::new());
    for saw in saw {
        let arm: Arm = saw.arm.parse().unwrap();
        let key = SeriesKey { slice: slice.clone(), stage: Stage::E2e, arm };
        let held = outcomes.entry((slice.clone(), arm)).or_default();
        let failed = saw.status >= 500 || saw.path == "/cut";
        *held = if failed { (held.0, held.1 + 1) } else { (held.0 + 1, held.1) };
        *samples.entry(key).or_default() += 1;
    }
    (samples, outcomes)
}

/// Waits until exactly this was merged, latencies and requests.
pub fn until_merged(world: &World, saw: &[Saw]) {
    let (samples, outcomes) = expected(saw);
    until("latencies", || {
        let merged = world.merged()?.into_iter().filter(|(_, count)| *count > 0).collect();
        same(merged, &samples)
    });
    until("requests", || {
        let merged = world.merged_requests()?.into_iter().filter(|(_, counts)| *counts != (0, 0));
        same(merged.collect(), &outcomes)
    });
}
