//! What `agents` says it sent, and why it could not.

use std::collections::BTreeMap;

use lens_model::{IdentityError, ParseSeriesError, SeriesKey};
use lens_service::certs::CertsError;
use lens_service::tls::TlsError;
use serde::Serialize;
use thiserror::Error;

use super::{DistributionError, VALUES_MAX};
use crate::Quantiles;

/// What was sent and what became of it.
///
/// A receiver that is right has merged at least what was acknowledged and at most what was sent;
/// with nothing unacknowledged, exactly that.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AgentsReport {
    /// The seed that gives the same again.
    pub seed: u64,
    /// Agents asked for.
    pub agents: usize,
    /// Agents that were let in.
    pub connected: usize,
    /// Agents that were not let in or ended early, by reason.
    pub failures: BTreeMap<String, usize>,
    /// Batches whose intended time came.
    pub batches_offered: u64,
    /// Batches sent.
    pub batches_sent: u64,
    /// Batches that were never sent: their agent had ended, or the time for it.
    pub batches_unsent: u64,
    /// Batches acknowledged.
    pub batches_acknowledged: u64,
    /// Samples sent.
    pub samples_sent: u64,
    /// Samples acknowledged.
    pub samples_acknowledged: u64,
    /// Bytes sent, names included, without the transport's own.
    pub bytes_sent: u64,
    /// How long it took, acknowledgements included, seconds.
    pub elapsed_s: f64,
    /// Whether it was told to stop before the end.
    pub stopped_early: bool,
    /// From the intended time of a batch to its acknowledgement.
    pub from_intended: Quantiles,
    /// From its actual send.
    pub from_send: Quantiles,
    /// Per series over all agents, samples sent and acknowledged.
    pub series: Vec<ShippedSeries>,
}

impl AgentsReport {
    /// Whether every agent stayed and everything offered was acknowledged.
    pub fn is_complete(&self) -> bool {
        self.failures.is_empty() && self.batches_acknowledged == self.batches_offered
    }
}

/// One series over all agents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShippedSeries {
    /// Slice, stage and arm.
    #[serde(flatten)]
    pub key: SeriesKey,
    /// Samples sent.
    pub sent: u64,
    /// Samples acknowledged.
    pub acknowledged: u64,
}

/// Why nothing was sent.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AgentsError {
    /// A number is out of bounds.
    #[error("{what} is {value}; use 1 to {most}")]
    Bounds {
        /// The flag.
        what: &'static str,
        /// What it was.
        value: usize,
        /// What it may be at most.
        most: usize,
    },
    /// More batches than latencies are kept of.
    #[error(
        "{batches} batches are more than the {VALUES_MAX} whose latencies are kept; lower --n, --rate-batches or --for"
    )]
    TooMany {
        /// Batches there would be.
        batches: u64,
    },
    /// One identity for many agents.
    #[error(
        "an aggregator keeps one connection an identity: use --n 1 with --identity, or --certs to issue one to each"
    )]
    Shared,
    /// Nobody to be.
    #[error(
        "no identity: name the authority's directory with --certs, or a certificate with --identity"
    )]
    NoIdentity,
    /// The latencies cannot be drawn.
    #[error(transparent)]
    Distribution(#[from] DistributionError),
    /// A certificate cannot be issued.
    #[error(transparent)]
    Certs(#[from] CertsError),
    /// A certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A name is not allowed.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A series has a name that is not allowed.
    #[error(transparent)]
    Series(#[from] ParseSeriesError),
    /// No agent was let in.
    #[error("no agent was let in at {endpoint}: {reason}")]
    Unreachable {
        /// Where.
        endpoint: String,
        /// Why the first was not.
        reason: String,
    },
}
