//! One file of a journal: what is known of it, and how a record is found in it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::format::{Covered, FILE_HEADER_BYTES, OWNER_AT, RECORD_HEADER_BYTES, RecordHead, owner};
use crate::disk::DiskFile;

/// Bytes between two places that the index remembers.
const MARK_EVERY: u64 = 64 << 10;

/// Bytes looked through at a time for a record behind a damaged one.
const WINDOW_BYTES: usize = 64 << 10;

/// A file of the journal.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) path: PathBuf,
    pub(crate) number: u64,
    /// Position of its first record.
    pub(crate) first: u64,
    /// Position after its last record.
    pub(crate) next: u64,
    /// Where its last record ends.
    pub(crate) end: u64,
    /// Bytes it takes up.
    pub(crate) length: u64,
    /// Positions and where their records begin, ascending.
    marks: Vec<(u64, u64)>,
    /// Positions from and to which records are lost.
    pub(crate) holes: Vec<(u64, u64)>,
}

/// How records of one journal are checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checks {
    pub(crate) identity: u128,
    pub(crate) covered: Covered,
    pub(crate) record_bytes_max: usize,
}

/// A record as found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) head: RecordHead,
    pub(crate) payload: Vec<u8>,
    /// Where it ends.
    pub(crate) end: u64,
}

impl Segment {
    pub(crate) const fn new(
        file: Arc<dyn DiskFile>,
        path: PathBuf,
        number: u64,
        first: u64,
        length: u64,
    ) -> Self {
        Self {
            file,
            path,
            number,
            first,
            next: first,
            end: FILE_HEADER_BYTES as u64,
            length,
            marks: Vec::new(),
            holes: Vec::new(),
        }
    }

    /// The same file, said to begin at a position.
    pub(crate) fn beginning_at(self, first: u64) -> Self {
        Self { first, next: first, ..self }
    }

    /// Notes a record that follows what is known.
    pub(crate) fn note(&mut self, position: u64, at: u64, end: u64) {
        let resumed = position != self.next;
        if resumed {
            self.holes.push((self.next, position));
        }
        if resumed
            || self.marks.last().is_none_or(|(_, last)| at.saturating_sub(*last) >= MARK_EVERY)
        {
            self.marks.push((position, at));
        }
        (self.next, self.end) = (position.saturating_add(1), end);
    }

    /// The last known place at or before a position.
    pub(crate) fn mark(&self, position: u64) -> (u64, u64) {
        let after = self.marks.partition_point(|(at, _)| *at <= position);
        let before = after.checked_sub(1).and_then(|at| self.marks.get(at));
        before.copied().unwrap_or((self.first, FILE_HEADER_BYTES as u64))
    }
}

/// Reads the record at an offset; `None` when there is no whole one.
///
/// Allocates no more than the record may have, and only when the file is long enough for it.
pub(crate) fn read_record(
    file: &dyn DiskFile,
    number: u64,
    at: u64,
    end: u64,
    checks: &Checks,
) -> io::Result<Option<Found>> {
    let Some((head, bytes)) = read_head(file, at, end, checks.record_bytes_max)? else {
        return Ok(None);
    };
    if head.number != number || head.identity != checks.identity {
        return Ok(None);
    }
    finish_record(file, at, head, &bytes, checks.covered)
}

fn read_head(
    file: &dyn DiskFile,
    at: u64,
    end: u64,
    record_bytes_max: usize,
) -> io::Result<Option<(RecordHead, [u8; RECORD_HEADER_BYTES])>> {
    let mut bytes = [0; RECORD_HEADER_BYTES];
    let room = end.saturating_sub(at);
    if room < RECORD_HEADER_BYTES as u64 || file.read_at(&mut bytes, at)? < bytes.len() {
        return Ok(None);
    }
    let head = RecordHead::decode(&bytes);
    let fits = head.length as usize <= record_bytes_max
        && u64::from(head.length) <= room - RECORD_HEADER_BYTES as u64;
    Ok(fits.then_some((head, bytes)))
}

fn finish_record(
    file: &dyn DiskFile,
    at: u64,
    head: RecordHead,
    bytes: &[u8; RECORD_HEADER_BYTES],
    covered: Covered,
) -> io::Result<Option<Found>> {
    let begin = at + RECORD_HEADER_BYTES as u64;
    let mut payload = vec![0; head.length as usize];
    if file.read_at(&mut payload, begin)? < payload.len()
        || !RecordHead::holds(covered, bytes, &payload)
    {
        return Ok(None);
    }
    let end = begin + u64::from(head.length);
    Ok(Some(Found { head, payload, end }))
}

/// The identity in a file whose own header cannot be read, by its first record.
pub(crate) fn identity_of(
    file: &dyn DiskFile,
    number: u64,
    length: u64,
    checks: &Checks,
) -> io::Result<Option<RecordHead>> {
    let at = FILE_HEADER_BYTES as u64;
    let Some((head, bytes)) = read_head(file, at, length, checks.record_bytes_max)? else {
        return Ok(None);
    };
    let found = finish_record(file, at, head, &bytes, checks.covered)?;
    Ok(found.map(|found| found.head).filter(|head| head.number == number))
}

/// Looks from `from` on for a whole record that `wanted` accepts; gives where it begins, and it.
///
/// Reads no more than four times the bytes it looks through, whatever they are.
pub(crate) fn find_record(
    file: &dyn DiskFile,
    number: u64,
    from: u64,
    end: u64,
    checks: &Checks,
    wanted: impl Fn(&RecordHead) -> bool,
) -> io::Result<Option<(u64, Found)>> {
    let sought = owner(number, checks.identity);
    let mut budget = end.saturating_sub(from).saturating_mul(4);
    let mut window = vec![0; WINDOW_BYTES];
    let mut at = from + OWNER_AT as u64;
    while at < end {
        let read = file.read_at(&mut window, at)?;
        let seen = &window[..read];
        for offset in memchr::memmem::find_iter(seen, &sought) {
            let begin = at + offset as u64 - OWNER_AT as u64;
            let Some((head, bytes)) = read_head(file, begin, end, checks.record_bytes_max)? else {
                continue;
            };
            if !wanted(&head) || u64::from(head.length) > budget {
                continue;
            }
            budget -= u64::from(head.length);
            if let Some(found) = finish_record(file, begin, head, &bytes, checks.covered)? {
                return Ok(Some((begin, found)));
            }
        }
        if read < WINDOW_BYTES {
            break;
        }
        at += (read - sought.len() + 1) as u64;
    }
    Ok(None)
}

/// Whether everything from `from` to the end of a file is zero.
pub(crate) fn is_zero(file: &dyn DiskFile, from: u64, end: u64) -> io::Result<bool> {
    let mut window = vec![0; WINDOW_BYTES];
    let mut at = from;
    while at < end {
        let read = file.read_at(&mut window, at)?;
        if read == 0 {
            break;
        }
        if window[..read].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        at += read as u64;
    }
    Ok(true)
}
