//! Log records into rows: each once, in the order of its life, all in one transaction.
//!
//! A batch is first gathered in memory, so that ten deltas of one slot change its row once, and
//! then written in the order of the keys. Nothing outside the transaction changes until it is
//! durable, except names that were given a number, which mean nothing before a row uses them.

use std::collections::{BTreeMap, BTreeSet};

use lens_hist::PagedCounts;
use lens_hist::block::{self, BlockRef};
use lens_model::limits::EVENT_FUTURE_SECS_MAX;
use lens_model::{AgentName, Incarnation, Nanos, Sequence, UnixNanos};
use lens_service::planted::Planted;
use redb::{ReadableTable, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::rollup::{self, WIDTHS};
use super::tables::{
    AGENTS, LIFETIME, META, OUTCOME_TOTALS, OUTCOMES, READINGS, TOTALS, WATERMARKS, WINDOWS,
};
use super::{Coverage, Store, StoreError};
use crate::ingest::Life;
use crate::log::Record;
use crate::log::record::Body;
use crate::window::{Host, RequestCounts, Span};

/// After this long, with the planted mistake, a life is forgotten.
const FORGOTTEN_AFTER: Nanos = Nanos::from_secs(20);

/// One record as it was merged: what the windows in memory are to take over.
#[derive(Clone, Debug)]
pub struct Merge {
    /// The record.
    pub record: Record,
    /// The middle of its interval by the aggregator's clock.
    pub event: UnixNanos,
    /// Per histogram its series' number; `None`: left out.
    pub series: Vec<Option<u32>>,
    /// Per request counter its number.
    pub requests: Vec<Option<u32>>,
    /// Per gauge its number.
    pub gauges: Vec<Option<u32>>,
    /// What was left out, by reason.
    pub left_out: BTreeMap<&'static str, u64>,
    /// Samples merged.
    pub samples: u64,
    /// Whether its slot was older than the allowed lateness.
    pub late: bool,
}

/// What a durable batch changed.
#[derive(Debug, Default)]
pub struct Committed {
    /// Records merged, in order.
    pub merges: Vec<Merge>,
    /// How far each life that occurs in the batch is merged.
    pub watermarks: BTreeMap<Life, Sequence>,
    /// Records that had been merged before.
    pub duplicates: Vec<Life>,
    /// Records that came out of turn and were not merged: the life must send again.
    pub gaps: BTreeSet<Life>,
    /// Agents that changed.
    pub agents: BTreeMap<AgentName, KnownAgent>,
    /// Slices seen for the first time.
    pub slices: Vec<lens_model::Slice>,
}

/// An agent as the store knows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KnownAgent {
    /// Its identity, from its certificate.
    pub identity: String,
    /// The life of its last delta, as text.
    pub incarnation: String,
    /// Its last delta's number.
    pub acked: Sequence,
    /// When that arrived.
    pub last_delta: UnixNanos,
    /// Deltas merged.
    pub deltas: u64,
    /// Of them late.
    pub late: u64,
    /// Samples merged.
    pub samples: u64,
    /// Aggregator clock minus agent clock of the last delta, nanoseconds.
    pub clock_offset_nanos: i64,
    /// From the end of the last delta's interval to its arrival, nanoseconds.
    pub lag_nanos: u64,
    /// What it accounted for.
    pub coverage: Coverage,
}

type Rows<T> = BTreeMap<(u64, u32), T>;

/// Changes gathered before they are written.
#[derive(Debug, Default)]
struct Gathered {
    windows: [Rows<PagedCounts>; 3],
    outcomes: [Rows<RequestCounts>; 3],
    lifetime: BTreeMap<u32, PagedCounts>,
    totals: BTreeMap<u32, (u64, u64)>,
    outcome_totals: BTreeMap<u32, RequestCounts>,
    readings: BTreeMap<u32, (f64, u64)>,
    /// Sequence, time of arrival, and whether the life was known before.
    lives: BTreeMap<Life, (Sequence, UnixNanos, bool)>,
    /// Lives of each agent that are known since this batch.
    begun: BTreeMap<AgentName, u64>,
}

