//! Why a segment is not read: refused at the door, put aside later, or a passing failure.

use std::io;
use std::path::PathBuf;

use crate::entry::EntryFault;
use crate::header::HeaderFault;

/// Why a segment was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The path is a symbolic link; segments never are.
    #[error("{path}: is a symbolic link")]
    Symlink {
        /// The file.
        path: PathBuf,
    },
    /// The path names a directory, a pipe or a device.
    #[error("{path}: is not a regular file")]
    NotRegular {
        /// The file.
        path: PathBuf,
    },
    /// The file has another name elsewhere, or none any more.
    #[error("{path}: has {links} names, a segment has one")]
    Links {
        /// The file.
        path: PathBuf,
        /// Names it has.
        links: u64,
    },
    /// The file belongs to a user the policy does not list.
    #[error("{path}: belongs to user {uid}, which the policy does not allow")]
    Owner {
        /// The file.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// Others than the owner may write the file.
    #[error("{path}: mode {mode:o} lets others than its owner write")]
    Writable {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is not as long as its header says.
    #[error("{path}: is {bytes} bytes long, its layout needs {expected}")]
    Size {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
        /// What its layout needs; the header alone where that could not be read.
        expected: u64,
    },
    /// The file is larger than the policy allows.
    #[error("{path}: is {bytes} bytes long, the policy allows {bytes_max}")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
        /// The policy's limit.
        bytes_max: u64,
    },
    /// The header makes no sense.
    #[error("{path}: {fault}")]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: HeaderFault,
    },
    /// The segment is not ready. Remedy: try again at the next scan.
    #[error("{path}: is still being built")]
    Building {
        /// The file.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("{path}: cannot {doing}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// What an opened segment did that no recorder does. It is not read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Quarantine {
    /// The file became shorter.
    #[error("it was truncated")]
    Truncated,
    /// Its state is none of building, ready, closed, or went back.
    #[error("its state is {state}")]
    State {
        /// What it held.
        state: u32,
    },
    /// A table's length shrank or is above its limit.
    #[error("its {table} table says {length} entries after {before}, of at most {limit}")]
    Length {
        /// Which table.
        table: &'static str,
        /// What it says now.
        length: u32,
        /// What it said before.
        before: u32,
        /// The limit.
        limit: usize,
    },
    /// The mask of used shards lost a bit or has one beyond the last shard.
    #[error("its mask of used shards is {mask:#x} after {before:#x}")]
    Shards {
        /// What it says now.
        mask: u64,
        /// What it said before.
        before: u64,
    },
    /// A published entry makes no sense.
    #[error("entry {index} of its {table} table: {fault}")]
    Entry {
        /// Which table.
        table: &'static str,
        /// Which entry.
        index: usize,
        /// What is wrong.
        fault: EntryFault,
    },
    /// Two entries of a table name the same thing.
    #[error("entry {index} of its {table} table repeats an earlier one")]
    Repeated {
        /// Which table.
        table: &'static str,
        /// The later entry.
        index: usize,
    },
    /// A counter went back: a hole was punched, the file was rolled back, or it holds garbage.
    #[error("a counter of series {series} went back in shard {shard}")]
    Backward {
        /// The series, by order of registration.
        series: usize,
        /// The shard.
        shard: usize,
    },
    /// A request counter went back.
    #[error("request counter {index} went back")]
    RequestsBackward {
        /// The counter, by order of registration.
        index: usize,
    },
    /// More was counted than the time allows.
    #[error("it counted {counted} in a time that allows {ceiling}")]
    Implausible {
        /// What it counted.
        counted: u64,
        /// What the time allows.
        ceiling: u64,
    },
}

/// Why a harvest yielded nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HarvestError {
    /// The segment makes no sense and is put aside for good. Remedy: look at its owner; remove the
    /// file once it is gone.
    #[error("{path}: quarantined: {why}")]
    Quarantined {
        /// The file.
        path: PathBuf,
        /// What it did.
        why: Quarantine,
    },
    /// A read failed. Remedy: try again at the next harvest; nothing is lost.
    #[error("{path}: cannot read: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Either kind, before the file's name is added.
#[derive(Debug)]
pub(super) enum Fault {
    Senseless(Quarantine),
    Io(io::Error),
}

impl From<Quarantine> for Fault {
    fn from(why: Quarantine) -> Self {
        Self::Senseless(why)
    }
}
