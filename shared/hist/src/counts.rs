//! One dense histogram: a 64-bit count for every counter of the layout.

use crate::layout::{OVERFLOW, SLOTS};
use crate::sparse::Sparse;

/// All counters of one histogram, 30,728 bytes, for merging many windows and reading quantiles.
///
/// Additions saturate at `u64::MAX`: at 10^9 samples a second that is 584 years away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    slots: Box<[u64; SLOTS]>,
}

impl Default for Counts {
    fn default() -> Self {
        Self::new()
    }
}

impl Counts {
    /// An empty histogram.
    pub fn new() -> Self {
        Self { slots: Box::new([0; SLOTS]) }
    }

    /// Counts one latency, nanoseconds.
    #[inline]
    pub fn record(&mut self, nanos: u64) {
        self.add(crate::layout::index_of(nanos), 1);
    }

    /// Adds `count` at a counter; indices from `SLOTS` on count as overflow.
    #[inline]
    pub fn add(&mut self, index: usize, count: u64) {
        let slot = &mut self.slots[index.min(OVERFLOW)];
        *slot = slot.saturating_add(count);
    }

    /// Adds every count of `other`: exact, commutative, associative.
    pub fn merge(&mut self, other: &Self) {
        for (slot, more) in self.slots.iter_mut().zip(other.slots.iter()) {
            *slot = slot.saturating_add(*more);
        }
    }

    /// Adds the counts of a sparse histogram.
    pub fn merge_sparse(&mut self, other: &Sparse) {
        for &(index, count) in other.entries() {
            self.add(usize::from(index), count);
        }
    }

    /// Forgets all counts.
    pub fn clear(&mut self) {
        self.slots.fill(0);
    }

    /// The sum of all counts, the overflow counter's included.
    pub fn total(&self) -> u64 {
        self.slots.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Samples longer than the layout's largest latency.
    pub fn overflow(&self) -> u64 {
        self.slots[OVERFLOW]
    }

    /// The counters, by index; the last one is the overflow counter.
    pub fn slots(&self) -> &[u64; SLOTS] {
        &self.slots
    }

    /// The non-zero counters in order.
    pub fn to_sparse(&self) -> Sparse {
        let mut sparse = Sparse::new();
        for (index, &count) in self.slots.iter().enumerate() {
            sparse.push(index, count);
        }
        sparse
    }

    /// The sum of all samples, nanoseconds, each taken at its bucket's middle: within 0.4 % of
    /// the exact sum. Overflowed samples count at the largest latency of the layout.
    pub fn sum_nanos(&self) -> u128 {
        let weighted = self.slots.iter().enumerate();
        weighted.map(|(index, &n)| u128::from(crate::layout::mid(index)) * u128::from(n)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counted(values: &[u64]) -> Counts {
        let mut counts = Counts::new();
        values.iter().for_each(|&value| counts.record(value));
        counts
    }

    proptest! {
        #[test]
        fn merging_parts_in_any_order_equals_counting_everything_at_once(
            a in prop::collection::vec(0_u64..1 << 38, 0..200),
            b in prop::collection::vec(0_u64..1 << 38, 0..200),
        ) {
            let mut ab = counted(&a);
            ab.merge(&counted(&b));
            let mut ba = counted(&b);
            ba.merge_sparse(&a.iter().copied().collect());
            let all: Vec<u64> = a.iter().chain(&b).copied().collect();
            prop_assert_eq!(&ab, &counted(&all));
            prop_assert_eq!(&ab, &ba);
            prop_assert_eq!(ab.total(), all.len() as u64);
            prop_assert_eq!(ab.to_sparse(), all.into_iter().collect::<Sparse>());
        }
    }

    #[test]
    fn a_latency_above_range_is_counted_apart_and_not_clamped() {
        let counts = counted(&[(1 << 36) - 1, 1 << 36, u64::MAX]);
        assert_eq!(counts.overflow(), 2);
        assert_eq!(counts.total(), 3);
    }

    #[test]
    fn additions_saturate_rather_than_wrap() {
        let mut counts = Counts::new();
        counts.add(7, u64::MAX);
        counts.add(7, 5);
        assert_eq!(counts.slots()[7], u64::MAX);
    }
}
