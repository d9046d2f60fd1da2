//! What the export counts about itself, each shown in `/metrics` as `lens_otlp_<name>`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Counters of the export.
#[derive(Debug, Default)]
#[allow(missing_docs, reason = "each is described where it is shown")]
pub struct Stats {
    pub on: AtomicBool,
    pub requests_taken: AtomicU64,
    pub requests_retried: AtomicU64,
    pub requests_refused: AtomicU64,
    pub points_sent: AtomicU64,
    pub points_rejected: AtomicU64,
    pub points_refused: AtomicU64,
    pub points_superseded: AtomicU64,
    pub exports_put_off: AtomicU64,
    /// When a request was last taken, Unix nanoseconds; 0 before the first.
    pub last_taken_nanos: AtomicU64,
}

impl Stats {
    /// Adds to a counter.
    pub fn add(counter: &AtomicU64, more: u64) {
        counter.fetch_add(more, Ordering::Relaxed);
    }

    /// Name, value and description of each.
    pub fn shown(&self) -> [(&'static str, u64, &'static str); 8] {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("requests_taken", read(&self.requests_taken), "Requests the receiver took."),
            ("requests_retried", read(&self.requests_retried), "Attempts that may be made again."),
            ("requests_refused", read(&self.requests_refused), "Requests refused for good."),
            ("points_sent", read(&self.points_sent), "Data points the receiver has."),
            (
                "points_rejected",
                read(&self.points_rejected),
                "Data points rejected of what was taken.",
            ),
            (
                "points_refused",
                read(&self.points_refused),
                "Data points of requests refused for good.",
            ),
            (
                "points_superseded",
                read(&self.points_superseded),
                "Data points given up for newer ones that hold the same counts and more.",
            ),
            (
                "exports_put_off",
                read(&self.exports_put_off),
                "Exports whose time passed in waiting.",
            ),
        ]
    }
}
