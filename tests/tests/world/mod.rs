//! A small world: one authority, one aggregator, agents, segment directories, all real processes.
//!
//! Every world owns a temporary directory and every process listens on loopback at a port the
//! system chose, so worlds run side by side. Nothing sleeps for a fixed time: [`until`] asks again
//! until a deadline. When a test fails, the logs of its processes are printed.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

pub mod engines;
pub mod http;
pub mod node;
pub mod peer;
pub mod peers;
pub mod process;
pub mod prometheus;
pub mod receiver;
pub mod spaces;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lens_model::{Arm, SeriesKey, Slice};
use lens_segment::{Node, Recorder};
use lens_service::certs::{self, CertFiles, Subject};
use lens_service::tls::IdentityFiles;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

pub use process::Process;
use spaces::Space;

/// Longest anything is waited for that ought to happen within seconds.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Pause between two looks.
pub const LOOK_AGAIN: Duration = Duration::from_millis(40);

/// Counts by series.
pub type Tally = BTreeMap<SeriesKey, u64>;

/// Requests by slice and arm: answered and failed.
pub type Outcomes = BTreeMap<(Slice, Arm), (u64, u64)>;

/// Asks until the answer is `Ok`, and panics with the last `Err` when the deadline passes.
pub fn until<T>(what: &str, ask: impl FnMut() -> Result<T, String>) -> T {
    until_within(PATIENCE, what, ask)
}

/// The same with another deadline, for what waits by design.
pub fn until_within<T>(
    patience: Duration,
    what: &str,
    mut ask: impl FnMut() -> Result<T, String>,
) -> T {
    let deadline = Instant::now() + patience;
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(error) if Instant::now() >= deadline => {
                panic!("{what}: not within {} s: {error}", patience.as_secs())
            }
            Err(_) => std::thread::sleep(LOOK_AGAIN),
        }
    }
}

/// `Ok` when the two are the same, otherwise both in a sentence.
pub fn same<T: PartialEq + std::fmt::Debug>(got: T, wanted: &T) -> Result<T, String> {
    if got == *wanted { Ok(got) } else { Err(format!("got {got:?}, wanted {wanted:?}")) }
}

/// `Ok` when it holds, otherwise the evidence.
pub fn holds(truth: bool, evidence: &impl std::fmt::Debug) -> Result<(), String> {
    if truth { Ok(()) } else { Err(format!("{evidence:?}")) }
}

/// The slice `backend/<language>/small`.
pub fn slice(language: &str) -> Slice {
    Slice::new("backend", language, "small").unwrap()
}

