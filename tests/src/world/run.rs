//! Living a plan from beginning to end, and the verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use lens_model::UnixNanos;
use lens_service::planted::PlantedSet;
use tempfile::TempDir;

use super::certificates::{Certificates, SERVER};
use super::host::{Host, Shared};
use super::network::{HostId, Network, Traffic, Weather};
use super::nodes::SearchNode;
use super::oracle::{Differences, Sums};
use super::panics;
use super::plan::{AGENTS_MAX, AGGREGATOR, Fault, Plan, Replacement, What};
use super::programs::{self, Probe};
use super::random::Chance;
use super::rogue::{Attempts, rogue};
use super::trace::Trace;
use super::{SECOND, TICK_NANOS};

/// Longest a world may take to agree after everything was healed.
const AGREE_NANOS_MAX: u64 = 120 * SECOND;

/// How long what is equal must stay equal.
const STILL_NANOS: u64 = 3 * SECOND;

/// What became of a world.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was wrong at the end, a sentence each; none when all was well.
    pub wrong: Vec<String>,
    /// Hash of every datagram and every disk change.
    pub trace: String,
    /// Events in it.
    pub events: u64,
    /// Samples recorded.
    pub samples: u64,
    /// What became of the datagrams.
    pub traffic: Traffic,
    /// Faults that struck, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Starts of programs beyond the first of each host.
    pub restarts: u64,
    /// Virtual time it took to agree after healing, nanoseconds.
    pub converged_nanos: u64,
    /// Virtual time in all, nanoseconds.
    pub lasted_nanos: u64,
    /// Programs that ended though nobody had asked them to.
    pub ended_by_itself: u64,
    /// Claims of the rogue that reached the aggregator.
    pub claims: u64,
}

/// How a world is run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Mistakes switched on.
    pub planted: PlantedSet,
    /// Where events are noted.
    pub trace: Trace,
}

impl Options {
    /// The same, with nothing noted yet.
    pub fn afresh(&self) -> Self {
        Self { planted: self.planted, trace: Trace::default() }
    }
}

struct World {
    plan: Plan,
    now: u64,
    hosts: Vec<Host>,
    /// What the hosts' clocks said at the beginning.
    first_walls: Vec<UnixNanos>,
    nodes: Vec<SearchNode>,
    segments: Vec<PathBuf>,
    shared: Shared,
    oracle: Sums,
    probe: Probe,
    /// Agents whose spool was damaged.
    flipped: BTreeSet<HostId>,
    /// Nodes record.
    recording: bool,
    /// Faults of the plan strike.
    faulty: bool,
    claims: Attempts,
    /// Ends of faults that last, by time.
    ends: Vec<(u64, What)>,
    faults: BTreeMap<&'static str, u64>,
    _dir: TempDir,
}

/// The name of the agent of a host.
pub fn agent_name(host: HostId) -> String {
    format!("agent-{host}")
}

thread_local! {
    static CERTIFICATES: Certificates = {
        let names: Vec<String> = (1..=AGENTS_MAX + 1).map(agent_name).collect();
        Certificates::make(&names).expect("a directory for certificates")
    };
}

/// Lives a plan.
///
/// # Errors
/// The machine the simulation itself runs on refused something, as the text says.
pub fn run(plan: &Plan, options: &Options) -> Result<Outcome, String> {
    panics::watch();
    let outcome = World::new(plan, options).and_then(World::live);
    let panics = panics::caught();
    let mut outcome = outcome?;
    outcome.wrong.extend(panics);
    Ok(outcome)
}

