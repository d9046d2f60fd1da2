//! How the node measures itself: the one place that touches the recorder.
//!
//! For every slice it takes a series per stage and the request counters once, at the start.
//! A query then costs one clock read per boundary and one count per stage.
//!
//! Beside every recording an independent count is kept in this module (the ledger). It is never
//! read back from the segment, so that ledger and receiver can be compared to the last sample.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use lens_model::{Arm, Slice, Stage};
use lens_segment::{
    CreateError, Node, Recorder, RecorderOptions, RegisterError, Requests, Series, Timer,
};
use serde::{Deserialize, Serialize};

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
}

/// The recorder and the ledger.
pub(super) struct Recording {
    recorder: Recorder,
    instance: String,
    arm: Arm,
    slices: Vec<SliceRecording>,
}

/// A series and how many times it was recorded into.
struct Counted {
    series: Series,
    recorded: AtomicU64,
}

/// What one slice records into: a series per stage, and its requests.
pub(super) struct SliceRecording {
    slice: Slice,
    a: Counted,
    b: Counted,
    c: Counted,
    e2e: Counted,
    requests: Requests,
    ok: AtomicU64,
    error: AtomicU64,
}

/// What the node counted itself, beside the recorder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// The node's instance name.
    pub instance: String,
    /// The arm it serves.
    pub arm: Arm,
    /// Samples per series that has any.
    pub series: Vec<LedgerSeries>,
    /// Requests per slice that had any.
    pub requests: Vec<LedgerRequests>,
}

/// Samples recorded into one series.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerSeries {
    /// The slice.
    pub slice: Slice,
    /// The stage.
    pub stage: Stage,
    /// The arm.
    pub arm: Arm,
    /// How many samples.
    pub recorded: u64,
}

/// Requests of one slice by outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerRequests {
    /// The slice.
    pub slice: Slice,
    /// The arm.
    pub arm: Arm,
    /// Answered.
    pub ok: u64,
    /// Failed by the node's fault: a stage failed, or it was overloaded.
    pub error: u64,
}

impl Recording {
    /// Opens the segment in `directory` and takes a series for every stage of every slice.
    pub(super) fn open<'a>(
        directory: &Path,
        identity: Identity<'_>,
        slices: impl IntoIterator<Item = &'a Slice>,
    ) -> Result<Self, RecordingError> {
        let Identity { version, instance, arm } = identity;
        let node = Node { service: SERVICE, version, instance };
        let options = RecorderOptions { arm, ..RecorderOptions::default() };
        let recorder = Recorder::create_with(directory, node, options)?;
        let slices = slices
            .into_iter()
            .map(|slice| SliceRecording::open(&recorder, slice, arm))
            .collect::<Result<_, _>>()?;
        Ok(Self { recorder, instance: instance.into(), arm, slices })
    }

    /// The recording of the slice with this index.
    pub(super) fn slice(&self, at: usize) -> &SliceRecording {
        &self.slices[at]
    }

    /// Sets a quality signal that is measured once, when the index is built.
    pub(super) fn gauge(&self, name: &str, value: f64) {
        self.recorder.gauge(name).set(value);
    }

    /// The node's own count of what it recorded.
    pub(super) fn ledger(&self) -> Ledger {
        let arm = self.arm;
        let series = self.slices.iter().flat_map(|s| {
            [(Stage::A, &s.a), (Stage::B, &s.b), (Stage::C, &s.c), (Stage::E2e, &s.e2e)].map(
                |(stage, counted)| LedgerSeries {
                    slice: s.slice.clone(),
                    stage,
                    arm,
                    recorded: counted.recorded.load(Ordering::Relaxed),
                },
            )
        });
        let requests = self.slices.iter().map(|s| LedgerRequests {
            slice: s.slice.clone(),
            arm,
            ok: s.ok.load(Ordering::Relaxed),
            error: s.error.load(Ordering::Relaxed),
        });
        Ledger {
            instance: self.instance.clone(),
            arm,
            series: series.filter(|series| series.recorded > 0).collect(),
            requests: requests.filter(|slice| slice.ok + slice.error > 0).collect(),
        }
    }
}

impl SliceRecording {
    fn open(recorder: &Recorder, slice: &Slice, arm: Arm) -> Result<Self, RegisterError> {
        let counted = |stage| {
            let series = recorder.series(slice, stage)?;
            Ok::<_, RegisterError>(Counted { series, recorded: AtomicU64::new(0) })
        };
        Ok(Self {
            slice: slice.clone(),
            a: counted(Stage::A)?,
            b: counted(Stage::B)?,
            c: counted(Stage::C)?,
            e2e: counted(Stage::E2e)?,
            requests: recorder.requests_for(slice, arm)?,
            ok: AtomicU64::new(0),
            error: AtomicU64::new(0),
        })
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

    /// Starts the clock of the stages of a query that arrived at `arrived`.
    pub(super) fn query(&self, arrived: Instant) -> QueryTimer<'_> {
        let stage = Some((self.a.series.start(), &self.a));
        QueryTimer { recording: self, arrived, stage }
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
    arrived: Instant,
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
        let nanos = timer.lap(&next.series).0;
        current.count();
        *current = next;
        nanos
    }

    /// Ends the last stage; its nanoseconds.
    pub(super) fn end(&mut self) -> u64 {
        let Some((timer, current)) = self.stage.take() else {
            return 0;
        };
        let nanos = timer.stop().0;
        current.count();
        nanos
    }

    /// Ends the query; nanoseconds of the whole.
    pub(super) fn finish(self) -> u64 {
        let nanos = nanos_of(self.arrived.elapsed());
        self.recording.e2e.series.record(nanos);
        self.recording.e2e.count();
        nanos
    }
}
