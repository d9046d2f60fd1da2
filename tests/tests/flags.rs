//! Flags over real processes: from the API to the node's own load, through crashes and lies.
#![allow(clippy::unwrap_used)]

mod world;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use lens_flags::{Document, SignedDocument, SigningKey};
use lens_model::{Flag, Incarnation, Sequence};
use lens_segment::Recorder;
use lens_service::time::unix_now;
use lens_service::tls::{self, Crypto};
use lens_wire::{Applied, Flags, FrameBuffer, FromAgent, Phase, Trouble, Welcome};
use rustix::process::Signal;
use serde_json::{Value, json};
use world::{Agent, PATIENCE, World, holds, http, recorder, until};

/// A world whose aggregator keeps an audit record, without which nothing is changed.
fn world() -> World {
    let mut world = World::bare();
    start(&mut world);
    world
}

fn start(world: &mut World) {
    let audit = world.dir().join("audit").display().to_string();
    world.start_aggregator(&[("audit.dir", &audit)]);
}

/// Sets a flag; the status and the answer.
fn put(world: &World, path: &str, body: &Value) -> (u16, Value) {
    let mut stream = TcpStream::connect(world.http()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (host, body) = (world.http(), body.to_string());
    let head = format!(
        "PUT /flags/{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap();
    (status, serde_json::from_str(body).unwrap())
}

/// Sets a flag, and gives the generation that carries it.
fn set(world: &World, path: &str, value: bool) -> u64 {
    let (status, answer) = put(world, path, &json!({"value": value, "reason": "a test"}));
    assert_eq!(status, 200, "{answer}");
    answer["generation"].as_u64().unwrap()
}

/// Waits until a node reads this of a flag, under at least this generation.
fn until_read(node: &Recorder, flag: Flag, on: bool, generation: u64) {
    until("the node reads the flag", || {
        let flags = node.flags();
        let found = (flags.enabled(flag), flags.generation());
        holds(found.0 == on && found.1 >= generation, &found)
    });
}

fn until_generation(agent: &Agent, generation: u64) {
    until("the agent has the generation", || {
        let flags = &agent.status()?["flags"];
        holds(flags["generation"].as_u64() >= Some(generation), flags)
    });
}

#[test]
fn a_flag_set_at_the_api_is_what_every_node_reads() {
    let world = world();
    let agent = world.agent("host-1", &[]);
    let early = recorder(&agent.segments, "node-1");
    let generation = set(&world, "stageB.lruCaching", true);
    until_read(&early, Flag::StageBLruCaching, true, generation);
    let late = recorder(&agent.segments, "node-2");
    until_read(&late, Flag::StageBLruCaching, true, generation);
    until("the aggregator knows", || {
        let seen = world.seen("host-1")?;
        holds(
            seen["applied_generation"].as_u64() >= Some(generation) && seen["flag_pages"] == 2,
            &seen,
        )
    });
    let shown = http::json(world.http(), "/flags").unwrap();
    assert_eq!(shown["config"]["stageB"]["lruCaching"], true);
    assert_eq!(shown["overrides"]["stageB.lruCaching"]["reason"], "a test");
    let user = http::json(world.http(), "/canary/assignment?user=user-42").unwrap();
    assert_eq!(user["arm"], early.canary().arm("user-42").as_str());
    let (status, _) = put(&world, "stageB.lruCaching", &json!({"value": null}));
    assert_eq!(status, 200);
    until_read(&late, Flag::StageBLruCaching, false, generation + 1);
}

#[test]
fn what_cannot_be_set_is_refused_with_what_would_be_right() {
    let world = world();
    let good = json!({"value": true, "reason": "a test"});
    for (path, body, status, word) in [
        ("stageB.lruCache", good.clone(), 404, "stageB.lruCaching"),
        ("stageB", good.clone(), 404, "group"),
        ("stageB.lruCaching", json!({"value": 5, "reason": "r"}), 400, "true or false"),
        ("stageB.lruCaching", json!({"value": true}), 400, "reason"),
        ("stageB.lruCaching", json!({"reason": "r"}), 400, "value"),
        ("stageB.lruCaching", json!({"value": true, "reason": "r", "until": 1}), 400, "until"),
        ("canary.trafficPercentage", json!({"value": 50, "reason": "r"}), 409, "controller"),
        ("canary.killSwitchEnabled", json!({"value": false, "reason": "r"}), 409, "kill switch"),
    ] {
        let (found, answer) = put(&world, path, &body);
        assert_eq!(found, status, "{path} {body}: {answer}");
        let detail = answer["detail"].as_str().unwrap();
        assert!(detail.contains(word), "{path} {body}: {detail}");
    }
}

#[test]
fn agents_and_aggregator_killed_at_any_point_come_back_to_the_last_word() {
    let mut world = world();
    let mut agent = world.agent("host-1", &[]);
    let node = recorder(&agent.segments, "node-1");
    let first = set(&world, "stageB.enabled", true);
    until_read(&node, Flag::StageBEnabled, true, first);
    // The agent misses what is said while it is dead.
    agent.process.kill();
    let second = set(&world, "stageC.enabled", true);
    assert!(!node.flags().enabled(Flag::StageCEnabled));
    agent = world.start_agent("host-1", &[]);
    until_read(&node, Flag::StageCEnabled, true, second);
    // The aggregator dies right after it answered, and the agent with it.
    let third = set(&world, "emergencyDisable", true);
    world.aggregator().kill();
    agent.process.kill();
    agent = world.start_agent("host-1", &[]);
    // Without any aggregator: a node that is new learns what this agent heard last.
    let late = recorder(&agent.segments, "node-2");
    until("the new node has flags", || {
        let generation = late.flags().generation();
        holds(generation >= second, &generation)
    });
    start(&mut world);
    for node in [&node, &late] {
        until_read(node, Flag::StageBEnabled, false, third);
        until_read(node, Flag::QualityGating, false, third);
    }
    let shown = http::json(world.http(), "/flags").unwrap();
    assert_eq!(shown["emergency"]["reason"], "a test");
    assert!(shown["generation"].as_u64() >= Some(third));
}

#[test]
fn an_agent_that_was_out_of_reach_catches_up_when_it_returns() {
    let world = world();
    let agent = world.agent("host-1", &[]);
    let node = recorder(&agent.segments, "node-1");
    let before = set(&world, "stageB.enabled", true);
    until_read(&node, Flag::StageBEnabled, true, before);
    agent.process.signal(Signal::STOP);
    let mut last = 0;
    for on in [false, true, false] {
        last = set(&world, "stageB.enabled", on);
    }
    assert!(node.flags().enabled(Flag::StageBEnabled));
    agent.process.signal(Signal::CONT);
    until_read(&node, Flag::StageBEnabled, false, last);
    until_generation(&agent, last);
}

/// An aggregator that says what a test makes it say.
struct Liar {
    send: quinn::SendStream,
    receive: quinn::RecvStream,
    buffer: FrameBuffer,
    pending: Vec<u8>,
    life: Incarnation,
    _connection: quinn::Connection,
    _endpoint: quinn::Endpoint,
}

impl Liar {
    /// Takes the first agent that comes to this address in.
    async fn listen(world: &World, at: &str) -> Self {
        let tls =
            tls::server(&world.server_identity(), lens_wire::ALPN, Crypto::default()).unwrap();
        let config = quinn::ServerConfig::with_crypto(Arc::new(tls));
        let at: SocketAddr = at.parse().unwrap();
        let endpoint = quinn::Endpoint::server(config, at).unwrap();
        let connection = loop {
            let incoming = tokio::time::timeout(PATIENCE, endpoint.accept()).await;
            if let Ok(connection) = incoming.unwrap().unwrap().await {
                break connection;
            }
        };
        let (send, receive) = connection.accept_bi().await.unwrap();
        let mut liar = Self {
            send,
            receive,
            buffer: FrameBuffer::default(),
            pending: Vec::new(),
            life: Incarnation(0),
            _connection: connection,
            _endpoint: endpoint,
        };
        liar.welcome().await;
        liar
    }

    async fn welcome(&mut self) {
        let hello = self.next(Phase::Opening, |frame| match frame {
            FromAgent::Hello(hello) => Some(hello),
            _ => None,
        });
        let hello = hello.await;
        self.life = hello.incarnation;
        let mut bytes = Vec::new();
        let acked = Sequence(hello.resume.0 - 1);
        Welcome::new(&hello, acked, unix_now()).encode(&mut bytes);
        self.send.write_all(&bytes).await.unwrap();
    }

    /// The next frame that is wanted.
    async fn next<T>(&mut self, phase: Phase, want: impl Fn(FromAgent<'_>) -> Option<T>) -> T {
        loop {
            let mut bytes = &self.pending[..];
            let mut found = None;
            while let Some(frame) = self.buffer.next_frame(&mut bytes).unwrap() {
                found = want(FromAgent::parse(frame, phase).unwrap());
                if found.is_some() {
                    break;
                }
            }
            let taken = self.pending.len() - bytes.len();
            self.pending.drain(..taken);
            if let Some(found) = found {
                return found;
            }
            let chunk = tokio::time::timeout(PATIENCE, self.receive.read_chunk(64 << 10, true));
            let chunk = chunk.await.expect("a frame in time").unwrap().unwrap();
            self.pending.extend_from_slice(&chunk.bytes);
        }
    }

    /// Says a document, and gives what becomes of it.
    async fn say(&mut self, signed: &SignedDocument) -> Applied {
        let (key, signature, document) = (signed.key, signed.signature, signed.bytes.clone());
        let mut bytes = Vec::new();
        Flags { key, signature, document }.encode(self.life, &mut bytes);
        self.send.write_all(&bytes).await.unwrap();
        self.next(Phase::Open(self.life), |frame| match frame {
            FromAgent::Applied(applied) => Some(applied),
            _ => None,
        })
        .await
    }

    /// What the agent says it has in force, unasked.
    async fn hears(&mut self) -> Applied {
        self.next(Phase::Open(self.life), |frame| match frame {
            FromAgent::Applied(applied) => Some(applied),
            _ => None,
        })
        .await
    }
}

/// The key of the world's aggregator, which a liar would have to steal.
fn control_key(world: &World) -> SigningKey {
    use ed25519_dalek::pkcs8::DecodePrivateKey;
    let pem = std::fs::read_to_string(world.dir().join("control/control-key.pem")).unwrap();
    SigningKey::from_pkcs8_pem(&pem).unwrap()
}

/// The last document an agent kept.
fn kept(world: &World) -> SignedDocument {
    let bytes = std::fs::read(world.spool("host-1").join("control/control-document")).unwrap();
    SignedDocument {
        key: bytes[..32].try_into().unwrap(),
        signature: bytes[32..96].try_into().unwrap(),
        bytes: bytes[96..].to_vec(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_replayed_forged_or_changed_is_refused_and_said_to_be() {
    let mut world = world();
    let agent = world.agent("host-1", &[]);
    let node = recorder(&agent.segments, "node-1");
    let generation = set(&world, "stageB.enabled", true);
    until_read(&node, Flag::StageBEnabled, true, generation);
    until_generation(&agent, generation);
    let old = kept(&world);
    let newer = set(&world, "stageB.enabled", false);
    until_read(&node, Flag::StageBEnabled, false, newer);
    until_generation(&agent, newer);
    let key = control_key(&world);
    let at = world.quic().to_owned();
    world.aggregator().kill();
    let mut liar = Liar::listen(&world, &at).await;
    assert_eq!(liar.hears().await.generation, newer);
    // Replayed, whole and signed as it was.
    let applied = liar.say(&old).await;
    assert_eq!((applied.generation, applied.trouble), (newer, Trouble::Older));
    // Changed: the next generation without the key that could sign it.
    let mut document = Document::decode(&old.bytes).unwrap();
    document.generation = newer + 1;
    let mut changed = SignedDocument::sign(&document, &key);
    changed.signature[0] ^= 1;
    let applied = liar.say(&changed).await;
    assert_eq!((applied.generation, applied.trouble), (newer, Trouble::Signature));
    // Forged: signed, by someone else.
    let forged = SignedDocument::sign(&document, &SigningKey::from_bytes(&[9; 32]));
    let applied = liar.say(&forged).await;
    assert_eq!((applied.generation, applied.trouble), (newer, Trouble::Key));
    assert_eq!(node.flags().generation(), newer);
    assert!(!node.flags().enabled(Flag::StageBEnabled));
    assert!(agent.status().unwrap()["connection"]["connected"] == true, "it stays connected");
    // And the same by the right key is taken.
    let applied = liar.say(&SignedDocument::sign(&document, &key)).await;
    assert_eq!((applied.generation, applied.trouble), (newer + 1, Trouble::None));
    until_read(&node, Flag::StageBEnabled, true, newer + 1);
}
