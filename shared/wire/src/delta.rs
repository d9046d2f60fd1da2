//! DELTA, read: one numbered delta as a checked view of the bytes it arrived in.
//!
//! Parsing checks everything – ids ascend, every block is valid, block totals add up to the
//! declared total – before anything is given out, so that a frame is merged as a whole or not at
//! all. Promise: iterating a parsed delta neither fails nor allocates.
//! Cost: blocks are checked once; of a checked block only its end is found again.

use lens_hist::block::{BlockRef, put_varint, take_varint};
use lens_model::limits::{CONNECTION_SERIES_MAX, FRAME_SERIES_MAX};
use lens_model::{Nanos, Sequence, UnixNanos};

use crate::control::ClockOffset;
use crate::dict::{GaugeId, RequestsId, SeriesId};
use crate::error::FrameError;
use crate::limits::{
    CONNECTION_GAUGES_MAX, CONNECTION_REQUESTS_MAX, FRAME_GAUGES_MAX, FRAME_REQUESTS_MAX,
};
use crate::read::Reader;

/// Which delta, and which stretch of time it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeltaHead {
    /// Its number in the agent's incarnation, from 1.
    pub sequence: Sequence,
    /// Start of the interval by the agent's clock.
    pub start: UnixNanos,
    /// Length of the interval.
    pub duration: Nanos,
    /// The agent's clock against the aggregator's, as measured when the delta was made.
    pub clock: ClockOffset,
}

impl DeltaHead {
    /// The start of the interval by the aggregator's clock. (WIRE-088)
    pub const fn corrected_start(&self) -> UnixNanos {
        self.start.shifted(self.clock.offset_nanos)
    }

    pub(crate) fn put(&self, samples: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.start.0.to_le_bytes());
        put_varint(out, self.sequence.0);
        put_varint(out, self.duration.0);
        put_varint(out, zigzag(self.clock.offset_nanos));
        put_varint(out, self.clock.error_nanos);
        put_varint(out, samples);
    }

    fn read(r: &mut Reader<'_>) -> Result<(Self, u64), FrameError> {
        let start = UnixNanos(r.u64("start")?);
        let sequence = Sequence(r.varint("sequence")?);
        if sequence.0 == 0 {
            return Err(r.bad("sequence")); // WIRE-060
        }
        let duration = Nanos(r.varint("duration")?);
        let offset_nanos = unzigzag(r.varint("clock offset")?);
        let clock = ClockOffset { offset_nanos, error_nanos: r.varint("clock error")? };
        let samples = r.varint("samples")?;
        Ok((Self { sequence, start, duration, clock }, samples))
    }
}

/// A signed number as an unsigned one that is small when it is near zero. (WIRE-023)
#[allow(clippy::cast_sign_loss)]
pub(crate) const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

#[allow(clippy::cast_possible_wrap)]
pub(crate) const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// One numbered delta, checked, borrowing the frame it arrived in.
#[derive(Clone, Copy, Debug)]
pub struct DeltaRef<'a> {
    head: DeltaHead,
    samples: u64,
    histograms: Section<'a>,
    requests: Section<'a>,
    gauges: Section<'a>,
}

/// Entries of one kind as they stand in the bytes.
#[derive(Clone, Copy, Debug)]
struct Section<'a> {
    count: usize,
    last: Option<u32>,
    bytes: &'a [u8],
}

