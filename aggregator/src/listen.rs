//! The QUIC edge: takes agents in, one long stream each, and says what was merged.
//!
//! The only file of the aggregator that holds a QUIC socket. Everything an unauthenticated peer
//! can make us hold is bounded here; who a peer is comes from its certificate and from nothing it
//! says. docs/wire.md has the protocol; the numbers beside the code are its requirements.

mod limits;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lens_flags::SignedDocument;
use lens_model::limits::AGENTS_MAX;
use lens_model::{AgentName, Incarnation, Sequence, SpiffeId, TrustDomain, UnixNanos};
use lens_service::env::{Env, Serving};
use lens_service::planted::Planted;
use lens_service::shutdown::Shutdown;
use lens_service::tls::{self, IdentityFiles, Peer, TlsError};
use lens_wire::{
    Ack, Capture, Flags, FrameBuffer, FrameError, FromAgent, Hello, Kind, MINOR_CAPTURE,
    MINOR_EXEMPLARS, MINOR_FLAGS, Phase, Reason, Refuse, RefuseCode, Welcome,
};
use parking_lot::Mutex;
use quinn::{Connection, Endpoint, IdleTimeout, RecvStream, SendStream, ServerConfig};
use quinn::{TransportConfig, VarInt};
use thiserror::Error;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tracing::{Instrument, debug, debug_span, info, warn};

use crate::capture::Asked;
use crate::ingest::{Ingest, IngestError, Life, Outcome, Progress, Stream};
use crate::log::Record;
use crate::state::{AgentState, Counters};
use crate::window::{Selection, Span};
use limits::{Admission, Answer, Seat};

pub use limits::Limits;

/// Time between two looks for connections that are too old.
const AGE_LOOK: Duration = Duration::from_millis(500);

/// Handshakes that may be under way at once, and bytes held for them.
const INCOMING_MAX: usize = 512;
const INCOMING_BYTES_MAX: u64 = 64 << 10;
const INCOMING_BYTES_TOTAL_MAX: u64 = 8 << 20;

/// Windows of one connection, bytes: what an agent may have on the way to us unread.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 512 << 10;
const SEND_WINDOW_BYTES: u64 = 64 << 10;

/// How long an agent is asked to stay away from a store that failed, milliseconds.
const STORAGE_RETRY_MILLIS: u32 = 500;

/// Longest a goodbye waits for what was sent before it to be durable.
const GOODBYE_MAX: Duration = Duration::from_secs(10);

/// Pause between two tellings of flags that an agent has not in force.
const FLAGS_AGAIN: Duration = Duration::from_secs(5);

const KEEP_ALIVE: Duration = Duration::from_secs(3);
const IDLE_MAX: Duration = Duration::from_secs(10);

/// Why the listener could not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The identity is unusable.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The address cannot be taken.
    #[error("quic.listen {address}: {source}: stop what listens there, or choose another port")]
    Bind {
        /// Which address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
}

