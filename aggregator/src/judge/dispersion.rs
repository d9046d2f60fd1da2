//! How much less independent samples are worth than their number: overdispersion, from the data.
//!
//! For every slot it keeps trials and hits (of the samples above p95, those beyond the limit; of
//! all samples, those above an SLO). Were samples independent, the hits of a block of slots would
//! scatter about the common share with binomial variance. φ is how many times that variance they
//! have, the largest of three block lengths because load moves on each of them, times 1.25 for
//! what an hour has not yet shown. A test divides its evidence by φ.
//! A stream whose scatter is within what chance gives independent samples has φ = 1: taxing it
//! would only make every detection slower.
//! A violation must not excuse itself: a window is judged with the φ known before it began, and
//! slots found to be a violation are forgotten.
//! Bounds: one hour of slots and of φ by the minute.

use std::collections::VecDeque;

use super::slot::Slot;

/// Slots of history.
const HISTORY: usize = 720;

/// Lengths of blocks, slots: 5 s, 1 min, 5 min.
const BLOCKS: [usize; 3] = [1, 12, 60];

/// What is added for what the history has not shown.
const SAFETY: f64 = 1.25;

/// Fewest blocks from which a scatter is estimated.
const BLOCKS_MIN: usize = 6;

/// Standard errors by which a scatter must exceed 1 before it counts.
const CHANCE_Z: f64 = 3.0;

/// Slots between two estimates: one minute.
const REFRESH: i64 = 12;

/// Trials and hits of one slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    slot: i64,
    trials: u64,
    hits: u64,
}

/// The overdispersion of one stream of trials.
#[derive(Clone, Debug, Default)]
pub struct Dispersion {
    tallies: VecDeque<Tally>,
    /// φ by the slot from which on it was known.
    known: VecDeque<(i64, f64)>,
}

impl Dispersion {
    /// Adds one slot, which must be later than the last; without trials it is nothing.
    pub fn push(&mut self, slot: Slot, trials: u64, hits: u64) {
        if trials > 0 {
            self.tallies.push_back(Tally { slot: slot.0, trials, hits });
        }
        let oldest = slot.0 - HISTORY as i64;
        while self.tallies.front().is_some_and(|tally| tally.slot <= oldest) {
            self.tallies.pop_front();
        }
        if slot.0.rem_euclid(REFRESH) == REFRESH - 1 {
            let phi = self.estimate();
            if self.known.back().is_none_or(|(_, known)| *known != phi) {
                self.known.push_back((slot.0 + 1, phi));
            }
            while self.known.get(1).is_some_and(|(from, _)| *from <= oldest) {
                self.known.pop_front();
            }
        }
    }

    /// Forgets the slots from `first` on: they were found to be a violation.
    pub fn forget_from(&mut self, first: Slot) {
        self.tallies.truncate(self.tallies.partition_point(|tally| tally.slot < first.0));
    }

    /// φ as it was known before `slot`; 1 where nothing was.
    pub fn before(&self, slot: Slot) -> f64 {
        let after = self.known.partition_point(|(from, _)| *from <= slot.0);
        after.checked_sub(1).map_or(1.0, |at| self.known[at].1)
    }

    /// φ as known now.
    pub fn now(&self) -> f64 {
        self.known.back().map_or(1.0, |(_, phi)| *phi)
    }

    fn estimate(&self) -> f64 {
        let (mut trials, mut hits) = (0_u64, 0_u64);
        for tally in &self.tallies {
            trials = trials.saturating_add(tally.trials);
            hits = hits.saturating_add(tally.hits);
        }
        let share = hits as f64 / trials as f64;
        if !(share > 0.0 && share < 1.0) {
            return 1.0;
        }
        let scatters = BLOCKS.map(|length| self.scatter(length, trials as f64, share));
        if !scatters.iter().any(|scatter| scatter.beyond_chance()) {
            return 1.0;
        }
        let largest = scatters.iter().map(|scatter| scatter.mean).fold(0.0, f64::max);
        (SAFETY * largest).max(1.0)
    }

