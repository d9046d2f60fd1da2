//! What a setting holds at an instant, and whether a flag is on for someone.
//!
//! Order, first that speaks: kill switch and emergency, override, experiment, the setting itself;
//! then what was measured may still hold a guarded flag off.

use lens_model::{Flag, UnixNanos, assign};

use super::{Control, GUARDED, Override, ROLLBACKS_MAX};
use crate::path::Path;
use crate::value::Value;

/// Share of the latency threshold above which a guarded flag is held off before it is rolled back.
const CAUTION: f64 = 0.8;

impl Control {
    /// The override in force for a setting.
    pub(super) fn override_at(&self, path: Path, now: UnixNanos) -> Option<&Override> {
        let held = self.overrides.get(&path)?;
        held.expires_at.is_none_or(|end| now < end).then_some(held)
    }

    /// The setting's own value, without overrides.
    pub fn setting(&self, path: Path) -> Value {
        match path {
            Path::EmergencyDisable => Value::Bool(self.emergency.is_some()),
            _ => self.settings.get(&path).cloned().unwrap_or_else(|| path.default_value()),
        }
    }

    /// What a setting holds: its override, or its own value.
    pub fn value(&self, path: Path, now: UnixNanos) -> Value {
        let held = self.override_at(path, now).map(|held| held.value.clone());
        held.unwrap_or_else(|| self.setting(path))
    }

    /// Whether a flag is on for a user, or for nobody in particular.
    pub fn is_enabled(&self, flag: Flag, user: Option<&str>, now: UnixNanos) -> bool {
        if self.killed.is_some() || self.emergency.is_some() {
            return false;
        }
        let path = Path::Flag(flag);
        if let Some(held) = self.override_at(path, now) {
            return held.value.is_on();
        }
        let tested = user.and_then(|user| self.experiment(flag, user, now));
        tested.unwrap_or_else(|| self.setting(path).is_on()) && self.is_safe(flag, now)
    }

    /// Whether a path, as text, is on: never for a group, a number, a word or an unknown path.
    pub fn is_path_enabled(&self, path: &str, user: Option<&str>, now: UnixNanos) -> bool {
        match Path::parse(path) {
            Ok(Path::Flag(flag)) => self.is_enabled(flag, user, now),
            Ok(Path::EmergencyDisable) => self.emergency.is_some(),
            _ => false,
        }
    }

    /// What the experiment says of a flag for a user, where it says anything.
    fn experiment(&self, flag: Flag, user: &str, now: UnixNanos) -> Option<bool> {
        let on = self.value(Path::Flag(Flag::AbTestingEnabled), now).is_on();
        if !on || !GUARDED.contains(&flag) {
            return None;
        }
        let experiment = self.value(Path::AbExperimentId, now).to_string();
        // Zero bytes are in none of the names, so that no two triples run together.
        let key = [user, flag.path(), &experiment].join("\0");
        let bucket = assign::place(0, key.as_bytes()) / (assign::PPM / 100);
        let share = self.value(Path::AbTrafficPercentage, now).number()?;
        (f64::from(bucket) < share).then_some(bucket.is_multiple_of(2))
    }

    /// Whether what was measured lets a flag be on.
    fn is_safe(&self, flag: Flag, now: UnixNanos) -> bool {
        let path = Path::Flag(flag);
        let Some(measured) = self.measured.get(&path).filter(|_| GUARDED.contains(&flag)) else {
            return true;
        };
        let watched = self.value(Path::Flag(Flag::PerformanceMonitoring), now).is_on();
        let slow = measured.latency_ms > CAUTION * self.thresholds(now).latency_ms_max;
        measured.rollbacks <= ROLLBACKS_MAX && !(watched && slow)
    }

    /// The word that flag pages carry: every flag that is on, by its bit. Without the kill switch.
    pub fn bits(&self, now: UnixNanos) -> u64 {
        let on = Flag::ALL.into_iter().filter(|flag| self.is_enabled(*flag, None, now));
        on.fold(0, |bits, flag| bits | flag.bit())
    }
}
