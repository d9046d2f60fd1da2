//! How fast an error budget is spent: the share of requests over a frozen limit, over two windows.
//!
//! The limit is the stage's absolute one, whose quantile is the budget: 5 % may lie over a p95 limit,
//! 1 % over a p99 limit. A limit taken from the same window could never be exceeded by more than its
//! own share. The long window proves that it matters, the short one that it still goes on.
//! Windows longer than memory holds are read from the store; a tier that cannot be read says why.
//! Of a system younger than a window what there is counts.

use lens_hist::Counts;
use lens_model::Nanos;

use super::condition::{Reading, Severity};

/// Fewest requests over the limit in the long window at which anyone is told.
pub const SLOW_MIN: u64 = 20;

/// One pair of windows and the speed at which it counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tier {
    /// How many times faster than the budget allows.
    pub burn: f64,
    /// The window that proves that it matters.
    pub long: Nanos,
    /// The window that proves that it goes on, a twelfth.
    pub short: Nanos,
    /// How bad that is.
    pub severity: Severity,
}

const fn tier(burn: f64, long_mins: u64, severity: Severity) -> Tier {
    let (long, short) = (Nanos::from_secs(long_mins * 60), Nanos::from_secs(long_mins * 5));
    Tier { burn, long, short, severity }
}

/// The tiers, the fastest first: 2 % of a 30-day budget in an hour, 5 % in six, twice the budget for
/// an hour, 10 % in three days.
pub const TIERS: [Tier; 4] = [
    tier(14.4, 60, Severity::Critical),
    tier(6.0, 6 * 60, Severity::Critical),
    tier(2.0, 60, Severity::Error),
    tier(1.0, 3 * 24 * 60, Severity::Warning),
];

/// Requests of one window: how many, and how many over the limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// All of them.
    pub total: u64,
    /// Those over the limit.
    pub slow: u64,
}

impl Spent {
    /// What a histogram says; a bucket the limit lies in counts as within it.
    pub fn over(counts: &Counts, limit: Nanos) -> Self {
        let first = lens_hist::layout::index_of(limit.0) + 1;
        let slow = counts.slots().get(first..).map_or(0, |slots| slots.iter().sum());
        Self { total: counts.total(), slow }
    }

    /// How many times faster than `budget` (a share) allows; `None` without requests.
    #[allow(clippy::cast_precision_loss)]
    pub fn burn(self, budget: f64) -> Option<f64> {
        (self.total > 0).then(|| self.slow as f64 / (self.total as f64 * budget))
    }
}

/// What the two windows of a tier say.
pub fn read(tier: &Tier, long: Spent, short: Spent, budget: f64) -> Reading {
    match (long.burn(budget), short.burn(budget)) {
        (Some(of_long), Some(of_short)) if of_long >= tier.burn && of_short >= tier.burn => {
            if long.slow >= SLOW_MIN { Reading::Violated } else { Reading::Unknown }
        }
        // It no longer goes on: that is what the short window is for.
        (Some(_), Some(_)) => Reading::Clear,
        _ => Reading::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spent(total: u64, slow: u64) -> Spent {
        Spent { total, slow }
    }

    #[test]
    fn both_windows_must_burn_and_few_slow_requests_page_nobody() {
        let fast = &TIERS[0];
        assert_eq!(fast.short, Nanos::from_secs(300));
        let at = |long, short| read(fast, long, short, 0.05);
        assert_eq!(at(spent(100, 72), spent(10, 8)), Reading::Violated);
        assert_eq!(at(spent(100, 71), spent(10, 8)), Reading::Clear);
        assert_eq!(at(spent(100, 72), spent(10, 7)), Reading::Clear, "it ended");
        assert_eq!(at(spent(26, 19), spent(10, 8)), Reading::Unknown, "19 are too few");
        assert_eq!(at(spent(27, 20), spent(10, 8)), Reading::Violated);
        assert_eq!(at(spent(100, 72), spent(0, 0)), Reading::Unknown, "silence is no end");
    }

    #[test]
    fn what_lies_over_the_limit_is_counted_from_the_next_bucket_on() {
        let limit = Nanos::from_millis(5);
        let mut counts = Counts::new();
        counts.record(limit.0);
        counts.record(limit.0 + limit.0 / 50);
        counts.record(u64::MAX);
        assert_eq!(Spent::over(&counts, limit), spent(3, 2));
        assert_eq!(spent(100, 10).burn(0.05), Some(2.0));
        assert_eq!(spent(0, 0).burn(0.05), None);
    }
}
