//! Making a segment file: built and locked under a temporary name, then renamed into view.
//!
//! Why a lock: the kernel drops it the moment the process ends, however it ends, and the agent can
//! ask for it across PID namespaces; a pid or a heartbeat can do neither.
//! Promise: a reader never sees a half-built file. Everything but the blocks is allocated here, a
//! series' blocks when it is registered, so no store of the recorder meets a full filesystem.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FallocateFlags, FlockOperation, Mode, OFlags, fallocate, fchmod, flock, fstat,
    fstatfs, ftruncate, open, statat, unlink,
};
use rustix::io::{Errno, pwrite};

use crate::header::Header;
use crate::layout::{GAUGE_ENTRY_BYTES, Geometry, REQUESTS_ENTRY_BYTES};

/// What a segment's file name ends in.
pub(crate) const SUFFIX: &str = ".lens";
/// What a segment's file name ends in while it is built.
const SUFFIX_BUILDING: &str = ".lens.tmp";
/// Owner reads and writes, the agent's group reads.
const FILE_MODE: Mode = Mode::from_raw_mode(0o640);
/// Leftovers looked at in one sweep; a directory has far fewer.
const SWEEP_MAX: usize = 4_096;
/// `statfs` type of tmpfs.
const TMPFS: rustix::fs::FsWord = 0x0102_1994;

/// Why a recorder could not be created.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// A name of the node is not allowed. Remedy: 1 to 64 visible characters.
    #[error("{what} name {value:?} is not allowed: use 1 to 64 visible ASCII characters{}",
        if *.what == "instance" { " of a-z A-Z 0-9 . _ -, starting with a letter or digit" } else { "" })]
    Name {
        /// `service`, `version` or `instance`.
        what: &'static str,
        /// What was given, cut to a printable length.
        value: String,
    },
    /// Shards or series are zero or above their limit.
    #[error("{shards} shards and {series_max} series: use 1 to 64 shards and 1 to 256 series")]
    Options {
        /// Shards asked for.
        shards: usize,
        /// Series asked for.
        series_max: usize,
    },
    /// The filesystem has no room for the segment. Remedy: a larger tmpfs, or fewer series.
    #[error("{path}: no room on the filesystem for the segment's tables")]
    NoSpace {
        /// The file.
        path: PathBuf,
    },
    /// A system call failed.
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

fn failed(path: &Path, doing: &'static str) -> impl FnOnce(Errno) -> CreateError {
    let path = path.to_owned();
    move |errno| match errno {
        Errno::NOSPC | Errno::DQUOT => CreateError::NoSpace { path },
        _ => CreateError::Io { path, doing, source: errno.into() },
    }
}

/// A built, locked file under its temporary name.
pub(crate) struct Building {
    pub(crate) file: File,
    directory: PathBuf,
    temporary: PathBuf,
    name: String,
}

/// Creates, locks, sizes and fills the file. State is "building".
pub(crate) fn build(directory: &Path, header: &Header) -> Result<Building, CreateError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o750);
    builder.create(directory).map_err(|source| CreateError::Io {
        path: directory.to_owned(),
        doing: "create the directory",
        source,
    })?;
    sweep(directory);
    let short = header.incarnation >> 96;
    let name = format!("{}-{}-{short:08x}{SUFFIX}", header.instance, header.pid);
    let temporary = directory.join(format!(".{name}.tmp"));
    let path = temporary.as_path();
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(open(path, flags, FILE_MODE).map_err(failed(path, "create it"))?);
    let building = Building { file, directory: directory.to_owned(), temporary, name };
    if let Err(error) = building.fill(header) {
        discard(&building.temporary);
        return Err(error);
    }
    Ok(building)
}

impl Building {
    fn fill(&self, header: &Header) -> Result<(), CreateError> {
        let (file, path, geometry) = (&self.file, self.temporary.as_path(), header.geometry);
        flock(file, FlockOperation::NonBlockingLockExclusive).map_err(failed(path, "lock it"))?;
        // A sweeper that came between creation and lock holds the lock while it removes the file:
        // then either the lock failed above, or the name is gone.
        if fstat(file).map_err(failed(path, "stat it"))?.st_nlink != 1 {
            return Err(failed(path, "keep its name")(Errno::NOENT));
        }
        // Independent of the process's umask.
        fchmod(file, FILE_MODE).map_err(failed(path, "set its mode"))?;
        ftruncate(file, geometry.total_bytes() as u64).map_err(failed(path, "size it"))?;
        fallocate(file, FallocateFlags::empty(), 0, geometry.blocks_offset() as u64)
            .map_err(failed(path, "allocate its tables"))?;
        write_all(file, header.encode().as_slice(), 0).map_err(failed(path, "write its header"))
    }

    /// Gives the file its name; from here on readers see it.
    pub(crate) fn publish(self) -> Result<(File, PathBuf), CreateError> {
        let path = self.directory.join(&self.name);
        match rustix::fs::rename(&self.temporary, &path) {
            Ok(()) => Ok((self.file, path)),
            Err(errno) => {
                discard(&self.temporary);
                Err(failed(&path, "give it its name")(errno))
            }
        }
    }
}

/// Whether `file` lies in memory. On a disk, write-back stalls recording by tens of milliseconds.
pub(crate) fn is_in_memory(file: &File) -> bool {
    fstatfs(file).is_ok_and(|stat| stat.f_type == TMPFS)
}

/// Writes all of `bytes`: entries go in by `pwrite`, which needs no reference to shared memory.
pub(crate) fn write_all(file: &File, bytes: &[u8], offset: usize) -> Result<(), Errno> {
    let mut done = 0;
    while done < bytes.len() {
        match pwrite(file, &bytes[done..], (offset + done) as u64) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => done += written,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Allocates the blocks of one series.
pub(crate) fn allocate_series(file: &File, geometry: Geometry, at: usize) -> Result<(), Errno> {
    let (offset, bytes) = (geometry.chunk_offset(at) as u64, geometry.chunk_bytes() as u64);
    loop {
        match fallocate(file, FallocateFlags::empty(), offset, bytes) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Removes a hidden file; if that fails now, the next sweep does it.
fn discard(path: &Path) {
    unlink(path).ok();
}

/// Removes what killed processes left half-built: temporary files whose lock is free.
fn sweep(directory: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    for entry in entries.take(SWEEP_MAX).flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.starts_with('.') && name.ends_with(SUFFIX_BUILDING) {
            remove_if_free(&directory.join(name));
        }
    }
}

/// Unlinks `path` while holding its lock, so that no creator can be between its own two steps.
fn remove_if_free(path: &Path) {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let Ok(file) = open(path, flags, Mode::empty()) else {
        return;
    };
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return;
    }
    let same = match (fstat(&file), statat(rustix::fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW)) {
        (Ok(held), Ok(named)) => held.st_ino == named.st_ino && held.st_dev == named.st_dev,
        _ => false,
    };
    if same {
        discard(path);
    }
}

const _: () =
    assert!(REQUESTS_ENTRY_BYTES.is_multiple_of(8) && GAUGE_ENTRY_BYTES.is_multiple_of(8));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leftover_without_an_owner_is_swept_and_one_being_built_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let left = directory.path().join(".dead-1-00000000.lens.tmp");
        let held = directory.path().join(".alive-2-00000000.lens.tmp");
        let other = directory.path().join("unrelated.lens.tmp");
        for path in [&left, &held, &other] {
            std::fs::write(path, b"half").unwrap();
        }
        let lock = File::open(&held).unwrap();
        flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
        sweep(directory.path());
        assert!(!left.exists() && held.exists() && other.exists());
    }
}