/// Why a connection ended.
#[derive(Debug, Error)]
enum ConnectionEnd {
    #[error("frame refused: {0}")]
    Frame(#[from] FrameError),
    #[error("refused: {0}")]
    Ingest(#[from] IngestError),
    #[error("{text}")]
    Refused { code: RefuseCode, text: String },
    #[error("{0}")]
    Storage(String),
    #[error("{0}")]
    Lost(String),
}

impl ConnectionEnd {
    fn lost(error: impl std::fmt::Display) -> Self {
        Self::Lost(error.to_string())
    }

    fn refusal(&self) -> Option<Refuse> {
        let code = match self {
            Self::Frame(_) | Self::Ingest(IngestError::Gap { .. }) => RefuseCode::Protocol,
            Self::Ingest(IngestError::Dictionary(_) | IngestError::TooLarge(_)) => {
                RefuseCode::Capacity
            }
            Self::Ingest(IngestError::Closed) => RefuseCode::ShuttingDown,
            Self::Refused { code, .. } => *code,
            Self::Storage(_) => RefuseCode::Storage,
            Self::Lost(_) => return None,
        };
        let retry_after_millis = if code == RefuseCode::Storage { STORAGE_RETRY_MILLIS } else { 0 };
        Some(Refuse { code, retry_after_millis, text: Reason::lossy(&self.to_string()) })
    }
}

/// Takes agents in until shutdown.
#[derive(Debug)]
pub struct Listener {
    endpoint: Endpoint,
    ingest: Arc<Ingest>,
    trust_domain: Option<TrustDomain>,
    current: Arc<Mutex<HashMap<AgentName, (u64, Connection)>>>,
    next_id: Arc<AtomicU64>,
    admission: Admission,
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .datagram_receive_buffer_size(None)
        .keep_alive_interval(Some(KEEP_ALIVE));
    if let Ok(idle) = IdleTimeout::try_from(IDLE_MAX) {
        transport.max_idle_timeout(Some(idle));
    }
    transport
}

fn server_config(env: &Env, files: &IdentityFiles) -> Result<ServerConfig, TlsError> {
    let crypto = tls::server(files, lens_wire::ALPN, env.net.crypto())?;
    let mut server = ServerConfig::with_crypto(Arc::new(crypto));
    server
        .transport_config(Arc::new(transport()))
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES_MAX)
        .incoming_buffer_size_total(INCOMING_BYTES_TOTAL_MAX)
        .migration(false);
    Ok(server)
}

/// What resets of this address's connections are made with. The private key is what a host keeps to
/// itself over restarts already; with a renewed one, connections of before end by silence, as they do
/// where another process takes the address.
fn reset_secret(files: &IdentityFiles, address: SocketAddr) -> Result<[u8; 32], TlsError> {
    tls::derived_secret(files, &format!("stateless resets of lens-telemetry at {address}"))
}

/// Takes up renewed certificates for connections to come.
///
/// Connections that stand keep the identity they came with, at most as long as a connection may.
#[derive(Clone, Debug)]
pub struct Renewal {
    env: Env,
    endpoint: Endpoint,
    files: IdentityFiles,
}

impl Renewal {
    /// Reads the identity's files anew.
    ///
    /// # Errors
    /// [`TlsError`] names the file at fault; the identity stays what it was.
    pub fn renew(&self) -> Result<(), TlsError> {
        self.endpoint.set_server_config(Some(server_config(&self.env, &self.files)?));
        Ok(())
    }
}

impl Listener {
    /// Opens the socket.
    ///
    /// # Errors
    /// [`ListenError`] names the file or the address at fault.
    pub fn open(
        address: SocketAddr,
        files: &IdentityFiles,
        trust_domain: Option<TrustDomain>,
        ingest: Arc<Ingest>,
    ) -> Result<Self, ListenError> {
        let env = &ingest.state.env;
        let config = server_config(env, files)?;
        let serving = Serving { config, secret: reset_secret(files, address)? };
        let endpoint = env
            .net
            .endpoint(address, Some(serving))
            .map_err(|source| ListenError::Bind { address, source })?;
        ingest.state.listening.store(true, Ordering::Relaxed);
        Ok(Self {
            endpoint,
            ingest,
            trust_domain,
            current: Arc::default(),
            next_id: Arc::default(),
            admission: Admission::new(Limits::default()),
        })
    }

    /// The same within these limits.
    #[must_use]
    pub fn limited(mut self, limits: Limits) -> Self {
        self.admission = Admission::new(limits);
        self
    }

    /// The address really listened on.
    ///
    /// # Errors
    /// The operating system's.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// What takes up renewed certificates while this runs.
    pub fn renewal(&self, files: &IdentityFiles) -> Renewal {
        let env = self.ingest.state.env.clone();
        Renewal { env, endpoint: self.endpoint.clone(), files: files.clone() }
    }

