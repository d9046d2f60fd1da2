//! A connection whose other end must take what it is sent, and how long it took to.
//!
//! Why: a client that never reads would hold its connection, and one to an upstream, for ever; and
//! one that reads slowly must not make the arm look slow.
//! Bound: one wait for room in the client's window, at most the patience.
//! Units: nanoseconds of the monotonic clock.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use lens_model::Nanos;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// How long writes to one client have waited for it to read.
#[derive(Debug)]
pub(crate) struct Stalls {
    began: Instant,
    /// Waits that ended.
    total_nanos: AtomicU64,
    /// When the wait under way began, after `began`; 0 while there is none.
    since_nanos: AtomicU64,
}

impl Stalls {
    pub(crate) fn new() -> Self {
        let (total_nanos, since_nanos) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { began: Instant::now(), total_nanos, since_nanos }
    }

    /// All of it until now.
    pub(crate) fn total(&self) -> Duration {
        // Relaxed, here and below: a connection is polled by one task, and this is read there.
        let total = self.total_nanos.load(Ordering::Relaxed);
        let since = self.since_nanos.load(Ordering::Relaxed);
        let open = if since == 0 { 0 } else { self.now().saturating_sub(since) };
        Duration::from_nanos(total.saturating_add(open))
    }

    fn begin(&self) {
        if self.since_nanos.load(Ordering::Relaxed) == 0 {
            self.since_nanos.store(self.now().max(1), Ordering::Relaxed);
        }
    }

    fn end(&self) {
        if self.since_nanos.load(Ordering::Relaxed) != 0 {
            self.total_nanos.store(Nanos::from(self.total()).0, Ordering::Relaxed);
            self.since_nanos.store(0, Ordering::Relaxed);
        }
    }

    fn now(&self) -> u64 {
        Nanos::from(self.began.elapsed()).0
    }
}

/// A stream on which no write waits for longer than its patience.
#[derive(Debug)]
pub(crate) struct Patient<T> {
    inner: T,
    patience: Duration,
    stalls: Arc<Stalls>,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<T> Patient<T> {
    pub(crate) const fn new(inner: T, patience: Duration, stalls: Arc<Stalls>) -> Self {
        Self { inner, patience, stalls, waiting: None }
    }

    /// What a write came to, or that it waited for too long.
    fn waited<R>(
        &mut self,
        polled: Poll<io::Result<R>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<R>> {
        if polled.is_ready() {
            self.waiting = None;
            self.stalls.end();
            return polled;
        }
        self.stalls.begin();
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(self.patience)));
        waiting.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Patient<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Patient<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, buffer);
        self.waited(polled, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, buffers);
        self.waited(polled, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(cx);
        self.waited(polled, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test(start_paused = true)]
    async fn a_write_that_finds_no_room_in_time_fails_and_one_that_does_goes_on() {
        let (client, mut reader) = duplex(4);
        let stalls = Arc::new(Stalls::new());
        let mut writer = Patient::new(client, Duration::from_secs(5), Arc::clone(&stalls));
        writer.write_all(b"full").await.unwrap();
        sleep(Duration::from_secs(9)).await;
        assert_eq!(stalls.total(), Duration::ZERO, "nothing waits");
        let read = tokio::spawn(async move {
            sleep(Duration::from_secs(4)).await;
            let mut some = [0; 4];
            reader.read_exact(&mut some).await.unwrap();
            reader
        });
        writer.write_all(b"more").await.unwrap();
        let _reader = read.await.unwrap();
        assert_eq!(stalls.total().as_secs(), 4);
        let error = writer.write_all(b"even more").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(stalls.total().as_secs(), 9);
    }
}
