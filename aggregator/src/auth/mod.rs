//! Who asks, and whether they may: roles and verbs, tokens, sessions, certificates, revocation.
//!
//! [`verb`] holds the one table of role × verb. Everything here is pure or holds a file's content;
//! `crate::api::guard` stands between it and HTTP.

pub mod failures;
pub mod gate;
pub mod revoked;
pub mod role;
pub mod session;
pub mod token;
pub mod verb;

pub use gate::{Gate, Principal};
pub use revoked::Revoked;
pub use role::Role;
pub use verb::Verb;
