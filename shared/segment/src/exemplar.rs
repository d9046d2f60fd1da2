//! Exemplars: slow records with their traces, in a small ring of the header page.
//!
//! Why a ring: the agent takes what it finds at each harvest, and nobody waits. A series has a place
//! in it for each second, which its slowest record of that second takes; so the slowest of the last
//! [`SEGMENT_EXEMPLARS_MAX`] series and seconds are there, however many records raise the bar.
//! Why a check value and no lock: an exemplar is an example and never a count, so a slot that was
//! met half-written, or that two writers share because one came all around, may be passed over. The
//! check value tells such a slot from a whole one, by whatever means it was copied.
//! Units: nanoseconds; instants by the node's wall clock.

use std::sync::Arc;

use lens_model::limits::SEGMENT_EXEMPLARS_MAX;
use lens_model::{SeriesKey, Trace, UnixNanos};

use crate::bytes::{check_of, get_u64, put, take};
use crate::layout::{EXEMPLAR_BYTES, at};
use crate::protocol::{Bar, Seat, claim_next, write_exemplar_word};
use crate::region::Region;

/// What a bar holds for: a default harvest interval.
const PERIOD_NANOS: u64 = 1_000_000_000;

/// Offsets in a slot.
mod slot_at {
    pub(super) const NUMBER: usize = 0;
    pub(super) const SERIES: usize = 8;
    pub(super) const NANOS: usize = 16;
    pub(super) const AT: usize = 24;
    pub(super) const TRACE: usize = 32;
    pub(super) const SPAN: usize = 48;
    pub(super) const CHECK: usize = 56;
}

type Slot = [u8; EXEMPLAR_BYTES];

/// One slow record, as a harvest finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExemplarReading {
    /// What it was counted in.
    pub key: Arc<SeriesKey>,
    /// How long it took, nanoseconds.
    pub nanos: u64,
    /// When it was recorded, by the node's wall clock.
    pub at: UnixNanos,
    /// Which request it was.
    pub trace: Trace,
}

/// What a slot holds, its names not yet looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) number: u64,
    pub(crate) series: u64,
    pub(crate) nanos: u64,
    pub(crate) at: UnixNanos,
    pub(crate) trace: Trace,
}

/// Bytes of the whole ring.
pub(crate) const RING_BYTES: usize = SEGMENT_EXEMPLARS_MAX * EXEMPLAR_BYTES;

/// Keeps a record where it is the slowest of its series in its period so far.
pub(crate) fn offer(
    region: &Region,
    bar: &Bar,
    series: usize,
    nanos: u64,
    at: UnixNanos,
    trace: &Trace,
) {
    let Some(seat) = bar.raise(at.0 / PERIOD_NANOS, nanos) else { return };
    let place = match seat {
        Seat::Kept(place) => place,
        Seat::Fresh => {
            let next = claim_next(region.u64(at::EXEMPLARS_PLACED));
            let place = u32::try_from(next % SEGMENT_EXEMPLARS_MAX as u64).unwrap_or(0);
            bar.seat(place);
            place
        }
    };
    let number = claim_next(region.u64(at::EXEMPLARS_WRITTEN));
    let slot = encode(Found { number, series: series as u64, nanos, at, trace: *trace });
    let offset = at::EXEMPLARS + place as usize * EXEMPLAR_BYTES;
    for word in 0..EXEMPLAR_BYTES / 8 {
        write_exemplar_word(region.u64(offset + word * 8), get_u64(&slot, word * 8));
    }
}

fn encode(found: Found) -> Slot {
    let mut slot = [0; EXEMPLAR_BYTES];
    put(&mut slot, slot_at::NUMBER, &found.number.to_ne_bytes());
    put(&mut slot, slot_at::SERIES, &found.series.to_ne_bytes());
    put(&mut slot, slot_at::NANOS, &found.nanos.to_ne_bytes());
    put(&mut slot, slot_at::AT, &found.at.0.to_ne_bytes());
    put(&mut slot, slot_at::TRACE, &found.trace.id());
    put(&mut slot, slot_at::SPAN, &found.trace.span());
    let check = check_of(&slot[..slot_at::CHECK]);
    put(&mut slot, slot_at::CHECK, &check.to_ne_bytes());
    slot
}

