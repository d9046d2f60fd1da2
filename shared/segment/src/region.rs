//! The mapped file as atomic words: the one place that turns addresses into references.
//!
//! Why unsafe: memory another process reads has no owner the compiler could know; atomics through
//! pointers say what is true of it. No `&[u8]` or `&mut` over the mapping is ever made.
//! Promise: every word handed out lies inside the mapping, is aligned, and lives as long as the
//! region. The file is allocated before a word of it is published, so a store cannot fault.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64};
use std::fs::File;
use std::io;
use std::sync::Arc;

use lens_hist::layout::{SLOTS, index_of};
use memmap2::{MmapOptions, MmapRaw};

use crate::layout::{BLOCK_STRIDE, Geometry};
use crate::protocol::{add_owned, add_shared, bump_owned, bump_shared};

/// What keeps a region's memory where it is; never looked into, only dropped.
#[allow(dead_code)]
enum Memory {
    Mapped(MmapRaw),
    /// Zeroed heap, for tests where files cannot be mapped.
    #[cfg(test)]
    Heap(Vec<AtomicU64>),
}

/// Shared memory of a fixed length, as words.
pub(crate) struct Region {
    base: NonNull<u8>,
    bytes: usize,
    _memory: Memory,
}

// WHY: a raw pointer is neither Send nor Sync by default.
// SAFETY: the memory behind `base` belongs to `_memory`, which moves with the region and may be
// freed by any thread (an unmapping or a heap free); `base` and `bytes` never change.
unsafe impl Send for Region {}
// WHY: as above.
// SAFETY: all access through `&Region` is through atomics.
unsafe impl Sync for Region {}

impl Region {
    /// Maps the first `bytes` bytes of `file`, shared, readable and writable.
    pub(crate) fn map(file: &File, bytes: usize) -> io::Result<Self> {
        let map = MmapOptions::new().len(bytes).map_raw(file)?;
        let base = NonNull::new(map.as_mut_ptr())
            .ok_or_else(|| io::Error::other("the kernel mapped the file at address zero"))?;
        Ok(Self { base, bytes, _memory: Memory::Mapped(map) })
    }

    /// The same on the heap.
    #[cfg(test)]
    pub(crate) fn heap(bytes: usize) -> Self {
        let words: Vec<AtomicU64> = (0..bytes.div_ceil(8)).map(|_| AtomicU64::new(0)).collect();
        let base = NonNull::new(words.as_ptr().cast_mut().cast()).expect("a vector has an address");
        Self { base, bytes, _memory: Memory::Heap(words) }
    }

    /// The 32-bit word at `offset`.
    ///
    /// # Panics
    /// When it lies outside the region or is not aligned: our own offsets are wrong.
    #[inline]
    pub(crate) fn u32(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4) && offset < self.bytes && self.bytes - offset >= 4);
        // WHY: a word of shared memory has no Rust owner to borrow from.
        // SAFETY: in bounds and aligned by the assertion above (the base is at least 8-aligned: a
        // page or a vector of u64); valid as long as `self`, which owns the memory; zeroed memory
        // is a valid u32; every access in this process is atomic, other processes only read.
        unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(offset).cast()) }
    }

    /// The 64-bit word at `offset`.
    ///
    /// # Panics
    /// When it lies outside the region or is not aligned: our own offsets are wrong.
    #[inline]
    pub(crate) fn u64(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset < self.bytes && self.bytes - offset >= 8);
        // WHY: as in `u32`.
        // SAFETY: as in `u32`, with 8 for 4; the agent writes flag words with single aligned
        // stores of the same width.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(offset).cast()) }
    }
}

/// The blocks of one series: one for each shard, the last one shared.
#[derive(Clone)]
pub(crate) struct Chunk {
    base: NonNull<u8>,
    /// Byte offsets below this are blocks with one writer; at it lies the shared block.
    exclusive_bytes: usize,
    /// Keeps the memory mapped.
    _region: Arc<Region>,
}

// WHY: a raw pointer is neither Send nor Sync by default.
// SAFETY: `base` points into the region that `_region` keeps alive; access is through atomics.
unsafe impl Send for Chunk {}
// WHY: as above.
// SAFETY: as above.
unsafe impl Sync for Chunk {}

impl Chunk {
    /// The blocks of series `series`.
    ///
    /// # Panics
    /// When they do not lie inside the region: our own offsets are wrong.
    pub(crate) fn new(region: Arc<Region>, geometry: Geometry, series: usize) -> Self {
        let offset = geometry.chunk_offset(series);
        assert!(offset.is_multiple_of(64) && offset + geometry.chunk_bytes() <= region.bytes);
        // WHY: the address is kept so that recording neither multiplies nor checks again.
        // SAFETY: in bounds by the assertion above.
        let base = unsafe { region.base.add(offset) };
        let exclusive_bytes = geometry.shared_shard() * BLOCK_STRIDE;
        Self { base, exclusive_bytes, _region: region }
    }

