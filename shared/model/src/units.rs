//! Durations and instants, kept apart by type so that neither is ever taken for the other.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A duration in whole nanoseconds, up to 584 years.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Nanos(pub u64);

/// An instant in whole nanoseconds since the Unix epoch, UTC, without leap seconds.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct UnixNanos(pub u64);

impl Nanos {
    /// The duration of `millis` milliseconds, saturating at the largest representable one.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// The duration of `secs` seconds, saturating at the largest representable one.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000_000))
    }

    /// Milliseconds, for people: integer nanoseconds up to 2^53 keep every digit.
    pub fn as_millis_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// Seconds, as exporters want them.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }
}

impl UnixNanos {
    /// The instant of `time`, or the epoch itself for a clock set before it.
    pub fn from_system_time(time: SystemTime) -> Self {
        let nanos = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_nanos();
        Self(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// This instant moved by a signed clock offset, saturating at both ends.
    pub const fn shifted(self, offset_nanos: i64) -> Self {
        Self(self.0.saturating_add_signed(offset_nanos))
    }

    /// Time elapsed since `earlier`, zero where `earlier` is later.
    pub const fn since(self, earlier: Self) -> Nanos {
        Nanos(self.0.saturating_sub(earlier.0))
    }

    /// The later instant, saturating.
    pub const fn plus(self, duration: Nanos) -> Self {
        Self(self.0.saturating_add(duration.0))
    }

    /// The earlier instant, saturating at the epoch.
    pub const fn minus(self, duration: Nanos) -> Self {
        Self(self.0.saturating_sub(duration.0))
    }
}

impl From<Duration> for Nanos {
    fn from(duration: Duration) -> Self {
        Self(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl From<Nanos> for Duration {
    fn from(nanos: Nanos) -> Self {
        Self::from_nanos(nanos.0)
    }
}

impl fmt::Display for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", Duration::from_nanos(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_before_the_epoch_reads_as_the_epoch() {
        let before = UNIX_EPOCH - Duration::from_secs(5);
        assert_eq!(UnixNanos::from_system_time(before), UnixNanos(0));
    }

    #[test]
    fn shifting_and_subtracting_saturate_at_both_ends() {
        assert_eq!(UnixNanos(5).shifted(-9), UnixNanos(0));
        assert_eq!(UnixNanos(u64::MAX).shifted(9), UnixNanos(u64::MAX));
        assert_eq!(UnixNanos(3).since(UnixNanos(9)), Nanos(0));
        assert_eq!(Nanos::from_secs(u64::MAX), Nanos(u64::MAX));
    }
}
