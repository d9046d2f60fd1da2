//! Neighbours of another version: taken where they can be understood, refused clearly where not.
#![allow(clippy::unwrap_used)]

mod world;

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use lens_model::{Incarnation, SeriesKey};
use lens_service::tls::{self, Crypto};
use lens_wire::{FromAggregator, Hello, Label, MINOR, Phase, RefuseCode};
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
    let server = world.server_identity();
    let tls = tls::server(&server, b"lens-telemetry/2", Crypto::default()).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    let endpoint = quinn::Endpoint::server(config, ([127, 0, 0, 1], 0).into()).unwrap();
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
