//! What is on the disk, what is on its way there, and what a crash makes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// Bytes that reach the medium together.
const SECTOR: usize = 512;

/// What remains of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Nothing of it.
    Nothing,
    /// All of it.
    Everything,
    /// Any part, by the disk's seed: writes by sector, names one by one.
    AnyPart,
}

/// A change to a file that is not durable yet.
#[derive(Clone, Debug)]
enum Pending {
    Write { at: u64, bytes: Vec<u8> },
    Length(u64),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    /// What a reader sees.
    pub(super) current: Vec<u8>,
    /// What is on the medium.
    durable: Vec<u8>,
    pending: Vec<Pending>,
    /// Space reserved, bytes; at least the length.
    reserved: u64,
}

/// A change to a directory that is not durable yet.
#[derive(Clone, Debug)]
pub(super) enum NameOp {
    Create(OsString, u64),
    Remove(OsString),
    Rename(OsString, OsString),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    pub(super) current: BTreeMap<OsString, u64>,
    durable: BTreeMap<OsString, u64>,
    pending: Vec<NameOp>,
}

#[derive(Debug)]
pub(super) struct State {
    random: u64,
    pub(super) capacity: u64,
    pub(super) dirs: BTreeMap<PathBuf, Names>,
    pub(super) inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    pub(super) locks: BTreeSet<PathBuf>,
    /// Open files of another life are dead.
    pub(super) life: u64,
    pub(super) operations: u64,
    pub(super) power_off: Option<u64>,
    pub(super) syncs: u64,
    pub(super) failing_syncs: BTreeSet<u64>,
    pub(super) reads: u64,
    pub(super) failing_reads: BTreeSet<u64>,
}

pub(super) fn eio() -> io::Error {
    io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error())
}

fn index(at: u64) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}

fn put(into: &mut Vec<u8>, at: u64, bytes: &[u8]) {
    let (at, end) = (index(at), index(at) + bytes.len());
    if into.len() < end {
        into.resize(end, 0);
    }
    into[at..end].copy_from_slice(bytes);
}

fn apply_name(names: &mut BTreeMap<OsString, u64>, op: &NameOp) {
    match op {
        NameOp::Create(name, inode) => {
            names.insert(name.clone(), *inode);
        }
        NameOp::Remove(name) => {
            names.remove(name);
        }
        NameOp::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
    }
}

impl Names {
    pub(super) fn apply(&mut self, op: NameOp) {
        apply_name(&mut self.current, &op);
        self.pending.push(op);
    }

    fn settle(&mut self, mut survives: impl FnMut() -> bool) {
        for op in self.pending.drain(..) {
            if survives() {
                apply_name(&mut self.durable, &op);
            }
        }
    }
}

impl Inode {
    /// Decides for each pending change what of it reaches the medium.
    fn settle(&mut self, mut survives: impl FnMut() -> bool) {
        for change in std::mem::take(&mut self.pending) {
            match change {
                Pending::Length(length) if survives() => self.durable.resize(index(length), 0),
                Pending::Length(_) => {}
                Pending::Write { mut at, bytes } => {
                    let mut rest = &bytes[..];
                    while !rest.is_empty() {
                        let to_boundary = SECTOR - index(at) % SECTOR;
                        let (part, more) = rest.split_at(to_boundary.min(rest.len()));
                        if survives() {
                            put(&mut self.durable, at, part);
                        }
                        at += part.len() as u64;
                        rest = more;
                    }
                }
            }
        }
    }

    fn size(&self) -> u64 {
        self.reserved.max(self.current.len() as u64)
    }
}

