//! What the baseline was like just before: thresholds at its quantiles, from earlier windows only.
//!
//! The canary is never compared by a quantile of its own. Both arms are counted against thresholds
//! fixed before the window began, so nothing is selected by what it is tested on. The thresholds
//! are bucket edges, so counting is exact.
//! Bounds: `WINDOWS_MAX` windows as blocks; those past the span in use are dropped, so a stream of
//! 1,000 requests a second keeps 24 windows of about a kilobyte.

use std::collections::VecDeque;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use lens_hist::Sparse;
use lens_hist::block::{self, BlockRef};
use lens_hist::layout::{COUNTERS, SLOTS};
use serde::{Deserialize, Serialize};

/// Quantiles at which the arms are compared.
pub const LEVELS: [f64; 6] = [0.5, 0.75, 0.9, 0.95, 0.99, 0.999];

/// Levels there are.
pub const N_LEVELS: usize = LEVELS.len();

/// Windows that thresholds are read from: two minutes.
const WINDOWS_MIN: usize = 24;

/// Windows that are reached back for when two minutes hold too little: ten minutes.
const WINDOWS_MAX: usize = 120;

/// Samples beyond a quantile below which it is no threshold.
const BEYOND_MIN: f64 = 20.0;

/// A threshold and the baseline's rate of exceeding it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    /// The bucket whose lower edge it is.
    pub edge: usize,
    /// Share of earlier baseline requests at or above it, never 0.
    pub pi: f64,
}

/// The thresholds of all levels; `None` where the baseline's earlier windows hold too little.
pub type Thresholds = [Option<Threshold>; N_LEVELS];

/// The baseline's earlier windows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub struct Reference {
    windows: VecDeque<(u64, Vec<u8>)>,
    sum: Box<[u64]>,
    n: u64,
}

#[derive(Serialize, Deserialize)]
struct Stored(Vec<String>);

impl From<Stored> for Reference {
    fn from(stored: Stored) -> Self {
        let mut reference = Self::default();
        for text in stored.0 {
            // What is not a block of ours says nothing; a window that says nothing is safe.
            let bytes = STANDARD_NO_PAD.decode(text).unwrap_or_default();
            let known = BlockRef::parse(&bytes).is_ok();
            reference.push_block(if known { bytes } else { vec![0] });
        }
        reference
    }
}

impl From<Reference> for Stored {
    fn from(reference: Reference) -> Self {
        let text = |(_, bytes): &(u64, Vec<u8>)| STANDARD_NO_PAD.encode(bytes);
        Self(reference.windows.iter().map(text).collect())
    }
}

impl Default for Reference {
    fn default() -> Self {
        Self { windows: VecDeque::new(), sum: vec![0; SLOTS].into_boxed_slice(), n: 0 }
    }
}

impl Reference {
    /// Takes in the baseline's next window; an empty one passes time.
    pub fn push(&mut self, counts: &Sparse) {
        let mut bytes = Vec::new();
        block::encode(counts, &mut bytes);
        self.push_block(bytes);
    }

    fn push_block(&mut self, bytes: Vec<u8>) {
        let n = add(&mut self.sum, &bytes, u64::saturating_add);
        self.n = self.n.saturating_add(n);
        self.windows.push_back((n, bytes));
        while self.windows.len() > WINDOWS_MAX
            || (self.windows.len() > WINDOWS_MIN && self.enough_without_oldest())
        {
            if let Some((n, bytes)) = self.windows.pop_front() {
                add(&mut self.sum, &bytes, u64::saturating_sub);
                self.n = self.n.saturating_sub(n);
            }
        }
    }

    fn enough_without_oldest(&self) -> bool {
        let oldest = self.windows.front().map_or(0, |window| window.0);
        beyond(self.n.saturating_sub(oldest), LEVELS[N_LEVELS - 1]) >= BEYOND_MIN
    }

    /// Samples the thresholds rest on.
    pub const fn n(&self) -> u64 {
        self.n
    }

