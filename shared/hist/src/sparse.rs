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
