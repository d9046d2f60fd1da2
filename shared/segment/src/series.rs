//! Recording: a series' handle, the same in hand for one thread, and the stage timer.
//!
//! Promise: one relaxed load and store of the thread's own counter; no lock prefix, no branch that
//! is not taken the same way every time, no system call. A latency above 68.7 s is counted apart.
//! Units: nanoseconds.
//! Cost: docs/segment.md, "Cost".

use core::marker::PhantomData;
use std::sync::Arc;

use lens_model::{Nanos, SeriesKey, Trace, UnixNanos};

use crate::clock::{self, Ticks};
use crate::exemplar;
use crate::inner::Inner;
use crate::region::{Block, Chunk};
use crate::threads;

/// Most that [`Series::record_many`] counts at once: half of what a harvest may find a counter grown
/// by.
pub const RECORD_MANY_MAX: u32 = 1 << 30;

/// More was to be counted at once than one harvest could tell from a counter gone back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{count} at once: count at most {RECORD_MANY_MAX} between two harvests")]
pub struct TooMany {
    /// What was to be counted.
    pub count: u32,
}

/// One histogram of the segment: what it counts is its key. Cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct Series {
    chunk: Chunk,
    place: usize,
    key: Arc<SeriesKey>,
    inner: Arc<Inner>,
}

impl Series {
    pub(crate) fn new(chunk: Chunk, place: usize, key: Arc<SeriesKey>, inner: Arc<Inner>) -> Self {
        Self { chunk, place, key, inner }
    }

    /// What this series counts.
    pub fn key(&self) -> &SeriesKey {
        &self.key
    }

    /// Counts one latency, nanoseconds.
    ///
    /// A thread's first record claims its shard (see [`crate::claim_thread`]); every other is one
    /// store.
    #[inline(always)]
    pub fn record(&self, nanos: u64) {
        match self.chunk.exclusive(threads::offset()) {
            Some(block) => block.record_owned(nanos),
            None => self.record_slow(nanos),
        }
    }

    /// A thread's first record, and every record of a thread without a shard of its own.
    #[cold]
    #[inline(never)]
    fn record_slow(&self, nanos: u64) {
        match self.chunk.exclusive(threads::claim()) {
            Some(block) => block.record_owned(nanos),
            None => {
                self.inner.mark_shared();
                self.chunk.shared().record_shared(nanos);
            }
        }
    }

    /// Counts one latency, nanoseconds, of a request that can be looked up by its trace.
    ///
    /// The slowest ones of each second are kept as exemplars until the agent takes them. Beside
    /// [`Series::record`] this costs a coarse look at the wall clock and one load: docs/segment.md,
    /// "Exemplars". Never blocks.
    #[inline]
    pub fn record_traced(&self, nanos: u64, trace: &Trace) {
        self.record(nanos);
        self.exemplify(nanos, trace, clock::wall_coarse());
    }

    /// Offers an exemplar of a latency that was or is counted otherwise, recorded at `at` by the wall
    /// clock: kept where it is the slowest of its series in that second so far.
    pub fn exemplify(&self, nanos: u64, trace: &Trace, at: UnixNanos) {
        // In bounds: a place below the segment's most series, of which there is a bar each.
        let bar = &self.inner.bars[self.place];
        exemplar::offer(&self.inner.region, bar, self.place, nanos, at, trace);
    }

    /// Counts one latency, nanoseconds, `count` times at once: what another histogram's bucket holds.
    ///
    /// As exact as `count` records. A reader that finds a counter 2^31 or more above what it last
    /// read takes the segment for broken, so whoever adds in bulk keeps what one counter gains
    /// between two harvests below that.
    ///
    /// # Errors
    /// [`TooMany`] for more than [`RECORD_MANY_MAX`] at once; nothing is counted then.
    pub fn record_many(&self, nanos: u64, count: u32) -> Result<(), TooMany> {
        if count > RECORD_MANY_MAX {
            return Err(TooMany { count });
        }
        match self.chunk.exclusive(threads::claim()) {
            Some(block) => block.record_many_owned(nanos, count),
            None => {
                self.inner.mark_shared();
                self.chunk.shared().record_many_shared(nanos, count);
            }
        }
        Ok(())
    }

    /// This series in hand for the calling thread: the thread-local look-up done once.
    ///
    /// Must not be kept in a thread-local that outlives the thread's last other record, nor used
    /// in a forked child: counts (never memory) could be lost to the shard's next owner.
    #[inline]
    pub fn local(&self) -> LocalSeries<'_> {
        match self.chunk.exclusive(threads::claim()) {
            Some(block) => LocalSeries { block, owned: true, _this_thread: PhantomData },
            None => {
                self.inner.mark_shared();
                let block = self.chunk.shared();
                LocalSeries { block, owned: false, _this_thread: PhantomData }
            }
        }
    }

    /// Starts timing a stage that ends in this series.
    ///
    /// A timer dropped without [`Timer::stop`] records nothing: a stage that was abandoned has no
    /// latency.
    #[inline(always)]
    pub fn start(&self) -> Timer<'_> {
        Timer { series: self, start: clock::now() }
    }
}

impl core::fmt::Debug for Series {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("Series").field(&self.key).finish()
    }
}

/// A series in hand for one thread.
#[derive(Clone, Copy)]
pub struct LocalSeries<'a> {
    block: Block<'a>,
    owned: bool,
    /// The block is this thread's: the handle stays here.
    _this_thread: PhantomData<*const ()>,
}

impl LocalSeries<'_> {
    /// Counts one latency, nanoseconds.
    #[inline(always)]
    pub fn record(&self, nanos: u64) {
        if self.owned {
            self.block.record_owned(nanos);
        } else {
            self.block.record_shared(nanos);
        }
    }
}

/// A running stage.
#[must_use = "a timer that is dropped records nothing"]
pub struct Timer<'a> {
    series: &'a Series,
    start: Ticks,
}

impl<'a> Timer<'a> {
    /// Ends the running stage into its series and starts one that ends in `next`, with the same
    /// clock read. Returns how long the ended stage took.
    #[inline(always)]
    pub fn lap(&mut self, next: &'a Series) -> Nanos {
        let now = clock::now();
        let took = now.since(self.start);
        self.series.record(took.0);
        self.series = next;
        self.start = now;
        took
    }

    /// The same as [`Timer::lap`], of a request that can be looked up by its trace.
    #[inline]
    pub fn lap_traced(&mut self, next: &'a Series, trace: &Trace) -> Nanos {
        let ended = self.series;
        let took = self.lap(next);
        ended.exemplify(took.0, trace, clock::wall_coarse());
        took
    }

    /// The same as [`Timer::stop`], of a request that can be looked up by its trace.
    #[inline]
    pub fn stop_traced(self, trace: &Trace) -> Nanos {
        let ended = self.series;
        let took = self.stop();
        ended.exemplify(took.0, trace, clock::wall_coarse());
        took
    }

    /// Ends the running stage into its series. Returns how long it took.
    #[inline(always)]
    pub fn stop(self) -> Nanos {
        let took = clock::now().since(self.start);
        self.series.record(took.0);
        took
    }
}
