//! The log between ingest and the windows: what was taken in, in an order all readers agree on.
//!
//! [`PartitionLog`] is the seam at which one aggregator becomes several. Whoever reads it trusts it
//! for order and speed and for nothing else: what is read may have been lost, doubled, moved or
//! cut off, and the counts stay exact all the same, because a record names itself (agent,
//! incarnation, sequence) and the agent keeps a delta until the *windows* have it durably. A log
//! that loses an acknowledged record costs a resend, never a count.

pub mod adversary;
pub mod embedded;
pub mod record;

use std::fmt::Debug;
use std::io;

use thiserror::Error;

pub use adversary::AdversaryLog;
pub use embedded::EmbeddedLog;
pub use record::{Record, RecordError};

/// One sequence of records with one worker. The embedded log has one, number 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(pub u32);

/// Where a record stands in its partition; ascends, and may leave numbers out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

/// Records read, in the log's order.
pub type Entries = Vec<(Position, Vec<u8>)>;

/// Why the log could not do what it was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LogError {
    /// It cannot be opened, read or written.
    #[error("the log: {0}")]
    Io(#[from] io::Error),
    /// A record is larger than the log takes.
    #[error("a record of {bytes} bytes is larger than the log takes, {max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The largest taken.
        max: usize,
    },
    /// The log has no such partition.
    #[error("the log has no partition {0}")]
    Partition(u32),
}

/// A partitioned log. Blocking; call it off the threads that serve the network.
pub trait PartitionLog: Send + Sync + Debug {
    /// Appends records, all or none as far as the caller is told, and gives the position of the
    /// last. They are durable when it returns, as far as this log promises anything.
    ///
    /// # Errors
    /// [`LogError`]; then any of them may be in the log or not.
    fn append(&self, partition: Partition, batch: &[Vec<u8>]) -> Result<Position, LogError>;

    /// Up to `max` records at `from` or after it. When the log begins after `from`, or ends before
    /// it because it was begun anew, reading goes on at its beginning.
    ///
    /// # Errors
    /// [`LogError`].
    fn read(&self, partition: Partition, from: Position, max: usize) -> Result<Entries, LogError>;

    /// Forgets the records up to and with `to`, when it suits the log.
    ///
    /// # Errors
    /// [`LogError`]; then they may still be there.
    fn trim(&self, partition: Partition, to: Position) -> Result<(), LogError>;
}
