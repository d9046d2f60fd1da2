//! Recorded latencies through the judges on a simulated clock: rows in, slots out, in order.
//!
//! The clock is the data's own: the newest time read, less the allowed lateness, is how far
//! everything is known; slots that end before it are judged and gone. Rows may come in any order
//! within that lateness, and give the same decisions, to the bit.
//! Promise: pure; no clock, I/O or randomness. Bounds: the slots of the allowed lateness, of
//! [`REPLAY_SERIES_MAX`] series and hosts.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use lens_hist::{PagedCounts, Sparse};
use lens_model::limits::{NAME_BYTES_MAX, REPLAY_SERIES_MAX};
use lens_model::{Arm, Nanos, Slice, Stage};
use serde_json::{Map, Value};
use thiserror::Error;

use super::decision::{Decision, SlotJudge};
use super::slot::{HostWindow, SLOT, Slot, SlotWindows};

/// Largest time, milliseconds from the origin either way: 2^53, exact in every JSON reader.
pub const T_MS_MAX: i64 = 1 << 53;

/// Longest silence between two neighbouring times: 7 days of empty slots are judged one by one.
const GAP_MAX: Nanos = Nanos::from_secs(7 * 86_400);

/// Why a row was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// Its slot was judged already.
    #[error(
        "t_ms {t_ms} is {behind_ms} ms behind the newest time read, more than the allowed {allowed_ms} ms: sort the file by t_ms, or raise windows.allowed_lateness_s"
    )]
    Late {
        /// Its time.
        t_ms: i64,
        /// How far behind.
        behind_ms: i64,
        /// How far it may be.
        allowed_ms: i64,
    },
    /// Its time is too far from the others.
    #[error(
        "t_ms {t_ms} is more than 7 days after the newest time read, {newest_ms}: milliseconds from the rollout's start, or since the epoch, are expected throughout"
    )]
    Gap {
        /// Its time.
        t_ms: i64,
        /// The newest before it.
        newest_ms: i64,
    },
    /// No time at all.
    #[error("t_ms {t_ms} is out of range: use milliseconds between -2^53 and 2^53")]
    Time {
        /// What was given.
        t_ms: i64,
    },
    /// A host's name is empty or too long.
    #[error("host is {bytes} bytes long: use 1 to {NAME_BYTES_MAX}")]
    Host {
        /// Its length.
        bytes: usize,
    },
    /// One series too many.
    #[error("more than {REPLAY_SERIES_MAX} different slices × stages × arms × hosts")]
    Full,
}

/// One series of one host, found once and counted in often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplaySeries(u32);

type Name = (Slice, Stage, Arm, Box<str>);

/// What one host recorded of one series in one open slot.
#[derive(Debug, Default)]
struct Cell {
    counts: PagedCounts,
    ok: u64,
    errors: u64,
}

type OpenSlot = Vec<Option<Box<Cell>>>;

/// A replay under way.
pub struct Replay {
    lateness_ms: i64,
    known: HashMap<Name, ReplaySeries>,
    names: Vec<(Arc<Slice>, Stage, Arm, Arc<str>)>,
    /// Series by name: the order windows are judged in must not be that of the rows.
    order: Vec<u32>,
    /// The open slots; the first is `first`.
    open: VecDeque<OpenSlot>,
    first: i64,
    newest_ms: Option<i64>,
    judging: bool,
    judges: Vec<Box<dyn SlotJudge>>,
    decisions: Vec<Decision>,
    slots: u64,
    samples: u64,
}

impl std::fmt::Debug for Replay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replay").field("newest_ms", &self.newest_ms).finish_non_exhaustive()
    }
}

impl Replay {
    /// Nothing read yet. The judges are given each slot in this order.
    pub fn new(lateness: Nanos, judges: Vec<Box<dyn SlotJudge>>) -> Self {
        Self {
            lateness_ms: i64::try_from(lateness.0 / 1_000_000).unwrap_or(T_MS_MAX),
            known: HashMap::new(),
            names: Vec::new(),
            order: Vec::new(),
            open: VecDeque::new(),
            first: 0,
            newest_ms: None,
            judging: false,
            judges,
            decisions: Vec::new(),
            slots: 0,
            samples: 0,
        }
    }

