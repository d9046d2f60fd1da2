//! One simulated agent's connection: opened, shipped over, drained.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lens_hist::Sparse;
use lens_model::{AgentName, Incarnation, InstanceName, Nanos, Sequence, SeriesKey};
use lens_service::time::unix_now;
use lens_service::tls::{self, IdentityFiles};
use lens_wire::{
    AgentDictionary, Bye, ClockOffset, DeltaEncoder, DeltaHead, FrameBuffer, FromAggregator, Hello,
    Instance, Label, MINOR_FLAGS, Phase, SeriesId, Welcome,
};
use quinn::{ClientConfig, Endpoint, RecvStream, SendStream, TransportConfig, VarInt};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout};

use super::Sampler;
use crate::numbers::nanos_of;

/// Longest from the first packet to WELCOME.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// As the agent's: a path stays open through a pause between batches.
const KEEP_ALIVE: Duration = Duration::from_secs(3);

/// What every batch of an agent is made of.
pub(super) struct Batch {
    pub(super) keys: Arc<[SeriesKey]>,
    pub(super) samples: usize,
    pub(super) sampler: Sampler,
    pub(super) seed: u64,
    pub(super) interval: Duration,
}

/// What one agent came to.
#[derive(Debug, Default)]
pub(super) struct Sent {
    pub(super) sent: u64,
    pub(super) acknowledged: u64,
    pub(super) bytes: u64,
    /// From the intended time and from the actual send to the acknowledgement, nanoseconds.
    pub(super) from_intended: Vec<u64>,
    pub(super) from_send: Vec<u64>,
    /// Why it ended before its time.
    pub(super) failed: Option<String>,
}

impl Sent {
    pub(super) fn failed(reason: String) -> Self {
        Self { failed: Some(reason), ..Self::default() }
    }
}

/// An agent that was let in.
pub(super) struct Ready {
    link: Link,
    name: AgentName,
}

/// A connection with its stream.
pub(super) struct Link {
    endpoint: Endpoint,
    connection: quinn::Connection,
    send: SendStream,
    receive: RecvStream,
    buffer: FrameBuffer,
    incarnation: Incarnation,
    frame_bytes_max: usize,
    in_flight_max: usize,
}

