//! One harvest: live line, new entries, blocks, request counters, gauges, plausibility.

use std::sync::Arc;

use lens_model::Nanos;
use lens_model::limits::{SEGMENT_GAUGES_MAX, SEGMENT_REQUESTS_MAX};

use super::diff::{Counters, changed, settle, whole};
use super::fault::{Fault, HarvestError, Quarantine};
use super::found::{GaugeReading, Harvest, RequestsDelta, SeriesDelta};
use super::open::read_exact;
use super::{BlockState, RequestsState, SegmentReader};
use crate::bytes::get_u64;
use crate::entry::{
    EntryFault, GAUGE_VALUE, REQUESTS_ERROR, REQUESTS_OK, decode_gauge, decode_requests,
    decode_series,
};
use crate::exemplar::{self, ExemplarReading, Found, RING_BYTES};
use crate::header::{Live, STATE_BUILDING, STATE_CLOSED};
use crate::layout::{GAUGE_ENTRY_BYTES, Geometry, REQUESTS_ENTRY_BYTES, SERIES_ENTRY_BYTES, at};
use crate::protocol::length_was_read;

/// Buffers kept for the next harvest: one MiB.
pub(super) const POOL_MAX: usize = 64;
/// Reads of one block before a counter that seems to go back is believed to.
const ATTEMPTS: usize = 3;
/// Records one thread can make in a nanosecond, generously: 0.6 ns each was measured at 3.5 GHz.
const RECORDS_PER_NANO_MAX: u64 = 4;
/// Allowed beyond the elapsed time: what happened between the caller's clock and our read.
const GRACE: Nanos = Nanos::from_secs(1);
/// Half a counter's range at a million records a second in one counter of one thread: beyond this
/// between two harvests, a counter may have gone around unnoticed.
const WRAP_AFTER: Nanos = Nanos((1 << 31) * 1_000);

impl SegmentReader {
    /// Fills `out` with what was counted since the committed baseline, and does not move it.
    ///
    /// `elapsed` is the time since the last commit, or since [`super::SegmentInfo::created`]
    /// before the first: more counts than it allows quarantine the segment. Never waits.
    ///
    /// # Errors
    /// [`HarvestError::Quarantined`] from the first senseless finding on, for good;
    /// [`HarvestError::Io`] when a read failed, after which the next harvest may succeed. `out`
    /// is empty in both cases.
    pub fn harvest(&mut self, elapsed: Nanos, out: &mut Harvest) -> Result<(), HarvestError> {
        out.clear();
        self.forget_pending();
        let result = match self.quarantined {
            Some(why) => Err(why.into()),
            None => self.take(elapsed, out),
        };
        result.map_err(|fault| {
            out.clear();
            self.forget_pending();
            self.accumulator.clear();
            match fault {
                Fault::Senseless(why) => {
                    self.quarantined = Some(why);
                    HarvestError::Quarantined { path: self.path.clone(), why }
                }
                Fault::Io(source) => HarvestError::Io { path: self.path.clone(), source },
            }
        })
    }

    fn forget_pending(&mut self) {
        for place in self.pending.drain(..) {
            self.pool.extend(self.blocks[place].pending.take());
        }
        self.pool.truncate(POOL_MAX);
        self.requests_pending.clone_from(&self.requests_committed);
    }

    fn take(&mut self, elapsed: Nanos, out: &mut Harvest) -> Result<(), Fault> {
        let live = self.read_live()?;
        self.read_new_entries(live)?;
        self.live = live;
        out.closed = live.state == STATE_CLOSED;
        out.wrap_possible = elapsed > WRAP_AFTER;
        self.read_blocks(out)?;
        let window = elapsed.0.saturating_add(GRACE.0).saturating_mul(RECORDS_PER_NANO_MAX);
        let ceiling = window.saturating_mul(u64::from(live.shards_used.count_ones()));
        plausible(out.records, ceiling)?;
        self.read_requests(out)?;
        for delta in &out.requests {
            plausible(delta.ok.saturating_add(delta.error), window)?;
        }
        self.read_gauges(out)?;
        self.read_exemplars(out)
    }