    /// The mean square of the blocks' standardised deviations from the common share.
    fn scatter(&self, length: usize, all: f64, share: f64) -> Scatter {
        let mut scatter = Scatter::default();
        let (mut squares, mut variances) = (0.0, 0.0);
        let mut add = |trials: f64, hits: f64| {
            // A block is part of what it is held against: its own variance is less by its part.
            let variance = trials * share * (1.0 - share) * (1.0 - trials / all);
            if variance > 0.0 {
                let deviation = hits - trials * share;
                squares += deviation * deviation / variance;
                variances += variance;
                scatter.blocks += 1;
            }
        };
        let mut block = (i64::MIN, 0.0, 0.0);
        for tally in &self.tallies {
            let place = tally.slot.div_euclid(length as i64);
            if place != block.0 {
                add(block.1, block.2);
                block = (place, 0.0, 0.0);
            }
            block.1 += tally.trials as f64;
            block.2 += tally.hits as f64;
        }
        add(block.1, block.2);
        if scatter.blocks >= BLOCKS_MIN {
            scatter.mean = squares / scatter.blocks as f64;
            scatter.variance_mean = variances / scatter.blocks as f64;
        }
        scatter
    }
}

/// How blocks of one length scatter; `mean` is 0 when there are too few of them.
#[derive(Clone, Copy, Debug, Default)]
struct Scatter {
    blocks: usize,
    mean: f64,
    variance_mean: f64,
}

impl Scatter {
    /// Whether it is more than independent samples show by chance: a squared standard normal has
    /// variance 2, and one of few expected hits has 1/variance more.
    fn beyond_chance(&self) -> bool {
        let error = ((2.0 + 1.0 / self.variance_mean.max(0.1)) / self.blocks.max(1) as f64).sqrt();
        self.mean > 1.0 + CHANCE_Z * error
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng, rngs::SmallRng};

    fn binomial(rng: &mut SmallRng, trials: u64, share: f64) -> u64 {
        (0..trials).map(|_| u64::from(rng.random::<f64>() < share)).sum()
    }

    #[test]
    fn independent_hits_are_not_taxed_and_clustered_ones_are_by_their_size() {
        let seed = 0x5eed_0002;
        let mut rng = SmallRng::seed_from_u64(seed);
        let (mut alone, mut clustered) = (Dispersion::default(), Dispersion::default());
        for slot in 0..720 {
            alone.push(Slot(slot), 50, binomial(&mut rng, 50, 0.2));
            clustered.push(Slot(slot), 250, 5 * binomial(&mut rng, 50, 0.2));
        }
        assert_eq!(alone.now(), 1.0, "seed {seed:#x}");
        let phi = clustered.now();
        assert!((5.0..12.0).contains(&phi), "{phi}, seed {seed:#x}");
    }

    #[test]
    fn slow_swings_show_in_long_blocks() {
        let seed = 0x5eed_0003;
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut swinging = Dispersion::default();
        for slot in 0..720_i64 {
            let share = if (slot / 60) % 2 == 0 { 0.18 } else { 0.22 };
            swinging.push(Slot(slot), 100, binomial(&mut rng, 100, share));
        }
        // In 6,000 trials a swing of 2 points is 3.9 standard deviations.
        assert!(swinging.now() > 10.0, "{}, seed {seed:#x}", swinging.now());
    }

    #[test]
    fn a_window_is_judged_with_what_was_known_before_it() {
        let mut calm_then_wild = Dispersion::default();
        for slot in 0..240_i64 {
            let hits = if slot < 120 { 10 } else { 25 * (slot.rem_euclid(2).unsigned_abs()) };
            calm_then_wild.push(Slot(slot), 50, hits);
        }
        assert_eq!(calm_then_wild.before(Slot(120)), 1.0);
        assert!(calm_then_wild.before(Slot(240)) > 2.0);
        assert_eq!(Dispersion::default().before(Slot(5)), 1.0);
        calm_then_wild.forget_from(Slot(120));
        for slot in 240..252 {
            calm_then_wild.push(Slot(slot), 50, 10);
        }
        assert_eq!(calm_then_wild.now(), 1.0, "what was forgotten still counts");
    }
}
