//! Every memory ordering of a segment, in one place: record, publish, harvest, hand a shard on.
//!
//! Why so little: counters only grow and have one writer at a time, so a reader that sees an older
//! value is late and never wrong. What needs ordering is (1) an entry and the length that publishes
//! it, and (2) a shard's counters when one thread leaves it and another takes it over.
//! Promise: no locked instruction on an owned shard, no fence in the writer's path.
//! Proof: `loom_model` explores these functions exhaustively; a weakened copy fails there.

use crate::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Adds one to a counter that only the calling thread writes.
#[inline(always)]
pub(crate) fn bump_owned(counter: &AtomicU32) {
    add_owned(counter, 1);
}

/// Adds to a counter that only the calling thread writes.
///
/// Relaxed: monotone modulo 2^32, read late is fine. A load and a store, no locked instruction:
/// on x86-64 the compiler makes them one addition to memory.
#[inline(always)]
pub(crate) fn add_owned(counter: &AtomicU32, more: u32) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

/// Adds one to a counter that any thread, or a forked child, may write.
#[inline]
pub(crate) fn bump_shared(counter: &AtomicU32) {
    add_shared(counter, 1);
}

/// Adds to a counter that any thread, or a forked child, may write.
///
/// Relaxed: monotone modulo 2^32, read late is fine; the addition itself is indivisible.
#[inline]
pub(crate) fn add_shared(counter: &AtomicU32, more: u32) {
    counter.fetch_add(more, Ordering::Relaxed);
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

/// The next of the exemplars' numbers, or of their places before the ring's end is taken off; from 1,
/// so that a slot of zeroes is an empty one.
///
/// Relaxed: numbers tell exemplars apart and places spread them; what is in a slot is told whole from
/// torn by its own check value.
pub(crate) fn claim_next(last: &AtomicU64) -> u64 {
    last.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
}

/// Writes one word of an exemplar.
///
/// Relaxed: a reader, or another writer of the slot, may meet half of it. Then the check value is
/// not that of the words, and the slot is passed over.
pub(crate) fn write_exemplar_word(word: &AtomicU64, value: u64) {
    word.store(value, Ordering::Relaxed);
}

/// What a latency of a series has to pass to become its exemplar of the present period, and where
/// that stands.
#[derive(Debug)]
pub(crate) struct Bar {
    /// The period's low 16 bits, then 48 bits of nanoseconds.
    slowest: AtomicU64,
    place: AtomicU32,
}

/// Where a latency that passed is to stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seat {
    /// In a place of its own: it is the first of its period.
    Fresh,
    /// In the place of the one it was slower than.
    Kept(u32),
}

impl Bar {
    const NANOS_MAX: u64 = (1 << 48) - 1;

    pub(crate) fn new() -> Self {
        Self { slowest: AtomicU64::new(0), place: AtomicU32::new(0) }
    }

    /// Whether a latency is slower than every other one of its period, and is the bar from now on.
    ///
    /// Relaxed: nothing is read through it. Of random latencies, n in a period, some ln n pass.
    pub(crate) fn raise(&self, period: u64, nanos: u64) -> Option<Seat> {
        let offered = (period << 48) | nanos.min(Self::NANOS_MAX);
        let mut held = self.slowest.load(Ordering::Relaxed);
        loop {
            let same = held >> 48 == offered >> 48;
            if same && held >= offered {
                return None;
            }
            match self.slowest.compare_exchange_weak(
                held,
                offered,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(0) => return Some(Seat::Fresh),
                Ok(_) if same => return Some(Seat::Kept(self.place.load(Ordering::Relaxed))),
                Ok(_) => return Some(Seat::Fresh),
                Err(seen) => held = seen,
            }
        }
    }

    /// Notes where the exemplar of this period stands.
    ///
    /// Relaxed: one that passes meanwhile may take the place of the period before, which costs at
    /// most another exemplar.
    pub(crate) fn seat(&self, place: u32) {
        self.place.store(place, Ordering::Relaxed);
    }
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
    fn a_bar_lets_the_slower_pass_and_begins_anew_each_period() {
        let bar = Bar::new();
        assert_eq!(bar.raise(0, 100), Some(Seat::Fresh), "the first there is");
        assert_eq!(bar.raise(7, 100), Some(Seat::Fresh));
        bar.seat(5);
        assert_eq!((bar.raise(7, 100), bar.raise(7, 99)), (None, None));
        assert_eq!(bar.raise(7, 101), Some(Seat::Kept(5)));
        assert_eq!(bar.raise(8, 5), Some(Seat::Fresh), "another period");
        assert_eq!(bar.raise(8 + (1 << 16), 200), Some(Seat::Kept(5)), "its low bits are held");
        assert_eq!(bar.raise(9, u64::MAX), Some(Seat::Fresh));
        assert_eq!(bar.raise(9, u64::MAX - 1), None, "78 hours are the most it tells apart");
    }

    #[test]
    fn an_owned_counter_wraps_without_a_panic() {
        let counter = AtomicU32::new(u32::MAX);
        bump_owned(&counter);
        assert_eq!(counter.load(Ordering::Relaxed), 0);
    }
}
