//! What recorder and handles share: the mapping, the register, the lock on the file.
//!
//! Promise: an entry is written whole before the length that shows it, under one lock, by the
//! process that made the segment and no other.

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lens_model::{Arm, SeriesKey, Slice};
use parking_lot::Mutex;
use rustix::io::Errno;

use crate::create;
use crate::header::STATE_CLOSED;
use crate::layout::{Geometry, at};
use crate::protocol::{Bar, publish_length};
use crate::region::Region;
use crate::threads;

/// Why a series, request counter or gauge was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// The segment's table is full. Remedy: fewer slices, or a larger `series_max`.
    #[error("the segment already has {limit} {what}, its limit")]
    Full {
        /// `series`, `request counters` or `gauges`.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// The filesystem has no room for the series' blocks. Remedy: a larger tmpfs.
    #[error("no room on the filesystem for {bytes} more bytes")]
    NoSpace {
        /// Bytes that were asked for.
        bytes: usize,
    },
    /// A gauge name is not allowed.
    #[error("{value:?} is not a gauge name: use 1 to 64 of a-z 0-9 _, starting with a letter")]
    Name {
        /// What was given, cut to a printable length.
        value: String,
    },
    /// This is a forked child; the segment is its parent's. Remedy: create a recorder here.
    #[error("a forked child cannot register in its parent's segment")]
    Forked,
    /// A system call failed.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

/// What has been registered, by name, with its place in its table.
#[derive(Default)]
pub(crate) struct Registered {
    pub(crate) series: HashMap<Arc<SeriesKey>, usize>,
    pub(crate) catalogue: Vec<Arc<SeriesKey>>,
    pub(crate) requests: HashMap<(Slice, Arm), usize>,
    pub(crate) gauges: HashMap<Box<str>, usize>,
}

/// A segment in use: shared by the recorder and every handle made from it.
///
/// The file's lock and state follow the last of them: while any handle can still record, the
/// agent sees a living owner and does not remove the file.
pub(crate) struct Inner {
    pub(crate) region: Arc<Region>,
    pub(crate) geometry: Geometry,
    pub(crate) registered: Mutex<Registered>,
    /// What a latency of each series has to pass to become an exemplar, by place.
    pub(crate) bars: Box<[Bar]>,
    /// Samples and values that found no place: see `Recorder::refused`.
    pub(crate) refused: AtomicU64,
    pub(crate) path: PathBuf,
    pub(crate) incarnation: u128,
    pub(crate) arm: Arm,
    pub(crate) in_memory: bool,
    /// The process it belongs to: forked children record, and change nothing else.
    pub(crate) generation: u32,
    /// Its end is to look like a killed process's.
    pub(crate) killed: AtomicBool,
    /// Holds the lock that says the owner lives.
    pub(crate) file: File,
}

impl Inner {
    /// Notes that the given shards are in use; slots beyond the exclusive shards are ignored.
    pub(crate) fn mark_shards(&self, slots: u64) {
        let exclusive = (1_u64 << self.geometry.shared_shard()) - 1;
        // Relaxed: a hint which blocks to read; read late, their counts are late and not lost.
        self.region.u64(at::SHARDS_USED).fetch_or(slots & exclusive, Ordering::Relaxed);
    }

    /// Notes that the shared shard is in use.
    pub(crate) fn mark_shared(&self) {
        let bit = 1_u64 << self.geometry.shared_shard();
        let used = self.region.u64(at::SHARDS_USED);
        // Relaxed: as in `mark_shards`; the load first keeps the line shared between threads.
        if used.load(Ordering::Relaxed) & bit == 0 {
            used.fetch_or(bit, Ordering::Relaxed);
        }
    }

    pub(crate) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.generation == threads::generation() && !self.killed.load(Ordering::Relaxed) {
            // Release: whoever reads "closed" reads every count recorded before.
            publish_length(self.region.u32(at::STATE), STATE_CLOSED);
        }
    }
}

pub(crate) fn lock(
    inner: &Inner,
) -> Result<parking_lot::MutexGuard<'_, Registered>, RegisterError> {
    // Before the lock: in a child it may be held by a thread that was not forked.
    if inner.generation == threads::generation() {
        Ok(inner.registered.lock())
    } else {
        Err(RegisterError::Forked)
    }
}

pub(crate) fn failed(doing: &'static str, bytes: usize) -> impl FnOnce(Errno) -> RegisterError {
    move |errno| match errno {
        Errno::NOSPC | Errno::DQUOT => RegisterError::NoSpace { bytes },
        _ => RegisterError::Io { doing, source: errno.into() },
    }
}

/// Writes an entry and then makes it visible by the length of its table.
pub(crate) fn publish(
    inner: &Inner,
    entry: &[u8],
    offset: usize,
    length: usize,
    place: usize,
) -> Result<(), RegisterError> {
    create::write_all(&inner.file, entry, offset)
        .map_err(failed("write its entry", entry.len()))?;
    let value = u32::try_from(place + 1).expect("tables have at most 256 entries");
    publish_length(inner.region.u32(length), value);
    Ok(())
}