impl State {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            random: seed,
            capacity: u64::MAX,
            dirs: BTreeMap::new(),
            inodes: BTreeMap::new(),
            next_inode: 1,
            locks: BTreeSet::new(),
            life: 0,
            operations: 0,
            power_off: None,
            syncs: 0,
            failing_syncs: BTreeSet::new(),
            reads: 0,
            failing_reads: BTreeSet::new(),
        }
    }

    /// Splitmix64: small, and the same everywhere.
    fn chance(random: &mut u64) -> bool {
        *random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) & 1 == 1
    }

    /// Counts an operation that changes something, and refuses it when the power is off.
    pub(super) fn operation(&mut self) -> io::Result<()> {
        if self.power_off.is_some_and(|at| self.operations >= at) {
            return Err(io::Error::other("the power is off"));
        }
        self.operations += 1;
        Ok(())
    }

    pub(super) fn new_inode(&mut self) -> u64 {
        let inode = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(inode, Inode::default());
        inode
    }

    pub(super) fn find(&self, path: &Path) -> Option<u64> {
        let names = self.dirs.get(path.parent()?)?;
        names.current.get(path.file_name()?).copied()
    }

    pub(super) fn used(&self) -> u64 {
        let named = self.dirs.values().flat_map(|names| names.current.values());
        let named: BTreeSet<u64> = named.copied().collect();
        named.iter().filter_map(|inode| self.inodes.get(inode)).map(Inode::size).sum()
    }

    /// Space left for a file to grow into, beyond its own.
    fn room(&self, inode: u64) -> u64 {
        let own = self.inodes.get(&inode).map_or(0, Inode::size);
        self.capacity.saturating_sub(self.used()).saturating_add(own)
    }

    pub(super) fn write(&mut self, inode: u64, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.operation()?;
        let room = self.room(inode);
        let held = self.inodes.get_mut(&inode).ok_or_else(eio)?;
        let fits = room.max(held.size()).saturating_sub(at).min(bytes.len() as u64);
        let taken = &bytes[..index(fits)];
        put(&mut held.current, at, taken);
        held.pending.push(Pending::Write { at, bytes: taken.to_vec() });
        if taken.len() == bytes.len() { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }

    pub(super) fn resize(&mut self, inode: u64, length: u64, reserve: bool) -> io::Result<()> {
        self.operation()?;
        let room = self.room(inode);
        let held = self.inodes.get_mut(&inode).ok_or_else(eio)?;
        if reserve {
            if length <= held.current.len() as u64 {
                return Ok(());
            }
            if length > room {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        held.reserved = if reserve { length } else { held.reserved.min(length) };
        held.current.resize(index(length), 0);
        held.pending.push(Pending::Length(length));
        Ok(())
    }

    /// Counts a sync; whether it is to fail.
    fn sync_fails(&mut self) -> io::Result<bool> {
        self.operation()?;
        self.syncs += 1;
        Ok(self.failing_syncs.remove(&self.syncs))
    }

    pub(super) fn sync_file(&mut self, inode: u64) -> io::Result<()> {
        let fails = self.sync_fails()?;
        let held = self.inodes.get_mut(&inode).ok_or_else(eio)?;
        let random = &mut self.random;
        held.settle(|| !fails || Self::chance(random));
        if fails { Err(eio()) } else { Ok(()) }
    }

    pub(super) fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        let fails = self.sync_fails()?;
        let names = self.dirs.get_mut(dir).ok_or(io::ErrorKind::NotFound)?;
        let random = &mut self.random;
        names.settle(|| !fails || Self::chance(random));
        if fails { Err(eio()) } else { Ok(()) }
    }

    pub(super) fn kill(&mut self) {
        self.life += 1;
        self.locks.clear();
        self.power_off = None;
        self.failing_syncs.clear();
        self.failing_reads.clear();
    }

    pub(super) fn crash(&mut self, crash: Crash) {
        self.kill();
        let random = &mut self.random;
        let mut survives = || match crash {
            Crash::Nothing => false,
            Crash::Everything => true,
            Crash::AnyPart => Self::chance(random),
        };
        for inode in self.inodes.values_mut() {
            inode.settle(&mut survives);
            inode.current.clone_from(&inode.durable);
            inode.reserved = inode.reserved.min(inode.current.len() as u64);
        }
        let mut named = BTreeSet::new();
        for names in self.dirs.values_mut() {
            names.settle(&mut survives);
            names.current.clone_from(&names.durable);
            named.extend(names.current.values().copied());
        }
        self.inodes.retain(|inode, _| named.contains(inode));
    }

    pub(super) fn flip(&mut self, path: &Path, at: u64, bits: u8) -> bool {
        let Some(inode) = self.find(path).and_then(|inode| self.inodes.get_mut(&inode)) else {
            return false;
        };
        let Some(byte) = inode.current.get_mut(index(at)) else { return false };
        *byte ^= bits;
        if let Some(byte) = inode.durable.get_mut(index(at)) {
            *byte ^= bits;
        }
        true
    }

    pub(super) fn put(&mut self, path: &Path, bytes: &[u8]) {
        let inode = self.new_inode();
        let held = Inode {
            current: bytes.to_vec(),
            durable: bytes.to_vec(),
            pending: Vec::new(),
            reserved: bytes.len() as u64,
        };
        self.inodes.insert(inode, held);
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return };
        let names = self.dirs.entry(dir.to_owned()).or_default();
        names.current.insert(name.to_owned(), inode);
        names.durable.insert(name.to_owned(), inode);
    }
}
