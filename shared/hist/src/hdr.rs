//! To and from the `hdrhistogram` crate, count for count.

use hdrhistogram::Histogram;
use lens_model::limits::LATENCY_NANOS_MAX;
use thiserror::Error;

use crate::counts::Counts;
use crate::layout::{self, COUNTERS};

/// Why counts could not be taken from or put into an `hdrhistogram::Histogram`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HdrError {
    /// The histogram's buckets are not those of 2 significant digits from 1 ns, so its counts
    /// cannot be moved without guessing.
    #[error(
        "histogram has {digits} significant digits from {low} up: only 2 digits from 1 ns move exactly"
    )]
    Layout {
        /// Its significant digits.
        digits: u8,
        /// Its lowest discernible value.
        low: u64,
    },
    /// The library refused; the text is its own.
    #[error("hdrhistogram refused: {0}")]
    Library(String),
}

impl Counts {
    /// These counts as an `hdrhistogram` over 1 ns..2^36−1 ns with 2 digits.
    ///
    /// Overflowed samples have no bucket there: they are counted at the largest latency, and the
    /// caller who must know reads [`Counts::overflow`].
    ///
    /// # Errors
    /// [`HdrError::Library`] if the library refuses, which for this fixed layout it does not.
    pub fn to_hdr(&self) -> Result<Histogram<u64>, HdrError> {
        let library = |error: &dyn std::fmt::Display| HdrError::Library(error.to_string());
        let mut histogram =
            Histogram::new_with_bounds(1, LATENCY_NANOS_MAX, 2).map_err(|e| library(&e))?;
        for (index, &count) in self.slots().iter().enumerate().filter(|(_, n)| **n > 0) {
            let value = layout::low(index.min(COUNTERS - 1));
            histogram.record_n(value, count).map_err(|e| library(&e))?;
        }
        Ok(histogram)
    }

    /// Adds the counts of an `hdrhistogram` of this layout.
    ///
    /// # Errors
    /// [`HdrError::Layout`] when its buckets are others; its values above 2^36−1 ns overflow.
    pub fn merge_hdr(&mut self, histogram: &Histogram<u64>) -> Result<(), HdrError> {
        let (digits, low) = (histogram.sigfig(), histogram.low());
        if digits != 2 || low != 1 {
            return Err(HdrError::Layout { digits, low });
        }
        for step in histogram.iter_recorded() {
            let value = step.value_iterated_to();
            self.add(layout::index_of(value), step.count_since_last_iteration());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_layout_is_hdrhistograms_counter_for_counter() {
        let histogram = Histogram::<u64>::new_with_bounds(1, LATENCY_NANOS_MAX, 2).unwrap();
        assert_eq!(histogram.distinct_values(), COUNTERS);
        for index in 0..COUNTERS {
            let low = layout::low(index);
            assert_eq!(histogram.lowest_equivalent(low), low);
            assert_eq!(histogram.highest_equivalent(low), layout::high(index));
        }
    }

    proptest! {
        #[test]
        fn counts_move_to_hdrhistogram_and_back_unchanged(
            values in prop::collection::vec((0_u64..=LATENCY_NANOS_MAX, 1_u64..1_000), 0..200),
        ) {
            let mut ours = Counts::new();
            let mut theirs = Histogram::<u64>::new_with_bounds(1, LATENCY_NANOS_MAX, 2).unwrap();
            for (value, count) in values {
                ours.add(layout::index_of(value), count);
                theirs.record_n(value, count).unwrap();
            }
            prop_assert_eq!(&ours.to_hdr().unwrap(), &theirs);
            let mut back = Counts::new();
            back.merge_hdr(&theirs).unwrap();
            prop_assert_eq!(back, ours);
        }
    }

    #[test]
    fn a_histogram_of_other_precision_is_refused() {
        let three = Histogram::<u64>::new_with_bounds(1, LATENCY_NANOS_MAX, 3).unwrap();
        let error = Counts::new().merge_hdr(&three).unwrap_err();
        assert_eq!(error, HdrError::Layout { digits: 3, low: 1 });
    }
}
