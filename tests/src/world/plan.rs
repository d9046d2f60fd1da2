//! What a seed stands for: who is there, what goes wrong, and when.

use std::fmt;

use super::SECOND;
use super::network::{HostId, Weather};
use super::random::Chance;

/// The aggregator's place.
pub const AGGREGATOR: HostId = 0;

/// Most agents of a world.
pub const AGENTS_MAX: usize = 3;

/// One world.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed it was drawn from, and all chance within it.
    pub seed: u64,
    /// Agents, hosts 1 and up; the rogue is the host after them.
    pub agents: usize,
    /// The host of each node.
    pub nodes: Vec<HostId>,
    /// When everything is healed, virtual nanoseconds.
    pub heal_at: u64,
    /// Syncs that stall, of a thousand.
    pub stalls_per_mille: u64,
    /// Bytes an agent's spool may take up.
    pub spool_bytes: u64,
    /// The log before the store breaks its promises.
    pub adverse_log: bool,
    /// A host that is replaced once all is quiet.
    pub replaced: Option<Replacement>,
    /// What goes wrong, by time.
    pub faults: Vec<Fault>,
}

/// A host gives way to another one of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// Which.
    pub host: HostId,
    /// How long the new one does not reach the aggregator, virtual nanoseconds.
    pub cut_off: u64,
    /// Its clock begins where the old one's began: no battery.
    pub clock_begins_again: bool,
}

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// When, virtual nanoseconds.
    pub at: u64,
    /// What.
    pub what: What,
}

/// What goes wrong. Spans are virtual nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// One direction of a link loses, doubles, spoils and reorders for a while.
    Weather {
        /// From.
        from: HostId,
        /// To.
        to: HostId,
        /// How badly.
        weather: Weather,
        /// How long.
        lasts: u64,
    },
    /// Nothing goes from one host to the other for a while; with `both`, nor back.
    Partition {
        /// From.
        from: HostId,
        /// To.
        to: HostId,
        /// Nor back.
        both: bool,
        /// How long.
        lasts: u64,
    },
    /// A host's program is killed after some more polls.
    Crash {
        /// Whose.
        host: HostId,
        /// Tasks polled before.
        polls: u64,
        /// What was not synced is torn or lost as well.
        power: bool,
        /// Until it is started again.
        down: u64,
    },
    /// A host's program is killed at a disk operation.
    Strike {
        /// Whose.
        host: HostId,
        /// Changes it makes before.
        operations: u64,
        /// What was not synced is torn or lost as well.
        power: bool,
        /// Until it is started again.
        down: u64,
    },
    /// A host's program is asked to stop, and started again.
    Stop {
        /// Whose.
        host: HostId,
        /// Until it is started again.
        down: u64,
    },
    /// A search node is killed, and another started in its place.
    CrashNode {
        /// Which.
        node: usize,
        /// Until then.
        down: u64,
    },
    /// A host's disk takes nothing more for a while.
    DiskFull {
        /// Whose.
        host: HostId,
        /// How long.
        lasts: u64,
    },
    /// A sync fails with EIO.
    SyncFails {
        /// Whose.
        host: HostId,
        /// The which-th from then on.
        nth: u64,
    },
    /// An agent is killed, and a bit of its spool is another when it is started again.
    FlipsBit {
        /// Whose.
        host: HostId,
        /// Which of its files.
        file: u64,
        /// Which of the file's bits, of those that were written.
        bit: u64,
        /// Until it is started again.
        down: u64,
    },
    /// A host's wall clock jumps.
    ClockJumps {
        /// Whose.
        host: HostId,
        /// By how many seconds.
        by_secs: i64,
    },
}

impl What {
    /// Its kind, for counting.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Weather { .. } => "weather",
            Self::Partition { both: true, .. } => "partition",
            Self::Partition { both: false, .. } => "one-way partition",
            Self::Crash { power: true, .. } => "power loss",
            Self::Crash { power: false, .. } => "kill",
            Self::Strike { power: true, .. } => "power loss at a disk operation",
            Self::Strike { power: false, .. } => "kill at a disk operation",
            Self::Stop { .. } => "restart",
            Self::CrashNode { .. } => "node kill",
            Self::DiskFull { .. } => "disk full",
            Self::SyncFails { .. } => "sync fails",
            Self::FlipsBit { .. } => "bit flip",
            Self::ClockJumps { .. } => "clock jump",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[allow(clippy::cast_precision_loss)]
        let at = self.at as f64 / SECOND as f64;
        write!(f, "{at:7.3} s  {:?}", self.what)
    }
}

