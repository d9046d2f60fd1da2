//! How much less independent samples are worth than their number: overdispersion, from the data.
//!
//! For every slot it keeps trials and hits (of the samples above p95, those beyond the limit; of
//! all samples, those above an SLO). Were samples independent, the hits of a block of slots would
//! scatter about the common share with binomial variance. φ is how many times that variance they
//! have, the largest of three block lengths because load moves on each of them, times 1.25 for
//! what an hour has not yet shown. A test divides its evidence by φ.
//! A stream whose scatter is within what chance gives independent samples has φ = 1: taxing it
//! would only make every detection slower.
//! While there are too few blocks of one length, their scatter is taken to be that of the next
//! shorter ones, times what load that moves over a minute makes of it.
//! A violation must not excuse itself: a window is judged with the φ known some time before it
//! began, and slots found to be a violation are forgotten.
//! Bounds: one hour of slots, and of φ by the minute, or by 15 s for the first ten minutes.

use std::collections::VecDeque;

use super::slot::Slot;

/// Slots of history.
const HISTORY: usize = 720;

/// Lengths of blocks, slots: 5 s, 1 min, 5 min.
const BLOCKS: [usize; 3] = [1, 12, 60];

/// What is added for what the history has not shown.
const SAFETY: f64 = 1.25;

/// Fewest blocks from which a scatter is estimated.
const BLOCKS_MIN: usize = 4;

/// Blocks of one length that make the guess from shorter ones needless.
const BLOCKS_FULL: usize = 6;

/// What a scatter beyond chance is multiplied by to guess that of the next longer blocks.
const LONGER: [f64; 2] = [4.0, 2.0];

/// Slots of history before which a stream is new: 10 min.
const NEW: i64 = 120;

/// The part of its history by which a window is judged with older knowledge than its beginning: a
/// violation shows in the scatter before it shows in a window.
const LAG_PART: i64 = 16;

/// Standard errors by which a scatter must exceed 1 before it counts.
const CHANCE_Z: f64 = 3.0;

/// Slots between two estimates: one minute, and 15 s while the stream is new.
const REFRESH: i64 = 12;
const REFRESH_NEW: i64 = 3;

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
    /// The first slot of the history, which ends with an hour of silence.
    first: Option<i64>,
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
        let first = self.tallies.front().map(|tally| tally.slot);
        self.first = first.map(|first| self.first.map_or(first, |known| known.min(first)));
        let refresh = if self.is_new(slot) { REFRESH_NEW } else { REFRESH };
        if slot.0.rem_euclid(refresh) == refresh - 1 {
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

    /// Whether at `slot` there was too little history to know how the stream scatters.
    pub fn is_new(&self, slot: Slot) -> bool {
        self.history(slot) < NEW
    }

    /// The share of hits in the whole history; `None` without one.
    pub fn share(&self) -> Option<f64> {
        let (trials, hits) = self.sums();
        (trials > 0).then(|| hits as f64 / trials as f64)
    }

    /// φ as it was known a sixteenth of the history before `slot`; 1 where nothing was.
    pub fn before(&self, slot: Slot) -> f64 {
        let lagging = slot.0 - self.history(slot).min(HISTORY as i64) / LAG_PART;
        let after = self.known.partition_point(|(from, _)| *from <= lagging);
        after.checked_sub(1).map_or(1.0, |at| self.known[at].1)
    }

    /// φ as known now.
    pub fn now(&self) -> f64 {
        self.known.back().map_or(1.0, |(_, phi)| *phi)
    }

    /// Slots of history before `slot`.
    fn history(&self, slot: Slot) -> i64 {
        self.first.map_or(0, |first| slot.0.saturating_sub(first).max(0))
    }

    fn sums(&self) -> (u64, u64) {
        self.tallies.iter().fold((0, 0), |(trials, hits), tally| {
            (tally.trials.saturating_add(trials), tally.hits.saturating_add(hits))
        })
    }

    fn estimate(&self) -> f64 {
        let (trials, hits) = self.sums();
        let share = hits as f64 / trials as f64;
        if !(share > 0.0 && share < 1.0) {
            return 1.0;
        }
        let scatters = BLOCKS.map(|length| self.scatter(length, trials as f64, share));
        if !scatters.iter().any(|scatter| scatter.beyond_chance()) {
            return 1.0;
        }
        let longer = scatters.windows(2).zip(LONGER).map(|(pair, times)| {
            let guess = pair[0].beyond_chance() && pair[1].blocks < BLOCKS_FULL;
            if guess { 1.0 + times * (pair[0].mean - 1.0) } else { 0.0 }
        });
        let largest = scatters.iter().map(|scatter| scatter.mean).chain(longer).fold(0.0, f64::max);
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
    fn a_stream_is_new_for_ten_minutes_and_again_after_an_hour_without_trials() {
        let mut dispersion = Dispersion::default();
        assert!(dispersion.is_new(Slot(1_000)));
        assert_eq!(dispersion.share(), None);
        for slot in 7..200 {
            dispersion.push(Slot(slot), 50, 10);
        }
        assert!(dispersion.is_new(Slot(7 + NEW - 1)));
        assert!(!dispersion.is_new(Slot(7 + NEW)));
        assert_eq!(dispersion.share(), Some(0.2));
        dispersion.push(Slot(200 + HISTORY as i64), 0, 0);
        assert!(dispersion.is_new(Slot(200 + HISTORY as i64)));
        assert_eq!(dispersion.share(), None);
    }

    #[test]
    fn while_long_blocks_are_few_they_are_taken_to_scatter_more_than_short_ones() {
        let mut dispersion = Dispersion::default();
        for slot in 0..24_i64 {
            dispersion.push(Slot(slot), 50, if slot % 2 == 0 { 0 } else { 20 });
        }
        // Slots are off by 10 where chance is off by 2.8; minutes are all alike, and only two.
        let slots = dispersion.scatter(1, 24.0 * 50.0, 0.2).mean;
        let expected = SAFETY * (1.0 + LONGER[0] * (slots - 1.0));
        assert!(slots > 10.0, "{slots}");
        assert!((dispersion.now() - expected).abs() < 1e-9, "{} {expected}", dispersion.now());
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
