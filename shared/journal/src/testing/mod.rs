//! A disk in memory that tears, forgets and fails, the same way for the same seed.
//!
//! It holds to what POSIX promises and to nothing more. Bytes written and not synced may survive a
//! crash whole, by 512-byte sector, or not at all, in any order; so may names given and not synced.
//! A `sync` that fails leaves its bytes readable but settles by chance which of them would survive:
//! a later `sync` that succeeds does not bring them back. Space is bounded. Power can be cut before
//! any operation that changes something, so that a test can go through all of them.

mod file;
mod state;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile, DiskLock};
use file::{FaultyFile, FaultyLock};
use state::{NameOp, State};

pub use state::Crash;

/// The disk. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct FaultyDisk(Arc<Mutex<State>>);

impl FaultyDisk {
    /// An empty disk whose chances all follow from the seed.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State::new(seed))))
    }

    /// Bytes it holds at most from now on.
    pub fn set_capacity(&self, bytes: u64) {
        self.0.lock().capacity = bytes;
    }

    /// Bytes that files with a name take up.
    pub fn used(&self) -> u64 {
        self.0.lock().used()
    }

    /// Lets the `nth` sync from now on fail with EIO, of a file or a directory; 1 is the next.
    pub fn fail_sync(&self, nth: u64) {
        let mut state = self.0.lock();
        let at = state.syncs + nth;
        state.failing_syncs.insert(at);
    }

    /// Lets the `nth` read from now on fail with EIO; 1 is the next.
    pub fn fail_read(&self, nth: u64) {
        let mut state = self.0.lock();
        let at = state.reads + nth;
        state.failing_reads.insert(at);
    }

    /// Cuts the power before the `nth` operation that changes something, from now on; 1 is the
    /// next. That one and all later ones fail until [`FaultyDisk::crash`].
    pub fn power_off_before(&self, nth: u64) {
        let mut state = self.0.lock();
        state.power_off = Some(state.operations + nth - 1);
    }

    /// Operations so far that changed something, syncs among them.
    pub fn operations(&self) -> u64 {
        self.0.lock().operations
    }

    /// Syncs so far, of files and directories.
    pub fn syncs(&self) -> u64 {
        self.0.lock().syncs
    }

    /// The machine loses power and starts again: open files and locks are dead, and of what was not
    /// synced remains what `crash` says.
    pub fn crash(&self, crash: Crash) {
        self.0.lock().crash(crash);
    }

    /// The process that uses the disk is killed: open files and locks are dead, nothing is lost.
    pub fn kill(&self) {
        self.0.lock().kill();
    }

    /// Every file is gone, durably: the disk was replaced.
    pub fn wipe(&self) {
        let mut state = self.0.lock();
        state.kill();
        state.dirs.clear();
        state.inodes.clear();
    }

    /// Turns bits of a byte over, in memory and on the medium; false when there is no such byte.
    pub fn flip(&self, path: &Path, at: u64, bits: u8) -> bool {
        self.0.lock().flip(path, at, bits)
    }

    /// The whole of a file as a reader sees it.
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.0.lock();
        let inode = state.find(path)?;
        Some(state.inodes.get(&inode)?.current.clone())
    }

    /// Puts a file there, durably, whatever was there before.
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        self.0.lock().put(path, bytes);
    }
}

fn split(path: &Path) -> io::Result<(PathBuf, OsString)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    Ok((path.parent().unwrap_or(Path::new("")).to_owned(), name.to_owned()))
}

impl FaultyDisk {
    fn opened(&self, inode: u64) -> Box<dyn DiskFile> {
        let life = self.0.lock().life;
        Box::new(FaultyFile { disk: Arc::clone(&self.0), inode, life })
    }
}

