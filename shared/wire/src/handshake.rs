//! HELLO and WELCOME: who the agent is, where it resumes, and within which bounds.

use lens_model::limits::{AGENT_FRAMES_IN_FLIGHT_MAX, FRAME_BYTES_MAX};
use lens_model::{AgentName, Incarnation, Sequence, UnixNanos};

use crate::error::FrameError;
use crate::frame::put_frame;
use crate::kind::Kind;
use crate::limits::{EXTENSION_BYTES_MAX, FRAME_BYTES_MIN, LABELS_MAX};
use crate::read::{Reader, put_str};
use crate::refuse::RefuseCode;
use crate::text::{Label, Labels};
use crate::{MINOR, SCHEME, UNIT};

/// Who I am and where I resume: the agent's first frame. (WIRE-030)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Highest minor version the agent speaks.
    pub minor: u16,
    /// Bucket scheme of its blocks; [`SCHEME`] is the one this code knows.
    pub scheme: u8,
    /// Unit of its latencies; [`UNIT`] is the one this code knows.
    pub unit: u8,
    /// The life its sequence numbers belong to.
    pub incarnation: Incarnation,
    /// First sequence it has no durable acknowledgement of: where it would resume.
    pub resume: Sequence,
    /// Its name, which must be the one in its certificate; the caller compares.
    pub agent: AgentName,
    /// Its software version.
    pub software: Label,
    /// What its operator says about it, the zone for one.
    pub labels: Labels,
}

impl Hello {
    /// A HELLO of this code's minor version, scheme and unit, resuming at the first sequence.
    pub fn new(agent: AgentName, incarnation: Incarnation, software: Label) -> Self {
        Self {
            minor: MINOR,
            scheme: SCHEME,
            unit: UNIT,
            incarnation,
            resume: Sequence(1),
            agent,
            software,
            labels: Labels::new(),
        }
    }

    /// Why an aggregator of this version cannot understand this agent, if so. (WIRE-004)
    pub const fn refusal(&self) -> Option<RefuseCode> {
        if self.scheme == SCHEME && self.unit == UNIT { None } else { Some(RefuseCode::Scheme) }
    }

    /// The minor version both sides speak. (WIRE-003)
    pub const fn common_minor(&self) -> u16 {
        if self.minor < MINOR { self.minor } else { MINOR }
    }

    /// Appends the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_frame(Kind::Hello, None, out, |out| {
            out.extend_from_slice(&self.minor.to_le_bytes());
            out.extend_from_slice(&[self.scheme, self.unit]);
            out.extend_from_slice(&self.incarnation.0.to_le_bytes());
            out.extend_from_slice(&self.resume.0.to_le_bytes());
            put_str(out, self.agent.as_str());
            put_str(out, self.software.as_str());
            #[allow(clippy::cast_possible_truncation)]
            out.push(self.labels.len() as u8);
            for (name, value) in self.labels.iter() {
                put_str(out, name);
                put_str(out, value);
            }
            put_no_extension(out);
        });
    }

    pub(crate) fn read(mut r: Reader<'_>) -> Result<Self, FrameError> {
        let minor = r.u16("minor")?;
        let (scheme, unit) = (r.u8("scheme")?, r.u8("unit")?);
        let incarnation = Incarnation(r.u128("incarnation")?);
        let resume = sequence(&mut r, "resume")?;
        let agent = AgentName::new(r.str("agent")?).map_err(|_| r.bad("agent"))?;
        let software = r.text("software")?;
        let labels = read_labels(&mut r)?;
        skip_extension(&mut r)?;
        r.finish()?;
        Ok(Self { minor, scheme, unit, incarnation, resume, agent, software, labels })
    }
}

/// Labels by strictly ascending name. (WIRE-031)
fn read_labels(r: &mut Reader<'_>) -> Result<Labels, FrameError> {
    let count = usize::from(r.u8("labels")?);
    if count > LABELS_MAX {
        let declared = count as u64;
        return Err(FrameError::TooMany {
            kind: r.kind,
            what: "labels",
            declared,
            max: LABELS_MAX,
        });
    }
    let mut labels = Labels::new();
    for _ in 0..count {
        let name: Label = r.text("label name")?;
        if labels.last_name().is_some_and(|last| *last >= name) {
            return Err(r.bad("label order"));
        }
        let value = r.text("label value")?;
        labels.set(name, value).map_err(|_| r.bad("label name"))?;
    }
    Ok(labels)
}

