//! Bodies go through as they come, whatever their length and framing.

use std::sync::Arc;

use lens_model::{Arm, Nanos};
use lens_segment::{Harvest, ReadPolicy, SegmentReader, scan};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::worlds::{answer, send};
use super::{Step, Upstream, World, ask, get};
use crate::proxy::Outcome;

#[tokio::test]
async fn a_client_has_the_first_part_of_an_answer_before_the_upstream_sends_the_second() {
    let told = Arc::new(Notify::new());
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n";
    let steps = vec![send(head), Step::Wait(Arc::clone(&told)), send("4\r\nlast\r\n0\r\n\r\n")];
    let upstream = Upstream::new(move |_| steps.clone()).await;
    let world = World::new(upstream.address, None, &[]).await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: lens\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut read = Vec::new();
    while !read.ends_with(b"first\r\n") {
        read.push(stream.read_u8().await.unwrap());
    }
    assert_eq!(world.counters.requests(Arm::Baseline, Outcome::Ok), 0, "it has not ended");
    told.notify_one();
    stream.read_to_end(&mut read).await.unwrap();
    assert!(read.ends_with(b"4\r\nlast\r\n0\r\n\r\n"), "{}", String::from_utf8_lossy(&read));
    world.until(Arm::Baseline, &[(Outcome::Ok, 1)]).await;
}

/// Bytes that no shift or repetition of themselves equals.
fn bytes(length: usize) -> Vec<u8> {
    (0..length as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

#[tokio::test]
async fn large_answers_come_byte_for_byte_by_length_by_chunks_and_to_the_end() {
    const LENGTH: usize = 4 << 20;
    let body = bytes(LENGTH);
    let chunked = |body: &[u8]| -> Vec<u8> {
        let chunk =
            |part: &[u8]| [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat();
        [body.chunks(70_001).flat_map(chunk).collect(), b"0\r\n\r\n".to_vec()].concat()
    };
    let by_length = [format!("content-length: {LENGTH}\r\n\r\n").as_bytes(), &body].concat();
    let by_chunks = [b"transfer-encoding: chunked\r\n\r\n", &chunked(&body)[..]].concat();
    let to_the_end = [b"connection: close\r\n\r\n", &body[..]].concat();
    for (sent, close) in [(by_length, false), (by_chunks, false), (to_the_end, true)] {
        let mut steps = vec![send("HTTP/1.1 200 OK\r\n"), Step::Send(sent)];
        steps.extend(close.then_some(Step::Close));
        let upstream = Upstream::new(move |_| steps.clone()).await;
        let world = World::new(upstream.address, None, &[]).await;
        let got = get(world.address, "/", "ann").await;
        let came = match got.header("transfer-encoding") {
            Some(_) => dechunked(&got.body),
            None => got.body.clone(),
        };
        assert!(came == body, "{}: {} bytes", got.head, came.len());
        world.until(Arm::Baseline, &[(Outcome::Ok, 1)]).await;
    }
}

fn dechunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let line = bytes.windows(2).position(|window| window == b"\r\n").unwrap();
        let size = std::str::from_utf8(&bytes[..line]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&bytes[line + 2..line + 2 + size]);
        bytes = &bytes[line + 2 + size + 2..];
    }
}

#[tokio::test]
async fn a_body_goes_to_the_upstream_whole_by_length_and_by_chunks() {
    let upstream = Upstream::new(|_| answer(200, "taken")).await;
    let world = World::new(upstream.address, None, &[]).await;
    let body = "x".repeat(300_000);
    let head = "POST /search HTTP/1.1\r\nhost: lens\r\nconnection: close\r\n";
    let by_length = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    let by_chunks =
        format!("{head}transfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    for request in [by_length, by_chunks] {
        assert_eq!(ask(world.address, request.as_bytes()).await.body, b"taken");
    }
    let seen = upstream.seen();
    assert!(seen.iter().all(|seen| seen.matches('x').count() >= 300_000));
    assert_eq!(seen.len(), 2);
}

#[tokio::test]
async fn a_kept_connection_that_the_upstream_closed_is_replaced_unnoticed() {
    let upstream = Upstream::new(|_| {
        let mut steps = answer(200, "ok");
        // Not announced: the proxy keeps the connection and finds it closed.
        steps.push(Step::Close);
        steps
    });
    let upstream = upstream.await;
    let world = World::new(upstream.address, None, &[]).await;
    for _ in 0..5 {
        assert_eq!(get(world.address, "/", "ann").await.status, 200);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    world.until(Arm::Baseline, &[(Outcome::Ok, 5)]).await;
}

#[tokio::test]
async fn what_was_counted_lies_in_a_segment_that_outlives_the_proxy() {
    let upstream =
        Upstream::new(|request| answer(if request.contains("/bad") { 503 } else { 200 }, "ok"));
    let upstream = upstream.await;
    let world = World::new(upstream.address, None, &[]).await;
    for path in ["/a", "/b", "/bad"] {
        get(world.address, path, "ann").await;
    }
    let dir = world.end().await;
    let found = scan(dir.path()).unwrap();
    let mut reader = SegmentReader::open(&found.paths[0], &ReadPolicy::default()).unwrap();
    assert_eq!(reader.info().instance.as_str(), "proxy-a");
    assert!(!reader.owner_alive().unwrap(), "the proxy has left it");
    let mut harvest = Harvest::default();
    reader.harvest(Nanos(u64::MAX), &mut harvest).unwrap();
    let series: Vec<_> =
        harvest.series.iter().map(|s| (s.key.to_string(), s.counts.total())).collect();
    assert_eq!(series, [("backend/rust/large/e2e/baseline".into(), 3)]);
    let requests: Vec<_> = harvest.requests.iter().map(|r| (r.ok, r.error)).collect();
    assert_eq!(requests, [(2, 1)]);
}