impl Store {
    /// Merges records that were read from the log, the position after the last of them being
    /// `next`. Durable when it returns.
    ///
    /// # Errors
    /// [`StoreError`]; then whether the batch is durable is not known and this store is of no
    /// further use.
    pub fn commit(
        &mut self,
        records: Vec<Record>,
        next: u64,
        now: UnixNanos,
    ) -> Result<Committed, StoreError> {
        let mut done = Committed::default();
        let mut gathered = Gathered::default();
        let write = self.begin()?;
        {
            let watermarks = write.open_table(WATERMARKS)?;
            let agents = write.open_table(AGENTS)?;
            for record in records {
                let life = (record.identity.agent.clone(), record.incarnation);
                if !gathered.lives.contains_key(&life) {
                    let row = watermarks.get((life.0.as_str(), life.1.0))?;
                    let known = row.is_some();
                    let (sequence, at) = row.map_or((0, 0), |row| row.value());
                    let max = self.place.config.lives_max;
                    let begun = gathered.begun.get(&life.0).copied().unwrap_or(0);
                    // Two connections may have begun when there was room for one: its agent resumes
                    // and is refused.
                    if !known && begun + super::lives(&watermarks, &life.0, max)? >= max {
                        done.gaps.insert(life);
                        continue;
                    }
                    gathered.lives.insert(life.clone(), (Sequence(sequence), UnixNanos(at), known));
                }
                if !done.agents.contains_key(&life.0) {
                    let row = agents.get(life.0.as_str())?;
                    let known = row.map(|row| serde_json::from_slice(row.value()));
                    let known = known.transpose().map_err(|_| StoreError::Row("agents"))?;
                    done.agents.insert(life.0.clone(), known.unwrap_or_default());
                }
                self.take(record, life, now, &mut gathered, &mut done);
            }
        }
        done.watermarks =
            gathered.lives.iter().map(|(life, (seq, ..))| (life.clone(), *seq)).collect();
        self.catalog.read().write(&write)?;
        let split = self.place.planted.contains(Planted::TwoTransactions);
        gathered.write(&write)?;
        let write = if split {
            write.commit()?;
            self.begin()?
        } else {
            write
        };
        gathered.write_lives(&write)?;
        {
            let mut table = write.open_table(AGENTS)?;
            for (name, agent) in &done.agents {
                let row = serde_json::to_vec(agent).map_err(io_error)?;
                table.insert(name.as_str(), row.as_slice())?;
            }
            write.open_table(META)?.insert("log_position", next)?;
        }
        write.commit()?;
        self.catalog.write().written();
        self.position = next;
        Ok(done)
    }

    /// Decides what becomes of one record, and gathers what it changes.
    fn take(
        &self,
        record: Record,
        life: Life,
        now: UnixNanos,
        gathered: &mut Gathered,
        done: &mut Committed,
    ) {
        let planted = |mistake| self.place.planted.contains(mistake);
        let Some((acked, at, known)) = gathered.lives.get_mut(&life) else { return };
        let Some(agent) = done.agents.get_mut(&life.0) else { return };
        let Some(body) = &record.body else {
            // Of a life that is over by now it says nothing.
            agent.coverage.left |= agent.incarnation == record.incarnation.to_string();
            return;
        };
        let forgotten =
            planted(Planted::DedupByTimeWindow) && record.received.since(*at) > FORGOTTEN_AFTER;
        let again = planted(Planted::NoDedup) || forgotten;
        if record.sequence <= *acked && !again {
            done.duplicates.push(life);
            return;
        }
        if record.sequence > acked.next() && !again && !planted(Planted::GapAccepted) {
            done.gaps.insert(life);
            return;
        }
        let first = !*known;
        *gathered.begun.entry(life.0.clone()).or_default() += u64::from(first);
        (*acked, *at, *known) = ((*acked).max(record.sequence), record.received, true);
        agent.take(&record, body, first);
        let merge = self.merge(record, now, gathered, &mut done.slices);
        agent.samples = agent.samples.saturating_add(merge.samples);
        agent.late += u64::from(merge.late);
        done.merges.push(merge);
    }