    /// Accepts agents until shutdown, then tells them to come back later.
    pub async fn run(self, shutdown: Shutdown) {
        // Dropped with this future: a connection does not outlive its listener.
        let mut tasks = JoinSet::new();
        tasks.spawn(warden(self.admission.clone(), Arc::clone(&self.ingest)));
        let mut connections = JoinSet::new();
        loop {
            let incoming = tokio::select! {
                biased;
                () = shutdown.wait() => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
                incoming = self.endpoint.accept() => incoming,
            };
            let Some(incoming) = incoming else { break };
            self.answer(incoming, &shutdown, &mut connections);
        }
        tasks.abort_all();
        self.ingest.state.listening.store(false, Ordering::Relaxed);
        let ended = async { while connections.join_next().await.is_some() {} };
        drop(timeout(Duration::from_secs(2), ended).await);
        // Each connection says goodbye itself; what lingers is cut off.
        drop(timeout(Duration::from_secs(2), self.endpoint.wait_idle()).await);
        self.endpoint.close(VarInt::from_u32(0), b"shutting down");
        drop(timeout(Duration::from_secs(1), self.endpoint.wait_idle()).await);
    }

    fn answer(
        &self,
        incoming: quinn::Incoming,
        shutdown: &Shutdown,
        connections: &mut JoinSet<()>,
    ) {
        let counters = &self.ingest.state.counters;
        let from = incoming.remote_address().ip();
        // An address that was validated already may not be asked again.
        let validated = incoming.remote_address_validated() || !incoming.may_retry();
        let seat = match self.admission.ask(from, validated) {
            Answer::Accept(seat) => seat,
            Answer::Retry => {
                Counters::add(&counters.retries_total, 1);
                // One that may not be retried was told apart above.
                return drop(incoming.retry());
            }
            Answer::Refuse => {
                Counters::add(&counters.connections_refused_total, 1);
                return incoming.refuse();
            }
        };
        let (taken, shutdown) = (self.share(), shutdown.clone());
        let most = self.admission.limits().handshake_max;
        connections.spawn(async move {
            let connection = match incoming.accept() {
                Ok(connecting) => timeout(most, connecting).await,
                Err(error) => Ok(Err(error)),
            };
            let why = match connection {
                Ok(Ok(connection)) => return taken.enter(connection, &seat, shutdown).await,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "took too long".into(),
            };
            seat.failed();
            taken.failed(&why);
        });
    }

    fn share(&self) -> Taken {
        Taken {
            ingest: Arc::clone(&self.ingest),
            trust_domain: self.trust_domain.clone(),
            current: Arc::clone(&self.current),
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            limits: self.admission.limits(),
        }
    }
}

/// Ends connections whose time is up or whose owner is revoked.
async fn warden(admission: Admission, ingest: Arc<Ingest>) {
    let state = &ingest.state;
    let mut revoked = state.security.revocations.changes();
    loop {
        tokio::select! {
            biased;
            changed = revoked.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(AGE_LOOK) => {}
        }
        let out = admission.close_revoked(&state.security.revocations.now());
        let old = admission.close_old(Instant::now(), state.now());
        if out + old > 0 {
            info!(revoked = out, old, "connections ended");
        }
        Counters::add(&state.counters.connections_revoked_total, out as u64);
        Counters::add(&state.counters.connections_aged_total, old as u64);
    }
}

/// What one connection's task holds.
struct Taken {
    ingest: Arc<Ingest>,
    trust_domain: Option<TrustDomain>,
    current: Arc<Mutex<HashMap<AgentName, (u64, Connection)>>>,
    id: u64,
    limits: Limits,
}

impl Taken {
    fn failed(&self, why: &str) {
        Counters::add(&self.ingest.state.counters.handshakes_failed_total, 1);
        debug!(why, "handshake failed");
    }

    /// Finds out who it is, and whether they may hold this connection.
    async fn enter(self, connection: Connection, seat: &Seat, shutdown: Shutdown) {
        let from = connection.remote_address();
        let peer = match tls::peer(&connection) {
            Ok(peer) => peer,
            Err(error) => {
                seat.failed();
                self.failed(&error.to_string());
                warn!(%from, %error, "certificate is no agent's");
                connection.close(VarInt::from_u32(1), b"certificate names no agent");
                return;
            }
        };
        let agent = &peer.id.agent;
        // Placed before it is looked up: whoever is revoked meanwhile is found by one of the two.
        let room = seat.open(&peer, &connection);
        let counters = &self.ingest.state.counters;
        if self.ingest.state.security.revocations.now().agent(agent, &peer.serial) {
            Counters::add(&counters.connections_revoked_total, 1);
            warn!(%agent, %from, serial = peer.serial, "revoked, and kept out");
            connection.close(VarInt::from_u32(2), b"certificate revoked");
            return;
        }
        if !room {
            Counters::add(&counters.connections_refused_total, 1);
            let why = limits::too_many(agent, self.limits.per_agent_max);
            warn!(%agent, %from, why, "connection refused");
            connection.close(VarInt::from_u32(4), why.as_bytes());
            return;
        }
        self.serve(connection, peer, shutdown).await;
    }

