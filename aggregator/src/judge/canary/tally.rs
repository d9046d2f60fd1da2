//! What one host's window counts as: exceedances of fixed edges and failed requests.

use lens_hist::Sparse;

use super::evalue::Hits;
use super::reference::{N_LEVELS, Thresholds};
use crate::judge::survivors::{edge_at_or_above, edge_at_or_below};

/// Levels at which "not worse" must be shown, as places in `LEVELS`: p95 and p99.
pub const NOT_WORSE_LEVELS: [usize; 2] = [3, 4];

/// Levels at which a host is held against the others, as places in `LEVELS`: the median and p95.
pub const SLOW_LEVELS: [usize; 2] = [0, 3];

/// An edge that nothing reaches, of a level that is not compared.
const NOWHERE: usize = usize::MAX;

/// The edges a stream's window is counted against.
#[derive(Clone, Debug, PartialEq)]
pub struct Edges {
    /// The baseline's thresholds.
    pub thresholds: Thresholds,
    baseline: [usize; N_LEVELS],
    harm: [usize; N_LEVELS],
    not_worse: [usize; 2],
    slow: [usize; 2],
}

/// What the edges of a window stand off the thresholds, as factors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EdgeMargins {
    /// The margin of harm at each level.
    pub harm: [f64; N_LEVELS],
    /// The margins of "not worse".
    pub not_worse: [f64; 2],
    /// The margin from which a host is slow.
    pub slow: f64,
}

impl Edges {
    /// Edges at the thresholds for the baseline and at the thresholds times a margin for the
    /// canary, rounded to the side on which nothing is claimed: up for harm, down for "not worse".
    #[allow(clippy::cast_precision_loss)]
    pub fn new(thresholds: Thresholds, margins: &EdgeMargins) -> Self {
        let nanos = |edge: usize| lens_hist::layout::low(edge) as f64;
        let at = |level: usize, find: &dyn Fn(usize) -> usize| {
            thresholds[level].map_or(NOWHERE, |threshold| find(threshold.edge))
        };
        Self {
            thresholds,
            baseline: std::array::from_fn(|level| at(level, &|edge| edge)),
            harm: std::array::from_fn(|level| {
                at(level, &|edge| edge_at_or_above(margins.harm[level] * nanos(edge)))
            }),
            not_worse: std::array::from_fn(|i| {
                let margin = margins.not_worse[i];
                at(NOT_WORSE_LEVELS[i], &|edge| edge_at_or_below(margin * nanos(edge)))
            }),
            slow: std::array::from_fn(|i| {
                at(SLOW_LEVELS[i], &|edge| edge_at_or_above(margins.slow * nanos(edge)))
            }),
        }
    }
}

/// One arm's window on one host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArmTally {
    /// Latency samples.
    pub n: u64,
    /// Samples at or above the level's edge: the threshold itself for the baseline, the threshold
    /// times the margin of harm for the canary.
    pub above: [u64; N_LEVELS],
    /// Samples at or above the threshold itself, for both arms.
    pub above_plain: [u64; N_LEVELS],
    /// Samples at or above the edges of "not worse".
    pub above_not_worse: [u64; 2],
    /// Samples at or above the edges from which a host is slow, for both arms.
    pub above_slow: [u64; 2],
    /// Requests and failed ones.
    pub errors: Hits,
}

impl ArmTally {
    /// The baseline's window.
    pub fn baseline(counts: &Sparse, edges: &Edges, errors: Hits) -> Self {
        let above = at_or_above(counts, &edges.baseline);
        let above_not_worse = NOT_WORSE_LEVELS.map(|level| above[level]);
        let above_slow = at_or_above(counts, &edges.slow);
        Self { n: counts.total(), above, above_plain: above, above_not_worse, above_slow, errors }
    }

    /// The canary's window.
    pub fn canary(counts: &Sparse, edges: &Edges, errors: Hits) -> Self {
        Self {
            n: counts.total(),
            above: at_or_above(counts, &edges.harm),
            above_plain: at_or_above(counts, &edges.baseline),
            above_not_worse: at_or_above(counts, &edges.not_worse),
            above_slow: at_or_above(counts, &edges.slow),
            errors,
        }
    }

