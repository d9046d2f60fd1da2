//! One request on its way: its clock, and that it ends exactly once.
//!
//! Why: whatever ends a request – an answer, an error, a client that hangs up in the middle of
//! either – ends it here, also where nobody says so: an exchange that is dropped was the client's
//! doing, or that of an agent told to stop, and neither is held against the arm.
//! Units: nanoseconds of the monotonic clock. What is timed is the upstream: from the last byte of
//! the request taken from the client to the last byte of the answer taken from the upstream, less
//! the time in which the client's window was full.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use lens_model::{Arm, Nanos};
use tokio::time::Instant;

use super::ledger::{Ledger, Tracked};
use super::outcome::Outcome;
use super::patience::Stalls;

/// What the client's own part of a request has come to; shared with the body that is sent.
#[derive(Debug)]
pub(crate) struct Upload {
    began: Instant,
    /// When the last byte was taken from the client, after `began`.
    taken_nanos: AtomicU64,
    /// Whether the next byte is the client's to send.
    pub(crate) waits: AtomicBool,
    /// Whether there was more of it than is forwarded.
    pub(crate) over: AtomicBool,
    /// Whether the client broke off, or sent nothing for too long.
    pub(crate) gone: AtomicBool,
}

impl Upload {
    /// A request whose head has just been read.
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            taken_nanos: AtomicU64::new(0),
            waits: AtomicBool::new(false),
            over: AtomicBool::new(false),
            gone: AtomicBool::new(false),
        }
    }

    /// Bytes were taken from the client just now.
    pub(crate) fn took(&self) {
        // Relaxed, here and below: both ends of a request are polled by one connection each, and
        // what is read late only moves a deadline that is asked about again.
        self.taken_nanos.store(Nanos::from(self.began.elapsed()).0, Ordering::Relaxed);
        self.waits.store(false, Ordering::Relaxed);
    }

    /// From when on the upstream has kept us waiting.
    pub(crate) fn ended(&self) -> Instant {
        self.began + Duration::from_nanos(self.taken_nanos.load(Ordering::Relaxed))
    }

    /// Whose doing it is that the request could not be sent, if not the upstream's.
    pub(crate) fn fault(&self) -> Option<Outcome> {
        if self.over.load(Ordering::Relaxed) {
            return Some(Outcome::Refused);
        }
        self.gone.load(Ordering::Relaxed).then_some(Outcome::ClientGone)
    }
}

/// A request that has an arm and has not ended.
#[derive(Debug)]
pub(crate) struct Exchange {
    ledger: Arc<Ledger>,
    place: Option<Arc<Tracked>>,
    arm: Arm,
    upload: Arc<Upload>,
    stalls: Arc<Stalls>,
    /// What the stalls of the connection came to when this began.
    stalled: Duration,
    ended: bool,
}

impl Exchange {
    /// A request that was given this arm and place, of the client whose stalls these are.
    pub(crate) fn new(
        ledger: Arc<Ledger>,
        (place, arm): (Option<Arc<Tracked>>, Arm),
        upload: Arc<Upload>,
        stalls: Arc<Stalls>,
    ) -> Self {
        let stalled = stalls.total();
        Self { ledger, place, arm, upload, stalls, stalled, ended: false }
    }

    /// The arm it was given.
    pub(crate) fn arm(&self) -> Arm {
        self.arm
    }

    /// The client's part of it.
    pub(crate) fn upload(&self) -> &Upload {
        &self.upload
    }

    /// How long the client took to read, as far as that held things up.
    fn reading(&self) -> Duration {
        self.stalls.total().saturating_sub(self.stalled)
    }

    /// When an upstream that is given so long has had its time.
    pub(crate) fn due(&self, timeout: Duration) -> Instant {
        self.upload.ended() + timeout + self.reading()
    }

    /// Ends it now.
    pub(crate) fn end(mut self, outcome: Outcome) {
        let took = self.upload.ended().elapsed().saturating_sub(self.reading());
        self.count(outcome, took);
    }

    fn count(&mut self, outcome: Outcome, took: Duration) {
        self.ended = true;
        self.ledger.count(self.place.as_deref(), self.arm, outcome, Nanos::from(took));
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.ended {
            self.count(Outcome::ClientGone, Duration::ZERO);
        }
    }
}