    async fn serve(self, connection: Connection, peer: Peer, shutdown: Shutdown) {
        let identity = peer.id.clone();
        let hello_by = Instant::now() + self.limits.hello_max;
        Counters::add(&self.ingest.state.counters.connections_total, 1);
        let opened = timeout_at(hello_by, connection.accept_bi()).await;
        let Ok(Ok((mut send, receive))) = opened else {
            self.failed("no stream opened");
            connection.close(VarInt::from_u32(1), b"no stream opened");
            return;
        };
        let end = self.converse(&connection, &peer, hello_by, &mut send, receive, &shutdown).await;
        match &end {
            Ok(()) => info!(agent = %identity.agent, "agent said goodbye"),
            Err(error) => warn!(agent = %identity.agent, %error, "connection ended"),
        }
        if let Err(error) = end {
            self.refuse(&identity, &mut send, &error).await;
        }
        self.left(&identity);
        connection.close(VarInt::from_u32(0), b"done");
    }

    async fn refuse(&self, identity: &SpiffeId, send: &mut SendStream, end: &ConnectionEnd) {
        let Some(refuse) = end.refusal() else { return };
        let state = &self.ingest.state;
        Counters::add(
            &state.counters.deltas_refused_total,
            u64::from(matches!(end, ConnectionEnd::Ingest(_))),
        );
        if let Some(agent) = state.agents.write().get_mut(&identity.agent) {
            *agent.rejected.entry(end.to_string()).or_default() += 1;
            // Reasons carry numbers; an agent that keeps erring must not grow the map.
            while agent.rejected.len() > 16 {
                agent.rejected.pop_first();
            }
        }
        let mut bytes = Vec::new();
        refuse.encode(&mut bytes);
        // A peer that is gone cannot be told; the outcome is the same.
        drop(
            timeout(Duration::from_secs(1), async {
                send.write_all(&bytes).await.ok()?;
                send.finish().ok()?;
                send.stopped().await.ok()
            })
            .await,
        );
    }

    fn left(&self, identity: &SpiffeId) {
        let mut current = self.current.lock();
        if current.get(&identity.agent).is_some_and(|(id, _)| *id == self.id) {
            current.remove(&identity.agent);
            drop(current);
            let state = &self.ingest.state;
            if let Some(agent) = state.agents.write().get_mut(&identity.agent) {
                agent.leave(state.now());
            }
            state.captures.left(&identity.agent);
            state.tell("agent", identity.agent.as_str(), format!("agent {} left", identity.agent));
        }
    }

    /// Checks a HELLO against the certificate it came under.
    fn check(&self, identity: &SpiffeId, hello: &Hello) -> Result<(), ConnectionEnd> {
        let refused = |code, text: String| Err(ConnectionEnd::Refused { code, text });
        let believed = self.ingest.state.env.planted(Planted::NoIdentityCheck);
        if hello.agent != identity.agent && !believed {
            let text =
                format!("HELLO names agent {}, the certificate {}", hello.agent, identity.agent);
            return refused(RefuseCode::Identity, text);
        }
        if self.trust_domain.as_ref().is_some_and(|domain| *domain != identity.trust_domain) {
            let text = format!("trust domain {} is not served here", identity.trust_domain);
            return refused(RefuseCode::Identity, text);
        }
        let agents = self.ingest.state.agents.read();
        if agents.len() >= AGENTS_MAX && !agents.contains_key(&hello.agent) {
            let text = format!("{AGENTS_MAX} agents are known already");
            return refused(RefuseCode::Capacity, text);
        }
        drop(agents);
        if let Some(code) = hello.refusal() {
            return refused(code, format!("bucket scheme {} is not known here", hello.scheme));
        }
        Ok(())
    }