    /// The line that changes, compared with what it was.
    fn read_live(&self) -> Result<Live, Fault> {
        let mut line = [0; at::LIVE_BYTES];
        read_exact(&self.file, &mut line, at::LIVE)?;
        length_was_read();
        let (live, before) = (Live::decode(&line), self.live);
        let Live { state, shards_used: mask, .. } = live;
        if state == STATE_BUILDING || state > STATE_CLOSED || state < before.state {
            return Err(Quarantine::State { state }.into());
        }
        let lengths = [
            ("series", live.series, before.series, self.geometry.series_max()),
            ("request", live.requests, before.requests, SEGMENT_REQUESTS_MAX),
            ("gauge", live.gauges, before.gauges, SEGMENT_GAUGES_MAX),
        ];
        for (table, length, before, limit) in lengths {
            if length < before || length as usize > limit {
                return Err(Quarantine::Length { table, length, before, limit }.into());
            }
        }
        let beyond = !(u64::MAX >> (64 - self.geometry.shards()));
        if mask & beyond != 0 || mask & before.shards_used != before.shards_used {
            return Err(Quarantine::Shards { mask, before: before.shards_used }.into());
        }
        Ok(live)
    }

    /// Entries published since the last look. Read once: later changes to them have no effect.
    fn read_new_entries(&mut self, live: Live) -> Result<(), Fault> {
        for index in self.catalogue.len()..live.series as usize {
            let mut entry = [0; SERIES_ENTRY_BYTES];
            read_exact(&self.file, &mut entry, Geometry::series_entry(index))?;
            let key = decode_series(&entry).map_err(refused("series", index))?;
            if self.catalogue.iter().any(|known| **known == key) {
                return Err(Quarantine::Repeated { table: "series", index }.into());
            }
            self.catalogue.push(Arc::new(key));
        }
        for index in self.requests.len()..live.requests as usize {
            let mut entry = [0; REQUESTS_ENTRY_BYTES];
            read_exact(&self.file, &mut entry, self.geometry.requests_entry(index))?;
            let (slice, arm) = decode_requests(&entry).map_err(refused("request", index))?;
            if self.requests.iter().any(|known| known.slice == slice && known.arm == arm) {
                return Err(Quarantine::Repeated { table: "request", index }.into());
            }
            self.requests.push(RequestsState { slice, arm });
        }
        for index in self.gauges.len()..live.gauges as usize {
            let mut entry = [0; GAUGE_ENTRY_BYTES];
            read_exact(&self.file, &mut entry, self.geometry.gauge_entry(index))?;
            let name = decode_gauge(&entry).map_err(refused("gauge", index))?;
            if self.gauges.contains(&name) {
                return Err(Quarantine::Repeated { table: "gauge", index }.into());
            }
            self.gauges.push(name);
        }
        let blocks = self.catalogue.len() * self.geometry.shards();
        if self.blocks.len() < blocks {
            self.blocks.resize_with(blocks, BlockState::default);
        }
        for counts in [&mut self.requests_committed, &mut self.requests_pending] {
            if counts.len() < self.requests.len() {
                counts.resize(self.requests.len(), [0; 2]);
            }
        }
        Ok(())
    }

    fn read_blocks(&mut self, out: &mut Harvest) -> Result<(), Fault> {
        let (shards, used) = (self.geometry.shards(), self.live.shards_used);
        for series in 0..self.catalogue.len() {
            for shard in (0..shards).filter(|shard| used >> shard & 1 == 1) {
                self.read_block(series, shard)?;
            }
            let mut counts = out.spare.pop().unwrap_or_default();
            self.accumulator.drain(&mut counts);
            if counts.is_empty() {
                out.spare.push(counts);
                continue;
            }
            out.records = out.records.saturating_add(counts.total());
            let key = Arc::clone(&self.catalogue[series]);
            out.series.push(SeriesDelta { index: series, key, counts });
        }
        Ok(())
    }

    fn read_block(&mut self, series: usize, shard: usize) -> Result<(), Fault> {
        let place = series * self.geometry.shards() + shard;
        let offset = self.geometry.block_offset(series, shard);
        let block = &mut self.blocks[place];
        let old = block.committed.as_deref();
        let mut new = self.pool.pop().unwrap_or_else(Counters::boxed);
        for _ in 0..ATTEMPTS {
            read_exact(&self.file, new.bytes_mut(), offset)?;
            let mask = changed(&new, old);
            if mask == 0 {
                self.pool.push(new);
                return Ok(());
            }
            let whole = whole(mask, &new, old);
            if !whole {
                // Only the span that changed: half of a typical block.
                let (begin, span) = self.second.span_mut(mask);
                read_exact(&self.file, span, offset + begin)?;
            }
            if whole || settle(mask, &mut new, &self.second, old).is_ok() {
                self.accumulator.add(mask, &new, old);
                block.pending = Some(new);
                self.pending.push(place);
                return Ok(());
            }
        }
        Err(Quarantine::Backward { series, shard }.into())
    }

