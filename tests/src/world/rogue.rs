//! The rogue: an agent with a good certificate of its own that speaks in others' names.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lens_hist::Sparse;
use lens_model::{Arm, Incarnation, InstanceName, Nanos, Sequence, SeriesKey, Slice, Stage};
use lens_service::env::Env;
use lens_service::tls::{self, IdentityFiles};
use lens_wire::{AgentDictionary, ClockOffset, DeltaEncoder, DeltaHead, Hello, Instance, Label};
use tokio::time::{sleep, timeout};

use super::certificates::SERVER;
use super::life::Program;
use super::random::Chance;
use super::run::agent_name;

/// Longest an attempt takes.
const ATTEMPT_MAX: Duration = Duration::from_secs(4);

/// Attempts that reached the aggregator.
pub(super) type Attempts = Arc<AtomicU64>;

/// A program that claims to be one of the first `victims` agents, again and again.
pub(super) fn rogue(
    identity: IdentityFiles,
    victims: usize,
    chance: Chance,
    attempts: &Attempts,
) -> impl Fn() -> Program + use<> {
    let attempts = Arc::clone(attempts);
    move || -> Program {
        let (identity, mut chance) = (identity.clone(), chance.clone());
        let attempts = Arc::clone(&attempts);
        Box::new(move |env, shutdown| {
            Box::pin(async move {
                while !shutdown.is_draining() {
                    sleep(Duration::from_millis(chance.between(200, 2_500))).await;
                    let victim = 1 + chance.place(victims);
                    let claim = claim(&agent_name(victim), &mut chance);
                    if let Ok(Some(())) =
                        timeout(ATTEMPT_MAX, attempt(&env, &identity, claim)).await
                    {
                        attempts.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
    }
}

/// HELLO, names and a delta, all in another's name.
fn claim(victim: &str, chance: &mut Chance) -> Option<Vec<u8>> {
    let mut life = [0; 16];
    chance.fill(&mut life);
    let life = Incarnation(u128::from_le_bytes(life));
    let mut bytes = Vec::new();
    Hello::new(victim.parse().ok()?, life, Label::lossy("rogue/1")).encode(&mut bytes);
    let mut names = AgentDictionary::new();
    let instance = Instance {
        name: InstanceName::new("node-0").ok()?,
        service: Label::lossy("lens"),
        version: Label::lossy("1"),
        zone: Label::lossy(""),
    };
    let instance = names.instance(&instance).ok()?;
    let slice = Slice::new("backend", "rust", "large").ok()?;
    let key = SeriesKey { slice, stage: Stage::A, arm: Arm::Baseline };
    let id = names.series(instance, &key).ok()?;
    let mut encoder = DeltaEncoder::default();
    encoder.histogram(id, &[1_000_u64, 2_000, 3_000].into_iter().collect::<Sparse>()).ok()?;
    while let Some(dict) = names.next_dict(1 << 20) {
        dict.encode(life, &mut bytes).ok()?;
    }
    let head = DeltaHead {
        sequence: Sequence(1),
        start: lens_model::UnixNanos(1_795_262_400_000_000_000),
        duration: Nanos::from_millis(100),
        clock: ClockOffset { offset_nanos: 0, error_nanos: 1 },
    };
    encoder.finish(&head, life, &mut bytes);
    Some(bytes)
}

/// Connects under its own certificate, says what it claims, and waits for the answer's end.
async fn attempt(env: &Env, identity: &IdentityFiles, claim: Option<Vec<u8>>) -> Option<()> {
    let tls = tls::client(identity, lens_wire::ALPN, env.net.crypto()).ok()?;
    let address = env.net.resolve(SERVER).await.ok()??;
    let any: SocketAddr = ([0, 0, 0, 0], 0).into();
    let endpoint = env.net.endpoint(any, None).ok()?;
    let connecting = endpoint.connect_with(env.net.client(tls), address, SERVER).ok()?;
    let connection = connecting.await.ok()?;
    let (mut send, mut receive) = connection.open_bi().await.ok()?;
    send.write_all(&claim?).await.ok()?;
    while let Ok(Some(_)) = receive.read_chunk(64 << 10, true).await {}
    Some(())
}
