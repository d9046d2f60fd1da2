//! A wall clock that is not believed at once when it jumps.
//!
//! Rolling up and removing go by the clock and cannot be undone. A clock that was set wrong for a
//! moment must not cost a year of windows: after a jump what is older than the jump stays as it is
//! until the clock has kept to its new time for an hour.

use std::time::Duration;

use lens_model::{Nanos, UnixNanos};
use tokio::time::Instant;

/// Larger differences from the time that passed are jumps.
const JUMP: Nanos = Nanos::from_secs(60);

/// How long a clock keeps to a new time before it is believed.
const BELIEVED_AFTER: Duration = Duration::from_secs(3_600);

/// What the clock said before.
#[derive(Clone, Copy, Debug, Default)]
pub struct Steady {
    believed: Option<(Instant, UnixNanos)>,
    /// Since when it says something else, and what it said then.
    doubted: Option<(Instant, UnixNanos)>,
}

impl Steady {
    /// The time, unless the clock has jumped and is not believed yet.
    pub fn at(&mut self, passed: Instant, wall: UnixNanos) -> Option<UnixNanos> {
        let keeps = |(then, said): (Instant, UnixNanos)| {
            let due = said.plus(Nanos::from(passed.saturating_duration_since(then)));
            due.since(wall).max(wall.since(due)) <= JUMP
        };
        if self.believed.is_none_or(keeps) {
            (self.believed, self.doubted) = (Some((passed, wall)), None);
            return Some(wall);
        }
        let (since, said) = *self.doubted.get_or_insert((passed, wall));
        if !keeps((since, said)) {
            self.doubted = Some((passed, wall));
        } else if passed.saturating_duration_since(since) >= BELIEVED_AFTER {
            (self.believed, self.doubted) = (Some((passed, wall)), None);
            return Some(wall);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_is_believed_after_an_hour_and_forgotten_when_it_is_taken_back() {
        let (began, year) = (Instant::now(), Nanos::from_secs(31_536_000));
        let after = |secs: u64| began + Duration::from_secs(secs);
        let wall = |secs: u64| UnixNanos(1 << 60).plus(Nanos::from_secs(secs));
        let mut steady = Steady::default();
        assert_eq!(steady.at(after(0), wall(0)), Some(wall(0)));
        assert_eq!(steady.at(after(10), wall(12)), Some(wall(12)));
        assert_eq!(steady.at(after(20), wall(20).plus(year)), None);
        assert_eq!(steady.at(after(3_000), wall(3_000)), Some(wall(3_000)), "taken back");
        assert_eq!(steady.at(after(3_001), wall(3_001).minus(year)), None);
        assert_eq!(steady.at(after(6_600), wall(6_600).minus(year)), None);
        assert_eq!(steady.at(after(6_601), wall(6_601).minus(year)), Some(wall(6_601).minus(year)));
    }
}
