//! Harvests of several segments, made into records that each fit a frame.
//!
//! Beside what is shipped goes where it was counted, so that the spool can keep both in one record.

use std::sync::Arc;

use lens_hist::block;
use lens_model::limits::{FRAME_BYTES_MAX, FRAME_SERIES_MAX};
use lens_model::{Nanos, UnixNanos};
use lens_segment::{Harvest, SegmentReader};
use lens_wire::{ClockOffset, Instance, Label};

use crate::spool::{GaugeValue, Harvested, HistogramDelta, HistogramOrigin, Record, RequestDelta};

/// Bytes of blocks after which a record is closed and another begun: a frame has room for more.
const RECORD_BYTES_MAX: usize = FRAME_BYTES_MAX / 2;

/// Names one dictionary frame must bring before a record's delta; kept well under its bound.
const RECORD_ENTRIES_MAX: usize = FRAME_SERIES_MAX / 2;

/// Records being filled from one harvest.
#[derive(Debug)]
pub struct Gathered {
    start: UnixNanos,
    duration: Nanos,
    clock: ClockOffset,
    done: Vec<Harvested>,
    open: Harvested,
    /// Whose counts are in the open record: a series stands in a delta once, and a process that
    /// died and its successor have the same ones.
    instances: Vec<Arc<Instance>>,
    bytes: usize,
}

impl Gathered {
    /// Nothing yet, of an interval.
    pub fn new(start: UnixNanos, duration: Nanos, clock: ClockOffset) -> Self {
        let open = empty(start, duration, clock);
        let (done, instances) = (Vec::new(), Vec::new());
        Self { start, duration, clock, done, open, instances, bytes: 0 }
    }

    /// Takes one segment's harvest, which `reader` has just made, and gives the samples in it.
    pub fn take(
        &mut self,
        instance: &Arc<Instance>,
        reader: &SegmentReader,
        harvest: &Harvest,
    ) -> u64 {
        if self.instances.contains(instance) {
            self.close();
            self.instances.clear();
        }
        self.instances.push(Arc::clone(instance));
        let segment = reader.info().incarnation;
        let samples = self.take_series(segment, instance, reader, harvest);
        for delta in &harvest.requests {
            self.room(0);
            self.open.record.requests.push(RequestDelta {
                instance: Arc::clone(instance),
                slice: delta.slice.clone(),
                arm: delta.arm,
                ok: delta.ok,
                error: delta.error,
            });
            self.open.requests.push((segment, u16::try_from(delta.index).unwrap_or(u16::MAX)));
        }
        for reading in &harvest.gauges {
            self.room(0);
            self.open.record.gauges.push(GaugeValue {
                instance: Arc::clone(instance),
                name: Label::lossy(&reading.name),
                value: reading.value,
            });
            self.open.gauges.push(segment);
        }
        samples
    }

    fn take_series(
        &mut self,
        segment: u128,
        instance: &Arc<Instance>,
        reader: &SegmentReader,
        harvest: &Harvest,
    ) -> u64 {
        let mut growth = growth(reader).into_iter().peekable();
        let mut samples = 0;
        for delta in &harvest.series {
            let series = u16::try_from(delta.index).unwrap_or(u16::MAX);
            let mut shards = Vec::new();
            while let Some((_, shard, block)) = growth.next_if(|(of, ..)| *of == series) {
                shards.push((shard, block));
            }
            let whole: Box<[u8]> = if let [(_, block)] = &mut shards[..] {
                std::mem::take(block)
            } else {
                encoded(&delta.counts)
            };
            let parts: usize = shards.iter().map(|(_, block)| block.len()).sum();
            self.room(whole.len() + parts);
            samples += delta.counts.total();
            self.open.record.samples += delta.counts.total();
            let (instance, key) = (Arc::clone(instance), Arc::clone(&delta.key));
            let block = whole;
            self.open.record.histograms.push(HistogramDelta { instance, key, block });
            self.open.histograms.push(HistogramOrigin { segment, series, shards });
        }
        samples
    }

    /// Closes the open record when the next entry would make it too large for a frame.
    fn room(&mut self, bytes: usize) {
        let open = &self.open.record;
        let entries = open.histograms.len() + open.requests.len() + open.gauges.len();
        if entries >= RECORD_ENTRIES_MAX || self.bytes + bytes > RECORD_BYTES_MAX {
            self.close();
            // The one whose counts are being taken goes on in the next.
            self.instances.drain(..self.instances.len().saturating_sub(1));
        }
        self.bytes += bytes + 8;
    }

    fn close(&mut self) {
        let fresh = empty(self.start, self.duration, self.clock);
        let closed = std::mem::replace(&mut self.open, fresh);
        let nothing = closed.histograms.is_empty() && closed.requests.is_empty();
        if !(nothing && closed.gauges.is_empty()) {
            self.done.push(closed);
        }
        self.bytes = 0;
    }

    /// All records.
    pub fn finish(mut self) -> Vec<Harvested> {
        self.close();
        self.done
    }
}

fn encoded(counts: &lens_hist::Sparse) -> Box<[u8]> {
    let mut bytes = Vec::new();
    block::encode(counts, &mut bytes);
    bytes.into()
}

/// Series, shard and block of everything that grew, in order.
fn growth(reader: &SegmentReader) -> Vec<(u16, u16, Box<[u8]>)> {
    let mut growth = Vec::new();
    reader.pending_growth(|series, shard, counts| growth.push((series, shard, encoded(counts))));
    growth
}

const fn empty(start: UnixNanos, duration: Nanos, clock: ClockOffset) -> Harvested {
    let record = Record {
        start,
        duration,
        clock,
        histograms: Vec::new(),
        requests: Vec::new(),
        gauges: Vec::new(),
        samples: 0,
    };
    Harvested { record, histograms: Vec::new(), requests: Vec::new(), gauges: Vec::new() }
}
