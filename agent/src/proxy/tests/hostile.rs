//! Requests made to mean one thing here and another behind.

use lens_model::Arm;

use super::worlds::answer;
use super::{Upstream, World, ask};

/// What may be smuggled.
const SECOND: &str = "GET /admin HTTP/1.1\r\nhost: lens\r\n\r\n";

#[tokio::test]
async fn no_framing_makes_one_request_two() {
    let upstream = Upstream::new(|_| answer(200, "ok")).await;
    let world = World::new(upstream.address, None, &[("proxy.client_timeout_ms", "300")]).await;
    let head = "POST / HTTP/1.1\r\nhost: lens\r\nconnection: close\r\n";
    let length = SECOND.len();
    for framing in [
        format!("content-length: {length}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{SECOND}"),
        format!("transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n{SECOND}"),
        format!("content-length: 0\r\ncontent-length: {length}\r\n\r\n{SECOND}"),
        format!("content-length: 0, {length}\r\n\r\n{SECOND}"),
        format!("content-length: +0\r\n\r\n{SECOND}"),
        format!("transfer-encoding: xchunked\r\n\r\n0\r\n\r\n{SECOND}"),
        format!("transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n{SECOND}"),
        format!("transfer-encoding : chunked\r\n\r\n0\r\n\r\n{SECOND}"),
        format!("transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n{SECOND}"),
        format!("connection: content-length\r\ncontent-length: {length}\r\n\r\n{SECOND}"),
        format!(
            "connection: transfer-encoding\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{SECOND}"
        ),
        format!("x: y\rtransfer-encoding: chunked\r\n\r\n0\r\n\r\n{SECOND}"),
        format!("x: y\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{SECOND}"),
    ] {
        ask(world.address, format!("{head}{framing}").as_bytes()).await;
    }
    let seen = upstream.seen();
    let smuggled = seen.iter().filter(|seen| seen.starts_with("GET /admin")).count();
    assert_eq!(smuggled, 0, "{seen:#?}");
    // A body that holds a request is a body.
    assert!(seen.iter().any(|seen| seen.ends_with(SECOND)), "{seen:#?}");
}

#[tokio::test]
async fn a_request_for_another_kind_of_proxy_is_refused_and_reaches_nobody() {
    let upstream = Upstream::new(|_| answer(200, "ok")).await;
    let world = World::new(upstream.address, None, &[]).await;
    for (request, status) in [
        ("CONNECT other:443 HTTP/1.1\r\nhost: other:443\r\n", 501),
        ("OPTIONS * HTTP/1.1\r\nhost: lens\r\n", 501),
        ("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n", 400),
        ("GET / HTTP/1.1\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: lens\r\nconnection: upgrade\r\nupgrade: websocket\r\n", 501),
        ("GET / HTTP/1.1\r\nhost: lens\r\nvia: 1.1 proxy-a\r\n", 508),
    ] {
        let got =
            ask(world.address, format!("{request}connection: close\r\n\r\n").as_bytes()).await;
        assert_eq!(got.status, status, "{request}");
        assert!(!got.body.is_empty(), "{request}: it says why");
        assert_eq!(got.header("x-lens-arm"), None, "{request}");
    }
    assert!(upstream.seen().is_empty());
    world.until(Arm::Baseline, &[]).await;
    let turned_down = &world.counters.turned_down_total;
    assert_eq!(turned_down.load(std::sync::atomic::Ordering::Relaxed), 6);
}

#[tokio::test]
async fn an_absolute_target_is_for_this_service_and_names_its_host() {
    let upstream = Upstream::new(|_| answer(200, "ok")).await;
    let world = World::new(upstream.address, None, &[]).await;
    let request =
        "GET http://search.example/a?b HTTP/1.1\r\nhost: other\r\nconnection: close\r\n\r\n";
    assert_eq!(ask(world.address, request.as_bytes()).await.status, 200);
    let seen = &upstream.seen()[0];
    assert!(seen.starts_with("GET /a?b HTTP/1.1\r\n"), "{seen}");
    assert!(seen.contains("host: search.example\r\n"), "{seen}");
    assert!(!seen.contains("host: other"), "{seen}");
}

#[tokio::test]
async fn what_a_client_says_of_the_connection_or_the_arm_does_not_reach_the_upstream() {
    let upstream = Upstream::new(|_| answer(200, "ok")).await;
    let world = World::new(upstream.address, None, &[]).await;
    let request = "GET / HTTP/1.1\r\nhost: lens\r\nconnection: close, x-secret\r\nx-secret: 1\r\n\
                   x-lens-arm: canary\r\nte: trailers\r\nx-forwarded-for: 192.0.2.1\r\n\r\n";
    let got = ask(world.address, request.as_bytes()).await;
    assert_eq!(got.header("x-lens-arm"), Some("baseline"));
    let seen = &upstream.seen()[0];
    for absent in ["x-secret", "x-lens-arm", "te:", "connection:"] {
        assert!(!seen.contains(absent), "{absent}: {seen}");
    }
    assert!(seen.contains("x-forwarded-for: 192.0.2.1, 127.0.0.1\r\n"), "{seen}");
    assert!(seen.contains("via: 1.1 proxy-a\r\n"), "{seen}");
}
