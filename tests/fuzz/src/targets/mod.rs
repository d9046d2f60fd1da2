//! The targets, by what they read.

pub(crate) mod document;
pub(crate) mod journal;
pub(crate) mod segment;
pub(crate) mod service;
pub(crate) mod wire;
