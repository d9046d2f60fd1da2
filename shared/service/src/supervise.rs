//! What a process tells the service manager that started it: ready, draining, and still at work.
//!
//! At work means that its own main loop goes round, not that a timer fires: a process whose harvest
//! or judging stands still stops answering the watchdog and is started again. Without a manager
//! (`NOTIFY_SOCKET` unset) nothing is sent and nothing fails.
//! Source: sd_notify(3), sd_watchdog_enabled(3).

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::Instant;
use tracing::warn;

use crate::shutdown::Shutdown;

/// Signs of life in one watchdog period.
const SIGNS_PER_PERIOD: u32 = 3;

/// Whether a main loop still goes round.
#[derive(Debug)]
pub struct Rounds {
    /// Longest one round may take.
    round_max: Duration,
    seen: u64,
    since: Instant,
}

impl Rounds {
    /// A loop that begins now and of which each round takes `round_max` at most.
    pub fn new(round_max: Duration, now: Instant) -> Self {
        Self { round_max, seen: 0, since: now }
    }

    /// Whether it goes round, `count` being the rounds it has done so far.
    pub fn alive(&mut self, count: u64, now: Instant) -> bool {
        if count != self.seen {
            (self.seen, self.since) = (count, now);
        }
        now.duration_since(self.since) <= self.round_max
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "the service manager cannot be told");
    }
}

/// Says that the process serves, in a sentence for `systemctl status`.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Answers the watchdog while `count` goes up at least once in `round_max`, and says at shutdown
/// that the process is draining.
///
/// While it drains, the manager's own time limit holds.
pub async fn watched(count: impl Fn() -> u64, round_max: Duration, shutdown: Shutdown) {
    match sd_notify::watchdog_enabled() {
        Some(period) => answer(count, round_max, period / SIGNS_PER_PERIOD, &shutdown).await,
        None => shutdown.wait().await,
    }
    tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

async fn answer(
    count: impl Fn() -> u64,
    round_max: Duration,
    interval: Duration,
    shutdown: &Shutdown,
) {
    let mut rounds = Rounds::new(round_max, Instant::now());
    let mut told = false;
    loop {
        let alive = rounds.alive(count(), Instant::now());
        if alive {
            tell(&[NotifyState::Watchdog]);
        } else if !told {
            warn!(?round_max, "the main loop stands still: the watchdog gets no answer");
        }
        told = !alive;
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = shutdown.wait() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_is_alive_while_it_goes_round_and_dead_one_instant_past_its_time() {
        let start = Instant::now();
        let limit = Duration::from_secs(30);
        let mut rounds = Rounds::new(limit, start);
        assert!(rounds.alive(0, start + limit), "the first round may take as long as any");
        assert!(rounds.alive(1, start + limit));
        assert!(rounds.alive(1, start + 2 * limit));
        assert!(!rounds.alive(1, start + 2 * limit + Duration::from_nanos(1)));
        assert!(rounds.alive(2, start + 3 * limit), "it went on");
    }
}
