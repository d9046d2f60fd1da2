//! One host: a clock, a disk and a program, through all of its lives.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64};

use lens_journal::Disk;
use lens_journal::testing::{Crash, FaultyDisk};
use lens_service::env::Env;
use lens_service::planted::PlantedSet;

use super::disk::HostDisk;
use super::life::{Life, Program, Running};
use super::machine::{Pool, Seeded, Skew, Wall, Way};
use super::network::{HostId, Network, address};
use super::random::{Chance, SharedChance};
use super::trace::Trace;

/// Makes a host's program anew for each life.
pub type Programs = Box<dyn Fn() -> Program>;

/// What all hosts of a world share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The network.
    pub network: Network,
    /// The trace.
    pub trace: Trace,
    /// Syncs that stall, of a thousand.
    pub stalls_per_mille: u64,
    /// Mistakes switched on.
    pub planted: PlantedSet,
}

/// One host.
pub struct Host {
    /// Its place.
    pub id: HostId,
    /// How wrong its clock is.
    pub skew: Arc<Skew>,
    /// Its disk.
    pub disk: FaultyDisk,
    /// Its program while it runs.
    pub running: Option<Running>,
    /// When the program is started, virtual nanoseconds; `None` while it runs.
    pub start_at: Option<u64>,
    /// Whether unsynced changes go with its next end.
    pub power: bool,
    /// How long it stays down after being struck, virtual nanoseconds.
    pub down: u64,
    /// Starts so far.
    pub lives: u64,
    /// Ends that nobody asked for.
    pub ended_by_itself: u64,
    strike_after: Arc<AtomicU64>,
    chance: Chance,
    shared: Shared,
    programs: Programs,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Host {
    /// A host whose program starts with the world.
    pub fn new(id: HostId, chance: &Chance, shared: Shared, programs: Programs) -> Self {
        let mut chance = chance.fork(&format!("host {id}"));
        // Honest clocks are off by up to 50 ms and drift by up to 50 ppm.
        let off = i64::try_from(chance.below(100_000_000)).unwrap_or(0) - 50_000_000;
        let drift = i64::try_from(chance.below(100)).unwrap_or(0) - 50;
        let disk = FaultyDisk::new(chance.next());
        Self {
            id,
            skew: Arc::new(Skew::new(off, drift)),
            disk,
            running: None,
            start_at: Some(0),
            power: false,
            down: super::SECOND,
            lives: 0,
            ended_by_itself: 0,
            strike_after: Arc::default(),
            chance,
            shared,
            programs,
        }
    }

    fn start(&mut self, now: u64) -> std::io::Result<()> {
        self.start_at = None;
        self.lives += 1;
        let life = Life::new(now);
        let stream =
            |label| SharedChance::new(self.chance.fork(&format!("{label} {}", self.lives)));
        let wall = Wall { life: Arc::clone(&life), skew: Arc::clone(&self.skew) };
        let syncs = Arc::new(AtomicU64::new(0));
        let first_port = 20_000 + u16::try_from(self.lives % 400).unwrap_or(0) * 100;
        let env = Env {
            clock: Arc::new(wall.clone()),
            net: Arc::new(Way {
                host: self.id,
                network: self.shared.network.clone(),
                life: Arc::clone(&life),
                wall,
                chance: stream("net"),
                next_port: AtomicU16::new(first_port),
                aggregator: (address(0), super::programs::QUIC_PORT).into(),
            }),
            disk: Arc::new(HostDisk {
                host: self.id,
                disk: self.disk.clone(),
                life: Arc::clone(&life),
                trace: self.shared.trace.clone(),
                syncs: Arc::clone(&syncs),
                strike_after: Arc::clone(&self.strike_after),
            }),
            threads: Arc::new(Pool {
                life: Arc::clone(&life),
                chance: stream("threads"),
                stalls_per_mille: self.shared.stalls_per_mille,
                syncs,
            }),
            random: Arc::new(Seeded(stream("random"))),
            planted: self.shared.planted,
        };
        self.running = Some(Running::start(life, stream("tls"), env, (self.programs)())?);
        Ok(())
    }

    /// Its turn: started where it is due, run until `until`, buried where it ended.
    ///
    /// # Errors
    /// No runtime can be made.
    pub fn turn(&mut self, now: u64, until: u64) -> std::io::Result<()> {
        if self.running.is_none() && self.start_at.is_some_and(|at| at <= now) {
            self.start(now)?;
        }
        let arrivals = self.shared.network.arrivals(self.id, until);
        let Some(running) = &mut self.running else { return Ok(()) };
        running.turn(arrivals, until);
        if running.life.is_over() {
            self.bury(until);
        } else if running.has_ended() {
            if self.start_at.is_none() {
                // Whoever supervises it starts it again.
                self.ended_by_itself += 1;
            }
            self.bury(until);
        }
        Ok(())
    }

    /// Kills the program after some more polls.
    pub fn crash(&mut self, now: u64, polls: u64, power: bool, down: u64) {
        if let Some(running) = self.running.take() {
            (self.power, self.down) = (power, down);
            running.crash(polls);
            self.bury(now);
        }
    }

    /// Has the program killed at a coming disk operation.
    pub fn strike(&mut self, operations: u64, power: bool, down: u64) {
        (self.power, self.down) = (power, down);
        self.strike_after.store(operations, std::sync::atomic::Ordering::Relaxed);
    }

    /// Takes back a strike that has not fallen.
    pub fn spare(&mut self) {
        self.strike_after.store(0, std::sync::atomic::Ordering::Relaxed);
    }

    /// Asks the program to stop; it is started again `down` after it has.
    pub fn stop(&mut self, now: u64, down: u64) {
        if let Some(running) = &self.running {
            running.stop();
            self.start_at = Some(now + down);
            (self.power, self.down) = (false, down);
        }
    }

    /// Whether its program runs and was not asked to stop.
    pub fn is_up(&self) -> bool {
        self.running.is_some() && self.start_at.is_none()
    }

    /// Turns a bit of one of its spool's files; false when nothing has been written there.
    pub fn flip_bit(&mut self, file: u64, bit: u64) -> bool {
        let dir = Path::new(super::programs::SPOOL_DIR);
        let names = self.disk.list(dir).unwrap_or_default();
        let paths = names.iter().map(|name| dir.join(name));
        let written = |path: PathBuf| {
            let bytes = self.disk.contents(&path)?;
            let written = bytes.iter().rposition(|byte| *byte != 0)? as u64 + 1;
            Some((path, written))
        };
        let files: Vec<(PathBuf, u64)> = paths.filter_map(written).collect();
        let Some(at) = usize::try_from(file).unwrap_or(0).checked_rem(files.len()) else {
            return false;
        };
        let (path, written) = &files[at];
        self.disk.flip(path, bit / 8 % written, 1 << (bit % 8))
    }

    /// Gives it an empty disk.
    pub fn replace_disk(&mut self) {
        drop(self.running.take());
        self.disk.wipe();
    }

    fn bury(&mut self, now: u64) {
        drop(self.running.take());
        if self.power {
            let all = self.chance.happens(300);
            self.disk.crash(if all { Crash::Nothing } else { Crash::AnyPart });
        } else {
            self.disk.kill();
        }
        self.power = false;
        self.start_at = Some(self.start_at.unwrap_or(0).max(now + self.down));
        self.down = super::SECOND;
    }
}
