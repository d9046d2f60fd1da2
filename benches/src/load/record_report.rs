//! What `record` says it recorded, and why it could not.

use std::path::PathBuf;

use lens_model::{Arm, InstanceName, SeriesKey, Slice};
use serde::Serialize;
use thiserror::Error;

use super::{DistributionError, VALUES_MAX};
use crate::Quantiles;
use crate::node::RecordingError;

/// What was recorded.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RecordReport {
    /// The seed that gives the same again.
    pub seed: u64,
    /// The instance recorded for.
    pub instance: InstanceName,
    /// Requests made up.
    pub requests_total: u64,
    /// Latencies recorded.
    pub recorded_total: u64,
    /// How long it took, seconds.
    pub elapsed_s: f64,
    /// Whether it was told to stop before the end.
    pub stopped_early: bool,
    /// Per series, what was recorded.
    pub series: Vec<RecordedSeries>,
    /// Per slice and arm, how requests ended.
    pub requests: Vec<RecordedRequests>,
}

/// One series: its count and exact quantiles.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RecordedSeries {
    /// Slice, stage and arm.
    #[serde(flatten)]
    pub key: SeriesKey,
    /// Count and quantiles.
    #[serde(flatten)]
    pub quantiles: Quantiles,
}

/// How the requests of a slice and arm ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RecordedRequests {
    /// The slice.
    pub slice: Slice,
    /// The arm.
    pub arm: Arm,
    /// Answered.
    pub ok: u64,
    /// Failed.
    pub error: u64,
}

/// Why nothing, or not all, was recorded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RecordError {
    /// A list that needs something is empty.
    #[error("no {what} to record; name at least one with --{what}")]
    Nothing {
        /// `slices`, `stages` or `arms`.
        what: &'static str,
    },
    /// More values than are kept.
    #[error(
        "about {values} values are more than the {VALUES_MAX} that are kept for exact quantiles; lower --rate or --for, or name fewer stages"
    )]
    TooMany {
        /// Values there would be.
        values: u64,
    },
    /// The latencies cannot be drawn.
    #[error(transparent)]
    Distribution(#[from] DistributionError),
    /// The segment cannot be created or is full.
    #[error("cannot record into {}: {source}", dir.display())]
    Recorder {
        /// The directory of the segment.
        dir: PathBuf,
        /// What the recorder said.
        source: RecordingError,
    },
    /// The file of raw values cannot be written.
    #[error("cannot write the raw values to {}: {source}", path.display())]
    RawOut {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}
