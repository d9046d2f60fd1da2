//! The one place of the guards that holds a socket: a probe's question and its answer.
//!
//! No redirects, no proxies; at most [`ANSWER_BYTES_MAX`] of an answer are read, and a longer one is a
//! failure, because what is cut off cannot be counted.

use std::time::Duration;

use axum::http::{Method, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;

use super::probe::{Outcome, Probe, judge};
use crate::alerts::transport::{HttpClient, chain};

/// Most of an answer that is read, bytes.
pub(super) const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Pause before a further attempt.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// One run: asks until an attempt passes or none is left; gives what the last one came to.
pub(super) async fn ask(client: HttpClient, probe: Probe) -> Outcome {
    let mut attempt = 0;
    loop {
        let outcome = match tokio::time::timeout(probe.timeout.into(), once(&client, &probe)).await
        {
            Ok(Ok((status, body))) => judge(&probe, status, &body),
            Ok(Err(why)) => Outcome::Failed { why: super::probe::cut(why) },
            Err(_) => {
                let why = format!("no answer within {:.1} s", probe.timeout.as_secs_f64());
                Outcome::Failed { why }
            }
        };
        if matches!(outcome, Outcome::Passed { .. }) || attempt == probe.retries {
            return outcome;
        }
        attempt += 1;
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// The address with the query in it.
fn address(probe: &Probe) -> String {
    if probe.body.is_some() {
        return probe.url.clone();
    }
    let sign = if probe.url.contains('?') { '&' } else { '?' };
    let query: String = form_urlencoded::byte_serialize(probe.query.as_bytes()).collect();
    format!("{}{sign}q={query}", probe.url)
}

async fn once(client: &HttpClient, probe: &Probe) -> Result<(u16, Bytes), String> {
    let mut request = hyper::Request::builder()
        .method(Method::POST)
        .uri(address(probe))
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, concat!("lens-probe/", env!("CARGO_PKG_VERSION")));
    if probe.body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    let body = Full::from(probe.body.clone().unwrap_or_default());
    let request = request.body(body).map_err(|error| error.to_string())?;
    let response = client.request(request).await.map_err(|error| chain(&error))?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| {
        format!("the answer broke off, or is longer than {ANSWER_BYTES_MAX} bytes: {error}")
    })?;
    Ok((head.status.as_u16(), body.to_bytes()))
}

#[cfg(test)]
mod tests {
    use super::super::probe::tests::probe;
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[test]
    fn a_query_is_encoded_into_the_address_and_a_body_leaves_that_alone() {
        let plain = Probe { query: "fn a&b".into(), ..probe("class") };
        assert_eq!(address(&plain), "http://127.0.0.1:1/search?q=fn+a%26b");
        let more = Probe { url: "http://n/search?limit=1".into(), ..plain.clone() };
        assert_eq!(address(&more), "http://n/search?limit=1&q=fn+a%26b");
        assert_eq!(
            address(&Probe { body: Some("{}".into()), ..plain }),
            "http://127.0.0.1:1/search"
        );
    }

    /// Answers each connection with the next of these bodies, then no more.
    async fn engine(bodies: Vec<String>) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/search", listener.local_addr().unwrap());
        tokio::spawn(async move {
            for body in bodies {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut read = [0; 4_096];
                let _ = stream.read(&mut read).await.unwrap();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                // The one that is too long is not read to its end.
                drop(stream.write_all((head + &body).as_bytes()).await);
            }
        });
        url
    }

    async fn run(bodies: &[&str], retries: u32) -> Outcome {
        let url = engine(bodies.iter().map(|body| (*body).to_owned()).collect()).await;
        let client = crate::alerts::transport::client(None).unwrap();
        ask(client, Probe { url, retries, ..probe("class") }).await
    }

    #[tokio::test]
    async fn a_run_fails_only_once_every_attempt_has() {
        let (none, some) = (r#"{"hits": []}"#, r#"{"hits": [1]}"#);
        assert_eq!(run(&[none, none, some], 2).await, Outcome::Passed { results: Some(1) });
        assert_eq!(run(&[none, none, some], 1).await, Outcome::TooFew { results: 0 });
        let gone = run(&[], 0).await;
        assert!(matches!(gone, Outcome::Failed { .. }), "{gone:?}");
    }

    #[tokio::test]
    async fn an_answer_is_read_up_to_its_bound_and_one_byte_more_is_a_failure() {
        let of = |bytes: usize| {
            let frame = r#"{"hits": [""]}"#.len();
            format!(r#"{{"hits": ["{}"]}}"#, "x".repeat(bytes - frame))
        };
        assert_eq!(run(&[&of(ANSWER_BYTES_MAX)], 0).await, Outcome::Passed { results: Some(1) });
        let longer = run(&[&of(ANSWER_BYTES_MAX + 1)], 0).await;
        assert!(matches!(&longer, Outcome::Failed { why } if why.contains("longer")), "{longer:?}");
    }
}