/// One delta on its way: intended and actual time, nanoseconds from the start of the run.
struct OnTheWay {
    sequence: u64,
    intended: u64,
    sent: u64,
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Link {
    /// Connects and is welcomed.
    ///
    /// # Errors
    /// A sentence without the agent's name, so that equal reasons can be counted.
    pub(super) async fn open(
        to: &str,
        server_name: Option<&str>,
        name: AgentName,
        files: &IdentityFiles,
    ) -> Result<Ready, String> {
        let opened = timeout(CONNECT_MAX, Self::handshake(to, server_name, &name, files)).await;
        let link =
            opened.map_err(|_| format!("no answer within {} s", CONNECT_MAX.as_secs()))??;
        Ok(Ready { link, name })
    }

    async fn handshake(
        to: &str,
        server_name: Option<&str>,
        name: &AgentName,
        files: &IdentityFiles,
    ) -> Result<Self, String> {
        let mut found = tokio::net::lookup_host(to).await.map_err(said)?;
        let address = found.next().ok_or("the endpoint has no address")?;
        let local: SocketAddr =
            if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
        let endpoint = Endpoint::client(local).map_err(said)?;
        let mut transport = TransportConfig::default();
        transport.keep_alive_interval(Some(KEEP_ALIVE));
        let crypto = tls::client(files, lens_wire::ALPN, tls::Crypto::default()).map_err(said)?;
        let mut client = ClientConfig::new(Arc::new(crypto));
        client.transport_config(Arc::new(transport));
        let host = to.rsplit_once(':').map_or(to, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let connecting =
            endpoint.connect_with(client, address, server_name.unwrap_or(host)).map_err(said)?;
        let connection = connecting.await.map_err(said)?;
        // A stream that breaks says less than the connection it broke with.
        let lost = |error: &dyn std::fmt::Display| match connection.close_reason() {
            Some(reason) => reason.to_string(),
            None => error.to_string(),
        };
        let (mut send, mut receive) = connection.open_bi().await.map_err(said)?;
        let incarnation = Incarnation(rand::random());
        let software = Label::lossy(concat!("lens-load/", env!("CARGO_PKG_VERSION")));
        let mut hello = Hello::new(name.clone(), incarnation, software);
        // These agents hold nothing of the past, so they are not asked for it.
        hello.minor = MINOR_FLAGS;
        let mut bytes = Vec::new();
        hello.encode(&mut bytes);
        send.write_all(&bytes).await.map_err(|error| lost(&error))?;
        let mut buffer = FrameBuffer::default();
        let welcome = loop {
            let chunk = receive.read_chunk(64 << 10, true).await.map_err(|error| lost(&error))?;
            let chunk = chunk.ok_or("closed without an answer")?;
            let mut bytes = &chunk.bytes[..];
            if let Some(frame) = buffer.next_frame(&mut bytes).map_err(said)? {
                break welcomed(frame)?;
            }
        };
        Ok(Self {
            endpoint,
            connection,
            send,
            receive,
            buffer,
            incarnation,
            frame_bytes_max: usize::try_from(welcome.frame_bytes_max).unwrap_or(usize::MAX),
            in_flight_max: usize::from(welcome.frames_in_flight),
        })
    }
}

fn welcomed(frame: &[u8]) -> Result<Welcome, String> {
    match FromAggregator::parse(frame, Phase::Opening).map_err(said)? {
        FromAggregator::Welcome(welcome) => Ok(welcome),
        FromAggregator::Refuse(refuse) => {
            Err(format!("refused: {} ({})", refuse.text, refuse.code.as_str()))
        }
        other => Err(format!("answered HELLO with {other:?}")),
    }
}

impl Ready {
    /// Ships a batch at each intended time until there are no more and all is acknowledged.
    pub(super) async fn ship(
        mut self,
        mut batch: Batch,
        start: Instant,
        mut intended: mpsc::UnboundedReceiver<u64>,
        give_up: Instant,
    ) -> Sent {
        let mut sent = Sent::default();
        let done = self.until_done(&mut batch, start, &mut intended, give_up, &mut sent).await;
        sent.failed = done.err();
        let Link { endpoint, connection, mut send, incarnation, .. } = self.link;
        let mut bytes = Vec::new();
        Bye.encode(incarnation, &mut bytes);
        // Everything is counted by now: a farewell that does not arrive changes nothing.
        drop(send.write_all(&bytes).await);
        drop(send.finish());
        connection.close(VarInt::from_u32(0), b"bye");
        drop(timeout(Duration::from_secs(1), endpoint.wait_idle()).await);
        sent
    }

    async fn until_done(
        &mut self,
        batch: &mut Batch,
        start: Instant,
        intended: &mut mpsc::UnboundedReceiver<u64>,
        give_up: Instant,
        sent: &mut Sent,
    ) -> Result<(), String> {
        let mut writer = Writer::new(&self.link, &self.name, batch)?;
        let link = &mut self.link;
        let mut on_the_way: VecDeque<OnTheWay> = VecDeque::new();
        let mut open = true;
        writer.fill(batch)?;
        while open || !on_the_way.is_empty() {
            tokio::select! {
                chunk = link.receive.read_chunk(64 << 10, true) => {
                    let now = nanos_of(start.elapsed());
                    let chunk = chunk.map_err(|error| match link.connection.close_reason() {
                        Some(reason) => format!("connection lost: {reason}"),
                        None => format!("connection lost: {error}"),
                    })?;
                    let chunk = chunk.ok_or("closed by the aggregator")?;
                    let mut bytes = &chunk.bytes[..];
                    while let Some(frame) = link.buffer.next_frame(&mut bytes).map_err(said)? {
                        acknowledge(frame, link.incarnation, now, &mut on_the_way, sent)?;
                    }
                }
                at = intended.recv(), if open && on_the_way.len() < link.in_flight_max => {
                    let Some(at) = at else {
                        open = false;
                        continue;
                    };
                    sent.sent += 1;
                    let now = nanos_of(start.elapsed());
                    on_the_way.push_back(OnTheWay { sequence: sent.sent, intended: at, sent: now });
                    let bytes = writer.frames(sent.sent, batch)?;
                    sent.bytes += bytes.len() as u64;
                    link.send.write_all(bytes).await.map_err(|error| {
                        format!("connection lost: {error}")
                    })?;
                    // The next one is made now, so that it is ready at its time.
                    writer.fill(batch)?;
                }
                () = sleep_until(give_up.into()) => {
                    return Err("not everything was acknowledged in time".into());
                }
            }
        }
        Ok(())
    }
}

/// Takes one frame from the aggregator.
fn acknowledge(
    frame: &[u8],
    incarnation: Incarnation,
    now: u64,
    on_the_way: &mut VecDeque<OnTheWay>,
    sent: &mut Sent,
) -> Result<(), String> {
    match FromAggregator::parse(frame, Phase::Open(incarnation)).map_err(said)? {
        FromAggregator::Ack(ack) => {
            while let Some(one) = on_the_way.front()
                && one.sequence <= ack.acked.0
            {
                sent.acknowledged += 1;
                sent.from_intended.push(now.saturating_sub(one.intended));
                sent.from_send.push(now.saturating_sub(one.sent));
                on_the_way.pop_front();
            }
            Ok(())
        }
        FromAggregator::Refuse(refuse) => {
            Err(format!("refused: {} ({})", refuse.text, refuse.code.as_str()))
        }
        FromAggregator::Pong(_) | FromAggregator::Flags(_) | FromAggregator::Skipped(_) => Ok(()),
        FromAggregator::Capture(_) => Err("asked for what its version does not have".into()),
        FromAggregator::Welcome(_) => Err("welcomed twice".into()),
    }
}

/// Makes the frames of one batch after another.
struct Writer {
    incarnation: Incarnation,
    frame_bytes_max: usize,
    names: AgentDictionary,
    ids: Vec<SeriesId>,
    encoder: DeltaEncoder,
    rng: StdRng,
    values: Vec<u64>,
    bytes: Vec<u8>,
}

impl Writer {
    fn new(link: &Link, name: &AgentName, batch: &Batch) -> Result<Self, String> {
        let label = |text| Label::lossy(text);
        let instance = Instance {
            name: InstanceName::new(name.as_str()).map_err(said)?,
            service: label("lens"),
            version: label(env!("CARGO_PKG_VERSION")),
            zone: label(""),
        };
        let mut names = AgentDictionary::new();
        let instance = names.instance(&instance).map_err(said)?;
        let ids = batch.keys.iter().map(|key| names.series(instance, key).map_err(said));
        let ids = ids.collect::<Result<_, _>>()?;
        Ok(Self {
            incarnation: link.incarnation,
            frame_bytes_max: link.frame_bytes_max,
            names,
            ids,
            encoder: DeltaEncoder::new(link.frame_bytes_max),
            rng: StdRng::seed_from_u64(batch.seed),
            values: Vec::new(),
            bytes: Vec::new(),
        })
    }

    /// Draws the counts of the next batch.
    fn fill(&mut self, batch: &mut Batch) -> Result<(), String> {
        self.encoder.clear();
        for id in &self.ids {
            self.values.clear();
            let (sampler, rng) = (&mut batch.sampler, &mut self.rng);
            self.values.extend((0..batch.samples).map(|_| sampler.sample(rng)));
            let counts: Sparse = self.values.iter().copied().collect();
            self.encoder.histogram(*id, &counts).map_err(|error| {
                format!("a batch does not fit a frame: {error}; lower --series or --samples")
            })?;
        }
        Ok(())
    }

    /// The filled batch as frames, names before their first use.
    fn frames(&mut self, sequence: u64, batch: &Batch) -> Result<&[u8], String> {
        self.bytes.clear();
        while let Some(dict) = self.names.next_dict(self.frame_bytes_max) {
            dict.encode(self.incarnation, &mut self.bytes).map_err(said)?;
        }
        let duration = Nanos::from(batch.interval);
        let head = DeltaHead {
            sequence: Sequence(sequence),
            start: unix_now().minus(duration),
            duration,
            clock: ClockOffset::UNMEASURED,
        };
        self.encoder.finish(&head, self.incarnation, &mut self.bytes);
        Ok(&self.bytes)
    }
}
