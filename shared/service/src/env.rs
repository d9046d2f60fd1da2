//! What a service takes from the machine it runs on: clock, network, disk, threads, randomness.
//!
//! Agent and aggregator reach for none of these themselves. [`Env::system`] gives the real ones; the
//! world simulator gives its own, and then the very same code runs on simulated time, a simulated
//! network and a simulated disk, in one thread, the same way each time. Time that passes is tokio's
//! (`tokio::time`), which a paused runtime simulates already; [`Clock`] is what the wall says.

use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use lens_journal::{Disk, OsDisk};
use lens_model::{Incarnation, UnixNanos};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Endpoint, EndpointConfig, ServerConfig};
use quinn_proto::HashedConnectionIdGenerator;
use ring::hmac;
use thiserror::Error;

use crate::planted::{Planted, PlantedSet};
use crate::time::unix_now;
use crate::tls::Crypto;

/// The wall clock, which may be wrong and may jump.
pub trait Clock: Send + Sync + Debug {
    /// What it says now.
    fn now(&self) -> UnixNanos;
}

/// How an endpoint takes connections.
#[derive(Debug)]
pub struct Serving {
    /// The library's way.
    pub config: ServerConfig,
    /// Known to nobody else, and the same after a restart: by it peers of connections that the last
    /// process had are told at once that these are no more (RFC 9000, section 10.3).
    pub secret: [u8; 32],
}

/// The network as QUIC needs it.
pub trait Net: Send + Sync + Debug {
    /// Opens a UDP socket and an endpoint on it, which takes connections if `serving` says how.
    ///
    /// # Errors
    /// The operating system's.
    fn endpoint(&self, local: SocketAddr, serving: Option<Serving>) -> io::Result<Endpoint>;

    /// The address of `host:port`, if it has one.
    fn resolve<'a>(&'a self, endpoint: &'a str) -> BoxFuture<'a, io::Result<Option<SocketAddr>>>;

    /// How a connection is begun with this TLS; quinn's own way unless said otherwise.
    fn client(&self, tls: QuicClientConfig) -> ClientConfig {
        ClientConfig::new(Arc::new(tls))
    }

    /// What TLS computes with, and the clock it holds certificates against.
    fn crypto(&self) -> Crypto;
}

/// Where work runs that may block.
pub trait Threads: Send + Sync + Debug {
    /// Runs the job to its end; the future resolves then, and dropping it does not stop the job.
    fn run(&self, job: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()>;
}

/// Randomness that cannot be guessed.
pub trait Random: Send + Sync + Debug {
    /// Fills the buffer.
    ///
    /// # Errors
    /// The operating system's.
    fn fill(&self, buffer: &mut [u8]) -> io::Result<()>;
}

/// A blocking job that gave nothing back: it panicked, or the runtime is going away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a blocking job ended without a result")]
pub struct Abandoned;

/// The machine as a service sees it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Env {
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// The network.
    pub net: Arc<dyn Net>,
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// Threads that may block.
    pub threads: Arc<dyn Threads>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// Mistakes switched on for a test; always none in a release.
    pub planted: PlantedSet,
}

impl Env {
    /// The real machine.
    pub fn system() -> Self {
        Self {
            clock: Arc::new(System),
            net: Arc::new(System),
            disk: Arc::new(OsDisk),
            threads: Arc::new(System),
            random: Arc::new(System),
            planted: PlantedSet::from_environment(),
        }
    }

    /// Whether a mistake is switched on: a constant `false` in a release.
    pub const fn planted(&self, mistake: Planted) -> bool {
        self.planted.contains(mistake)
    }

    /// What the wall clock says.
    pub fn now(&self) -> UnixNanos {
        self.clock.now()
    }

    /// Runs a job that may block and gives back its result.
    ///
    /// # Errors
    /// [`Abandoned`] when the job panicked.
    pub async fn blocking<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Abandoned> {
        let (give, mut take) = tokio::sync::oneshot::channel();
        self.threads
            .run(Box::new(move || {
                // A caller that no longer waits has no use for the result.
                drop(give.send(job()));
            }))
            .await;
        take.try_recv().map_err(|_| Abandoned)
    }

    /// A fresh random life.
    ///
    /// # Errors
    /// The operating system's, without randomness; numbering deltas from a guessable life would
    /// not be safe.
    pub fn incarnation(&self) -> io::Result<Incarnation> {
        let mut bytes = [0_u8; 16];
        self.random.fill(&mut bytes)?;
        Ok(Incarnation(u128::from_le_bytes(bytes)))
    }
}

/// The machine this process runs on.
#[derive(Clone, Copy, Debug)]
struct System;

impl Clock for System {
    fn now(&self) -> UnixNanos {
        unix_now()
    }
}

/// Tokens of resets, and the ids they are for, as the last process with this secret made them.
fn resetting(serving: &Serving) -> EndpointConfig {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &serving.secret);
    let mut ids = [0; 8];
    ids.copy_from_slice(&hmac::sign(&key, b"connection ids").as_ref()[..8]);
    let ids = u64::from_le_bytes(ids);
    let mut config = EndpointConfig::new(Arc::new(key));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    config
}

impl Net for System {
    fn endpoint(&self, local: SocketAddr, serving: Option<Serving>) -> io::Result<Endpoint> {
        let socket = std::net::UdpSocket::bind(local)?;
        let runtime = Arc::new(quinn::TokioRuntime);
        let config = serving.as_ref().map_or_else(EndpointConfig::default, resetting);
        Endpoint::new(config, serving.map(|serving| serving.config), socket, runtime)
    }

    fn resolve<'a>(&'a self, endpoint: &'a str) -> BoxFuture<'a, io::Result<Option<SocketAddr>>> {
        Box::pin(async move { Ok(tokio::net::lookup_host(endpoint).await?.next()) })
    }

    fn crypto(&self) -> Crypto {
        Crypto::default()
    }
}

impl Threads for System {
    fn run(&self, job: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        let running = tokio::task::spawn_blocking(job);
        Box::pin(async move {
            // A panic shows as a job without a result.
            drop(running.await);
        })
    }
}

impl Random for System {
    fn fill(&self, buffer: &mut [u8]) -> io::Result<()> {
        getrandom::fill(buffer).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_blocking_job_gives_its_result_and_a_panicking_one_says_so() {
        let env = Env::system();
        assert_eq!(env.blocking(|| 7).await, Ok(7));
        assert_eq!(env.blocking(|| -> u8 { panic!("as asked") }).await, Err(Abandoned));
    }

    #[test]
    fn every_life_is_another() {
        let env = Env::system();
        assert_ne!(env.incarnation().unwrap(), env.incarnation().unwrap());
    }
}
