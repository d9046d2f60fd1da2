//! OTLP out: merged series as exponential histograms, quantiles and verdicts as gauges.
//!
//! The OpenTelemetry SDK cannot be given histograms that were counted elsewhere, so the messages are
//! built here and sent by a gRPC client or an HTTP POST. docs/otlp.md has what a receiver sees.
//! Pure: [`buckets`], [`ledger`], [`points`], [`answer`]. [`carry`] alone holds a socket.

pub mod answer;
pub mod buckets;
pub mod carry;
pub mod config;
mod gather;
pub mod ledger;
pub mod points;
mod run;
mod stats;
#[cfg(test)]
mod tests;

pub use carry::carrier;
pub use config::Config;
pub use ledger::Temporality;
pub use run::run;
pub use stats::Stats;
