//! An agent made by hand: speaks the protocol frame by frame, rightly or wrongly.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lens_hist::Sparse;
use lens_model::{Incarnation, InstanceName, Nanos, Sequence, SeriesKey};
use lens_service::time::unix_now;
use lens_service::tls::{self, IdentityFiles};
use lens_wire::{
    AgentDictionary, ClockOffset, DeltaEncoder, DeltaHead, FrameBuffer, FromAggregator, Hello,
    Instance, Label, Phase, Refuse, RefuseCode, Welcome,
};
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, RecvStream, SendStream, VarInt};
use tokio::time::timeout;

/// Longest an answer is waited for.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// One connection with its one stream.
pub struct Peer {
    /// The connection.
    pub connection: Connection,
    /// Its stream, towards the aggregator.
    pub send: SendStream,
    receive: RecvStream,
    buffer: FrameBuffer,
    pending: Vec<u8>,
    incarnation: Incarnation,
    names: AgentDictionary,
    _endpoint: Endpoint,
}

/// A client with this identity, as an agent configures it.
pub fn client(identity: &IdentityFiles) -> ClientConfig {
    ClientConfig::new(Arc::new(
        tls::client(identity, lens_wire::ALPN, tls::Crypto::default()).unwrap(),
    ))
}

/// Connects with any client.
pub async fn connect(to: &str, client: ClientConfig) -> Result<(Endpoint, Connection), String> {
    let local: SocketAddr = ([127, 0, 0, 1], 0).into();
    let endpoint = Endpoint::client(local).unwrap();
    let connecting = endpoint.connect_with(client, to.parse().unwrap(), "localhost").unwrap();
    let connection = timeout(ANSWER_MAX, connecting).await.map_err(|error| error.to_string())?;
    Ok((endpoint, connection.map_err(|error| error.to_string())?))
}

