//! The QUIC edge: one long-lived stream to an aggregator, reconnected with backoff, resumed.
//!
//! The only file of the agent that holds a socket. What is said over it is [`crate::ship`]'s
//! business; this connects, moves bytes both ways and measures time.

use std::collections::VecDeque;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lens_model::{Incarnation, Sequence, UnixNanos};
use lens_service::env::{Abandoned, Env};
use lens_service::shutdown::Shutdown;
use lens_service::tls::{self, Stamp};
use lens_wire::{Bye, Capture, FrameBuffer, FromAggregator, Hello, Label, Labels, Phase, Welcome};
use quinn::{
    ConnectionError, Endpoint, IdleTimeout, ReadError, RecvStream, SendStream, TransportConfig,
    VarInt,
};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::{Instrument, debug, debug_span, info, warn};

use crate::config::Config;
use crate::exemplars::Waiting;
use crate::flags::Flags;
use crate::hindsight::{Giving, Hindsight};
use crate::ship::{Clock, Received, Session, ShipError};
use crate::spool::{SharedSpool, SpoolError};
use crate::status::{Counters, Status};

/// Longest an attempt to connect and be welcomed may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// First and longest pause between attempts; each is twice the last, with jitter.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// Pause between clock measurements.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// Pause between two looks at the identity's files.
const CERTIFICATE_LOOK: Duration = Duration::from_secs(2);

/// Longest deltas wait for the first clock measurement.
const FIRST_CLOCK_MAX: Duration = Duration::from_secs(1);

/// Longest the aggregator is given to take a farewell.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// Keep-alive and idle limits: a dead path is noticed within five seconds, so that a drain of eight
/// has time left for another attempt.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
const IDLE_MAX: Duration = Duration::from_secs(5);

/// The code an aggregator closes a connection with whose agent has come again (docs/wire.md).
const REPLACED: VarInt = VarInt::from_u32(7);

/// Bytes a peer may have on the way to us: acknowledgements only, a frame is 26 bytes.
const RECEIVE_WINDOW_BYTES: u32 = 64 << 10;

/// Captures answered at once; one more is not.
const CAPTURES_MAX: usize = 4;

