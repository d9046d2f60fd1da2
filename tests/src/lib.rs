//! Whole-system tests: what they share.
#![forbid(unsafe_code)]

#[cfg(feature = "world")]
pub mod world;