    /// The place of a series of a host.
    ///
    /// # Errors
    /// [`ReplayError::Host`] for a name that is none, [`ReplayError::Full`] past the bound.
    pub fn series(
        &mut self,
        slice: &Slice,
        stage: Stage,
        arm: Arm,
        host: &str,
    ) -> Result<ReplaySeries, ReplayError> {
        let name: Name = (slice.clone(), stage, arm, host.into());
        if let Some(series) = self.known.get(&name) {
            return Ok(*series);
        }
        if !(1..=NAME_BYTES_MAX).contains(&host.len()) {
            return Err(ReplayError::Host { bytes: host.len() });
        }
        if self.names.len() >= REPLAY_SERIES_MAX {
            return Err(ReplayError::Full);
        }
        #[allow(clippy::cast_possible_truncation)]
        let series = ReplaySeries(self.names.len() as u32);
        self.names.push((Arc::new(slice.clone()), stage, arm, host.into()));
        let at = self
            .order
            .partition_point(|&at| self.names[at as usize] < self.names[series.0 as usize]);
        self.order.insert(at, series.0);
        self.known.insert(name, series);
        Ok(series)
    }

    /// Counts one request.
    ///
    /// A failed one counts with its time too: a timeout left out would make the tail look short.
    ///
    /// # Errors
    /// [`ReplayError`] when its time cannot be taken; then nothing was counted.
    #[inline]
    pub fn record(
        &mut self,
        t_ms: i64,
        series: ReplaySeries,
        nanos: u64,
        ok: bool,
    ) -> Result<(), ReplayError> {
        let cell = self.cell(t_ms, series)?;
        cell.counts.add(lens_hist::layout::index_of(nanos), 1);
        cell.ok += u64::from(ok);
        cell.errors += u64::from(!ok);
        self.samples += 1;
        Ok(())
    }

    /// Counts what a host recorded in the window that begins at `t_ms`.
    ///
    /// # Errors
    /// As [`Replay::record`].
    pub fn add(
        &mut self,
        t_ms: i64,
        series: ReplaySeries,
        counts: impl IntoIterator<Item = (usize, u64)>,
        ok: u64,
        errors: u64,
    ) -> Result<(), ReplayError> {
        let cell = self.cell(t_ms, series)?;
        let mut samples = 0_u64;
        for (index, count) in counts {
            cell.counts.add(index, count);
            samples = samples.saturating_add(count);
        }
        cell.ok = cell.ok.saturating_add(ok);
        cell.errors = cell.errors.saturating_add(errors);
        self.samples = self.samples.saturating_add(samples);
        Ok(())
    }

    /// What was decided since the last call.
    pub fn decisions(&mut self) -> impl Iterator<Item = Decision> + '_ {
        self.decisions.drain(..)
    }

    /// Judges what is left and gives the summary; decisions made on the way are still to be taken.
    pub fn finish(&mut self) -> Map<String, Value> {
        while !self.open.is_empty() {
            self.judge_first();
        }
        let mut summary = Map::new();
        summary.insert("kind".into(), "summary".into());
        summary.insert("slots".into(), self.slots.into());
        summary.insert("samples".into(), self.samples.into());
        self.judges.iter().for_each(|judge| judge.summarise(&mut summary));
        summary
    }

    #[inline]
    fn cell(&mut self, t_ms: i64, series: ReplaySeries) -> Result<&mut Cell, ReplayError> {
        let slot = Slot::of_millis(t_ms).0;
        if self.newest_ms.is_none_or(|newest| t_ms > newest) {
            self.advance(t_ms, slot)?;
        } else if slot < self.first {
            self.reach_back(t_ms, slot)?;
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let open = &mut self.open[(slot - self.first) as usize];
        let at = series.0 as usize;
        if at >= open.len() {
            open.resize_with(self.names.len(), || None);
        }
        Ok(open[at].get_or_insert_default())
    }

    /// Moves the clock on to `t_ms` and judges what is then known whole.
    fn advance(&mut self, t_ms: i64, slot: i64) -> Result<(), ReplayError> {
        if t_ms.abs() > T_MS_MAX {
            return Err(ReplayError::Time { t_ms });
        }
        match self.newest_ms {
            None => self.first = slot,
            Some(newest_ms) if t_ms.abs_diff(newest_ms) > GAP_MAX.0 / 1_000_000 => {
                return Err(ReplayError::Gap { t_ms, newest_ms });
            }
            Some(_) => {}
        }
        self.newest_ms = Some(t_ms);
        let known = Slot::of_millis(t_ms - self.lateness_ms).0;
        while self.first < known {
            if self.open.is_empty() {
                self.open.push_back(OpenSlot::new());
            }
            self.judge_first();
        }
        while self.first + (self.open.len() as i64) <= slot {
            self.open.push_back(OpenSlot::new());
        }
        Ok(())
    }

    /// Opens a slot before the first, where nothing was judged yet and the lateness allows it.
    fn reach_back(&mut self, t_ms: i64, slot: i64) -> Result<(), ReplayError> {
        let behind_ms = self.newest_ms.map_or(0, |newest| newest - t_ms);
        if self.judging || behind_ms > self.lateness_ms {
            return Err(ReplayError::Late { t_ms, behind_ms, allowed_ms: self.lateness_ms });
        }
        while self.first > slot {
            self.open.push_front(OpenSlot::new());
            self.first -= 1;
        }
        Ok(())
    }

    fn judge_first(&mut self) {
        let Some(cells) = self.open.pop_front() else { return };
        let windows = SlotWindows { slot: Slot(self.first), windows: self.windows(&cells) };
        self.first += 1;
        // Empty slots before the first row say nothing.
        self.judging = true;
        self.slots += 1;
        for judge in &mut self.judges {
            judge.slot(&windows, &mut self.decisions);
        }
    }

    fn windows(&self, cells: &OpenSlot) -> Vec<HostWindow> {
        let held = |at: &u32| cells.get(*at as usize)?.as_deref().map(|cell| (*at, cell));
        let window = |(at, cell): (u32, &Cell)| {
            let (slice, stage, arm, host) = &self.names[at as usize];
            let counts: Sparse = cell.counts.to_sparse();
            HostWindow {
                slice: Arc::clone(slice),
                stage: *stage,
                arm: *arm,
                host: Arc::clone(host),
                counts,
                ok: cell.ok,
                errors: cell.errors,
            }
        };
        self.order.iter().filter_map(held).map(window).collect()
    }
}

