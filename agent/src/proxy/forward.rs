//! One request through: admitted, given an arm, sent on, answered.
//!
//! Promise: a request is sent to one arm and at most once. An arm that is down answers 502 to those
//! who are its users; sending them to the other arm instead would hide what the canary did. (A kept
//! connection found closed before a byte of the request went out is replaced: nobody has seen the
//! request then.) The share and the kill switch hold for the next request after they change.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version, header};
use http_body_util::{Either, Full};
use hyper::body::{Body, Incoming};
use hyper_util::client::legacy::Error as ClientError;
use lens_flags::Assignment;
use lens_model::Arm;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::body::{Answered, Judged, Sent};
use super::config::ProxyConfig;
use super::exchange::{Exchange, Upload};
use super::headers::{self, LENS_ARM, Refusal};
use super::ledger::{Ledger, Tracked};
use super::outcome::Outcome;
use super::patience::Stalls;
use super::serve::Upstreams;

/// Says what went wrong between proxy and upstream (RFC 9209).
const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// The body of any answer.
pub(crate) type Answer = Either<Answered, Full<Bytes>>;

/// What every request needs.
#[derive(Debug)]
pub(crate) struct Forwarder {
    pub(crate) config: ProxyConfig,
    pub(crate) pseudonym: String,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) upstreams: Upstreams,
    pub(crate) assignment: watch::Receiver<Assignment>,
    /// Texts in a failed answer that make it a client's fault.
    pub(crate) marks: Arc<[Box<[u8]>]>,
}

impl Forwarder {
    /// Answers a request of the client at this address, whose stalls these are.
    pub(crate) async fn answer(
        &self,
        request: Request<Incoming>,
        client: IpAddr,
        stalls: Arc<Stalls>,
    ) -> Response<Answer> {
        let upload = Arc::new(Upload::new());
        if let Err(Refusal { status, why }) = headers::admit(&request, &self.pseudonym) {
            self.ledger.turned_down();
            return local(status, why);
        }
        let (place, arm) = (self.place(&request), self.arm(&request, client));
        let ledger = Arc::clone(&self.ledger);
        let exchange = Exchange::new(ledger, (place, arm), Arc::clone(&upload), stalls);
        let mut answer = if request.body().size_hint().lower() > self.config.body_bytes_max {
            failed(exchange, Outcome::Refused)
        } else {
            self.send(self.outgoing(request, client, arm, upload), exchange).await
        };
        answer.headers_mut().insert(LENS_ARM, HeaderValue::from_static(arm.as_str()));
        answer
    }

    /// Where a request is counted.
    fn place(&self, request: &Request<Incoming>) -> Option<Arc<Tracked>> {
        let pattern = &self.config.pattern;
        if let Some(slice) = pattern.fixed() {
            return self.ledger.of(slice);
        }
        self.ledger.of(&pattern.slice(request.headers(), request.uri().query()))
    }

    fn arm(&self, request: &Request<Incoming>, client: IpAddr) -> Arm {
        if self.config.canary.is_none() {
            return Arm::Baseline;
        }
        let named = self.config.user_header.as_ref().and_then(|name| request.headers().get(name));
        let assignment = self.assignment.borrow();
        match named {
            Some(user) => assignment.arm(user.as_bytes()),
            None => assignment.arm(client.to_string()),
        }
    }

    /// The request as its upstream gets it.
    fn outgoing(
        &self,
        request: Request<Incoming>,
        client: IpAddr,
        arm: Arm,
        upload: Arc<Upload>,
    ) -> Request<Sent> {
        let (mut parts, body) = request.into_parts();
        headers::to_upstream(&mut parts.headers, &parts.uri, client, &self.pseudonym);
        let upstream = self.config.upstream(arm);
        let mut to = http::uri::Parts::default();
        to.scheme = Some(Scheme::HTTP);
        to.authority = Some(upstream.clone());
        let path = parts.uri.path_and_query().cloned();
        to.path_and_query = Some(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
        // Three good parts make a good whole.
        parts.uri = Uri::from_parts(to).unwrap_or_default();
        parts.version = Version::HTTP_11;
        let config = &self.config;
        let body = Sent::new(body, upload, config.body_bytes_max, config.client_timeout);
        Request::from_parts(parts, body)
    }

    async fn send(&self, request: Request<Sent>, exchange: Exchange) -> Response<Answer> {
        let arm = exchange.arm();
        let mut coming = self.upstreams.of(arm).request(request);
        let mut due = exchange.upload().ended() + self.config.timeout;
        let came = loop {
            tokio::select! {
                biased;
                came = &mut coming => break came,
                () = sleep_until(due) => {}
            }
            let (now, upload) = (Instant::now(), exchange.upload());
            due = upload.ended() + self.config.timeout;
            if upload.waits.load(Ordering::Relaxed) {
                // It is the client that sends nothing, and the bound on that is another.
                due = now + self.config.timeout;
            } else if now >= due {
                return failed(exchange, Outcome::TimedOut);
            }
        };
        match came {
            // Nobody asked for another protocol: it can only be a mistake.
            Ok(answer) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => {
                failed(exchange, Outcome::Aborted)
            }
            Ok(answer) => self.pass(answer, exchange),
            Err(error) => {
                debug!(%arm, %error, cause = ?std::error::Error::source(&error), "not answered");
                let outcome = exchange.upload().fault().unwrap_or_else(|| fault(&error));
                failed(exchange, outcome)
            }
        }
    }

    fn pass(&self, answer: Response<Incoming>, exchange: Exchange) -> Response<Answer> {
        let (mut parts, body) = answer.into_parts();
        headers::to_client(&mut parts.headers, exchange.arm());
        parts.version = Version::HTTP_11;
        parts.extensions = http::Extensions::new();
        let judged = Judged::new(parts.status, Arc::clone(&self.marks));
        let body = Answered::new(body, judged, exchange, self.config.timeout);
        Response::from_parts(parts, Either::Left(body))
    }
}

fn fault(error: &ClientError) -> Outcome {
    if error.is_connect() { Outcome::ConnectFailed } else { Outcome::Aborted }
}

/// Ends an exchange that has no answer of its own.
fn failed(exchange: Exchange, outcome: Outcome) -> Response<Answer> {
    exchange.end(outcome);
    let (status, error, why) = match outcome {
        Outcome::Refused => (
            StatusCode::PAYLOAD_TOO_LARGE,
            "http_request_denied",
            "the request's body is longer than this proxy forwards\n",
        ),
        Outcome::ClientGone => {
            (StatusCode::REQUEST_TIMEOUT, "http_request_error", "the request's body did not come\n")
        }
        Outcome::TimedOut => (
            StatusCode::GATEWAY_TIMEOUT,
            "http_response_timeout",
            "the service did not answer in time\n",
        ),
        Outcome::ConnectFailed => {
            (StatusCode::BAD_GATEWAY, "connection_refused", "the service cannot be reached\n")
        }
        _ => (
            StatusCode::BAD_GATEWAY,
            "http_response_incomplete",
            "the service broke off before it answered\n",
        ),
    };
    let mut answer = local(status, why);
    let named = format!("lens-agent; error={error}");
    if let Ok(value) = HeaderValue::from_str(&named) {
        answer.headers_mut().insert(PROXY_STATUS, value);
    }
    answer
}

/// An answer of the proxy itself.
fn local(status: StatusCode, why: &'static str) -> Response<Answer> {
    let mut answer = Response::new(Either::Right(Full::new(Bytes::from_static(why.as_bytes()))));
    *answer.status_mut() = status;
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, text);
    answer
}