    fn read_requests(&mut self, out: &mut Harvest) -> Result<(), Fault> {
        let offset = self.geometry.requests_entry(0);
        let count = self.requests.len();
        let mut backward = 0;
        for _ in 0..ATTEMPTS {
            let bytes = count * REQUESTS_ENTRY_BYTES;
            self.read_table(0, offset, bytes)?;
            let unchanged = self.requests_committed.iter().enumerate().all(|(index, counts)| {
                let at = index * REQUESTS_ENTRY_BYTES;
                let now = |kind| get_u64(&self.tables[0], at + kind);
                *counts == [now(REQUESTS_OK), now(REQUESTS_ERROR)]
            });
            if unchanged {
                return Ok(());
            }
            self.read_table(1, offset, bytes)?;
            match self.requests_grown(out) {
                Ok(()) => return Ok(()),
                Err(index) => backward = index,
            }
        }
        Err(Quarantine::RequestsBackward { index: backward }.into())
    }

    /// Of both copies the smaller; an error names the counter that is below its baseline.
    fn requests_grown(&mut self, out: &mut Harvest) -> Result<(), usize> {
        out.requests.clear();
        for (index, known) in self.requests.iter().enumerate() {
            let entry = index * REQUESTS_ENTRY_BYTES;
            let committed = self.requests_committed[index];
            let mut grown = [0; 2];
            for (kind, at) in [REQUESTS_OK, REQUESTS_ERROR].into_iter().enumerate() {
                // As in `diff`: a copy torn below the baseline is a huge difference.
                let since = |table: &[u8]| get_u64(table, entry + at).wrapping_sub(committed[kind]);
                grown[kind] = since(&self.tables[0]).min(since(&self.tables[1]));
                if grown[kind] >> 63 != 0 {
                    return Err(index);
                }
                self.requests_pending[index][kind] = committed[kind].wrapping_add(grown[kind]);
            }
            let [ok, error] = grown;
            if ok != 0 || error != 0 {
                let slice = known.slice.clone();
                out.requests.push(RequestsDelta { index, slice, arm: known.arm, ok, error });
            }
        }
        Ok(())
    }

    fn read_gauges(&mut self, out: &mut Harvest) -> Result<(), Fault> {
        let offset = self.geometry.gauge_entry(0);
        for copy in 0..2 {
            self.read_table(copy, offset, self.gauges.len() * GAUGE_ENTRY_BYTES)?;
        }
        for (index, name) in self.gauges.iter().enumerate() {
            let at = index * GAUGE_ENTRY_BYTES + GAUGE_VALUE;
            let [one, two] = self.tables.each_ref().map(|table| get_u64(table, at));
            let value = f64::from_bits(one);
            // Not yet set, or set just now: the next harvest has it.
            if one == two && value.is_finite() {
                out.gauges.push(GaugeReading { name: name.clone(), value });
            }
        }
        Ok(())
    }

    /// Exemplars that are whole, new and of a series that is known.
    fn read_exemplars(&mut self, out: &mut Harvest) -> Result<(), Fault> {
        let mut ring = [0; RING_BYTES];
        read_exact(&self.file, &mut ring, at::EXEMPLARS)?;
        for (place, found) in exemplar::read(&ring) {
            let key = usize::try_from(found.series).ok().and_then(|at| self.catalogue.get(at));
            // One that was registered since the look at the lengths: the next harvest has it.
            let Some(key) = key else { continue };
            let taken = &mut self.exemplars_taken[place];
            if found.number > *taken {
                *taken = found.number;
                let Found { nanos, at, trace, .. } = found;
                out.exemplars.push(ExemplarReading { key: Arc::clone(key), nanos, at, trace });
            }
        }
        Ok(())
    }

    fn read_table(&mut self, copy: usize, offset: usize, bytes: usize) -> Result<(), Fault> {
        let table = &mut self.tables[copy];
        table.resize(bytes, 0);
        if bytes == 0 { Ok(()) } else { read_exact(&self.file, table, offset) }
    }
}

fn refused(table: &'static str, index: usize) -> impl FnOnce(EntryFault) -> Fault {
    move |fault| Quarantine::Entry { table, index, fault }.into()
}

fn plausible(counted: u64, ceiling: u64) -> Result<(), Fault> {
    if counted <= ceiling {
        Ok(())
    } else {
        Err(Quarantine::Implausible { counted, ceiling }.into())
    }
}
