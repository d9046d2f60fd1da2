//! The segment: a memory-mapped file of latency counters that a node owns and an agent reads.
//!
//! Why shared memory: a sample costs the node one store; the agent takes cumulative counters
//! whenever it likes, the node never waits for it, and what was recorded outlives both.
//! Promise: recording never blocks, fails or makes a system call. A reader treats the file as an
//! untrusted peer's: bounded copies, every number checked against its own, quarantine for what
//! makes no sense. Each record lands in exactly one committed harvest.
//! Refusal: no reset, no lock between the two sides, no Rust reference to what another writes.
//! Unsafe: `region` (words of the mapping), `clock` (the time stamp instruction), `fork` (one C
//! call). Source: docs/segment.md.
//!
//! ```
//! use lens_model::{Nanos, Slice, Stage};
//! use lens_segment::{Harvest, Node, ReadPolicy, Recorder, SegmentReader};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let node = Node { service: "lens", version: "1.4.2", instance: "node-7" };
//! let node = Recorder::create(dir.path(), node)?;
//! let rust = Slice::new("backend", "rust", "large")?;
//! let (lexical, symbols) = (node.series(&rust, Stage::A)?, node.series(&rust, Stage::B)?);
//!
//! let mut timer = lexical.start();
//! timer.lap(&symbols);
//! timer.stop();
//! node.requests().ok();
//!
//! let mut reader = SegmentReader::open(node.path(), &ReadPolicy::default())?;
//! let mut harvest = Harvest::default();
//! reader.harvest(Nanos::from_secs(1), &mut harvest)?;
//! reader.commit();
//! assert_eq!(harvest.series.len(), 2);
//! # Ok(())
//! # }
//! ```

// Off Linux nothing here exists: see docs/segment.md.
#![cfg_attr(loom, allow(dead_code))]

mod atomic;
mod protocol;

#[cfg(all(test, loom))]
mod loom_model;

#[cfg(not(loom))]
mod bytes;
#[cfg(not(loom))]
mod clock;
#[cfg(not(loom))]
mod counters;
#[cfg(not(loom))]
mod create;
#[cfg(not(loom))]
mod entry;
#[cfg(not(loom))]
mod exemplar;
#[cfg(not(loom))]
mod flags;
#[cfg(not(loom))]
mod fork;
#[cfg(not(loom))]
mod header;
#[cfg(not(loom))]
mod identity;
#[cfg(not(loom))]
mod inner;
#[cfg(not(loom))]
mod layout;
#[cfg(not(loom))]
mod reader;
#[cfg(not(loom))]
mod recorder;
#[cfg(not(loom))]
mod region;
#[cfg(not(loom))]
mod series;
#[cfg(not(loom))]
mod threads;

#[cfg(not(loom))]
pub use lens_model::{Flag, Trace};

#[cfg(not(loom))]
pub use crate::{
    clock::StageClock,
    counters::{Gauge, Requests},
    create::CreateError,
    entry::EntryFault,
    exemplar::ExemplarReading,
    flags::{Canary, Flags},
    header::HeaderFault,
    identity::{Node, Origin, RecorderOptions},
    inner::RegisterError,
    reader::{
        Baseline, BlockBaseline, FlagPage, FlagWords, GaugeReading, Harvest, HarvestError,
        ImportError, OpenError, Owners, Quarantine, ReadPolicy, RequestsDelta, Scan, ScanError,
        SegmentInfo, SegmentReader, SeriesDelta, scan,
    },
    recorder::Recorder,
    series::{LocalSeries, RECORD_MANY_MAX, Series, Timer, TooMany},
    threads::claim_thread,
};
