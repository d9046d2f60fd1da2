//! A segmented, append-only journal: what [`Journal::append`] returned from stays.
//!
//! Records are opaque bytes with a kind, numbered from 1 without gaps. They lie in preallocated
//! files; a batch is one write and one sync, and exists for nobody before the sync succeeded.
//! A sync or write that failed leaves its file abandoned: the batch is not acknowledged, and what is
//! appended next goes to a new file, whose records stand in place of whatever of the batch survived.
//! Whole files are removed once nothing in them is wanted, which needs no space; a reserve file
//! keeps a full disk survivable. One process at a time, by a lock on the directory.
//! Bounds: bytes of all files, files, bytes of a record. Recovery ([`Recovery`]) takes any bytes.

mod error;
mod format;
mod reader;
mod recover;
mod repair;
mod segment;
#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile, DiskLock};
use format::{Covered, FileHead, RecordHead};
use reader::Index;
use recover::{Found, Recovered, io_error, recover, reserve_path};
use segment::{Checks, Segment};

pub use error::{AppendError, OpenError, ReadError};
pub use format::{FILE_HEADER_BYTES, RECORD_HEADER_BYTES};
pub use reader::{JournalReader, Record};
pub use recover::{Damage, Recovery};

/// Files of one journal at most; each is an open file.
pub const FILES_MAX: usize = 512;

/// What a journal is to be like.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Bytes of each file; one with a larger batch is larger.
    pub segment_bytes: u64,
    /// Bytes of all files, the reserve among them.
    pub bytes_max: u64,
    /// Largest payload, bytes.
    pub record_bytes_max: usize,
    /// Mistakes switched on for a test.
    #[cfg(any(test, feature = "planted"))]
    pub mistakes: Mistakes,
}

/// Mistakes a test may plant.
#[cfg(any(test, feature = "planted"))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mistakes {
    /// Check sums leave record headers out.
    pub crc_over_payload_only: bool,
    /// A failed sync is tried again, and believed when it then succeeds.
    pub sync_retried: bool,
}

impl Options {
    /// A journal of at most so many bytes, in sixteen files or more.
    pub const fn new(bytes_max: u64) -> Self {
        Self {
            segment_bytes: bytes_max / 16,
            bytes_max,
            record_bytes_max: 16 << 20,
            #[cfg(any(test, feature = "planted"))]
            mistakes: Mistakes { crc_over_payload_only: false, sync_retried: false },
        }
    }

    const fn covered(&self) -> Covered {
        #[cfg(any(test, feature = "planted"))]
        if self.mistakes.crc_over_payload_only {
            return Covered::PayloadOnly;
        }
        Covered::All
    }
}

/// One record of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// What its writer calls it.
    pub kind: u32,
    /// Its bytes.
    pub payload: &'a [u8],
}

/// How full a journal is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// The first position that is still wanted.
    pub first: u64,
    /// The position the next record gets.
    pub next: u64,
    /// Bytes its files take up, the reserve among them.
    pub bytes: u64,
    /// Bytes they may take up.
    pub bytes_max: u64,
    /// Files, the reserve not among them.
    pub files: usize,
    /// Whether there is a file to go on with when the disk is full.
    pub reserve: bool,
    /// Files abandoned since the start because a write or sync failed.
    pub abandoned_total: u64,
}

/// The one writer of a journal.
#[derive(Debug)]
pub struct Journal {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: Options,
    checks: Checks,
    index: Arc<Mutex<Index>>,
    /// Whether the last segment takes more.
    open: bool,
    /// What follows the last record of the last segment is not zero.
    torn: bool,
    trim: u64,
    /// The highest number a file was given.
    number: u64,
    /// Bytes of the reserve, if there is one.
    reserve: Option<u64>,
    /// A name was removed and is perhaps not yet gone for good.
    names_unsynced: bool,
    abandoned_total: u64,
    _lock: Box<dyn DiskLock>,
}

fn file_name(number: u64) -> String {
    format!("{number:016x}.journal")
}