    /// Gives everything in a record its number and adds it to the rows it belongs in.
    fn merge(
        &self,
        record: Record,
        now: UnixNanos,
        gathered: &mut Gathered,
        slices: &mut Vec<lens_model::Slice>,
    ) -> Merge {
        let mut merge = Merge {
            event: record.received,
            series: Vec::new(),
            requests: Vec::new(),
            gauges: Vec::new(),
            left_out: BTreeMap::new(),
            samples: 0,
            late: false,
            record,
        };
        let Some(body) = &merge.record.body else { return merge };
        let middle = body.corrected_start().plus(Nanos(body.duration.0 / 2));
        let ahead = middle.since(merge.record.received) > Nanos::from_secs(EVENT_FUTURE_SECS_MAX);
        // Refusing it would hold up everything behind it for as long as the clock is wrong.
        merge.event = if ahead { merge.record.received } else { middle };
        if ahead {
            *merge.left_out.entry("times ahead of the clock, taken as now").or_default() += 1;
        }
        merge.late = now.since(merge.event) > self.place.config.lateness;
        let dropped = merge.late && self.place.planted.contains(Planted::LateDropped);
        let secs = merge.event.0 / 1_000_000_000;
        let mut catalog = self.catalog.write();
        let hosts: Vec<Option<u32>> = body
            .instances
            .iter()
            .map(|instance| {
                let agent = merge.record.identity.agent.clone();
                catalog.hosts.number(&Host { agent, instance: instance.name.clone() })
            })
            .collect();
        let admitted: Vec<bool> = body
            .slices
            .iter()
            .map(|slice| {
                let new = catalog.admit(slice);
                slices.extend((new == Some(true)).then(|| slice.clone()));
                new.is_some()
            })
            .collect();
        for histogram in &body.histograms {
            let (slice, stage, arm) =
                (body.slices[histogram.slice].clone(), histogram.stage, histogram.arm);
            let host = hosts[histogram.instance].filter(|_| admitted[histogram.slice]);
            let key = lens_model::SeriesKey { slice, stage, arm };
            let series = host.and_then(|host| catalog.series.number(&(host, key)));
            let series = series.filter(|_| !dropped);
            merge.series.push(series);
            let Some((block, _)) = BlockRef::known(&histogram.block) else { continue };
            match series {
                Some(number) => {
                    merge.samples += block.total();
                    self.place_block(gathered, secs, number, &block);
                    let total = gathered.totals.entry(number).or_default();
                    total.0 = total.0.saturating_add(block.total());
                    total.1 = total.1.max(merge.event.0);
                }
                None => {
                    let reason = "samples of slices, hosts or series past the cap";
                    *merge.left_out.entry(reason).or_default() += block.total();
                }
            }
        }
        for requests in &body.requests {
            let host = hosts[requests.instance];
            let key = (body.slices[requests.slice].clone(), requests.arm);
            let number = host.and_then(|host| catalog.requests.number(&(host, key)));
            if let Some(number) = number {
                let counts = RequestCounts { ok: requests.ok, error: requests.error };
                self.place_outcomes(gathered, secs, number, counts);
                gathered.outcome_totals.entry(number).or_default().add(counts);
            }
            merge.requests.push(number);
        }
        for gauge in &body.gauges {
            let host = hosts[gauge.instance];
            let name = gauge.name.as_str().into();
            let number = host.and_then(|host| catalog.gauges.number(&(host, name)));
            if let Some(number) = number {
                let held = gathered.readings.entry(number).or_insert((gauge.value, 0));
                if merge.event.0 >= held.1 {
                    *held = (gauge.value, merge.event.0);
                }
            }
            merge.gauges.push(number);
        }
        let missed = merge.requests.iter().chain(&merge.gauges).filter(|n| n.is_none()).count();
        if missed > 0 {
            merge.left_out.insert("requests or gauges past the cap", missed as u64);
        }
        merge
    }

    /// The resolutions whose rows a sample at this second belongs in: the finest, and the coarser
    /// ones where they have been rolled up to already; each only while it is kept.
    fn resolutions(&self, secs: u64) -> impl Iterator<Item = (usize, u64)> {
        let rolled =
            secs < self.rolled_to && !self.place.planted.contains(Planted::RollupMissesLate);
        let floors = self.floors;
        (0..3).filter_map(move |at| {
            let slot = rollup::slot(secs, WIDTHS[at]);
            (slot >= floors[at] && (at == 0 || rolled)).then_some((at, slot))
        })
    }

    fn place_block(&self, gathered: &mut Gathered, secs: u64, series: u32, block: &BlockRef<'_>) {
        for (at, slot) in self.resolutions(secs) {
            block.merge_into(gathered.windows[at].entry((slot, series)).or_default());
        }
        if secs < self.rolled_to && !self.place.planted.contains(Planted::RollupMissesLate) {
            block.merge_into(gathered.lifetime.entry(series).or_default());
        }
    }

