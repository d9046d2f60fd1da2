//! What is measured of a flag while it is on, and when that takes it back.
//!
//! An exponentially weighted mean (α = 0.1) of latency, error rate and quality. What was not
//! measured moves nothing.

use lens_model::UnixNanos;
use serde::{Deserialize, Serialize};

/// Weight of the newest sample.
const ALPHA: f64 = 0.1;

/// What was measured of a flag in one stretch of time; `None` was not.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// Mean latency, milliseconds.
    pub latency_ms: Option<f64>,
    /// Share of requests that failed, 0 to 1.
    pub error_rate: Option<f64>,
    /// Quality, 0 to 1.
    pub quality: Option<f64>,
}

/// The means so far, and how often the flag was taken back.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Mean latency, milliseconds; 0 before the first sample.
    pub latency_ms: f64,
    /// Mean share of errors; 0 before the first sample.
    pub error_rate: f64,
    /// Mean quality; 1 before the first sample.
    pub quality: f64,
    /// Samples taken.
    pub samples: u64,
    /// When the last sample was taken.
    pub last: Option<UnixNanos>,
    /// Times the flag was taken back.
    pub rollbacks: u32,
}

impl Default for Measured {
    fn default() -> Self {
        Self {
            latency_ms: 0.0,
            error_rate: 0.0,
            quality: 1.0,
            samples: 0,
            last: None,
            rollbacks: 0,
        }
    }
}

/// What takes a flag back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Thresholds {
    pub(crate) latency_ms_max: f64,
    pub(crate) quality_min: f64,
    pub(crate) error_rate_max: f64,
}

/// A flag taken back, or the canary stopped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rollback {
    /// The flag's path; `canary_kill_switch` for the canary.
    pub flag: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: UnixNanos,
    /// What was measured; for the canary, nothing.
    pub measured: Option<Measured>,
}

impl Measured {
    /// Takes a sample; a number that is not finite is as if it had not been measured.
    pub(crate) fn take(&mut self, sample: Sample, now: UnixNanos) {
        let mix = |mean: &mut f64, value: Option<f64>| {
            if let Some(value) = value.filter(|value| value.is_finite()) {
                *mean = (1.0 - ALPHA) * *mean + ALPHA * value;
            }
        };
        mix(&mut self.latency_ms, sample.latency_ms);
        mix(&mut self.error_rate, sample.error_rate);
        mix(&mut self.quality, sample.quality);
        self.samples += 1;
        self.last = Some(now);
    }

    /// Why the flag is to be taken back, if it is: latency, then quality, then errors.
    pub(crate) fn breach(&self, limits: &Thresholds) -> Option<String> {
        let Self { latency_ms, error_rate, quality, .. } = self;
        if *latency_ms > limits.latency_ms_max {
            let most = limits.latency_ms_max;
            return Some(format!("mean latency {latency_ms:.3} ms is above {most} ms"));
        }
        if *quality < limits.quality_min {
            let least = limits.quality_min;
            return Some(format!("mean quality {quality:.4} is below {least}"));
        }
        if *error_rate > limits.error_rate_max {
            let most = limits.error_rate_max;
            return Some(format!("mean error rate {error_rate:.4} is above {most}"));
        }
        None
    }
}