/// Come in, this much is durable: the aggregator's first frame. (WIRE-033)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The minor version of this connection.
    pub minor: u16,
    /// Highest sequence up to which every delta of this agent and incarnation is durable.
    pub acked: Sequence,
    /// The aggregator's clock as it wrote this.
    pub server_time: UnixNanos,
    /// Largest body it takes, [`FRAME_BYTES_MIN`] to [`FRAME_BYTES_MAX`] bytes.
    pub frame_bytes_max: u32,
    /// DELTA frames the agent may have unacknowledged, 1 to [`AGENT_FRAMES_IN_FLIGHT_MAX`].
    pub frames_in_flight: u16,
}

#[allow(clippy::cast_possible_truncation)]
const FRAME_BYTES: std::ops::RangeInclusive<u32> = FRAME_BYTES_MIN as u32..=FRAME_BYTES_MAX as u32;
#[allow(clippy::cast_possible_truncation)]
const IN_FLIGHT: std::ops::RangeInclusive<u16> = 1..=AGENT_FRAMES_IN_FLIGHT_MAX as u16;

impl Welcome {
    /// A WELCOME to `hello` with the widest bounds.
    pub const fn new(hello: &Hello, acked: Sequence, server_time: UnixNanos) -> Self {
        let (frame_bytes_max, frames_in_flight) = (*FRAME_BYTES.end(), *IN_FLIGHT.end());
        Self { minor: hello.common_minor(), acked, server_time, frame_bytes_max, frames_in_flight }
    }

    /// Appends the frame, bounds outside their range moved to its nearer end. (WIRE-034)
    pub fn encode(&self, out: &mut Vec<u8>) {
        let frame_bytes = self.frame_bytes_max.clamp(*FRAME_BYTES.start(), *FRAME_BYTES.end());
        let in_flight = self.frames_in_flight.clamp(*IN_FLIGHT.start(), *IN_FLIGHT.end());
        put_frame(Kind::Welcome, None, out, |out| {
            out.extend_from_slice(&self.minor.to_le_bytes());
            out.extend_from_slice(&self.acked.0.to_le_bytes());
            out.extend_from_slice(&self.server_time.0.to_le_bytes());
            out.extend_from_slice(&frame_bytes.to_le_bytes());
            out.extend_from_slice(&in_flight.to_le_bytes());
            put_no_extension(out);
        });
    }

    pub(crate) fn read(mut r: Reader<'_>) -> Result<Self, FrameError> {
        let welcome = Self {
            minor: r.u16("minor")?,
            acked: Sequence(r.u64("acked")?),
            server_time: UnixNanos(r.u64("server time")?),
            frame_bytes_max: r.u32("frame bytes")?,
            frames_in_flight: r.u16("frames in flight")?,
        };
        // WIRE-034
        if !FRAME_BYTES.contains(&welcome.frame_bytes_max) {
            return Err(r.bad("frame bytes"));
        }
        if !IN_FLIGHT.contains(&welcome.frames_in_flight) {
            return Err(r.bad("frames in flight"));
        }
        skip_extension(&mut r)?;
        r.finish()?;
        Ok(welcome)
    }
}

/// A sequence that numbers a delta: from 1. (WIRE-060)
pub(crate) fn sequence(r: &mut Reader<'_>, field: &'static str) -> Result<Sequence, FrameError> {
    match r.u64(field)? {
        0 => Err(r.bad(field)),
        number => Ok(Sequence(number)),
    }
}

/// This minor version adds no fields. (WIRE-038)
fn put_no_extension(out: &mut Vec<u8>) {
    out.extend_from_slice(&0_u16.to_le_bytes());
}

/// Fields of a later minor version are passed over. (WIRE-038)
fn skip_extension(r: &mut Reader<'_>) -> Result<(), FrameError> {
    let length = usize::from(r.u16("extension")?);
    if length > EXTENSION_BYTES_MAX {
        return Err(r.bad("extension"));
    }
    r.bytes(length, "extension").map(|_| ())
}
