//! What whole-system tests and their long commands share.
#![forbid(unsafe_code)]

pub mod oracle;
pub mod recording;
#[cfg(feature = "world")]
pub mod world;
