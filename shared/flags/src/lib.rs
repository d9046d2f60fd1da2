//! What the control plane decides, and how it is told: flags, assignment, signed documents.
//!
//! - [`Path`] and [`Value`]: the tree of settings with its defaults, by name.
//! - [`Control`]: everything decided – settings, overrides, rollout, kill switch – and what follows
//!   from it at an instant. Changes are functions of it and `now`.
//! - [`Assignment`]: which arm a user belongs to.
//! - [`Document`] and [`SignedDocument`]: what reaches agents, and why they may believe it.
//!
//! Promise: no clock, no I/O, no randomness; the same decisions give the same answers anywhere.
//! Refusal: an unknown path names the nearest known one; a document is taken whole or not at all.
#![forbid(unsafe_code)]

mod assign;
mod control;
mod document;
mod measured;
mod path;
mod sign;
mod value;

pub use assign::{Assignment, PercentError, Share, salt_of};
pub use control::{
    Control, ControlError, EMERGENCY_HOLD, Emergency, GUARDED, HISTORY_MAX, Killed, OVERRIDES_MAX,
    Override, ROLLBACK_HOLD, Rollout,
};
pub use document::{Document, DocumentError, Scope};
pub use ed25519_dalek::{SigningKey, VerifyingKey};
pub use measured::{Measured, Rollback, Sample};
pub use path::{Path, PathError};
pub use sign::{SignedDocument, VerifyError};
pub use value::{Value, ValueError};