    /// The block at byte offset `slot` if that is an exclusive one of this segment, else none.
    ///
    /// `slot` is a thread's [`crate::threads`] offset: a multiple of the stride, or a value above
    /// every offset for "unclaimed" and "shared".
    #[inline(always)]
    pub(crate) fn exclusive(&self, slot: usize) -> Option<Block<'_>> {
        if slot < self.exclusive_bytes { Some(self.block(slot)) } else { None }
    }

    /// The block all other threads share.
    #[inline(always)]
    pub(crate) fn shared(&self) -> Block<'_> {
        self.block(self.exclusive_bytes)
    }

    /// The block of shard `shard`, for reading.
    pub(crate) fn shard(&self, shard: usize) -> Block<'_> {
        self.block((shard * BLOCK_STRIDE).min(self.exclusive_bytes))
    }

    #[inline(always)]
    fn block(&self, offset: usize) -> Block<'_> {
        debug_assert!(offset <= self.exclusive_bytes && offset.is_multiple_of(BLOCK_STRIDE));
        // WHY: one compare instead of a bounds check and a multiplication for each record.
        // SAFETY: `offset` is at most `exclusive_bytes`, the start of the chunk's last block, and
        // the whole chunk is inside the region (checked in `new`).
        let base = unsafe { self.base.add(offset) };
        Block { base: base.cast(), _chunk: core::marker::PhantomData }
    }
}

/// One block: the counters of one series and one shard.
#[derive(Clone, Copy)]
pub(crate) struct Block<'a> {
    base: NonNull<u32>,
    _chunk: core::marker::PhantomData<&'a Chunk>,
}

impl Block<'_> {
    /// The counter at `index`.
    #[inline(always)]
    fn counter(&self, index: usize) -> &AtomicU32 {
        debug_assert!(index < SLOTS);
        // WHY: a bounds check costs 0.2 ns of a 0.7 ns record.
        // SAFETY: `index` is below SLOTS: `index_of` yields nothing else (const assertions there,
        // and a test over every octave's edges here), `get` checks. SLOTS counters fit a block
        // (const assertion in `layout`); stride and chunk offset are multiples of 4; the chunk
        // outlives `'a`; every access in this process is atomic.
        unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(index)) }
    }

    /// Counts one latency in a block that only the calling thread writes.
    #[inline(always)]
    pub(crate) fn record_owned(&self, nanos: u64) {
        bump_owned(self.counter(index_of(nanos)));
    }

    /// Counts one latency in a block anyone may write.
    #[inline]
    pub(crate) fn record_shared(&self, nanos: u64) {
        bump_shared(self.counter(index_of(nanos)));
    }

    /// Counts a latency several times in a block that only the calling thread writes.
    pub(crate) fn record_many_owned(&self, nanos: u64, count: u32) {
        add_owned(self.counter(index_of(nanos)), count);
    }

    /// Counts a latency several times in a block anyone may write.
    pub(crate) fn record_many_shared(&self, nanos: u64, count: u32) {
        add_shared(self.counter(index_of(nanos)), count);
    }

    /// The sum of all counters, each read once.
    pub(crate) fn total(&self) -> u64 {
        // Relaxed: a monitor's view, late is fine.
        let read = |at| u64::from(self.counter(at).load(core::sync::atomic::Ordering::Relaxed));
        (0..SLOTS).map(read).sum()
    }

    /// The value of the counter at `index`.
    #[cfg(test)]
    pub(crate) fn get(&self, index: usize) -> u32 {
        assert!(index < SLOTS);
        self.counter(index).load(core::sync::atomic::Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(shards: usize) -> Chunk {
        let geometry = Geometry::new(shards, 1).unwrap();
        Chunk::new(Arc::new(Region::heap(geometry.total_bytes())), geometry, 0)
    }

    #[test]
    fn every_edge_of_every_octave_lands_in_its_own_block() {
        let chunk = chunk(2);
        let block = chunk.exclusive(0).unwrap();
        let edges = (0..64).flat_map(|bit| [1_u64 << bit, (1 << bit) - 1, u64::MAX >> bit]);
        for nanos in edges {
            let before = block.get(index_of(nanos));
            block.record_owned(nanos);
            assert_eq!(block.get(index_of(nanos)), before + 1);
        }
        assert_eq!(block.total(), 192);
        assert_eq!(chunk.shared().total(), 0);
    }

    #[test]
    fn a_slot_beyond_the_exclusive_shards_has_no_exclusive_block() {
        let chunk = chunk(2);
        assert!(chunk.exclusive(BLOCK_STRIDE).is_none());
        assert!(chunk.exclusive(usize::MAX).is_none());
        assert!(self::chunk(1).exclusive(0).is_none());
    }

    #[test]
    fn two_owners_and_two_sharers_lose_nothing() {
        let chunk = chunk(3);
        let rounds: u64 = if cfg!(miri) { 50 } else { 20_000 };
        std::thread::scope(|scope| {
            for slot in [0, BLOCK_STRIDE, usize::MAX, usize::MAX] {
                let chunk = &chunk;
                scope.spawn(move || {
                    for nanos in 0..rounds {
                        match (chunk.exclusive(slot), nanos % 7) {
                            (Some(block), 0) => block.record_many_owned(0, 1),
                            (None, 0) => chunk.shared().record_many_shared(0, 1),
                            (Some(block), nanos) => block.record_owned(nanos),
                            (None, nanos) => chunk.shared().record_shared(nanos),
                        }
                    }
                });
            }
        });
        assert_eq!(chunk.shard(0).total(), rounds);
        assert_eq!(chunk.shard(1).total(), rounds);
        assert_eq!(chunk.shard(2).total(), 2 * rounds);
    }

    #[test]
    #[should_panic(expected = "assertion failed")]
    fn a_word_outside_the_region_is_our_own_fault_and_stops_us() {
        Region::heap(4_096).u32(4_096);
    }
}
