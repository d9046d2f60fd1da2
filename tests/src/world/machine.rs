//! The machine a host's program runs on: what [`lens_service::env::Env`] asks for, simulated.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU16, Ordering};
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use lens_model::UnixNanos;
use lens_service::env::{Clock, Net, Random, Serving, Threads};
use lens_service::tls::Crypto;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    ClientConfig, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, TimeSource,
};
use ring::{hkdf, hmac};
use tokio::time::sleep;

use super::crypto::crypto;
use super::life::Life;
use super::network::{HostId, Network, address};
use super::random::{Chance, SharedChance};
use super::socket::Runtime;

/// What wall clocks say when a world begins: 21 November 2026, 12:00 UTC.
const WALL_BASE_NANOS: u64 = 1_795_262_400_000_000_000;

/// How wrong a host's wall clock is. It stays so from life to life.
#[derive(Debug, Default)]
pub struct Skew {
    jumped_nanos: AtomicI64,
    drift_ppm: AtomicI64,
}

impl Skew {
    /// A clock that is off by this much and drifts by these parts per million.
    pub fn new(off_nanos: i64, drift_ppm: i64) -> Self {
        Self { jumped_nanos: off_nanos.into(), drift_ppm: drift_ppm.into() }
    }

    /// Moves the clock.
    pub fn jump(&self, by_nanos: i64) {
        self.jumped_nanos.fetch_add(by_nanos, Ordering::Relaxed);
    }

    /// What the clock says at a virtual time.
    pub fn wall(&self, now: u64) -> UnixNanos {
        let drift =
            i128::from(now) * i128::from(self.drift_ppm.load(Ordering::Relaxed)) / 1_000_000;
        let jumped = i128::from(self.jumped_nanos.load(Ordering::Relaxed));
        let wall = i128::from(WALL_BASE_NANOS) + i128::from(now) + drift + jumped;
        UnixNanos(u64::try_from(wall).unwrap_or(0))
    }
}

/// A host's wall clock as one life reads it.
#[derive(Clone, Debug)]
pub(super) struct Wall {
    pub(super) life: Arc<Life>,
    pub(super) skew: Arc<Skew>,
}

impl Clock for Wall {
    fn now(&self) -> UnixNanos {
        self.skew.wall(self.life.now())
    }
}

impl TimeSource for Wall {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(Clock::now(self).0)
    }
}

/// A host's way to the network in one life.
pub(super) struct Way {
    pub(super) host: HostId,
    pub(super) network: Network,
    pub(super) life: Arc<Life>,
    pub(super) wall: Wall,
    pub(super) chance: SharedChance,
    /// The next port for a socket that takes any.
    pub(super) next_port: AtomicU16,
    /// Where names lead: everything is the aggregator's, which is host 0.
    pub(super) aggregator: SocketAddr,
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Way").field("host", &self.host).finish_non_exhaustive()
    }
}

/// Connection identifiers from the host's chance.
struct Identifiers(SharedChance);

impl ConnectionIdGenerator for Identifiers {
    fn generate_cid(&mut self) -> ConnectionId {
        identifier(&self.0, 8)
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

fn identifier(chance: &SharedChance, length: usize) -> ConnectionId {
    let mut bytes = [0; 20];
    chance.draw(|chance| chance.fill(&mut bytes));
    ConnectionId::new(&bytes[..length])
}

impl Way {
    fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.chance.draw(|chance| chance.fill(&mut bytes));
        bytes
    }
}

impl Net for Way {
    fn endpoint(&self, local: SocketAddr, serving: Option<Serving>) -> io::Result<Endpoint> {
        let port = match local.port() {
            0 => self.next_port.fetch_add(1, Ordering::Relaxed),
            port => port,
        };
        let socket = self.network.open((address(self.host), port).into(), Arc::clone(&self.life));
        let reset = hmac::Key::new(hmac::HMAC_SHA256, &self.bytes::<64>());
        let mut config = EndpointConfig::new(Arc::new(reset));
        let chance = self.chance.clone();
        config.cid_generator(move || Box::new(Identifiers(chance.clone())));
        config.rng_seed(Some(self.bytes()));
        let server = serving.map(|serving| {
            let mut server = serving.config;
            let token = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&self.bytes::<64>());
            server.token_key(Arc::new(token)).time_source(Arc::new(self.wall.clone()));
            server
        });
        Endpoint::new_with_abstract_socket(config, server, socket, Arc::new(Runtime))
    }

    fn resolve<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Option<SocketAddr>>> {
        Box::pin(async { Ok(Some(self.aggregator)) })
    }

    fn client(&self, tls: QuicClientConfig) -> ClientConfig {
        let mut config = ClientConfig::new(Arc::new(tls));
        let chance = self.chance.clone();
        config.initial_dst_cid_provider(Arc::new(move || identifier(&chance, 20)));
        config
    }

    fn crypto(&self) -> Crypto {
        crypto(Arc::new(self.wall.clone()))
    }
}

/// Randomness of one life.
#[derive(Debug)]
pub(super) struct Seeded(pub(super) SharedChance);

impl Random for Seeded {
    fn fill(&self, buffer: &mut [u8]) -> io::Result<()> {
        self.0.draw(|chance| chance.fill(buffer));
        Ok(())
    }
}

/// Longest a job waits for its thread, and its caller for the result, on an ordinary day.
const HANDOVER_NANOS_MAX: u64 = 2_000_000;

/// How long a stalled disk stalls.
const STALL_NANOS: (u64, u64) = (300_000_000, 3_000_000_000);

/// The one thread as if it were many: a job runs at once as a whole, some time after it was given,
/// and its caller hears of it some time after that. A crash may fall between.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) life: Arc<Life>,
    pub(super) chance: SharedChance,
    /// Syncs that stall, of a thousand.
    pub(super) stalls_per_mille: u64,
    /// Syncs that the last job made, as the disk counts them.
    pub(super) syncs: Arc<std::sync::atomic::AtomicU64>,
}

impl Pool {
    fn stall(chance: &mut Chance) -> u64 {
        chance.between(STALL_NANOS.0, STALL_NANOS.1)
    }
}

impl Threads for Pool {
    fn run(&self, job: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        let (life, chance, syncs) =
            (Arc::clone(&self.life), self.chance.clone(), Arc::clone(&self.syncs));
        let per_mille = self.stalls_per_mille;
        let (before, after) = chance.draw(|chance| {
            let handover = (chance.below(HANDOVER_NANOS_MAX), chance.below(HANDOVER_NANOS_MAX));
            let late = if chance.happens(per_mille / 2) { Self::stall(chance) } else { 0 };
            (handover.0 + late, handover.1)
        });
        let running = tokio::spawn(async move {
            sleep(Duration::from_nanos(before)).await;
            if life.is_over() {
                return;
            }
            let synced = syncs.load(Ordering::Relaxed);
            job();
            let synced = syncs.load(Ordering::Relaxed) - synced;
            // Durable at once or only at the end of the stall: the caller cannot tell.
            let stall = chance.draw(|chance| {
                let stalls = (0..synced).any(|_| chance.happens(per_mille));
                if stalls { Self::stall(chance) } else { 0 }
            });
            sleep(Duration::from_nanos(after + stall)).await;
        });
        Box::pin(async move {
            // A panic shows as a job without a result.
            drop(running.await);
        })
    }
}
