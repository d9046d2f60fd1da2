//! A disk that remembers whether a sync failed.
//!
//! After a failed sync the system may call pages clean that never reached the disk, and a database
//! that reads them back would take them for durable. So the file they belong to is abandoned: its
//! bytes, as they are read now, are written to another file, and that one is synced and takes the
//! name. Until then the disk has room for both; a copy that fails is removed again, and one that
//! power was lost in is removed when the directory is taken.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lens_journal::{Disk, DiskFile, DiskLock};
use tracing::warn;

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

    /// Removes what is left of a copy of `name` in `dir`.
    ///
    /// # Errors
    /// The operating system's.
    pub(super) fn forget_copy(&self, dir: &Path, name: &str) -> io::Result<()> {
        match self.disk.remove(&copy_of(dir, name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Gives `name` in `dir` a new file with the same bytes, synced, if a sync failed before.
    ///
    /// # Errors
    /// The operating system's; then the old file still has the name and is still not trusted, and
    /// there is no new one.
    pub(super) fn renew(&self, dir: &Path, name: &str) -> io::Result<()> {
        if !self.distrusted.load(Ordering::Acquire) {
            return Ok(());
        }
        self.forget_copy(dir, name)?;
        let (old, new) = (dir.join(name), copy_of(dir, name));
        if let Err(error) = self.copy(&old, &new).and_then(|()| self.disk.rename(&new, &old)) {
            // A disk that is full stays full with half a copy on it.
            if let Err(left) = self.forget_copy(dir, name) {
                warn!(file = %new.display(), error = %left, "half a copy is left");
            }
            return Err(error);
        }
        self.disk.sync_dir(dir)?;
        self.distrusted.store(false, Ordering::Release);
        Ok(())
    }

    /// Writes the bytes of one file into another, new one, and syncs that.
    fn copy(&self, old: &Path, new: &Path) -> io::Result<()> {
        let (from, to) = (self.disk.open(old)?, self.disk.create(new)?);
        let (mut at, mut chunk) = (0, vec![0; CHUNK]);
        loop {
            let read = from.read_at(&mut chunk, at)?;
            if read == 0 {
                return to.sync();
            }
            to.write_at(&chunk[..read], at)?;
            at += read as u64;
        }
    }
}

fn copy_of(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.new"))
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

#[cfg(test)]
mod tests {
    use super::*;
    use lens_journal::testing::{Crash, FaultyDisk};

    const DIR: &str = "/store";

    /// A disk on which `db` holds so many bytes, and is not trusted.
    fn distrusting(bytes: usize) -> (FaultyDisk, WatchedDisk) {
        let disk = FaultyDisk::new(1);
        disk.create_dir_all(Path::new(DIR)).unwrap();
        disk.put(Path::new("/store/db"), &vec![7; bytes]);
        let watched = WatchedDisk::new(Arc::new(disk.clone()));
        watched.distrusted.store(true, Ordering::Release);
        (disk, watched)
    }

    fn names(disk: &FaultyDisk) -> Vec<OsString> {
        disk.list(Path::new(DIR)).unwrap()
    }

    #[test]
    fn a_file_whose_sync_failed_gets_a_new_one_with_the_same_bytes() {
        let (disk, watched) = distrusting(3 * CHUNK / 2);
        watched.renew(Path::new(DIR), "db").unwrap();
        assert_eq!(disk.contents(Path::new("/store/db")), Some(vec![7; 3 * CHUNK / 2]));
        assert_eq!(names(&disk), ["db"]);
        assert!(!watched.distrusted.load(Ordering::Acquire));
    }

    #[test]
    fn a_copy_there_is_no_room_for_leaves_nothing_and_is_made_once_there_is() {
        let (disk, watched) = distrusting(3 * CHUNK / 2);
        disk.set_capacity(disk.used() + CHUNK as u64);
        for _ in 0..2 {
            watched.renew(Path::new(DIR), "db").unwrap_err();
            assert_eq!(names(&disk), ["db"]);
            assert!(watched.distrusted.load(Ordering::Acquire));
        }
        disk.set_capacity(u64::MAX);
        watched.renew(Path::new(DIR), "db").unwrap();
        assert_eq!(names(&disk), ["db"]);
    }

    #[test]
    fn a_copy_that_cannot_be_synced_leaves_nothing() {
        let (disk, watched) = distrusting(CHUNK);
        disk.fail_sync(1);
        watched.renew(Path::new(DIR), "db").unwrap_err();
        assert_eq!(names(&disk), ["db"]);
        watched.renew(Path::new(DIR), "db").unwrap();
        assert_eq!(disk.contents(Path::new("/store/db")), Some(vec![7; CHUNK]));
    }

    #[test]
    fn half_a_copy_from_before_the_power_went_is_removed_when_the_place_is_taken() {
        let (disk, _) = distrusting(CHUNK);
        disk.put(Path::new("/store/windows.redb.new"), &[7; 10]);
        disk.crash(Crash::AnyPart);
        let config = super::super::StoreConfig { dir: DIR.into(), ..Default::default() };
        let taken = Arc::new(disk.clone());
        super::super::Place::take(taken, config, lens_service::planted::PlantedSet::NONE).unwrap();
        assert!(!names(&disk).contains(&"windows.redb.new".into()), "{:?}", names(&disk));
    }
}
