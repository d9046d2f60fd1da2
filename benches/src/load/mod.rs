//! Open-loop load: synthetic latencies for the recorder, real queries for search nodes.
//!
//! Open loop means that a request starts when the schedule says, whether or not the ones before
//! have ended. Latency counts from that intended start, so a stalled server is charged for all
//! the requests that would have come meanwhile (no coordinated omission); the latency from the
//! actual send is reported beside it.
//!
//! Promise: the same seed gives the same schedule, the same latencies, the same choices.

pub mod agents;
pub mod agents_args;
mod agents_link;
mod agents_report;
mod arrival;
pub mod commands;
mod distribution;
mod pace;
pub mod record;
mod record_report;
pub mod search;
mod search_client;
mod search_report;

pub use arrival::{Arrival, Schedule};
pub use distribution::{Distribution, DistributionError, Sampler};

/// Latencies one run may keep to compute exact quantiles of: 160 MB.
pub const VALUES_MAX: usize = 20_000_000;

/// A seed that people can copy and JSON readers keep exactly.
pub fn fresh_seed() -> u64 {
    u64::from(rand::random::<u32>())
}
