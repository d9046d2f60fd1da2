//! Neighbours of another version: taken where they can be understood, refused clearly where not.
#![allow(clippy::unwrap_used)]

mod world;

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lens_model::{Incarnation, Sequence, SeriesKey, Trace};
use lens_service::time::unix_now;
use lens_service::tls::{self, Crypto};
use lens_wire::{
    Ack, Applied, Exemplars, FrameBuffer, FromAgent, FromAggregator, Hello, Label, MINOR,
    MINOR_CAPTURE, MINOR_EXEMPLARS, MINOR_FLAGS, Phase, RefuseCode, Trouble, Welcome,
};
use redb::ReadableTable;
use world::peer::{Peer, client, connect};
use world::{Tally, World, holds, http, identity, recorder, same, slice, until};

fn key() -> SeriesKey {
    SeriesKey { slice: slice("rust"), stage: lens_model::Stage::A, arm: lens_model::Arm::Baseline }
}

/// A HELLO of a later minor version, with so many bytes of fields this version does not know.
fn later_hello(name: &str, incarnation: Incarnation, extension: usize) -> Vec<u8> {
    let mut hello = Hello::new(name.parse().unwrap(), incarnation, Label::lossy("agent/9"));
    hello.minor = MINOR + 7;
    let mut frame = Vec::new();
    hello.encode(&mut frame);
    // The last two bytes of the body are the length of what is added, four of checksum follow.
    let body_end = frame.len() - 6;
    frame.truncate(body_end);
    frame.extend(u16::try_from(extension).unwrap().to_le_bytes());
    frame.extend(vec![0xA5; extension]);
    let body = u32::try_from(frame.len() - 6).unwrap();
    frame[..4].copy_from_slice(&body.to_le_bytes());
    let checksum = crc32c::crc32c(&frame);
    frame.extend(checksum.to_le_bytes());
    frame
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_upgraded_while_running_goes_on_where_the_older_was() {
    let world = World::new(&[]);
    let files = identity(&world.issue("host-1"));
    let life = Incarnation(7);
    let (mut old, _) = Peer::enter(world.quic(), &files, "host-1", life).await;
    let delta = old.delta(1, &key(), &[1_000_000; 10]);
    old.say(&delta).await;
    old.acknowledged(1).await;
    // Its successor speaks a later minor version and takes the same spool up.
    let mut new = Peer::open(world.quic(), &files, life).await;
    new.say(&later_hello("host-1", life, 40)).await;
    let Some(FromAggregator::Welcome(welcome)) = new.answer(Phase::Opening).await else {
        panic!("not let in");
    };
    assert_eq!((welcome.minor, welcome.acked.0), (MINOR, 1), "the lower version, the same place");
    // What was on its way when the older ended comes again.
    for (sequence, count) in [(1, 10), (2, 5)] {
        let delta = new.delta(sequence, &key(), &vec![1_000_000; count]);
        new.say(&delta).await;
    }
    new.acknowledged(2).await;
    world.until_merged(&Tally::from([(key(), 15)]));
}

/// A HELLO of an earlier minor version.
fn earlier_hello(minor: u16, life: Incarnation) -> Vec<u8> {
    let mut hello = Hello::new("host-1".parse().unwrap(), life, Label::lossy("agent/0"));
    hello.minor = minor;
    let mut frame = Vec::new();
    hello.encode(&mut frame);
    frame
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_of_an_earlier_minor_version_is_sent_nothing_that_it_would_not_know() {
    for minor in 0..=MINOR {
        let world = World::new(&[]);
        let files = identity(&world.issue("host-1"));
        let life = Incarnation(7);
        let hello = earlier_hello(minor, life);
        let (mut peer, answer) = Peer::begin(world.quic(), &files, life, &hello).await;
        let FromAggregator::Welcome(welcome) = answer else { panic!("not let in: {answer:?}") };
        assert_eq!(welcome.minor, minor);
        let delta = peer.delta(1, &key(), &[1_000_000; 10]);
        peer.say(&delta).await;
        peer.acknowledged(1).await;
        world.until_merged(&Tally::from([(key(), 10)]));
        // Something is decided, and something asked for; deltas go on beside them.
        assert_eq!(http::post(world.http(), "/canary/killswitch", "").unwrap().0, 200);
        let wanted = serde_json::json!({ "slice": "backend/rust/large" }).to_string();
        let (status, begun) = http::post(world.http(), "/api/v1/captures", &wanted).unwrap();
        assert_eq!(status, 202, "{begun}");
        let (mut flags, mut captures) = (0, 0);
        for sequence in 2..12 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let delta = peer.delta(sequence, &key(), &[1_000_000]);
            peer.say(&delta).await;
            loop {
                match peer.answer(peer.phase()).await {
                    Some(FromAggregator::Ack(ack)) if ack.acked.0 >= sequence => break,
                    Some(FromAggregator::Ack(_)) => {}
                    Some(FromAggregator::Flags(_)) => flags += 1,
                    Some(FromAggregator::Capture(_)) => captures += 1,
                    other => panic!("minor version {minor}: {other:?}"),
                }
            }
        }
        let speaks = |from: u16| minor >= from;
        assert_eq!(flags > 0, speaks(MINOR_FLAGS), "minor version {minor}: {flags} FLAGS");
        assert_eq!(
            captures > 0,
            speaks(MINOR_CAPTURE),
            "minor version {minor}: {captures} CAPTURE"
        );
        world.until_merged(&Tally::from([(key(), 20)]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_connections_minor_version_does_not_have_is_refused_and_what_was_merged_stays() {
    let world = World::new(&[]);
    let files = identity(&world.issue("host-1"));
    let mut ahead = Vec::new();
    let applied = Applied { generation: 1, pages: 1, failed: 0, trouble: Trouble::None };
    applied.encode(Incarnation(7), &mut ahead);
    let mut exemplars = Vec::new();
    Exemplars::default().encode(Incarnation(7), &mut exemplars);
    let frames =
        [(0, &ahead, "APPLIED"), (0, &exemplars, "EXEMPLARS"), (1, &exemplars, "EXEMPLARS")];
    for (sequence, (minor, frame, kind)) in (1..).zip(frames) {
        let life = Incarnation(7);
        let hello = earlier_hello(minor, life);
        let (mut peer, answer) = Peer::begin(world.quic(), &files, life, &hello).await;
        assert!(matches!(answer, FromAggregator::Welcome(_)), "{answer:?}");
        let delta = peer.delta(sequence, &key(), &[1_000_000; 10]);
        peer.say(&delta).await;
        peer.acknowledged(sequence).await;
        peer.say(frame).await;
        let refusal = peer.refusal(peer.phase()).await;
        assert_eq!(refusal.code, RefuseCode::Protocol, "{refusal:?}");
        let told = format!("{kind} is not of this connection's minor version");
        assert!(refusal.text.to_string().contains(&told), "{refusal:?}");
    }
    world.until_merged(&Tally::from([(key(), 30)]));
}

/// Where an aggregator by hand takes connections, with the aggregator's own certificate.
fn other_aggregator(world: &World, protocol: &[u8]) -> quinn::Endpoint {
    let tls = tls::server(&world.server_identity(), protocol, Crypto::default()).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    quinn::Endpoint::server(config, ([127, 0, 0, 1], 0).into()).unwrap()
}

/// An aggregator by hand, of an earlier minor version: lets agents in, acknowledges their deltas, and
/// notes the kinds of frames they send.
async fn older_aggregator(
    endpoint: quinn::Endpoint,
    minor: u16,
    seen: Arc<Mutex<BTreeSet<String>>>,
) {
    while let Some(incoming) = endpoint.accept().await {
        let Ok(connection) = incoming.await else { continue };
        let Ok((mut send, mut receive)) = connection.accept_bi().await else { continue };
        let (mut buffer, mut phase) = (FrameBuffer::default(), Phase::Opening);
        while let Ok(Some(chunk)) = receive.read_chunk(64 << 10, true).await {
            let (mut bytes, mut out) = (&chunk.bytes[..], Vec::new());
            while let Some(frame) = buffer.next_frame(&mut bytes).unwrap() {
                let frame = FromAgent::parse(frame, phase).unwrap();
                let told = format!("{frame:?}");
                let kind = told.split(['(', ' ']).next().unwrap_or_default();
                seen.lock().unwrap().insert(kind.to_owned());
                match (&frame, phase) {
                    (FromAgent::Hello(hello), _) => {
                        let mut welcome = Welcome::new(hello, Sequence(0), unix_now());
                        welcome.minor = minor;
                        welcome.encode(&mut out);
                        phase = Phase::Open(hello.incarnation);
                    }
                    (FromAgent::Delta(delta), Phase::Open(life)) => {
                        let acked = delta.head().sequence;
                        Ack { acked, received: acked }.encode(life, &mut out);
                    }
                    _ => {}
                }
            }
            if send.write_all(&out).await.is_err() {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_sends_an_aggregator_of_an_earlier_minor_version_what_that_knows() {
    for minor in 0..=MINOR {
        let mut world = World::bare();
        world.issue("host-1");
        let endpoint = other_aggregator(&world, lens_wire::ALPN);
        world.listen_on(&endpoint.local_addr().unwrap().to_string());
        let seen = Arc::<Mutex<BTreeSet<String>>>::default();
        let serving = tokio::spawn(older_aggregator(endpoint.clone(), minor, Arc::clone(&seen)));
        let agent = world.start_agent("host-1", &[]);
        let node = recorder(&agent.segments, "node-1");
        let series = node.series(slice("rust"), lens_model::Stage::A).unwrap();
        let trace: Trace =
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap();
        let status = until("thirty deltas are acknowledged", || {
            series.record_traced(1_000_000, &trace);
            let status = agent.status()?;
            let acked = status["spool"]["acked"].as_u64();
            holds(acked >= Some(30), &status).map(|()| status)
        });
        let seen = seen.lock().unwrap().clone();
        let sends = |kind: &str| seen.contains(kind);
        assert!(sends("Hello") && sends("Dict") && sends("Delta"), "{seen:?}");
        assert_eq!(sends("Applied"), minor >= MINOR_FLAGS, "minor version {minor}: {seen:?}");
        assert_eq!(sends("Exemplars"), minor >= MINOR_EXEMPLARS, "minor version {minor}: {seen:?}");
        assert_eq!(status["connection"]["last_error"], serde_json::Value::Null, "{status}");
        serving.abort();
        endpoint.close(quinn::VarInt::from_u32(0), b"");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_of_another_bucket_scheme_is_refused_with_the_reason_and_counts_nothing() {
    let world = World::new(&[]);
    let files = identity(&world.issue("host-1"));
    let mut peer = Peer::open(world.quic(), &files, Incarnation(7)).await;
    let software = Label::lossy("agent/9");
    let mut hello = Hello::new("host-1".parse().unwrap(), Incarnation(7), software);
    hello.scheme += 1;
    let mut frame = Vec::new();
    hello.encode(&mut frame);
    peer.say(&frame).await;
    let refusal = peer.refusal(Phase::Opening).await;
    assert_eq!(refusal.code, RefuseCode::Scheme, "{refusal:?}");
    assert!(world.merged().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_of_other_major_versions_are_kept_out_and_told_so() {
    let world = World::new(&[]);
    let files = identity(&world.issue("host-1"));
    for other in [&b"lens-telemetry/0"[..], b"lens-telemetry/2"] {
        let tls = tls::client(&files, other, Crypto::default()).unwrap();
        let client = quinn::ClientConfig::new(Arc::new(tls));
        let error = connect(world.quic(), client).await.map(|_| ()).unwrap_err();
        assert!(error.contains("any known protocol"), "{error}");
    }
    let (_endpoint, connection) = connect(world.quic(), client(&files)).await.unwrap();
    assert!(connection.close_reason().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_waits_out_an_aggregator_of_another_version_and_ships_to_its_successor() {
    let mut world = World::bare();
    world.issue("host-1");
    let endpoint = other_aggregator(&world, b"lens-telemetry/2");
    let address = endpoint.local_addr().unwrap();
    let serving = tokio::spawn({
        let endpoint = endpoint.clone();
        async move {
            while let Some(incoming) = endpoint.accept().await {
                drop(incoming.await);
            }
        }
    });
    world.listen_on(&address.to_string());
    let agent = world.start_agent("host-1", &[]);
    let node = recorder(&agent.segments, "node-1");
    let series = node.series(slice("rust"), lens_model::Stage::A).unwrap();
    (0..100).for_each(|n| series.record(1_000_000 + n));
    until("the agent says what is wrong", || {
        let status = agent.status()?;
        let told = status["connection"]["last_error"].to_string();
        holds(told.contains("any known protocol") && status["spool"]["frames"] != 0, &status)
    });
    assert_eq!(http::get(&agent.admin, "/readyz").unwrap().0, 503);
    endpoint.close(quinn::VarInt::from_u32(0), b"");
    endpoint.wait_idle().await;
    serving.abort();
    drop((serving.await, endpoint));
    world.start_aggregator(&[]);
    (0..20).for_each(|n| series.record(1_000_000 + n));
    world.until_merged(&Tally::from([(key(), 120)]));
}

#[test]
fn a_segment_of_another_layout_is_quarantined_with_the_reason_while_others_go_on() {
    let world = World::new(&[]);
    let segments = world.segments("host-1");
    let (old, new) = (recorder(&segments, "node-1"), recorder(&segments, "node-2"));
    old.series(slice("rust"), lens_model::Stage::A).unwrap().record(1_000_000);
    // The major version stands right behind the magic (docs/segment.md).
    let file = std::fs::File::options().read(true).write(true).open(old.path()).unwrap();
    let mut version = [0; 2];
    file.read_exact_at(&mut version, 8).unwrap();
    file.write_all_at(&(u16::from_le_bytes(version) + 1).to_le_bytes(), 8).unwrap();
    let agent = world.agent("host-1", &[]);
    let series = new.series(slice("rust"), lens_model::Stage::A).unwrap();
    (0..10).for_each(|n| series.record(1_000_000 + n));
    world.until_merged(&Tally::from([(key(), 10)]));
    until("quarantined", || {
        let status = agent.status()?;
        let held = status["segments"].as_array().ok_or("no segments")?;
        let reason = held.iter().find_map(|segment| segment["reason"].as_str());
        let (files, wanted) =
            (held.len(), reason.is_some_and(|reason| reason.contains("this reader knows")));
        same((files, wanted), &(2, true)).map_err(|_| status.to_string())
    });
}

#[test]
fn a_store_of_another_format_is_refused_and_left_as_it_is() {
    const META: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("meta");
    let mut world = World::new(&[]);
    let agent = world.agent("host-1", &[]);
    let node = recorder(&agent.segments, "node-1");
    let series = node.series(slice("rust"), lens_model::Stage::A).unwrap();
    (0..100).for_each(|n| series.record(1_000_000 + n));
    world.until_merged(&Tally::from([(key(), 100)]));
    agent.until_acknowledged();
    world.aggregator().terminate();
    let set_format = |change: fn(u64) -> u64| {
        let store = redb::Database::open(world.dir().join("store/windows.redb")).unwrap();
        let writing = store.begin_write().unwrap();
        let mut meta = writing.open_table(META).unwrap();
        let format = meta.get("format").unwrap().unwrap().value();
        meta.insert("format", change(format)).unwrap();
        drop(meta);
        writing.commit().unwrap();
    };
    for change in [|format| format - 1, |format| format + 2] {
        set_format(change);
        let mut refused = world.spawn_aggregator(&[]);
        let status = refused.wait(world::PATIENCE).expect("it does not run on it");
        assert!(!status.success(), "{status}");
        assert!(refused.log().contains("the store's format is"), "{}", refused.log());
        assert!(refused.log().contains("use the program that wrote it"), "{}", refused.log());
    }
    // By the program that wrote it, it is read as it was.
    set_format(|format| format - 1);
    world.start_aggregator(&[]);
    world.until_merged(&Tally::from([(key(), 100)]));
}