/// Why a connection could not be made or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The endpoint's name has no address.
    #[error("{endpoint} has no address: {detail}")]
    Resolve {
        /// What was looked up.
        endpoint: String,
        /// What the resolver said.
        detail: String,
    },
    /// The local socket could not be opened.
    #[error("no local UDP socket: {0}")]
    Socket(std::io::Error),
    /// The attempt took too long.
    #[error("{endpoint} did not answer within {} s", CONNECT_MAX.as_secs())]
    Timeout {
        /// Who did not answer.
        endpoint: String,
    },
    /// QUIC or TLS failed; the text says which certificate check it was, where it was one.
    #[error("connection to {endpoint} failed: {detail}")]
    Connect {
        /// With whom.
        endpoint: String,
        /// What the library said.
        detail: String,
    },
    /// The stream broke.
    #[error("connection lost: {0}")]
    Lost(String),
    /// The certificate was renewed.
    #[error("the certificate was renewed: connecting anew with it")]
    Renewed,
    /// Another agent took the place of this one.
    #[error("another agent with this identity took over: issue each its own certificate")]
    Replaced,
    /// The aggregator has not what it once acknowledged, or has what was never sent.
    #[error(
        "{endpoint} has deltas up to {acked} of this agent, not {from} to {to}: numbering begins anew"
    )]
    Forgotten {
        /// With whom.
        endpoint: String,
        /// What it has.
        acked: Sequence,
        /// The least it can have: what it or another acknowledged.
        from: Sequence,
        /// The most it can have: what there is.
        to: Sequence,
    },
    /// The spool had lost something, and it is known now what of it was merged.
    #[error(
        "{endpoint} has deltas up to {merged} of the life that the spool lost something of: what is left comes in another"
    )]
    Settled {
        /// With whom.
        endpoint: String,
        /// What it has.
        merged: Sequence,
    },
    /// The spool cannot give what is due, or cannot begin another life.
    #[error("the spool: {0}")]
    Spool(#[from] SpoolError),
    /// A blocking job gave nothing back.
    #[error(transparent)]
    Abandoned(#[from] Abandoned),
    /// There is no randomness for another life.
    #[error("no randomness: {0}")]
    Random(std::io::Error),
    /// The protocol ended it.
    #[error(transparent)]
    Ship(#[from] ShipError),
}

/// What goes over a connection beside deltas.
#[derive(Debug)]
pub struct Beside {
    /// The control plane's word.
    pub flags: Arc<Flags>,
    /// Slow requests that wait to be sent.
    pub slow: Arc<Waiting>,
    /// The last minutes, where they are kept.
    pub hindsight: Option<Arc<Hindsight>>,
}

/// Keeps a session going until shutdown, then drains it.
///
/// Returns whether everything spooled was acknowledged.
pub async fn run(
    env: Env,
    config: Arc<Config>,
    shared: SharedSpool,
    status: Arc<Status>,
    beside: Beside,
    drained: Shutdown,
) -> bool {
    let mut backoff = BACKOFF_MIN;
    let (mut turn, mut last_attempts) = (0, 0);
    let mut clock = Clock::default();
    let around =
        Around { env: &env, config: &config, shared: &shared, status: &status, beside: &beside };
    loop {
        let endpoint = config.endpoints[turn % config.endpoints.len()].clone();
        turn += 1;
        status.link.lock().endpoint.clone_from(&endpoint);
        let incarnation = shared.outbox.former().unwrap_or_else(|| shared.outbox.incarnation());
        let link = match connect(&env, &config, &endpoint, incarnation).await {
            Ok(link) => link.resumable(&env, &shared).await,
            Err(error) => Err(error),
        };
        let ended = match link {
            Ok(link) => {
                info!(endpoint, acked = link.welcome.acked.0, "connected");
                Counters::add(&status.counters.connects_total, 1);
                {
                    let mut shown = status.link.lock();
                    (shown.connected, shown.last_error) = (true, None);
                }
                backoff = BACKOFF_MIN;
                status.certificate.lock().expires = link.expires;
                let ended = link.carry(&around, &mut clock, &drained).await;
                status.link.lock().connected = false;
                match ended {
                    Ok(()) => return true,
                    Err(error) => error,
                }
            }
            Err(error) => {
                Counters::add(&status.counters.connect_failures_total, 1);
                error
            }
        };
        let pause = pause_after(&env, &ended, backoff);
        warn!(endpoint, error = %ended, retry_ms = pause.as_millis(), "not connected");
        status.link.lock().last_error = Some(ended.to_string());
        backoff = (backoff * 2).min(BACKOFF_MAX);
        tokio::select! {
            biased;
            () = sleep(pause) => {}
            () = drained.wait() => {
                if shared.outbox.level().frames == 0 {
                    return true;
                }
                // Each aggregator is tried once more for what is left, and one that has forgotten
                // this life twice; a dead one is not waited for.
                if last_attempts > config.endpoints.len() {
                    return false;
                }
                last_attempts += 1;
            }
        }
    }
}

/// Backoff with jitter between half and the whole; an aggregator's own wish counts if longer.
fn pause_after(env: &Env, error: &LinkError, backoff: Duration) -> Duration {
    // Without randomness every agent backs off alike, which is worse for the aggregator only.
    let mut random = [u8::MAX];
    let random = env.random.fill(&mut random).map_or(u8::MAX, |()| random[0]);
    let jittered = backoff / 2 + (backoff / 2) * u32::from(random) / 255;
    match error {
        LinkError::Ship(ShipError::Refused(refuse)) => {
            let asked = Duration::from_millis(u64::from(refuse.retry_after_millis));
            let least = if refuse.code.is_passing() { Duration::ZERO } else { BACKOFF_MAX };
            jittered.max(asked.min(Duration::from_secs(300))).max(least)
        }
        // Taking the place back at once would only have the two displace each other for ever.
        LinkError::Replaced => jittered.max(BACKOFF_MAX),
        _ => jittered,
    }
}

/// What every session of an agent works with.
struct Around<'a> {
    env: &'a Env,
    config: &'a Arc<Config>,
    shared: &'a SharedSpool,
    status: &'a Status,
    beside: &'a Beside,
}

struct Link {
    endpoint: Endpoint,
    connection: quinn::Connection,
    send: SendStream,
    receive: RecvStream,
    buffer: FrameBuffer,
    incarnation: Incarnation,
    welcome: Welcome,
    /// The identity's files as they were read, and when the certificate ends.
    stamp: Stamp,
    expires: Option<UnixNanos>,
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(RECEIVE_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW_BYTES))
        .datagram_receive_buffer_size(None)
        .keep_alive_interval(Some(KEEP_ALIVE));
    if let Ok(idle) = IdleTimeout::try_from(IDLE_MAX) {
        transport.max_idle_timeout(Some(idle));
    }
    transport
}

