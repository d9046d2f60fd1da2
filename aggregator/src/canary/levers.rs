//! What the controller moves: the share of requests a version gets, and the switch that stops it.
//!
//! The controller says what it wants again and again until it stands, so doing one thing twice must
//! be harmless. Promise asked of an implementation: a kill is in force, and survives a restart, when
//! [`Levers::kill`] returns, and while it is on nothing gives a canary a share.

use std::fmt::Debug;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What is routed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Routed {
    /// The version under test.
    pub version: String,
    /// What makes its users others than those of the last rollout.
    pub salt: String,
    /// Its share of requests, percent.
    pub share: f64,
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

/// The levers. All of them may block on a disk.
pub trait Levers: Debug + Send + Sync {
    /// Gives a version its share.
    ///
    /// # Errors
    /// [`Stuck`]: nothing changed.
    fn route(&self, wanted: &Routed, by: &str) -> Result<(), Stuck>;

    /// Turns everything off.
    ///
    /// # Errors
    /// [`Stuck`] when it is off now and might not be after a restart.
    fn kill(&self, reason: &str, by: &str) -> Result<(), Stuck>;

    /// Takes the kill back; no share comes back with it.
    ///
    /// # Errors
    /// [`Stuck`]: it is still on.
    fn release(&self, by: &str) -> Result<(), Stuck>;

    /// How they stand.
    fn stand(&self) -> Stand;
}

/// Levers that move nothing but themselves: for a controller without nodes.
#[derive(Debug)]
pub struct Held(Mutex<Stand>);

impl Default for Held {
    fn default() -> Self {
        Self(Mutex::new(Stand { progressive: true, ..Stand::default() }))
    }
}

impl Levers for Held {
    fn route(&self, wanted: &Routed, _by: &str) -> Result<(), Stuck> {
        let mut stand = self.0.lock();
        if stand.killed && wanted.share > 0.0 {
            return Err(Stuck("the kill switch is on".into()));
        }
        stand.routed = Some(wanted.clone());
        stand.generation += 1;
        Ok(())
    }

    fn kill(&self, _reason: &str, _by: &str) -> Result<(), Stuck> {
        let mut stand = self.0.lock();
        stand.killed = true;
        stand.stages = [false; 3];
        if let Some(routed) = &mut stand.routed {
            routed.share = 0.0;
        }
        stand.generation += 1;
        Ok(())
    }

    fn release(&self, _by: &str) -> Result<(), Stuck> {
        let mut stand = self.0.lock();
        stand.killed = false;
        stand.generation += 1;
        Ok(())
    }

    fn stand(&self) -> Stand {
        self.0.lock().clone()
    }
}
