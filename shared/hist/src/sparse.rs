//! The non-zero counters of one histogram, in order: what a harvest yields and a block holds.

use crate::layout::SLOTS;

/// Non-zero counts by ascending counter index, with their sum.
///
/// Reused between harvests: [`Sparse::clear`] keeps the memory. At most `SLOTS` entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sparse {
    entries: Vec<(u16, u64)>,
    total: u64,
}

impl Sparse {
    /// An empty histogram.
    pub const fn new() -> Self {
        Self { entries: Vec::new(), total: 0 }
    }

    /// Forgets all counts, keeping the memory.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.total = 0;
    }

    /// Adds `count` at `index`. Indices must ascend from call to call; a zero count is skipped.
    ///
    /// # Panics
    /// When `index` is not above the last one or not below `SLOTS`: the caller walks its own
    /// counters in order, so either is a fault of ours and not of any input.
    #[inline]
    pub fn push(&mut self, index: usize, count: u64) {
        if count == 0 {
            return;
        }
        assert!(index < SLOTS, "counter {index} of {SLOTS}");
        #[allow(clippy::cast_possible_truncation)]
        let index = index as u16;
        assert!(self.entries.last().is_none_or(|last| last.0 < index), "counters must ascend");
        self.entries.push((index, count));
        self.total = self.total.saturating_add(count);
    }

    /// Adds a run of counters that begins at `first`, zeroes skipped without a branch for each:
    /// which of a harvest's counters are zero is what a processor cannot predict.
    ///
    /// # Panics
    /// As [`Sparse::push`], for the run as a whole.
    pub fn extend_dense(&mut self, first: usize, counts: &[u64]) {
        let fits = first.checked_add(counts.len()).is_some_and(|end| end <= usize::from(u16::MAX));
        assert!(fits, "counters {first}.. of {SLOTS}");
        #[allow(clippy::cast_possible_truncation)]
        let first = first as u16;
        assert!(self.entries.last().is_none_or(|last| last.0 < first), "counters must ascend");
        let start = self.entries.len();
        self.entries.resize(start + counts.len(), (0, 0));
        let mut length = 0;
        let run = &mut self.entries[start..];
        for (index, &count) in (first..).zip(counts) {
            run[length] = (index, count);
            length += usize::from(count != 0);
            self.total = self.total.saturating_add(count);
        }
        self.entries.truncate(start + length);
        let last = self.entries.last().map_or(0, |last| usize::from(last.0));
        assert!(last < SLOTS, "counter {last} of {SLOTS}");
    }

    /// The sum of two histograms, made without a branch for each counter: which of them both have is
    /// what a processor cannot predict.
    pub fn sum(a: &Self, b: &Self) -> Self {
        let (left, right) = (&a.entries[..], &b.entries[..]);
        let mut entries = vec![(0, 0); left.len() + right.len()];
        let (mut l, mut r, mut length) = (0, 0, 0);
        while let (Some(&(at, n)), Some(&(other, m))) = (left.get(l), right.get(r)) {
            let (takes_left, takes_right) = (at <= other, other <= at);
            let n = n * u64::from(takes_left);
            entries[length] = (at.min(other), n.saturating_add(m * u64::from(takes_right)));
            l += usize::from(takes_left);
            r += usize::from(takes_right);
            length += 1;
        }
        entries.truncate(length);
        // Of one of them nothing is left.
        entries.extend_from_slice(&left[l..]);
        entries.extend_from_slice(&right[r..]);
        Self { entries, total: a.total.saturating_add(b.total) }
    }

    /// The entries, ascending by index.
    pub fn entries(&self) -> &[(u16, u64)] {
        &self.entries
    }

    /// The sum of all counts, the overflow counter's included.
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// Whether nothing was counted.
    pub const fn is_empty(&self) -> bool {
        self.total == 0
    }
}

impl FromIterator<u64> for Sparse {
    /// Counts raw latencies, nanoseconds, in any order.
    fn from_iter<I: IntoIterator<Item = u64>>(latencies: I) -> Self {
        let mut indices: Vec<usize> = latencies.into_iter().map(crate::layout::index_of).collect();
        indices.sort_unstable();
        let mut sparse = Self::new();
        for run in indices.chunk_by(|a, b| a == b) {
            sparse.push(run[0], run.len() as u64);
        }
        sparse
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn runs_of_counters_add_up_to_the_same_as_one_by_one(
            counts in prop::collection::vec(prop_oneof![Just(0_u64), 1_u64..9], 0..SLOTS),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut single = Sparse::new();
            counts.iter().enumerate().for_each(|(index, &count)| single.push(index, count));
            let (front, back) = counts.split_at(cut.index(counts.len() + 1));
            let mut runs = Sparse::new();
            runs.extend_dense(0, front);
            runs.extend_dense(front.len(), back);
            prop_assert_eq!(runs, single);
        }
    }

    proptest! {
        #[test]
        fn a_sum_is_what_dense_histograms_add_up_to(
            one in prop::collection::vec(prop_oneof![Just(0_u64), 1_u64..9, Just(u64::MAX)], 0..SLOTS),
            other in prop::collection::vec(prop_oneof![Just(0_u64), 1_u64..9], 0..SLOTS),
        ) {
            let sparse = |counts: &[u64]| {
                let mut sparse = Sparse::new();
                counts.iter().enumerate().for_each(|(index, &count)| sparse.push(index, count));
                sparse
            };
            let at = |counts: &[u64], index: usize| counts.get(index).copied().unwrap_or(0);
            let both: Vec<u64> = (0..one.len().max(other.len()))
                .map(|index| at(&one, index).saturating_add(at(&other, index)))
                .collect();
            let (one, other) = (sparse(&one), sparse(&other));
            prop_assert_eq!(Sparse::sum(&one, &other), sparse(&both));
            prop_assert_eq!(Sparse::sum(&other, &one), sparse(&both));
        }
    }

    #[test]
    #[should_panic(expected = "must ascend")]
    fn a_run_before_what_is_there_is_a_fault_of_ours() {
        let mut sparse = Sparse::new();
        sparse.push(9, 1);
        sparse.extend_dense(9, &[1]);
    }
}
