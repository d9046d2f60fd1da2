//! The disk as durable code sees it: few operations, each of which may fail.

use std::ffi::OsString;
use std::fmt::Debug;
use std::io;
use std::path::Path;

/// A file system, or a simulation of one. Blocking; call it off the threads that serve the network.
pub trait Disk: Send + Sync + Debug {
    /// Makes directories, parents included; one that exists already is no error.
    ///
    /// # Errors
    /// The operating system's.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Makes an empty file, readable by its owner alone, open for reading and writing.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`], or the operating system's.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Opens an existing file for reading and writing; a symbolic link is not followed.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`], or the operating system's.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Names of the files in a directory, in byte order.
    ///
    /// # Errors
    /// The operating system's.
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>>;

    /// Gives a file another name, in place of what had it. Durable after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// The operating system's.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Durable after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// The operating system's.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// The operating system's; then no name given since the last success is to be relied on.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes a directory for this process alone until the lock is dropped or the process ends.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when another process has it.
    fn lock(&self, dir: &Path) -> io::Result<Box<dyn DiskLock>>;
}

/// An open file.
pub trait DiskFile: Send + Sync + Debug {
    /// Its length, bytes.
    ///
    /// # Errors
    /// The operating system's.
    fn length(&self) -> io::Result<u64>;

    /// Fills `buffer` from offset `at`; returns less than its length only at the end of the file.
    ///
    /// # Errors
    /// The operating system's.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at offset `at`. Durable after [`DiskFile::sync`]; until then any part
    /// of it may be.
    ///
    /// # Errors
    /// The operating system's, [`io::ErrorKind::StorageFull`] among them; part may be written.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;

    /// Makes the file `length` long, new bytes zero, with their space reserved so that writing
    /// them cannot run out of it.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`], or the operating system's; the length is then unchanged or
    /// shorter than asked.
    fn allocate(&self, length: u64) -> io::Result<()>;

    /// Makes the file `length` long without reserving space.
    ///
    /// # Errors
    /// The operating system's.
    fn set_len(&self, length: u64) -> io::Result<()>;

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// The operating system's. What was written since the last success is then neither durable nor
    /// not: write it again elsewhere, never call this again and believe it.
    fn sync(&self) -> io::Result<()>;
}

/// A directory taken for this process.
pub trait DiskLock: Send + Sync + Debug {}