    async fn converse(
        &self,
        connection: &Connection,
        peer: &Peer,
        hello_by: Instant,
        send: &mut SendStream,
        mut receive: RecvStream,
        shutdown: &Shutdown,
    ) -> Result<(), ConnectionEnd> {
        let mut buffer = FrameBuffer::default();
        let identity = &peer.id;
        let first = timeout_at(hello_by, hello(&mut buffer, &mut receive)).await;
        let late = || ConnectionEnd::Refused {
            code: RefuseCode::Protocol,
            text: format!("no HELLO within {} ms", self.limits.hello_max.as_millis()),
        };
        let (hello, rest) = first.map_err(|_| late())??;
        self.check(identity, &hello)?;
        // What a record carries is the certificate's name; the one said was held against it.
        let agent = hello.agent.clone();
        let identity = SpiffeId { trust_domain: identity.trust_domain.clone(), agent };
        self.replace(&identity.agent, connection);
        let life = (identity.agent.clone(), hello.incarnation);
        let followed = Followed { ingest: Arc::clone(&self.ingest), life: life.clone() };
        let progress = self.ingest.follow(&life);
        tokio::select! {
            biased;
            () = self.ingest.settled(&life) => {}
            end = connection.closed() => return Err(ConnectionEnd::lost(end)),
        }
        let acked = self.resumes(&life, &hello).await?;
        let mut out = Vec::new();
        Welcome::new(&hello, acked, self.ingest.state.now()).encode(&mut out);
        send.write_all(&out).await.map_err(ConnectionEnd::lost)?;
        // Before it is shown as connected: who is shown so is asked.
        let captures = self.ingest.state.captures.subscribe();
        self.entered(&identity, peer.not_after, &hello, connection.remote_address());
        let words = self.ingest.state.flags.subscribe();
        let mut session = Session {
            flags: Told::new(words, hello.common_minor() >= MINOR_FLAGS),
            speaks_exemplars: hello.common_minor() >= MINOR_EXEMPLARS,
            speaks_capture: hello.common_minor() >= MINOR_CAPTURE,
            captures,
            stream: Stream::new(identity, hello.incarnation, acked),
            phase: Phase::Open(hello.incarnation),
            incarnation: hello.incarnation,
            progress,
            acked_told: acked,
            bye: false,
            _followed: followed,
        };
        if let Some(asked) = self.ingest.state.captures.current().filter(|_| session.speaks_capture)
        {
            out.clear();
            self.ask(&session, &asked, &mut out);
            send.write_all(&out).await.map_err(ConnectionEnd::lost)?;
        }
        self.carry(&mut session, &mut buffer, rest, send, &mut receive, shutdown).await
    }

    /// The last durable delta of a life.
    async fn resumes(&self, life: &Life, hello: &Hello) -> Result<Sequence, ConnectionEnd> {
        let state = &self.ingest.state;
        let closed = || ConnectionEnd::Storage("the store is not open".into());
        if let Some(reason) = state.faulted() {
            return Err(ConnectionEnd::Storage(reason));
        }
        if state.env.planted(Planted::NoDedup) || state.env.planted(Planted::DedupByTimeWindow) {
            // Without a memory of its own it has to believe the agent.
            return Ok(Sequence(hello.resume.0.saturating_sub(1)));
        }
        let history = state.history().ok_or_else(closed)?;
        let (agent, incarnation) = life.clone();
        let lives_max = history.lives_max();
        let read = state.env.blocking(move || history.watermark(&agent, incarnation)).await;
        let found = read.map_err(|_| closed())?;
        let acked = found.map_err(|error| ConnectionEnd::Storage(error.to_string()))?;
        acked.ok_or_else(|| ConnectionEnd::Refused {
            code: RefuseCode::Capacity,
            text: format!(
                "{lives_max} lives of this agent are known: keep its spool, or rename it"
            ),
        })
    }