impl Peer {
    /// Connects and opens the stream, and says nothing yet. As an agent would, it comes again while
    /// the connections that this identity had before are still being closed.
    pub async fn open(to: &str, identity: &IdentityFiles, incarnation: Incarnation) -> Self {
        let deadline = Instant::now() + ANSWER_MAX;
        let (endpoint, connection, (send, receive)) = loop {
            let error = match connect(to, client(identity)).await {
                Ok((endpoint, connection)) => match connection.open_bi().await {
                    Ok(stream) => break (endpoint, connection, stream),
                    Err(error) => error.to_string(),
                },
                Err(error) => error,
            };
            assert!(Instant::now() < deadline, "no stream: {error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        Self {
            connection,
            send,
            receive,
            buffer: FrameBuffer::default(),
            pending: Vec::new(),
            incarnation,
            names: AgentDictionary::new(),
            _endpoint: endpoint,
        }
    }

    /// Connects and is let in under this name.
    pub async fn enter(
        to: &str,
        identity: &IdentityFiles,
        name: &str,
        incarnation: Incarnation,
    ) -> (Self, Welcome) {
        let hello = Self::hello_of(name, incarnation);
        match Self::begin(to, identity, incarnation, &hello).await {
            (peer, FromAggregator::Welcome(welcome)) => (peer, welcome),
            (_, other) => panic!("not let in: {other:?}"),
        }
    }

    /// Connects, says these bytes first, and returns what is answered. As an agent would, it comes
    /// again when it is sent away because the connections that this identity had before are still
    /// being closed.
    pub async fn begin(
        to: &str,
        identity: &IdentityFiles,
        incarnation: Incarnation,
        bytes: &[u8],
    ) -> (Self, FromAggregator) {
        let crowded = VarInt::from_u32(u32::from(RefuseCode::Capacity.code()));
        let deadline = Instant::now() + ANSWER_MAX;
        loop {
            let mut peer = Self::open(to, identity, incarnation).await;
            // Whether it was sent away before or after is seen from the answer.
            drop(peer.send.write_all(bytes).await);
            if let Some(answer) = peer.answer(Phase::Opening).await {
                return (peer, answer);
            }
            match peer.connection.close_reason() {
                Some(ConnectionError::ApplicationClosed(close))
                    if close.error_code == crowded && Instant::now() < deadline => {}
                reason => panic!("sent away without an answer: {reason:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn hello_of(name: &str, incarnation: Incarnation) -> Vec<u8> {
        let mut bytes = Vec::new();
        let software = Label::lossy("peer/1");
        Hello::new(name.parse().unwrap(), incarnation, software).encode(&mut bytes);
        bytes
    }

    /// Sends HELLO under this name.
    pub async fn hello(&mut self, name: &str) {
        self.say(&Self::hello_of(name, self.incarnation)).await;
    }

    /// Sends bytes.
    pub async fn say(&mut self, bytes: &[u8]) {
        self.send.write_all(bytes).await.unwrap();
    }

    /// The next frame; `None` when the connection ended instead.
    pub async fn answer(&mut self, phase: Phase) -> Option<FromAggregator> {
        timeout(ANSWER_MAX, self.next(phase)).await.expect("an answer in time")
    }

    async fn next(&mut self, phase: Phase) -> Option<FromAggregator> {
        loop {
            let mut bytes = &self.pending[..];
            if let Some(frame) = self.buffer.next_frame(&mut bytes).unwrap() {
                let parsed = FromAggregator::parse(frame, phase).unwrap();
                let taken = self.pending.len() - bytes.len();
                self.pending.drain(..taken);
                return Some(parsed);
            }
            self.pending.clear();
            match self.receive.read_chunk(64 << 10, true).await {
                Ok(Some(chunk)) => self.pending.extend_from_slice(&chunk.bytes),
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// The refusal that comes next, after any acknowledgements.
    pub async fn refusal(&mut self, phase: Phase) -> Refuse {
        loop {
            match self.answer(phase).await {
                Some(FromAggregator::Refuse(refuse)) => return refuse,
                Some(
                    FromAggregator::Ack(_) | FromAggregator::Pong(_) | FromAggregator::Flags(_),
                ) => {}
                other => panic!("expected REFUSE, got {other:?}"),
            }
        }
    }

    /// Waits until this delta is acknowledged.
    pub async fn acknowledged(&mut self, sequence: u64) {
        loop {
            match self.answer(self.phase()).await {
                Some(FromAggregator::Ack(ack)) if ack.acked.0 >= sequence => return,
                Some(
                    FromAggregator::Ack(_) | FromAggregator::Pong(_) | FromAggregator::Flags(_),
                ) => {}
                other => panic!("expected ACK of {sequence}, got {other:?}"),
            }
        }
    }

    /// The phase after WELCOME.
    pub fn phase(&self) -> Phase {
        Phase::Open(self.incarnation)
    }

    /// The frames of one delta of one series.
    pub fn delta(&mut self, sequence: u64, key: &SeriesKey, values: &[u64]) -> Vec<u8> {
        let label = |text| Label::new(text).unwrap();
        let instance = Instance {
            name: InstanceName::new("by-hand").unwrap(),
            service: label("lens"),
            version: label("1"),
            zone: label(""),
        };
        let instance = self.names.instance(&instance).unwrap();
        let id = self.names.series(instance, key).unwrap();
        let mut encoder = DeltaEncoder::default();
        encoder.histogram(id, &values.iter().copied().collect::<Sparse>()).unwrap();
        let mut bytes = Vec::new();
        while let Some(dict) = self.names.next_dict(1 << 20) {
            dict.encode(self.incarnation, &mut bytes).unwrap();
        }
        let duration = Nanos::from_millis(100);
        let head = DeltaHead {
            sequence: Sequence(sequence),
            start: unix_now().minus(duration),
            duration,
            clock: ClockOffset { offset_nanos: 0, error_nanos: 1 },
        };
        encoder.finish(&head, self.incarnation, &mut bytes);
        bytes
    }
}
