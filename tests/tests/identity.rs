//! Who is let in, as whom, and what a peer that misbehaves can and cannot do.
#![allow(clippy::unwrap_used)]

mod world;

use std::sync::Arc;

use lens_model::{Arm, Incarnation, SeriesKey, Stage};
use lens_service::certs::{self, Subject};
use lens_wire::{FromAggregator, Phase, RefuseCode};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::rustls::pki_types::pem::PemObject;
use quinn::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use quinn::rustls::{ClientConfig, RootCertStore, crypto::ring, version::TLS13};
use quinn::{ConnectionError, Endpoint, VarInt};
use tokio::time::timeout;
use world::peer::{Peer, connect};
use world::{PATIENCE, Tally, World, holds, http, identity, slice, until};

fn key() -> SeriesKey {
    SeriesKey { slice: slice("rust"), stage: Stage::A, arm: Arm::Baseline }
}

/// A counter of the aggregator about itself.
fn counter(world: &World, name: &str) -> u64 {
    let (_, metrics) = http::get(world.http(), "/metrics").unwrap();
    let name = format!("lens_aggregator_{name} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
    line.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
}

/// The aggregator still lets a rightful agent in and merges what it sends.
async fn still_serves(world: &World, life: u128) {
    let before = world.merged().unwrap().get(&key()).copied().unwrap_or(0);
    let name = format!("rightful-{life}");
    let files = identity(&world.issue(&name));
    let (mut peer, _) = Peer::enter(world.quic(), &files, &name, Incarnation(life)).await;
    let delta = peer.delta(1, &key(), &[1_000_000, 2_000_000]);
    peer.say(&delta).await;
    peer.acknowledged(1).await;
    until("merged", || {
        let now = world.merged()?.get(&key()).copied().unwrap_or(0);
        holds(now == before + 2, &now)
    });
}

#[test]
fn an_agent_of_another_authority_is_kept_out_and_told_what_to_do() {
    let (world, other) = (World::new(&[]), World::bare());
    let foreign = other.issue("host-1");
    let path = |path: &std::path::Path| path.display().to_string();
    let (cert, key, ca) = (path(&foreign.cert), path(&foreign.key), path(&foreign.ca));

    // It trusts the aggregator, which does not know its authority.
    world.issue("host-1");
    let settings = [("identity.cert", cert.as_str()), ("identity.key", key.as_str())];
    let mut agent = world.start_agent("host-1", &settings);
    let told = until("refused", || {
        let status = agent.status()?;
        let error = status["connection"]["last_error"].as_str().map(str::to_owned);
        error.ok_or_else(|| status.to_string())
    });
    for part in [world.quic(), "certificate", "identity.cert", "authority"] {
        assert!(told.contains(part), "{part:?} missing in {told:?}");
    }
    let status = agent.status().unwrap();
    assert_eq!(
        (&status["ready"], &status["connection"]["connected"]),
        (&false.into(), &false.into())
    );
    let (code, reasons) = http::get(&agent.admin, "/readyz").unwrap();
    assert!(code == 503 && reasons.contains("identity.cert"), "{code} {reasons}");
    until("counted", || holds(counter(&world, "handshakes_failed_total") > 0, &"none"));
    assert_eq!(world.seen("host-1").unwrap(), serde_json::Value::Null);
    agent.process.terminate();

    // It does not trust the aggregator either.
    let settings = [settings[0], settings[1], ("identity.ca", ca.as_str())];
    let mut agent = world.start_agent("host-1", &settings);
    until("refused", || {
        let told = agent.status()?["connection"]["last_error"].to_string();
        let parts = [world.quic(), "certificate", "identity.ca", "authority"];
        holds(parts.iter().all(|part| told.contains(part)), &told)
    });
    agent.process.terminate();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hello_under_another_name_than_the_certificates_is_refused() {
    let world = World::new(&[]);
    let files = identity(&world.issue("host-1"));
    let mut peer = Peer::open(world.quic(), &files, Incarnation(1)).await;
    peer.hello("host-2").await;
    let refuse = peer.refusal(Phase::Opening).await;
    assert_eq!(refuse.code, RefuseCode::Identity);
    for part in ["host-1", "host-2"] {
        assert!(refuse.text.as_str().contains(part), "{refuse:?}");
    }
    timeout(PATIENCE, peer.connection.closed()).await.unwrap();
    for name in ["host-1", "host-2"] {
        assert_eq!(world.seen(name).unwrap(), serde_json::Value::Null, "{name}");
    }
    still_serves(&world, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_no_agents_or_of_another_domain_is_refused() {
    let world = World::new(&[("identity.trust_domain", "lens.test")]);
    let id = "spiffe://elsewhere.test/agent/host-1".parse().unwrap();
    let files = certs::issue(world.dir(), "elsewhere", &Subject::Agent(id), 2, false).unwrap();
    let mut peer = Peer::open(world.quic(), &identity(&files), Incarnation(1)).await;
    peer.hello("host-1").await;
    let refuse = peer.refusal(Phase::Opening).await;
    assert_eq!(refuse.code, RefuseCode::Identity);
    assert!(refuse.text.as_str().contains("elsewhere.test"), "{refuse:?}");

    // The aggregator's own certificate is of the same authority, but not a client's.
    let server = Subject::Server(vec!["localhost".into()]);
    let files = certs::issue(world.dir(), "another-server", &server, 2, false).unwrap();
    let client = plain_client(&world, Some((&files.cert, &files.key)), false);
    assert_kept_out(&world, client).await;
    still_serves(&world, 2).await;
}

/// A client that any TLS library could make.
fn plain_client(
    world: &World,
    identity: Option<(&std::path::Path, &std::path::Path)>,
    early_data: bool,
) -> quinn::ClientConfig {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(world.dir().join("ca.pem")).unwrap();
    roots.add(ca).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut tls = match identity {
        Some((cert, key)) => {
            let chain = vec![CertificateDer::from_pem_file(cert).unwrap()];
            let key = PrivateKeyDer::from_pem_file(key).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![lens_wire::ALPN.to_vec()];
    tls.enable_early_data = early_data;
    quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()))
}

/// The connection fails, or is ended by the aggregator before a stream is of any use.
async fn assert_kept_out(world: &World, client: quinn::ClientConfig) {
    let before = counter(world, "handshakes_failed_total");
    if let Ok((_endpoint, connection)) = connect(world.quic(), client).await {
        // In TLS 1.3 a client is done before its certificate is looked at.
        timeout(PATIENCE, connection.closed()).await.unwrap();
    }
    until("counted", || holds(counter(world, "handshakes_failed_total") > before, &before));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_certificate_or_with_another_protocol_is_kept_out() {
    let world = World::new(&[]);
    assert_kept_out(&world, plain_client(&world, None, false)).await;

    let files = world.issue("host-1");
    let tls = lens_service::tls::client(
        &identity(&files),
        b"lens-telemetry/2",
        lens_service::tls::Crypto::default(),
    )
    .unwrap();
    assert_kept_out(&world, quinn::ClientConfig::new(Arc::new(tls))).await;
    still_serves(&world, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_taken_before_the_handshake_is_done() {
    let world = World::new(&[]);
    let files = world.issue("host-1");
    // One client for both connections: it would resume, and send early, if it were let.
    let client = plain_client(&world, Some((&files.cert, &files.key)), true);
    let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    let to = world.quic().parse().unwrap();
    let first = endpoint.connect_with(client.clone(), to, "localhost").unwrap();
    let first = match first.into_0rtt() {
        Ok(_) => panic!("early data before any ticket"),
        Err(connecting) => timeout(PATIENCE, connecting).await.unwrap().unwrap(),
    };
    // Time for tickets, if there were any: a stream is opened, refused and answered.
    let (mut send, mut receive) = first.open_bi().await.unwrap();
    send.write_all(&[0xFF; 16]).await.unwrap();
    drop(timeout(PATIENCE, receive.read_to_end(4_096)).await.unwrap());
    timeout(PATIENCE, first.closed()).await.unwrap();

    let second = endpoint.connect_with(client, to, "localhost").unwrap();
    assert!(second.into_0rtt().is_err(), "a ticket was given out");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newer_connection_of_an_agent_replaces_the_older() {
    let world = World::new(&[]);
    let files = identity(&world.issue("host-1"));
    let (mut old, welcome) = Peer::enter(world.quic(), &files, "host-1", Incarnation(7)).await;
    assert_eq!(welcome.acked.0, 0);
    let delta = old.delta(1, &key(), &[1_000_000; 10]);
    old.say(&delta).await;
    old.acknowledged(1).await;

    let (mut new, welcome) = Peer::enter(world.quic(), &files, "host-1", Incarnation(7)).await;
    assert_eq!(welcome.acked.0, 1, "the new connection resumes where the old one was");
    let ended = timeout(PATIENCE, old.connection.closed()).await.unwrap();
    let replaced = VarInt::from_u32(u32::from(RefuseCode::Replaced.code()));
    assert!(
        matches!(&ended, ConnectionError::ApplicationClosed(close) if close.error_code == replaced),
        "{ended:?}"
    );
    let delta = new.delta(2, &key(), &[1_000_000; 5]);
    new.say(&delta).await;
    new.acknowledged(2).await;
    world.until_merged(&Tally::from([(key(), 15)]));
    let seen = world.seen("host-1").unwrap();
    assert_eq!((&seen["connected"], &seen["acked"]), (&true.into(), &2.into()), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_refused_as_a_fault_of_protocol_and_nothing_else_happens() {
    let world = World::new(&[]);
    let files = identity(&world.issue("host-1"));
    let enter = async |life| Peer::enter(world.quic(), &files, "host-1", Incarnation(life)).await.0;
    // A length beyond any bound, a frame with a wrong checksum, one of an unknown type, a delta
    // that leaves one out, a second HELLO.
    let mut broken = enter(100).await.delta(1, &key(), &[1_000_000]);
    let last = broken.len() - 1;
    broken[last] ^= 1;
    for (life, bytes) in [
        (1, vec![0xFF; 64]),
        (2, [&[3, 0, 0, 0, 5, 0][..], &[1; 7]].concat()),
        (3, [&[0, 0, 0, 0, 99, 0][..], &[0; 4]].concat()),
        (100, broken),
    ] {
        let mut peer = enter(life).await;
        peer.say(&bytes).await;
        let refuse = peer.refusal(peer.phase()).await;
        assert_eq!(refuse.code, RefuseCode::Protocol, "{life}: {refuse:?}");
        timeout(PATIENCE, peer.connection.closed()).await.unwrap();
    }
    let mut gap = enter(4).await;
    let delta = gap.delta(2, &key(), &[1_000_000]);
    gap.say(&delta).await;
    assert_eq!(gap.refusal(gap.phase()).await.code, RefuseCode::Protocol);
    let mut twice = enter(5).await;
    twice.hello("host-1").await;
    assert_eq!(twice.refusal(twice.phase()).await.code, RefuseCode::Protocol);

    // Garbage in place of a HELLO, and no HELLO at all.
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0]] {
        match Peer::begin(world.quic(), &files, Incarnation(6), bytes).await.1 {
            FromAggregator::Refuse(refuse) => assert_eq!(refuse.code, RefuseCode::Protocol),
            other => panic!("{bytes:?} was answered {other:?}"),
        }
    }

    assert_eq!(world.merged().unwrap(), Tally::new());
    let seen = world.seen("host-1").unwrap();
    assert!(!seen["rejected"].as_object().unwrap().is_empty(), "{seen}");
    still_serves(&world, 8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_that_comes_again_changes_nothing_wherever_it_comes() {
    let world = World::new(&[]);
    let files = identity(&world.issue("host-1"));
    let life = Incarnation(9);
    let merged = |count| world.until_merged(&Tally::from([(key(), count)]));

    let (mut first, _) = Peer::enter(world.quic(), &files, "host-1", life).await;
    let delta = first.delta(1, &key(), &[1_000_000; 10]);
    first.say(&delta).await;
    first.acknowledged(1).await;
    merged(10);
    // On the same connection, twice, with a new one behind it that tells when they were read.
    let again = first.delta(1, &key(), &[1_000_000; 10]);
    first.say(&again).await;
    first.say(&again).await;
    let next = first.delta(2, &key(), &[3_000_000; 3]);
    first.say(&next).await;
    first.acknowledged(2).await;
    merged(13);
    first.connection.close(VarInt::from_u32(0), b"");

    // On another connection, both, and a new one.
    let (mut second, welcome) = Peer::enter(world.quic(), &files, "host-1", life).await;
    assert_eq!(welcome.acked.0, 2);
    for (sequence, values) in [(1, vec![1_000_000; 10]), (2, vec![3_000_000; 3])] {
        let again = second.delta(sequence, &key(), &values);
        second.say(&again).await;
    }
    let next = second.delta(3, &key(), &[4_000_000; 4]);
    second.say(&next).await;
    second.acknowledged(3).await;
    merged(17);
    let seen = world.seen("host-1").unwrap();
    assert_eq!((&seen["duplicates"], &seen["deltas"]), (&4.into(), &3.into()), "{seen}");
    assert_eq!(seen["samples"], 17);

    // Under another name the same life and numbers are another agent's.
    let other = identity(&world.issue("host-2"));
    let (mut third, welcome) = Peer::enter(world.quic(), &other, "host-2", life).await;
    assert_eq!(welcome.acked.0, 0);
    let delta = third.delta(1, &key(), &[1_000_000; 10]);
    third.say(&delta).await;
    third.acknowledged(1).await;
    merged(27);
}
