//! The world simulator: real agents and a real aggregator on a simulated network, clock and disk.
//!
//! One seed decides everything, in one thread, and the same seed gives the same bytes on every
//! link and disk. A [`plan::Plan`] is drawn from the seed: hosts, nodes, faults. [`run::run`] lives
//! it, heals everything, waits until it is quiet and holds what the nodes recorded against what the
//! aggregator answers. docs/design/0004 says why it is built so and what it cannot show.

pub mod certificates;
mod crypto;
mod disk;
pub mod host;
pub mod life;
pub mod machine;
pub mod matrix;
pub mod network;
pub mod nodes;
pub mod oracle;
mod panics;
pub mod plan;
pub mod programs;
pub mod random;
pub mod report;
mod rogue;
pub mod run;
pub mod shrink;
mod socket;
pub mod trace;

/// A host's turn, and the least a datagram takes, virtual nanoseconds.
pub const TICK_NANOS: u64 = 10_000_000;

/// One virtual second, nanoseconds.
pub const SECOND: u64 = 1_000_000_000;
