//! What a message came to, before any of it is counted. Plain values; no I/O.

use lens_model::{Arm, SeriesKey, Slice, Trace, UnixNanos};

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

/// A request that can be looked up by its trace: an example of the latencies, and no count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slow {
    /// Its latency, nanoseconds.
    pub nanos: u64,
    /// Its trace.
    pub trace: Trace,
    /// When it ended, by its sender's clock.
    pub at: UnixNanos,
}

impl Slow {
    /// One that its sender gave ids as bytes; `None` without a trace. A span of another length is
    /// not known.
    pub fn new(nanos: u64, trace: &[u8], span: &[u8], at: UnixNanos) -> Option<Self> {
        let trace = Trace::new(trace.try_into().ok()?, span.try_into().unwrap_or_default())?;
        Some(Self { nanos, trace, at })
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
    /// Those of them that have traces, or some of these.
    pub slow: Vec<Slow>,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_sixteen_bytes_and_a_span_of_another_length_is_not_known() {
        let slow = |trace: &[u8], span: &[u8]| Slow::new(5, trace, span, UnixNanos(7));
        let whole = slow(&[1; 16], &[2; 8]).unwrap();
        assert_eq!((whole.trace.id(), whole.trace.known_span()), ([1; 16], Some([2; 8])));
        assert_eq!(slow(&[1; 16], &[2; 3]).unwrap().trace.known_span(), None);
        for none in [&[][..], &[1; 15], &[1; 17], &[0; 16]] {
            assert_eq!(slow(none, &[2; 8]), None, "{none:?}");
        }
    }
}
