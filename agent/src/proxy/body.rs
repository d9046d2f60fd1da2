//! Bodies on their way through: streamed, never gathered, each byte moved on as it comes.
//!
//! Promise: an answer's body ends its [`Exchange`] at its last byte, at its first error, or when it
//! is dropped before. A request's body is cut at `proxy.body_bytes_max` and when its client sends
//! nothing for `proxy.client_timeout_ms`.
//! Bounds: one frame of each in memory, and [`PROXY_MARK_BYTES_MAX`] of a failed answer.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use lens_model::limits::PROXY_MARK_BYTES_MAX;
use thiserror::Error;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::exchange::{Exchange, Upload};
use super::outcome::Outcome;

/// Why a body ended before its end.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum BodyError {
    /// More of it than is forwarded.
    #[error("the request's body is longer than proxy.body_bytes_max")]
    TooLarge,
    /// The client sent nothing for too long.
    #[error("the client sent nothing for proxy.client_timeout_ms")]
    ClientSilent,
    /// The upstream sent nothing for too long.
    #[error("the upstream kept us waiting for longer than proxy.timeout_ms")]
    UpstreamSilent,
    /// A side broke off.
    #[error(transparent)]
    Broken(#[from] hyper::Error),
}

type Polled = Poll<Option<Result<Frame<Bytes>, BodyError>>>;

/// A client's body on its way to the upstream.
#[derive(Debug)]
pub(crate) struct Sent {
    client: Incoming,
    upload: Arc<Upload>,
    left: u64,
    patience: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Sent {
    pub(crate) fn new(
        client: Incoming,
        upload: Arc<Upload>,
        bytes_max: u64,
        patience: Duration,
    ) -> Self {
        Self { client, upload, left: bytes_max, patience, waiting: None }
    }

    fn take(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, BodyError> {
        let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(frame)
            }
            None => {
                self.upload.over.store(true, Ordering::Relaxed);
                Err(BodyError::TooLarge)
            }
        }
    }
}

impl Body for Sent {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        let this = &mut *self;
        let Poll::Ready(polled) = Pin::new(&mut this.client).poll_frame(cx) else {
            this.upload.waits.store(true, Ordering::Relaxed);
            let waiting = this.waiting.get_or_insert_with(|| Box::pin(sleep(this.patience)));
            ready!(waiting.as_mut().poll(cx));
            this.upload.gone.store(true, Ordering::Relaxed);
            return Poll::Ready(Some(Err(BodyError::ClientSilent)));
        };
        this.waiting = None;
        this.upload.took();
        Poll::Ready(polled.map(|frame| match frame {
            Ok(frame) => this.take(frame),
            Err(error) => {
                this.upload.gone.store(true, Ordering::Relaxed);
                Err(error.into())
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.client.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.client.size_hint()
    }
}

/// What an answer amounts to once it is whole.
#[derive(Clone, Debug)]
pub(crate) struct Judged {
    status: StatusCode,
    marks: Arc<[Box<[u8]>]>,
    /// The beginning of a failed answer, where marks are looked for.
    seen: Vec<u8>,
}

impl Judged {
    /// An answer with this status, which is a client's fault if one of the marks is in it.
    pub(crate) fn new(status: StatusCode, marks: Arc<[Box<[u8]>]>) -> Self {
        Self { status, marks, seen: Vec::new() }
    }

    fn see(&mut self, frame: &Frame<Bytes>) {
        if self.status.as_u16() >= 500
            && !self.marks.is_empty()
            && let Some(data) = frame.data_ref()
        {
            let room = PROXY_MARK_BYTES_MAX - self.seen.len();
            self.seen.extend_from_slice(&data[..data.len().min(room)]);
        }
    }

    fn outcome(&self) -> Outcome {
        let bears = |mark: &[u8]| self.seen.windows(mark.len()).any(|window| window == mark);
        Outcome::of_answer(self.status, self.marks.iter().any(|mark| bears(mark)))
    }
}

/// An upstream's body on its way to the client.
#[derive(Debug)]
pub(crate) struct Answered {
    upstream: Incoming,
    judged: Judged,
    /// `None` once ended.
    exchange: Option<Exchange>,
    timeout: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Answered {
    /// The body of an answer whose head has come; one without a body ends here.
    pub(crate) fn new(
        upstream: Incoming,
        judged: Judged,
        exchange: Exchange,
        timeout: Duration,
    ) -> Self {
        let exchange = Some(exchange);
        let mut body = Self { upstream, judged, exchange, timeout, waiting: None };
        if body.upstream.is_end_stream() {
            body.whole();
        }
        body
    }

    fn whole(&mut self) {
        self.end(self.judged.outcome());
    }

    fn end(&mut self, outcome: Outcome) {
        if let Some(exchange) = self.exchange.take() {
            exchange.end(outcome);
        }
    }

    /// Ready once the upstream had its time, that of the client's reading left out.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(exchange) = &self.exchange else { return Poll::Pending };
        let waiting =
            self.waiting.get_or_insert_with(|| Box::pin(sleep_until(exchange.due(self.timeout))));
        loop {
            ready!(waiting.as_mut().poll(cx));
            let due = exchange.due(self.timeout);
            if Instant::now() >= due {
                return Poll::Ready(());
            }
            // The client took its time meanwhile.
            waiting.as_mut().reset(due);
        }
    }
}

impl Body for Answered {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        let this = &mut *self;
        match Pin::new(&mut this.upstream).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.judged.see(&frame);
                if this.upstream.is_end_stream() {
                    this.whole();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                this.end(Outcome::Aborted);
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => {
                this.whole();
                Poll::Ready(None)
            }
            Poll::Pending => {
                ready!(this.poll_deadline(cx));
                this.end(Outcome::TimedOut);
                Poll::Ready(Some(Err(BodyError::UpstreamSilent)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.upstream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.upstream.size_hint()
    }
}
