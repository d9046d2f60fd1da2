//! Search nodes: real recorders on real segment files, and the oracle of what they recorded.

use std::path::Path;

use lens_model::{Arm, SeriesKey, Slice, Stage, UnixNanos};
use lens_segment::{Node as Name, Origin, Recorder, RecorderOptions, Requests, Series};

use super::oracle::Sums;
use super::random::Chance;

/// Slices recorded into.
const SLICES: [(&str, &str, &str); 3] =
    [("backend", "rust", "large"), ("backend", "go", "small"), ("docs", "markdown", "small")];

/// Most records of one node in one tick.
const BURST_MAX: u64 = 12;

/// A search node, across its processes.
#[derive(Debug)]
pub struct SearchNode {
    /// The agent of its host.
    pub agent: String,
    name: String,
    chance: Chance,
    processes: u32,
    process: Option<Process>,
    /// When another process is started, virtual nanoseconds.
    pub start_at: Option<u64>,
}

struct Process {
    recorder: Recorder,
    series: Vec<Series>,
    requests: Vec<((Slice, Arm), Requests)>,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process").field("path", &self.recorder.path()).finish_non_exhaustive()
    }
}

fn slice(of: (&str, &str, &str)) -> Slice {
    Slice::new(of.0, of.1, of.2).expect("the slices above have good names")
}

impl SearchNode {
    /// A node without a process yet.
    pub fn new(agent: String, name: String, chance: Chance) -> Self {
        Self { agent, name, chance, processes: 0, process: None, start_at: Some(0) }
    }

    /// Starts a process with a segment of its own.
    ///
    /// # Errors
    /// The segment cannot be made, as the text says.
    pub fn start(&mut self, dir: &Path, created: UnixNanos) -> Result<(), String> {
        self.start_at = None;
        self.processes += 1;
        let mut incarnation = [0; 16];
        self.chance.fill(&mut incarnation);
        let origin = Origin {
            incarnation: u128::from_le_bytes(incarnation),
            pid: 1_000 + self.processes,
            start_ticks: u64::from(self.processes),
            boot_id: 1,
            created,
        };
        let name = Name { service: "lens", version: "1", instance: &self.name };
        // One shard, the shared one: which shard a thread has differs from run to run.
        let options = RecorderOptions { shards: 1, series_max: 16, arm: Arm::Baseline };
        let recorder =
            Recorder::create_from(dir, name, options, origin).map_err(|error| error.to_string())?;
        let mut process = Process { recorder, series: Vec::new(), requests: Vec::new() };
        for (at, of) in SLICES.into_iter().enumerate() {
            let arm = Arm::ALL[at % 2];
            let requests = process.recorder.requests_for(slice(of), arm);
            process.requests.push(((slice(of), arm), requests.map_err(|e| e.to_string())?));
            for stage in [Stage::A, Stage::B] {
                let series = process.recorder.series_in_arm(slice(of), stage, arm);
                process.series.push(series.map_err(|e| e.to_string())?);
            }
        }
        self.process = Some(process);
        Ok(())
    }

    /// Kills the process; its segment stays.
    pub fn kill(&mut self) {
        if let Some(Process { recorder, series, requests }) = self.process.take() {
            drop((series, requests));
            recorder.kill();
        }
    }

    /// Records for one tick, into the segment and into the oracle.
    pub fn record(&mut self, oracle: &mut Sums) {
        let Some(process) = &self.process else { return };
        if !self.chance.happens(200) {
            return;
        }
        for _ in 0..self.chance.between(1, BURST_MAX) {
            let series = self.chance.pick(&process.series);
            let nanos = 1_000_u64 << self.chance.below(18);
            let nanos = nanos + self.chance.below(nanos);
            series.record(nanos);
            let who = (self.agent.clone(), self.name.clone(), SeriesKey::clone(series.key()));
            oracle.series.entry(who).or_default().record(nanos);
            let (key, requests) = self.chance.pick(&process.requests);
            let made = oracle.requests.entry(key.clone()).or_default();
            if self.chance.happens(50) {
                requests.error();
                made.1 += 1;
            } else {
                requests.ok();
                made.0 += 1;
            }
        }
    }
}

impl Drop for SearchNode {
    fn drop(&mut self) {
        self.kill();
    }
}
