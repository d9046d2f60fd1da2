//! A recording process, the truth about it, and what it says of itself.
//!
//! The truth is what its memory holds after its death: a second reader has had the segment open
//! since before the first record. What the process said ([`lens_tests::oracle`]) is the check of
//! that truth, and neither comes by way of the agent.

use std::path::{Path, PathBuf};
use std::process::Command;

use lens_model::{Arm, Nanos};
use lens_segment::{Harvest, ReadPolicy, SegmentReader};
use lens_tests::{oracle, recording};

use super::{Outcomes, Process, Tally};

/// Longer than any of them lives.
const LIFE_MAX: Nanos = Nanos::from_secs(366 * 24 * 3600);

/// One life of a recording process.
pub struct RecordingNode {
    /// The process.
    pub process: Process,
    memory: SegmentReader,
    oracle: PathBuf,
}

/// What a life recorded.
#[derive(Default)]
pub struct Recorded {
    /// Samples by series.
    pub samples: Tally,
    /// Requests by slice and arm.
    pub requests: Outcomes,
    /// Records in flight at its death: at most.
    pub in_flight_max: u64,
    /// Of those, made.
    pub in_flight_made: u64,
}

impl Recorded {
    /// Adds what another life recorded.
    pub fn add(&mut self, other: Self) {
        for (key, count) in other.samples {
            *self.samples.entry(key).or_default() += count;
        }
        for (key, (ok, error)) in other.requests {
            let held = self.requests.entry(key).or_default();
            *held = (held.0 + ok, held.1 + error);
        }
        self.in_flight_max += other.in_flight_max;
        self.in_flight_made += other.in_flight_made;
    }

    /// Samples of all series.
    pub fn total(&self) -> u64 {
        self.samples.values().sum()
    }
}

/// The command that runs one: the one built with a test, or this very command in that role.
fn command() -> Command {
    match option_env!("CARGO_BIN_EXE_recording_child") {
        Some(path) => Command::new(path),
        None => {
            let mut own = Command::new(std::env::current_exe().unwrap());
            own.arg("record");
            own
        }
    }
}

/// Starts the process; its ready line is to come.
pub fn start(instance: &str, segments: &Path, oracle: &Path, logs: &Path) -> Process {
    let mut command = command();
    command.arg(segments).arg(oracle).arg(instance);
    Process::start(instance, logs, command)
}

impl RecordingNode {
    /// Starts one in a directory of segments; it records from now on.
    pub fn new(instance: &str, segments: &Path, logs: &Path, life: usize) -> Self {
        let oracle = logs.join(format!("{instance}-{life}.oracle"));
        let mut process = start(instance, segments, &oracle, logs);
        let ready = process.ready();
        let path = Path::new(ready["segment"].as_str().unwrap()).to_owned();
        let memory = SegmentReader::open(&path, &ReadPolicy::default()).unwrap();
        process.tell("go");
        Self { process, memory, oracle }
    }

    /// Where its segment is, or was.
    pub fn segment(&self) -> &Path {
        self.memory.path()
    }

    /// Kills it and gives what it recorded, which must lie within what it said.
    pub fn kill(mut self) -> Recorded {
        self.process.kill();
        let mut harvest = Harvest::default();
        self.memory.harvest(LIFE_MAX, &mut harvest).unwrap();
        let samples: Tally = harvest
            .series
            .iter()
            .map(|series| ((*series.key).clone(), series.counts.total()))
            .collect();
        let requests: Outcomes = harvest
            .requests
            .iter()
            .map(|one| ((one.slice.clone(), one.arm), (one.ok, one.error)))
            .collect();
        let mut recorded = Recorded { samples, requests, ..Recorded::default() };
        recorded.check(&self.oracle);
        std::fs::remove_file(&self.oracle).unwrap();
        recorded
    }
}

impl Recorded {
    /// Holds memory against the oracle: done ≤ recorded ≤ begun, counter by counter.
    fn check(&mut self, oracle: &Path) {
        let bounds = oracle::read(oracle, recording::THREADS, recording::COUNTERS).unwrap();
        let keys = recording::keys();
        let requests = self.requests.get(&(keys[0].slice.clone(), Arm::Baseline)).copied();
        let (ok, error) = requests.unwrap_or_default();
        let samples = keys.iter().map(|key| self.samples.get(key).copied().unwrap_or(0));
        for (counter, (recorded, bounds)) in samples.chain([ok, error]).zip(bounds).enumerate() {
            assert!(bounds.allow(recorded), "counter {counter}: {recorded} within {bounds:?}");
            self.in_flight_max += bounds.begun - bounds.done;
            self.in_flight_made += recorded - bounds.done;
        }
    }
}
