//! Why a journal was not opened, not written, not read.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why a journal was not opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has the directory.
    #[error("{dir}: is in use by another process: give each its own directory")]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// There are more files than a journal has.
    #[error("{dir}: holds {files} journal files, at most {max} are expected")]
    TooManyFiles {
        /// The directory.
        dir: PathBuf,
        /// Files found.
        files: usize,
        /// The limit.
        max: usize,
    },
    /// The disk failed.
    #[error("{path}: cannot {doing}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// Why a batch was not made durable. Nothing of it is visible, and the same or another batch may be
/// appended later.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The journal has reached its bound.
    #[error("the journal is full: {bytes} of {bytes_max} bytes are in use")]
    Full {
        /// Bytes its files take up.
        bytes: u64,
        /// The bound.
        bytes_max: u64,
    },
    /// The disk has no room for another file, and there is no reserve.
    #[error("the disk is full")]
    DiskFull,
    /// A record is larger than the journal takes, or a batch is empty.
    #[error(
        "a record of {bytes} bytes: a journal's have at most {max}, a batch one record or more"
    )]
    Size {
        /// Bytes of the record; 0 when the batch is empty.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The disk failed; the file is abandoned and the next batch goes to another.
    #[error("{path}: cannot {doing}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// Why records were not read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The record was whole when it was written and is not now.
    #[error("record {position} of the journal is damaged")]
    Damaged {
        /// Its position.
        position: u64,
    },
    /// The disk failed.
    #[error("record {position} of the journal cannot be read: {source}")]
    Io {
        /// Its position.
        position: u64,
        /// What the system said.
        source: io::Error,
    },
}
