//! What is on the disk, made a journal again.
//!
//! A file's records end where the next file begins: a batch whose sync failed may have survived at
//! the end of an abandoned file, and the file after it has what was written in its place. Where a
//! record is bad before that point, or before a later batch of the last file, it was whole once:
//! that is damage, and is reported. Where nothing but the batch being written follows, it is the
//! torn end of a write that nobody was told of. A damaged record of which one bit is wrong is mended.
//! The last batch may have been readable only from memory, so it is written again, in its place,
//! and synced before the journal is used. Everything before it was synced, or nothing would have
//! been written after it to the same file.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::OpenError;
use super::format::{FILE_HEADER_BYTES, FileHead, RecordHead};
use super::repair::{Due, repair};
use super::segment::{
    Checks, Found as FoundRecord, Segment, find_record, identity_of, is_zero, read_record,
};
use super::{FILES_MAX, Options, file_name, parse_name};
use crate::disk::{Disk, DiskFile};

/// Damages reported one by one; the rest is only counted.
const DAMAGES_MAX: usize = 16;

/// Records that were whole once and are not now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The first position lost.
    pub from: u64,
    /// The position after the last one lost.
    pub to: u64,
}

/// What opening a journal found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The journal was made just now.
    pub created: bool,
    /// The journal's identity, given when it was made.
    pub identity: u128,
    /// Bytes at the end that were being written when the process ended; nobody was told of them.
    pub torn_bytes: u64,
    /// Records lost, at most 16 of the places.
    pub damages: Vec<Damage>,
    /// Places at which records were lost.
    pub damages_total: u64,
    /// Records of which one bit was wrong, and is right again.
    pub repaired: u64,
    /// Files that are not this journal's or cannot be read; they were renamed to `.unreadable`.
    pub files_unreadable: u64,
}

impl Recovery {
    /// Whether nothing that was durable is missing.
    pub const fn is_whole(&self) -> bool {
        self.damages_total == 0
    }

    fn damaged(&mut self, from: u64, to: u64) {
        self.damages_total += 1;
        if self.damages.len() < DAMAGES_MAX {
            self.damages.push(Damage { from, to });
        }
    }
}

/// What recovery gives the journal.
pub(super) struct Recovered {
    pub(super) recovery: Recovery,
    pub(super) segments: Vec<Segment>,
    /// Whether more may be written to the last segment.
    pub(super) open: bool,
    /// Whether what follows its last record is not zero.
    pub(super) torn: bool,
    pub(super) trim: u64,
    /// The highest number a file has.
    pub(super) number: u64,
}

struct Scan {
    recovery: Recovery,
    trim: u64,
    /// Where the last batch begins: position and offset.
    batch: (u64, u64),
}

