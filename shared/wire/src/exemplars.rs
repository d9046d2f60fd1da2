//! EXEMPLARS: slow requests that can be looked up by their traces.
//!
//! They are examples and no counts: unnumbered, never acknowledged, not sent again. Minor version 2
//! on.

use lens_hist::block::put_varint;
use lens_model::limits::AGENT_EXEMPLARS_MAX;
use lens_model::{Incarnation, Trace, UnixNanos};

use crate::delta::{unzigzag, zigzag};
use crate::dict::SeriesId;
use crate::error::FrameError;
use crate::frame::put_frame;
use crate::kind::Kind;
use crate::read::Reader;

/// One slow request. (WIRE-151)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exemplar {
    /// The series it was counted in.
    pub series: SeriesId,
    /// When it was recorded, by the agent's clock.
    pub at: UnixNanos,
    /// How long it took, nanoseconds.
    pub nanos: u64,
    /// Which request it was.
    pub trace: Trace,
}

/// Some of them. (WIRE-151)
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exemplars {
    /// How far the aggregator's clock is ahead of the agent's, nanoseconds; 0 while that is unknown.
    pub offset_nanos: i64,
    /// The requests, at most [`AGENT_EXEMPLARS_MAX`].
    pub entries: Vec<Exemplar>,
}

impl Exemplars {
    /// Appends the frame; of more entries than one may hold the first are written.
    pub fn encode(&self, incarnation: Incarnation, out: &mut Vec<u8>) {
        let entries = &self.entries[..self.entries.len().min(AGENT_EXEMPLARS_MAX)];
        put_frame(Kind::Exemplars, Some(incarnation), out, |out| {
            put_varint(out, zigzag(self.offset_nanos));
            put_varint(out, entries.len() as u64);
            for entry in entries {
                put_varint(out, u64::from(entry.series.0));
                out.extend_from_slice(&entry.at.0.to_le_bytes());
                put_varint(out, entry.nanos);
                out.extend_from_slice(&entry.trace.id());
                out.extend_from_slice(&entry.trace.span());
            }
        });
    }

    pub(crate) fn read(mut r: Reader<'_>) -> Result<Self, FrameError> {
        let offset_nanos = unzigzag(r.varint("clock offset")?);
        // WIRE-152
        let count = r.count("exemplars", AGENT_EXEMPLARS_MAX)?;
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            let series = u32::try_from(r.varint("series")?).map_err(|_| r.bad("series"))?;
            let (at, nanos) = (UnixNanos(r.u64("at")?), r.varint("latency")?);
            // WIRE-153
            let trace = Trace::new(r.array("trace")?, r.array("span")?);
            let trace = trace.ok_or_else(|| r.bad("trace"))?;
            entries.push(Exemplar { series: SeriesId(series), at, nanos, trace });
        }
        r.finish()?;
        Ok(Self { offset_nanos, entries })
    }
}
