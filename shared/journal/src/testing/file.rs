//! Open files and locks of the faulty disk.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use super::state::{State, eio};
use crate::disk::{DiskFile, DiskLock};

#[derive(Debug)]
pub(super) struct FaultyFile {
    pub(super) disk: Arc<Mutex<State>>,
    pub(super) inode: u64,
    pub(super) life: u64,
}

impl FaultyFile {
    fn with<T>(&self, act: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.lock();
        if state.life != self.life {
            return Err(io::Error::other("the file was opened before the crash"));
        }
        act(&mut state)
    }
}

impl DiskFile for FaultyFile {
    fn length(&self) -> io::Result<u64> {
        self.with(|state| {
            let held = state.inodes.get(&self.inode).ok_or_else(eio)?;
            Ok(held.current.len() as u64)
        })
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.with(|state| {
            state.reads += 1;
            if state.failing_reads.remove(&state.reads) {
                return Err(eio());
            }
            let held = state.inodes.get(&self.inode).ok_or_else(eio)?;
            let from = usize::try_from(at).unwrap_or(usize::MAX).min(held.current.len());
            let read = buffer.len().min(held.current.len() - from);
            buffer[..read].copy_from_slice(&held.current[from..from + read]);
            Ok(read)
        })
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.with(|state| state.write(self.inode, at, bytes))
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        self.with(|state| state.resize(self.inode, length, true))
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.with(|state| state.resize(self.inode, length, false))
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|state| state.sync_file(self.inode))
    }
}

#[derive(Debug)]
pub(super) struct FaultyLock {
    pub(super) disk: Arc<Mutex<State>>,
    pub(super) dir: PathBuf,
    pub(super) life: u64,
}

impl DiskLock for FaultyLock {}

impl Drop for FaultyLock {
    fn drop(&mut self) {
        let mut state = self.disk.lock();
        if state.life == self.life {
            state.locks.remove(&self.dir);
        }
    }
}
