//! Request counters and gauges: the few numbers that judge beside latency.
//!
//! Promise: setting and counting never fail or wait. Counters only grow.

use core::sync::atomic::Ordering;
use std::sync::Arc;

use crate::entry::{GAUGE_VALUE, REQUESTS_ERROR, REQUESTS_OK};
use crate::inner::Inner;

/// Counts the requests of one slice and arm by how they ended. Usable from any thread.
#[derive(Clone)]
pub struct Requests {
    inner: Arc<Inner>,
    entry: usize,
}

impl Requests {
    pub(crate) fn new(inner: Arc<Inner>, entry: usize) -> Self {
        Self { inner, entry }
    }

    /// One request was answered.
    #[inline]
    pub fn ok(&self) {
        // Relaxed: monotone, read late is fine. Any thread writes, so the addition is a locked
        // one: once for each request, not for each stage.
        self.inner.region.u64(self.entry + REQUESTS_OK).fetch_add(1, Ordering::Relaxed);
    }

    /// One request failed.
    #[inline]
    pub fn error(&self) {
        // Relaxed: as in `ok`.
        self.inner.region.u64(self.entry + REQUESTS_ERROR).fetch_add(1, Ordering::Relaxed);
    }

    /// So many requests were answered and so many failed: what another system counted.
    pub fn add(&self, ok: u64, error: u64) {
        // Relaxed: as in `ok`.
        self.inner.region.u64(self.entry + REQUESTS_OK).fetch_add(ok, Ordering::Relaxed);
        self.inner.region.u64(self.entry + REQUESTS_ERROR).fetch_add(error, Ordering::Relaxed);
    }
}

/// A value that goes up and down, as last set. Usable from any thread.
#[derive(Clone)]
pub struct Gauge {
    inner: Arc<Inner>,
    /// None for one that could not be registered.
    entry: Option<usize>,
}

impl Gauge {
    pub(crate) fn new(inner: Arc<Inner>, entry: usize) -> Self {
        Self { inner, entry: Some(entry) }
    }

    pub(crate) fn refusing(inner: Arc<Inner>) -> Self {
        Self { inner, entry: None }
    }

    /// Sets the value. One that is not a finite number, or a gauge that could not be registered,
    /// changes nothing and counts as refused.
    #[inline]
    pub fn set(&self, value: f64) {
        match self.entry {
            // Relaxed: one word is the whole value.
            Some(entry) if value.is_finite() => {
                let word = self.inner.region.u64(entry + GAUGE_VALUE);
                word.store(value.to_bits(), Ordering::Relaxed);
            }
            _ => self.inner.refuse(),
        }
    }
}
