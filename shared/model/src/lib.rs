//! The words every part of lens telemetry speaks: units, identifiers, slices, limits.
//!
//! Promise: pure data. Nothing here reads a clock, a file or a socket, so every crate below the
//! agent and the aggregator can be tested with invented times and names.
//! Units: nanoseconds everywhere; [`Nanos`] is a duration, [`UnixNanos`] an instant.
#![forbid(unsafe_code)]

pub mod assign;
mod flag;
mod identity;
pub mod limits;
mod series;
mod trace;
mod units;

pub use flag::Flag;
pub use identity::{
    AgentName, IdentityError, Incarnation, InstanceName, OperatorId, OperatorName, Sequence,
    SpiffeId, TrustDomain,
};
pub use series::{Arm, ParseSeriesError, SeriesKey, Slice, Stage};
pub use trace::{ParseTraceError, Trace};
pub use units::{Nanos, UnixNanos};
