//! Durable records on a disk that may fail.
//!
//! [`Disk`] is the one seam between everything durable in lens (spool, log, windows, audit) and the
//! file system: [`OsDisk`] is the real one, and the world simulator in `tests/` brings one that
//! tears, forgets and fails. What stands behind the seam may assume nothing that POSIX does not
//! promise: written bytes are durable after [`DiskFile::sync`], names after [`Disk::sync_dir`], and
//! a `sync` that failed says nothing about the bytes, now or later.
#![forbid(unsafe_code)]

mod database;
mod disk;
mod journal;
mod os;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod whole;

pub use database::database;
pub use disk::{Disk, DiskFile, DiskLock};
#[cfg(any(test, feature = "planted"))]
pub use journal::Mistakes;
pub use journal::{
    AppendError, Damage, Entry, FILES_MAX, Journal, JournalReader, Level, OpenError, Options,
    ReadError, Record, Recovery,
};
pub use os::OsDisk;
pub use whole::{read_whole, replace_whole};
