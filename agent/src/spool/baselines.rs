//! How far each segment has been read, rebuilt from a snapshot and what came after it.

use std::collections::BTreeMap;

use lens_hist::layout::SLOTS;
use lens_segment::{Baseline, BlockBaseline};

/// The counters of one segment's blocks and request counters.
#[derive(Clone, Debug, Default)]
struct Counters {
    /// By series and shard.
    blocks: BTreeMap<(u16, u16), Vec<u32>>,
    requests: Vec<[u64; 2]>,
}

/// Baselines of segments, by incarnation.
#[derive(Clone, Debug, Default)]
pub(super) struct Baselines(BTreeMap<u128, Counters>);

impl Baselines {
    /// Adds what a counter grew by, modulo 2^32.
    pub(super) fn grow(&mut self, segment: u128, block: (u16, u16), slot: usize, count: u64) {
        let counters = self.0.entry(segment).or_default();
        let block = counters.blocks.entry(block).or_insert_with(|| vec![0; SLOTS]);
        if let Some(counter) = block.get_mut(slot) {
            #[allow(clippy::cast_possible_truncation)]
            let more = count as u32;
            *counter = counter.wrapping_add(more);
        }
    }

    /// Adds what a request counter grew by.
    pub(super) fn grow_requests(&mut self, segment: u128, index: u16, grown: [u64; 2]) {
        let requests = &mut self.0.entry(segment).or_default().requests;
        let index = usize::from(index);
        if requests.len() <= index {
            requests.resize(index + 1, [0; 2]);
        }
        for (counter, more) in requests[index].iter_mut().zip(grown) {
            *counter = counter.wrapping_add(more);
        }
    }

    /// Notes that a segment was read, if nothing else of it is known.
    pub(super) fn touch(&mut self, segment: u128) {
        self.0.entry(segment).or_default();
    }

    /// Forgets a segment.
    pub(super) fn forget(&mut self, segment: u128) {
        self.0.remove(&segment);
    }

    /// All of them, as readers take them.
    pub(super) fn into_exports(self) -> BTreeMap<u128, Baseline> {
        self.0.into_iter().map(|(segment, counters)| (segment, counters.export(segment))).collect()
    }
}

impl Counters {
    fn export(self, incarnation: u128) -> Baseline {
        let blocks = self.blocks.into_iter().map(|((series, shard), counters)| {
            let slots = (0_u16..).zip(counters).filter(|(_, count)| *count != 0);
            BlockBaseline { series, shard, counters: slots.collect() }
        });
        Baseline { incarnation, blocks: blocks.collect(), requests: self.requests }
    }
}
