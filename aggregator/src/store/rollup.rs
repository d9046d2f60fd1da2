//! Exact roll-up 5 s → 1 min → 1 h → lifetime, by addition, and what is no longer kept.
//!
//! One marker, `rolled_to`, a whole minute: every slot before it is contained in the minute's row,
//! the hour's row and the lifetime row of its series. A minute is rolled once it has left what
//! memory may hold: its 5 s rows are summed, and the sum is added to the three coarser rows
//! in the transaction that moves the marker. A delta that comes later than that is added to the 5 s
//! row and to all three. So at any moment the rows of a resolution before the marker, and 5 s rows
//! from it on, add up to everything ever merged in the time the resolution is kept, whatever the
//! order of arrival; and the lifetime row and the 5 s rows from the marker on to everything.
//! Rows that are older than their resolution is kept are removed a few at a time; `floor` says from
//! where a resolution is complete, and nothing is added before it.

use std::collections::BTreeMap;

use lens_hist::PagedCounts;
use lens_hist::block::BlockRef;
use lens_model::limits::{WINDOW_BASE_SECS, WINDOW_SLOTS_MAX};
use lens_model::{Nanos, UnixNanos};
use redb::{ReadableDatabase, ReadableTable, ReadableTableMetadata};

use super::merge::{add_block, add_outcomes};
use super::tables::{FLOORS, LIFETIME, META, OUTCOMES, WINDOWS};
use super::{Store, StoreError};
use crate::window::RequestCounts;

/// Widths of the resolutions, seconds.
pub(super) const WIDTHS: [u64; 3] = [WINDOW_BASE_SECS, 60, 3_600];

/// The most that is held in memory, seconds.
const RING_SECS: u64 = WINDOW_BASE_SECS * WINDOW_SLOTS_MAX as u64;

/// Rows removed in one transaction.
const REMOVED_AT_ONCE: usize = 20_000;

/// Minutes rolled up in one transaction.
const MINUTES_AT_ONCE: usize = 10;

/// The start of the slot a second falls in.
pub(super) const fn slot(secs: u64, width: u64) -> u64 {
    secs / width * width
}

/// The minute up to which no memory holds slots at `now`, seconds.
pub(super) const fn rolled_to_at(now: UnixNanos) -> u64 {
    slot((now.0 / 1_000_000_000).saturating_sub(RING_SECS), WIDTHS[1])
}

impl Store {
    /// Start of the time that is in the 5 s rows alone, seconds.
    pub const fn rolled_to(&self) -> u64 {
        self.rolled_to
    }

    /// Rolls up what memory no longer holds and removes what is no longer kept, a bounded part of it.
    /// True when there is more to do.
    ///
    /// # Errors
    /// [`StoreError`], as for [`Store::commit`].
    pub fn maintain(&mut self, now: UnixNanos) -> Result<bool, StoreError> {
        let mut more = false;
        for _ in 0..MINUTES_AT_ONCE {
            more = self.roll(now)?;
            if !more {
                break;
            }
        }
        Ok(self.remove(now)? || more)
    }

    /// Rolls one minute up, or moves the marker over minutes without samples.
    fn roll(&mut self, now: UnixNanos) -> Result<bool, StoreError> {
        let end = rolled_to_at(now);
        if self.rolled_to >= end {
            return Ok(false);
        }
        let from = self.next_minute()?.map_or(end, |minute| minute.min(end));
        if from >= end {
            return self.moved(end).map(|()| false);
        }
        let to = from + WIDTHS[1];
        let write = self.begin()?;
        {
            let (mut sums, mut outcomes) = (BTreeMap::new(), BTreeMap::new());
            for row in write.open_table(WINDOWS[0])?.range((from, 0)..(to, 0))? {
                let (key, row) = row?;
                let (block, _) =
                    BlockRef::parse(row.value()).map_err(|_| StoreError::Row("windows"))?;
                let sum: &mut PagedCounts = sums.entry(key.value().1).or_default();
                block.merge_into(sum);
            }
            for row in write.open_table(OUTCOMES[0])?.range((from, 0)..(to, 0))? {
                let (key, row) = row?;
                let (ok, error) = row.value();
                let sum: &mut RequestCounts = outcomes.entry(key.value().1).or_default();
                sum.add(RequestCounts { ok, error });
            }
            let mut bytes = Vec::new();
            for at in [1, 2] {
                let slot = slot(from, WIDTHS[at]);
                let mut table = write.open_table(WINDOWS[at])?;
                for (series, sum) in &sums {
                    add_block(&mut table, (slot, *series), sum, &mut bytes)?;
                }
                let mut table = write.open_table(OUTCOMES[at])?;
                for (number, sum) in &outcomes {
                    add_outcomes(&mut table, (slot, *number), *sum)?;
                }
            }
            let mut table = write.open_table(LIFETIME)?;
            for (series, sum) in &sums {
                add_block(&mut table, *series, sum, &mut bytes)?;
            }
            write.open_table(META)?.insert("rolled_to", to)?;
        }
        write.commit()?;
        self.rolled_to = to;
        Ok(true)
    }

