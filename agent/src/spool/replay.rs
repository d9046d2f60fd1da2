//! What the journal's records add up to: baselines, numbers, and whether they fit together.
//!
//! A delta holds what the counters grew by, not what they were. So a record that is lost leaves the
//! baseline where it was before, and the next harvest takes its counts out of the segment again:
//! the counters are the copy that every lost record is replaced from.

use lens_hist::block::BlockRef;
use lens_journal::Record as JournalRecord;
use lens_model::{Incarnation, Sequence, UnixNanos};

use super::baselines::Baselines;
use super::codec::{
    DELTA, Names, RENEWAL, SNAPSHOT, decode_delta, decode_renewal, decode_snapshot,
};
use super::former::Former;
use super::ledger::Ledger;
use super::record::Harvested;

/// What records so far add up to.
#[derive(Debug)]
pub(super) struct Replay {
    /// Whether a whole snapshot was seen, without which nothing that follows means anything.
    pub(super) complete: bool,
    /// Whether a number or a record was missing since the last renewal.
    pub(super) disordered: bool,
    pub(super) origin: u128,
    pub(super) ledger: Ledger,
    /// What the deltas in the ledger were sent under, if they were.
    pub(super) former: Former,
    pub(super) baselines: Baselines,
    pub(super) harvested: UnixNanos,
    /// Damages that the last renewal knew of.
    pub(super) damages: Vec<(u64, u64)>,
    /// Where the last whole snapshot begins.
    pub(super) snapshot_at: u64,
    /// A snapshot of which parts are still to come, and where it begins.
    staging: Option<(u64, Baselines)>,
    names: Names,
}

impl Replay {
    pub(super) fn new() -> Self {
        Self {
            complete: false,
            disordered: false,
            origin: 0,
            ledger: Ledger::new(Incarnation(0), Sequence(0)),
            former: Former::new(Incarnation(0), Sequence(0)),
            baselines: Baselines::default(),
            harvested: UnixNanos(0),
            damages: Vec::new(),
            snapshot_at: 0,
            staging: None,
            names: Names::default(),
        }
    }

    /// Takes the next record.
    pub(super) fn take(&mut self, record: &JournalRecord) {
        let made_sense = match record.kind {
            DELTA => self.delta(record),
            SNAPSHOT => self.snapshot(record),
            RENEWAL => self.renewal(&record.payload),
            _ => None,
        };
        self.disordered |= made_sense.is_none();
    }

    fn delta(&mut self, record: &JournalRecord) -> Option<()> {
        let (head, harvested) = decode_delta(&record.payload, &mut self.names)?;
        let due = (self.former.life, self.former.last().next());
        self.disordered |= !self.complete || due != (head.incarnation, head.sequence);
        if head.incarnation == self.former.life {
            self.ledger.acknowledge(self.former.up_to(head.acked));
        }
        let start = harvested.record.start;
        let now = self.ledger.push(record.position, start, record.payload.len() as u64);
        if self.former.life == Incarnation(0) {
            self.former =
                Former::new(head.incarnation, Sequence(head.sequence.0.saturating_sub(1)));
        }
        self.former.push(now, head.incarnation, head.sequence);
        self.grow(&harvested)?;
        head.gone.iter().for_each(|segment| self.baselines.forget(*segment));
        self.harvested = UnixNanos(start.0.saturating_add(harvested.record.duration.0));
        Some(())
    }

    fn grow(&mut self, harvested: &Harvested) -> Option<()> {
        for (delta, origin) in harvested.record.histograms.iter().zip(&harvested.histograms) {
            let single = origin.shards.len() == 1;
            for (shard, block) in &origin.shards {
                let bytes = if single { &delta.block } else { block };
                let (block, _) = BlockRef::parse(bytes).ok()?;
                let place = (origin.series, *shard);
                block.for_each(|slot, count| {
                    self.baselines.grow(origin.segment, place, slot, count);
                });
            }
        }
        for (delta, (segment, index)) in harvested.record.requests.iter().zip(&harvested.requests) {
            self.baselines.grow_requests(*segment, *index, [delta.ok, delta.error]);
        }
        harvested.gauges.iter().for_each(|segment| self.baselines.touch(*segment));
        Some(())
    }

    /// Whether the records end within a snapshot: the rest of it was torn off.
    pub(super) const fn ends_within_snapshot(&self) -> bool {
        self.staging.is_some()
    }

    fn snapshot(&mut self, record: &JournalRecord) -> Option<()> {
        let (head, parts) = decode_snapshot(&record.payload)?;
        if head.first {
            self.staging = Some((record.position, Baselines::default()));
        }
        let (_, staging) = self.staging.as_mut()?;
        for part in parts {
            staging.touch(part.incarnation);
            for block in &part.blocks {
                for (slot, count) in &block.counters {
                    let (place, slot) = ((block.series, block.shard), usize::from(*slot));
                    staging.grow(part.incarnation, place, slot, (*count).into());
                }
            }
            for (index, counts) in (0..).zip(&part.requests) {
                staging.grow_requests(part.incarnation, index, *counts);
            }
        }
        if !head.last {
            return Some(());
        }
        (self.snapshot_at, self.baselines) = self.staging.take()?;
        (self.origin, self.harvested) = (head.origin, head.harvested);
        if self.complete {
            // Lost records keep their numbers, which the ledger does not.
            let known = (self.former.life, self.former.last());
            self.disordered |= known != (head.incarnation, head.sequence);
            if self.former.life == head.incarnation {
                self.former.sure_up_to(head.sequence);
            } else {
                self.former = Former::new(head.incarnation, head.sequence);
            }
        } else {
            // Everything before it was acknowledged, or the files before it would still be there.
            self.ledger = Ledger::new(head.incarnation, head.sequence);
            self.former = Former::new(head.incarnation, head.sequence);
        }
        self.ledger.acknowledge(self.former.up_to(head.acked));
        self.complete = true;
        Some(())
    }

    fn renewal(&mut self, payload: &[u8]) -> Option<()> {
        let renewal = decode_renewal(payload)?;
        let before = self.ledger.last.0.checked_sub(renewal.held)?;
        if before < self.ledger.acked.0 {
            return None;
        }
        self.ledger.acknowledge(Sequence(before));
        self.ledger.renew(renewal.incarnation);
        self.former = Former::renumbered(renewal.incarnation, renewal.held);
        self.damages = renewal.damages;
        self.disordered = false;
        Some(())
    }
}
