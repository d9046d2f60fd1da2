//! The reader: takes what was counted since it last committed, and believes nothing it reads.
//!
//! Why copies: the file belongs to another process, which may be killed, wrong or hostile. Bytes
//! are copied by `pread` (a truncated file reads short, where a mapping would kill us), and only
//! the copy is judged.
//! Why two phases: `harvest` computes deltas, `commit` makes them the baseline. What stands between
//! (a durable spool) decides whether a delta exists; a crash there repeats it, never loses it.
//! Promise: no wait, no panic, for any bytes. Memory: at most two blocks for each block of the
//! segment that holds counts, which its owner has paid for in shared memory too.

mod baseline;
mod diff;
mod fault;
mod flag_page;
mod found;
mod harvest;
mod mark;
mod open;
mod scan;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lens_model::limits::SEGMENT_EXEMPLARS_MAX;
use lens_model::{Arm, InstanceName, SeriesKey, Slice, UnixNanos};
use rustix::fs::{AtFlags, CWD, FlockOperation, flock, fstat, statat, unlink};
use rustix::io::Errno;

use crate::header::Live;
use crate::layout::Geometry;
use diff::{Accumulator, Counters};

pub use baseline::{Baseline, BlockBaseline, ImportError};
pub use fault::{HarvestError, OpenError, Quarantine};
pub use flag_page::{FlagPage, FlagWords};
pub use found::{GaugeReading, Harvest, RequestsDelta, SeriesDelta};
pub use open::{Owners, ReadPolicy};
pub use scan::{Scan, ScanError, scan};

/// Who made a segment, from its header.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentInfo {
    /// The service, as it named itself.
    pub service: Box<str>,
    /// Its version, as it named itself.
    pub version: Box<str>,
    /// The process among its like, as it named itself.
    pub instance: InstanceName,
    /// The segment's random identity.
    pub incarnation: u128,
    /// The arm of series registered without naming one.
    pub arm: Arm,
    /// The owner's process id, in its own PID namespace: for people, nothing decides by it.
    pub pid: u32,
    /// The owner's start, clock ticks since boot; 0 if it could not tell.
    pub start_ticks: u64,
    /// The boot it was made in; 0 if the owner could not tell.
    pub boot_id: u128,
    /// When it was made, by the owner's clock.
    pub created: UnixNanos,
    /// Shards of each series.
    pub shards: usize,
    /// Series it can hold.
    pub series_max: usize,
    /// Bytes of the file.
    pub bytes: u64,
}

/// What is known of one block. Absent counters are all zero.
#[derive(Default)]
struct BlockState {
    committed: Option<Box<Counters>>,
    pending: Option<Box<Counters>>,
}

/// What is known of one request counter.
struct RequestsState {
    slice: Slice,
    arm: Arm,
}

/// Reads one segment.
pub struct SegmentReader {
    file: File,
    path: PathBuf,
    geometry: Geometry,
    info: SegmentInfo,
    /// The last live line that made sense.
    live: Live,
    catalogue: Vec<Arc<SeriesKey>>,
    requests: Vec<RequestsState>,
    gauges: Vec<Box<str>>,
    /// Series-major, as in the file.
    blocks: Vec<BlockState>,
    /// Places in `blocks` that the last harvest changed.
    pending: Vec<usize>,
    /// Ok and error counts, committed and pending.
    requests_committed: Vec<[u64; 2]>,
    requests_pending: Vec<[u64; 2]>,
    /// The number of the exemplar last taken from each slot.
    exemplars_taken: [u64; SEGMENT_EXEMPLARS_MAX],
    quarantined: Option<Quarantine>,
    /// Buffers for the next blocks that change.
    pool: Vec<Box<Counters>>,
    second: Box<Counters>,
    accumulator: Box<Accumulator>,
    tables: [Vec<u8>; 2],
}

impl SegmentReader {
    /// Opens the segment at `path` and checks that it is what it should be.
    ///
    /// # Errors
    /// [`OpenError`] names the file and what was wrong with it.
    pub fn open(path: &Path, policy: &ReadPolicy) -> Result<Self, OpenError> {
        open::open(path, policy)
    }

    /// Who made the segment.
    pub fn info(&self) -> &SegmentInfo {
        &self.info
    }

    /// The file as it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The series read so far, in order of registration.
    pub fn catalogue(&self) -> &[Arc<SeriesKey>] {
        &self.catalogue
    }

    /// Why this segment is no longer read, if it is not.
    pub fn quarantined(&self) -> Option<Quarantine> {
        self.quarantined
    }

    /// Makes the last harvest the baseline: the next one yields what came after it.
    ///
    /// Without a harvest since the last commit, or after a failed one, nothing changes.
    pub fn commit(&mut self) {
        for place in self.pending.drain(..) {
            let block = &mut self.blocks[place];
            if let Some(new) = block.pending.take()
                && let Some(old) = block.committed.replace(new)
            {
                self.pool.push(old);
            }
        }
        self.pool.truncate(harvest::POOL_MAX);
        self.requests_committed.clone_from(&self.requests_pending);
    }

    /// Whether the owner, a forked child of it, or a handle it left behind still lives.
    ///
    /// Asks for the lock that the kernel frees at the owner's death; never waits. Once this is
    /// false nothing is written any more: harvest once more, commit, and [`SegmentReader::remove`].
    ///
    /// # Errors
    /// What the system said, where the filesystem does not support locks.
    pub fn owner_alive(&self) -> io::Result<bool> {
        match flock(&self.file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => {
                flock(&self.file, FlockOperation::Unlock)?;
                Ok(false)
            }
            Err(Errno::WOULDBLOCK) => Ok(true),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Removes the file, if the path still names the file that was opened and its owner is gone.
    ///
    /// A file that is already gone is a success.
    ///
    /// # Errors
    /// `WouldBlock` while the owner lives, `Other` when the path names another file now, or what
    /// the system said.
    pub fn remove(self) -> io::Result<()> {
        if self.owner_alive()? {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, "the owner still lives"));
        }
        let ours = fstat(&self.file)?;
        match statat(CWD, &self.path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(now) if now.st_ino == ours.st_ino && now.st_dev == ours.st_dev => {
                unlink(&self.path)?;
                Ok(())
            }
            Ok(_) => Err(io::Error::other("the path names another file now")),
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl core::fmt::Debug for SegmentReader {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SegmentReader")
            .field("path", &self.path)
            .field("info", &self.info)
            .field("quarantined", &self.quarantined)
            .finish_non_exhaustive()
    }
}
