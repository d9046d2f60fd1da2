//! What every lens program does the same way: configuration, identity, signals, exit codes.
//!
//! Nothing here knows of segments, frames or windows. It stands beside the model because the agent
//! and the aggregator may not name each other, and each of these done twice would be done
//! differently.
#![forbid(unsafe_code)]

pub mod args;
pub mod certs;
pub mod config;
pub mod env;
pub mod exit;
pub mod keyfile;
pub mod log;
pub mod planted;
pub mod program;
pub mod secret;
pub mod shutdown;
pub mod supervise;
pub mod telemetry;
pub mod time;
pub mod tls;
