//! Which numbers stand for which journal positions, and the few records at hand in memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use lens_model::{Incarnation, Sequence, UnixNanos};

use super::former::Former;
use super::{Level, Record};

/// Deltas between two marks.
const MARK_EVERY: u64 = 256;

/// Records kept at hand after an append, as long as the link is not further behind.
const AT_HAND_MAX: u64 = 128;

/// Bytes of records at hand.
const AT_HAND_BYTES_MAX: usize = 8 << 20;

/// From here on numbers and positions go side by side.
#[derive(Clone, Copy, Debug)]
struct Mark {
    sequence: u64,
    position: u64,
    start: UnixNanos,
    /// Bytes of all deltas before it.
    bytes: u64,
}

/// What the spool knows of its deltas without the disk.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) incarnation: Incarnation,
    pub(super) acked: Sequence,
    pub(super) last: Sequence,
    /// The last number the link asked for.
    pub(super) asked: Sequence,
    /// What is held was sent under, until it is known how much of it was merged.
    pub(super) unsettled: Option<Former>,
    marks: VecDeque<Mark>,
    bytes: u64,
    at_hand: BTreeMap<u64, Arc<Record>>,
    at_hand_bytes: usize,
}

impl Ledger {
    pub(super) const fn new(incarnation: Incarnation, last: Sequence) -> Self {
        Self {
            incarnation,
            acked: last,
            last,
            asked: last,
            unsettled: None,
            marks: VecDeque::new(),
            bytes: 0,
            at_hand: BTreeMap::new(),
            at_hand_bytes: 0,
        }
    }

    /// Numbers the delta at a journal position.
    pub(super) fn push(&mut self, position: u64, start: UnixNanos, bytes: u64) -> Sequence {
        let sequence = self.last.next();
        let fresh = self.marks.back().is_none_or(|mark| {
            let since = sequence.0 - mark.sequence;
            since >= MARK_EVERY || mark.position + since != position
        });
        if fresh {
            let bytes = self.bytes;
            self.marks.push_back(Mark { sequence: sequence.0, position, start, bytes });
        }
        self.bytes += bytes;
        self.last = sequence;
        sequence
    }

    fn mark(&self, sequence: Sequence) -> Option<Mark> {
        let after = self.marks.partition_point(|mark| mark.sequence <= sequence.0);
        self.marks.get(after.checked_sub(1)?).copied()
    }

    /// Where the delta with this number stands, if it is held.
    pub(super) fn position(&self, sequence: Sequence) -> Option<u64> {
        if sequence <= self.acked || sequence > self.last {
            return None;
        }
        let mark = self.mark(sequence)?;
        Some(mark.position + (sequence.0 - mark.sequence))
    }

    pub(super) fn acknowledge(&mut self, acked: Sequence) {
        self.acked = self.acked.max(acked.min(self.last));
        while self.marks.get(1).is_some_and(|next| next.sequence <= self.acked.0 + 1) {
            self.marks.pop_front();
        }
        if self.acked == self.last {
            self.marks.clear();
        }
        self.drop_at_hand(self.acked.0);
    }

    /// Numbers what is held from 1, in another life.
    pub(super) fn renew(&mut self, incarnation: Incarnation) {
        let before = self.acked.0;
        if let Some(first) = self.marks.front_mut() {
            let skipped = (before + 1).saturating_sub(first.sequence);
            first.sequence += skipped;
            first.position += skipped;
        }
        for mark in &mut self.marks {
            mark.sequence -= before;
        }
        let at_hand = std::mem::take(&mut self.at_hand);
        self.at_hand = at_hand.into_iter().map(|(at, record)| (at - before, record)).collect();
        self.last = Sequence(self.last.0 - before);
        (self.incarnation, self.acked, self.asked) = (incarnation, Sequence(0), Sequence(0));
    }

    pub(super) fn get(&self, sequence: Sequence) -> Option<Arc<Record>> {
        self.at_hand.get(&sequence.0).cloned()
    }

    /// Keeps a record just appended at hand, if the link will soon ask for it.
    pub(super) fn keep(&mut self, sequence: Sequence, record: Arc<Record>) {
        if sequence.0 - self.acked.0 <= AT_HAND_MAX {
            self.insert(sequence, record);
        }
    }

    /// Keeps records just read at hand, in place of those before them.
    pub(super) fn loaded(&mut self, from: Sequence, records: Vec<Arc<Record>>) {
        self.drop_at_hand(from.0 - 1);
        if let Some(wanted) = records.first().map(|record| record.size_bytes()) {
            while self.at_hand_bytes + wanted > AT_HAND_BYTES_MAX
                && let Some((_, record)) = self.at_hand.pop_last()
            {
                self.at_hand_bytes -= record.size_bytes();
            }
        }
        for (at, record) in (from.0..).zip(records) {
            self.insert(Sequence(at), record);
        }
    }

    fn insert(&mut self, sequence: Sequence, record: Arc<Record>) {
        let bytes = record.size_bytes();
        let first = self.at_hand.is_empty();
        let fits = first || self.at_hand_bytes + bytes <= AT_HAND_BYTES_MAX;
        if fits && sequence > self.acked && self.at_hand.insert(sequence.0, record).is_none() {
            self.at_hand_bytes += bytes;
        }
    }

    fn drop_at_hand(&mut self, up_to: u64) {
        while let Some(entry) = self.at_hand.first_entry().filter(|entry| *entry.key() <= up_to) {
            self.at_hand_bytes -= entry.remove().size_bytes();
        }
    }

    pub(super) fn level(&self) -> Level {
        let frames = self.last.0 - self.acked.0;
        let oldest = self.get(self.acked.next()).map(|record| record.start);
        let mark = self.mark(self.acked.next()).filter(|_| frames > 0);
        Level {
            frames,
            bytes: mark.map_or(0, |mark| self.bytes - mark.bytes),
            acked: self.acked,
            last: self.last,
            oldest: oldest.or_else(|| mark.map(|mark| mark.start)),
        }
    }
}
