//! Reading back, at the same time as the journal is written.

use std::sync::Arc;

use parking_lot::Mutex;

use super::error::ReadError;
use super::segment::{Checks, Segment, read_record};

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it stands in the order, from 1.
    pub position: u64,
    /// What its writer calls it.
    pub kind: u32,
    /// What its writer put in it.
    pub payload: Vec<u8>,
}

/// What is durable, shared between the one writer and its readers.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) segments: Vec<Segment>,
    /// The first position that is still wanted.
    pub(super) first: u64,
    /// The position after the last durable record.
    pub(super) next: u64,
}

/// Reads durable records. Never waits for the writer's disk; clones read independently.
#[derive(Clone, Debug)]
pub struct JournalReader {
    pub(super) index: Arc<Mutex<Index>>,
    pub(super) checks: Checks,
    /// Where the next record in order is expected: file, position, offset.
    pub(super) hint: (u64, u64, u64),
}

/// Where to read on.
struct Place {
    segment: Segment,
    position: u64,
    at: u64,
}

impl JournalReader {
    /// The positions that are wanted: from the first to before the next. Those before them can be
    /// read for as long as their file is there.
    pub fn range(&self) -> std::ops::Range<u64> {
        let index = self.index.lock();
        index.first..index.next
    }

    /// Reads records in order from `from` on, or from the first that is there, wanted or not: at most as many as
    /// have `bytes_max` bytes of payload together, and one in any case if there is one.
    ///
    /// Positions known to be lost are left out.
    ///
    /// # Errors
    /// [`ReadError`] when the first record wanted cannot be read.
    pub fn read(&mut self, from: u64, bytes_max: usize) -> Result<Vec<Record>, ReadError> {
        let (mut records, mut bytes, mut due) = (Vec::new(), 0, from);
        while let Some(mut place) = self.place(due) {
            while place.position < place.segment.next {
                let position = place.position;
                if let Some(to) = hole_at(&place.segment, position) {
                    (place.position, place.at) = place.segment.mark(to);
                    continue;
                }
                let found = match self.record(&place) {
                    Ok(found) => found,
                    Err(_) if !records.is_empty() => return Ok(records),
                    Err(error) => return Err(error),
                };
                (place.position, place.at) = (position.saturating_add(1), found.end);
                if position < due {
                    continue;
                }
                bytes += found.payload.len();
                if !records.is_empty() && bytes > bytes_max {
                    return Ok(records);
                }
                self.hint = (place.segment.number, place.position, place.at);
                let (kind, payload) = (found.head.kind, found.payload);
                records.push(Record { position, kind, payload });
            }
            due = place.segment.next.max(due);
        }
        Ok(records)
    }

    fn record(&self, place: &Place) -> Result<super::segment::Found, ReadError> {
        let (segment, position) = (&place.segment, place.position);
        let found =
            read_record(&*segment.file, segment.number, place.at, segment.end, &self.checks)
                .map_err(|source| ReadError::Io { position, source })?;
        let found = found.filter(|found| found.head.position == position);
        found.ok_or(ReadError::Damaged { position })
    }

    /// Where to begin so as to come to the record `due`, or the first one after it.
    fn place(&self, due: u64) -> Option<Place> {
        let index = self.index.lock();
        if due >= index.next {
            return None;
        }
        let segment = index.segments.iter().find(|segment| segment.next > due)?.clone();
        let (position, at) = match self.hint {
            (number, position, at) if number == segment.number && position == due => (position, at),
            _ => segment.mark(due.max(segment.first)),
        };
        Some(Place { segment, position, at })
    }
}

/// Where records go on, if those from `position` on are lost and others of the file follow.
fn hole_at(segment: &Segment, position: u64) -> Option<u64> {
    let hole = segment.holes.iter().find(|(from, to)| *from == position && *to < segment.next);
    hole.map(|(_, to)| *to)
}
