//! A host's disk as one life uses it: the faulty disk, watched, and struck at a chosen operation.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lens_journal::testing::FaultyDisk;
use lens_journal::{Disk, DiskFile, DiskLock};

use super::life::Life;
use super::network::HostId;
use super::trace::Trace;

/// What a life's disk and its open files share.
#[derive(Clone, Debug)]
pub(super) struct HostDisk {
    pub(super) host: HostId,
    pub(super) disk: FaultyDisk,
    pub(super) life: Arc<Life>,
    pub(super) trace: Trace,
    /// Syncs so far.
    pub(super) syncs: Arc<AtomicU64>,
    /// Changes left before the life is struck down; 0 when it is not to be.
    pub(super) strike_after: Arc<AtomicU64>,
}

impl HostDisk {
    /// Notes a change that is about to be made, and refuses it once the life is over.
    fn change(&self, what: &str, numbers: &[u64], bytes: &[u8]) -> io::Result<()> {
        if self.strike_after.load(Ordering::Relaxed) > 0
            && self.strike_after.fetch_sub(1, Ordering::Relaxed) == 1
        {
            self.life.cut();
        }
        if self.life.is_over() {
            return Err(io::Error::other("the host is down"));
        }
        let mut all = vec![self.host as u64];
        all.extend_from_slice(numbers);
        self.trace.add(self.life.now(), what, &all, bytes);
        Ok(())
    }

    fn opened(&self, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(HostFile { host: self.clone(), file })
    }

    fn named(&self, what: &str, path: &Path) -> io::Result<()> {
        self.change(what, &[], path.as_os_str().as_encoded_bytes())
    }
}

impl Disk for HostDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.named("create_dir_all", dir)?;
        self.disk.create_dir_all(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.named("create", path)?;
        Ok(self.opened(self.disk.create(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.opened(self.disk.open(path)?))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        self.disk.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.named("rename from", from)?;
        self.named("rename to", to)?;
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.named("remove", path)?;
        self.disk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.named("sync_dir", dir)?;
        self.disk.sync_dir(dir)
    }

    fn lock(&self, dir: &Path) -> io::Result<Box<dyn DiskLock>> {
        self.disk.lock(dir)
    }
}

#[derive(Debug)]
struct HostFile {
    host: HostDisk,
    file: Box<dyn DiskFile>,
}

impl DiskFile for HostFile {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.file.read_at(buffer, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.host.change("write", &[at], bytes)?;
        self.file.write_at(bytes, at)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        self.host.change("allocate", &[length], &[])?;
        self.file.allocate(length)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.host.change("set_len", &[length], &[])?;
        self.file.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.host.syncs.fetch_add(1, Ordering::Relaxed);
        self.host.change("sync", &[], &[])?;
        self.file.sync()
    }
}
