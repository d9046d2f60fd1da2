//! The load harness and the reference search node of lens.
//!
//! Two things the rest of the system is tried with. [`node`] is a search server over real source
//! files that records its stages as any user of the recorder would. [`load`] drives it, or the
//! recorder itself, with open-loop load whose schedule and latencies replay from a seed.
//!
//! Promise: no latency here is simulated except by `load::record`, which says so and prints
//! exactly what it recorded. Both sides keep counts of their own, so that whatever receives the
//! measurements can be checked to the last sample.
//! Units: nanoseconds inside, milliseconds as fractional numbers in JSON for people.
#![forbid(unsafe_code)]

pub mod arguments;
pub mod history;
pub mod load;
pub mod node;
mod numbers;
mod quantile;
mod regression;

pub use quantile::{QUANTILES, Quantiles, nearest_rank};
pub use regression::Regression;
