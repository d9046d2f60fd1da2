//! Where the programs' own words go: stderr, level by `RUST_LOG`, `info` when unset.

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use crate::telemetry::Telemetry;

/// Starts logging; a second call changes nothing.
pub fn start() {
    start_with(None);
}

/// Starts logging, and turns spans into traces where there is telemetry; a second call changes
/// nothing.
pub fn start_with(telemetry: Option<&Telemetry>) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let words = fmt::layer().with_writer(std::io::stderr).with_target(false).with_filter(filter);
    let traces = telemetry.map(Telemetry::layer);
    drop(tracing_subscriber::registry().with(words).with(traces).try_init());
}