async fn connect(
    env: &Env,
    config: &Config,
    endpoint: &str,
    incarnation: Incarnation,
) -> Result<Link, LinkError> {
    match timeout(CONNECT_MAX, handshake(env, config, endpoint, incarnation)).await {
        Ok(done) => done,
        Err(_) => Err(LinkError::Timeout { endpoint: endpoint.into() }),
    }
}

async fn resolve(env: &Env, endpoint: &str) -> Result<SocketAddr, LinkError> {
    let fail = |detail: String| LinkError::Resolve { endpoint: endpoint.into(), detail };
    let found = env.net.resolve(endpoint).await.map_err(|e| fail(e.to_string()))?;
    found.ok_or_else(|| fail("none found".into()))
}

async fn handshake(
    env: &Env,
    config: &Config,
    name: &str,
    incarnation: Incarnation,
) -> Result<Link, LinkError> {
    let fail = |detail: String| LinkError::Connect { endpoint: name.into(), detail };
    let address = resolve(env, name).await?;
    // Read anew for each connection, so that a renewed certificate is taken up. The stamp is taken
    // first: what changes in between is then noticed, not missed.
    let stamp = config.identity_files.stamp();
    let expires = tls::expiry_of_file(&config.identity_files.cert).ok();
    let crypto = tls::client(&config.identity_files, lens_wire::ALPN, env.net.crypto())
        .map_err(|error| fail(error.to_string()))?;
    let local: SocketAddr =
        if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let endpoint = env.net.endpoint(local, None).map_err(LinkError::Socket)?;
    let mut client = env.net.client(crypto);
    client.transport_config(Arc::new(transport()));
    let host = name.rsplit_once(':').map_or(name, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let server_name = config.server_name.as_deref().unwrap_or(host);
    let connection = endpoint
        .connect_with(client, address, server_name)
        .map_err(|error| fail(told(&error)))?
        .await
        .map_err(|error| fail(told(&error)))?;
    let lost = |error: &(dyn Error + 'static)| fail(told(error));
    let (mut send, mut receive) = connection.open_bi().await.map_err(|e| lost(&e))?;
    let mut hello = Hello::new(
        config.identity.agent.clone(),
        incarnation,
        Label::lossy(concat!("lens-agent/", env!("CARGO_PKG_VERSION"))),
    );
    hello.labels = labels(&config.labels);
    let mut bytes = Vec::new();
    hello.encode(&mut bytes);
    send.write_all(&bytes).await.map_err(|e| lost(&e))?;
    let mut buffer = FrameBuffer::default();
    let welcome = loop {
        let chunk = receive.read_chunk(64 << 10, true).await.map_err(|e| lost(&e))?;
        let chunk = chunk.ok_or_else(|| fail("closed without an answer".into()))?;
        let mut bytes = &chunk.bytes[..];
        if let Some(frame) = buffer.next_frame(&mut bytes).map_err(ShipError::from)? {
            match FromAggregator::parse(frame, Phase::Opening).map_err(ShipError::from)? {
                FromAggregator::Welcome(welcome) => break welcome,
                FromAggregator::Refuse(refuse) => return Err(ShipError::Refused(refuse).into()),
                _ => return Err(ShipError::OutOfPlace.into()),
            }
        }
    };
    Ok(Link { endpoint, connection, send, receive, buffer, incarnation, welcome, stamp, expires })
}

/// What an error says, what caused it, and what an operator can do about it.
fn told(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut remedy = None;
    let mut next = Some(error);
    while let Some(error) = next {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        remedy = remedy.or_else(|| remedy_of(error.downcast_ref()?));
        next = error.source();
    }
    if let Some(remedy) = remedy {
        text.push_str(": ");
        text.push_str(remedy);
    }
    text
}

const OURS_REFUSED: &str = "the aggregator does not accept this agent's certificate: identity.cert \
    must be valid and issued by the authority that the aggregator holds agents against";

const THEIRS_REFUSED: &str = "the aggregator's certificate is not accepted: identity.ca must be the \
    authority that issued it, and aggregator.server_name, or else the endpoint's host, a name in it";

/// What to do when a certificate was the reason.
fn remedy_of(error: &ConnectionError) -> Option<&'static str> {
    /// TLS alerts about certificates and their signatures (RFC 8446, section 6).
    const ALERTS: [u64; 9] = [42, 43, 44, 45, 46, 48, 49, 51, 116];
    // QUIC carries an alert as 0x100 and its number (RFC 9001, section 4.8).
    let of_certificate = |code: u64| ALERTS.iter().any(|alert| code == 0x100 + alert);
    match error {
        ConnectionError::ConnectionClosed(closed) if of_certificate(closed.error_code.into()) => {
            Some(OURS_REFUSED)
        }
        ConnectionError::TransportError(error) if of_certificate(error.code.into()) => {
            Some(THEIRS_REFUSED)
        }
        _ => None,
    }
}

fn labels(pairs: &[(String, String)]) -> Labels {
    let mut labels = Labels::new();
    for (name, value) in pairs {
        if let Err(error) = labels.set(Label::lossy(name), Label::lossy(value)) {
            warn!(name, %error, "label left out");
        }
    }
    labels
}

impl Link {
    /// Makes sure that this life's numbers go on from what the aggregator has of it.
    ///
    /// One that was restarted without its memory would wait for deltas that were forgotten when it
    /// acknowledged them; one that has more than was sent mixes this life up with another. Either
    /// way what is held gets new numbers in a new life. (WIRE-075, WIRE-076)
    async fn resumable(self, env: &Env, shared: &SharedSpool) -> Result<Self, LinkError> {
        if shared.outbox.former() == Some(self.incarnation) {
            self.settle(env, shared).await?;
        }
        let (level, acked) = (shared.outbox.level(), self.welcome.acked);
        let same_life = self.incarnation == shared.outbox.incarnation();
        if same_life && (level.acked..=level.last).contains(&acked) {
            return Ok(self);
        }
        let life = env.incarnation().map_err(LinkError::Random)?;
        let outbox = Arc::clone(&shared.outbox);
        if same_life {
            env.blocking(move || outbox.renew(life)).await??;
        }
        let (from, to) = (level.acked, level.last);
        self.connection.close(VarInt::from_u32(0), b"another life");
        let endpoint = self.connection.remote_address().to_string();
        Err(LinkError::Forgotten { endpoint, acked, from, to })
    }

    /// Tells a spool that lost something what the aggregator has of it. (WIRE-077)
    async fn settle(&self, env: &Env, shared: &SharedSpool) -> Result<(), LinkError> {
        let life = env.incarnation().map_err(LinkError::Random)?;
        let (outbox, merged) = (Arc::clone(&shared.outbox), self.welcome.acked);
        env.blocking(move || outbox.settle(merged, life)).await??;
        if shared.outbox.incarnation() == self.incarnation {
            return Ok(());
        }
        self.connection.close(VarInt::from_u32(0), b"another life");
        let endpoint = self.connection.remote_address().to_string();
        Err(LinkError::Settled { endpoint, merged })
    }

    /// Ships until the connection breaks or everything is drained after shutdown.
    async fn carry(
        mut self,
        around: &Around<'_>,
        clock: &mut Clock,
        drained: &Shutdown,
    ) -> Result<(), LinkError> {
        let Around { env, config, shared, status, beside } = *around;
        let Beside { flags, slow, hindsight } = beside;
        let mut session = Session::new(self.incarnation, &self.welcome);
        shared.outbox.acknowledge(self.welcome.acked);
        let mut pings = interval(PING_INTERVAL);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = interval(CERTIFICATE_LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let opened = Instant::now();
        let mut applied = flags.applied();
        applied.mark_changed();
        if !clock.offset().is_measured() {
            flags.clock_is_ahead(ahead(self.welcome.server_time, env.now()));
        }
        let (mut out, mut givings) = (Vec::new(), VecDeque::new());
        loop {
            let may_ship = clock.offset().is_measured() || opened.elapsed() > FIRST_CLOCK_MAX;
            if may_ship {
                self.pump(env, &mut session, shared, status, clock, &mut out).await?;
                self.exemplify(&mut session, slow, status, clock, &mut out).await?;
                self.give(&mut session, &mut givings, status, clock, &mut out).await?;
            }
            let level = shared.outbox.level();
            if drained.is_draining() && level.frames == 0 {
                return self.close(&mut out).await;
            }
            // The rare first, so that none starves; in one order, so that a simulation repeats.
            tokio::select! {
                biased;
                () = drained.wait(), if !drained.is_draining() => {}
                _ = pings.tick() => {
                    out.clear();
                    session.ping(env.now(), &mut out);
                    self.write(&out, status).await?;
                }
                // Its sender lives as long as the agent.
                _ = applied.changed() => {
                    out.clear();
                    session.applied(&applied.borrow_and_update().clone(), &mut out);
                    self.write(&out, status).await?;
                }
                _ = looks.tick() => self.renewed(env, config, status).await?,
                () = status.reload.notified() => {
                    self.stamp = Stamp::default();
                    self.renewed(env, config, status).await?;
                }
                chunk = self.receive.read_chunk(64 << 10, true) => {
                    let chunk = chunk.map_err(|error| match &error {
                        ReadError::ConnectionLost(ConnectionError::ApplicationClosed(closed))
                            if closed.error_code == REPLACED => LinkError::Replaced,
                        _ => LinkError::Lost(told(&error)),
                    })?;
                    let Some(chunk) = chunk else {
                        return Err(LinkError::Lost("closed by the aggregator".into()));
                    };
                    let mut bytes = &chunk.bytes[..];
                    while let Some(frame) =
                        self.buffer.next_frame(&mut bytes).map_err(ShipError::from)?
                    {
                        match session.receive(frame, env.now())? {
                            Received::Acked(acked) => acknowledged(env, shared, status, acked),
                            Received::Clock(offset) => {
                                clock.measure(offset);
                                flags.clock_is_ahead(clock.offset().offset_nanos);
                                *status.clock.lock() = clock.offset();
                                debug!(offset_nanos = offset.offset_nanos, "clock measured");
                            }
                            Received::Flags(signed) => {
                                // Signatures and syncs: off the threads that serve the network.
                                let flags = Arc::clone(flags);
                                env.blocking(move || flags.take(&signed)).await?;
                            }
                            Received::Capture(asked) => {
                                let offset = clock.offset().offset_nanos;
                                let giving = give(env, hindsight.as_ref(), asked, offset).await?;
                                if givings.len() < CAPTURES_MAX {
                                    givings.push_back(giving);
                                }
                            }
                            Received::Nothing => {}
                        }
                    }
                }
                () = shared.changed.notified() => {}
                // More is to be given, after the deltas that are due.
                () = std::future::ready(()), if may_ship && !givings.is_empty() => {}
                () = sleep(FIRST_CLOCK_MAX), if !may_ship => {}
            }
        }
    }

    /// Ends a session whose certificate was renewed, so that the next one has it; files that do
    /// not fit leave the session as it is, and are shown.
    async fn renewed(
        &mut self,
        env: &Env,
        config: &Arc<Config>,
        status: &Status,
    ) -> Result<(), LinkError> {
        let (held, shared, crypto) = (self.stamp.clone(), Arc::clone(config), env.net.crypto());
        let job = move || {
            let stamp = shared.identity_files.stamp();
            let fresh = (stamp != held)
                .then(|| tls::client(&shared.identity_files, lens_wire::ALPN, crypto).map(drop));
            (stamp, fresh)
        };
        let Ok((stamp, Some(fresh))) = env.blocking(job).await else { return Ok(()) };
        self.stamp = stamp;
        status.certificate.lock().problem = fresh.as_ref().err().map(ToString::to_string);
        match fresh {
            Ok(()) => {
                self.connection.close(VarInt::from_u32(0), b"certificate renewed");
                Err(LinkError::Renewed)
            }
            Err(error) => {
                warn!(%error, "certificate not taken up, the old one stays");
                Ok(())
            }
        }
    }

    async fn pump(
        &mut self,
        env: &Env,
        session: &mut Session,
        shared: &SharedSpool,
        status: &Status,
        clock: &Clock,
        out: &mut Vec<u8>,
    ) -> Result<(), LinkError> {
        loop {
            out.clear();
            let offset = clock.offset();
            if let Some(due) = session.due()
                && due <= shared.outbox.level().last
                && shared.outbox.get(due).is_none()
            {
                // Read back from the disk: off the threads that serve the network.
                let outbox = Arc::clone(&shared.outbox);
                env.blocking(move || outbox.load(due)).await??;
            }
            if !session.next(&*shared.outbox, offset, out)? {
                return Ok(());
            }
            let span = debug_span!("ship", bytes = out.len());
            self.write(out, status).instrument(span).await?;
            Counters::add(&status.counters.deltas_sent_total, 1);
        }
    }

    /// Sends the slow requests that wait, to an aggregator that takes them.
    async fn exemplify(
        &mut self,
        session: &mut Session,
        slow: &Waiting,
        status: &Status,
        clock: &Clock,
        out: &mut Vec<u8>,
    ) -> Result<(), LinkError> {
        if !session.speaks_exemplars() {
            return Ok(());
        }
        let waiting = slow.take();
        if waiting.is_empty() {
            return Ok(());
        }
        out.clear();
        session.exemplars(&waiting, clock.offset(), out)?;
        self.write(out, status).await?;
        Counters::add(&status.counters.exemplars_sent_total, waiting.len() as u64);
        Ok(())
    }

    /// Sends one more frame of what captures asked for.
    async fn give(
        &mut self,
        session: &mut Session,
        givings: &mut VecDeque<Giving>,
        status: &Status,
        clock: &Clock,
        out: &mut Vec<u8>,
    ) -> Result<(), LinkError> {
        let Some(giving) = givings.front_mut() else { return Ok(()) };
        out.clear();
        if session.captured(giving, clock.offset(), out)? {
            givings.pop_front();
        }
        self.write(out, status).await
    }

    async fn write(&mut self, bytes: &[u8], status: &Status) -> Result<(), LinkError> {
        self.send.write_all(bytes).await.map_err(|error| LinkError::Lost(told(&error)))?;
        Counters::add(&status.counters.bytes_sent_total, bytes.len() as u64);
        Ok(())
    }

    async fn close(mut self, out: &mut Vec<u8>) -> Result<(), LinkError> {
        out.clear();
        Bye.encode(self.incarnation, out);
        // Everything is acknowledged, but without a farewell this host counts as missing. What is on
        // its way goes with the connection, so that is left to the aggregator to close.
        drop(self.send.write_all(out).await);
        drop(self.send.finish());
        drop(timeout(FAREWELL_MAX, self.connection.closed()).await);
        self.connection.close(VarInt::from_u32(0), b"bye");
        drop(timeout(Duration::from_secs(1), self.endpoint.wait_idle()).await);
        Ok(())
    }
}

/// What is held of what a capture asks for: nothing where nothing is kept.
async fn give(
    env: &Env,
    hindsight: Option<&Arc<Hindsight>>,
    asked: Capture,
    ahead: i64,
) -> Result<Giving, LinkError> {
    let Some(held) = hindsight.map(Arc::clone) else {
        let (id, held_from) = (asked.id, asked.to.shifted(ahead.saturating_neg()));
        return Ok(Giving { id, held_from, left_out: 0, left: VecDeque::new() });
    };
    // Walks the whole ring: off the threads that serve the network.
    Ok(env.blocking(move || held.give(&asked, ahead)).await?)
}

/// How far one clock is ahead of another, nanoseconds.
fn ahead(theirs: UnixNanos, ours: UnixNanos) -> i64 {
    let nanos = i128::from(theirs.0) - i128::from(ours.0);
    i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
}

fn acknowledged(env: &Env, shared: &SharedSpool, status: &Status, acked: Sequence) {
    shared.outbox.acknowledge(acked);
    status.link.lock().last_ack = Some(env.now());
}
