//! Many agents on one aggregator for long: does its memory stay where it is, and is nobody refused.
//!
//! Every agent ships all of its series once a second, as `lens-load agents` does, to an aggregator
//! process with its durable store, over loopback. Its resident memory is read once a second.
//! A delta's latency runs from the time it was meant to be sent to its durable acknowledgement.
#![allow(dead_code, unreachable_pub, reason = "each user needs a part of it")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lens_benches::history::Row;
use lens_benches::load::agents::{AgentsLoad, AgentsReport, Identities, run};
use lens_benches::load::{Arrival, Distribution};

use super::world::{Tally, World};

/// Part of the time that is warm-up at least: names are new, caches fill.
const WARM_UP_SHARE: f64 = 0.2;

/// Warm-up, seconds, in a run that is long enough: until the slots that memory holds, six minutes by
/// default, are all there and half of them were let go, so that new ones find room that is free.
const WARM_UP_SECS: f64 = 540.0;

/// Part of the time that is warm-up at most.
const WARM_UP_SHARE_MAX: f64 = 0.65;

/// Growth from then on that counts as flat, of what there was: a shared machine is never still.
const GROWTH_MAX: f64 = 0.05;

/// How much and how long.
#[derive(Clone, Copy, Debug)]
pub struct Orders {
    /// Agents.
    pub agents: usize,
    /// Series of each.
    pub series: usize,
    /// Samples of each series in a delta.
    pub samples: usize,
    /// How long.
    pub time: Duration,
    /// Where all choices come from.
    pub seed: u64,
}

/// One look at the aggregator.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Since the start.
    pub after: Duration,
    /// Resident memory, bytes.
    pub resident: u64,
}

/// What a soak came to.
pub struct Soak {
    /// What was sent, and what became of it.
    pub report: AgentsReport,
    /// The looks, one a second.
    pub looks: Vec<Look>,
    /// Processor time the aggregator took, seconds.
    pub processor_s: f64,
    /// Bytes of its store on disk.
    pub disk: u64,
    /// Whether what was sent is what was merged, series by series.
    pub exact: bool,
}

impl Orders {
    fn load(&self, world: &World) -> AgentsLoad {
        AgentsLoad {
            agents: self.agents,
            endpoint: world.quic().into(),
            server_name: None,
            identities: Identities::Issue { dir: world.dir().into(), prefix: "soak".into() },
            rate_batches: 1.0,
            // All at once, as harvests on whole seconds are.
            arrival: Arrival::Constant,
            series: self.series,
            samples: self.samples,
            duration: self.time,
            distribution: "lognormal:median=5ms,sigma=0.7".parse::<Distribution>().unwrap(),
            seed: self.seed,
        }
    }
}

/// Runs it.
pub async fn soak(orders: Orders) -> Soak {
    // All of them come from one address here.
    let mut world = World::new(&[("quic.connections_per_address_max", "1024")]);
    let pid = world.aggregator().pid();
    let stop = Arc::new(AtomicBool::new(false));
    let looking = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || look(pid, &stop)
    });
    let report = run(orders.load(&world), std::future::pending()).await.unwrap();
    stop.store(true, Ordering::Relaxed);
    let looks = looking.join().unwrap();
    let sent: Tally = report.series.iter().map(|one| (one.key.clone(), one.sent)).collect();
    let exact = report.is_complete() && world.merged().unwrap() == sent;
    let (processor_s, disk) = (processor(pid), bytes_of(&world.dir().join("store")));
    world.aggregator().terminate();
    Soak { report, looks, processor_s, disk, exact }
}

/// Looks once a second until told to stop.
fn look(pid: u32, stop: &AtomicBool) -> Vec<Look> {
    let (start, mut looks) = (Instant::now(), Vec::new());
    while !stop.load(Ordering::Relaxed) {
        looks.push(Look { after: start.elapsed(), resident: resident(pid) });
        let next = start + Duration::from_secs(looks.len() as u64);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    looks
}

/// Resident memory of a process, bytes.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kib << 10
}

