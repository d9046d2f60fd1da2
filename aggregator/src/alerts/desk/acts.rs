//! What people do: acknowledge, silence, resolve, announce maintenance.

use lens_model::limits::NAME_BYTES_MAX;
use lens_model::{Nanos, UnixNanos};
use thiserror::Error;

use super::{Alert, Batch, Desk, Maintenance, Shelf, Transition};
use crate::alerts::lifecycle::{ActError, Action, NOTE_BYTES_MAX};

/// Maintenance windows announced by people at once.
pub(super) const ANNOUNCED_MAX: usize = 256;

/// Longest maintenance window, seconds: 30 days.
const MAINTENANCE_SECS_MAX: u64 = 30 * 86_400;

/// Longest beginning of keys a window covers: a whole key.
const COVERS_BYTES_MAX: usize = 256;

/// Why an announcement was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AnnounceError {
    /// It has no length, ends in the past or is too long.
    #[error("a window ends after it begins and after now, within {MAINTENANCE_SECS_MAX} seconds")]
    Span,
    /// A text is too long.
    #[error(
        "covers is at most {COVERS_BYTES_MAX} bytes, by {NAME_BYTES_MAX}, reason {NOTE_BYTES_MAX}"
    )]
    Long,
    /// There are as many as there may be.
    #[error("{ANNOUNCED_MAX} windows are announced already: end one first")]
    Full,
}

impl Desk {
    /// Does something to an alert. Blocks on the disk.
    ///
    /// # Errors
    /// [`ActError`] says what was wrong.
    pub fn act(
        &self,
        id: &str,
        action: &Action,
        by: &str,
        note: Option<&str>,
        now: UnixNanos,
    ) -> Result<(Alert, Option<Transition>), ActError> {
        let mut inner = self.inner.lock();
        let before = inner.book.clone();
        let (alert, transition) = inner.book.act(id, action, by, note, now)?;
        self.tell(&mut inner, &before, transition.as_slice(), now, &mut Batch::default());
        Ok((alert, transition))
    }

    /// Announces maintenance and gives the window. Blocks on the disk.
    ///
    /// # Errors
    /// [`AnnounceError`] says what was wrong.
    pub fn announce(
        &self,
        mut window: Maintenance,
        now: UnixNanos,
    ) -> Result<Maintenance, AnnounceError> {
        let most = Nanos::from_secs(MAINTENANCE_SECS_MAX);
        if window.to <= window.from || window.to <= now || window.to.since(now) > most {
            return Err(AnnounceError::Span);
        }
        if window.covers.len() > COVERS_BYTES_MAX
            || window.by.len() > NAME_BYTES_MAX
            || window.reason.len() > NOTE_BYTES_MAX
        {
            return Err(AnnounceError::Long);
        }
        let mut inner = self.inner.lock();
        let mut batch = Batch::default();
        inner.announced.retain(|held| {
            if held.to <= now {
                batch.forget(Shelf::Maintenance, &held.id);
            }
            held.to > now
        });
        if inner.announced.len() >= ANNOUNCED_MAX {
            return Err(AnnounceError::Full);
        }
        let name = format!("{}\n{}\n{}\n{}", window.from.0, window.to.0, window.covers, now.0);
        window.id = blake3::hash(name.as_bytes()).to_hex()[..16].to_owned();
        batch.put(Shelf::Maintenance, &window.id, &window);
        inner.announced.push(window.clone());
        self.commit(&mut inner, &batch, now);
        Ok(window)
    }

    /// Ends an announced window; `false` when none has this id. Blocks on the disk.
    pub fn end_maintenance(&self, id: &str, now: UnixNanos) -> bool {
        let mut inner = self.inner.lock();
        let held = inner.announced.len();
        inner.announced.retain(|window| window.id != id);
        let found = inner.announced.len() < held;
        if found {
            let mut batch = Batch::default();
            batch.forget(Shelf::Maintenance, id);
            self.commit(&mut inner, &batch, now);
        }
        found
    }

    /// Every window that has not ended, configured ones first.
    pub fn maintenance(&self, now: UnixNanos) -> Vec<Maintenance> {
        self.inner.lock().maintenance(&self.config, now)
    }
}
