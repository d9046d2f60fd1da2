//! Proxy mode: an unmodified engine measured and routed from outside.
//!
//! Clients connect here instead of to the engine. Each request goes to the stable or the canary
//! upstream, by its user and the share in force; it is timed to the last byte of its answer and
//! counted by how it ended, into a segment of the proxy's own, which the agent harvests as it does
//! any node's. docs/proxy.md says what is measured and what an error is.
//!
//! One way through: [`serve`] (the sockets) → [`forward`] → [`label`], [`headers`] (pure) → the
//! upstream → [`body`], whose end is that of the [`exchange`] → [`outcome`] (pure) → [`ledger`].
//! Refused: upgrades, `CONNECT`, ambiguous requests, bodies past `proxy.body_bytes_max`. HTTP is
//! hyper's on both sides; nothing here parses or writes any.

mod body;
mod config;
mod exchange;
mod forward;
mod headers;
mod label;
mod ledger;
mod outcome;
mod patience;
mod serve;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use lens_flags::Assignment;
use lens_segment::{CreateError, Recorder, RegisterError};
use lens_service::shutdown::Shutdown;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::watch;

pub use self::config::ProxyConfig;
pub use self::label::{Pattern, PatternError};
pub use self::ledger::{Counters, Slices};
pub use self::outcome::Outcome;

use self::forward::Forwarder;
use self::ledger::Ledger;
use self::serve::Upstreams;

/// Why a proxy did not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// Its segment cannot be made.
    #[error("segments.dir: the proxy's own segment: {0}")]
    Create(#[from] CreateError),
    /// Its segment has no room.
    #[error("proxy.slices: {0}")]
    Register(#[from] RegisterError),
    /// Its listener cannot be opened.
    #[error("{0}")]
    Listen(String),
}

/// A proxy that is about to serve.
#[derive(Debug)]
pub struct Proxy {
    listener: TcpListener,
    forwarder: Forwarder,
    counters: Arc<Counters>,
}

impl Proxy {
    /// Opens the listener and a segment in `segments`, for the agent of this name.
    ///
    /// # Errors
    /// [`ProxyError`].
    pub async fn open(
        config: ProxyConfig,
        segments: &Path,
        agent: &str,
        assignment: watch::Receiver<Assignment>,
    ) -> Result<Self, ProxyError> {
        let listener = serve::listen(config.listen).await.map_err(ProxyError::Listen)?;
        let (counters, pseudonym) = (Arc::<Counters>::default(), ledger::instance(agent));
        let recorder = Recorder::create(segments, ledger::node(&pseudonym))?;
        let ledger = Ledger::new(recorder, config.stage, &config.slices, Arc::clone(&counters))?;
        let upstreams = Upstreams::new(&config);
        let marks = config.bad_query.iter().map(|mark| mark.as_bytes().into()).collect();
        let ledger = Arc::new(ledger);
        let forwarder = Forwarder { config, pseudonym, ledger, upstreams, assignment, marks };
        Ok(Self { listener, forwarder, counters })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The operating system's.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// What it counts.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Serves until shutdown, and then for as long as open requests are given. When this returns,
    /// the segment is closed: everything counted is there for the agent's last harvest.
    pub async fn run(self, shutdown: Shutdown) {
        serve::serve(self.listener, Arc::new(self.forwarder), self.counters, shutdown).await;
    }
}
