//! The envelope of every frame, and reading one frame of either direction.
//!
//! `u32 body length | u8 type | u8 flags | body | u32 CRC32C`. The checksum covers everything in
//! front of it. It starts from the low 32 bits of the agent's incarnation, except in HELLO,
//! WELCOME and REFUSE, so that the same bytes of another life never pass for one of this.
//! What each side may receive is an enum of its own: mixing directions up does not compile, and a
//! peer that does it is refused.

use lens_model::Incarnation;
use lens_model::limits::FRAME_BYTES_MAX;

use crate::capture::{Capture, Captured};
use crate::control::{Ack, Bye, Ping, Pong};
use crate::delta::DeltaRef;
use crate::dict::Dict;
use crate::error::FrameError;
use crate::exemplars::Exemplars;
use crate::flags::{Applied, Flags};
use crate::handshake::{Hello, Welcome};
use crate::kind::{FLAG_SKIPPABLE, Kind};
use crate::limits::{HEAD_LEN, TAIL_LEN};
use crate::read::Reader;
use crate::refuse::Refuse;

/// How far a connection has come, which decides what may arrive and which checksum it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing was received yet: HELLO is due from the agent, WELCOME or REFUSE from the other.
    Opening,
    /// The handshake is done with an agent in this life.
    Open(Incarnation),
}

/// A frame that was left out because this version does not know its type or a flag of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The type's code.
    pub code: u8,
    /// All its flags.
    pub flags: u8,
    /// Its body's length, bytes.
    pub body_bytes: usize,
}

/// What an aggregator receives.
#[derive(Clone, Debug)]
pub enum FromAgent<'a> {
    /// Who I am and where I resume.
    Hello(Hello),
    /// Names for ids used from now on.
    Dict(Dict),
    /// One numbered delta.
    Delta(DeltaRef<'a>),
    /// What time is it?
    Ping(Ping),
    /// Nothing more will come on this connection.
    Bye(Bye),
    /// What of the control plane's word is in force; minor version 1 on.
    Applied(Applied),
    /// Slow requests by their traces; minor version 2 on.
    Exemplars(Exemplars),
    /// What it holds of the last minutes; minor version 2 on.
    Captured(Captured),
    /// Left out; count it.
    Skipped(Skipped),
}

/// What an agent receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromAggregator {
    /// Come in, this much is durable.
    Welcome(Welcome),
    /// No, and why.
    Refuse(Refuse),
    /// Durable and received up to here.
    Ack(Ack),
    /// This late.
    Pong(Pong),
    /// What the control plane decided; minor version 1 on.
    Flags(Flags),
    /// Send what you hold of the last minutes; minor version 2 on.
    Capture(Capture),
    /// Left out; count it.
    Skipped(Skipped),
}

impl<'a> FromAgent<'a> {
    /// Reads the one whole frame that `frame` is, as [`crate::FrameBuffer`] gives it.
    ///
    /// # Errors
    /// Any [`FrameError`]: the agent is at fault, the connection is to be refused.
    pub fn parse(frame: &'a [u8], phase: Phase) -> Result<Self, FrameError> {
        let (kind, body) = match open(frame, phase)? {
            Opened::Frame(kind, body) => (kind, body),
            Opened::Skipped(skipped) => return Ok(Self::Skipped(skipped)),
        };
        let reader = Reader::new(kind, body);
        // WIRE-005, WIRE-006, WIRE-019
        match (phase, kind) {
            (Phase::Opening, Kind::Hello) => Hello::read(reader).map(Self::Hello),
            (Phase::Open(_), Kind::Dict) => Dict::read(reader).map(Self::Dict),
            (Phase::Open(_), Kind::Delta) => DeltaRef::read(reader).map(Self::Delta),
            (Phase::Open(_), Kind::Ping) => Ping::read(reader).map(Self::Ping),
            (Phase::Open(_), Kind::Bye) => Bye::read(reader).map(Self::Bye),
            (Phase::Open(_), Kind::Applied) => Applied::read(reader).map(Self::Applied),
            (Phase::Open(_), Kind::Captured) => Captured::read(reader).map(Self::Captured),
            (Phase::Open(_), Kind::Exemplars) => Exemplars::read(reader).map(Self::Exemplars),
            _ => Err(FrameError::OutOfPlace { kind }),
        }
    }
}

