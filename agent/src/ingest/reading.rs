//! What a message came to, before any of it is counted. Plain values; no I/O.

use lens_model::{Arm, SeriesKey, Slice};

use super::rebucket::Rebucketed;
use super::refusal::Refused;
use super::unit::Weight;

/// Where samples came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// OTLP exponential histograms.
    Exponential,
    /// OTLP histograms with explicit bounds.
    Explicit,
    /// OTLP spans.
    Spans,
    /// DogStatsD.
    Dogstatsd,
}

impl Source {
    /// Every source.
    pub const ALL: &[Self] = &[Self::Exponential, Self::Explicit, Self::Spans, Self::Dogstatsd];

    /// Its name.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Exponential => "otlp_exponential_histogram",
            Self::Explicit => "otlp_explicit_histogram",
            Self::Spans => "otlp_spans",
            Self::Dogstatsd => "dogstatsd",
        }
    }

    /// Its bit in a set of sources.
    pub const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Latencies to be counted.
#[derive(Clone, Debug, PartialEq)]
pub enum Counts {
    /// Those of another histogram.
    Many(Rebucketed),
    /// One, and how many it stands for.
    One {
        /// Its latency, nanoseconds.
        nanos: u64,
        /// How many it stands for.
        weight: Weight,
    },
}

impl Counts {
    /// Most samples it counts.
    pub fn ceiling(&self) -> u64 {
        match self {
            Self::Many(many) => many.samples(),
            Self::One { weight, .. } => weight.ceiling(),
        }
    }

    /// Most a value of it is off before it falls in a bucket of ours, as a share of itself.
    pub const fn error(&self) -> f64 {
        match self {
            Self::Many(many) => many.error,
            Self::One { .. } => 0.0,
        }
    }
}

/// Latencies of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// The series.
    pub key: SeriesKey,
    /// The latencies.
    pub counts: Counts,
    /// Where they came from.
    pub source: Source,
}

/// A request that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What it searched.
    pub slice: Slice,
    /// In which arm.
    pub arm: Arm,
    /// Whether it failed.
    pub failed: bool,
    /// How many it stands for.
    pub weight: Weight,
}

/// What a message came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Latencies.
    pub points: Vec<Point>,
    /// Requests, each answered or failed.
    pub requests: Vec<Request>,
    /// Gauges by name.
    pub gauges: Vec<(String, f64)>,
    /// Data points that carried nothing, and are none that was refused.
    pub empty: u64,
    /// Data points, spans or values refused.
    pub refused: Refused,
}
