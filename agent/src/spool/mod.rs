//! What was harvested and not yet acknowledged, numbered, and durable before anything of it is sent.
//!
//! A harvest's deltas, what the baselines grow by, and the deltas' numbers are the same bytes of one
//! journal record, so that none can be durable without the others: [`DurableSpool`] is the writing
//! half, used by the harvester where it may block; [`Outbox`] is the half the link sees, which waits
//! for no sync. Numbers belong to a life (incarnation) that is as random as it is old: a spool that
//! is lost, emptied or damaged goes on in another, after the aggregator was asked how far the old one
//! was merged.
//! Bounds: bytes on disk; past them, or on a full disk, `append` refuses, the harvester pauses, and
//! counts stay in the segments. In memory: a few records on their way, and one mark every 256.

mod baselines;
mod codec;
mod durable;
mod former;
mod ledger;
mod record;
mod replay;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use lens_journal::{AppendError, OpenError, ReadError};
use lens_model::{Incarnation, Sequence, UnixNanos};
use thiserror::Error;
use tokio::sync::Notify;

pub use durable::{DurableSpool, Recovered};
pub use record::{GaugeValue, Harvested, HistogramDelta, HistogramOrigin, Record, RequestDelta};

/// Why the spool did not do what was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SpoolError {
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Records were not taken. The caller keeps its baseline and tries again later.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// A record cannot be read back.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A record is whole and makes no sense.
    #[error("record {position} of the spool makes no sense: another version may have written it")]
    Senseless {
        /// Its position in the journal.
        position: u64,
    },
    /// It will take nothing however much is acknowledged: two files that begin with all baselines do
    /// not fit.
    #[error(
        "spool.max_bytes is {bytes_max}, and all baselines with this harvest take {bytes} in each of two files: set it to {needed} or more"
    )]
    TooSmall {
        /// Bytes of a file that begins with them.
        bytes: u64,
        /// Bytes the spool may take up.
        bytes_max: u64,
        /// The least with which it would be taken.
        needed: u64,
    },
    /// Something of it was lost, and the aggregator was not asked yet what it has.
    #[error("the spool lost something: what of it was delivered is asked first")]
    Unsettled,
    /// There is no randomness for another life.
    #[error("no randomness: {0}")]
    Random(std::io::Error),
}

/// Whether the payload of a journal record of this kind is one of a spool's.
pub fn makes_sense(kind: u32, payload: &[u8]) -> bool {
    match kind {
        codec::DELTA => codec::decode_delta(payload, &mut codec::Names::default()).is_some(),
        codec::SNAPSHOT => codec::decode_snapshot(payload).is_some(),
        codec::RENEWAL => codec::decode_renewal(payload).is_some(),
        _ => false,
    }
}

/// The half of a spool that the link sees. Only [`Outbox::load`] and [`Outbox::renew`] block.
pub trait Outbox: Send + Sync + std::fmt::Debug {
    /// The life the numbers belong to.
    fn incarnation(&self) -> Incarnation;

    /// The record with this number, if it is at hand in memory.
    fn get(&self, sequence: Sequence) -> Option<Arc<Record>>;

    /// Fetches the record with this number, and some after it, so that `get` finds them. Blocks.
    ///
    /// # Errors
    /// [`SpoolError::Read`], [`SpoolError::Senseless`].
    fn load(&self, sequence: Sequence) -> Result<(), SpoolError>;

    /// Notes that everything up to and with this number is durable with the aggregator.
    fn acknowledge(&self, acked: Sequence);

    /// Begins another life: what is held is numbered anew, from 1. Blocks.
    ///
    /// # Errors
    /// [`SpoolError::Append`]: the old life goes on.
    fn renew(&self, incarnation: Incarnation) -> Result<(), SpoolError>;

    /// The life the aggregator is to be asked about before anything more is taken or sent, the disk
    /// having lost something.
    fn former(&self) -> Option<Incarnation> {
        None
    }

    /// Notes how far that life was merged, to which nothing more will be added: what was merged is
    /// held no longer, and where that leaves numbers or counts in doubt another life begins. Blocks.
    ///
    /// # Errors
    /// [`SpoolError::Append`]: it is to be asked again.
    fn settle(&self, _merged: Sequence, _incarnation: Incarnation) -> Result<(), SpoolError> {
        Ok(())
    }

    /// How full it is.
    fn level(&self) -> Level;
}

/// How full a spool is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// Deltas held.
    pub frames: u64,
    /// Their bytes, to within 256 deltas.
    pub bytes: u64,
    /// The last number acknowledged.
    pub acked: Sequence,
    /// The last number given.
    pub last: Sequence,
    /// When the oldest record held begins, to within 256 deltas.
    pub oldest: Option<UnixNanos>,
}

/// The link's half and the bell that rings when there is more in it.
#[derive(Clone, Debug)]
pub struct SharedSpool {
    /// The link's half.
    pub outbox: Arc<dyn Outbox>,
    /// Rung after each append.
    pub changed: Arc<Notify>,
}

impl SharedSpool {
    /// Of a spool.
    pub fn new(outbox: Arc<dyn Outbox>) -> Self {
        Self { outbox, changed: Arc::default() }
    }
}