pub(super) fn io_error(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> OpenError {
    move |source| OpenError::Io { path: path.to_owned(), doing, source }
}

/// What is in a directory.
pub(super) enum Found {
    /// A journal.
    Journal(Recovered),
    /// None, or one of which not one record can be read.
    None {
        /// The highest number a file has.
        number: u64,
        /// Files set aside.
        unreadable: u64,
    },
}

/// Reads the files of a directory.
pub(super) fn recover(
    disk: &dyn Disk,
    dir: &Path,
    options: &Options,
    mut checks: Checks,
) -> Result<Found, OpenError> {
    let names = disk.list(dir).map_err(io_error(dir, "list it"))?;
    let numbers: Vec<u64> = names.iter().filter_map(|name| parse_name(name)).collect();
    let Some(&number) = numbers.last() else {
        return Ok(Found::None { number: 0, unreadable: 0 });
    };
    if numbers.len() > FILES_MAX {
        let dir = dir.to_owned();
        return Err(OpenError::TooManyFiles { dir, files: numbers.len(), max: FILES_MAX });
    }
    let (files, strangers) = open_files(disk, dir, &numbers, options, &mut checks)?;
    let Some((last, before)) = files.split_last() else {
        let unreadable = set_aside(disk, &strangers, false)?;
        return Ok(Found::None { number, unreadable });
    };
    let mut scan = Scan { recovery: Recovery::default(), trim: 0, batch: (0, 0) };
    scan.recovery.identity = checks.identity;
    let mut segments: Vec<Segment> = Vec::new();
    for (file, next) in before.iter().zip(&files[1..]) {
        segments.push(scan.file(file.clone(), Some(next.first), &checks)?);
    }
    let mut last = scan.file(last.clone(), None, &checks)?;
    let open = scan.prove(disk, dir, &mut last, options.segment_bytes, &checks)?;
    let torn = scan.recovery.torn_bytes > 0;
    segments.push(last);
    // A file that was never finished leaves no gap; one that was and cannot be read does.
    let oldest = segments.first().map_or((0, 0), |oldest| (oldest.number, oldest.first));
    let older = strangers.iter().any(|stranger| stranger.number < oldest.0);
    if older && scan.trim.max(1) < oldest.1 {
        scan.recovery.damaged(scan.trim.max(1), oldest.1);
    }
    scan.forget_trimmed();
    let harmless = scan.recovery.damages_total == 0;
    scan.recovery.torn_bytes += strangers.iter().map(|stranger| stranger.torn_bytes).sum::<u64>();
    scan.recovery.files_unreadable = set_aside(disk, &strangers, harmless)?;
    Ok(Found::Journal(Recovered {
        recovery: scan.recovery,
        segments,
        open,
        torn,
        trim: scan.trim,
        number,
    }))
}

/// A file that has a journal file's name and is not known to be this journal's.
struct Stranger {
    number: u64,
    path: PathBuf,
    /// Nothing in it can be read, so it can be removed if no record is missing.
    nothing: bool,
    /// Its bytes, if any of them is not zero.
    torn_bytes: u64,
}

/// Removes strangers that hold nothing, where nothing is missing, and renames all others, so that
/// they are neither taken for this journal's nor lost; gives how many were renamed.
fn set_aside(disk: &dyn Disk, strangers: &[Stranger], harmless: bool) -> Result<u64, OpenError> {
    let mut kept = 0;
    for Stranger { path, nothing, .. } in strangers {
        if *nothing && harmless {
            disk.remove(path).map_err(io_error(path, "remove it"))?;
        } else {
            let aside = path.with_extension("unreadable");
            disk.rename(path, &aside).map_err(io_error(path, "set it aside"))?;
            kept += 1;
        }
    }
    Ok(kept)
}

/// Opens the files and reads their headers; the journal's identity is its newest file's.
fn open_files(
    disk: &dyn Disk,
    dir: &Path,
    numbers: &[u64],
    options: &Options,
    checks: &mut Checks,
) -> Result<(Vec<Segment>, Vec<Stranger>), OpenError> {
    let mut opened = Vec::new();
    for &number in numbers {
        let path = dir.join(file_name(number));
        let file: Arc<dyn DiskFile> = disk.open(&path).map_err(io_error(&path, "open it"))?.into();
        let length = file.length().map_err(io_error(&path, "measure it"))?;
        let head = head_of(&*file, number, length, checks).map_err(io_error(&path, "read it"))?;
        opened.push((Segment::new(file, path, number, 0, length), head));
    }
    let identity = opened.iter().rev().find_map(|(_, head)| *head).map(|head| head.identity);
    checks.identity = identity.unwrap_or(checks.identity);
    let (mut files, mut strangers) = (Vec::new(), Vec::new());
    for (segment, head) in opened {
        let foreign = head.is_some_and(|head| head.identity != checks.identity);
        let head = match head {
            None if identity.is_some() => head_inside(&segment, options, checks)
                .map_err(io_error(&segment.path, "read it"))?,
            head => head.filter(|_| !foreign),
        };
        match head.filter(|_| segment.length <= options.bytes_max) {
            Some(head) => files.push(segment.beginning_at(head.first)),
            None => {
                let (number, path) = (segment.number, segment.path);
                let nothing = !foreign && segment.length <= options.bytes_max;
                let zero = is_zero(&*segment.file, 0, segment.length.min(options.bytes_max));
                let torn_bytes = if zero.unwrap_or(false) { 0 } else { segment.length };
                strangers.push(Stranger { number, path, nothing, torn_bytes });
            }
        }
    }
    Ok((files, strangers))
}

/// What a file says of itself, in its header or else in its first record.
fn head_of(
    file: &dyn DiskFile,
    number: u64,
    length: u64,
    checks: &Checks,
) -> io::Result<Option<FileHead>> {
    let mut page = vec![0; FILE_HEADER_BYTES];
    let read = file.read_at(&mut page, 0)?;
    // A header of another number is what a file said before it was taken for this one.
    if let Some(head) = FileHead::decode(&page[..read])
        && head.number == number
    {
        return Ok(Some(head));
    }
    let first = identity_of(file, number, length, checks)?;
    Ok(first.map(|head| FileHead { identity: head.identity, number, first: head.batch }))
}

/// What any record in a file of this journal says of it.
fn head_inside(
    segment: &Segment,
    options: &Options,
    checks: &Checks,
) -> io::Result<Option<FileHead>> {
    let Segment { file, number, length, .. } = segment;
    let (from, end) = (FILE_HEADER_BYTES as u64, (*length).min(options.bytes_max));
    let found = find_record(&**file, *number, from, end, checks, |_| true)?;
    Ok(found.map(|(_, found)| FileHead {
        identity: checks.identity,
        number: *number,
        first: found.head.batch,
    }))
}

impl Scan {
    /// Finds the records of a file, up to the position at which the next file begins.
    fn file(
        &mut self,
        mut segment: Segment,
        until: Option<u64>,
        checks: &Checks,
    ) -> Result<Segment, OpenError> {
        let path = segment.path.clone();
        let failed = |source| io_error(&path, "read it")(source);
        let length = segment.length;
        self.batch = (segment.first, segment.end);
        while until.is_none_or(|until| segment.next < until) {
            let (due, at) = (segment.next, segment.end);
            let here = read_record(&*segment.file, segment.number, at, length, checks);
            let here = here.map_err(failed)?.filter(|found| found.head.position == due);
            let (begin, found) = match here {
                Some(found) => (at, found),
                None => {
                    let wanted = |head: &RecordHead| match until {
                        Some(until) => head.position > due && head.position < until,
                        None => head.position > due && head.batch > due,
                    };
                    let number = segment.number;
                    let behind = find_record(&*segment.file, number, at, length, checks, wanted);
                    let behind = behind.map_err(failed)?;
                    // Something later shows that it was whole once.
                    let proven = behind.is_some() || until.is_some();
                    let mended = if proven { self.mend(&segment, checks)? } else { None };
                    if let Some(found) = mended {
                        (at, found)
                    } else {
                        let Some(behind) = behind else { break };
                        self.recovery.damaged(due, behind.1.head.position);
                        behind
                    }
                }
            };
            self.trim = self.trim.max(found.head.trim);
            if found.head.batch != self.batch.0 {
                self.batch = (found.head.batch, begin);
            }
            segment.note(found.head.position, begin, found.end);
        }
        if let Some(until) = until.filter(|until| segment.next < *until) {
            self.recovery.damaged(segment.next, until);
            segment.holes.push((segment.next, until));
        }
        Ok(segment)
    }

    /// The record that is due, if one bit of it is wrong; the file has it right from then on.
    fn mend(
        &mut self,
        segment: &Segment,
        checks: &Checks,
    ) -> Result<Option<FoundRecord>, OpenError> {
        let Segment { file, number, next, end, length, .. } = segment;
        let due = Due { number: *number, position: *next, at: *end, end: *length };
        let path = &segment.path;
        let found = repair(&**file, due, checks).map_err(io_error(path, "read it"))?;
        let Some(repaired) = found else { return Ok(None) };
        let (at, byte) = repaired.byte;
        file.write_at(&[byte], at).map_err(io_error(path, "write it"))?;
        file.sync().map_err(io_error(path, "sync it"))?;
        self.recovery.repaired += 1;
        Ok(Some(repaired.found))
    }

    /// Damage to what was no longer wanted is none.
    fn forget_trimmed(&mut self) {
        let before = self.recovery.damages.len();
        self.recovery.damages.retain(|damage| damage.to > self.trim);
        self.recovery.damages_total -= (before - self.recovery.damages.len()) as u64;
    }

    /// Makes sure of the last batch and of the space after it; whether more may be written there.
    fn prove(
        &mut self,
        disk: &dyn Disk,
        dir: &Path,
        last: &mut Segment,
        segment_bytes: u64,
        checks: &Checks,
    ) -> Result<bool, OpenError> {
        let path = last.path.clone();
        let failed = |doing| io_error(&path, doing);
        let head = FileHead { identity: checks.identity, number: last.number, first: last.first };
        last.file.write_at(&head.encode(), 0).map_err(failed("write it"))?;
        let at = self.batch.1;
        let bytes = usize::try_from(last.end.saturating_sub(at)).unwrap_or(usize::MAX);
        // No longer than what was just read record by record.
        let mut batch = vec![0; bytes];
        last.file.read_at(&mut batch, at).map_err(failed("read it"))?;
        last.file.write_at(&batch, at).map_err(failed("write it"))?;
        let clean = is_zero(&*last.file, last.end, last.length).map_err(failed("read it"))?;
        if !clean {
            // They stay until something is written in their place: whoever is told of them may be
            // killed before it acts on it, and its successor is to be told, too.
            self.recovery.torn_bytes = last.length - last.end;
        }
        let wanted = last.length.max(segment_bytes);
        let open = match last.file.allocate(wanted) {
            Ok(()) => {
                last.length = wanted;
                true
            }
            Err(error) if error.kind() == io::ErrorKind::StorageFull => false,
            Err(error) => return Err(failed("reserve space for it")(error)),
        };
        last.file.sync().map_err(failed("sync it"))?;
        disk.sync_dir(dir).map_err(io_error(dir, "sync it"))?;
        Ok(open)
    }
}

/// Where the reserve is kept.
pub(super) fn reserve_path(dir: &Path) -> PathBuf {
    dir.join("reserve")
}