    /// The first minute at or after the marker that has rows.
    fn next_minute(&self) -> Result<Option<u64>, StoreError> {
        let read = self.db.begin_read()?;
        let from = (self.rolled_to, 0)..;
        let windows = read.open_table(WINDOWS[0])?.range(from.clone())?.next().transpose()?;
        let outcomes = read.open_table(OUTCOMES[0])?.range(from)?.next().transpose()?;
        let first = |key: Option<u64>| key.map(|secs| slot(secs, WIDTHS[1]));
        let windows = first(windows.map(|(key, _)| key.value().0));
        let outcomes = first(outcomes.map(|(key, _)| key.value().0));
        Ok(windows.into_iter().chain(outcomes).min())
    }

    fn moved(&mut self, to: u64) -> Result<(), StoreError> {
        let write = self.begin()?;
        write.open_table(META)?.insert("rolled_to", to)?;
        write.commit()?;
        self.rolled_to = to;
        Ok(())
    }

    /// Removes rows of each resolution that are older than it is kept and contained in the next.
    fn remove(&mut self, now: UnixNanos) -> Result<bool, StoreError> {
        let mut more = false;
        for (at, width) in WIDTHS.into_iter().enumerate() {
            let kept = now.minus(self.place.config.retention[at]).0 / 1_000_000_000;
            // Never what is not rolled up yet; and a floor never goes back.
            let floor = slot(kept.min(self.rolled_to), width);
            more |= self.remove_before(at, floor)?;
        }
        Ok(more)
    }

    fn remove_before(&mut self, at: usize, floor: u64) -> Result<bool, StoreError> {
        let read = self.db.begin_read()?;
        let (windows, outcomes) = (read.open_table(WINDOWS[at])?, read.open_table(OUTCOMES[at])?);
        let old = (0, 0)..(floor, 0);
        let keys = |keys: &mut dyn Iterator<Item = Result<(u64, u32), redb::StorageError>>| {
            keys.take(REMOVED_AT_ONCE).collect::<Result<Vec<_>, _>>()
        };
        let gone = keys(&mut windows.range(old.clone())?.map(|row| Ok(row?.0.value())))?;
        let gone_too = keys(&mut outcomes.range(old)?.map(|row| Ok(row?.0.value())))?;
        drop((windows, outcomes, read));
        if gone.is_empty() && gone_too.is_empty() {
            return Ok(false);
        }
        let more = gone.len().max(gone_too.len()) == REMOVED_AT_ONCE;
        let write = self.begin()?;
        {
            let mut table = write.open_table(WINDOWS[at])?;
            for key in &gone {
                table.remove(*key)?;
            }
            let mut table = write.open_table(OUTCOMES[at])?;
            for key in &gone_too {
                table.remove(*key)?;
            }
            // While some rows before it are still there, nothing is complete before it.
            let floor = floor.max(self.floors[at]);
            write.open_table(META)?.insert(FLOORS[at], floor)?;
            self.floors[at] = floor;
        }
        write.commit()?;
        Ok(more)
    }

    /// Rows held, by resolution.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn rows(&self) -> Result<[u64; 3], StoreError> {
        let read = self.db.begin_read()?;
        let mut rows = [0; 3];
        for (at, rows) in rows.iter_mut().enumerate() {
            *rows = read.open_table(WINDOWS[at])?.len()?;
        }
        Ok(rows)
    }

    /// How long each resolution is kept.
    pub fn retention(&self) -> [Nanos; 3] {
        self.place.config.retention
    }
}
