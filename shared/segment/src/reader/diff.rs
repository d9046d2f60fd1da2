//! From two copies of a block to what was counted: dense, without a branch for each counter.
//!
//! Why two copies: a kernel copy of a word that is being written is not promised to be whole: its
//! bytes may be those of different moments, between which its writer adds one or, in bulk, many. A
//! torn word above its true value shares its lowest byte with a value the counter had meanwhile and
//! is above that, so by 2^8 or more; one below its baseline is a difference near 2^32; any other is
//! merely too old. A first copy in which no counter grew by [`TORN_MIN`] therefore holds no word
//! that is too high, and is taken as it is. Otherwise, of two copies' differences to the baseline
//! the smaller is taken: one torn upwards loses to the other, one torn below the baseline loses too.
//! A value that is merely too old is late, never wrong, because the next harvest subtracts exactly
//! what this one took. So no retry is needed however fast the writer is.
//! Cost: unchanged blocks pay one vector compare; changed ones a vector pass over the groups of 64
//! counters that changed, and a second copy where one counter grew much.

use lens_hist::Sparse;
use lens_hist::layout::SLOTS;

use crate::layout::BLOCK_BYTES;

/// Counters compared, and then taken, together.
const GROUP: usize = 64;
const GROUP_BYTES: usize = GROUP * 4;
/// Groups of a block; one bit of a mask each.
const GROUPS: usize = SLOTS.div_ceil(GROUP);

const _: () = assert!(GROUPS <= 64 && BLOCK_BYTES <= GROUPS * GROUP_BYTES);

/// A private copy of one block: native-endian `u32` counters, zeroes after the last.
///
/// Bytes, so that `pread` fills it without a cast; aligned as the block itself, so that the
/// kernel copies whole words.
#[derive(Clone, PartialEq, Eq)]
#[repr(C, align(64))]
pub(super) struct Counters([[u8; GROUP_BYTES]; GROUPS]);

static ZERO: Counters = Counters([[0; GROUP_BYTES]; GROUPS]);

type Group = [u32; GROUP];

#[inline(always)]
fn load(bytes: &[u8; GROUP_BYTES]) -> Group {
    let (words, _) = bytes.as_chunks::<4>();
    core::array::from_fn(|at| u32::from_ne_bytes(words[at]))
}

#[inline(always)]
fn store(bytes: &mut [u8; GROUP_BYTES], group: &Group) {
    let (words, _) = bytes.as_chunks_mut::<4>();
    for (word, value) in words.iter_mut().zip(group) {
        *word = value.to_ne_bytes();
    }
}

impl Counters {
    pub(super) fn boxed() -> Box<Self> {
        Box::new(ZERO.clone())
    }

    /// Where a copy of a block goes.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0.as_flattened_mut()[..BLOCK_BYTES]
    }

    /// Where a copy of the groups of `mask` goes, and where in the block it begins. Groups between
    /// the first and the last of them are included.
    pub(super) fn span_mut(&mut self, mask: u64) -> (usize, &mut [u8]) {
        let begin = mask.trailing_zeros() as usize * GROUP_BYTES;
        let end = (64 - mask.leading_zeros() as usize) * GROUP_BYTES;
        (begin, &mut self.bytes_mut()[begin.min(BLOCK_BYTES)..end.min(BLOCK_BYTES)])
    }

    /// The non-zero counters, ascending.
    pub(super) fn non_zero(&self) -> Vec<(u16, u32)> {
        let (words, _) = self.0.as_flattened().as_chunks::<4>();
        let counters = (0_u16..).zip(words.iter().map(|word| u32::from_ne_bytes(*word)));
        counters.filter(|(_, count)| *count != 0).collect()
    }

    /// Sets one counter; false when there is none such.
    pub(super) fn set(&mut self, at: u16, count: u32) -> bool {
        let at = usize::from(at);
        if at >= SLOTS {
            return false;
        }
        self.0.as_flattened_mut()[at * 4..at * 4 + 4].copy_from_slice(&count.to_ne_bytes());
        true
    }
}

