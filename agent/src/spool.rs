//! What was harvested and not yet acknowledged, numbered.
//!
//! [`Spool`] is the seam at which durability comes in: the contract is that once `append` returns,
//! the records keep their numbers whatever happens, and that the harvester moves its baseline only
//! after it. [`MemorySpool`] keeps that contract for the life of the process: its incarnation is
//! new with each start, so no number is ever used twice.
//! Bounds: frames and bytes, whichever is met first; then `append` refuses, the harvester pauses,
//! and counts stay in the segments. Nothing is dropped; time resolution coarsens.

use std::collections::VecDeque;
use std::sync::Arc;

use lens_model::{Arm, Incarnation, Nanos, Sequence, SeriesKey, Slice, UnixNanos};
use lens_wire::{ClockOffset, Instance, Label};
use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::Notify;

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

/// Why records were not taken. The caller keeps its baseline and tries again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SpoolError {
    /// A bound is reached.
    #[error("the spool is full with {frames} deltas of {bytes} bytes")]
    Full {
        /// Deltas held.
        frames: usize,
        /// Bytes held.
        bytes: usize,
    },
}

/// Keeps records from harvest to acknowledgement.
pub trait Spool: Send + std::fmt::Debug {
    /// The life the numbers belong to.
    fn incarnation(&self) -> Incarnation;

    /// Takes records, all or none, and numbers them.
    ///
    /// # Errors
    /// [`SpoolError::Full`] when they would pass a bound; then none was taken.
    fn append(&mut self, records: Vec<Record>) -> Result<(), SpoolError>;

    /// The record with this number, if it is held.
    fn get(&self, sequence: Sequence) -> Option<Arc<Record>>;

    /// Forgets everything up to and with this number.
    fn acknowledge(&mut self, acked: Sequence);

    /// Begins another life: what is held is numbered anew, from 1.
    fn renew(&mut self, incarnation: Incarnation);

    /// How full it is.
    fn level(&self) -> Level;
}

/// How full a spool is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// Deltas held.
    pub frames: usize,
    /// Bytes held.
    pub bytes: usize,
    /// The last number acknowledged.
    pub acked: Sequence,
    /// The last number given.
    pub last: Sequence,
    /// When the oldest record held begins.
    pub oldest: Option<UnixNanos>,
}

/// A spool in memory, for as long as the process lives.
#[derive(Debug)]
pub struct MemorySpool {
    incarnation: Incarnation,
    records: VecDeque<(Arc<Record>, usize)>,
    acked: Sequence,
    bytes: usize,
    frames_max: usize,
    bytes_max: usize,
}

impl MemorySpool {
    /// An empty spool of a fresh life, with its bounds.
    pub const fn new(incarnation: Incarnation, frames_max: usize, bytes_max: usize) -> Self {
        Self {
            incarnation,
            records: VecDeque::new(),
            acked: Sequence(0),
            bytes: 0,
            frames_max,
            bytes_max,
        }
    }
}

impl Spool for MemorySpool {
    fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    fn append(&mut self, records: Vec<Record>) -> Result<(), SpoolError> {
        let sizes: Vec<usize> = records.iter().map(Record::size_bytes).collect();
        let more: usize = sizes.iter().sum();
        // A harvest larger than the whole bound still passes through an empty spool.
        let full = self.records.len() + records.len() > self.frames_max
            || self.bytes + more > self.bytes_max;
        if full && !self.records.is_empty() {
            return Err(SpoolError::Full { frames: self.records.len(), bytes: self.bytes });
        }
        self.bytes += more;
        self.records.extend(records.into_iter().map(Arc::new).zip(sizes));
        Ok(())
    }

    fn get(&self, sequence: Sequence) -> Option<Arc<Record>> {
        let at = sequence.0.checked_sub(self.acked.0)?.checked_sub(1)?;
        self.records.get(usize::try_from(at).ok()?).map(|(record, _)| Arc::clone(record))
    }

    fn acknowledge(&mut self, acked: Sequence) {
        while self.acked < acked {
            let Some((_, size)) = self.records.pop_front() else { return };
            self.bytes -= size;
            self.acked = self.acked.next();
        }
    }

    fn renew(&mut self, incarnation: Incarnation) {
        (self.incarnation, self.acked) = (incarnation, Sequence(0));
    }

    fn level(&self) -> Level {
        Level {
            frames: self.records.len(),
            bytes: self.bytes,
            acked: self.acked,
            last: Sequence(self.acked.0 + self.records.len() as u64),
            oldest: self.records.front().map(|(record, _)| record.start),
        }
    }
}

/// The spool and the bell that rings when it changed.
#[derive(Clone, Debug)]
pub struct SharedSpool {
    /// The spool.
    pub spool: Arc<Mutex<Box<dyn Spool>>>,
    /// Rung after each append.
    pub changed: Arc<Notify>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(at: u64) -> Record {
        Record {
            start: UnixNanos(at),
            duration: Nanos(1),
            clock: ClockOffset::UNMEASURED,
            histograms: vec![],
            requests: vec![],
            gauges: vec![],
            samples: 0,
        }
    }

    fn spool(frames_max: usize) -> MemorySpool {
        MemorySpool::new(Incarnation(1), frames_max, 1 << 20)
    }

    #[test]
    fn records_are_numbered_from_one_and_leave_when_acknowledged() {
        let mut spool = spool(10);
        spool.append(vec![record(1), record(2)]).unwrap();
        spool.append(vec![record(3)]).unwrap();
        assert_eq!(spool.get(Sequence(0)), None);
        assert_eq!(spool.get(Sequence(3)).unwrap().start, UnixNanos(3));
        spool.acknowledge(Sequence(2));
        assert_eq!(spool.get(Sequence(2)), None);
        assert_eq!(spool.get(Sequence(3)).unwrap().start, UnixNanos(3));
        assert_eq!(spool.level().last, Sequence(3));
        spool.acknowledge(Sequence(99));
        assert_eq!(
            spool.level(),
            Level { acked: Sequence(3), last: Sequence(3), ..Level::default() }
        );
    }

    #[test]
    fn another_life_numbers_what_is_held_from_one() {
        let mut spool = spool(10);
        spool.append(vec![record(1), record(2), record(3)]).unwrap();
        spool.acknowledge(Sequence(2));
        spool.renew(Incarnation(2));
        assert_eq!(spool.incarnation(), Incarnation(2));
        assert_eq!(spool.get(Sequence(1)).unwrap().start, UnixNanos(3));
        let level = spool.level();
        assert_eq!((level.acked, level.last), (Sequence(0), Sequence(1)));
    }

    #[test]
    fn a_full_spool_takes_all_or_none_and_takes_again_once_acknowledged() {
        let mut spool = spool(2);
        spool.append(vec![record(1)]).unwrap();
        assert!(spool.append(vec![record(2), record(3)]).is_err());
        assert_eq!(spool.level().frames, 1);
        spool.append(vec![record(2)]).unwrap();
        assert!(matches!(spool.append(vec![record(3)]), Err(SpoolError::Full { frames: 2, .. })));
        spool.acknowledge(Sequence(1));
        spool.append(vec![record(3)]).unwrap();
        assert_eq!(spool.level().last, Sequence(3));
    }
}
