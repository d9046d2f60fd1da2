//! Canary against baseline.
pub mod evalue;
pub mod harm;
pub mod plan;
pub mod process;
pub mod promotion;
pub mod reference;
pub mod tally;

#[cfg(test)]
mod vectors;

pub use plan::{Plan, PlanError};
