//! A histogram that is kept: counts of many windows, stored as one block.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use lens_hist::block::{self, BlockRef};
use lens_hist::{Counts, PagedCounts, Sparse};
use serde::{Deserialize, Serialize};

/// Counts of many windows.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Histogram(PagedCounts);

impl From<String> for Histogram {
    fn from(text: String) -> Self {
        let mut pages = PagedCounts::new();
        let bytes = STANDARD_NO_PAD.decode(text).unwrap_or_default();
        if let Ok((block, _)) = BlockRef::parse(&bytes) {
            block.merge_into(&mut pages);
        }
        Self(pages)
    }
}

impl From<Histogram> for String {
    fn from(histogram: Histogram) -> Self {
        let mut bytes = Vec::new();
        block::encode(&histogram.to_sparse(), &mut bytes);
        STANDARD_NO_PAD.encode(bytes)
    }
}

impl PartialEq for Histogram {
    fn eq(&self, other: &Self) -> bool {
        self.to_sparse() == other.to_sparse()
    }
}

impl Histogram {
    /// Adds a window.
    pub fn add(&mut self, counts: &Sparse) {
        self.0.merge_sparse(counts);
    }

    /// Samples counted.
    pub fn n(&self) -> u64 {
        self.0.total()
    }

    /// The non-zero counts.
    pub fn to_sparse(&self) -> Sparse {
        self.0.to_sparse()
    }

    /// All counts.
    pub fn to_counts(&self) -> Counts {
        let mut counts = Counts::new();
        self.0.merge_into(&mut counts);
        counts
    }

    /// The middle of the bucket in which the `p`-quantile lies, nanoseconds; `None` when fewer than
    /// `beyond_min` samples are expected beyond it.
    #[allow(clippy::cast_precision_loss)]
    pub fn quantile(&self, p: f64, beyond_min: f64) -> Option<f64> {
        let n = self.n() as f64;
        if n * (1.0 - p) < beyond_min {
            return None;
        }
        let mut below = 0_u64;
        let counts = self.to_sparse();
        let found = counts.entries().iter().find(|(_, count)| {
            below = below.saturating_add(*count);
            below as f64 >= p * n
        });
        found.map(|(index, _)| (lens_hist::layout::mid(usize::from(*index)) as f64).max(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_comes_back_from_its_stored_form_and_damage_is_nothing() {
        let mut histogram = Histogram::default();
        histogram.add(&(1..1_000_u64).map(|i| i * 1_000).collect());
        let stored = serde_json::to_string(&histogram).unwrap();
        assert_eq!(serde_json::from_str::<Histogram>(&stored).unwrap(), histogram);
        assert_eq!(serde_json::from_str::<Histogram>("\"???\"").unwrap().n(), 0);
        let p50 = histogram.quantile(0.5, 20.0).unwrap();
        assert!((p50 / 500_000.0 - 1.0).abs() < 0.01, "{p50}");
        assert_eq!(histogram.quantile(0.99, 20.0), None);
    }
}