impl World {
    fn new(plan: &Plan, options: &Options) -> Result<Self, String> {
        let failed = |error: std::io::Error| error.to_string();
        let chance = Chance::new(plan.seed);
        // In memory where there is such a place: segments are mapped files.
        let shm = std::path::Path::new("/dev/shm");
        let dir = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() };
        let dir = dir.map_err(failed)?;
        let trace = options.trace.clone();
        let shared = Shared {
            network: Network::new(plan.agents + 2, &chance, trace.clone()),
            trace,
            stalls_per_mille: plan.stalls_per_mille,
            planted: options.planted,
        };
        let (probe, claims) = (Probe::default(), Attempts::default());
        let (mut hosts, mut segments) = (Vec::new(), vec![dir.path().to_owned()]);
        CERTIFICATES.with(|certificates| {
            let adverse = plan.adverse_log.then(|| chance.fork("log").next());
            let aggregator = programs::aggregator(&certificates.of(SERVER), &probe, adverse)?;
            hosts.push(Host::new(AGGREGATOR, &chance, shared.clone(), Box::new(aggregator)));
            for id in 1..=plan.agents {
                segments.push(dir.path().join(agent_name(id)));
                let identity = certificates.of(&agent_name(id));
                let agent = programs::agent(&identity, &segments[id], plan.spool_bytes)?;
                hosts.push(Host::new(id, &chance, shared.clone(), Box::new(agent)));
            }
            let (id, chance) = (plan.agents + 1, &chance);
            let identity = certificates.of(&agent_name(id));
            let rogue = rogue(identity, plan.agents, chance.fork("rogue"), &claims);
            hosts.push(Host::new(id, chance, shared.clone(), Box::new(rogue)));
            Ok::<_, String>(())
        })?;
        let node = |(at, host): (usize, &HostId)| {
            let name = format!("node-{at}");
            SearchNode::new(agent_name(*host), name.clone(), chance.fork(&name))
        };
        Ok(Self {
            nodes: plan.nodes.iter().enumerate().map(node).collect(),
            plan: plan.clone(),
            now: 0,
            first_walls: hosts.iter().map(|host| host.skew.wall(0)).collect(),
            hosts,
            segments,
            shared,
            oracle: Sums::default(),
            probe,
            flipped: BTreeSet::new(),
            recording: true,
            faulty: true,
            claims,
            ends: Vec::new(),
            faults: BTreeMap::new(),
            _dir: dir,
        })
    }

    /// Lets time pass until `end`, with everything the plan has until then.
    fn until(&mut self, end: u64) -> Result<(), String> {
        while self.now < end {
            self.tick()?;
        }
        Ok(())
    }

    fn tick(&mut self) -> Result<(), String> {
        let until = self.now + TICK_NANOS;
        if self.faulty {
            while let Some(fault) = self.plan.faults.first().copied()
                && fault.at < until
            {
                self.plan.faults.remove(0);
                self.strike(&fault);
            }
            let (over, last): (Vec<_>, Vec<_>) = self.ends.drain(..).partition(|end| end.0 < until);
            self.ends = last;
            over.into_iter().for_each(|(_, what)| self.mend(what));
        }
        for (node, host) in self.nodes.iter_mut().zip(&self.plan.nodes) {
            if node.start_at.is_some_and(|at| at <= self.now) {
                node.start(&self.segments[*host], self.hosts[*host].skew.wall(self.now))?;
            }
            if self.recording {
                node.record(&mut self.oracle);
            }
        }
        for host in &mut self.hosts {
            host.turn(self.now, until).map_err(|error| error.to_string())?;
        }
        self.now = until;
        Ok(())
    }

    fn strike(&mut self, fault: &Fault) {
        *self.faults.entry(fault.what.kind()).or_default() += 1;
        let now = self.now;
        match fault.what {
            What::Weather { from, to, weather, lasts } => {
                self.shared.network.set_weather(from, to, weather);
                self.ends.push((now + lasts, fault.what));
            }
            What::Partition { from, to, both, lasts } => {
                self.shared.network.set_cut(from, to, true);
                if both {
                    self.shared.network.set_cut(to, from, true);
                }
                self.ends.push((now + lasts, fault.what));
            }
            What::Crash { host, polls, power, down } => {
                self.hosts[host].crash(now, polls, power, down);
            }
            What::Strike { host, operations, power, down } => {
                self.hosts[host].strike(operations, power, down);
            }
            What::Stop { host, down } => self.hosts[host].stop(now, down),
            What::CrashNode { node, down } => {
                self.nodes[node].kill();
                self.nodes[node].start_at = Some(now + down);
            }
            What::DiskFull { host, lasts } => {
                let disk = &self.hosts[host].disk;
                disk.set_capacity(disk.used());
                self.ends.push((now + lasts, fault.what));
            }
            What::SyncFails { host, nth } => self.hosts[host].disk.fail_sync(nth),
            What::FlipsBit { host, file, bit, down } => {
                self.hosts[host].crash(now, 0, false, down);
                if self.hosts[host].flip_bit(file, bit) {
                    self.flipped.insert(host);
                }
            }
            What::ClockJumps { host, by_secs } => {
                self.hosts[host].skew.jump(by_secs * 1_000_000_000);
            }
        }
    }

    fn mend(&mut self, what: What) {
        match what {
            What::Weather { from, to, .. } => {
                self.shared.network.set_weather(from, to, Weather::default());
            }
            What::Partition { from, to, both, .. } => {
                self.shared.network.set_cut(from, to, false);
                if both {
                    self.shared.network.set_cut(to, from, false);
                }
            }
            What::DiskFull { host, .. } => self.hosts[host].disk.set_capacity(u64::MAX),
            _ => {}
        }
    }

    fn live(mut self) -> Result<Outcome, String> {
        self.until(self.plan.heal_at)?;
        self.heal();
        let (mut wrong, took) = self.agree()?;
        if wrong.is_empty() {
            wrong = self.stay_equal()?;
        }
        if wrong.is_empty()
            && let Some(replacement) = self.plan.replaced
        {
            wrong = self.replace(replacement)?;
        }
        Ok(self.outcome(wrong, took))
    }

    /// Nothing is wrong any more, and nothing more is recorded.
    fn heal(&mut self) {
        (self.recording, self.faulty) = (false, false);
        self.ends.clear();
        self.shared.network.heal();
        for host in &mut self.hosts {
            host.disk.set_capacity(u64::MAX);
            host.spare();
        }
    }

    fn differences(&self) -> Differences {
        match programs::answers(&self.probe) {
            Some(merged) => self.oracle.differences(&merged, &self.damaged()),
            None => Differences::unanswered(),
        }
    }

    /// Agents of which less than was recorded may be merged: their spool was damaged.
    fn damaged(&self) -> BTreeSet<String> {
        self.flipped.iter().map(|host| agent_name(*host)).collect()
    }

    /// Waits until everything runs and what was recorded is what was merged; what is still wrong, and
    /// how long it took.
    fn agree(&mut self) -> Result<(Vec<String>, u64), String> {
        let from = self.now;
        loop {
            self.until(self.now + SECOND / 2)?;
            let mut wrong = self.differences();
            // An aggregator that is about to end may answer, and agree where less is allowed.
            let down = self.hosts.iter().filter(|host| !host.is_up());
            wrong.told.extend(down.map(|host| format!("host {} does not run", host.id)));
            // Nothing more is recorded: what is too much already stays so.
            let late = wrong.too_much || self.now - from >= AGREE_NANOS_MAX;
            if wrong.told.is_empty() || late {
                return Ok((wrong.told, self.now - from));
            }
        }
    }

    /// Holds that nothing changes any more, not even when the aggregator starts anew from its disk.
    fn stay_equal(&mut self) -> Result<Vec<String>, String> {
        self.until(self.now + STILL_NANOS)?;
        let wrong = self.differences();
        if !wrong.told.is_empty() {
            return Ok(wrong.told);
        }
        let now = self.now;
        self.hosts[AGGREGATOR].crash(now, 0, true, SECOND / 10);
        let (wrong, _) = self.agree()?;
        self.until(self.now + STILL_NANOS)?;
        Ok(if wrong.is_empty() { self.differences().told } else { wrong })
    }

    /// A host is replaced: drained and stopped, then started with an empty disk and fresh nodes.
    fn replace(&mut self, replacement: Replacement) -> Result<Vec<String>, String> {
        let Replacement { host, cut_off, clock_begins_again } = replacement;
        let of_host: Vec<usize> =
            (0..self.nodes.len()).filter(|at| self.plan.nodes[*at] == host).collect();
        of_host.iter().for_each(|node| self.nodes[*node].kill());
        // The agent reads what dead nodes left and removes it.
        self.until(self.now + 5 * SECOND)?;
        let now = self.now;
        self.hosts[host].stop(now, 30 * SECOND);
        self.until(self.now + 15 * SECOND)?;
        self.hosts[host].replace_disk();
        std::fs::remove_dir_all(&self.segments[host]).map_err(|error| error.to_string())?;
        if clock_begins_again {
            let skew = &self.hosts[host].skew;
            skew.jump(self.first_walls[host].0.cast_signed() - skew.wall(self.now).0.cast_signed());
        }
        self.hosts[host].start_at = Some(self.now);
        of_host.iter().for_each(|node| self.nodes[*node].start_at = Some(now));
        for (from, to) in [(AGGREGATOR, host), (host, AGGREGATOR)] {
            self.shared.network.set_cut(from, to, cut_off > 0);
        }
        self.recording = true;
        self.until(self.now + cut_off + 3 * SECOND)?;
        self.recording = false;
        self.shared.network.heal();
        Ok(self.agree()?.0)
    }

    fn outcome(self, wrong: Vec<String>, converged_nanos: u64) -> Outcome {
        let (trace, events) = self.shared.trace.hash();
        Outcome {
            wrong,
            trace,
            events,
            samples: self.oracle.samples(),
            traffic: self.shared.network.traffic(),
            faults: self.faults,
            restarts: self.hosts.iter().map(|host| host.lives.saturating_sub(1)).sum(),
            converged_nanos,
            lasted_nanos: self.now,
            claims: self.claims.load(Ordering::Relaxed),
            ended_by_itself: self.hosts.iter().map(|host| host.ended_by_itself).sum(),
        }
    }
}