impl<'a> Section<'a> {
    /// Walks `count` entries whose ids ascend below `ids_max`, checking each. (WIRE-064)
    fn read(
        r: &mut Reader<'a>,
        count: usize,
        ids_max: usize,
        mut check: impl FnMut(&mut Reader<'a>, u32) -> Result<(), FrameError>,
    ) -> Result<Self, FrameError> {
        let (before, mut last) = (r.rest(), None);
        for _ in 0..count {
            let gap = r.varint("id")?;
            let id = id_after(last, gap).ok_or_else(|| r.bad("id"))?;
            if usize::try_from(id).is_ok_and(|id| id >= ids_max) {
                return Err(r.bad("id"));
            }
            last = Some(id);
            check(r, id)?;
        }
        Ok(Self { count, last, bytes: &before[..before.len() - r.rest().len()] })
    }

    /// The entries, already checked by [`Section::read`].
    fn iter<T>(
        self,
        take: impl Fn(&'a [u8]) -> Option<(T, &'a [u8])>,
    ) -> impl Iterator<Item = (u32, T)> {
        let (mut rest, mut last) = (self.bytes, None);
        (0..self.count).map_while(move |_| {
            let (gap, after) = take_varint(rest).ok()?;
            let id = id_after(last, gap)?;
            let (entry, after) = take(after)?;
            (rest, last) = (after, Some(id));
            Some((id, entry))
        })
    }
}

/// The id that a gap after the last one stands for. (WIRE-064)
fn id_after(last: Option<u32>, gap: u64) -> Option<u32> {
    let next = last.map_or(0, |last| u64::from(last) + 1);
    u32::try_from(next.checked_add(gap)?).ok()
}

impl<'a> DeltaRef<'a> {
    pub(crate) fn read(mut r: Reader<'a>) -> Result<Self, FrameError> {
        let (head, samples) = DeltaHead::read(&mut r)?;
        // WIRE-068
        let count = r.count("histograms", FRAME_SERIES_MAX)?;
        let mut found = Some(0_u64);
        let histograms = Section::read(&mut r, count, CONNECTION_SERIES_MAX, |r, series| {
            let (block, rest) =
                BlockRef::parse(r.rest()).map_err(|error| FrameError::Block { series, error })?; // WIRE-065
            found = found.and_then(|found| found.checked_add(block.total()));
            r.go_on(rest);
            Ok(())
        })?;
        // WIRE-062
        if found != Some(samples) {
            let found = found.unwrap_or(u64::MAX);
            return Err(FrameError::Totals { declared: samples, found });
        }
        let count = r.count("requests", FRAME_REQUESTS_MAX)?;
        // WIRE-066
        let requests = Section::read(&mut r, count, CONNECTION_REQUESTS_MAX, |r, _| {
            r.varint("ok")?;
            r.varint("errors").map(|_| ())
        })?;
        let count = r.count("gauges", FRAME_GAUGES_MAX)?;
        let gauges = Section::read(&mut r, count, CONNECTION_GAUGES_MAX, |r, _| {
            // WIRE-067
            let finite = f64::from_bits(r.u64("gauge")?).is_finite();
            if finite { Ok(()) } else { Err(r.bad("gauge")) }
        })?;
        r.finish()?;
        // WIRE-063: only now is anything of it given out.
        Ok(Self { head, samples, histograms, requests, gauges })
    }

    /// Which delta, about which time.
    pub const fn head(&self) -> &DeltaHead {
        &self.head
    }

    /// Its number.
    pub const fn sequence(&self) -> Sequence {
        self.head.sequence
    }

    /// The samples of all its histograms together.
    pub const fn samples(&self) -> u64 {
        self.samples
    }

    /// Histograms in it.
    pub const fn histograms_len(&self) -> usize {
        self.histograms.count
    }

    /// Its histograms, by ascending id.
    pub fn histograms(&self) -> impl Iterator<Item = (SeriesId, BlockRef<'a>)> + use<'a> {
        self.histograms.iter(BlockRef::known).map(|(id, block)| (SeriesId(id), block))
    }

    /// Its request deltas, by ascending id: `(id, succeeded, failed)`.
    pub fn requests(&self) -> impl Iterator<Item = (RequestsId, u64, u64)> + use<'a> {
        let entries = self.requests.iter(|bytes| {
            let (ok, rest) = take_varint(bytes).ok()?;
            let (errors, rest) = take_varint(rest).ok()?;
            Some(((ok, errors), rest))
        });
        entries.map(|(id, (ok, errors))| (RequestsId(id), ok, errors))
    }

    /// Its gauges, by ascending id; every value is finite.
    pub fn gauges(&self) -> impl Iterator<Item = (GaugeId, f64)> + use<'a> {
        let entries = self.gauges.iter(|bytes| {
            let (value, rest) = bytes.split_first_chunk()?;
            Some((f64::from_le_bytes(*value), rest))
        });
        entries.map(|(id, value)| (GaugeId(id), value))
    }

    pub(crate) const fn last_series(&self) -> Option<u32> {
        self.histograms.last
    }

    pub(crate) const fn last_requests(&self) -> Option<u32> {
        self.requests.last
    }

    pub(crate) const fn last_gauge(&self) -> Option<u32> {
        self.gauges.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signed_numbers_come_back_and_small_ones_stay_small() {
        // WIRE-023
        for value in [0, -1, 1, -64, 63, i64::MIN, i64::MAX] {
            assert_eq!(unzigzag(zigzag(value)), value);
        }
        assert_eq!((zigzag(-1), zigzag(1), zigzag(-64)), (1, 2, 127));
    }
}
