//! When requests are meant to start.

use std::str::FromStr;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, Exp1};

use crate::arguments::ArgumentError;
use crate::numbers::whole;

/// How the starts are spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arrival {
    /// Evenly.
    Constant,
    /// Independently of each other, as those of many users are.
    #[default]
    Poisson,
}

impl Arrival {
    /// The name used in arguments.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Poisson => "poisson",
        }
    }
}

impl FromStr for Arrival {
    type Err = ArgumentError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "constant" => Ok(Self::Constant),
            "poisson" => Ok(Self::Poisson),
            _ => Err(ArgumentError::new("arrival", text, "it is unknown", "constant or poisson")),
        }
    }
}

/// The intended starts of a run, nanoseconds from its beginning, in order.
#[derive(Debug)]
pub struct Schedule {
    arrival: Arrival,
    gap_nanos: f64,
    until_nanos: f64,
    at_nanos: f64,
    count: u64,
    rng: StdRng,
}

impl Schedule {
    /// `rate` starts a second on average, for `duration`. A rate that is not positive has none.
    pub fn new(arrival: Arrival, rate: f64, duration: Duration, seed: u64) -> Self {
        let gap_nanos = if rate > 0.0 { 1e9 / rate } else { f64::INFINITY };
        Self {
            arrival,
            gap_nanos,
            until_nanos: duration.as_secs_f64() * 1e9,
            at_nanos: 0.0,
            count: 0,
            rng: StdRng::seed_from_u64(seed),
        }
    }
}

impl Iterator for Schedule {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.at_nanos = match self.arrival {
            // From the count, so that errors of addition do not pile up.
            Arrival::Constant if self.count == 0 && self.gap_nanos.is_finite() => 0.0,
            Arrival::Constant => self.count as f64 * self.gap_nanos,
            Arrival::Poisson => {
                let gap: f64 = Exp1.sample(&mut self.rng);
                self.at_nanos + gap * self.gap_nanos
            }
        };
        self.count += 1;
        (self.at_nanos < self.until_nanos).then(|| whole(self.at_nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constant_starts_are_evenly_spaced() {
        let starts: Vec<u64> =
            Schedule::new(Arrival::Constant, 4.0, Duration::from_secs(1), 1).collect();
        assert_eq!(starts, [0, 250_000_000, 500_000_000, 750_000_000]);
        assert_eq!(Schedule::new(Arrival::Constant, 0.0, Duration::from_secs(1), 1).count(), 0);
    }

    #[test]
    fn poisson_starts_have_their_rate_and_their_spread() {
        let starts: Vec<u64> =
            Schedule::new(Arrival::Poisson, 1_000.0, Duration::from_secs(100), 7).collect();
        let expected = 100_000.0_f64;
        assert!((starts.len() as f64 - expected).abs() < 4.0 * expected.sqrt(), "{}", starts.len());
        let gaps: Vec<f64> = starts.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // The standard deviation of exponential gaps is their mean.
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.03);
        assert!(starts.is_sorted());
    }

    #[test]
    fn a_seed_gives_one_schedule() {
        let run = |seed| {
            Schedule::new(Arrival::Poisson, 50.0, Duration::from_secs(5), seed).collect::<Vec<_>>()
        };
        assert_eq!(run(3), run(3));
        assert_ne!(run(3), run(4));
    }
}
