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
    /// A host whose disk is replaced once all is quiet.
    pub replaced: Option<HostId>,
    /// What goes wrong, by time.
    pub faults: Vec<Fault>,
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
    let replaced = shape.happens(250).then(|| 1 + shape.below(agents as u64) as usize);
    let count = shape.between(3, 14);
    let mut plan =
        Plan { seed, agents, nodes, heal_at, stalls_per_mille, replaced, faults: Vec::new() };
    let mut faults = chance.fork("faults");
    for _ in 0..count {
        let at = SECOND + faults.below(heal_at - SECOND);
        plan.faults.push(Fault { at, what: what(&plan, &mut faults) });
    }
    plan.faults.sort_by_key(|fault| fault.at);
    plan
}

fn what(plan: &Plan, chance: &mut Chance) -> What {
    let host = chance.below(plan.agents as u64 + 1) as usize;
    let agent = 1 + chance.below(plan.agents as u64) as usize;
    let (from, to) = if chance.happens(500) { (AGGREGATOR, agent) } else { (agent, AGGREGATOR) };
    let lasts = chance.between(SECOND / 5, 8 * SECOND);
    let down = chance.between(SECOND / 5, 3 * SECOND);
    let power = chance.happens(500);
    match chance.below(20) {
        0..=2 => What::Weather { from, to, weather: weather(chance), lasts },
        3 => What::Partition { from, to, both: true, lasts },
        4..=5 => What::Partition { from, to, both: false, lasts },
        6..=7 => What::Crash { host, polls: chance.below(60), power, down },
        8..=10 => What::Strike { host, operations: chance.between(1, 60), power, down },
        11 => What::Stop { host, down },
        12..=13 => {
            let node = chance.below(plan.nodes.len() as u64) as usize;
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

fn weather(chance: &mut Chance) -> Weather {
    Weather {
        lost: chance.below(300),
        doubled: chance.below(100),
        spoiled: chance.below(50),
        jitter_nanos: chance.below(60) * 1_000_000,
    }
}
