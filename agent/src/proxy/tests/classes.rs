//! What counts as what.

use lens_flags::{Assignment, Share};
use lens_model::Arm;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::worlds::{answer, everyone, send};
use super::{Step, Upstream, World, get};
use crate::proxy::Outcome;

/// The status in the path's last part.
fn asked(request: &str) -> u16 {
    request.split(' ').nth(1).unwrap().rsplit('/').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn an_answer_is_counted_by_its_status_and_passed_on_as_it_is() {
    let upstream = Upstream::new(|request| answer(asked(request), "body")).await;
    let world = World::new(upstream.address, None, &[]).await;
    for status in [200, 301, 400, 404, 500, 503] {
        let got = get(world.address, &format!("/{status}"), "ann").await;
        assert_eq!((got.status, &got.body[..]), (status, &b"body"[..]), "{}", got.head);
        assert_eq!(got.header("x-lens-arm"), Some("baseline"));
    }
    let expected = [(Outcome::Ok, 2), (Outcome::ClientError, 2), (Outcome::ServerError, 2)];
    world.until(Arm::Baseline, &expected).await;
}

#[tokio::test]
async fn a_5xx_that_bears_the_mark_of_a_bad_query_is_the_clients_fault() {
    let upstream = Upstream::new(|request| {
        let body =
            if request.contains("bad") { "{\"message\":\"Syntax Error: a:)(\"}" } else { "x" };
        answer(500, body)
    });
    let upstream = upstream.await;
    let world = World::new(upstream.address, None, &[("proxy.bad_query", "Syntax Error")]).await;
    assert_eq!(get(world.address, "/bad", "ann").await.status, 500);
    assert_eq!(get(world.address, "/good", "ann").await.status, 500);
    world.until(Arm::Baseline, &[(Outcome::ClientError, 1), (Outcome::ServerError, 1)]).await;
}

#[tokio::test]
async fn a_mark_is_looked_for_in_the_first_4_kib_and_not_past_them() {
    let at =
        |before: usize| answer(500, &format!("{}mark{}", "x".repeat(before), "y".repeat(9_000)));
    let upstream = Upstream::new(move |request| at(usize::from(asked(request)))).await;
    let world = World::new(upstream.address, None, &[("proxy.bad_query", "mark")]).await;
    get(world.address, "/4092", "ann").await;
    get(world.address, "/4093", "ann").await;
    world.until(Arm::Baseline, &[(Outcome::ClientError, 1), (Outcome::ServerError, 1)]).await;
}

#[tokio::test]
async fn an_upstream_that_is_down_is_an_error_of_its_arm_and_nobody_elses() {
    let stable = Upstream::always(200, "stable").await;
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let world = World::new(stable.address, Some(gone), &[]).await;
    world.assign.send(everyone()).unwrap();
    let got = get(world.address, "/", "ann").await;
    assert_eq!((got.status, got.header("x-lens-arm")), (502, Some("canary")));
    assert!(got.header("proxy-status").unwrap().contains("connection_refused"), "{}", got.head);
    world.until(Arm::Canary, &[(Outcome::ConnectFailed, 1)]).await;
    assert!(stable.seen().is_empty(), "a request was sent to the other arm: {:?}", stable.seen());
}

#[tokio::test]
async fn an_answer_that_does_not_come_in_time_is_a_time_out() {
    let upstream = Upstream::new(|_| vec![Step::Hang]).await;
    let world = World::new(upstream.address, None, &[("proxy.timeout_ms", "100")]).await;
    let got = get(world.address, "/", "ann").await;
    assert_eq!(got.status, 504);
    assert!(got.header("proxy-status").unwrap().contains("http_response_timeout"));
    world.until(Arm::Baseline, &[(Outcome::TimedOut, 1)]).await;
}

#[tokio::test]
async fn an_answer_that_stops_in_the_middle_is_a_time_out_whatever_its_status() {
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf";
    let upstream = Upstream::new(move |_| vec![send(head), Step::Hang]).await;
    let world = World::new(upstream.address, None, &[("proxy.timeout_ms", "100")]).await;
    let got = get(world.address, "/", "ann").await;
    assert_eq!((got.status, &got.body[..]), (200, &b"half"[..]));
    world.until(Arm::Baseline, &[(Outcome::TimedOut, 1)]).await;
}

#[tokio::test]
async fn an_answer_that_is_broken_off_is_an_error_whatever_its_status() {
    for (body, end) in [
        ("content-length: 10\r\n\r\nhalf", Step::Reset),
        ("content-length: 10\r\n\r\nhalf", Step::Close),
        ("transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n", Step::Reset),
        ("transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n", Step::Close),
        ("transfer-encoding: chunked\r\n\r\nzz\r\nhalf\r\n", Step::Hang),
    ] {
        let head = format!("HTTP/1.1 200 OK\r\n{body}");
        let steps = vec![send(&head), end];
        let upstream = Upstream::new(move |_| steps.clone()).await;
        let world = World::new(upstream.address, None, &[]).await;
        let got = get(world.address, "/", "ann").await;
        // What broke off may have overtaken the head, here as on the way to here.
        assert!([0, 200, 502].contains(&got.status), "{}", got.head);
        let whole = got.body.ends_with(b"0\r\n\r\n") || got.body.len() == 10;
        assert!(got.status != 200 || !whole, "the client takes it for a whole answer");
        world.until(Arm::Baseline, &[(Outcome::Aborted, 1)]).await;
    }
}

#[tokio::test]
async fn no_answer_or_one_that_is_no_http_is_an_error() {
    let switched = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n";
    for steps in [
        vec![Step::Close],
        vec![Step::Reset],
        vec![send("220 smtp.example ready\r\n\r\n"), Step::Hang],
        vec![send("HTTP/1.1 200 OK\r\ncontent-length: 3, 4\r\n\r\nabcd"), Step::Hang],
        vec![send(switched), Step::Hang],
    ] {
        let upstream = Upstream::new(move |_| steps.clone()).await;
        let world = World::new(upstream.address, None, &[]).await;
        let got = get(world.address, "/", "ann").await;
        assert_eq!(got.status, 502, "{}", got.head);
        world.until(Arm::Baseline, &[(Outcome::Aborted, 1)]).await;
        assert_eq!(upstream.seen().len(), 1, "it was asked again");
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_is_held_against_nobody() {
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf";
    for (steps, first) in [(vec![Step::Hang], 0), (vec![send(head), Step::Hang], 1)] {
        let upstream = Upstream::new(move |_| steps.clone()).await;
        let world = World::new(upstream.address, None, &[]).await;
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: lens\r\n\r\n").await.unwrap();
        stream.read_exact(&mut vec![0; first]).await.unwrap();
        while upstream.seen().is_empty() {
            tokio::task::yield_now().await;
        }
        drop(stream);
        world.until(Arm::Baseline, &[(Outcome::ClientGone, 1)]).await;
    }
}

#[tokio::test]
async fn an_answer_without_a_body_ends_at_its_head() {
    let upstream = Upstream::new(|request| {
        let status = asked(request);
        let length = if request.starts_with("HEAD") { "content-length: 9\r\n" } else { "" };
        vec![send(&format!("HTTP/1.1 {status} X\r\n{length}\r\n"))]
    });
    let upstream = upstream.await;
    let world = World::new(upstream.address, None, &[]).await;
    for (method, status) in [("HEAD", 200), ("GET", 204), ("GET", 304)] {
        let request =
            format!("{method} /{status} HTTP/1.1\r\nhost: lens\r\nconnection: close\r\n\r\n");
        let got = super::ask(world.address, request.as_bytes()).await;
        assert_eq!((got.status, got.body.len()), (status, 0), "{}", got.head);
    }
    world.until(Arm::Baseline, &[(Outcome::Ok, 3)]).await;
}

#[tokio::test]
async fn share_and_kill_hold_for_the_next_request_of_an_open_connection() {
    let (stable, canary) = (Upstream::always(200, "s").await, Upstream::always(200, "c").await);
    let world = World::new(stable.address, Some(canary.address), &[]).await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let killed = Assignment { killed: true, ..everyone() };
    for (assignment, expected) in
        [(Assignment::default(), b's'), (everyone(), b'c'), (killed, b's'), (everyone(), b'c')]
    {
        world.assign.send(assignment).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: lens\r\nx-user: ann\r\n\r\n").await.unwrap();
        let mut read = Vec::new();
        while !read.windows(5).any(|w| w[..4] == *b"\r\n\r\n") {
            let mut some = [0; 512];
            let count = stream.read(&mut some).await.unwrap();
            read.extend_from_slice(&some[..count]);
        }
        assert_eq!(read.last(), Some(&expected));
    }
    world.until(Arm::Canary, &[(Outcome::Ok, 2)]).await;
}

#[tokio::test]
async fn without_a_canary_upstream_everyone_is_in_the_baseline() {
    let stable = Upstream::always(200, "s").await;
    let world = World::new(stable.address, None, &[]).await;
    world.assign.send(everyone()).unwrap();
    assert_eq!(get(world.address, "/", "ann").await.header("x-lens-arm"), Some("baseline"));
}

#[tokio::test]
async fn a_user_keeps_an_arm_and_without_a_name_an_address_does() {
    let (stable, canary) = (Upstream::always(200, "s").await, Upstream::always(200, "c").await);
    let world = World::new(stable.address, Some(canary.address), &[]).await;
    let half = Assignment { share: Share::percent(50.0).unwrap(), ..everyone() };
    world.assign.send(half).unwrap();
    for user in ["ann", "bob", "eve", "dan", "joe", "kim"] {
        for _ in 0..3 {
            let got = get(world.address, "/", user).await;
            assert_eq!(got.header("x-lens-arm"), Some(half.arm(user).as_str()), "{user}");
        }
    }
    for _ in 0..3 {
        let got =
            super::ask(world.address, b"GET / HTTP/1.1\r\nhost: lens\r\nconnection: close\r\n\r\n");
        assert_eq!(got.await.header("x-lens-arm"), Some(half.arm("127.0.0.1").as_str()));
    }
}
