//! What the controller moves: the share of requests a version gets, and the switch that stops it.
//!
//! The controller says what it wants again and again until it stands, so doing one thing twice must
//! be harmless. Promise asked of an implementation: a kill is in force when [`Levers::kill`] returns,
//! and while it is on nothing gives a canary a share.

use std::fmt::Debug;

use futures_util::future::{BoxFuture, FutureExt as _};
use lens_flags::{Path, Share, salt_of};
use lens_model::{Flag, UnixNanos};
use thiserror::Error;

use crate::flags::{Flags, Told};

/// What is routed.
#[derive(Clone, Debug, PartialEq)]
pub struct Routed {
    /// The version under test.
    pub version: String,
    /// What chooses its users, as nodes have it.
    pub salt: u32,
    /// Its share of requests, percent.
    pub share: f64,
}

impl Routed {
    /// A version's share of the users a salt chooses.
    pub fn new(version: &str, salt: &str, share: f64) -> Self {
        // As fine as nodes are told.
        let told = Share::percent(share).map_or(0.0, Share::as_percent);
        Self { version: version.into(), salt: salt_of(salt), share: told }
    }
}

/// How the levers stand.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stand {
    /// What is routed; `None` before anything was.
    pub routed: Option<Routed>,
    /// Whether the kill switch is on.
    pub killed: bool,
    /// Whether there may be canaries at all.
    pub progressive: bool,
    /// Number of the state nodes are told of; it only grows.
    pub generation: u64,
    /// `stageA.native_scanner`, `stageB.enabled`, `stageC.enabled`.
    pub stages: [bool; 3],
}

/// Why a lever did not move.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Stuck(pub String);

/// The levers.
pub trait Levers: Debug + Send + Sync {
    /// Gives a version its share.
    ///
    /// # Errors
    /// [`Stuck`]: nothing changed.
    fn route<'a>(&'a self, wanted: &'a Routed) -> BoxFuture<'a, Result<(), Stuck>>;

    /// Turns everything off.
    ///
    /// # Errors
    /// [`Stuck`] when it is off now and might not be after a restart.
    fn kill<'a>(&'a self, reason: &'a str, by: &'a str) -> BoxFuture<'a, Result<(), Stuck>>;

    /// Takes the kill back; no share comes back with it.
    ///
    /// # Errors
    /// [`Stuck`]: it is still on.
    fn release(&self) -> BoxFuture<'_, Result<(), Stuck>>;

    /// How they stand.
    fn stand(&self, now: UnixNanos) -> Stand;
}

fn kept(told: Told) -> Result<(), Stuck> {
    told.undurable.map_or(Ok(()), |why| Err(Stuck(why)))
}

impl Levers for Flags {
    fn route<'a>(&'a self, wanted: &'a Routed) -> BoxFuture<'a, Result<(), Stuck>> {
        async move {
            let set = self.set_canary(&wanted.version, wanted.salt, wanted.share).await;
            set.map_err(|error| Stuck(error.to_string())).and_then(kept)
        }
        .boxed()
    }

    fn kill<'a>(&'a self, reason: &'a str, by: &'a str) -> BoxFuture<'a, Result<(), Stuck>> {
        async move { kept(Self::kill(self, reason, by).await) }.boxed()
    }

    fn release(&self) -> BoxFuture<'_, Result<(), Stuck>> {
        async move {
            Self::release(self).await.map_err(|error| Stuck(error.to_string())).and_then(kept)
        }
        .boxed()
    }

    fn stand(&self, now: UnixNanos) -> Stand {
        let status = self.status();
        let control = &status.control;
        let on = |flag| control.is_enabled(flag, None, now);
        let routed = control.rollout().map(|rollout| Routed {
            version: rollout.version.clone(),
            salt: rollout.salt,
            share: rollout.share.as_percent(),
        });
        Stand {
            routed,
            killed: control.killed().is_some(),
            progressive: control.value(Path::Flag(Flag::CanaryProgressiveRollout), now).is_on(),
            generation: status.generation,
            stages: [
                on(Flag::StageANativeScanner),
                on(Flag::StageBEnabled),
                on(Flag::StageCEnabled),
            ],
        }
    }
}
