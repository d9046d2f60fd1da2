//! The targets, by what they read.

//JOURNAL
pub(crate) mod segment;
pub(crate) mod service;
pub(crate) mod wire;
