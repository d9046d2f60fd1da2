//! A rollout moved by evidence.
//!
//! [`controller`] decides, as a function of state, evidence and time; [`replay`] drives it over
//! recorded windows. What carries its decisions out lives elsewhere.

pub mod controller;
pub mod decision;
pub mod replay;

#[cfg(test)]
mod tests;

pub use controller::{Action, Command, Phase, Refused, State, command, decide};
pub use decision::{Decision, Word};
pub use replay::CanaryJudge;
