//! TLS whose every random byte comes from the seed, and certificates that never change.
//!
//! The cipher suites, signatures and checks are ring's, as in production. Randomness is the running
//! host's stream; the key exchange is X25519 with keys from that stream; time is the host's wall
//! clock. Certificates are Ed25519, whose signatures take no randomness.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use lens_service::env::Clock;
use lens_service::tls::Crypto;
use rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret,
    SupportedKxGroup,
};
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use rustls::{Error, NamedGroup, PeerMisbehaved};
use x25519_dalek::{PublicKey, StaticSecret};

use super::random::SharedChance;

thread_local! {
    /// The stream of the host whose turn it is: rustls takes its randomness from a static.
    static TURN: RefCell<Option<SharedChance>> = const { RefCell::new(None) };
}

/// Runs one host's turn with its randomness.
pub(super) fn with_randomness<T>(chance: &SharedChance, turn: impl FnOnce() -> T) -> T {
    let before = TURN.replace(Some(chance.clone()));
    let done = turn();
    TURN.set(before);
    done
}

fn fill(buffer: &mut [u8]) -> Result<(), GetRandomFailed> {
    TURN.with_borrow(|turn| {
        let chance = turn.as_ref().ok_or(GetRandomFailed)?;
        chance.draw(|chance| chance.fill(buffer));
        Ok(())
    })
}

#[derive(Debug)]
struct Seeded;

impl SecureRandom for Seeded {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), GetRandomFailed> {
        fill(buffer)
    }
}

#[derive(Debug)]
struct X25519;

struct Exchange {
    secret: StaticSecret,
    public: PublicKey,
}

impl SupportedKxGroup for X25519 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let mut secret = [0; 32];
        fill(&mut secret)?;
        let secret = StaticSecret::from(secret);
        let public = PublicKey::from(&secret);
        Ok(Box::new(Exchange { secret, public }))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

impl ActiveKeyExchange for Exchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        let peer: [u8; 32] = peer.try_into().map_err(|_| PeerMisbehaved::InvalidKeyShare)?;
        let shared = self.secret.diffie_hellman(&PublicKey::from(peer));
        if !shared.was_contributory() {
            return Err(PeerMisbehaved::InvalidKeyShare.into());
        }
        Ok(SharedSecret::from(&shared.as_bytes()[..]))
    }

    fn pub_key(&self) -> &[u8] {
        self.public.as_bytes()
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

/// The host's wall clock, as TLS holds certificates against it.
struct Wall(Arc<dyn Clock>);

impl fmt::Debug for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TimeProvider for Wall {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_nanos(self.0.now().0)))
    }
}

/// What TLS computes with on a host with this clock.
pub(super) fn crypto(clock: Arc<dyn Clock>) -> Crypto {
    let provider = CryptoProvider {
        kx_groups: vec![&X25519],
        secure_random: &Seeded,
        ..rustls::crypto::ring::default_provider()
    };
    Crypto { provider: Arc::new(provider), time: Arc::new(Wall(clock)) }
}
