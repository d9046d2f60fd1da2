//! Bounds of the agents' door, each at its bound, with real QUIC clients on loopback.
#![allow(clippy::unwrap_used)]

mod world;

use std::net::UdpSocket;
use std::time::Duration;

use lens_model::Incarnation;
use lens_wire::{Phase, RefuseCode};
use quinn::Endpoint;
use tokio::time::timeout;
use world::peer::{Peer, client, connect};
use world::{PATIENCE, World, holds, http, identity, until};

/// A counter of the aggregator about itself.
fn counter(world: &World, name: &str) -> u64 {
    let (_, metrics) = http::get(world.http(), "/metrics").unwrap();
    let name = format!("lens_aggregator_{name} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
    line.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
}

/// Memory a process holds, KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}

async fn enter(world: &World, name: &str) -> Peer {
    let files = identity(&world.issue(name));
    Peer::enter(world.quic(), &files, name, Incarnation(1)).await.0
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_holds_as_many_connections_as_configured_and_not_one_more() {
    let world = World::new(&[("quic.connections_per_address_max", "3")]);
    let mut held = Vec::new();
    for at in 0..3 {
        held.push(enter(&world, &format!("host-{at}")).await);
    }
    let files = identity(&world.issue("host-9"));
    assert!(connect(world.quic(), client(&files)).await.is_err(), "a fourth was let in");
    assert_eq!(counter(&world, "connections_refused_total"), 1);
    drop(held.pop());
    until("a place free again", || {
        let (_, text) = http::get(world.http(), "/api/v1/agents")?;
        holds(text.contains("\"connected\":2"), &text)
    });
    Peer::enter(world.quic(), &files, "host-9", Incarnation(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_together_hold_as_many_as_configured() {
    let world = World::new(&[("quic.connections_max", "2")]);
    let _held = (enter(&world, "host-1").await, enter(&world, "host-2").await);
    let files = identity(&world.issue("host-3"));
    assert!(connect(world.quic(), client(&files)).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_holds_two_connections_and_a_third_is_closed() {
    let world = World::new(&[("quic.hello_max_ms", "20000")]);
    let files = identity(&world.issue("host-1"));
    let mut held = Vec::new();
    for _ in 0..2 {
        let (endpoint, connection) = connect(world.quic(), client(&files)).await.unwrap();
        // A stream that is begun and goes on: neither end is done with it.
        let (mut send, receive) = connection.open_bi().await.unwrap();
        send.write_all(&[40]).await.unwrap();
        held.push((endpoint, connection, send, receive));
    }
    let third = timeout(PATIENCE, async {
        loop {
            let (_endpoint, connection) = connect(world.quic(), client(&files)).await.unwrap();
            let ended = connection.closed().await.to_string();
            if ended.contains("already") {
                return ended;
            }
        }
    });
    let ended = third.await.unwrap();
    assert!(ended.contains("host-1 holds 2"), "{ended}");
    assert!(held.iter().all(|(_, connection, ..)| connection.close_reason().is_none()));
    // Another identity is not kept out by it.
    enter(&world, "host-2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_slow_to_say_hello_is_sent_away() {
    let world = World::new(&[("quic.hello_max_ms", "200")]);
    let files = identity(&world.issue("host-1"));
    // No stream at all.
    let (_endpoint, connection) = connect(world.quic(), client(&files)).await.unwrap();
    timeout(PATIENCE, connection.closed()).await.unwrap();
    // A stream, and a HELLO that comes a byte at a time.
    let mut peer = Peer::open(world.quic(), &files, Incarnation(1)).await;
    peer.say(&[40]).await;
    let refuse = peer.refusal(Phase::Opening).await;
    assert_eq!(refuse.code, RefuseCode::Protocol);
    assert!(refuse.text.as_str().contains("200 ms"), "{refuse:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_opens_one_stream_and_sends_no_datagrams() {
    let world = World::new(&[]);
    let peer = enter(&world, "host-1").await;
    let second = timeout(Duration::from_millis(300), peer.connection.open_bi()).await;
    assert!(second.is_err(), "a second stream was opened");
    let lone = timeout(Duration::from_millis(300), peer.connection.open_uni()).await;
    assert!(lone.is_err(), "a one-way stream was opened");
    assert_eq!(peer.connection.max_datagram_size(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_it_is_busy_a_new_address_proves_itself_first_and_still_gets_in() {
    let world = World::new(&[("quic.handshakes_unvalidated_max", "0")]);
    enter(&world, "host-1").await;
    assert!(counter(&world, "retries_total") >= 1);
}

/// The first packet of a real handshake, caught on the way.
async fn first_flight(world: &World) -> Vec<u8> {
    let trap = UdpSocket::bind("127.0.0.1:0").unwrap();
    trap.set_read_timeout(Some(PATIENCE)).unwrap();
    let to = trap.local_addr().unwrap();
    let files = identity(&world.issue("trapped"));
    let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    let connecting = endpoint.connect_with(client(&files), to, "localhost").unwrap();
    let caught = tokio::task::spawn_blocking(move || {
        let mut packet = vec![0; 2_048];
        let (length, _) = trap.recv_from(&mut packet).unwrap();
        packet.truncate(length);
        packet
    });
    let packet = caught.await.unwrap();
    drop(connecting);
    packet
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_first_flight_and_a_thousand_half_open_handshakes_change_no_count() {
    // All of it comes from one address here, which would otherwise be the first bound to hold.
    let mut world = World::new(&[("quic.connections_per_address_max", "2000")]);
    let packet = first_flight(&world).await;
    assert!(packet.len() >= 1_200, "an initial packet is padded");
    let before = resident(world.aggregator().pid());
    let seen =
        ["connections_total", "frames_total", "samples_merged_total", "deltas_accepted_total"];
    let counts = seen.map(|name| counter(&world, name));
    // Each from a port of its own, with a connection id of its own in the same place.
    let sockets: Vec<UdpSocket> =
        (0..1_000).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    for (at, socket) in sockets.iter().enumerate() {
        let mut packet = packet.clone();
        // As caught from one in two, and with another source id from the others.
        if at % 2 == 1 {
            let id = usize::from(packet[5]) + 7;
            packet[id] ^= u8::try_from(at % 251).unwrap();
        }
        socket.send_to(&packet, world.quic()).unwrap();
    }
    enter(&world, "rightful").await;
    let grown = resident(world.aggregator().pid()).saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB");
    let now = seen.map(|name| counter(&world, name));
    assert_eq!(now[2..], counts[2..], "nothing was merged");
    assert_eq!(now[0], counts[0] + 1, "only the rightful one came in");
    println!("1,000 half-open handshakes: {grown} KiB");
}
