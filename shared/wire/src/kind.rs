//! The kinds of frame, their codes and who sends them.

use std::fmt;

/// Flag bit: a receiver that does not know the frame's type, or another flag of it, skips the
/// frame instead of refusing it.
pub(crate) const FLAG_SKIPPABLE: u8 = 0x80;

/// A kind of frame. The number is its code on the wire and never changes meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Agent: who I am and where I resume.
    Hello = 1,
    /// Aggregator: come in, this much is durable.
    Welcome = 2,
    /// Aggregator: no, and why.
    Refuse = 3,
    /// Agent: names for ids used from now on.
    Dict = 4,
    /// Agent: one numbered delta.
    Delta = 5,
    /// Aggregator: durable and received up to here.
    Ack = 6,
    /// Agent: what time is it?
    Ping = 7,
    /// Aggregator: this late.
    Pong = 8,
    /// Agent: nothing more will come on this connection.
    Bye = 9,
    /// Aggregator: what the control plane decided, signed. Minor version 1 on.
    Flags = 10,
    /// Agent: what of it is in force. Minor version 1 on.
    Applied = 11,
    /// Agent: slow requests by their traces. Minor version 2 on.
    Exemplars = 12,
    /// Aggregator: send what you hold of the last minutes. Minor version 2 on.
    Capture = 13,
    /// Agent: some of it. Minor version 2 on.
    Captured = 14,
}

impl Kind {
    /// Every kind, by code.
    pub const ALL: [Self; 14] = [
        Self::Hello,
        Self::Welcome,
        Self::Refuse,
        Self::Dict,
        Self::Delta,
        Self::Ack,
        Self::Ping,
        Self::Pong,
        Self::Bye,
        Self::Flags,
        Self::Applied,
        Self::Exemplars,
        Self::Capture,
        Self::Captured,
    ];

    /// The code on the wire.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The kind with this code, if this version defines one.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1..=14 => Some(Self::ALL[code as usize - 1]),
            _ => None,
        }
    }

    /// Whether frames of this kind carry an unseeded checksum. (WIRE-014)
    pub(crate) const fn is_unseeded(self) -> bool {
        matches!(self, Self::Hello | Self::Welcome | Self::Refuse)
    }

    /// Whether the agent sends this kind; otherwise the aggregator does.
    pub const fn is_from_agent(self) -> bool {
        matches!(
            self,
            Self::Hello
                | Self::Dict
                | Self::Delta
                | Self::Ping
                | Self::Bye
                | Self::Applied
                | Self::Exemplars
                | Self::Captured
        )
    }

    /// Whether losing a frame of this kind would lose counts or names. (WIRE-018)
    pub(crate) const fn is_indispensable(self) -> bool {
        matches!(self, Self::Dict | Self::Delta)
    }

    /// The name used in errors and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hello => "HELLO",
            Self::Welcome => "WELCOME",
            Self::Refuse => "REFUSE",
            Self::Dict => "DICT",
            Self::Delta => "DELTA",
            Self::Ack => "ACK",
            Self::Ping => "PING",
            Self::Pong => "PONG",
            Self::Bye => "BYE",
            Self::Flags => "FLAGS",
            Self::Applied => "APPLIED",
            Self::Exemplars => "EXEMPLARS",
            Self::Capture => "CAPTURE",
            Self::Captured => "CAPTURED",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_leads_back_to_its_kind() {
        for code in 0..=u8::MAX {
            match Kind::from_code(code) {
                Some(kind) => assert_eq!(kind.code(), code),
                None => assert!(code == 0 || code > 14),
            }
        }
    }
}