impl Disk for FaultyDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        // Directories are durable at once: what is tested is the files in them.
        self.0.lock().dirs.entry(dir.to_owned()).or_default();
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let (dir, name) = split(path)?;
        let inode = {
            let mut state = self.0.lock();
            state.operation()?;
            let inode = state.new_inode();
            let held = state.dirs.get_mut(&dir).ok_or(io::ErrorKind::NotFound)?;
            if held.current.contains_key(&name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            held.apply(NameOp::Create(name, inode));
            inode
        };
        Ok(self.opened(inode))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let inode = self.0.lock().find(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.opened(inode))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        let state = self.0.lock();
        let held = state.dirs.get(dir).ok_or(io::ErrorKind::NotFound)?;
        Ok(held.current.keys().cloned().collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let ((dir, from), (other, to)) = (split(from)?, split(to)?);
        if dir != other {
            return Err(io::Error::other("a name moves within its directory only"));
        }
        let mut state = self.0.lock();
        state.operation()?;
        let held = state.dirs.get_mut(&dir).ok_or(io::ErrorKind::NotFound)?;
        if !held.current.contains_key(&from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        held.apply(NameOp::Rename(from, to));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let (dir, name) = split(path)?;
        let mut state = self.0.lock();
        state.operation()?;
        let held = state.dirs.get_mut(&dir).ok_or(io::ErrorKind::NotFound)?;
        if !held.current.contains_key(&name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        held.apply(NameOp::Remove(name));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.lock().sync_dir(dir)
    }

    fn lock(&self, dir: &Path) -> io::Result<Box<dyn DiskLock>> {
        let mut state = self.0.lock();
        if !state.locks.insert(dir.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let life = state.life;
        Ok(Box::new(FaultyLock { disk: Arc::clone(&self.0), dir: dir.to_owned(), life }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> (FaultyDisk, PathBuf) {
        let disk = FaultyDisk::new(1);
        disk.create_dir_all(Path::new("/d")).unwrap();
        (disk, PathBuf::from("/d/f"))
    }

    #[test]
    fn what_was_not_synced_is_lost_with_the_power() {
        let (disk, path) = disk();
        let file = disk.create(&path).unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        file.write_at(b"kept", 0).unwrap();
        file.sync().unwrap();
        file.write_at(b"lost", 4).unwrap();
        disk.crash(Crash::Nothing);
        assert_eq!(disk.contents(&path).unwrap(), b"kept");
        assert!(file.write_at(b"x", 0).is_err(), "a file of before the crash is dead");
    }

    #[test]
    fn a_name_whose_directory_was_not_synced_is_lost_with_the_power() {
        let (disk, path) = disk();
        disk.create(&path).unwrap().sync().unwrap();
        disk.crash(Crash::Nothing);
        assert_eq!(disk.contents(&path), None);
    }

    #[test]
    fn bytes_of_a_sync_that_failed_do_not_come_back_with_one_that_succeeds() {
        let lost = (0..64).any(|seed| {
            let disk = FaultyDisk::new(seed);
            disk.create_dir_all(Path::new("/d")).unwrap();
            let file = disk.create(Path::new("/d/f")).unwrap();
            disk.sync_dir(Path::new("/d")).unwrap();
            file.write_at(b"bytes", 0).unwrap();
            disk.fail_sync(1);
            assert!(file.sync().is_err());
            file.sync().unwrap();
            let mut seen = [0; 5];
            assert_eq!(file.read_at(&mut seen, 0).unwrap(), 5);
            disk.crash(Crash::Nothing);
            disk.contents(Path::new("/d/f")).unwrap() != b"bytes"
        });
        assert!(lost);
    }

    #[test]
    fn a_full_disk_takes_what_fits_and_gives_its_space_back() {
        let (disk, path) = disk();
        disk.set_capacity(10);
        let file = disk.create(&path).unwrap();
        let full = file.write_at(&[7; 12], 0).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        assert_eq!(file.length().unwrap(), 10);
        assert!(file.allocate(11).is_err());
        disk.remove(&path).unwrap();
        assert_eq!(disk.used(), 0);
    }

    #[test]
    fn the_same_seed_tears_the_same_way() {
        let run = |seed| {
            let disk = FaultyDisk::new(seed);
            disk.create_dir_all(Path::new("/d")).unwrap();
            let file = disk.create(Path::new("/d/f")).unwrap();
            disk.sync_dir(Path::new("/d")).unwrap();
            file.write_at(&[1; 9_000], 100).unwrap();
            disk.crash(Crash::AnyPart);
            disk.contents(Path::new("/d/f")).unwrap()
        };
        assert_eq!(run(5), run(5));
        assert!((0..20).any(|seed| run(seed) != run(5)));
    }

    #[test]
    fn nothing_changes_once_the_power_is_off() {
        let (disk, path) = disk();
        disk.power_off_before(2);
        let file = disk.create(&path).unwrap();
        assert!(file.write_at(b"x", 0).is_err());
        assert!(disk.sync_dir(Path::new("/d")).is_err());
        disk.crash(Crash::Everything);
        assert_eq!(disk.contents(&path).unwrap(), b"");
    }
}
