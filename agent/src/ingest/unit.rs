//! Units of foreign values, and sample weights: to whole nanoseconds and whole counts.
//!
//! Promise: no unit is guessed. A weight that is no whole number is carried over to the next sample
//! of the same series, so that the sum over a series is off by less than one.

use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

/// A unit of time that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Millis,
    /// Microseconds.
    Micros,
    /// Nanoseconds.
    Nanos,
}

/// A text that is no unit of time that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a unit of time: use s, ms, us or ns")]
pub struct NoUnit;

impl FromStr for Unit {
    type Err = NoUnit;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "s" => Ok(Self::Seconds),
            "ms" => Ok(Self::Millis),
            "us" | "µs" | "μs" => Ok(Self::Micros),
            "ns" => Ok(Self::Nanos),
            _ => Err(NoUnit),
        }
    }
}

impl Unit {
    /// Nanoseconds in one.
    pub const fn nanos(self) -> f64 {
        match self {
            Self::Seconds => 1e9,
            Self::Millis => 1e6,
            Self::Micros => 1e3,
            Self::Nanos => 1.0,
        }
    }

    /// A value of this unit in whole nanoseconds; `None` for what is negative or no number. What is
    /// longer than any latency counts as above range, as everywhere.
    pub fn to_nanos(self, value: f64) -> Option<u64> {
        (value >= 0.0).then(|| whole(value * self.nanos()))
    }
}

/// The nearest whole number of nanoseconds, within what 64 bits hold.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
pub fn whole(nanos: f64) -> u64 {
    nanos.round() as u64
}

/// How many samples one stands for, in 2^-32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight(u64);

/// Most samples that one stands for.
pub const WEIGHT_MAX: f64 = 1e6;

impl Weight {
    /// A sample that stands for itself.
    pub const ONE: Self = Self(1 << 32);

    /// The weight of a sample that was taken with this probability: 1/rate.
    pub fn of_rate(rate: f64) -> Option<Self> {
        let weight = 1.0 / rate;
        (rate > 0.0 && rate <= 1.0 && weight <= WEIGHT_MAX)
            .then(|| Self(whole(weight * 4_294_967_296.0)))
    }

    /// The least whole number that is not below it.
    pub const fn ceiling(self) -> u64 {
        self.0.div_ceil(1 << 32)
    }
}

/// What the weights of a series have come to, so that fractions are not lost. Usable from any thread.
#[derive(Debug)]
pub struct Carry(AtomicU64);

impl Default for Carry {
    /// Begins at a half, so that what is counted is the sum rounded, not cut.
    fn default() -> Self {
        Self(AtomicU64::new(1 << 31))
    }
}

impl Carry {
    /// Adds a sample's weight; how often to count it now.
    pub fn add(&self, weight: Weight) -> u32 {
        // Relaxed: a sum alone; each addition sees the one before it whatever the thread.
        let before = self.0.fetch_add(weight.0, Ordering::Relaxed);
        let after = before.wrapping_add(weight.0);
        let counts = (after >> 32).wrapping_sub(before >> 32) & 0xFFFF_FFFF;
        u32::try_from(counts).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_those_of_time_and_nothing_else() {
        assert_eq!("ms".parse(), Ok(Unit::Millis));
        assert_eq!("µs".parse(), Ok(Unit::Micros));
        for other in ["", "min", "By", "1", "MS"] {
            assert_eq!(other.parse::<Unit>(), Err(NoUnit), "{other}");
        }
    }

    #[test]
    fn a_value_is_whole_nanoseconds_or_refused() {
        assert_eq!(Unit::Millis.to_nanos(1.993), Some(1_993_000));
        assert_eq!(Unit::Seconds.to_nanos(0.0), Some(0));
        assert_eq!(Unit::Seconds.to_nanos(1e300), Some(u64::MAX));
        assert_eq!(Unit::Seconds.to_nanos(-1e-9), None);
        assert_eq!(Unit::Seconds.to_nanos(f64::NAN), None);
    }

    #[test]
    fn weights_that_are_no_whole_numbers_add_up_all_the_same() {
        let (carry, third) = (Carry::default(), Weight::of_rate(0.3).unwrap());
        let total: u64 = (0..3_000).map(|_| u64::from(carry.add(third))).sum();
        assert_eq!(total, 10_000);
        assert_eq!(carry.add(Weight::ONE), 1);
    }

    #[test]
    fn a_carry_that_goes_around_loses_nothing() {
        let carry = Carry(AtomicU64::new(u64::MAX - 5));
        assert_eq!(carry.add(Weight::ONE), 1);
        assert_eq!(carry.add(Weight::of_rate(0.25).unwrap()), 4);
    }

    #[test]
    fn rates_hold_at_their_limits() {
        assert_eq!(Weight::of_rate(1.0), Some(Weight::ONE));
        assert_eq!(Weight::of_rate(1e-6).unwrap().ceiling(), 1_000_000);
        for bad in [0.0, -0.5, 1.000_001, 9.9e-7, f64::NAN, f64::INFINITY] {
            assert_eq!(Weight::of_rate(bad), None, "{bad}");
        }
    }
}
