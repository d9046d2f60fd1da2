//! An open window's histogram: pages of 64 counters, allocated when first counted in.
//!
//! A busy 5 s slot touches some 15 of 61 pages, and a page has 32-bit counters, so this is an
//! eighth of the dense form; what merging costs is mostly the cache lines it touches. The page is
//! the unit in which blocks are decoded. Closed slots are kept as blocks ([`crate::block`]).
//! The samples in the pages are summed: no counter exceeds their sum, so a block is added without
//! a check for each counter. What the sum has no room for moves to a dense histogram beside them.

use crate::counts::Counts;
use crate::layout::{OVERFLOW, SLOTS};
use crate::sparse::Sparse;

/// Counters of one page.
pub(crate) const PAGE: usize = 64;

/// Pages of one histogram, the last one holding only the overflow counter.
pub(crate) const PAGES: usize = SLOTS.div_ceil(PAGE);

const ABSENT: u8 = u8::MAX;

/// A histogram that allocates by page of 64 counters.
#[derive(Clone, Debug)]
pub struct PagedCounts {
    place: [u8; PAGES],
    pages: Vec<[u32; PAGE]>,
    /// Samples in the pages.
    paged: u32,
    /// The counts of earlier samples, once there were 2^32.
    spilled: Option<Counts>,
}

impl Default for PagedCounts {
    fn default() -> Self {
        Self { place: [ABSENT; PAGES], pages: Vec::new(), paged: 0, spilled: None }
    }
}

impl PagedCounts {
    /// An empty histogram; no page is allocated yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Announces `more` samples that follow through [`PagedCounts::page_mut`] or
    /// [`PagedCounts::bump`]. False when they alone are too many for a page's counters.
    #[inline]
    pub(crate) fn make_room(&mut self, more: u64) -> bool {
        let Ok(more) = u32::try_from(more) else { return false };
        self.paged = match self.paged.checked_add(more) {
            Some(paged) => paged,
            None => {
                self.spill();
                more
            }
        };
        true
    }

    /// Moves all counts of the pages into the dense histogram.
    #[cold]
    fn spill(&mut self) {
        let mut dense = self.spilled.take().unwrap_or_default();
        self.pages_into(&mut dense);
        self.pages.iter_mut().for_each(|page| page.fill(0));
        (self.paged, self.spilled) = (0, Some(dense));
    }

    /// The page numbered `page`, allocated if it was not there. Pages from `PAGES` on are the last.
    #[inline]
    pub(crate) fn page_mut(&mut self, page: usize) -> &mut [u32; PAGE] {
        let place = &mut self.place[page.min(PAGES - 1)];
        if *place == ABSENT {
            #[allow(clippy::cast_possible_truncation)]
            let next = self.pages.len() as u8;
            *place = next;
            self.pages.push([0; PAGE]);
        }
        &mut self.pages[usize::from(*place)]
    }

    /// Counts `count` samples that [`PagedCounts::make_room`] announced.
    #[inline]
    pub(crate) fn bump(&mut self, index: usize, count: u32) {
        let index = index.min(OVERFLOW);
        let slot = &mut self.page_mut(index / PAGE)[index % PAGE];
        *slot = slot.wrapping_add(count);
    }

    /// Adds `count` at a counter; indices from `SLOTS` on count as overflow.
    #[inline]
    pub fn add(&mut self, index: usize, count: u64) {
        match u32::try_from(count) {
            Ok(few) if self.make_room(count) => self.bump(index, few),
            _ => self.spilled.get_or_insert_default().add(index, count),
        }
    }

    /// Adds the counts of a sparse histogram.
    pub fn merge_sparse(&mut self, other: &Sparse) {
        for &(index, count) in other.entries() {
            self.add(usize::from(index), count);
        }
    }

    /// Adds these counts to a dense histogram.
    pub fn merge_into(&self, dense: &mut Counts) {
        self.pages_into(dense);
        if let Some(spilled) = &self.spilled {
            dense.merge(spilled);
        }
    }

    /// The non-zero counters in order.
    pub fn to_sparse(&self) -> Sparse {
        if let Some(spilled) = &self.spilled {
            let mut dense = spilled.clone();
            self.pages_into(&mut dense);
            return dense.to_sparse();
        }
        let mut sparse = Sparse::new();
        for (page, counts) in self.present() {
            for (at, &count) in counts.iter().enumerate() {
                sparse.push((page * PAGE + at).min(OVERFLOW), u64::from(count));
            }
        }
        sparse
    }

    /// The sum of all counts.
    pub fn total(&self) -> u64 {
        let spilled = self.spilled.as_ref().map_or(0, Counts::total);
        spilled.saturating_add(u64::from(self.paged))
    }

    fn pages_into(&self, dense: &mut Counts) {
        for (page, counts) in self.present() {
            for (at, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
                dense.add(page * PAGE + at, u64::from(count));
            }
        }
    }

    fn present(&self) -> impl Iterator<Item = (usize, &[u32; PAGE])> {
        let places = self.place.iter().enumerate();
        places
            .filter(|(_, place)| **place != ABSENT)
            .map(|(page, &place)| (page, &self.pages[usize::from(place)]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_paged_histogram_holds_what_a_dense_one_does(
            values in prop::collection::vec(
                (0_usize..SLOTS, prop_oneof![
                    4 => 1_u64..1_000_000,
                    1 => (1_u64 << 30)..(1 << 33),
                    1 => (u64::MAX - 9)..,
                ]),
                0..300,
            ),
        ) {
            let mut paged = PagedCounts::new();
            let mut dense = Counts::new();
            for (index, count) in values {
                paged.add(index, count);
                dense.add(index, count);
            }
            let mut merged = Counts::new();
            paged.merge_into(&mut merged);
            prop_assert_eq!(&merged, &dense);
            prop_assert_eq!(paged.to_sparse(), dense.to_sparse());
            prop_assert_eq!(paged.total(), dense.total());
        }
    }
}
