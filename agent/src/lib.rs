//! lens-agent: beside a search node, harvests its segments and ships the deltas over QUIC.
//!
//! One way through: [`harvest`] reads segments, [`spool`] holds what is not yet acknowledged,
//! [`ship`] decides what goes next, [`link`] alone holds the socket to the aggregator. [`ingest`]
//! takes foreign telemetry into a segment of the agent's own; [`proxy`], where it is on, stands
//! before an engine that records nothing itself. [`admin`] shows how it goes.
#![forbid(unsafe_code)]

pub mod admin;
mod agent;
pub mod config;
pub mod exemplars;
pub mod flags;
pub mod gather;
pub mod harvest;
pub mod hindsight;
pub mod ingest;
pub mod link;
pub mod program;
pub mod proxy;
pub mod ship;
pub mod spool;
pub mod status;
mod telemetry;

pub use agent::{Agent, StartError, run_on};