/// The groups in which `new` differs from `old` (all zeroes where absent), one bit each.
pub(super) fn changed(new: &Counters, old: Option<&Counters>) -> u64 {
    let old = old.unwrap_or(&ZERO);
    let mut mask = 0;
    for (at, (new, old)) in new.0.iter().zip(&old.0).enumerate() {
        // Eight independent lanes, so that the compiler keeps them in vector registers.
        let mut different = [0_u64; 8];
        for (new, old) in new.as_chunks::<64>().0.iter().zip(old.as_chunks::<64>().0) {
            let words = new.as_chunks::<8>().0.iter().zip(old.as_chunks::<8>().0);
            for (lane, (new, old)) in different.iter_mut().zip(words) {
                *lane |= u64::from_ne_bytes(*new) ^ u64::from_ne_bytes(*old);
            }
        }
        let different = different.into_iter().fold(0, |all, lane| all | lane);
        mask |= u64::from(different != 0) << at;
    }
    mask
}

/// What each counter grew by, modulo 2^32: exact where `new` was settled against `old`.
pub(super) fn grown(new: &Counters, old: Option<&Counters>, out: &mut Sparse) {
    let base = old.unwrap_or(&ZERO);
    for at in bits(changed(new, old)) {
        let (new, base) = (load(&new.0[at]), load(&base.0[at]));
        let grown: [u64; GROUP] =
            core::array::from_fn(|slot| u64::from(new[slot].wrapping_sub(base[slot])));
        out.extend_dense(at * GROUP, &grown[..GROUP.min(SLOTS - at * GROUP)]);
    }
}

/// Growth from which a word is looked at twice. One torn upwards shows 2^8 or more: what is above the
/// last value of a counter, and has the lowest byte of an earlier one, is at least 2^8 above that
/// one, whatever the steps in between; and that one is not below the baseline.
const TORN_MIN: u32 = 128;

/// Whether no counter of the groups of `mask` grew by [`TORN_MIN`] or more.
pub(super) fn whole(mask: u64, new: &Counters, old: Option<&Counters>) -> bool {
    let old = old.unwrap_or(&ZERO);
    let mut most = 0;
    for at in bits(mask) {
        let (new, old) = (load(&new.0[at]), load(&old.0[at]));
        for slot in 0..GROUP {
            most = most.max(new[slot].wrapping_sub(old[slot]));
        }
    }
    most < TORN_MIN
}

/// A counter is below its baseline in both copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Backward;

/// Settles the groups of `mask`: into `new`, of two copies, the one that grew less; and says if a
/// counter went back, which a difference of 2^31 or more means.
pub(super) fn settle(
    mask: u64,
    new: &mut Counters,
    second: &Counters,
    old: Option<&Counters>,
) -> Result<(), Backward> {
    let old = old.unwrap_or(&ZERO);
    let mut high = 0;
    for at in bits(mask) {
        let (one, two, base) = (load(&new.0[at]), load(&second.0[at]), load(&old.0[at]));
        let mut settled = [0; GROUP];
        for slot in 0..GROUP {
            let grown = one[slot].wrapping_sub(base[slot]).min(two[slot].wrapping_sub(base[slot]));
            high |= grown;
            settled[slot] = base[slot].wrapping_add(grown);
        }
        store(&mut new.0[at], &settled);
    }
    if high >> 31 == 0 { Ok(()) } else { Err(Backward) }
}

/// Differences summed over the shards of one series. Sums outside the mask mean nothing.
pub(super) struct Accumulator {
    sums: [[u64; GROUP]; GROUPS],
    mask: u64,
}

impl Accumulator {
    pub(super) fn boxed() -> Box<Self> {
        Box::new(Self { sums: [[0; GROUP]; GROUPS], mask: 0 })
    }

