//! Windows of every dyadic width over a stream of slots: 10 s, 20 s, … 2,560 s.
//!
//! A window is two neighbouring blocks of half its width, aligned to that half, so that windows of
//! one width overlap by half and any change of that length is at least three quarters inside one.
//! Two blocks that begin at an even place are themselves a block of the next width: every slot is
//! merged about twice, whatever the number of widths, and nothing is ever subtracted.
//! Bounds: one block a width is kept, at most [`SCALES`] of them.

use lens_hist::Sparse;

use super::slot::{SLOT, Slot};

/// Widths of windows.
pub const SCALES: usize = 9;

/// The width of a window, as a power of two of the narrowest, 10 s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scale(usize);

impl Scale {
    /// Every width, the narrowest first.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> {
        (0..SCALES).map(Self)
    }

    /// Its place among them, from 0.
    pub const fn index(self) -> usize {
        self.0
    }

    /// Slots of one window.
    pub const fn slots(self) -> i64 {
        2 << self.0
    }

    /// Seconds of one window.
    pub fn secs(self) -> f64 {
        self.slots() as f64 * SLOT.as_secs_f64()
    }
}

/// One window: everything recorded in `scale.slots()` slots up to and with `last`.
#[derive(Debug)]
pub struct Window<'a> {
    /// Its width.
    pub scale: Scale,
    /// Its last slot.
    pub last: Slot,
    /// Its counts.
    pub counts: &'a Sparse,
}

impl Window<'_> {
    /// Its first slot.
    pub const fn first(&self) -> Slot {
        Slot(self.last.0 + 1 - self.scale.slots())
    }
}

/// The blocks from which the next windows are made.
#[derive(Clone, Debug, Default)]
pub struct Pyramid {
    /// For each width, the last whole block of half of it and its place.
    halves: [Option<(i64, Sparse)>; SCALES],
}

impl Pyramid {
    /// Takes in the counts of the next slot and calls `each` with the windows that end with it,
    /// the narrowest first. A slot that was left out counts as empty.
    pub fn push(&mut self, slot: Slot, counts: Sparse, mut each: impl FnMut(&Window<'_>)) {
        let mut block = counts;
        for scale in Scale::all() {
            let place = slot.0 >> scale.0;
            let half = &mut self.halves[scale.0];
            let before = half.take().filter(|(at, _)| *at == place - 1);
            let merged = match &before {
                Some((_, before)) => Sparse::sum(before, &block),
                None => block.clone(),
            };
            each(&Window { scale, last: slot, counts: &merged });
            *half = Some((place, block));
            // The next width's block is whole only with a second half at an odd place.
            if place & 1 == 0 {
                return;
            }
            block = merged;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(slot: i64) -> Sparse {
        let mut counts = Sparse::new();
        counts.push(usize::try_from(slot.rem_euclid(3_000)).unwrap(), 1);
        counts
    }

    #[test]
    fn every_width_is_seen_twice_a_window_and_holds_its_own_slots() {
        let first = -1_024;
        let mut pyramid = Pyramid::default();
        let mut seen = [0; SCALES];
        for slot in first..1_024 {
            pyramid.push(Slot(slot), one(slot), |window| {
                assert_eq!(window.last, Slot(slot));
                seen[window.scale.index()] += 1;
                let from = window.first().0.max(first);
                let expected: Sparse =
                    (from..=slot).map(one).fold(Sparse::new(), |a, b| Sparse::sum(&a, &b));
                assert_eq!(*window.counts, expected, "{window:?}");
            });
        }
        for scale in Scale::all() {
            assert_eq!(seen[scale.index()], 2_048 / (scale.slots() / 2), "{scale:?}");
        }
    }

    #[test]
    fn slots_left_out_are_empty() {
        let mut pyramid = Pyramid::default();
        pyramid.push(Slot(0), one(0), |_| {});
        pyramid.push(Slot(7), one(7), |window| assert_eq!(window.counts.total(), 1, "{window:?}"));
    }
}
