//! The log of an aggregator by itself: a journal on its own disk, one partition.
//!
//! Appended records are durable in one sync a batch. A record that does not read back whole is
//! passed over: its life then has a hole, which the worker finds and has sent again.

use std::io;
use std::path::Path;
use std::sync::Arc;

use lens_journal::{
    AppendError, Disk, Entry, Journal, JournalReader, OpenError, Options, ReadError,
};
use parking_lot::Mutex;

use super::record::RECORD_BYTES_MAX;
use super::{Entries, LogError, Partition, PartitionLog, Position};

/// Bytes of the log at most: it is trimmed with every commit, so it never holds more than a few
/// batches.
pub const LOG_BYTES_MAX: u64 = 128 << 20;

/// Bytes read at a time.
const READ_BYTES_MAX: usize = 8 << 20;

/// What the journal calls the records.
const KIND: u32 = 1;

/// The log.
#[derive(Debug)]
pub struct EmbeddedLog {
    journal: Mutex<Journal>,
    reader: Mutex<JournalReader>,
}

impl EmbeddedLog {
    /// Opens the log in a directory, made if it is not there.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, identity: u128) -> Result<Self, LogError> {
        let mut options = Options::new(LOG_BYTES_MAX);
        options.record_bytes_max = RECORD_BYTES_MAX;
        let opened = Journal::open(disk, dir, options, identity);
        let (journal, recovery) = opened.map_err(|error: OpenError| io::Error::other(error))?;
        tracing::debug!(?recovery, "log open");
        let reader = Mutex::new(journal.reader());
        Ok(Self { journal: Mutex::new(journal), reader })
    }
}

impl PartitionLog for EmbeddedLog {
    fn append(&self, partition: Partition, batch: &[Vec<u8>]) -> Result<Position, LogError> {
        known(partition)?;
        let entries: Vec<Entry<'_>> =
            batch.iter().map(|payload| Entry { kind: KIND, payload }).collect();
        match self.journal.lock().append(&entries) {
            Ok(positions) => Ok(Position(positions.end.saturating_sub(1))),
            Err(AppendError::Size { bytes, max }) => Err(LogError::TooLarge { bytes, max }),
            Err(error) => Err(io::Error::other(error).into()),
        }
    }

    fn read(&self, partition: Partition, from: Position, max: usize) -> Result<Entries, LogError> {
        known(partition)?;
        let mut reader = self.reader.lock();
        let range = reader.range();
        let mut from = if range.end < from.0 { range.start } else { from.0 };
        while from < range.end {
            match reader.read(from, READ_BYTES_MAX) {
                Ok(records) => {
                    let entry =
                        |record: lens_journal::Record| (Position(record.position), record.payload);
                    return Ok(records.into_iter().take(max).map(entry).collect());
                }
                Err(ReadError::Damaged { position }) => {
                    tracing::warn!(position, "a damaged record of the log is passed over");
                    from = position.max(from).saturating_add(1);
                }
                Err(error) => return Err(io::Error::other(error).into()),
            }
        }
        Ok(Vec::new())
    }

    fn trim(&self, partition: Partition, to: Position) -> Result<(), LogError> {
        known(partition)?;
        Ok(self.journal.lock().trim(to.0.saturating_add(1))?)
    }
}

const fn known(partition: Partition) -> Result<(), LogError> {
    if partition.0 == 0 { Ok(()) } else { Err(LogError::Partition(partition.0)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Partition = Partition(0);

    fn open(dir: &Path) -> EmbeddedLog {
        EmbeddedLog::open(Arc::new(lens_journal::OsDisk), dir, 7).unwrap()
    }

    #[test]
    fn what_was_appended_is_read_in_order_after_reopening_and_trimming() {
        let dir = tempfile::tempdir().unwrap();
        let log = open(dir.path());
        let first = log.append(ONE, &[vec![1], vec![2]]).unwrap();
        let second = log.append(ONE, &[vec![3]]).unwrap();
        assert!(second > first);
        drop(log);
        let log = open(dir.path());
        let read = log.read(ONE, Position(0), 10).unwrap();
        assert_eq!(read.iter().map(|(_, bytes)| bytes[0]).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(log.read(ONE, second, 10).unwrap(), [(second, vec![3])]);
        assert_eq!(log.read(ONE, Position(second.0 + 1), 10).unwrap(), []);
        // Whole files go: what is asked for behind the mark is there, and nothing before it matters.
        log.trim(ONE, second).unwrap();
        let third = log.append(ONE, &[vec![4]]).unwrap();
        assert_eq!(log.read(ONE, Position(second.0 + 1), 10).unwrap(), [(third, vec![4])]);
    }

    #[test]
    fn a_log_that_was_begun_anew_is_read_from_its_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let log = open(dir.path());
        let at = log.append(ONE, &[vec![1]]).unwrap();
        assert_eq!(log.read(ONE, Position(5_000), 10).unwrap(), [(at, vec![1])]);
    }

    #[test]
    fn there_is_one_partition_and_a_largest_record() {
        let dir = tempfile::tempdir().unwrap();
        let log = open(dir.path());
        assert!(matches!(log.read(Partition(1), Position(0), 1), Err(LogError::Partition(1))));
        log.append(ONE, &[vec![0; RECORD_BYTES_MAX]]).unwrap();
        let refused = log.append(ONE, &[vec![0; RECORD_BYTES_MAX + 1]]);
        assert!(matches!(refused, Err(LogError::TooLarge { .. })), "{refused:?}");
    }
}
