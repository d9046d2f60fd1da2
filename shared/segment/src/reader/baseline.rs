//! A reader's baseline as plain data: what a durable spool stores beside a delta.
//!
//! Promise: a reader that imports what another exported yields exactly what came after it.

use lens_hist::Sparse;
use lens_model::limits::SEGMENT_REQUESTS_MAX;

use super::diff::{Counters, grown};
use super::{BlockState, SegmentReader};

/// What a reader has taken from a segment so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Baseline {
    /// The segment it belongs to.
    pub incarnation: u128,
    /// Blocks that hold counts.
    pub blocks: Vec<BlockBaseline>,
    /// Ok and error counts of each request counter, in order of registration.
    pub requests: Vec<[u64; 2]>,
}

/// The counters of one block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockBaseline {
    /// The series, by order of registration.
    pub series: u16,
    /// The shard.
    pub shard: u16,
    /// Index and value of the non-zero counters, ascending.
    pub counters: Vec<(u16, u32)>,
}

/// Why a baseline does not fit a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// It is another segment's.
    #[error("the baseline is of segment {theirs:032x}, this is {ours:032x}")]
    Incarnation {
        /// The baseline's segment.
        theirs: u128,
        /// This segment.
        ours: u128,
    },
    /// It names a series, shard, counter or request counter that this segment cannot have.
    #[error("the baseline names a place that the segment does not have")]
    Place,
}

impl SegmentReader {
    /// What has been committed.
    pub fn baseline_export(&self) -> Baseline {
        self.export(|block| block.committed.as_deref(), &self.requests_committed)
    }

    /// What would be committed now: the last harvest's end, to be stored together with its delta.
    pub fn pending_export(&self) -> Baseline {
        self.export(
            |block| block.pending.as_deref().or(block.committed.as_deref()),
            &self.requests_pending,
        )
    }

    /// What the last harvest would add to the baseline, block by block, in order of series and
    /// shard: `each` is given both, and how much each counter grew.
    ///
    /// The sum over the shards of a series is what the harvest gave for it.
    pub fn pending_growth(&self, mut each: impl FnMut(u16, u16, &Sparse)) {
        let shards = self.geometry.shards();
        let mut counts = Sparse::new();
        for &place in &self.pending {
            let block = &self.blocks[place];
            let Some(new) = block.pending.as_deref() else { continue };
            counts.clear();
            grown(new, block.committed.as_deref(), &mut counts);
            let (series, shard) = (u16::try_from(place / shards), u16::try_from(place % shards));
            if let (Ok(series), Ok(shard), false) = (series, shard, counts.is_empty()) {
                each(series, shard, &counts);
            }
        }
    }

    fn export(
        &self,
        of: impl Fn(&BlockState) -> Option<&Counters>,
        requests: &[[u64; 2]],
    ) -> Baseline {
        let shards = self.geometry.shards();
        let blocks = self.blocks.iter().enumerate().filter_map(|(place, block)| {
            let counters = of(block)?.non_zero();
            let series = u16::try_from(place / shards).ok()?;
            let shard = u16::try_from(place % shards).ok()?;
            (!counters.is_empty()).then_some(BlockBaseline { series, shard, counters })
        });
        Baseline {
            incarnation: self.info.incarnation,
            blocks: blocks.collect(),
            requests: requests.to_vec(),
        }
    }

    /// Takes up where another reader left off. Replaces the baseline and forgets a harvest that
    /// was not committed.
    ///
    /// # Errors
    /// [`ImportError`]: the baseline is not of this segment. Nothing changes then.
    pub fn baseline_import(&mut self, baseline: &Baseline) -> Result<(), ImportError> {
        let (ours, theirs) = (self.info.incarnation, baseline.incarnation);
        if ours != theirs {
            return Err(ImportError::Incarnation { theirs, ours });
        }
        if baseline.requests.len() > SEGMENT_REQUESTS_MAX {
            return Err(ImportError::Place);
        }
        let (shards, series_max) = (self.geometry.shards(), self.geometry.series_max());
        let mut blocks = Vec::new();
        blocks.resize_with(self.blocks.len(), BlockState::default);
        for block in &baseline.blocks {
            let (series, shard) = (usize::from(block.series), usize::from(block.shard));
            if series >= series_max || shard >= shards {
                return Err(ImportError::Place);
            }
            let mut counters = Counters::boxed();
            if !block.counters.iter().all(|(at, count)| counters.set(*at, *count)) {
                return Err(ImportError::Place);
            }
            let place = series * shards + shard;
            if blocks.len() <= place {
                blocks.resize_with(place + 1, BlockState::default);
            }
            blocks[place].committed = Some(counters);
        }
        self.pending.clear();
        self.blocks = blocks;
        self.requests_committed.clone_from(&baseline.requests);
        let known = self.requests.len().max(baseline.requests.len());
        self.requests_committed.resize(known, [0; 2]);
        self.requests_pending.clone_from(&self.requests_committed);
        Ok(())
    }
}
