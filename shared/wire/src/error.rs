//! Why bytes are not a frame, a value cannot become one, or a name cannot be taken on.

use lens_hist::block::BlockError;
use thiserror::Error;

use crate::kind::Kind;
use crate::refuse::RefuseCode;

/// Why bytes are not a frame. The sender is at fault; nothing of the frame was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The bytes end inside the frame.
    #[error("frame ends early")]
    Truncated,
    /// Bytes follow the frame, or the last field of its body.
    #[error("{extra} bytes follow the end of the frame")]
    Trailing {
        /// How many.
        extra: usize,
    },
    /// The declared body length is above the bound of this connection.
    #[error("frame declares a body of {declared} bytes, more than {max}")]
    TooLong {
        /// Declared body length, bytes.
        declared: usize,
        /// The bound, bytes.
        max: usize,
    },
    /// The checksum does not match: damage, or a frame of another incarnation.
    #[error("frame checksum does not match")]
    Checksum,
    /// A type this version does not define, in a frame that may not be skipped.
    #[error("frame type {code} is unknown and may not be skipped")]
    UnknownKind {
        /// The type's code.
        code: u8,
    },
    /// A flag this version does not define, in a frame that may not be skipped.
    #[error("{kind} frame has unknown flags {flags:#04x} and may not be skipped")]
    UnknownFlags {
        /// The frame's kind.
        kind: Kind,
        /// All its flags.
        flags: u8,
    },
    /// A kind that the other side never sends, or not in this phase of the connection.
    #[error("{kind} frame out of place")]
    OutOfPlace {
        /// The frame's kind.
        kind: Kind,
    },
    /// A field is missing, malformed or out of its range.
    #[error("{kind} frame has a bad {field}")]
    Field {
        /// The frame's kind.
        kind: Kind,
        /// The field, as docs/wire.md names it.
        field: &'static str,
    },
    /// More entries than one frame may hold.
    #[error("{kind} frame holds {declared} {what}, more than {max}")]
    TooMany {
        /// The frame's kind.
        kind: Kind,
        /// What there are too many of.
        what: &'static str,
        /// Declared count.
        declared: u64,
        /// The bound.
        max: usize,
    },
    /// A histogram's block is refused.
    #[error("DELTA frame, series {series}: {error}")]
    Block {
        /// The series id.
        series: u32,
        /// Why.
        error: BlockError,
    },
    /// The blocks do not add up to the declared total.
    #[error("DELTA frame declares {declared} samples but its blocks hold {found}")]
    Totals {
        /// What the frame says.
        declared: u64,
        /// What its blocks hold, saturating.
        found: u64,
    },
}

impl FrameError {
    /// The code a receiver answers with when it closes the connection over this. (WIRE-103)
    pub const fn refuse_code(&self) -> RefuseCode {
        RefuseCode::Protocol
    }
}

/// Why a value cannot become a frame. Nothing was written; the caller splits or drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The frame would be longer than its bound: finish this one and begin the next.
    #[error("frame is full: {needed} bytes, bound {max}")]
    Full {
        /// Body bytes it would need.
        needed: usize,
        /// The bound, bytes.
        max: usize,
    },
    /// More entries than one frame may hold: finish this one and begin the next.
    #[error("frame is full: {max} {what}")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// The bound.
        max: usize,
    },
    /// Ids must ascend from call to call within a frame.
    #[error("{what} id {id} does not ascend")]
    Order {
        /// Histograms, requests or gauges.
        what: &'static str,
        /// The id that came too late.
        id: u32,
    },
    /// The id is beyond what one connection may intern.
    #[error("{what} id {id} is beyond the dictionary's bound")]
    Id {
        /// Histograms, requests or gauges.
        what: &'static str,
        /// The id.
        id: u32,
    },
    /// A gauge that is not a finite number. What could not be measured is not sent.
    #[error("gauge {id} is not a finite number")]
    NotFinite {
        /// The gauge's id.
        id: u32,
    },
    /// A block's samples would exceed 63 bits, or the frame's 64.
    #[error("more samples than a frame can declare")]
    Samples,
    /// The bytes given as an encoded block are not one.
    #[error("not a block: {0}")]
    Block(BlockError),
    /// Bytes follow the block given as encoded.
    #[error("{extra} bytes follow the block")]
    Trailing {
        /// How many.
        extra: usize,
    },
}

/// Why a name or an id was not taken on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DictionaryError {
    /// The connection's dictionary is full. An agent starts a new connection to get an empty one;
    /// an aggregator refuses with [`RefuseCode::Capacity`].
    #[error("dictionary holds {max} {what} already")]
    Full {
        /// Instances, series, requests or gauges.
        what: &'static str,
        /// The bound.
        max: usize,
    },
    /// Ids would be left out.
    #[error("{what} id {id} leaves a gap: {expected} is next")]
    Gap {
        /// Instances, series, requests or gauges.
        what: &'static str,
        /// First id of the frame.
        id: u32,
        /// The id that was due.
        expected: u32,
    },
    /// An id that has a meaning already.
    #[error("{what} id {id} is defined already: {expected} is next")]
    Redefined {
        /// Instances, series, requests or gauges.
        what: &'static str,
        /// First id of the frame.
        id: u32,
        /// The id that was due.
        expected: u32,
    },
    /// An id that was never defined.
    #[error("{what} id {id} is not defined")]
    Unknown {
        /// Instances, series, requests or gauges.
        what: &'static str,
        /// The id.
        id: u32,
    },
}

impl DictionaryError {
    /// The code an aggregator answers with when it closes the connection over this. (WIRE-103)
    pub const fn refuse_code(&self) -> RefuseCode {
        match self {
            Self::Full { .. } => RefuseCode::Capacity,
            _ => RefuseCode::Protocol,
        }
    }
}

/// Why a text was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TextError {
    /// Longer than its bound.
    #[error("text of {bytes} bytes, more than {max}")]
    TooLong {
        /// Its length, bytes.
        bytes: usize,
        /// The bound, bytes.
        max: usize,
    },
    /// Holds a control character.
    #[error("text holds a control character")]
    Control,
    /// A label without a name.
    #[error("label has no name")]
    NoName,
    /// More labels than one agent may have.
    #[error("more than {max} labels")]
    TooManyLabels {
        /// The bound.
        max: usize,
    },
}
