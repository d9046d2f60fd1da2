//! One slot of the past, as the judge takes it.
//!
//! The judge goes back over more than memory holds when it begins; it is fed from here what it would
//! have been fed then, and what came late besides.

use std::collections::BTreeMap;

use lens_hist::{Counts, block::BlockRef};
use lens_model::limits::WINDOW_BASE_SECS;
use lens_model::{Arm, Slice, Stage};

use super::tables::{OUTCOMES, WINDOWS};
use super::{StoreError, View};
use crate::judge::slot::{HostWindow, Slot, SlotWindows};
use crate::window::Host;

impl View {
    /// Everything recorded in slot `number`, under the name `slot`: what [`Windows::slot`] gives of
    /// one that is in memory. Empty when slots of that time are no longer kept.
    ///
    /// [`Windows::slot`]: crate::window::Windows::slot
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn slot(&self, number: u64, slot: Slot) -> Result<SlotWindows, StoreError> {
        let secs = number.saturating_mul(WINDOW_BASE_SECS);
        let rows = (secs, 0)..=(secs, u32::MAX);
        let catalog = self.catalog.read();
        let mut found: BTreeMap<(&Slice, Stage, Arm, &Host), HostWindow> = BTreeMap::new();
        let mut counts = Counts::new();
        for row in self.read.open_table(WINDOWS[0])?.range(rows.clone())? {
            let (key, row) = row?;
            let Some((host, series)) = catalog.series.get(key.value().1) else { continue };
            let Some(host) = catalog.hosts.get(*host) else { continue };
            let (block, _) =
                BlockRef::parse(row.value()).map_err(|_| StoreError::Row("windows"))?;
            counts.clear();
            block.merge_into_dense(&mut counts);
            let mut own = HostWindow::empty(&series.slice, series.stage, series.arm, host);
            own.counts = counts.to_sparse();
            found.insert((&series.slice, series.stage, series.arm, host), own);
        }
        for row in self.read.open_table(OUTCOMES[0])?.range(rows)? {
            let (key, row) = row?;
            let Some((host, (slice, arm))) = catalog.requests.get(key.value().1) else { continue };
            let Some(host) = catalog.hosts.get(*host) else { continue };
            let own = found
                .entry((slice, Stage::E2e, *arm, host))
                .or_insert_with(|| HostWindow::empty(slice, Stage::E2e, *arm, host));
            (own.ok, own.errors) = row.value();
        }
        Ok(SlotWindows { slot, windows: found.into_values().collect() })
    }
}
