//! Every bound, at it and one past it.

use std::time::Duration;

use lens_model::Arm;
use lens_model::limits::PROXY_HEAD_BYTES_MAX;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::worlds::answer;
use super::{Upstream, World, ask, get};
use crate::proxy::Outcome;

#[tokio::test]
async fn a_body_at_the_limit_is_forwarded_and_one_byte_more_is_not() {
    let upstream = Upstream::new(|_| answer(200, "taken")).await;
    let world = World::new(upstream.address, None, &[("proxy.body_bytes_max", "1000")]).await;
    let head = "POST / HTTP/1.1\r\nhost: lens\r\nconnection: close\r\n";
    for (length, status) in [(1_000, 200), (1_001, 413)] {
        let body = "x".repeat(length);
        let by_length = format!("{head}content-length: {length}\r\n\r\n{body}");
        let got = ask(world.address, by_length.as_bytes()).await;
        assert_eq!(got.status, status, "{}", got.head);
        let by_chunks = format!(
            "{head}transfer-encoding: chunked\r\n\r\n1f4\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n",
            &body[..500],
            length - 500,
            &body[500..],
        );
        let got = ask(world.address, by_chunks.as_bytes()).await;
        assert_eq!(got.status, status, "{}", got.head);
    }
    world.until(Arm::Baseline, &[(Outcome::Ok, 2), (Outcome::Refused, 2)]).await;
    assert_eq!(upstream.seen().len(), 2, "half a request was taken for one");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused_before_it_has_an_arm() {
    let upstream = Upstream::always(200, "ok").await;
    let world = World::new(upstream.address, None, &[]).await;
    let with = |bytes: usize| {
        let head = "GET / HTTP/1.1\r\nhost: lens\r\nconnection: close\r\nx-long: ";
        format!("{head}{}\r\n\r\n", "x".repeat(bytes - head.len() - 4))
    };
    let most = ask(world.address, with(PROXY_HEAD_BYTES_MAX / 2).as_bytes()).await;
    assert_eq!(most.status, 200, "{}", most.head);
    let more = ask(world.address, with(PROXY_HEAD_BYTES_MAX * 2).as_bytes()).await;
    assert_eq!(more.status, 431, "{}", more.head);
    world.until(Arm::Baseline, &[(Outcome::Ok, 1)]).await;
}

#[tokio::test]
async fn a_connection_past_the_bound_waits_until_another_ends() {
    let upstream = Upstream::always(200, "ok").await;
    let world = World::new(upstream.address, None, &[("proxy.connections_max", "1")]).await;
    let held = TcpStream::connect(world.address).await.unwrap();
    let waiting = tokio::spawn(get(world.address, "/", "ann"));
    // Nothing tells that it waits but that it does not end.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished());
    drop(held);
    assert_eq!(waiting.await.unwrap().status, 200);
}

#[tokio::test]
async fn a_client_that_is_silent_loses_its_place() {
    let upstream = Upstream::always(200, "ok").await;
    let settings = [("proxy.client_timeout_ms", "100"), ("proxy.connections_max", "1")];
    let world = World::new(upstream.address, None, &settings).await;
    // Before a head, in the middle of one, and in the middle of a body.
    let head = "POST / HTTP/1.1\r\nhost: lens\r\n";
    for (sent, status) in
        [(String::new(), 0), (head.into(), 0), (format!("{head}content-length: 5\r\n\r\nhal"), 408)]
    {
        let got = ask(world.address, sent.as_bytes()).await;
        assert!([status, 408].contains(&got.status), "{sent}: {}", got.head);
        assert_eq!(get(world.address, "/", "ann").await.status, 200, "its place is free");
    }
    world.until(Arm::Baseline, &[(Outcome::Ok, 3), (Outcome::ClientGone, 1)]).await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_cut_off_and_not_held_against_the_arm() {
    let body: &'static str = Box::leak("x".repeat(16 << 20).into_boxed_str());
    let upstream = Upstream::always(200, body).await;
    let settings = [("proxy.client_timeout_ms", "3000"), ("proxy.timeout_ms", "1500")];
    let world = World::new(upstream.address, None, &settings).await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: lens\r\n\r\n").await.unwrap();
    world.until(Arm::Baseline, &[(Outcome::ClientGone, 1)]).await;
    let mut left = Vec::new();
    stream.read_to_end(&mut left).await.ok();
    assert!(left.len() < body.len());
}