/// Processor time of a process so far, seconds.
fn processor(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    let mut fields = rest.split(' ').skip(11).map(|field| field.parse::<f64>().unwrap());
    let ticks = fields.next().unwrap() + fields.next().unwrap();
    ticks / rustix::param::clock_ticks_per_second() as f64
}

/// Bytes that the files of a directory occupy.
fn bytes_of(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let bytes = entries.map(|entry| {
        let found = entry.metadata().unwrap();
        if found.is_dir() { bytes_of(&entry.path()) } else { found.blocks() * 512 }
    });
    bytes.sum()
}

fn mib(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}

fn median(mut values: Vec<u64>) -> f64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0) as f64
}

impl Soak {
    /// Resident memory, bytes: right after warm-up and at the end, each the median of a tenth of
    /// the time.
    fn memory(&self) -> (f64, f64) {
        let whole = self.looks.last().map_or(0.0, |look| look.after.as_secs_f64());
        let within = |from: f64| {
            let share = |look: &&Look| look.after.as_secs_f64() / whole.max(1e-9);
            let chosen =
                self.looks.iter().filter(|look| (from..=from + 0.1).contains(&share(look)));
            median(chosen.map(|look| look.resident).collect())
        };
        let warm_up = (WARM_UP_SECS / whole.max(1e-9)).clamp(WARM_UP_SHARE, WARM_UP_SHARE_MAX);
        (within(warm_up), within(0.9))
    }

    /// Agents that were refused or lost, and deltas that were never acknowledged.
    pub fn refusals(&self) -> u64 {
        let report = &self.report;
        let lost = report.failures.values().sum::<usize>() as u64;
        lost + report.batches_offered - report.batches_acknowledged
    }

    /// The results, as the history keeps them.
    pub fn rows(&self) -> Vec<Row> {
        let report = &self.report;
        let (warm, end) = self.memory();
        let growth = (end - warm) / warm.max(1.0);
        let most = self.looks.iter().map(|look| look.resident).max().unwrap_or(0);
        let latency = |value: Option<f64>| value.unwrap_or(f64::NAN);
        let delta = report.from_intended;
        let refusals = self.refusals() as f64;
        let unequal = f64::from(u8::from(!self.exact));
        vec![
            plain("agents connected", report.connected as f64, "agents"),
            plain("deltas acknowledged", report.batches_acknowledged as f64, "deltas"),
            plain("samples merged", report.samples_acknowledged as f64, "samples"),
            limited("refused, lost or unacknowledged", refusals, "deltas", 0.0),
            limited("sent and merged differ", unequal, "yes=1", 0.0),
            plain("delta latency to durable, p50", latency(delta.p50_ms), "ms"),
            plain("delta latency to durable, p95", latency(delta.p95_ms), "ms"),
            plain("delta latency to durable, p99", latency(delta.p99_ms), "ms"),
            plain("delta latency to durable, most", latency(delta.max_ms), "ms"),
            plain("resident memory after warm-up", mib(warm), "MiB"),
            plain("resident memory at the end", mib(end), "MiB"),
            plain("resident memory, most", mib(most as f64), "MiB"),
            limited("growth after warm-up", growth * 100.0, "%", GROWTH_MAX * 100.0),
            plain("store on disk", mib(self.disk as f64), "MiB"),
            plain("processor time a second", self.processor_s / report.elapsed_s, "s"),
        ]
    }
}

fn plain(name: &str, value: f64, unit: &'static str) -> Row {
    let name = name.into();
    Row { name, value, unit, peer: None, ratio: None, target: None, met: None }
}

fn limited(name: &str, value: f64, unit: &'static str, limit: f64) -> Row {
    let target = Some(format!("<= {limit} {unit}"));
    Row { target, met: Some(value <= limit), ..plain(name, value, unit) }
}