    /// The samples that exceed a level's edge.
    pub const fn hits(&self, level: usize) -> Hits {
        Hits { hits: self.above[level], n: self.n }
    }

    /// The samples that exceed an edge of "not worse".
    pub const fn hits_not_worse(&self, which: usize) -> Hits {
        Hits { hits: self.above_not_worse[which], n: self.n }
    }

    /// Both sums.
    pub fn plus(&self, other: &Self) -> Self {
        self.with(other, u64::saturating_add, Hits::plus)
    }

    /// What is left without `other`, a part of this.
    pub fn minus(&self, other: &Self) -> Self {
        self.with(other, u64::saturating_sub, Hits::minus)
    }

    fn with(
        &self,
        other: &Self,
        count: impl Fn(u64, u64) -> u64,
        hits: impl Fn(Hits, Hits) -> Hits,
    ) -> Self {
        let each = |a: &[u64; N_LEVELS], b: &[u64; N_LEVELS]| {
            std::array::from_fn(|level| count(a[level], b[level]))
        };
        let both = |a: &[u64; 2], b: &[u64; 2]| std::array::from_fn(|i| count(a[i], b[i]));
        Self {
            n: count(self.n, other.n),
            above: each(&self.above, &other.above),
            above_plain: each(&self.above_plain, &other.above_plain),
            above_not_worse: both(&self.above_not_worse, &other.above_not_worse),
            above_slow: both(&self.above_slow, &other.above_slow),
            errors: hits(self.errors, other.errors),
        }
    }
}

/// One host's window of both arms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostTally {
    /// The host's place in the comparison's list.
    pub host: usize,
    /// Its canary.
    pub canary: ArmTally,
    /// Its baseline.
    pub baseline: ArmTally,
}

/// Samples at or above each of some ascending edges.
fn at_or_above<const N: usize>(counts: &Sparse, edges: &[usize; N]) -> [u64; N] {
    let mut found = [0; N];
    let mut entries = counts.entries().iter().rev().peekable();
    let mut above = 0_u64;
    for (&edge, found) in edges.iter().zip(&mut found).rev().filter(|(edge, _)| **edge != NOWHERE) {
        while let Some((_, count)) = entries.next_if(|(index, _)| usize::from(*index) >= edge) {
            above = above.saturating_add(*count);
        }
        *found = above;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::canary::reference::Threshold;
    use lens_hist::layout;

    const MARGINS: EdgeMargins =
        EdgeMargins { harm: [1.05; 6], not_worse: [1.25, 1.35], slow: 1.25 };

    #[test]
    fn edges_are_rounded_to_the_side_on_which_nothing_is_claimed() {
        let threshold = Threshold { edge: layout::index_of(1_000_000), pi: 0.05 };
        let edges = Edges::new([Some(threshold); 6], &MARGINS);
        let x = layout::low(threshold.edge) as f64;
        for level in 0..N_LEVELS {
            assert!(layout::low(edges.harm[level]) as f64 >= 1.05 * x);
            assert!((layout::low(edges.harm[level] - 1) as f64) < 1.05 * x);
        }
        for (edge, margin) in edges.not_worse.into_iter().zip([1.25, 1.35]) {
            assert!(layout::low(edge) as f64 <= margin * x);
            assert!(layout::low(edge + 1) as f64 > margin * x);
        }
    }

    #[test]
    fn what_reaches_an_edge_is_counted_and_an_absent_level_counts_nothing() {
        let counts: Sparse = [10, 20, 20, 30, 40].into_iter().collect();
        assert_eq!(at_or_above(&counts, &[10, 20, 21, NOWHERE, 41, NOWHERE]), [5, 4, 2, 0, 0, 0]);
    }

    #[test]
    fn a_part_added_and_taken_away_leaves_the_whole() {
        let edges = Edges::new([None; 6], &MARGINS);
        let counts: Sparse = [10, 20].into_iter().collect();
        let a = ArmTally::canary(&counts, &edges, Hits { hits: 1, n: 3 });
        let b = ArmTally { n: 5, above: [4; 6], ..a };
        assert_eq!(a.plus(&b).minus(&b), a);
    }
}
