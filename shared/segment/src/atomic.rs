//! The atomics the protocol is written in: the core's, or loom's while a model is checked.
//!
//! Why: the model must run the very functions of [`crate::protocol`], not a copy of them.

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
