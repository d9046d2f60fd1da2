//! lens-aggregator: merges the deltas of agents exactly, computes quantiles, serves API and page.
//!
//! One way through: [`listen`] alone holds the QUIC socket, [`ingest`] decides what becomes of each
//! delta, [`window`] merges, [`judge`] compares without clock or I/O, [`snapshot`], [`api`],
//! [`export`] show and cannot change anything.
#![forbid(unsafe_code)]

pub mod api;
pub mod config;
pub mod dashboard;
pub mod export;
pub mod ingest;
pub mod judge;
pub mod listen;
pub mod log;
pub mod program;
pub mod snapshot;
pub mod state;
pub mod store;
pub mod worker;
pub mod window;