    /// The thresholds for the next window: at each level the lower edge of the first bucket from
    /// which on at most the level's share of samples remains.
    #[allow(clippy::cast_precision_loss)]
    pub fn thresholds(&self) -> Thresholds {
        let mut thresholds = [None; N_LEVELS];
        let (mut above, mut index) = (0_u64, SLOTS);
        for (level, threshold) in LEVELS.into_iter().zip(&mut thresholds).rev() {
            let most = beyond(self.n, level);
            if most < BEYOND_MIN {
                continue;
            }
            while index > 0 && (above + self.sum[index - 1]) as f64 <= most {
                index -= 1;
                above += self.sum[index];
            }
            if index < COUNTERS {
                let pi = (above as f64 + (1.0 - level)) / (self.n as f64 + 1.0);
                *threshold = Some(Threshold { edge: index, pi });
            }
        }
        thresholds
    }
}

/// Samples of `n` expected above a level.
#[allow(clippy::cast_precision_loss)]
fn beyond(n: u64, level: f64) -> f64 {
    (1.0 - level) * n as f64
}

fn add(sum: &mut [u64], bytes: &[u8], combine: impl Fn(u64, u64) -> u64) -> u64 {
    let Some((block, _)) = BlockRef::known(bytes) else { return 0 };
    block.for_each(|index, count| {
        if let Some(slot) = sum.get_mut(index) {
            *slot = combine(*slot, count);
        }
    });
    block.total()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lens_hist::layout;

    fn window(n: u64) -> Sparse {
        (0..n).map(|i| 1_000 + i * 7_919 % 50_000).collect()
    }

    #[test]
    fn levels_without_enough_beyond_them_have_no_threshold() {
        let mut reference = Reference::default();
        assert_eq!(reference.thresholds(), [None; 6]);
        reference.push(&window(201));
        let active = |r: &Reference| r.thresholds().map(|t| t.is_some());
        assert_eq!(active(&reference), [true, true, true, false, false, false]);
        reference.push(&window(201));
        assert_eq!(active(&reference), [true, true, true, true, false, false]);
    }

    #[test]
    fn at_most_the_levels_share_lies_at_or_above_its_threshold() {
        let mut reference = Reference::default();
        (0..24).for_each(|_| reference.push(&window(3_000)));
        for (level, threshold) in LEVELS.iter().zip(reference.thresholds()) {
            let threshold = threshold.unwrap();
            let edge = layout::low(threshold.edge);
            let above = (0..3_000_u64).filter(|i| 1_000 + i * 7_919 % 50_000 >= edge).count();
            assert!(above as f64 <= (1.0 - level) * 3_000.0 + 1e-9);
            assert!((threshold.pi - above as f64 / 3_000.0).abs() < 1e-4);
        }
    }

    #[test]
    fn two_minutes_are_kept_when_they_hold_enough_and_ten_otherwise() {
        let mut busy = Reference::default();
        (0..300).for_each(|_| busy.push(&window(1_000)));
        assert_eq!((busy.windows.len(), busy.n()), (24, 24_000));
        let mut idle = Reference::default();
        (0..300).for_each(|_| idle.push(&window(100)));
        assert_eq!((idle.windows.len(), idle.n()), (120, 12_000));
        let mut silent = busy;
        (0..300).for_each(|_| silent.push(&Sparse::new()));
        assert_eq!(silent.thresholds(), [None; 6], "a silent baseline has no thresholds");
    }

    #[test]
    fn a_reference_comes_back_from_its_stored_form() {
        let mut reference = Reference::default();
        (0..30).for_each(|t| reference.push(&window(100 * t)));
        let stored = serde_json::to_string(&reference).unwrap();
        let mut back: Reference = serde_json::from_str(&stored).unwrap();
        assert_eq!(back, reference);
        back.push(&window(9));
        reference.push(&window(9));
        assert_eq!(back.thresholds(), reference.thresholds());
        let damaged: Reference = serde_json::from_str("[\"?\", \"/////w\"]").unwrap();
        assert_eq!(damaged.n(), 0);
    }
}
