//! Frames between agent and aggregator, both ways, and what each side must know to read them.
//!
//! One long-lived bidirectional QUIC stream per agent carries length-delimited frames: the agent
//! says who it is and ships histogram deltas, the aggregator says what is durable. Repeating names
//! go once per connection in a dictionary, counts go as sparse blocks (`lens_hist::block`), so a
//! delta of a series costs tens of bytes instead of hundreds.
//! Promise: total both ways. Any bytes give a frame or a typed refusal, any accepted value gives
//! bytes, and reading a parsed frame cannot fail. Refusal: no I/O, no clock, no randomness; times
//! and bytes are arguments. Units: nanoseconds, bytes, samples. Source: docs/wire.md, whose
//! requirement numbers (`WIRE-014`) stand next to the code that obeys them.
//!
//! Reading order: [`FrameBuffer`] cuts a stream into frames, [`FromAgent::parse`] and
//! [`FromAggregator::parse`] read one, the `encode` of each frame writes it.
#![forbid(unsafe_code)]

mod agent_dictionary;
mod buffer;
mod capture;
mod control;
mod delta;
mod delta_encode;
mod dict;
mod entry;
mod error;
mod exemplars;
mod flags;
mod frame;
mod handshake;
mod kind;
pub mod limits;
mod peer_dictionary;
mod read;
mod refuse;
mod text;

pub use agent_dictionary::AgentDictionary;
pub use buffer::FrameBuffer;
pub use capture::{Capture, Captured, CapturedSlot};
pub use control::{Ack, Bye, ClockOffset, Ping, Pong};
pub use delta::{DeltaHead, DeltaRef};
pub use delta_encode::DeltaEncoder;
pub use dict::{
    Dict, Gauge, GaugeId, Instance, InstanceId, Requests, RequestsId, Run, Series, SeriesId,
};
pub use error::{DictionaryError, EncodeError, FrameError, TextError};
pub use exemplars::{Exemplar, Exemplars};
pub use flags::{Applied, Flags, Trouble};
pub use frame::{FromAgent, FromAggregator, Phase, Skipped};
pub use handshake::{Hello, Welcome};
pub use kind::Kind;
pub use peer_dictionary::{NewIds, PeerDictionary};
pub use refuse::{Refuse, RefuseCode};
pub use text::{Label, Labels, Reason, Text};

/// The ALPN protocol name; its number is the major version. (WIRE-001)
pub const ALPN: &[u8] = b"lens-telemetry/1";

/// The highest minor version this code speaks. (WIRE-002)
pub const MINOR: u16 = 2;

/// The minor version from which FLAGS and APPLIED are spoken. (WIRE-140, WIRE-141)
pub const MINOR_FLAGS: u16 = 1;

/// The minor version from which CAPTURE and CAPTURED are spoken. (WIRE-160, WIRE-161)
pub const MINOR_CAPTURE: u16 = 2;

/// The minor version from which EXEMPLARS is spoken. (WIRE-150)
pub const MINOR_EXEMPLARS: u16 = 2;

/// The bucket scheme of every block: HdrHistogram's layout, 2 significant digits, 1 ns to
/// 2^36−1 ns, one overflow counter. (WIRE-004)
pub const SCHEME: u8 = 1;

/// The unit of every latency: nanoseconds. (WIRE-004)
pub const UNIT: u8 = 1;
