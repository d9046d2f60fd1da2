//! How the node measures itself: the one place that touches the recorder.
//!
//! For every slice it takes a series per stage and the request counters once, at the start.
//! A query then costs one clock read per boundary and one count per stage.
//!
//! Beside every recording an independent count is kept in this module (the ledger). It is never
//! read back from the segment, so that ledger and receiver can be compared to the last sample.
//! Where it is kept in a file as well ([`super::ledger`]), it survives the process.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use lens_model::{Arm, Slice, Stage};
use lens_segment::{
    CreateError, Node, Recorder, RecorderOptions, RegisterError, Requests, Series, Timer,
};

use super::engine::Asked;
use super::ledger::{Counts, Keeper, Ledger, LedgerError, LedgerRequests, LedgerSeries, Page};
use crate::numbers::nanos_of;

/// Why nothing can be recorded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordingError {
    /// The segment cannot be created.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// The segment has no room for another series.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The ledger cannot be kept.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Where segments are created when nothing else is said.
pub(super) fn default_segment_dir() -> PathBuf {
    Recorder::default_dir()
}

/// The service name the node records under.
const SERVICE: &str = "lens";

/// Who the node is in its recordings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity<'a> {
    pub(super) version: &'a str,
    pub(super) instance: &'a str,
    pub(super) arm: Arm,
    pub(super) by_assignment: bool,
}

/// The recorder and the ledger.
pub(super) struct Recording {
    recorder: Recorder,
    instance: String,
    arm: Arm,
    /// Of the node's own arm, or of the baseline.
    slices: Vec<SliceRecording>,
    /// Of the canary where users are assigned; else empty.
    assigned: Vec<SliceRecording>,
}

/// A series and how many times it was recorded into.
struct Counted {
    series: Series,
    recorded: AtomicU64,
}

/// What one slice records into: a series per stage, and its requests.
pub(super) struct SliceRecording {
    slice: Slice,
    arm: Arm,
    a: Counted,
    b: Counted,
    c: Counted,
    e2e: Counted,
    requests: Requests,
    ok: AtomicU64,
    error: AtomicU64,
    page: Page,
}

impl Recording {
    /// Opens the segment in `directory` and takes a series for every stage of every slice; keeps
    /// the ledger in a file too where one is named.
    pub(super) fn open(
        directory: &Path,
        ledger: Option<&Path>,
        identity: Identity<'_>,
        slices: &[Slice],
    ) -> Result<Self, RecordingError> {
        let Identity { version, instance, arm, by_assignment } = identity;
        let node = Node { service: SERVICE, version, instance };
        let options = RecorderOptions { arm, ..RecorderOptions::default() };
        let recorder = Recorder::create_with(directory, node, options)?;
        let arms = if by_assignment { &[Arm::Baseline, Arm::Canary][..] } else { &[arm] };
        let keeper = Keeper::create(ledger, instance, arms, slices)?;
        let mut opened = Vec::new();
        for (at, (arm, slice)) in keeper.pages().iter().enumerate() {
            opened.push(SliceRecording::open(&recorder, slice, *arm, keeper.page(at))?);
        }
        let assigned = opened.split_off(slices.len());
        Ok(Self { recorder, instance: instance.into(), arm, slices: opened, assigned })
    }

    /// The arm a user's query is served by; one who says no name is nobody's canary.
    pub(super) fn arm_of(&self, user: Option<&str>) -> Arm {
        match (user, self.assigned.is_empty()) {
            (_, true) => self.arm,
            (None, false) => Arm::Baseline,
            (Some(user), false) => self.recorder.canary().arm(user),
        }
    }

    /// The recording of the slice with this index, in an arm that [`Recording::arm_of`] gave.
    pub(super) fn slice(&self, at: usize, arm: Arm) -> &SliceRecording {
        let assigned = self.assigned.get(at).filter(|_| arm == Arm::Canary);
        assigned.unwrap_or(&self.slices[at])
    }

    fn all(&self) -> impl Iterator<Item = &SliceRecording> {
        self.slices.iter().chain(&self.assigned)
    }

    /// Sets a quality signal that is measured once, when the index is built.
    pub(super) fn gauge(&self, name: &str, value: f64) {
        self.recorder.gauge(name).set(value);
    }

    /// The node's own count of what it recorded.
    pub(super) fn ledger(&self) -> Ledger {
        let series = self.all().flat_map(|s| {
            [(Stage::A, &s.a), (Stage::B, &s.b), (Stage::C, &s.c), (Stage::E2e, &s.e2e)].map(
                |(stage, counted)| LedgerSeries {
                    slice: s.slice.clone(),
                    stage,
                    arm: s.arm,
                    recorded: counted.recorded.load(Ordering::Relaxed),
                },
            )
        });
        let requests = self.all().map(|s| LedgerRequests {
            slice: s.slice.clone(),
            arm: s.arm,
            ok: s.ok.load(Ordering::Relaxed),
            error: s.error.load(Ordering::Relaxed),
        });
        Ledger {
            instance: self.instance.clone(),
            series: series.filter(|series| series.recorded > 0).collect(),
            requests: requests.filter(|slice| slice.ok + slice.error > 0).collect(),
        }
    }
}