    /// Takes frames and acknowledges what is durable until the connection ends.
    async fn carry(
        &self,
        session: &mut Session,
        buffer: &mut FrameBuffer,
        rest: bytes::Bytes,
        send: &mut SendStream,
        receive: &mut RecvStream,
        shutdown: &Shutdown,
    ) -> Result<(), ConnectionEnd> {
        let (mut pending, mut out) = (rest, Vec::new());
        let goodbye = tokio::time::sleep(GOODBYE_MAX);
        tokio::pin!(goodbye);
        loop {
            out.clear();
            let before = session.bye;
            self.take(session, buffer, &pending, &mut out).await?;
            pending = bytes::Bytes::new();
            if session.bye && !before {
                goodbye.as_mut().reset(Instant::now() + GOODBYE_MAX);
            }
            self.acknowledge(session, &mut out)?;
            session.flags.tell(session.incarnation, &mut out);
            if !out.is_empty() {
                send.write_all(&out).await.map_err(ConnectionEnd::lost)?;
            }
            if session.bye && session.acked_told >= session.stream.received() {
                return Ok(());
            }
            // In one order, so that a simulation repeats itself; each turn looks at all of them.
            tokio::select! {
                biased;
                () = shutdown.wait() => {
                    let code = RefuseCode::ShuttingDown;
                    return Err(ConnectionEnd::Refused { code, text: "shutting down".into() });
                }
                chunk = receive.read_chunk(usize::MAX, true) => {
                    match chunk.map_err(ConnectionEnd::lost)? {
                        Some(chunk) => pending = chunk.bytes,
                        None => return Err(ConnectionEnd::Lost("closed by the agent".into())),
                    }
                }
                // Its sender lives as long as the aggregator.
                _ = session.flags.words.changed(), if session.flags.speaks => {}
                asked = session.captures.recv(), if session.speaks_capture => {
                    // One that was missed was over long ago; its sender lives as long as we.
                    if let Ok(asked) = asked {
                        out.clear();
                        self.ask(session, &asked, &mut out);
                        send.write_all(&out).await.map_err(ConnectionEnd::lost)?;
                    }
                }
                () = sleep_until(session.flags.again), if session.flags.is_due() => {}
                // Its sender is kept for as long as it is followed.
                _ = session.progress.changed() => {}
                () = &mut goodbye, if session.bye => {
                    return Err(ConnectionEnd::Lost("its goodbye waited too long".into()));
                }
            }
        }
    }

    /// Asks the agent for what it holds of the last minutes.
    fn ask(&self, session: &Session, asked: &Asked, out: &mut Vec<u8>) {
        let Selection { slice, stage, arm, .. } = asked.selection.clone();
        let Span { from, to } = asked.span;
        if self.ingest.state.captures.asks(asked.id, session.stream.agent()) {
            Capture { id: asked.id, from, to, slice, stage, arm }.encode(session.incarnation, out);
        }
    }

    /// Says how far the agent's deltas are durable, when that is news.
    fn acknowledge(&self, session: &mut Session, out: &mut Vec<u8>) -> Result<(), ConnectionEnd> {
        let progress = session.progress.borrow_and_update().clone();
        if let Some(reason) = progress.end {
            return Err(ConnectionEnd::Storage(reason));
        }
        let received = session.stream.received();
        let mut acked = progress.acked.min(received).max(session.acked_told);
        if self.ingest.state.env.planted(Planted::AckBeforeDurable) {
            acked = received;
        }
        if acked > session.acked_told || (session.bye && acked == received) {
            Ack { acked, received }.encode(session.incarnation, out);
            session.acked_told = acked;
        }
        Ok(())
    }

    /// Takes every whole frame of `bytes`; answers go to `out`.
    async fn take(
        &self,
        session: &mut Session,
        buffer: &mut FrameBuffer,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), ConnectionEnd> {
        let state = &self.ingest.state;
        let received = state.now();
        Counters::add(&state.counters.bytes_total, bytes.len() as u64);
        let mut chunk = bytes;
        loop {
            // What is to be waited for leaves the buffer's borrow first.
            let record = {
                let Some(frame) = buffer.next_frame(&mut chunk)? else { return Ok(()) };
                Counters::add(&state.counters.frames_total, 1);
                self.frame(session, FromAgent::parse(frame, session.phase)?, received, out)?
            };
            if let Some(record) = record {
                let span = debug_span!("ingest", sequence = record.sequence.0);
                self.ingest.submit(&record).instrument(span).await?;
            }
        }
    }