fn parse_name(name: &OsStr) -> Option<u64> {
    let digits = name.to_str()?.strip_suffix(".journal")?;
    let lower = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
    if digits.len() != 16 || !digits.bytes().all(lower) {
        return None;
    }
    u64::from_str_radix(digits, 16).ok()
}

impl Journal {
    /// Opens the journal in a directory, or makes one there with this identity.
    ///
    /// # Errors
    /// [`OpenError`]: the directory is in use, or the disk fails, or what is there is no journal.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: Options,
        fresh_identity: u128,
    ) -> Result<(Self, Recovery), OpenError> {
        disk.create_dir_all(dir).map_err(io_error(dir, "make it"))?;
        let lock = disk.lock(dir).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => OpenError::Locked { dir: dir.to_owned() },
            _ => io_error(dir, "lock it")(error),
        })?;
        let checks = Checks {
            identity: fresh_identity,
            covered: options.covered(),
            record_bytes_max: options.record_bytes_max,
        };
        let found = recover(&*disk, dir, &options, checks)?;
        let created = Recovery { created: true, identity: fresh_identity, ..Recovery::default() };
        let found = match found {
            Found::Journal(found) => found,
            Found::None { number, unreadable } => {
                sync_parent(&*disk, dir)?;
                let recovery = Recovery { files_unreadable: unreadable, ..created };
                Recovered {
                    recovery,
                    segments: Vec::new(),
                    open: false,
                    torn: false,
                    trim: 0,
                    number,
                }
            }
        };
        let mut journal = Self::of(disk, dir, options, checks, found.open, lock);
        journal.take(&found);
        journal.find_reserve();
        journal.make_reserve();
        Ok((journal, found.recovery))
    }

    fn of(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: Options,
        checks: Checks,
        open: bool,
        lock: Box<dyn DiskLock>,
    ) -> Self {
        let index = Index { segments: Vec::new(), first: 1, next: 1 };
        Self {
            disk,
            dir: dir.to_owned(),
            options,
            checks,
            index: Arc::new(Mutex::new(index)),
            open,
            torn: false,
            trim: 1,
            number: 0,
            reserve: None,
            names_unsynced: false,
            abandoned_total: 0,
            _lock: lock,
        }
    }

    fn take(&mut self, found: &Recovered) {
        self.checks.identity = found.recovery.identity;
        self.torn = found.torn;
        self.number = found.number;
        let mut index = self.index.lock();
        index.segments.clone_from(&found.segments);
        index.first = found.segments.first().map_or(1, |segment| segment.first).max(found.trim);
        index.next = found.segments.last().map_or(1, |segment| segment.next);
        index.first = index.first.min(index.next);
        self.trim = index.first;
    }

    /// A reader of what is durable.
    pub fn reader(&self) -> JournalReader {
        JournalReader { index: Arc::clone(&self.index), checks: self.checks, hint: (0, 0, 0) }
    }

    /// Whether a batch of so many records and payload bytes goes to the file being written; if not,
    /// it begins another.
    pub fn fits(&self, records: usize, payload_bytes: usize) -> bool {
        let needed = (records * RECORD_HEADER_BYTES + payload_bytes) as u64;
        let index = self.index.lock();
        self.open && index.segments.last().is_some_and(|last| last.end + needed <= last.length)
    }

    /// Appends a batch: it is durable when this returns its positions.
    ///
    /// # Errors
    /// [`AppendError`]: nothing of the batch is durable or visible.
    pub fn append(&mut self, batch: &[Entry<'_>]) -> Result<Range<u64>, AppendError> {
        let payload = self.check(batch)?;
        if self.torn && self.fits(batch.len(), payload) {
            self.cut_off()?;
        }
        if !self.fits(batch.len(), payload) {
            return self.append_to_new(batch);
        }
        let (bytes, ends, mut segment) = {
            let index = self.index.lock();
            let Some(last) = index.segments.last() else { return Err(AppendError::DiskFull) };
            let (bytes, ends) = self.encode(batch, index.next, last.number, last.end);
            (bytes, ends, last.clone())
        };
        let written = self.write(&segment, &bytes, segment.end);
        if let Err(error) = written {
            self.abandon(None);
            return Err(error);
        }
        note(&mut segment, &ends);
        let mut index = self.index.lock();
        let from = index.next;
        index.next = segment.next;
        if let Some(last) = index.segments.last_mut() {
            *last = segment;
        }
        Ok(from..index.next)
    }

    /// Empties what follows the last record: what a batch does not overwrite of it must not be taken
    /// for part of the batch.
    fn cut_off(&mut self) -> Result<(), AppendError> {
        self.torn = false;
        let Some(last) = self.index.lock().segments.last().cloned() else { return Ok(()) };
        if let Err(source) = last.file.set_len(last.end).and_then(|()| last.file.sync()) {
            self.abandon(None);
            return Err(self.failed(&last.path, "shorten it", source));
        }
        if last.file.allocate(last.length).is_err() {
            // There is no space for it any more: another file is begun, and this one is no reserve.
            self.open = false;
            self.index
                .lock()
                .segments
                .last_mut()
                .into_iter()
                .for_each(|last| last.length = last.end);
        }
        Ok(())
    }

    /// Appends a batch at the beginning of a new file.
    ///
    /// # Errors
    /// As [`Journal::append`].
    pub fn append_to_new(&mut self, batch: &[Entry<'_>]) -> Result<Range<u64>, AppendError> {
        self.check(batch)?;
        let from = self.index.lock().next;
        let number = self.number + 1;
        let (bytes, ends) = self.encode(batch, from, number, FILE_HEADER_BYTES as u64);
        let needed = (FILE_HEADER_BYTES + bytes.len()) as u64;
        let mut segment = self.new_file(number, from, needed)?;
        let head = FileHead { identity: self.checks.identity, number, first: from };
        let mut page = head.encode().to_vec();
        page.extend_from_slice(&bytes);
        let written = self.write(&segment, &page, 0).and_then(|()| {
            let named = self.sync_names();
            named.map_err(|source| self.failed(&self.dir, "sync it", source))
        });
        if let Err(error) = written {
            self.abandon(Some(segment));
            return Err(error);
        }
        note(&mut segment, &ends);
        let mut index = self.index.lock();
        index.next = segment.next;
        index.segments.push(segment);
        (self.open, self.torn) = (true, false);
        Ok(from..index.next)
    }

    /// Says that records before a position are no longer wanted; whole files of them are removed.
    ///
    /// # Errors
    /// The disk's; what could not be removed is tried again the next time.
    pub fn trim(&mut self, before: u64) -> io::Result<()> {
        {
            let mut index = self.index.lock();
            self.trim = self.trim.max(before.min(index.next));
            index.first = index.first.max(self.trim);
        }
        if self.names_unsynced {
            self.sync_names()?;
        }
        loop {
            let segment = {
                let index = self.index.lock();
                let [oldest, next, ..] = &index.segments[..] else { break };
                if next.first > self.trim {
                    break;
                }
                oldest.clone()
            };
            if self.reserve.is_none() && segment.length >= self.options.segment_bytes {
                self.disk.rename(&segment.path, &reserve_path(&self.dir))?;
                self.reserve = Some(segment.length);
            } else {
                self.disk.remove(&segment.path)?;
            }
            // Its name is gone, whether for good or not.
            self.index.lock().segments.remove(0);
            // One at a time, oldest first: no crash leaves a gap between those that remain.
            self.sync_names()?;
        }
        self.make_reserve();
        Ok(())
    }

    /// The first position of the oldest file that is wanted. A file before it was trimmed; it is
    /// there because its removal did not last, and the one after it may be gone.
    pub fn wanted_from(&self) -> u64 {
        let index = self.index.lock();
        let wanted = index.segments.iter().rev().find(|segment| segment.first <= self.trim);
        wanted.map_or(0, |segment| segment.first)
    }

    /// Whether the file being written holds no record: nothing stands at its beginning yet.
    pub fn begins_file(&self) -> bool {
        let index = self.index.lock();
        index.segments.last().is_none_or(|last| last.next == last.first)
    }

    /// How full it is.
    pub fn level(&self) -> Level {
        let index = self.index.lock();
        Level {
            first: index.first,
            next: index.next,
            bytes: self.bytes(&index),
            bytes_max: self.options.bytes_max,
            files: index.segments.len(),
            reserve: self.reserve.is_some(),
            abandoned_total: self.abandoned_total,
        }
    }

    /// The journal's identity.
    pub const fn identity(&self) -> u128 {
        self.checks.identity
    }

    fn bytes(&self, index: &Index) -> u64 {
        let files: u64 = index.segments.iter().map(|segment| segment.length).sum();
        files + self.reserve.unwrap_or(0)
    }

    fn check(&self, batch: &[Entry<'_>]) -> Result<usize, AppendError> {
        let max = self.options.record_bytes_max;
        if batch.is_empty() {
            return Err(AppendError::Size { bytes: 0, max });
        }
        let mut total = 0;
        for entry in batch {
            let bytes = entry.payload.len();
            if bytes > max || u32::try_from(bytes).is_err() {
                return Err(AppendError::Size { bytes, max });
            }
            total += bytes;
        }
        Ok(total)
    }

    /// The bytes of a batch that begins at an offset, and where each record begins and ends.
    fn encode(
        &self,
        batch: &[Entry<'_>],
        from: u64,
        number: u64,
        offset: u64,
    ) -> (Vec<u8>, Vec<(u64, u64)>) {
        let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(batch.len()));
        for (entry, position) in batch.iter().zip(from..) {
            let head = RecordHead {
                length: u32::try_from(entry.payload.len()).unwrap_or(u32::MAX),
                kind: entry.kind,
                position,
                batch: from,
                trim: self.trim.min(from),
                number,
                identity: self.checks.identity,
            };
            let begin = offset + bytes.len() as u64;
            head.encode(self.checks.covered, entry.payload, &mut bytes);
            ends.push((begin, offset + bytes.len() as u64));
        }
        (bytes, ends)
    }

    fn write(&self, segment: &Segment, bytes: &[u8], at: u64) -> Result<(), AppendError> {
        let failed = |doing| move |source| self.failed(&segment.path, doing, source);
        segment.file.write_at(bytes, at).map_err(failed("write to it"))?;
        let synced = segment.file.sync();
        #[cfg(any(test, feature = "planted"))]
        let synced = if self.options.mistakes.sync_retried {
            synced.or_else(|_| segment.file.sync())
        } else {
            synced
        };
        synced.map_err(failed("sync it"))
    }

    fn failed(&self, path: &Path, doing: &'static str, source: io::Error) -> AppendError {
        AppendError::Io { path: path.to_owned(), doing, source }
    }

    /// Leaves the file being written as it is; a new one that has nothing acknowledged is removed.
    fn abandon(&mut self, fresh: Option<Segment>) {
        self.open = false;
        self.abandoned_total += 1;
        if let Some(segment) = fresh
            && self.disk.remove(&segment.path).is_ok()
        {
            self.names_unsynced = true;
        }
    }

    fn new_file(&mut self, number: u64, first: u64, needed: u64) -> Result<Segment, AppendError> {
        let bytes_max = self.options.bytes_max;
        let (bytes, files) = {
            let index = self.index.lock();
            (self.bytes(&index), index.segments.len())
        };
        let length = needed.max(self.options.segment_bytes);
        if bytes + length > bytes_max || files >= FILES_MAX {
            let reserve = self.reserve.unwrap_or(0);
            // The reserve is part of the bound: it may be used up to it, not past it.
            if bytes - reserve + length > bytes_max || files >= FILES_MAX || length > reserve {
                return Err(AppendError::Full { bytes, bytes_max });
            }
            return self.take_reserve(number, first);
        }
        let path = self.dir.join(file_name(number));
        self.number = number;
        let failed = |doing, source| AppendError::Io { path: path.clone(), doing, source };
        let file = match self.disk.create(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                return self.instead(number, first, length);
            }
            Err(error) => return Err(failed("make it", error)),
        };
        if let Err(error) = file.allocate(length) {
            drop(file);
            // If even that fails the file is empty, and recovery takes it for one being made.
            drop(self.disk.remove(&path));
            if error.kind() == io::ErrorKind::StorageFull {
                return self.instead(number, first, length);
            }
            return Err(failed("reserve space for it", error));
        }
        Ok(Segment::new(Arc::from(file), path, number, first, length))
    }

    /// The reserve, when the disk is full and it is large enough.
    fn instead(&mut self, number: u64, first: u64, length: u64) -> Result<Segment, AppendError> {
        if self.reserve.is_some_and(|reserve| reserve >= length) {
            return self.take_reserve(number, first);
        }
        Err(AppendError::DiskFull)
    }

    fn take_reserve(&mut self, number: u64, first: u64) -> Result<Segment, AppendError> {
        let (from, path) = (reserve_path(&self.dir), self.dir.join(file_name(number)));
        let failed = |doing, source| AppendError::Io { path: path.clone(), doing, source };
        let file: Arc<dyn DiskFile> =
            Arc::from(self.disk.open(&from).map_err(|error| failed("take the reserve", error))?);
        let length = file.length().map_err(|error| failed("measure the reserve", error))?;
        self.number = self.number.max(number);
        self.disk.rename(&from, &path).map_err(|error| failed("take the reserve", error))?;
        self.reserve = None;
        Ok(Segment::new(file, path, number, first, length))
    }

    /// Takes the reserve that is there, emptied: it may hold what a crashed process began to write
    /// under a number that is given again.
    fn find_reserve(&mut self) {
        let (path, length) = (reserve_path(&self.dir), self.options.segment_bytes);
        let Ok(file) = self.disk.open(&path) else { return };
        let emptied =
            file.set_len(0).and_then(|()| file.allocate(length)).and_then(|()| file.sync());
        match emptied {
            Ok(()) => self.reserve = Some(length),
            Err(_) => drop(self.disk.remove(&path)),
        }
    }

    /// Makes a reserve where there is none and room for it; without one the journal still works.
    fn make_reserve(&mut self) {
        let length = self.options.segment_bytes;
        let bytes = self.bytes(&self.index.lock());
        if self.reserve.is_some() || bytes + length > self.options.bytes_max {
            return;
        }
        let path = reserve_path(&self.dir);
        let made = self.disk.create(&path).and_then(|file| file.allocate(length));
        match made {
            Ok(()) => self.reserve = Some(length),
            Err(_) => drop(self.disk.remove(&path)),
        }
    }

    /// Makes the names in the directory durable.
    ///
    /// Of names given since the last success none is to be relied on once this failed: a later
    /// success need not make them durable. The reserve may bear one, and a file made of it would then
    /// be nowhere after a power loss, so it is let go; another one is made under a name of its own.
    fn sync_names(&mut self) -> io::Result<()> {
        self.names_unsynced = true;
        if let Err(error) = self.disk.sync_dir(&self.dir) {
            if self.reserve.take().is_some() {
                drop(self.disk.remove(&reserve_path(&self.dir)));
            }
            return Err(error);
        }
        self.names_unsynced = false;
        Ok(())
    }
}

/// Makes the directory's own name durable, where its parent is one that can be synced.
fn sync_parent(disk: &dyn Disk, dir: &Path) -> Result<(), OpenError> {
    let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) else {
        return Ok(());
    };
    match disk.sync_dir(parent) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io_error(parent, "sync it")(error))
        }
        _ => Ok(()),
    }
}

fn note(segment: &mut Segment, ends: &[(u64, u64)]) {
    for (begin, end) in ends {
        segment.note(segment.next, *begin, *end);
    }
}
