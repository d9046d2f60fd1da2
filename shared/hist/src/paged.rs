//! An open window's histogram: pages of 64 counters, allocated when first counted in.
//!
//! A busy 5 s slot touches some 15 of 61 pages, so this is a quarter of the dense form, and the
//! page is the unit in which blocks are decoded. Closed slots are kept as blocks ([`crate::block`]).
//! The sum of all counts is kept beside them: no counter exceeds it, so as long as it stays in
//! range a block is added without a check for each counter.

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
    pages: Vec<[u64; PAGE]>,
    total: u64,
}

impl Default for PagedCounts {
    fn default() -> Self {
        Self { place: [ABSENT; PAGES], pages: Vec::new(), total: 0 }
    }
}

impl PagedCounts {
    /// An empty histogram; no page is allocated yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Announces `more` samples that follow through [`PagedCounts::page_mut`]. False when their sum
    /// leaves 64 bits: then they are to go through [`PagedCounts::add`], which saturates.
    #[inline]
    pub(crate) fn make_room(&mut self, more: u64) -> bool {
        match self.total.checked_add(more) {
            Some(total) => self.total = total,
            None => return false,
        }
        true
    }

    /// The page numbered `page`, allocated if it was not there. Pages from `PAGES` on are the last.
    #[inline]
    pub(crate) fn page_mut(&mut self, page: usize) -> &mut [u64; PAGE] {
        let place = &mut self.place[page.min(PAGES - 1)];
        if *place == ABSENT {
            #[allow(clippy::cast_possible_truncation)]
            let next = self.pages.len() as u8;
            *place = next;
            self.pages.push([0; PAGE]);
        }
        &mut self.pages[usize::from(*place)]
    }

    /// Counts one sample that [`PagedCounts::make_room`] announced.
    #[inline]
    pub(crate) fn bump(&mut self, index: usize) {
        let index = index.min(OVERFLOW);
        let slot = &mut self.page_mut(index / PAGE)[index % PAGE];
        *slot = slot.wrapping_add(1);
    }

    /// Adds `count` at a counter; indices from `SLOTS` on count as overflow.
    #[inline]
    pub fn add(&mut self, index: usize, count: u64) {
        let index = index.min(OVERFLOW);
        self.total = self.total.saturating_add(count);
        let slot = &mut self.page_mut(index / PAGE)[index % PAGE];
        *slot = slot.saturating_add(count);
    }

    /// Adds the counts of a sparse histogram.
    pub fn merge_sparse(&mut self, other: &Sparse) {
        for &(index, count) in other.entries() {
            self.add(usize::from(index), count);
        }
    }

    /// Adds these counts to a dense histogram.
    pub fn merge_into(&self, dense: &mut Counts) {
        for (page, counts) in self.present() {
            for (at, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
                dense.add(page * PAGE + at, count);
            }
        }
    }

    /// The non-zero counters in order.
    pub fn to_sparse(&self) -> Sparse {
        let mut sparse = Sparse::new();
        for (page, counts) in self.present() {
            for (at, &count) in counts.iter().enumerate() {
                sparse.push((page * PAGE + at).min(OVERFLOW), count);
            }
        }
        sparse
    }

    /// The sum of all counts.
    pub const fn total(&self) -> u64 {
        self.total
    }

    fn present(&self) -> impl Iterator<Item = (usize, &[u64; PAGE])> {
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
            values in prop::collection::vec((0_usize..SLOTS, 1_u64..1_000_000), 0..300),
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
