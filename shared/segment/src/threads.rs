//! Which shard a thread records into: small slot numbers, claimed once and given back at exit.
//!
//! Why process-wide: a thread has one slot for all recorders, so the way to its shard is a single
//! thread-local load and one compare. A slot's number times the block stride is what is kept.
//! Promise: a slot has at most one owner; the next owner continues the last one's counters.
//! Cost: the first record of a thread claims (a lock held for some instructions, and the
//! registration of a thread-exit destructor, which may allocate); [`claim_thread`] does it early.

use core::cell::Cell;
use core::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::inner::Inner;
use crate::layout::BLOCK_STRIDE;
use crate::protocol::SlotMap;

/// The thread has not recorded yet.
const UNCLAIMED: usize = usize::MAX;
/// The thread has no slot of its own.
const SHARED: usize = usize::MAX - 1;

thread_local! {
    /// Slot number × block stride, or one of the two values above. No destructor: one load.
    static OFFSET: Cell<usize> = const { Cell::new(UNCLAIMED) };
    /// Gives the slot back when the thread ends.
    static RETURN: Return = const { Return };
}

/// Slots taken in this process.
static SLOTS: SlotMap = SlotMap::new();

/// Forks between the first process that recorded and this one. Above 0 every thread uses the
/// shared shards.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// Live recorders: they are told of each claimed slot. Claims are made under this lock, so a new
/// recorder misses none.
static RECORDERS: Mutex<Vec<Weak<Inner>>> = Mutex::new(Vec::new());

struct Return;

impl Drop for Return {
    fn drop(&mut self) {
        // Records made by later destructors of this thread go to the shared shards.
        let offset = OFFSET.replace(SHARED);
        if offset < SHARED && !forked() {
            SLOTS.release(u32::try_from(offset / BLOCK_STRIDE).expect("slots are below 64"));
        }
    }
}

/// The calling thread's block offset; above every real offset when it has none (yet).
#[inline(always)]
pub(crate) fn offset() -> usize {
    OFFSET.get()
}

/// This process's generation: a segment belongs to the one it was made in.
pub(crate) fn generation() -> u32 {
    // Relaxed: raised in a child before any other thread of it exists.
    GENERATION.load(Ordering::Relaxed)
}

/// Whether this process was forked from one that recorded.
fn forked() -> bool {
    generation() != 0
}

/// The calling thread's block offset, claiming a slot first where it has not tried yet.
#[cold]
#[inline(never)]
pub(crate) fn claim() -> usize {
    let offset = OFFSET.get();
    if offset != UNCLAIMED {
        return offset;
    }
    let offset = if forked() || RETURN.try_with(|_| ()).is_err() {
        SHARED
    } else {
        let recorders = RECORDERS.lock();
        SLOTS.claim().map_or(SHARED, |slot| {
            for inner in recorders.iter().filter_map(Weak::upgrade) {
                inner.mark_shards(1 << slot);
            }
            slot as usize * BLOCK_STRIDE
        })
    };
    OFFSET.set(offset);
    offset
}

/// Claims the calling thread's shard now, so that its first record costs what every other does.
///
/// Harmless to repeat, and never needed for correctness.
pub fn claim_thread() {
    claim();
}

/// Adds a recorder to those told of new slots, and tells it of the present ones.
pub(crate) fn enrol(inner: &Arc<Inner>) {
    if forked() {
        // No slot is claimed here, and the lock may have been held by a thread that was not forked.
        return;
    }
    let mut recorders = RECORDERS.lock();
    recorders.retain(|other| other.strong_count() > 0);
    recorders.push(Arc::downgrade(inner));
    // Slots that are free now are told of when they are claimed again.
    inner.mark_shards(SLOTS.taken());
}

/// Called in a forked child, on its only thread: its slot belongs to the parent's thread.
pub(crate) fn enter_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    OFFSET.set(SHARED);
}