/// Draws the world of a seed.
pub fn draw(seed: u64) -> Plan {
    let chance = Chance::new(seed);
    let mut shape = chance.fork("shape");
    let agents = usize::try_from(shape.between(1, AGENTS_MAX as u64)).unwrap_or(1);
    let mut nodes = Vec::new();
    for host in 1..=agents {
        for _ in 0..shape.between(1, 2) {
            nodes.push(host);
        }
    }
    let heal_at = shape.between(12, 20) * SECOND;
    let stalls_per_mille = *shape.pick(&[0, 20, 20, 60]);
    let replaced = shape.happens(200).then(|| Replacement {
        host: 1 + shape.place(agents),
        cut_off: *shape.pick(&[0, 45 * SECOND]),
        clock_begins_again: shape.happens(500),
    });
    let mut plan = Plan {
        seed,
        agents,
        nodes,
        heal_at,
        stalls_per_mille,
        spool_bytes: *shape.pick(&[192 << 10, 256 << 10, 2 << 20]),
        adverse_log: shape.happens(300),
        replaced,
        faults: Vec::new(),
    };
    let mut faults = chance.fork("faults");
    for _ in 0..shape.between(3, 14) {
        let at = SECOND + faults.below(heal_at - SECOND);
        let what = what(&plan, &mut faults);
        plan.faults.push(Fault { at, what });
        plan.faults.extend(follows(Fault { at, what }, &mut faults));
    }
    plan.faults.sort_by_key(|fault| fault.at);
    plan
}

impl Plan {
    /// The same world with one to three bits of spools flipped as well.
    pub fn with_flips(mut self) -> Self {
        let mut chance = Chance::new(self.seed).fork("flips");
        for _ in 0..chance.between(1, 3) {
            let at = SECOND + chance.below(self.heal_at - SECOND);
            let host = 1 + chance.place(self.agents);
            let (file, bit) = (chance.next(), chance.next());
            let down = chance.between(SECOND / 5, 3 * SECOND);
            self.faults.push(Fault { at, what: What::FlipsBit { host, file, bit, down } });
        }
        self.faults.sort_by_key(|fault| fault.at);
        self
    }
}

fn what(plan: &Plan, chance: &mut Chance) -> What {
    let host = chance.place(plan.agents + 1);
    let agent = 1 + chance.place(plan.agents);
    let (from, to) = if chance.happens(500) { (AGGREGATOR, agent) } else { (agent, AGGREGATOR) };
    let lasts = chance.between(SECOND / 5, 8 * SECOND);
    let down = chance.between(SECOND / 5, 3 * SECOND);
    let power = chance.happens(500);
    match chance.below(20) {
        0..=2 => What::Weather { from, to, weather: weather(chance), lasts },
        3 => What::Partition { from, to, both: true, lasts: 2 * lasts },
        4..=5 => What::Partition { from, to, both: false, lasts },
        6..=7 => What::Crash { host, polls: chance.below(60), power, down },
        8..=10 => What::Strike { host, operations: chance.between(1, 60), power, down },
        11 => What::Stop { host, down },
        12..=13 => {
            let node = chance.place(plan.nodes.len());
            What::CrashNode { node, down: chance.between(SECOND / 20, 2 * SECOND) }
        }
        14..=15 => What::DiskFull { host, lasts },
        16..=17 => What::SyncFails { host, nth: chance.between(1, 6) },
        _ => {
            let by = *chance.pick(&[-31_557_600, -3_600, -7, 7, 3_600, 31_557_600]);
            What::ClockJumps { host, by_secs: by }
        }
    }
}

/// What often comes with a fault: a disk that fails a sync is soon without power as well.
fn follows(fault: Fault, chance: &mut Chance) -> Option<Fault> {
    let What::SyncFails { host, .. } = fault.what else { return None };
    let (polls, down) = (chance.below(60), chance.between(SECOND / 5, 3 * SECOND));
    let at = fault.at + chance.between(SECOND, 6 * SECOND);
    chance
        .happens(600)
        .then_some(Fault { at, what: What::Crash { host, polls, power: true, down } })
}

fn weather(chance: &mut Chance) -> Weather {
    Weather {
        lost: chance.below(300),
        doubled: chance.below(100),
        spoiled: chance.below(50),
        jitter_nanos: chance.below(60) * 1_000_000,
    }
}