impl FromAggregator {
    /// Reads the one whole frame that `frame` is, as [`crate::FrameBuffer`] gives it.
    ///
    /// # Errors
    /// Any [`FrameError`]: the aggregator is at fault, the connection is to be closed and retried.
    pub fn parse(frame: &[u8], phase: Phase) -> Result<Self, FrameError> {
        let (kind, body) = match open(frame, phase)? {
            Opened::Frame(kind, body) => (kind, body),
            Opened::Skipped(skipped) => return Ok(Self::Skipped(skipped)),
        };
        let reader = Reader::new(kind, body);
        // WIRE-005, WIRE-006, WIRE-019
        match (phase, kind) {
            (Phase::Opening, Kind::Welcome) => Welcome::read(reader).map(Self::Welcome),
            (_, Kind::Refuse) => Refuse::read(reader).map(Self::Refuse),
            (Phase::Open(_), Kind::Ack) => Ack::read(reader).map(Self::Ack),
            (Phase::Open(_), Kind::Pong) => Pong::read(reader).map(Self::Pong),
            (Phase::Open(_), Kind::Flags) => Flags::read(reader).map(Self::Flags),
            (Phase::Open(_), Kind::Capture) => Capture::read(reader).map(Self::Capture),
            _ => Err(FrameError::OutOfPlace { kind }),
        }
    }
}

enum Opened<'a> {
    Frame(Kind, &'a [u8]),
    Skipped(Skipped),
}

/// Checks the envelope: length, checksum, type and flags.
fn open(frame: &[u8], phase: Phase) -> Result<Opened<'_>, FrameError> {
    let length = frame_len(frame, FRAME_BYTES_MAX)?.ok_or(FrameError::Truncated)?;
    if frame.len() < length {
        return Err(FrameError::Truncated);
    }
    if frame.len() > length {
        return Err(FrameError::Trailing { extra: frame.len() - length });
    }
    let (code, flags) = (frame[4], frame[5]);
    let kind = Kind::from_code(code);
    // WIRE-014: without a handshake there is no incarnation to start from.
    let seed = match (kind, phase) {
        (Some(kind), _) if kind.is_unseeded() => 0,
        (_, Phase::Open(incarnation)) => seed_of(incarnation),
        (Some(kind), Phase::Opening) => return Err(FrameError::OutOfPlace { kind }),
        (None, Phase::Opening) => return Err(FrameError::UnknownKind { code }),
    };
    // WIRE-012, WIRE-015
    let (covered, sum) = frame.split_at(length - TAIL_LEN);
    if crc32c::crc32c_append(seed, covered).to_le_bytes() != sum {
        return Err(FrameError::Checksum);
    }
    let body = &covered[HEAD_LEN..];
    let skippable = flags & FLAG_SKIPPABLE != 0;
    let skipped = Skipped { code, flags, body_bytes: body.len() };
    match kind {
        // WIRE-016
        None if skippable => Ok(Opened::Skipped(skipped)),
        None => Err(FrameError::UnknownKind { code }),
        // WIRE-018
        Some(kind) if kind.is_indispensable() && flags != 0 => {
            Err(FrameError::UnknownFlags { kind, flags })
        }
        Some(kind) if flags & !FLAG_SKIPPABLE == 0 => Ok(Opened::Frame(kind, body)),
        // WIRE-017
        Some(_) if skippable => Ok(Opened::Skipped(skipped)),
        Some(kind) => Err(FrameError::UnknownFlags { kind, flags }),
    }
}

/// Length of the whole frame that `bytes` begin with, once its length field is there. (WIRE-010)
pub(crate) fn frame_len(bytes: &[u8], body_max: usize) -> Result<Option<usize>, FrameError> {
    let Some((length, _)) = bytes.split_first_chunk() else {
        return Ok(None);
    };
    let declared = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
    // WIRE-011
    if declared > body_max {
        return Err(FrameError::TooLong { declared, max: body_max });
    }
    Ok(Some(HEAD_LEN + declared + TAIL_LEN))
}

/// What the checksum of a frame starts from. (WIRE-014)
#[allow(clippy::cast_possible_truncation)]
const fn seed_of(incarnation: Incarnation) -> u32 {
    incarnation.0 as u32
}

/// Appends a frame, whose body the caller keeps within its bound. HELLO, WELCOME and REFUSE pass
/// no life. (WIRE-012)
pub(crate) fn put_frame(
    kind: Kind,
    life: Option<Incarnation>,
    out: &mut Vec<u8>,
    put_body: impl FnOnce(&mut Vec<u8>),
) {
    let start = out.len();
    out.extend_from_slice(&[0, 0, 0, 0, kind.code(), 0]);
    put_body(out);
    let length = out.len() - start - HEAD_LEN;
    debug_assert!(length <= FRAME_BYTES_MAX, "{kind} body of {length} bytes");
    #[allow(clippy::cast_possible_truncation)]
    let prefix = (length as u32).to_le_bytes();
    out[start..start + prefix.len()].copy_from_slice(&prefix);
    let sum = crc32c::crc32c_append(life.map_or(0, seed_of), &out[start..]);
    out.extend_from_slice(&sum.to_le_bytes());
}
