//! What a harvest yields: plain data in buffers that the caller keeps and reuses.

use std::sync::Arc;

use lens_hist::Sparse;
use lens_model::{Arm, SeriesKey, Slice};

use crate::exemplar::ExemplarReading;

/// What a harvest found. Reused: a new harvest clears it and keeps its memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Harvest {
    /// Series that counted something, in order of registration.
    pub series: Vec<SeriesDelta>,
    /// Request counters that counted something, in order of registration.
    pub requests: Vec<RequestsDelta>,
    /// Gauges that have been set, in order of registration, changed or not.
    pub gauges: Vec<GaugeReading>,
    /// Slow records with their traces that no earlier harvest of this reader found. They are examples:
    /// a harvest that is not committed does not bring them again.
    pub exemplars: Vec<ExemplarReading>,
    /// Latencies in `series`, in all.
    pub records: u64,
    /// The segment was closed: once its owner is gone too, this harvest was the last.
    pub closed: bool,
    /// So much time had passed that a busy counter may have gone around: counts of this interval
    /// may be too small by multiples of 2^32.
    pub wrap_possible: bool,
    /// Emptied histograms, kept for their memory.
    pub(super) spare: Vec<Sparse>,
}

/// What one series counted.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesDelta {
    /// Its place in [`crate::SegmentReader::catalogue`].
    pub index: usize,
    /// What it counts.
    pub key: Arc<SeriesKey>,
    /// The counts, all shards together.
    pub counts: Sparse,
}

/// How many requests of a slice and arm ended how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestsDelta {
    /// Its place in the segment, by order of registration.
    pub index: usize,
    /// The slice.
    pub slice: Slice,
    /// The arm.
    pub arm: Arm,
    /// Requests answered.
    pub ok: u64,
    /// Requests failed.
    pub error: u64,
}

/// A gauge's present value.
#[derive(Clone, Debug, PartialEq)]
pub struct GaugeReading {
    /// Its name.
    pub name: Box<str>,
    /// Its value, finite.
    pub value: f64,
}

impl Harvest {
    /// Whether nothing was counted. Gauges do not count.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty() && self.requests.is_empty()
    }

    /// Forgets everything, keeping the memory.
    pub fn clear(&mut self) {
        for mut delta in self.series.drain(..) {
            delta.counts.clear();
            self.spare.push(delta.counts);
        }
        self.requests.clear();
        self.gauges.clear();
        self.exemplars.clear();
        self.records = 0;
        self.closed = false;
        self.wrap_possible = false;
    }
}