    /// Takes one frame; gives what is to be handed on.
    fn frame(
        &self,
        session: &mut Session,
        frame: FromAgent<'_>,
        received: UnixNanos,
        out: &mut Vec<u8>,
    ) -> Result<Option<Record>, ConnectionEnd> {
        let state = &self.ingest.state;
        let now = state.now();
        match frame {
            FromAgent::Dict(dict) => {
                session.stream.dict(dict)?;
                self.seen(session, |agent| agent.instances = session.stream.instances());
            }
            FromAgent::Delta(delta) => {
                let outcome = session.stream.delta(state, &delta, now)?;
                self.seen(session, |agent| {
                    agent.last_frame = now;
                    agent.duplicates += u64::from(outcome == Outcome::Duplicate);
                });
                if let Outcome::New(record) = outcome {
                    return Ok(Some(*record));
                }
            }
            FromAgent::Ping(ping) => {
                self.seen(session, |agent| agent.last_frame = now);
                ping.answer(received, now).encode(session.incarnation, out);
            }
            FromAgent::Bye(_) => {
                session.bye = true;
                return Ok(Some(session.stream.goodbye(now)));
            }
            // WIRE-141
            FromAgent::Applied(applied) if session.flags.speaks => {
                session.flags.applied = applied.generation;
                self.seen(session, |agent| agent.applied = Some(applied));
            }
            FromAgent::Applied(_) => return Err(unspoken(Kind::Applied)),
            // WIRE-150
            FromAgent::Exemplars(exemplars) if session.speaks_exemplars => {
                let left_out = session.stream.exemplars(state, &exemplars, now)?;
                self.seen(session, |agent| {
                    for (reason, count) in left_out {
                        *agent.rejected.entry(reason.to_owned()).or_default() += count;
                    }
                });
            }
            FromAgent::Exemplars(_) => return Err(unspoken(Kind::Exemplars)),
            // WIRE-160
            FromAgent::Captured(captured) if session.speaks_capture => {
                let (agent, stream) = (session.stream.agent(), &session.stream);
                state.captures.take(agent, &captured, |id| stream.name(id));
            }
            FromAgent::Captured(_) => return Err(unspoken(Kind::Captured)),
            FromAgent::Skipped(skipped) => debug!(?skipped, "frame skipped"),
            FromAgent::Hello(_) => {
                let text = "HELLO came twice".into();
                return Err(ConnectionEnd::Refused { code: RefuseCode::Protocol, text });
            }
        }
        Ok(None)
    }

    fn seen(&self, session: &Session, change: impl FnOnce(&mut AgentState)) {
        if let Some(agent) = self.ingest.state.agents.write().get_mut(session.stream.agent()) {
            change(agent);
        }
    }

    /// A newer connection of an agent takes the place of its older one.
    fn replace(&self, agent: &AgentName, connection: &Connection) {
        let mut current = self.current.lock();
        if let Some((_, old)) = current.insert(agent.clone(), (self.id, connection.clone())) {
            old.close(VarInt::from_u32(7), b"replaced by a newer connection");
        }
    }

    fn entered(
        &self,
        identity: &SpiffeId,
        certificate_expires: UnixNanos,
        hello: &Hello,
        address: SocketAddr,
    ) {
        let state = &self.ingest.state;
        let now = state.now();
        let mut agents = state.agents.write();
        let agent = agents
            .entry(identity.agent.clone())
            .or_insert_with(|| AgentState::new(identity.to_string(), hello.incarnation, now));
        agent.certificate_expires = Some(certificate_expires);
        agent.version = hello.software.to_string();
        agent.address = Some(address);
        agent.enter(hello.incarnation, now);
        drop(agents);
        info!(agent = %identity.agent, %address, "agent connected");
        let message = format!("agent {} connected from {address}", identity.agent);
        state.tell("agent", identity.agent.as_str(), message);
    }
}

struct Session {
    stream: Stream,
    phase: Phase,
    incarnation: Incarnation,
    progress: watch::Receiver<Progress>,
    acked_told: Sequence,
    bye: bool,
    flags: Told,
    speaks_exemplars: bool,
    speaks_capture: bool,
    captures: broadcast::Receiver<Arc<Asked>>,
    // Dropped after the receiver above it.
    _followed: Followed,
}

/// What an agent was told of flags.
struct Told {
    words: watch::Receiver<Arc<SignedDocument>>,
    /// Whether the connection's minor version has them.
    speaks: bool,
    /// The generation it was told last, if any.
    told: Option<u64>,
    /// The generation it has in force.
    applied: u64,
    /// When it is told again, unless it has it in force by then.
    again: Instant,
}

impl Told {
    /// Nothing was told yet, and nothing is in force.
    fn new(words: watch::Receiver<Arc<SignedDocument>>, speaks: bool) -> Self {
        Self { words, speaks, told: Some(0), applied: 0, again: Instant::now() }
    }

