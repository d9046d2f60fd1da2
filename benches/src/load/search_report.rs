//! What came of search load: counted while it runs, reported at the end.

use std::collections::BTreeMap;
use std::time::Duration;

use lens_model::{Arm, Slice, Stage};
use serde::Serialize;
use thiserror::Error;

use super::VALUES_MAX;
use super::search::SearchLoad;
use super::search_client::{Answered, Failure};
use crate::Quantiles;

/// What came of the load.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SearchReport {
    /// The seed that gives the same again.
    pub seed: u64,
    /// Queries that were chosen from.
    pub queries: usize,
    /// Requests the schedule asked for: sent and unsent.
    pub offered: u64,
    /// Requests sent.
    pub sent: u64,
    /// Requests not sent, because too many were unanswered or no target had weight.
    pub unsent: u64,
    /// Answered well.
    pub ok: u64,
    /// Failed: the sum of `errors`.
    pub failed: u64,
    /// Failures by kind: `http_503`, `timeout`, `connect`, `body`, `other`.
    pub errors: BTreeMap<String, u64>,
    /// Latency of good answers from the intended start.
    pub from_intended: Quantiles,
    /// Latency of good answers from the actual send.
    pub from_send: Quantiles,
    /// Stages that the answers say have run.
    pub stages: Vec<StageCount>,
    /// Per target.
    pub targets: Vec<TargetReport>,
    /// How long it took, seconds.
    pub elapsed_s: f64,
    /// Whether it was told to stop before the end.
    pub stopped_early: bool,
}

/// How many answers said that a stage ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StageCount {
    /// The slice of the query.
    pub slice: Slice,
    /// The stage.
    pub stage: Stage,
    /// The arm of the node that answered.
    pub arm: Arm,
    /// How many.
    pub count: u64,
}

/// What came of the requests to one target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TargetReport {
    /// Its address.
    pub url: String,
    /// Requests sent to it.
    pub sent: u64,
    /// Answered well.
    pub ok: u64,
    /// Failed.
    pub failed: u64,
}

/// Why there was no load.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SearchError {
    /// No target was named.
    #[error("no target; name at least one with --target http://HOST:PORT")]
    NoTarget,
    /// More values than are kept.
    #[error(
        "about {values} requests are more than the {VALUES_MAX} that are kept for exact quantiles; lower --rate or --for"
    )]
    TooMany {
        /// Requests there would be.
        values: u64,
    },
    /// A target does not answer.
    #[error("cannot fetch queries from {url}: {problem}; is a search node running there?")]
    Unreachable {
        /// The address.
        url: String,
        /// What happened.
        problem: String,
    },
    /// The first target has no queries: its corpus defines no symbols.
    #[error("{url} has no queries to send; its corpus defines no symbols")]
    NoQueries {
        /// The address.
        url: String,
    },
    /// The client or the pacing thread could not be started.
    #[error("cannot start: {0}")]
    Start(String),
}

/// One request's outcome, with latencies in nanoseconds.
pub(super) struct Outcome {
    pub(super) target: usize,
    pub(super) from_intended: u64,
    pub(super) from_send: u64,
    pub(super) result: Result<Answered, Failure>,
}

/// What has been counted.
pub(super) struct Tally {
    pub(super) offered: u64,
    pub(super) unsent: u64,
    pub(super) errors: BTreeMap<String, u64>,
    from_intended: Vec<u64>,
    from_send: Vec<u64>,
    stages: BTreeMap<(Slice, Stage, Arm), u64>,
    /// Sent, answered well, failed.
    pub(super) targets: Vec<(u64, u64, u64)>,
    pub(super) stopped_early: bool,
}

impl Tally {
    pub(super) fn new(targets: usize) -> Self {
        Self {
            offered: 0,
            unsent: 0,
            errors: BTreeMap::new(),
            from_intended: Vec::new(),
            from_send: Vec::new(),
            stages: BTreeMap::new(),
            targets: vec![(0, 0, 0); targets],
            stopped_early: false,
        }
    }

    pub(super) fn count(&mut self, outcome: Outcome) {
        let target = &mut self.targets[outcome.target];
        match outcome.result {
            Ok(answered) => {
                target.1 += 1;
                self.from_intended.push(outcome.from_intended);
                self.from_send.push(outcome.from_send);
                for stage in answered.stages() {
                    let key = (answered.slice.clone(), stage, answered.arm);
                    *self.stages.entry(key).or_default() += 1;
                }
            }
            Err(failure) => {
                target.2 += 1;
                *self.errors.entry(failure.kind()).or_default() += 1;
            }
        }
    }

    pub(super) fn report(
        mut self,
        load: &SearchLoad,
        queries: usize,
        elapsed: Duration,
    ) -> SearchReport {
        let stages = self.stages.into_iter().map(|((slice, stage, arm), count)| StageCount {
            slice,
            stage,
            arm,
            count,
        });
        let targets = load.targets.iter().zip(&self.targets).map(|(target, counts)| {
            let (sent, ok, failed) = *counts;
            TargetReport { url: target.url.clone(), sent, ok, failed }
        });
        SearchReport {
            seed: load.seed,
            queries,
            offered: self.offered,
            sent: self.offered - self.unsent,
            unsent: self.unsent,
            ok: self.from_send.len() as u64,
            failed: self.errors.values().sum(),
            errors: self.errors,
            from_intended: Quantiles::of(&mut self.from_intended),
            from_send: Quantiles::of(&mut self.from_send),
            stages: stages.collect(),
            targets: targets.collect(),
            elapsed_s: elapsed.as_secs_f64(),
            stopped_early: self.stopped_early,
        }
    }
}
