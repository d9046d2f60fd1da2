//! lens-aggregator: merges the deltas of agents exactly, computes quantiles, serves API and page.
//!
//! One way through: [`listen`] alone holds the QUIC socket, [`ingest`] decides what becomes of each
//! delta, [`log`] gives records one order, [`store`] merges them durably, [`worker`] drives the two,
//! [`window`] is the newest of it in memory, [`judge`] compares without clock or I/O,
//! [`snapshot`], [`api`], [`export`] show and cannot change anything. [`aggregator`] is all of it as
//! one future.
#![forbid(unsafe_code)]

pub mod aggregator;
pub mod alerts;
pub mod api;
pub mod audit;
pub mod auth;
pub mod canary;
pub mod capture;
mod columns;
pub mod config;
pub mod dashboard;
pub mod exemplars;
pub mod export;
pub mod flags;
pub mod guards;
pub mod ingest;
pub mod judge;
pub mod listen;
pub mod log;
pub mod program;
pub mod reload;
pub mod security;
pub mod serve;
pub mod snapshot;
pub mod state;
pub mod steady;
pub mod store;
mod telemetry;
pub mod window;
pub mod worker;

/// Slots are made on one thread and let go on another, for hours: the system's allocator keeps an
/// arena for each thread and what is free in them, which came to three times the memory in use.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