    fn place_outcomes(
        &self,
        gathered: &mut Gathered,
        secs: u64,
        number: u32,
        counts: RequestCounts,
    ) {
        for (at, slot) in self.resolutions(secs) {
            gathered.outcomes[at].entry((slot, number)).or_default().add(counts);
        }
    }
}

impl KnownAgent {
    /// The life of its last delta.
    pub fn life(&self) -> Option<Incarnation> {
        u128::from_str_radix(&self.incarnation, 16).ok().map(Incarnation)
    }

    fn take(&mut self, record: &Record, body: &Body, first: bool) {
        let from = body.corrected_start();
        let to = from.plus(body.duration);
        self.coverage.cover(Span { from, to }, first, record.received);
        self.identity = record.identity.to_string();
        self.incarnation = record.incarnation.to_string();
        (self.acked, self.last_delta) = (record.sequence, record.received);
        self.deltas += 1;
        self.clock_offset_nanos = body.clock.offset_nanos;
        self.lag_nanos = record.received.since(to).0;
    }
}

impl Gathered {
    fn write(&self, write: &WriteTransaction) -> Result<(), StoreError> {
        let mut bytes = Vec::new();
        for (at, rows) in self.windows.iter().enumerate() {
            let mut table = write.open_table(WINDOWS[at])?;
            for (key, pages) in rows {
                add_block(&mut table, *key, pages, &mut bytes)?;
            }
        }
        let mut table = write.open_table(LIFETIME)?;
        for (series, pages) in &self.lifetime {
            add_block(&mut table, *series, pages, &mut bytes)?;
        }
        for (at, rows) in self.outcomes.iter().enumerate() {
            let mut table = write.open_table(OUTCOMES[at])?;
            rows.iter().try_for_each(|(key, counts)| add_outcomes(&mut table, *key, *counts))?;
        }
        let mut table = write.open_table(OUTCOME_TOTALS)?;
        for (number, counts) in &self.outcome_totals {
            add_outcomes(&mut table, *number, *counts)?;
        }
        let mut table = write.open_table(TOTALS)?;
        for (series, (more, last)) in &self.totals {
            let held = table.get(*series)?.map_or((0, 0), |row| row.value());
            table.insert(*series, (held.0.saturating_add(*more), held.1.max(*last)))?;
        }
        let mut table = write.open_table(READINGS)?;
        for (gauge, (value, at)) in &self.readings {
            let held = table.get(*gauge)?.map_or(0, |row| row.value().1);
            if *at >= held {
                table.insert(*gauge, (*value, *at))?;
            }
        }
        Ok(())
    }

    fn write_lives(&self, write: &WriteTransaction) -> Result<(), StoreError> {
        let mut table = write.open_table(WATERMARKS)?;
        for ((agent, life), (sequence, at, _)) in &self.lives {
            if sequence.0 > 0 {
                table.insert((agent.as_str(), life.0), (sequence.0, at.0))?;
            }
        }
        Ok(())
    }
}

fn io_error(error: serde_json::Error) -> StoreError {
    StoreError::Io(std::io::Error::other(error))
}

/// Adds counts to the block in a row.
pub(super) fn add_block<K: redb::Key + 'static>(
    table: &mut redb::Table<'_, K, &'static [u8]>,
    key: impl for<'k> std::borrow::Borrow<K::SelfType<'k>> + Copy,
    pages: &PagedCounts,
    bytes: &mut Vec<u8>,
) -> Result<(), StoreError> {
    let mut sum = None;
    if let Some(row) = table.get(key)? {
        let (block, _) = BlockRef::parse(row.value()).map_err(|_| StoreError::Row("windows"))?;
        let mut held = PagedCounts::new();
        block.merge_into(&mut held);
        held.merge_sparse(&pages.to_sparse());
        sum = Some(held);
    }
    bytes.clear();
    block::encode(&sum.as_ref().unwrap_or(pages).to_sparse(), bytes);
    table.insert(key, bytes.as_slice())?;
    Ok(())
}

/// Adds outcomes to a row.
pub(super) fn add_outcomes<K: redb::Key + 'static>(
    table: &mut redb::Table<'_, K, (u64, u64)>,
    key: impl for<'k> std::borrow::Borrow<K::SelfType<'k>> + Copy,
    counts: RequestCounts,
) -> Result<(), StoreError> {
    let (ok, error) = table.get(key)?.map_or((0, 0), |row| row.value());
    let mut sum = RequestCounts { ok, error };
    sum.add(counts);
    table.insert(key, (sum.ok, sum.error))?;
    Ok(())
}
