//! Every memory ordering of a segment, in one place: record, publish, harvest, hand a shard on.
//!
//! Why so little: counters only grow and have one writer at a time, so a reader that sees an older
//! value is late and never wrong. What needs ordering is (1) an entry and the length that publishes
//! it, and (2) a shard's counters when one thread leaves it and another takes it over.
//! Promise: no locked instruction on an owned shard, no fence in the writer's path.
//! Proof: `loom_model` explores these functions exhaustively; a weakened copy fails there.

use crate::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Adds one to a counter that only the calling thread writes.
///
/// Relaxed: monotone modulo 2^32, read late is fine. A load and a store, no locked instruction:
/// on x86-64 the compiler makes them one `inc` on memory.
#[inline(always)]
pub(crate) fn bump_owned(counter: &AtomicU32) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

/// Adds one to a counter that any thread, or a forked child, may write.
///
/// Relaxed: monotone modulo 2^32, read late is fine; the addition itself is indivisible.
#[inline]
pub(crate) fn bump_shared(counter: &AtomicU32) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Makes the first `length` entries of a table visible.
///
/// Release; pairs with [`length_was_read`]: an entry below a length a reader saw is complete.
pub(crate) fn publish_length(length: &AtomicU32, value: u32) {
    length.store(value, Ordering::Release);
}

/// Orders what is read next after the length (or state) that was just read, by whatever means.
///
/// Acquire fence; pairs with [`publish_length`]. A fence and not an acquire load, because the
/// reader takes its lengths with `pread`: the kernel's copy is a plain load, which the fence
/// orders before the later copies on processors that would reorder them.
pub(crate) fn length_was_read() {
    fence(Ordering::Acquire);
}

/// Orders the words of a flag page before the generation that is written next, by whatever means.
///
/// Release fence; pairs with the node's Acquire load of the generation: a node that sees a
/// generation sees the words it describes, or newer ones. A fence, because the agent writes with
/// `pwrite`: the kernel's copy is a plain store, which the fence orders on processors that would
/// reorder it.
pub(crate) fn words_were_written() {
    fence(Ordering::Release);
}

/// Which thread slots are taken: bit n set means slot n has an owner. At most 64.
pub(crate) struct SlotMap(AtomicU64);

impl SlotMap {
    /// No slot taken.
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// No slot taken.
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Takes the lowest free slot, or none when all 64 are taken.
    ///
    /// Acquire on success; pairs with [`SlotMap::release`]: every count the slot's last owner
    /// recorded is seen by its next, whose load and store therefore continue from it. The failed
    /// exchange needs no order: nothing is read through it.
    pub(crate) fn claim(&self) -> Option<u32> {
        let mut taken = self.0.load(Ordering::Relaxed);
        loop {
            let slot = (!taken).trailing_zeros();
            if slot == u64::BITS {
                return None;
            }
            match self.0.compare_exchange_weak(
                taken,
                taken | 1 << slot,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Some(slot),
                Err(seen) => taken = seen,
            }
        }
    }

    /// The slots taken now. Relaxed: the caller orders it by the lock that claims are made under.
    #[cfg(not(loom))]
    pub(crate) fn taken(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Gives a slot back. The caller records no more through it.
    ///
    /// Release; pairs with [`SlotMap::claim`].
    pub(crate) fn release(&self, slot: u32) {
        self.0.fetch_and(!(1 << slot), Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn slots_are_handed_out_lowest_first_and_end_at_64() {
        let slots = SlotMap::new();
        for expected in 0..64 {
            assert_eq!(slots.claim(), Some(expected));
        }
        assert_eq!(slots.claim(), None);
        slots.release(17);
        assert_eq!(slots.claim(), Some(17));
    }

    #[test]
    fn an_owned_counter_wraps_without_a_panic() {
        let counter = AtomicU32::new(u32::MAX);
        bump_owned(&counter);
        assert_eq!(counter.load(Ordering::Relaxed), 0);
    }
}
