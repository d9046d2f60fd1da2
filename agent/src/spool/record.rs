//! What is harvested, numbered and shipped: one record for each delta.

use std::sync::Arc;

use lens_model::{Arm, Nanos, SeriesKey, Slice, UnixNanos};
use lens_wire::{ClockOffset, Instance, Label};

/// One harvest, or a part of one that fits a frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Start of the interval by the agent's clock.
    pub start: UnixNanos,
    /// Length of the interval.
    pub duration: Nanos,
    /// The clocks as measured when it was made.
    pub clock: ClockOffset,
    /// Histogram deltas as blocks.
    pub histograms: Vec<HistogramDelta>,
    /// Request deltas.
    pub requests: Vec<RequestDelta>,
    /// Gauge readings.
    pub gauges: Vec<GaugeValue>,
    /// Samples in all blocks.
    pub samples: u64,
}

/// One histogram's delta.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramDelta {
    /// Who recorded it.
    pub instance: Arc<Instance>,
    /// What it counts.
    pub key: Arc<SeriesKey>,
    /// The counts as a sparse block.
    pub block: Box<[u8]>,
}

/// One request counter's delta.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestDelta {
    /// Who counted.
    pub instance: Arc<Instance>,
    /// The slice of the corpus.
    pub slice: Slice,
    /// The arm of the rollout.
    pub arm: Arm,
    /// Answered.
    pub ok: u64,
    /// Failed.
    pub error: u64,
}

/// One gauge's reading.
#[derive(Clone, Debug, PartialEq)]
pub struct GaugeValue {
    /// Who set it.
    pub instance: Arc<Instance>,
    /// Its name.
    pub name: Label,
    /// What it read.
    pub value: f64,
}

impl Record {
    /// Bytes it takes up here, about.
    pub fn size_bytes(&self) -> usize {
        let blocks: usize = self.histograms.iter().map(|delta| delta.block.len() + 48).sum();
        blocks + (self.requests.len() + self.gauges.len()) * 96 + 128
    }
}

/// A record with where its counts came from: what the baselines grow by, beside what is shipped.
#[derive(Clone, Debug, PartialEq)]
pub struct Harvested {
    /// What is shipped.
    pub record: Record,
    /// Of each histogram, in the same order, where it was counted.
    pub histograms: Vec<HistogramOrigin>,
    /// Of each request delta, in the same order, the segment and the counter's place in it.
    pub requests: Vec<(u128, u16)>,
    /// Of each gauge reading, in the same order, the segment.
    pub gauges: Vec<u128>,
}

/// Where a histogram's delta was counted.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramOrigin {
    /// The segment's incarnation.
    pub segment: u128,
    /// The series, by order of registration.
    pub series: u16,
    /// Its shards that counted something, and what each did, as blocks. Of a single one the block
    /// is the record's, and empty here.
    pub shards: Vec<(u16, Box<[u8]>)>,
}