    /// Adds what the settled groups of `mask` grew by. The first shard that touches a group, which
    /// mostly is the only one, writes its sums instead of adding to them.
    pub(super) fn add(&mut self, mask: u64, new: &Counters, old: Option<&Counters>) {
        let old = old.unwrap_or(&ZERO);
        for at in bits(mask) {
            let (new, old) = (load(&new.0[at]), load(&old.0[at]));
            let grown = core::array::from_fn(|slot| u64::from(new[slot].wrapping_sub(old[slot])));
            if self.mask >> at & 1 == 0 {
                self.sums[at] = grown;
            } else {
                for (sum, more) in self.sums[at].iter_mut().zip(grown) {
                    // At most 64 shards × 2^31.
                    *sum += more;
                }
            }
        }
        self.mask |= mask;
    }

    /// Gives the sums of what was added, and begins anew.
    pub(super) fn drain(&mut self, out: &mut Sparse) {
        for at in bits(core::mem::take(&mut self.mask)) {
            // The last group ends past the last counter; nothing is ever counted there.
            out.extend_dense(at * GROUP, &self.sums[at][..GROUP.min(SLOTS - at * GROUP)]);
        }
    }

    /// Forgets the sums of a series that failed half-way.
    pub(super) fn clear(&mut self) {
        self.mask = 0;
    }
}

/// The set bits, ascending.
fn bits(mut mask: u64) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        let at = mask.trailing_zeros() as usize;
        mask &= mask.wrapping_sub(1);
        (at < 64).then_some(at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(entries: &[(u16, u32)]) -> Counters {
        let mut counters = ZERO.clone();
        for (at, count) in entries {
            assert!(counters.set(*at, *count));
        }
        counters
    }

    fn delta(
        one: &[(u16, u32)],
        two: &[(u16, u32)],
        old: &[(u16, u32)],
    ) -> Option<Vec<(u16, u64)>> {
        let (mut new, old) = (counters(one), counters(old));
        let mask = changed(&new, Some(&old));
        settle(mask, &mut new, &counters(two), Some(&old)).ok()?;
        let (mut accumulator, mut out) = (Accumulator::boxed(), Sparse::new());
        accumulator.add(mask, &new, Some(&old));
        accumulator.drain(&mut out);
        Some(out.entries().to_vec())
    }

    #[test]
    fn first_and_last_counters_are_seen() {
        let last = u16::try_from(SLOTS - 1).unwrap();
        let new = [(0, 1), (63, 2), (64, 3), (last, 4)];
        assert_eq!(delta(&new, &new, &[]), Some(vec![(0, 1), (63, 2), (64, 3), (last, 4)]));
        assert!(!ZERO.clone().set(last + 1, 1));
    }

    #[test]
    fn a_counter_that_wrapped_is_a_small_difference() {
        let new = [(7, 4)];
        assert_eq!(delta(&new, &new, &[(7, u32::MAX - 5)]), Some(vec![(7, 10)]));
    }

    #[test]
    fn a_counter_that_went_back_is_refused_at_its_limit() {
        assert_eq!(delta(&[(7, 4)], &[(7, 4)], &[(7, 5)]), None);
        let limit = (1 << 31) - 1;
        assert_eq!(delta(&[(7, limit)], &[(7, limit)], &[]), Some(vec![(7, u64::from(limit))]));
        assert_eq!(delta(&[(7, limit + 1)], &[(7, limit + 1)], &[]), None);
    }

    /// 0x00ff becoming 0x0100, copied half before and half after.
    #[test]
    fn a_word_torn_either_way_in_one_copy_changes_nothing() {
        for torn in [0x0000, 0x01ff] {
            for (one, two) in [(torn, 0x0100), (0x0100, torn)] {
                let taken = delta(&[(9, one)], &[(9, two)], &[(9, 0x00fe)]).unwrap();
                assert_eq!(taken, vec![(9, 2)], "{one:x} {two:x}");
            }
        }
    }

    #[test]
    fn what_one_harvest_left_the_next_one_takes() {
        // The second copy is older in one counter: the smaller is taken, the rest comes later.
        assert_eq!(delta(&[(9, 5)], &[(9, 3)], &[]), Some(vec![(9, 3)]));
        assert_eq!(delta(&[(9, 5)], &[(9, 5)], &[(9, 3)]), Some(vec![(9, 2)]));
    }
}
