//! Waits for intended starts, on a thread of its own.
//!
//! A thread that sleeps is late by tens of microseconds; a timer of an asynchronous runtime by up
//! to a millisecond, which would be counted as latency of what is measured.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Longest sleep without a look at whether to stop.
const NAP_MAX: Duration = Duration::from_millis(50);

/// Sleeps until `at_nanos` after `start`; false when told to stop before.
pub(super) fn wait_until(start: Instant, at_nanos: u64, stop: &AtomicBool) -> bool {
    let at = Duration::from_nanos(at_nanos);
    while !stop.load(Ordering::Relaxed) {
        let left = at.saturating_sub(start.elapsed());
        if left.is_zero() {
            return true;
        }
        std::thread::sleep(left.min(NAP_MAX));
    }
    false
}
