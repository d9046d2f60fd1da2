//! Everything the control plane has decided, and what follows from it at an instant.
//!
//! Promise: every change is a function of what was decided before and `now`; the same changes in
//! the same order give the same state. Refusal: no more than [`OVERRIDES_MAX`] overrides; the kill
//! switch and the canary's share have verbs of their own and are no settings.
//! Bounds: the last [`HISTORY_MAX`] rollbacks are kept.

mod resolve;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use lens_model::{Flag, Nanos, UnixNanos};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::assign::{Assignment, Share};
use crate::measured::{Measured, Rollback, Sample, Thresholds};
use crate::path::{Path, PathError};
use crate::value::{Value, ValueError};

/// Overrides held at once: several for each setting would be no use, one each is all.
pub const OVERRIDES_MAX: usize = 28;

/// Rollbacks remembered.
pub const HISTORY_MAX: usize = 100;

/// How long a flag that was taken back stays off.
pub const ROLLBACK_HOLD: Nanos = Nanos::from_secs(24 * 3_600);

/// How long experimental flags stay off after an emergency.
pub const EMERGENCY_HOLD: Nanos = Nanos::from_secs(48 * 3_600);

/// Rollbacks after which a flag stays off until its record is cleared.
const ROLLBACKS_MAX: u32 = 2;

/// Longest reason and name of who decided, bytes; longer ones are cut.
const REASON_BYTES_MAX: usize = 512;

/// Name of the kill switch in the history.
const KILL_SWITCH: &str = "canary_kill_switch";

/// Flags that are experiments: off for two days after an emergency.
const EXPERIMENTAL: [Flag; 7] = [
    Flag::StageCOptimizations,
    Flag::IsotonicCalibration,
    Flag::ConfidenceGating,
    Flag::OptimizedHnsw,
    Flag::ExperimentalReranker,
    Flag::AdvancedCalibration,
    Flag::HnswAutoTuning,
];

/// Flags under test: users are divided by them, and what is measured holds them off.
pub const GUARDED: [Flag; 6] = [
    Flag::StageCOptimizations,
    Flag::IsotonicCalibration,
    Flag::ConfidenceGating,
    Flag::OptimizedHnsw,
    Flag::AdvancedCalibration,
    Flag::HnswAutoTuning,
];

/// Whole stages: off once the canary was killed.
const STAGES: [Flag; 3] = [Flag::StageANativeScanner, Flag::StageBEnabled, Flag::StageCEnabled];

/// A value in place of a setting's own, for a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Override {
    /// What holds.
    pub value: Value,
    /// Why.
    pub reason: String,
    /// Until when; `None` until it is removed.
    pub expires_at: Option<UnixNanos>,
    /// Who decided.
    pub by: String,
    /// Whether a measurement decided, not a person.
    pub automatic: bool,
}

/// The version being rolled out, and to whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// The version.
    pub version: String,
    /// Decides which users.
    pub salt: u32,
    /// How many.
    pub share: Share,
}

/// The kill switch, engaged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Killed {
    /// Why.
    pub reason: String,
    /// Who.
    pub by: String,
    /// When.
    pub at: UnixNanos,
}

/// All flags off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Emergency {
    /// Why.
    pub reason: String,
    /// When.
    pub at: UnixNanos,
}

/// Why a change is not made.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum ControlError {
    /// No such setting.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A value the setting cannot hold.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// The setting is decided elsewhere.
    #[error("{path} is not set by hand: {instead}")]
    Elsewhere {
        /// Which setting.
        path: Path,
        /// What to do.
        instead: &'static str,
    },
    /// An override that would never hold.
    #[error("expires_at is not in the future: leave it out, or give a later time")]
    Expired,
    /// No reason given.
    #[error("an override needs a reason")]
    Unreasoned,
    /// The kill switch is engaged.
    #[error("the kill switch is engaged ({reason}): release it first")]
    Killed {
        /// Why.
        reason: String,
    },
    /// A version that is no version.
    #[error("{0:?} names no version: give 1 to 64 visible ASCII characters")]
    Version(String),
}

/// Everything decided.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Control {
    /// Settings that differ from their defaults.
    settings: BTreeMap<Path, Value>,
    overrides: BTreeMap<Path, Override>,
    measured: BTreeMap<Path, Measured>,
    history: VecDeque<Rollback>,
    rollout: Option<Rollout>,
    killed: Option<Killed>,
    emergency: Option<Emergency>,
}

