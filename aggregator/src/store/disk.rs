//! A disk that remembers whether a sync failed.
//!
//! After a failed sync the system may call pages clean that never reached the disk, and a database
//! that reads them back would take them for durable. So the file they belong to is abandoned: its
//! bytes, as they are read now, are written to another file, and that one is synced and takes the
//! name.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lens_journal::{Disk, DiskFile, DiskLock};

/// Bytes copied at a time.
const CHUNK: usize = 1 << 20;

/// The disk.
#[derive(Clone, Debug)]
pub(super) struct WatchedDisk {
    disk: Arc<dyn Disk>,
    /// Set once a sync of a file failed.
    pub(super) distrusted: Arc<AtomicBool>,
}

#[derive(Debug)]
struct WatchedFile {
    file: Box<dyn DiskFile>,
    distrusted: Arc<AtomicBool>,
}

impl WatchedDisk {
    pub(super) fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, distrusted: Arc::default() }
    }

    fn watch(&self, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(WatchedFile { file, distrusted: Arc::clone(&self.distrusted) })
    }

    /// Gives `name` in `dir` a new file with the same bytes, synced, if a sync failed before.
    ///
    /// # Errors
    /// The operating system's; then the old file still has the name and is still not trusted.
    pub(super) fn renew(&self, dir: &Path, name: &str) -> io::Result<()> {
        if !self.distrusted.load(Ordering::Acquire) {
            return Ok(());
        }
        let (old, new) = (dir.join(name), dir.join(format!("{name}.new")));
        match self.disk.remove(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let (from, to) = (self.disk.open(&old)?, self.disk.create(&new)?);
        let (mut at, mut chunk) = (0, vec![0; CHUNK]);
        loop {
            let read = from.read_at(&mut chunk, at)?;
            if read == 0 {
                break;
            }
            to.write_at(&chunk[..read], at)?;
            at += read as u64;
        }
        to.sync()?;
        self.disk.rename(&new, &old)?;
        self.disk.sync_dir(dir)?;
        self.distrusted.store(false, Ordering::Release);
        Ok(())
    }
}

impl Disk for WatchedDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir_all(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.watch(self.disk.create(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.watch(self.disk.open(path)?))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        self.disk.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn lock(&self, dir: &Path) -> io::Result<Box<dyn DiskLock>> {
        self.disk.lock(dir)
    }
}

impl DiskFile for WatchedFile {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.file.read_at(buffer, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.file.write_at(bytes, at)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        self.file.allocate(length)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        let synced = self.file.sync();
        if synced.is_err() {
            self.distrusted.store(true, Ordering::Release);
        }
        synced
    }
}
