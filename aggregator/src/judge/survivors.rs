//! How many samples are at least as slow as each bucket's lower edge.
//!
//! The layout has 128 buckets an octave, so twice a bucket's lower edge is again a lower edge, 128
//! buckets on: "slower than twice x" is a count, without interpolation, wherever x is an edge.
//! Bounds: one number for every counter, 30 KB, reused between histograms.

use lens_hist::layout::{self, SLOTS};
use lens_hist::{Counts, Sparse};

/// Buckets of one octave: `low(i + OCTAVE)` is twice `low(i)` from index `OCTAVE` on.
pub const OCTAVE: usize = 128;

/// The first bucket whose lower edge is at least `nanos`; `SLOTS`, where nothing is counted, for
/// what lies beyond the overflow bucket's.
pub fn edge_at_or_above(nanos: f64) -> usize {
    if nanos.is_nan() || nanos <= 0.0 {
        return 0;
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let index = layout::index_of(nanos.ceil().min(u64::MAX as f64) as u64);
    if (layout::low(index) as f64) < nanos { index + 1 } else { index }
}

/// The last bucket whose lower edge is at most `nanos`.
pub fn edge_at_or_below(nanos: f64) -> usize {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    layout::index_of(nanos.max(0.0).min(u64::MAX as f64) as u64)
}

/// S_i = #{samples ≥ low(i)} of one histogram, for every bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survivors {
    at: Box<[u64; SLOTS]>,
    /// Buckets from here on hold nothing.
    end: usize,
}

impl Default for Survivors {
    fn default() -> Self {
        Self { at: Box::new([0; SLOTS]), end: 0 }
    }
}

impl Survivors {
    /// The survivors of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The survivors of a dense histogram.
    pub fn of(counts: &Counts) -> Self {
        let mut survivors = Self::new();
        survivors.set(counts.to_sparse().entries());
        survivors
    }

    /// The survivors of a sparse histogram.
    pub fn of_sparse(counts: &Sparse) -> Self {
        let mut survivors = Self::new();
        survivors.set(counts.entries());
        survivors
    }

    /// Becomes the survivors of these non-zero counts, in ascending order of index.
    pub fn set(&mut self, entries: &[(u16, u64)]) {
        let end = entries.last().map_or(0, |last| usize::from(last.0) + 1);
        let first = entries.first().map_or(end, |first| usize::from(first.0));
        self.at[first..self.end.max(end)].fill(0);
        for &(index, count) in entries {
            self.at[usize::from(index)] = count;
        }
        // Every bucket in turn: which of them are empty is what a processor cannot predict.
        let mut above = 0_u64;
        for at in self.at[first..end].iter_mut().rev() {
            above = above.saturating_add(*at);
            *at = above;
        }
        self.at[..first].fill(above);
        self.end = end;
    }

    /// Samples in all.
    pub fn total(&self) -> u64 {
        self.at[0]
    }

    /// Samples at least as slow as the lower edge of bucket `index`; 0 past the last bucket.
    #[inline]
    pub fn at_least(&self, index: usize) -> u64 {
        self.at.get(index).copied().unwrap_or(0)
    }

    /// One past the slowest bucket that holds a sample; 0 when none does.
    pub const fn end(&self) -> usize {
        self.end
    }

    /// The first bucket from whose lower edge on at most `most` samples remain.
    pub fn first_at_most(&self, most: f64) -> usize {
        self.at.partition_point(|&above| above as f64 > most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lens_hist::layout::COUNTERS;
    use proptest::prelude::*;

    #[test]
    fn twice_a_lower_edge_is_the_lower_edge_an_octave_on() {
        for index in OCTAVE..COUNTERS - OCTAVE {
            assert_eq!(layout::low(index + OCTAVE), 2 * layout::low(index), "bucket {index}");
        }
    }

    #[test]
    fn edges_round_outward() {
        for index in 1..COUNTERS {
            let edge = layout::low(index) as f64;
            assert_eq!(edge_at_or_above(edge), index);
            assert_eq!(edge_at_or_below(edge), index);
            assert_eq!(edge_at_or_above(edge + 0.5), index + 1);
            assert_eq!(edge_at_or_below(edge - 0.5), index - 1);
        }
        assert_eq!(edge_at_or_above(layout::low(COUNTERS) as f64), COUNTERS);
        assert_eq!(edge_at_or_above(f64::MAX), SLOTS);
        assert_eq!(edge_at_or_above(-1.0), 0);
    }

    proptest! {
        #[test]
        fn survivors_count_what_is_at_least_as_slow_whatever_was_there_before(
            before in prop::collection::vec(0_u64..1 << 37, 0..50),
            values in prop::collection::vec(0_u64..1 << 37, 0..80),
        ) {
            let mut survivors = Survivors::of_sparse(&before.into_iter().collect());
            survivors.set(values.iter().copied().collect::<Sparse>().entries());
            for index in (0..SLOTS).step_by(7).chain([OCTAVE, COUNTERS, SLOTS, SLOTS + 200]) {
                let edge = if index < SLOTS { layout::low(index) } else { u64::MAX };
                let slower = values.iter().filter(|value| **value >= edge).count();
                prop_assert_eq!(survivors.at_least(index), slower as u64);
            }
            prop_assert_eq!(survivors.total(), values.len() as u64);
            let half = survivors.first_at_most(values.len() as f64 / 2.0);
            prop_assert!(survivors.at_least(half) as f64 <= values.len() as f64 / 2.0);
        }
    }
}