fn cut(text: &str) -> String {
    let end = (0..=REASON_BYTES_MAX.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    text[..end.unwrap_or(0)].to_owned()
}

fn after(now: UnixNanos, hold: Nanos) -> UnixNanos {
    UnixNanos(now.0.saturating_add(hold.0))
}

impl Control {
    /// Makes a setting hold a value for as long as the override lives.
    ///
    /// `emergencyDisable` is the emergency itself: true engages it, false clears it.
    ///
    /// # Errors
    /// [`ControlError`]; nothing changed then.
    pub fn set_override(
        &mut self,
        path: Path,
        value: Value,
        reason: &str,
        expires_at: Option<UnixNanos>,
        by: &str,
        now: UnixNanos,
    ) -> Result<(), ControlError> {
        let value = Value::checked(path, value)?;
        if reason.trim().is_empty() {
            return Err(ControlError::Unreasoned);
        }
        if expires_at.is_some_and(|end| end <= now) {
            return Err(ControlError::Expired);
        }
        let elsewhere = |instead| Err(ControlError::Elsewhere { path, instead });
        match path {
            Path::CanaryTrafficPercentage => {
                return elsewhere("the canary controller moves it, by evidence");
            }
            Path::Flag(Flag::CanaryKillSwitchEnabled) => {
                return elsewhere("the kill switch cannot be disabled");
            }
            Path::EmergencyDisable if value.is_on() => self.emergency_disable(reason, now),
            Path::EmergencyDisable => self.clear_emergency(),
            _ => {
                let (reason, by) = (cut(reason), cut(by));
                let fresh = Override { value, reason, expires_at, by, automatic: false };
                self.overrides.insert(path, fresh);
            }
        }
        Ok(())
    }

    /// Lets a setting hold its own value again, and forgets that it was taken back; whether there
    /// was anything to remove.
    pub fn remove_override(&mut self, path: Path) -> bool {
        let measured = self.measured.remove(&path).is_some_and(|m| m.rollbacks > 0);
        self.overrides.remove(&path).is_some() || measured
    }

    /// Turns whole stages on or off.
    pub fn set_stage_flags(&mut self, native_scanner: bool, stage_b: bool, stage_c: bool) {
        for (flag, on) in STAGES.into_iter().zip([native_scanner, stage_b, stage_c]) {
            self.set(Path::Flag(flag), Value::Bool(on));
        }
    }

    fn set(&mut self, path: Path, value: Value) {
        if value == path.default_value() {
            self.settings.remove(&path);
        } else {
            self.settings.insert(path, value);
        }
    }

    /// Gives a share of everyone to a version; the same again changes nothing.
    ///
    /// # Errors
    /// [`ControlError::Killed`] while the kill switch is engaged, [`ControlError::Version`].
    pub fn set_canary(
        &mut self,
        version: &str,
        salt: u32,
        share: Share,
    ) -> Result<(), ControlError> {
        if let Some(killed) = &self.killed {
            return Err(ControlError::Killed { reason: killed.reason.clone() });
        }
        let good = (1..=64).contains(&version.len());
        if !good || !version.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ControlError::Version(version.chars().take(64).collect()));
        }
        self.set(Path::CanaryTrafficPercentage, Value::Number(share.as_percent()));
        self.rollout = Some(Rollout { version: version.into(), salt, share });
        Ok(())
    }

    /// Ends a rollout without a kill: nobody is in the canary, the next one begins anew.
    pub fn end_canary(&mut self) {
        self.rollout = None;
        self.settings.remove(&Path::CanaryTrafficPercentage);
    }

    /// Engages the kill switch: no canary, no stage flags, until it is released. Engaged already,
    /// it stays as it is; whether it was news.
    pub fn kill(&mut self, reason: &str, by: &str, now: UnixNanos) -> bool {
        if self.killed.is_some() {
            return false;
        }
        self.set_stage_flags(false, false, false);
        for flag in STAGES {
            self.overrides.remove(&Path::Flag(flag));
        }
        self.set(Path::CanaryTrafficPercentage, Value::Number(0.0));
        if let Some(rollout) = &mut self.rollout {
            rollout.share = Share::NONE;
        }
        self.killed = Some(Killed { reason: cut(reason), by: cut(by), at: now });
        self.remember(KILL_SWITCH.into(), reason, now, None);
        true
    }

    /// Releases the kill switch. The share stays none until it is given anew. Whether it was engaged.
    pub fn release(&mut self) -> bool {
        self.killed.take().is_some()
    }

    /// Turns every flag off, and experimental ones for two days.
    pub fn emergency_disable(&mut self, reason: &str, now: UnixNanos) {
        for flag in EXPERIMENTAL {
            self.hold_off(flag, reason, EMERGENCY_HOLD, now);
        }
        self.emergency = Some(Emergency { reason: cut(reason), at: now });
    }

    /// Ends an emergency; what it holds off stays so until it expires.
    pub fn clear_emergency(&mut self) {
        self.emergency = None;
    }

    fn hold_off(&mut self, flag: Flag, reason: &str, hold: Nanos, now: UnixNanos) {
        let off = Override {
            value: Value::Bool(false),
            reason: cut(reason),
            expires_at: Some(after(now, hold)),
            by: "automatic".into(),
            automatic: true,
        };
        self.overrides.insert(Path::Flag(flag), off);
    }

    fn remember(&mut self, flag: String, reason: &str, at: UnixNanos, measured: Option<Measured>) {
        if self.history.len() == HISTORY_MAX {
            self.history.pop_front();
        }
        self.history.push_back(Rollback { flag, reason: cut(reason), at, measured });
    }

    /// Takes what was measured of a flag; gives the rollback it led to, if any. A flag that was
    /// taken back already is not taken back again.
    pub fn record(&mut self, flag: Flag, sample: Sample, now: UnixNanos) -> Option<Rollback> {
        let path = Path::Flag(flag);
        let limits = self.thresholds(now);
        let measured = self.measured.entry(path).or_default();
        measured.take(sample, now);
        let reason = measured.breach(&limits)?;
        if self.override_at(path, now).is_some_and(|held| held.automatic) {
            return None;
        }
        let measured = self.measured.get_mut(&path)?;
        measured.rollbacks = measured.rollbacks.saturating_add(1);
        let shown = *measured;
        self.hold_off(flag, &reason, ROLLBACK_HOLD, now);
        self.remember(flag.path().into(), &reason, now, Some(shown));
        self.history.back().cloned()
    }

    fn thresholds(&self, now: UnixNanos) -> Thresholds {
        let number = |path: Path| self.value(path, now).number().unwrap_or_default();
        Thresholds {
            latency_ms_max: number(Path::MaxLatencyMs),
            quality_min: number(Path::MinQualityScore),
            error_rate_max: number(Path::MaxErrorRate),
        }
    }

    /// Forgets overrides whose time is up; whether there were any.
    pub fn expire(&mut self, now: UnixNanos) -> bool {
        let before = self.overrides.len();
        self.overrides.retain(|_, held| held.expires_at.is_none_or(|end| now < end));
        before != self.overrides.len()
    }

    /// Overrides in force.
    pub fn overrides(&self, now: UnixNanos) -> impl Iterator<Item = (Path, &Override)> {
        let live = move |held: &Override| held.expires_at.is_none_or(|end| now < end);
        self.overrides.iter().filter(move |(_, held)| live(held)).map(|(path, held)| (*path, held))
    }

    /// Overrides held, those whose time is up among them.
    pub fn overrides_kept(&self) -> usize {
        self.overrides.len()
    }

    /// What was measured, by setting.
    pub fn measured(&self) -> &BTreeMap<Path, Measured> {
        &self.measured
    }

    /// Rollbacks and kills, oldest first.
    pub fn history(&self) -> &VecDeque<Rollback> {
        &self.history
    }

    /// The rollout under way, if one is.
    pub fn rollout(&self) -> Option<&Rollout> {
        self.rollout.as_ref()
    }

    /// The kill switch, while it is engaged.
    pub fn killed(&self) -> Option<&Killed> {
        self.killed.as_ref()
    }

    /// The emergency, while there is one.
    pub fn emergency(&self) -> Option<&Emergency> {
        self.emergency.as_ref()
    }

    /// Who is in the canary.
    pub fn assignment(&self, now: UnixNanos) -> Assignment {
        let rollout = self.rollout.as_ref();
        Assignment {
            salt: rollout.map_or(0, |rollout| rollout.salt),
            share: rollout.map_or(Share::NONE, |rollout| rollout.share),
            progressive: self.is_enabled(Flag::CanaryProgressiveRollout, None, now),
            killed: self.killed.is_some(),
        }
    }
}
