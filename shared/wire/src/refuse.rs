//! REFUSE: why an agent may not come in, or not stay.
//!
//! What the agent does about each code is in docs/wire.md, section "Refusing".

use crate::error::FrameError;
use crate::frame::put_frame;
use crate::kind::Kind;
use crate::read::{Reader, put_str};
use crate::text::Reason;

/// Why an aggregator refuses. The agent's answer to each is in docs/wire.md. (WIRE-036)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefuseCode {
    /// The minor version is not spoken any more.
    Version,
    /// The agent's name is not the certificate's, or not allowed here.
    Identity,
    /// The bucket scheme or unit is unknown.
    Scheme,
    /// A bound is reached: connections, series, dictionary.
    Capacity,
    /// A frame was malformed, out of place or out of order.
    Protocol,
    /// The aggregator is going away.
    ShuttingDown,
    /// A newer connection of the same agent took over.
    Replaced,
    /// Deltas cannot be made durable at present.
    Storage,
    /// A reason this version does not know.
    Other(u16),
}

impl RefuseCode {
    /// The code on the wire.
    pub const fn code(self) -> u16 {
        match self {
            Self::Version => 1,
            Self::Identity => 2,
            Self::Scheme => 3,
            Self::Capacity => 4,
            Self::Protocol => 5,
            Self::ShuttingDown => 6,
            Self::Replaced => 7,
            Self::Storage => 8,
            Self::Other(code) => code,
        }
    }

    /// The reason with this code; every code is one. (WIRE-037)
    pub const fn from_code(code: u16) -> Self {
        match code {
            1 => Self::Version,
            2 => Self::Identity,
            3 => Self::Scheme,
            4 => Self::Capacity,
            5 => Self::Protocol,
            6 => Self::ShuttingDown,
            7 => Self::Replaced,
            8 => Self::Storage,
            other => Self::Other(other),
        }
    }

    /// The name used in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Identity => "identity",
            Self::Scheme => "scheme",
            Self::Capacity => "capacity",
            Self::Protocol => "protocol",
            Self::ShuttingDown => "shutting_down",
            Self::Replaced => "replaced",
            Self::Storage => "storage",
            Self::Other(_) => "other",
        }
    }

    /// Whether the same agent may come back without anyone changing anything. (WIRE-105)
    pub const fn is_passing(self) -> bool {
        matches!(self, Self::Capacity | Self::ShuttingDown | Self::Storage | Self::Other(_))
    }
}

/// No, and why: the aggregator's last frame on a connection. (WIRE-036)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refuse {
    /// Why, for programs.
    pub code: RefuseCode,
    /// How long the agent is asked to stay away, milliseconds; 0 leaves it to the agent.
    pub retry_after_millis: u32,
    /// Why, for people.
    pub text: Reason,
}

impl Refuse {
    /// Appends the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_frame(Kind::Refuse, None, out, |out| {
            out.extend_from_slice(&self.code.code().to_le_bytes());
            out.extend_from_slice(&self.retry_after_millis.to_le_bytes());
            put_str(out, self.text.as_str());
        });
    }

    pub(crate) fn read(mut r: Reader<'_>) -> Result<Self, FrameError> {
        let code = RefuseCode::from_code(r.u16("code")?);
        let retry_after_millis = r.u32("retry after")?;
        let text = r.text("text")?;
        r.finish()?;
        Ok(Self { code, retry_after_millis, text })
    }
}