/// A generator of choices that a failed test can repeat.
pub fn choices(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

/// A latency between a tenth of and ten milliseconds, nanoseconds.
pub fn latency(rng: &mut StdRng) -> u64 {
    rng.random_range(100_000..10_000_000)
}

/// A recorder as a search node would have it.
pub fn recorder(dir: &Path, instance: &str) -> Recorder {
    Recorder::create(dir, Node { service: "lens", version: "1.4.2", instance }).unwrap()
}

/// Names and files of an identity.
pub fn identity(files: &CertFiles) -> IdentityFiles {
    IdentityFiles { cert: files.cert.clone(), key: files.key.clone(), ca: files.ca.clone() }
}

/// One authority's realm with an aggregator in it.
pub struct World {
    // Fields drop in order: processes end before their directory goes.
    aggregator: Option<Process>,
    quic: String,
    http: String,
    dir: tempfile::TempDir,
}

/// One running agent with a directory of segments of its own.
pub struct Agent {
    /// Its process.
    pub process: Process,
    /// Where its admin endpoints listen.
    pub admin: String,
    /// Where its proxy listens, if it has one.
    pub proxy: Option<String>,
    /// Where it looks for segments.
    pub segments: PathBuf,
}

impl World {
    /// An authority and nothing else.
    pub fn bare() -> Self {
        let dir = tempfile::tempdir().unwrap();
        certs::init(dir.path(), 2).unwrap();
        let server = Subject::Server(vec!["localhost".into(), "127.0.0.1".into()]);
        certs::issue(dir.path(), "server", &server, 2, false).unwrap();
        Self { aggregator: None, quic: "127.0.0.1:0".into(), http: String::new(), dir }
    }

    /// An authority and an aggregator with these settings.
    pub fn new(settings: &[(&str, &str)]) -> Self {
        let mut world = Self::bare();
        world.start_aggregator(settings);
        world
    }

    /// The directory of everything, certificates included.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Sets where agents are to connect before an aggregator runs.
    pub fn listen_on(&mut self, quic: &str) {
        self.quic = quic.to_owned();
    }

    /// The aggregator's own names and files.
    pub fn server_identity(&self) -> IdentityFiles {
        let file = |name: &str| self.dir().join(name);
        IdentityFiles { cert: file("server.pem"), key: file("server.key"), ca: file("ca.pem") }
    }

    /// Where agents connect.
    pub fn quic(&self) -> &str {
        &self.quic
    }

    /// Where the API listens.
    pub fn http(&self) -> &str {
        &self.http
    }

    /// The aggregator's process.
    pub fn aggregator(&mut self) -> &mut Process {
        self.aggregator.as_mut().expect("an aggregator runs")
    }

    /// Starts the aggregator, at the address agents know if it ran before.
    pub fn start_aggregator(&mut self, settings: &[(&str, &str)]) {
        let process = self.spawn_aggregator(settings);
        self.take_aggregator(process);
    }

    /// Starts the aggregator in a space.
    pub fn start_aggregator_in(&mut self, space: &Space) {
        let command = space.bring(&Process::command("aggregator", &self.aggregator_settings(&[])));
        self.take_aggregator(Process::start("aggregator", self.dir.path(), command));
    }

    fn take_aggregator(&mut self, mut process: Process) {
        let ready = process.ready();
        self.quic = ready["quic"].as_str().unwrap().to_owned();
        self.http = ready["http"].as_str().unwrap().to_owned();
        self.aggregator = Some(process);
    }

    /// Starts an aggregator and does not wait until it is ready.
    pub fn spawn_aggregator(&self, settings: &[(&str, &str)]) -> Process {
        let all = self.aggregator_settings(settings);
        Process::role("aggregator", "aggregator", self.dir.path(), &all)
    }

    fn aggregator_settings(&self, settings: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut all = self.identity_settings("server");
        all.push(("quic.listen".into(), self.quic.clone()));
        all.push(("http.listen".into(), "127.0.0.1:0".into()));
        all.push(("store.dir".into(), self.dir.path().join("store").display().to_string()));
        all.extend(settings.iter().map(|(key, value)| ((*key).into(), (*value).into())));
        all
    }

    /// Certificate, key and authority of a name, as settings.
    pub fn identity_settings(&self, name: &str) -> Vec<(String, String)> {
        let file = |name: String| self.dir.path().join(name).display().to_string();
        vec![
            ("identity.cert".into(), file(format!("{name}.pem"))),
            ("identity.key".into(), file(format!("{name}.key"))),
            ("identity.ca".into(), file("ca.pem".into())),
        ]
    }

    /// A certificate for an agent of this name.
    pub fn issue(&self, name: &str) -> CertFiles {
        let id = format!("spiffe://lens.test/agent/{name}").parse().unwrap();
        certs::issue(self.dir.path(), name, &Subject::Agent(id), 2, false).unwrap()
    }

    /// The settings of an agent of this name, harvesting ten times a second.
    pub fn agent_settings(&self, name: &str) -> Vec<(String, String)> {
        let mut all = self.identity_settings(name);
        all.extend([
            ("segments.dir".into(), self.segments(name).display().to_string()),
            ("spool.dir".into(), self.spool(name).display().to_string()),
            ("segments.scan_interval_ms".into(), "100".into()),
            ("harvest.interval_ms".into(), "100".into()),
            ("aggregator.endpoints".into(), self.quic.clone()),
            ("admin.listen".into(), "127.0.0.1:0".into()),
        ]);
        all
    }

    /// Issues a certificate to an agent and starts it with these settings beside the usual ones.
    pub fn agent(&self, name: &str, settings: &[(&str, &str)]) -> Agent {
        self.issue(name);
        self.start_agent(name, settings)
    }

    /// Starts an agent that has a certificate already.
    pub fn start_agent(&self, name: &str, settings: &[(&str, &str)]) -> Agent {
        self.take_agent(name, self.spawn_agent(name, settings))
    }

    /// Starts an agent that has a certificate already in a space.
    pub fn start_agent_in(&self, space: &Space, name: &str, settings: &[(&str, &str)]) -> Agent {
        let mut all = self.agent_settings(name);
        all.extend(settings.iter().map(|(key, value)| ((*key).into(), (*value).into())));
        let command = space.bring(&Process::command("agent", &all));
        self.take_agent(name, Process::start(name, self.dir.path(), command))
    }

    fn take_agent(&self, name: &str, mut process: Process) -> Agent {
        let ready = process.ready();
        let admin = ready["admin"].as_str().unwrap().to_owned();
        let proxy = ready["proxy"].as_str().map(str::to_owned);
        Agent { process, admin, proxy, segments: self.segments(name) }
    }

    /// Starts an agent that has a certificate already and does not wait until it is ready.
    pub fn spawn_agent(&self, name: &str, settings: &[(&str, &str)]) -> Process {
        let mut all = self.agent_settings(name);
        all.extend(settings.iter().map(|(key, value)| ((*key).into(), (*value).into())));
        Process::role(name, "agent", self.dir.path(), &all)
    }

    /// Where the agent of this name keeps its spool.
    pub fn spool(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}-spool"))
    }

    /// Where the agent of this name looks for segments.
    pub fn segments(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}-segments"))
    }

    /// The answer of the API to a question that it answers.
    pub fn api(&self, path: &str) -> Value {
        http::json(&self.http, path).unwrap()
    }

    /// Samples merged since the aggregator started, by series.
    pub fn merged(&self) -> Result<Tally, String> {
        let answer = http::json(&self.http, "/api/v1/slices")?;
        let mut tally = Tally::new();
        for slice in answer["slices"].as_array().ok_or("no slices")? {
            for series in slice["series"].as_array().ok_or("no series")? {
                let key = serde_json::json!({
                    "slice": slice["slice"], "stage": series["stage"], "arm": series["arm"],
                });
                let key = serde_json::from_value(key).map_err(|error| error.to_string())?;
                tally.insert(key, series["merged_total"].as_u64().ok_or("no merged_total")?);
            }
        }
        Ok(tally)
    }

    /// Requests merged since the aggregator started.
    pub fn merged_requests(&self) -> Result<Outcomes, String> {
        let answer = http::json(&self.http, "/api/v1/slices")?;
        let mut tally = Outcomes::new();
        for slice in answer["slices"].as_array().ok_or("no slices")? {
            let name: Slice = slice["slice"].as_str().unwrap_or_default().parse().unwrap();
            for requests in slice["requests"].as_array().ok_or("no requests")? {
                let arm: Arm = requests["arm"].as_str().unwrap_or_default().parse().unwrap();
                let count = |key: &str| requests[key].as_u64().unwrap_or(u64::MAX);
                tally.insert((name.clone(), arm), (count("ok_total"), count("error_total")));
            }
        }
        Ok(tally)
    }

    /// Waits until exactly this was merged.
    pub fn until_merged(&self, recorded: &Tally) {
        until("merged is what was recorded", || same(self.merged()?, recorded));
    }

    /// The agent as the aggregator sees it; `Null` for one it never saw.
    pub fn seen(&self, agent: &str) -> Result<Value, String> {
        let answer = http::json(&self.http, "/api/v1/agents")?;
        let agents = answer["agents"].as_array().ok_or("no agents")?;
        let found = agents.iter().find(|held| held["name"] == agent);
        Ok(found.cloned().unwrap_or(Value::Null))
    }
}

impl Agent {
    /// What it says of itself.
    pub fn status(&self) -> Result<Value, String> {
        http::json(&self.admin, "/status")
    }

    /// Waits until a session with the aggregator stands, or does not.
    pub fn until_connected(&self, connected: bool) {
        until("the agent's connection", || {
            let status = self.status()?;
            holds(status["connection"]["connected"] == connected, &status["connection"])
        });
    }

    /// Waits until everything it harvested is acknowledged.
    pub fn until_acknowledged(&self) {
        until("everything acknowledged", || {
            let spool = &self.status()?["spool"];
            holds(spool["frames"] == 0, spool)
        });
    }

    /// Segments in its directory.
    pub fn segment_files(&self) -> Vec<PathBuf> {
        lens_segment::scan(&self.segments).unwrap().paths
    }
}