const _: () = assert!(SLOT.0 == 5_000_000_000);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Mutex;

    /// Keeps what it is given.
    #[derive(Clone, Default)]
    struct Tape(Arc<Mutex<Vec<SlotWindows>>>);

    impl SlotJudge for Tape {
        fn slot(&mut self, windows: &SlotWindows, _: &mut Vec<Decision>) {
            self.0.lock().unwrap().push(windows.clone());
        }
        fn summarise(&self, _: &mut Map<String, Value>) {}
    }

    fn slice() -> Slice {
        Slice::new("backend", "rust", "large").unwrap()
    }

    fn played(rows: &[(i64, u64)]) -> Result<Vec<SlotWindows>, ReplayError> {
        let tape = Tape::default();
        let mut replay = Replay::new(Nanos::from_secs(60), vec![Box::new(tape.clone())]);
        for (t_ms, nanos) in rows {
            let host = if nanos % 2 == 0 { "even" } else { "odd" };
            let series = replay.series(&slice(), Stage::A, Arm::Baseline, host)?;
            replay.record(*t_ms, series, *nanos, nanos % 5 > 0)?;
        }
        replay.finish();
        let slots = tape.0.lock().unwrap().clone();
        Ok(slots)
    }

    proptest! {
        #[test]
        fn any_order_within_the_lateness_gives_the_same_slots(
            mut rows in prop::collection::vec((-300_000_i64..300_000, 1_u64..1 << 30), 1..200),
            jitter in prop::collection::vec(0_i64..60_000, 200),
        ) {
            rows.sort_unstable();
            let in_order = played(&rows).unwrap();
            let mut shuffled: Vec<_> = rows.iter().zip(jitter).map(|(row, j)| (row.0 + j, *row)).collect();
            shuffled.sort_by_key(|(at, _)| *at);
            let shuffled: Vec<_> = shuffled.into_iter().map(|(_, row)| row).collect();
            prop_assert_eq!(&played(&shuffled).unwrap(), &in_order);
            let counted: u64 = in_order.iter().flat_map(|s| &s.windows).map(HostWindow::n).sum();
            prop_assert_eq!(counted, rows.len() as u64);
            prop_assert!(in_order.windows(2).all(|pair| pair[0].slot.next() == pair[1].slot));
        }
    }

    #[test]
    fn a_row_behind_the_lateness_is_refused_with_what_would_be_right() {
        let error = played(&[(0, 1), (200_000, 1), (139_000, 1)]).unwrap_err();
        assert!(error.to_string().contains("61000 ms behind"), "{error}");
        assert!(played(&[(0, 1), (200_000, 1), (140_000, 1)]).is_ok());
    }

    #[test]
    fn a_time_far_from_the_others_is_refused_and_one_at_the_bound_is_not() {
        let week = 7 * 86_400_000;
        assert_eq!(played(&[(0, 1), (week, 1)]).unwrap().len(), 120_961);
        assert!(matches!(played(&[(0, 1), (week + 1, 1)]), Err(ReplayError::Gap { .. })));
        assert!(matches!(played(&[(T_MS_MAX + 1, 1)]), Err(ReplayError::Time { .. })));
    }
}
