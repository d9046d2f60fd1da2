//! What the node tells its parent process: one JSON object a line on standard output.

use std::io::Write;
use std::net::SocketAddr;

use lens_model::Slice;
use serde::{Deserialize, Serialize};

use super::ledger::Ledger;

/// A line of the protocol, told apart by its `event`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Files are being indexed.
    Indexing {
        /// Done so far.
        files: usize,
        /// In all.
        of: usize,
    },
    /// The node answers queries.
    Ready {
        /// The address it really listens on.
        listen: SocketAddr,
        /// Files indexed.
        files: usize,
        /// Repositories indexed.
        repos: usize,
        /// The slices served.
        slices: Vec<Slice>,
        /// How long indexing took, milliseconds.
        indexing_ms: u64,
    },
    /// The node has stopped; what it recorded, by its own count.
    Recorded(Ledger),
}

/// Writes an event to standard output. A parent that stopped reading is no reason to stop.
pub fn print_event(event: &Event) {
    let Ok(line) = serde_json::to_string(event) else {
        return;
    };
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        tracing::debug!("standard output is closed");
    }
}