impl SliceRecording {
    fn open(
        recorder: &Recorder,
        slice: &Slice,
        arm: Arm,
        page: Page,
    ) -> Result<Self, RegisterError> {
        let counted = |stage| {
            let series = recorder.series_in_arm(slice, stage, arm)?;
            Ok::<_, RegisterError>(Counted { series, recorded: AtomicU64::new(0) })
        };
        Ok(Self {
            slice: slice.clone(),
            arm,
            a: counted(Stage::A)?,
            b: counted(Stage::B)?,
            c: counted(Stage::C)?,
            e2e: counted(Stage::E2e)?,
            requests: recorder.requests_for(slice, arm)?,
            ok: AtomicU64::new(0),
            error: AtomicU64::new(0),
            page,
        })
    }

    /// The arm whose queries it counts.
    pub(super) const fn arm(&self) -> Arm {
        self.arm
    }

    /// Says in the ledger that a query is being recorded, until the guard goes.
    pub(super) fn enter(&self) -> Entered<'_> {
        self.page.begin(|| self.counts());
        Entered(self)
    }

    fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            samples: [&self.a, &self.b, &self.c, &self.e2e].map(|one| read(&one.recorded)),
            ok: read(&self.ok),
            error: read(&self.error),
        }
    }

    /// Counts a request that failed before any of its stages ran.
    pub(super) fn refused(&self) {
        let _entered = self.enter();
        self.failed();
    }

    /// Counts a request that was answered.
    pub(super) fn answered(&self) {
        self.requests.ok();
        self.ok.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that failed by the node's fault.
    pub(super) fn failed(&self) {
        self.requests.error();
        self.error.fetch_add(1, Ordering::Relaxed);
    }

    /// Starts the clock of the stages of a query.
    pub(super) fn query(&self, asked: Asked) -> QueryTimer<'_> {
        let stage = Some((self.a.series.start(), &self.a));
        QueryTimer { recording: self, asked, stage }
    }

    fn counted(&self, stage: Stage) -> &Counted {
        match stage {
            Stage::A => &self.a,
            Stage::B => &self.b,
            Stage::C => &self.c,
            Stage::E2e => &self.e2e,
        }
    }
}

/// A query that may be recorded into the slice; on the way, as the ledger calls it.
pub(super) struct Entered<'a>(&'a SliceRecording);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.page.end(|| self.0.counts());
    }
}

impl Counted {
    fn count(&self) {
        // A statistic that is read once the load is over: order against nothing else matters.
        self.recorded.fetch_add(1, Ordering::Relaxed);
    }
}

/// The clocks of one query: the whole since it arrived, waiting for its turn included, and one
/// that goes from stage to stage.
///
/// Dropped without [`QueryTimer::finish`], as when a stage fails, it records nothing more.
pub(super) struct QueryTimer<'a> {
    recording: &'a SliceRecording,
    asked: Asked,
    stage: Option<(Timer<'a>, &'a Counted)>,
}

impl<'a> QueryTimer<'a> {
    /// Ends the stage that runs and begins the next at the same instant; nanoseconds of the
    /// one that ended.
    pub(super) fn next(&mut self, next: Stage) -> u64 {
        let next = self.recording.counted(next);
        let Some((timer, current)) = &mut self.stage else {
            return 0;
        };
        let nanos = match &self.asked.trace {
            Some(trace) => timer.lap_traced(&next.series, trace).0,
            None => timer.lap(&next.series).0,
        };
        current.count();
        *current = next;
        nanos
    }

    /// Ends the last stage; its nanoseconds.
    pub(super) fn end(&mut self) -> u64 {
        let Some((timer, current)) = self.stage.take() else {
            return 0;
        };
        let nanos = match &self.asked.trace {
            Some(trace) => timer.stop_traced(trace).0,
            None => timer.stop().0,
        };
        current.count();
        nanos
    }

    /// Ends the query; nanoseconds of the whole.
    pub(super) fn finish(self) -> u64 {
        let nanos = nanos_of(self.asked.arrived.elapsed());
        match &self.asked.trace {
            Some(trace) => self.recording.e2e.series.record_traced(nanos, trace),
            None => self.recording.e2e.series.record(nanos),
        }
        self.recording.e2e.count();
        nanos
    }
}
