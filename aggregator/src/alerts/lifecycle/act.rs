//! What people do to alerts: take them on, keep them quiet, declare them over.

use lens_model::limits::NAME_BYTES_MAX;
use lens_model::{Nanos, UnixNanos};
use thiserror::Error;

use super::{Book, Kind, Transition, tell};
use crate::alerts::alert::{Ack, Alert, Phase, Silence, Told};

/// Longest note, bytes.
pub const NOTE_BYTES_MAX: usize = 1_024;

/// Longest silence, seconds: a week. What is quiet for longer should be fixed in the rules.
pub const SILENCE_SECS_MAX: u64 = 7 * 86_400;

/// What someone does to an alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Take it on: the chain stops climbing.
    Acknowledge,
    /// Keep it quiet for this long.
    Silence(Nanos),
    /// Declare it over: for what nothing will be heard of again.
    Resolve,
}

/// Why an action was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ActError {
    /// No alert has this id.
    #[error("no alert has the id {0:?}; GET /api/v1/alerts lists them")]
    Unknown(String),
    /// It is over.
    #[error("{0} is resolved: there is nothing to act on")]
    Resolved(String),
    /// It is still broken.
    #[error("{0} still reads violated: silence it instead, it resolves when the rule holds")]
    Violated(String),
    /// The silence has no length or too long a one.
    #[error("a silence lasts from 1 to {SILENCE_SECS_MAX} seconds")]
    Silence,
    /// A name or note is too long.
    #[error("by is at most {NAME_BYTES_MAX} bytes, note at most {NOTE_BYTES_MAX}")]
    Long,
}

impl Book {
    /// Does it, and gives the alert as it then stands and what is to be told. Doing the same again
    /// changes nothing.
    ///
    /// # Errors
    /// [`ActError`] says what was wrong.
    pub fn act(
        &mut self,
        id: &str,
        action: &Action,
        by: &str,
        note: Option<&str>,
        now: UnixNanos,
    ) -> Result<(Alert, Option<Transition>), ActError> {
        if by.len() > NAME_BYTES_MAX || note.is_some_and(|note| note.len() > NOTE_BYTES_MAX) {
            return Err(ActError::Long);
        }
        let alert = self.alerts.values_mut().find(|alert| alert.key.id() == id);
        let alert = alert.ok_or_else(|| ActError::Unknown(id.chars().take(80).collect()))?;
        if alert.phase == Phase::Resolved {
            return Err(ActError::Resolved(alert.key.to_string()));
        }
        let (by, note) = (by.to_owned(), note.map(str::to_owned));
        let transition = match action {
            Action::Acknowledge if alert.ack.is_some() => None,
            Action::Acknowledge => {
                alert.ack = Some(Ack { by, at: now, note });
                acknowledged(alert, now)
            }
            Action::Silence(length) => {
                if length.0 == 0 || *length > Nanos::from_secs(SILENCE_SECS_MAX) {
                    return Err(ActError::Silence);
                }
                alert.silence = Some(Silence { by, until: now.plus(*length), note });
                alert.quiet = Some(crate::alerts::alert::Quiet::Silence);
                None
            }
            Action::Resolve if alert.reading == crate::alerts::condition::Reading::Violated => {
                return Err(ActError::Violated(alert.key.to_string()));
            }
            Action::Resolve => {
                alert.ack.get_or_insert(Ack { by, at: now, note });
                alert.phase = Phase::Resolved;
                alert.resolved = Some(now);
                tell(alert, now)
            }
        };
        Ok((alert.clone(), transition))
    }
}

/// Told only to those who were told that it fires.
fn acknowledged(alert: &Alert, now: UnixNanos) -> Option<Transition> {
    match alert.told {
        Told::Firing(severity) => {
            let alert = alert.clone();
            Some(Transition { kind: Kind::Acknowledged, alert, before: Some(severity), at: now })
        }
        Told::Nothing | Told::Resolved => None,
    }
}
