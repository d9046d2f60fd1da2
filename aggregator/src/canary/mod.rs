//! A rollout moved by evidence.
//!
//! [`controller`] decides, as a function of state, evidence and time; [`replay`] drives it over
//! recorded windows, [`live`] over those of this moment, moving [`levers`].

pub(crate) mod alarms;
pub mod book;
pub mod config;
pub mod controller;
pub mod decision;
pub mod gates;
pub mod levers;
pub mod live;
pub mod replay;
pub mod store;
pub mod tape;

#[cfg(test)]
mod tests;

pub use controller::{Action, Command, Phase, Refused, State, command, decide};
pub use decision::{Decision, Word};
pub use live::{Live, run, settle};
pub use replay::CanaryJudge;