/// The whole exemplar in a slot; `None` for an empty, torn or senseless one.
fn decode(slot: &Slot) -> Option<Found> {
    let number = get_u64(slot, slot_at::NUMBER);
    if number == 0 || get_u64(slot, slot_at::CHECK) != check_of(&slot[..slot_at::CHECK]) {
        return None;
    }
    Some(Found {
        number,
        series: get_u64(slot, slot_at::SERIES),
        nanos: get_u64(slot, slot_at::NANOS),
        at: UnixNanos(get_u64(slot, slot_at::AT)),
        trace: Trace::new(take(slot, slot_at::TRACE), take(slot, slot_at::SPAN))?,
    })
}

/// The whole exemplars of a private copy of the ring.
pub(crate) fn read(ring: &[u8; RING_BYTES]) -> impl Iterator<Item = (usize, Found)> + '_ {
    let (slots, _) = ring.as_chunks::<EXEMPLAR_BYTES>();
    slots.iter().enumerate().filter_map(|(place, slot)| Some((place, decode(slot)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Geometry;

    fn found(number: u64) -> Found {
        let byte = u8::try_from(number % 128).unwrap();
        let trace = Trace::new([byte | 0x80; 16], [byte; 8]).unwrap();
        let (nanos, at) = (number * 1_000_003, UnixNanos(number * 7_000_000_001));
        Found { number, series: number % 5, nanos, at, trace }
    }

    /// Every way in which a copy may hold words of two exemplars.
    #[test]
    fn a_slot_with_words_of_two_exemplars_is_passed_over() {
        for (one, two) in [(1, 49), (48, 96), (1_000, 1_048)] {
            let (one, two) = (encode(found(one)), encode(found(two)));
            for mask in 0_u32..1 << 8 {
                let mut mixed = one;
                for word in (0..8).filter(|word| mask >> word & 1 == 1) {
                    put(&mut mixed, word * 8, &take::<8>(&two, word * 8));
                }
                let whole = mixed == one || mixed == two;
                assert_eq!(decode(&mixed).is_some(), whole, "mask {mask:08b}");
            }
        }
    }

    #[test]
    fn an_empty_slot_and_one_without_a_trace_hold_nothing() {
        assert_eq!(decode(&[0; EXEMPLAR_BYTES]), None);
        let mut slot = encode(found(3));
        put(&mut slot, slot_at::TRACE, &[0; 16]);
        let check = check_of(&slot[..slot_at::CHECK]);
        put(&mut slot, slot_at::CHECK, &check.to_ne_bytes());
        assert_eq!(decode(&slot), None);
    }

    #[test]
    fn the_ring_holds_the_last_ones_and_no_more() {
        let region = Region::heap(Geometry::new(2, 1).unwrap().total_bytes());
        let max = SEGMENT_EXEMPLARS_MAX as u64;
        let bars: Vec<Bar> = (0..5).map(|_| Bar::new()).collect();
        for number in 1..=max + 3 {
            let Found { series, nanos, at, trace, .. } = found(number);
            let series = usize::try_from(series).unwrap();
            offer(&region, &bars[series], series, nanos, at, &trace);
        }
        let mut ring = [0; RING_BYTES];
        for word in 0..RING_BYTES / 8 {
            let value = region.u64(at::EXEMPLARS + word * 8);
            let value = value.load(core::sync::atomic::Ordering::Relaxed);
            put(&mut ring, word * 8, &value.to_ne_bytes());
        }
        let mut numbers: Vec<u64> = read(&ring).map(|(_, found)| found.number).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (4..=max + 3).collect::<Vec<_>>());
        assert!(read(&ring).all(|(_, read)| read == found(read.number)));
        let tail = region.u64(at::EXEMPLARS + RING_BYTES);
        assert_eq!(tail.load(core::sync::atomic::Ordering::Relaxed), 0, "nothing behind the ring");
    }
}
