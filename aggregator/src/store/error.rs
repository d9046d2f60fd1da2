//! Why the store could not do what it was asked.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// A failure of the store. Whatever was under way is durable as a whole or not at all; which of the
/// two, reopening tells.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The directory cannot be used.
    #[error("store.dir {}: {source}: name a directory this process may write to", dir.display())]
    Dir {
        /// Which.
        dir: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another process has the directory.
    #[error("store.dir {} is another aggregator's: end that one, or name another directory", dir.display())]
    Locked {
        /// Which.
        dir: PathBuf,
    },
    /// It was written in a format this program does not know.
    #[error(
        "the store's format is {found}, this program reads {known}: use the program that wrote it"
    )]
    Format {
        /// What it says.
        found: u64,
        /// What is read.
        known: u64,
    },
    /// A row is not what it was written as.
    #[error("the store's table {0} holds a row this program did not write")]
    Row(&'static str),
    /// The engine, or the disk under it.
    #[error("the store: {0}")]
    Engine(#[from] Box<redb::Error>),
    /// The disk beside the engine.
    #[error("the store: {0}")]
    Io(#[from] io::Error),
}

macro_rules! engine {
    ($($error:ty),*) => {
        $(impl From<$error> for StoreError {
            fn from(error: $error) -> Self {
                Self::Engine(Box::new(error.into()))
            }
        })*
    };
}

engine!(
    redb::CommitError,
    redb::DatabaseError,
    redb::SetDurabilityError,
    redb::StorageError,
    redb::TableError,
    redb::TransactionError
);
