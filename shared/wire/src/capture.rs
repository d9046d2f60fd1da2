//! CAPTURE and CAPTURED: the last minutes in fine steps, asked for when they are needed.
//!
//! An agent keeps them beside what it ships; they are a second look at counts that were or will be
//! delivered as deltas, and are never merged. Minor version 2 on.

use lens_hist::block::{BlockRef, put_varint};
use lens_model::limits::FRAME_SERIES_MAX;
use lens_model::{Arm, Incarnation, Nanos, Slice, Stage, UnixNanos};

use crate::delta::{unzigzag, zigzag};
use crate::dict::SeriesId;
use crate::error::FrameError;
use crate::frame::put_frame;
use crate::kind::Kind;
use crate::read::{Reader, put_str};

/// The code of no particular stage or arm.
const ANY: u8 = u8::MAX;

/// Send what you hold. (WIRE-162)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    /// Tells this capture from others; the answer repeats it.
    pub id: u64,
    /// From when on, by the aggregator's clock.
    pub from: UnixNanos,
    /// Until when.
    pub to: UnixNanos,
    /// Only this slice.
    pub slice: Option<Slice>,
    /// Only this stage.
    pub stage: Option<Stage>,
    /// Only this arm.
    pub arm: Option<Arm>,
}

impl Capture {
    /// Appends the frame.
    pub fn encode(&self, incarnation: Incarnation, out: &mut Vec<u8>) {
        put_frame(Kind::Capture, Some(incarnation), out, |out| {
            out.extend_from_slice(&self.id.to_le_bytes());
            out.extend_from_slice(&self.from.0.to_le_bytes());
            out.extend_from_slice(&self.to.0.to_le_bytes());
            put_str(out, &self.slice.as_ref().map(ToString::to_string).unwrap_or_default());
            out.push(self.stage.map_or(ANY, Stage::code));
            out.push(self.arm.map_or(ANY, Arm::code));
        });
    }

    pub(crate) fn read(mut r: Reader<'_>) -> Result<Self, FrameError> {
        let id = r.u64("id")?;
        let (from, to) = (UnixNanos(r.u64("from")?), UnixNanos(r.u64("to")?));
        let slice = match r.str("slice")? {
            "" => None,
            text => Some(text.parse().map_err(|_| r.bad("slice"))?),
        };
        let stage = match r.u8("stage")? {
            ANY => None,
            code => Some(Stage::from_code(code).ok_or_else(|| r.bad("stage"))?),
        };
        let arm = match r.u8("arm")? {
            ANY => None,
            code => Some(Arm::from_code(code).ok_or_else(|| r.bad("arm"))?),
        };
        r.finish()?;
        Ok(Self { id, from, to, slice, stage, arm })
    }
}

/// What one series counted in one step. (WIRE-163)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapturedSlot {
    /// The series.
    pub series: SeriesId,
    /// When the step began, by the agent's clock.
    pub start: UnixNanos,
    /// How long it was.
    pub duration: Nanos,
    /// The counts, a block.
    pub block: Box<[u8]>,
}

/// Some of what is held. (WIRE-163)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// The capture it is for.
    pub id: u64,
    /// How far the aggregator's clock is ahead of the agent's, nanoseconds; 0 while that is unknown.
    pub offset_nanos: i64,
    /// From when on anything is held, by the agent's clock.
    pub held_from: UnixNanos,
    /// Steps that had to give way to newer ones before their time.
    pub left_out: u64,
    /// Whether nothing follows for this capture.
    pub last: bool,
    /// The steps, at most [`FRAME_SERIES_MAX`].
    pub entries: Vec<CapturedSlot>,
}

impl Captured {
    /// Appends the frame; its entries are bounded by the caller.
    pub fn encode(&self, incarnation: Incarnation, out: &mut Vec<u8>) {
        put_frame(Kind::Captured, Some(incarnation), out, |out| {
            out.extend_from_slice(&self.id.to_le_bytes());
            put_varint(out, zigzag(self.offset_nanos));
            out.extend_from_slice(&self.held_from.0.to_le_bytes());
            put_varint(out, self.left_out);
            out.push(u8::from(self.last));
            put_varint(out, self.entries.len() as u64);
            for entry in &self.entries {
                put_varint(out, u64::from(entry.series.0));
                out.extend_from_slice(&entry.start.0.to_le_bytes());
                put_varint(out, entry.duration.0);
                out.extend_from_slice(&entry.block);
            }
        });
    }

    pub(crate) fn read(mut r: Reader<'_>) -> Result<Self, FrameError> {
        let id = r.u64("id")?;
        let offset_nanos = unzigzag(r.varint("clock offset")?);
        let held_from = UnixNanos(r.u64("held from")?);
        let left_out = r.varint("left out")?;
        let last = match r.u8("last")? {
            0 => false,
            1 => true,
            _ => return Err(r.bad("last")),
        };
        // WIRE-164
        let count = r.count("steps", FRAME_SERIES_MAX)?;
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            let series = u32::try_from(r.varint("series")?).map_err(|_| r.bad("series"))?;
            let (start, duration) = (UnixNanos(r.u64("start")?), Nanos(r.varint("duration")?));
            let before = r.rest();
            let parsed = BlockRef::parse(before);
            let (_, rest) = parsed.map_err(|error| FrameError::Block { series, error })?; // WIRE-065
            let block = before[..before.len() - rest.len()].into();
            r.go_on(rest);
            entries.push(CapturedSlot { series: SeriesId(series), start, duration, block });
        }
        r.finish()?;
        Ok(Self { id, offset_nanos, held_from, left_out, last, entries })
    }
}
