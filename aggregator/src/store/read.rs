//! Questions about the past, answered from the store.
//!
//! Promise: the counts of an answer are the exact sum of what was merged into the slots of its
//! span, at whatever resolution they are kept. A reader sees one committed state and keeps no
//! writer waiting. After the store was closed for an error, questions fail until it is open again.

use std::sync::Arc;

use lens_hist::Counts;
use lens_hist::block::BlockRef;
use lens_model::limits::QUERY_POINTS_MAX;
use lens_model::{AgentName, Incarnation, Nanos, Sequence, UnixNanos};
use parking_lot::RwLock;
use redb::{Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable};

use super::rollup::{WIDTHS, slot};
use super::tables::{FLOORS, META, WINDOWS};
use super::{Catalog, StoreError};
use crate::window::{Selection, Span};

const SECOND: u64 = 1_000_000_000;

/// Slots one question without a step reads of each series at most, before a coarser resolution
/// serves it: an hour of the finest.
const SLOTS_UNSTEPPED_MAX: u64 = 720;

/// One of the widths at which the past is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resolution {
    /// 5 s.
    Base,
    /// 1 min.
    Minute,
    /// 1 h.
    Hour,
}

impl Resolution {
    /// From the finest to the coarsest.
    pub const ALL: [Self; 3] = [Self::Base, Self::Minute, Self::Hour];

    const fn at(self) -> usize {
        match self {
            Self::Base => 0,
            Self::Minute => 1,
            Self::Hour => 2,
        }
    }

    /// The width of its slots.
    pub const fn width(self) -> Nanos {
        Nanos::from_secs(WIDTHS[self.at()])
    }
}

/// What answers questions; cheap to clone.
#[derive(Clone, Debug)]
pub struct History {
    db: Arc<Database>,
    catalog: Arc<RwLock<Catalog>>,
    lives_max: u64,
}

/// One committed state, and where its resolutions begin.
pub struct View {
    pub(super) read: ReadTransaction,
    pub(super) catalog: Arc<RwLock<Catalog>>,
    rolled_to: u64,
    floors: [u64; 3],
    /// Until this is answered nobody opens the file anew. Dropped after the transaction above.
    _open: Arc<Database>,
}

impl History {
    pub(super) const fn new(
        db: Arc<Database>,
        catalog: Arc<RwLock<Catalog>>,
        lives_max: u64,
    ) -> Self {
        Self { db, catalog, lives_max }
    }

    /// Lives kept per agent.
    pub const fn lives_max(&self) -> u64 {
        self.lives_max
    }

    /// The last sequence merged of a life, 0 when it is not known; `None` when this agent has as
    /// many lives as are kept.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn watermark(
        &self,
        agent: &AgentName,
        life: Incarnation,
    ) -> Result<Option<Sequence>, StoreError> {
        super::watermark(&self.db, agent, life, self.lives_max)
    }

    /// The state as last committed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn view(&self) -> Result<View, StoreError> {
        let read = self.db.begin_read()?;
        let (rolled_to, floors) = {
            let meta = read.open_table(META)?;
            let number = |key| -> Result<u64, StoreError> {
                Ok(meta.get(key)?.ok_or(StoreError::Row("meta"))?.value())
            };
            (number("rolled_to")?, [number(FLOORS[0])?, number(FLOORS[1])?, number(FLOORS[2])?])
        };
        let (catalog, _open) = (Arc::clone(&self.catalog), Arc::clone(&self.db));
        Ok(View { read, catalog, rolled_to, floors, _open })
    }
}

impl View {
    /// Up to here coarser rows hold what the finest do; from here on only those do.
    pub const fn rolled_to(&self) -> UnixNanos {
        UnixNanos(self.rolled_to.saturating_mul(SECOND))
    }

    /// The resolution that serves a span: the finest that is kept for all of it, or a coarser one
    /// that says the same in fewer rows. `step` is that of the question, if it has one.
    pub fn resolution(&self, span: Span, step: Option<Nanos>) -> Resolution {
        let kept =
            |r: &Resolution| self.floors[r.at()] <= slot(span.from.0 / SECOND, WIDTHS[r.at()]);
        let finest = Resolution::ALL.into_iter().find(kept).unwrap_or(Resolution::Hour);
        let coarser = Resolution::ALL.into_iter().filter(|r| *r > finest);
        let wide = |r: Resolution| {
            let slots = span.to.since(span.from).0 / r.width().0;
            slots > step.map_or(SLOTS_UNSTEPPED_MAX, |_| QUERY_POINTS_MAX as u64)
        };
        // With a step: what divides it says the same; without, what is narrow enough to be read.
        coarser.fold(finest, |taken, next| {
            let same = step.is_some_and(|step| {
                let width = next.width().0;
                step.0.is_multiple_of(width) && span.from.0.is_multiple_of(width)
            });
            let needed = step.is_none() && wide(taken);
            if same || needed { next } else { taken }
        })
    }