    /// Whether the agent has something else in force than what it was told.
    fn is_due(&self) -> bool {
        self.speaks && self.words.borrow().generation() != Some(self.applied)
    }

    /// Tells what is news, or was not taken for a while. (WIRE-140)
    fn tell(&mut self, incarnation: Incarnation, out: &mut Vec<u8>) {
        // Not what the channel has marked as seen: waiting for a change marks it, before it is told.
        let news = self.words.borrow().generation() != self.told;
        if !self.speaks || !(news || self.is_due() && Instant::now() >= self.again) {
            return;
        }
        self.again = Instant::now() + FLAGS_AGAIN;
        let signed = Arc::clone(&self.words.borrow_and_update());
        self.told = signed.generation();
        let (key, signature, document) = (signed.key, signed.signature, signed.bytes.clone());
        Flags { key, signature, document }.encode(incarnation, out);
    }
}

/// A frame came that is of a later minor version than the connection's. (WIRE-003)
fn unspoken(kind: Kind) -> ConnectionEnd {
    let text = format!("{kind} is not of this connection's minor version");
    ConnectionEnd::Refused { code: RefuseCode::Protocol, text }
}

/// A life is followed for as long as this lives.
struct Followed {
    ingest: Arc<Ingest>,
    life: Life,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.ingest.unfollow(&self.life);
    }
}

/// The first frame, which must be HELLO, and the bytes that came behind it.
async fn hello(
    buffer: &mut FrameBuffer,
    receive: &mut RecvStream,
) -> Result<(Hello, bytes::Bytes), ConnectionEnd> {
    loop {
        let chunk = receive.read_chunk(usize::MAX, true).await.map_err(ConnectionEnd::lost)?;
        let Some(chunk) = chunk else {
            return Err(ConnectionEnd::Lost("closed before HELLO".into()));
        };
        let mut bytes = &chunk.bytes[..];
        if let Some(frame) = buffer.next_frame(&mut bytes)? {
            let FromAgent::Hello(hello) = FromAgent::parse(frame, Phase::Opening)? else {
                let text = "the first frame is not HELLO".into();
                return Err(ConnectionEnd::Refused { code: RefuseCode::Protocol, text });
            };
            return Ok((hello, bytes::Bytes::copy_from_slice(bytes)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(generation: u64) -> Arc<SignedDocument> {
        let bytes = [&[1][..], &generation.to_le_bytes()].concat();
        Arc::new(SignedDocument { key: [0; 32], signature: [0; 64], bytes })
    }

    /// A kill right after a change of share does not wait until the share would be told again.
    #[tokio::test]
    async fn what_follows_at_once_is_told_at_once_and_nothing_twice() {
        let (sender, receiver) = watch::channel(words(0));
        let mut told = Told::new(receiver, true);
        let tell = |told: &mut Told| {
            let mut out = Vec::new();
            told.tell(Incarnation(1), &mut out);
            !out.is_empty()
        };
        assert!(!tell(&mut told), "there is nothing to tell yet");
        for generation in [1, 2, 3] {
            sender.send_replace(words(generation));
            told.words.changed().await.unwrap();
            assert!(tell(&mut told), "generation {generation} was kept back");
            assert!(!tell(&mut told), "generation {generation} was told twice");
        }
    }
}
