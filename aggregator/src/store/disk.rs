//! A disk that remembers whether a sync failed.
//!
//! After a failed sync the system may call pages clean that never reached the disk, and a database
//! that reads them back would take them for durable. So the file they belong to is abandoned: its
//! bytes, as they are read now, are written to another file, and that one is synced and takes the
//! name. Nothing more is written into the old one, so that what a power loss leaves of it is the last
//! commit that was durable. A mark beside it says so to the next process, which would read the pages
//! and believe them. The disk must have room for both; a copy that fails is removed again, and one
//! that power was lost in is removed when the directory is taken.

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
pub(crate) struct WatchedDisk {
    disk: Arc<dyn Disk>,
    /// Set once a sync of a file failed.
    distrusted: Arc<AtomicBool>,
}

#[derive(Debug)]
struct WatchedFile {
    disk: WatchedDisk,
    path: PathBuf,
    file: Box<dyn DiskFile>,
    failed: AtomicBool,
}

impl WatchedDisk {
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, distrusted: Arc::default() }
    }

    fn watch(&self, path: &Path, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        let (disk, path, failed) = (self.clone(), path.to_owned(), AtomicBool::new(false));
        Box::new(WatchedFile { disk, path, file, failed })
    }

    /// Notes that a file is not to be trusted, for this process and, as far as the disk still takes
    /// it, for the next.
    fn distrust(&self, path: &Path) {
        self.distrusted.store(true, Ordering::Release);
        let marked = match self.disk.create(&mark_of(path)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return,
            made => made.and_then(|_| self.disk.sync_dir(path.parent().unwrap_or(path))),
        };
        if let Err(error) = marked {
            warn!(file = %path.display(), %error, "not marked as one whose sync failed");
        }
    }

    /// Removes what is left of a copy of `name` in `dir`.
    ///
    /// # Errors
    /// The operating system's.
    pub(crate) fn forget_copy(&self, dir: &Path, name: &str) -> io::Result<()> {
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
    pub(crate) fn renew(&self, dir: &Path, name: &str) -> io::Result<()> {
        let (old, new) = (dir.join(name), copy_of(dir, name));
        let mark = mark_of(&old);
        let marked = self.disk.open(&mark).is_ok();
        if !marked && !self.distrusted.load(Ordering::Acquire) {
            return Ok(());
        }
        self.forget_copy(dir, name)?;
        if let Err(error) = self.copy(&old, &new).and_then(|()| self.disk.rename(&new, &old)) {
            // A disk that is full stays full with half a copy on it.
            if let Err(left) = self.forget_copy(dir, name) {
                warn!(file = %new.display(), error = %left, "half a copy is left");
            }
            return Err(error);
        }
        self.disk.sync_dir(dir)?;
        self.distrusted.store(false, Ordering::Release);
        if marked {
            // A mark that stays costs another copy, no more.
            self.disk.remove(&mark).and_then(|()| self.disk.sync_dir(dir))?;
        }
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

fn mark_of(path: &Path) -> PathBuf {
    path.with_added_extension("distrusted")
}

impl Disk for WatchedDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir_all(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.watch(path, self.disk.create(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.watch(path, self.disk.open(path)?))
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
        self.trusted()?;
        self.file.write_at(bytes, at)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        self.trusted()?;
        self.file.allocate(length)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.trusted()?;
        self.file.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.trusted()?;
        let synced = self.file.sync();
        if synced.is_err() {
            self.failed.store(true, Ordering::Release);
            self.disk.distrust(&self.path);
        }
        synced
    }
}

impl WatchedFile {
    fn trusted(&self) -> io::Result<()> {
        if self.failed.load(Ordering::Acquire) {
            return Err(io::Error::other("a sync of this file failed: it takes nothing more"));
        }
        Ok(())
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
    fn a_file_whose_sync_failed_takes_nothing_more_and_the_next_process_copies_it() {
        let disk = FaultyDisk::new(1);
        let watched = WatchedDisk::new(Arc::new(disk.clone()));
        watched.create_dir_all(Path::new(DIR)).unwrap();
        let file = watched.create(Path::new("/store/db")).unwrap();
        watched.sync_dir(Path::new(DIR)).unwrap();
        file.write_at(&[7; 2_000], 0).unwrap();
        disk.fail_sync(1);
        file.sync().unwrap_err();
        file.sync().unwrap_err();
        file.write_at(&[8; 10], 0).unwrap_err();
        disk.kill();
        let next = WatchedDisk::new(Arc::new(disk.clone()));
        next.renew(Path::new(DIR), "db").unwrap();
        disk.crash(Crash::Nothing);
        assert_eq!(disk.contents(Path::new("/store/db")), Some(vec![7; 2_000]));
        assert_eq!(names(&disk), ["db"]);
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