    /// Start of the oldest slot held at a resolution; of now, with none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn begins(&self, resolution: Resolution) -> Result<UnixNanos, StoreError> {
        let table = self.read.open_table(WINDOWS[resolution.at()])?;
        let first = table.first()?.map_or(self.rolled_to, |(key, _)| key.value().0);
        let floor = self.floors[resolution.at()];
        Ok(UnixNanos(first.max(floor).saturating_mul(SECOND)))
    }

    /// The samples of the selected series in each step of the span, in order; steps without any
    /// are left out. The span begins at, and the step is a multiple of, the resolution's width.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn steps(
        &self,
        selection: &Selection,
        span: Span,
        resolution: Resolution,
        step: Nanos,
        mut each: impl FnMut(UnixNanos, &Counts),
    ) -> Result<(), StoreError> {
        let series = self.catalog.read().selected(selection);
        let tables =
            [self.read.open_table(WINDOWS[resolution.at()])?, self.read.open_table(WINDOWS[0])?];
        let mut counts = Counts::new();
        let mut from = span.from;
        while from < span.to {
            // Where nothing is, nothing is looked for.
            let Some(next) = self.next_slot(&tables, from, resolution)? else { break };
            let skipped = next.since(from).0 / step.0;
            from = from.plus(Nanos(skipped.saturating_mul(step.0)));
            if from >= span.to {
                break;
            }
            let to = from.plus(step).min(span.to);
            counts.clear();
            self.sum(&tables, &series, Span { from, to }, resolution, &mut counts)?;
            if counts.total() > 0 {
                each(from, &counts);
            }
            from = to;
        }
        Ok(())
    }

    /// Start of the first slot at or after an instant that holds anything of any series.
    fn next_slot(
        &self,
        tables: &[ReadOnlyTable<(u64, u32), &'static [u8]>; 2],
        from: UnixNanos,
        resolution: Resolution,
    ) -> Result<Option<UnixNanos>, StoreError> {
        let secs = from.0.div_ceil(SECOND);
        let mut first = None;
        let rolled_from = if resolution == Resolution::Base { 0 } else { self.rolled_to };
        for (table, from) in tables.iter().zip([secs, secs.max(rolled_from)]) {
            if let Some(row) = table.range((from, 0)..)?.next() {
                let at = row?.0.value().0;
                first = Some(first.map_or(at, |first: u64| first.min(at)));
            }
        }
        Ok(first.map(|secs| UnixNanos(secs.saturating_mul(SECOND))))
    }

    /// Adds the selected series' rows of a span: of the resolution up to the marker, and of the
    /// finest from it on.
    fn sum(
        &self,
        tables: &[ReadOnlyTable<(u64, u32), &'static [u8]>; 2],
        series: &[u32],
        span: Span,
        resolution: Resolution,
        counts: &mut Counts,
    ) -> Result<(), StoreError> {
        let (from, to) = (span.from.0.div_ceil(SECOND), span.to.0.div_ceil(SECOND));
        if resolution == Resolution::Base {
            return add(&tables[0], series, from, to, WIDTHS[0], counts);
        }
        let width = WIDTHS[resolution.at()];
        // The coarse row the marker stands in holds what is before the marker, and no more.
        add(&tables[0], series, from, to.min(self.rolled_to), width, counts)?;
        add(&tables[1], series, from.max(self.rolled_to), to, WIDTHS[0], counts)
    }
}

fn add(
    table: &ReadOnlyTable<(u64, u32), &'static [u8]>,
    series: &[u32],
    from: u64,
    to: u64,
    width: u64,
    counts: &mut Counts,
) -> Result<(), StoreError> {
    let mut slot = from.div_ceil(width) * width;
    while slot < to {
        // Slots that hold nothing of anyone are passed over at once.
        let Some(row) = table.range((slot, 0)..(to, 0))?.next() else { return Ok(()) };
        slot = row?.0.value().0;
        for number in series {
            if let Some(row) = table.get((slot, *number))? {
                let (block, _) =
                    BlockRef::parse(row.value()).map_err(|_| StoreError::Row("windows"))?;
                block.merge_into_dense(counts);
            }
        }
        slot += width;
    }
    Ok(())
}
