//! The settings by name: every path of the tree, what it holds by default, and what it may hold.

use std::fmt;

use lens_model::Flag;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::value::{Form, Value};

/// A setting of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
#[non_exhaustive]
pub enum Path {
    /// A flag that nodes read.
    Flag(Flag),
    /// `emergencyDisable`: every flag reads off.
    EmergencyDisable,
    /// `canary.trafficPercentage`: the canary's share, percent.
    CanaryTrafficPercentage,
    /// `abTesting.experimentId`
    AbExperimentId,
    /// `abTesting.trafficPercentage`: share of users in the experiment, percent.
    AbTrafficPercentage,
    /// `abTesting.controlGroup`
    AbControlGroup,
    /// `abTesting.treatmentGroup`
    AbTreatmentGroup,
    /// `rollbackThresholds.maxLatencyMs`: mean latency above which a flag is rolled back.
    MaxLatencyMs,
    /// `rollbackThresholds.minQualityScore`: quality below which a flag is rolled back.
    MinQualityScore,
    /// `rollbackThresholds.maxErrorRate`: share of errors above which a flag is rolled back.
    MaxErrorRate,
}

/// Why a path names no setting.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PathError {
    /// No such setting.
    #[error("no setting is called {path:?}: the nearest is {nearest}")]
    Unknown {
        /// What was asked for.
        path: String,
        /// The most similar known path.
        nearest: &'static str,
    },
    /// A group of settings, not one.
    #[error("{group} is a group of settings: name one of {members}")]
    Group {
        /// The group.
        group: String,
        /// Its settings.
        members: String,
    },
}

/// What is not a flag.
const OTHERS: [Path; 9] = [
    Path::EmergencyDisable,
    Path::CanaryTrafficPercentage,
    Path::AbExperimentId,
    Path::AbTrafficPercentage,
    Path::AbControlGroup,
    Path::AbTreatmentGroup,
    Path::MaxLatencyMs,
    Path::MinQualityScore,
    Path::MaxErrorRate,
];

impl Path {
    /// Every setting, flags first.
    pub fn all() -> impl Iterator<Item = Self> {
        Flag::ALL.into_iter().map(Self::Flag).chain(OTHERS)
    }

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Flag(flag) => flag.path(),
            Self::EmergencyDisable => "emergencyDisable",
            Self::CanaryTrafficPercentage => "canary.trafficPercentage",
            Self::AbExperimentId => "abTesting.experimentId",
            Self::AbTrafficPercentage => "abTesting.trafficPercentage",
            Self::AbControlGroup => "abTesting.controlGroup",
            Self::AbTreatmentGroup => "abTesting.treatmentGroup",
            Self::MaxLatencyMs => "rollbackThresholds.maxLatencyMs",
            Self::MinQualityScore => "rollbackThresholds.minQualityScore",
            Self::MaxErrorRate => "rollbackThresholds.maxErrorRate",
        }
    }

    /// The setting of this name.
    ///
    /// # Errors
    /// [`PathError`] names the nearest known path, or the settings of a group.
    pub fn parse(path: &str) -> Result<Self, PathError> {
        if let Some(found) = Self::all().find(|known| known.as_str() == path) {
            return Ok(found);
        }
        let within = |known: &Self| known.as_str().strip_prefix(path).is_some_and(dotted);
        let members: Vec<_> = Self::all().filter(within).map(Self::as_str).collect();
        if !members.is_empty() {
            return Err(PathError::Group { group: path.into(), members: members.join(", ") });
        }
        // Long input is not worth comparing whole.
        let short: String = path.chars().take(64).collect();
        let nearest = Self::all().map(Self::as_str).max_by(|a, b| {
            strsim::jaro_winkler(&short, a).total_cmp(&strsim::jaro_winkler(&short, b))
        });
        Err(PathError::Unknown { path: short, nearest: nearest.unwrap_or_default() })
    }

    /// What it holds before anyone said otherwise.
    pub fn default_value(self) -> Value {
        match self {
            Self::Flag(flag) => Value::Bool(flag.default_value()),
            Self::EmergencyDisable => Value::Bool(false),
            Self::CanaryTrafficPercentage => Value::Number(5.0),
            Self::AbExperimentId => Value::Text("stage-c-b3-opt".into()),
            Self::AbTrafficPercentage => Value::Number(10.0),
            Self::AbControlGroup => Value::Text("baseline".into()),
            Self::AbTreatmentGroup => Value::Text("b3-optimized".into()),
            Self::MaxLatencyMs => Value::Number(12.0),
            Self::MinQualityScore => Value::Number(0.95),
            Self::MaxErrorRate => Value::Number(0.05),
        }
    }

    /// What it may hold.
    pub(crate) const fn form(self) -> Form {
        match self {
            Self::Flag(_) | Self::EmergencyDisable => Form::Bool,
            Self::CanaryTrafficPercentage | Self::AbTrafficPercentage => {
                Form::Number { least: 0.0, most: 100.0 }
            }
            Self::MaxLatencyMs => Form::Number { least: 0.001, most: 60_000.0 },
            Self::MinQualityScore | Self::MaxErrorRate => Form::Number { least: 0.0, most: 1.0 },
            Self::AbExperimentId | Self::AbControlGroup | Self::AbTreatmentGroup => Form::Text,
        }
    }
}

fn dotted(rest: &str) -> bool {
    rest.starts_with('.')
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<Path> for &'static str {
    fn from(path: Path) -> Self {
        path.as_str()
    }
}

impl TryFrom<String> for Path {
    type Error = PathError;

    fn try_from(path: String) -> Result<Self, PathError> {
        Self::parse(&path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_leads_back_to_its_setting_and_takes_its_own_default() {
        assert_eq!(Path::all().count(), 28);
        for path in Path::all() {
            assert_eq!(Path::parse(path.as_str()), Ok(path));
            assert_eq!(path.form().take(path, path.default_value()), Ok(path.default_value()));
        }
    }

    #[test]
    fn an_unknown_path_names_the_nearest_known_one() {
        for (wrong, nearest) in [
            ("stageB.lruCache", "stageB.lruCaching"),
            ("stagea.native_scanner", "stageA.native_scanner"),
            ("canary.killswitchEnabled", "canary.killSwitchEnabled"),
            ("optimizedHnsw", "optimizedHNSW"),
        ] {
            let error = Path::parse(wrong).unwrap_err();
            assert_eq!(error, PathError::Unknown { path: wrong.into(), nearest });
        }
    }

    #[test]
    fn a_group_is_no_setting_and_names_its_members() {
        let error = Path::parse("stageA").unwrap_err().to_string();
        assert!(error.contains("stageA.native_scanner"), "{error}");
        assert!(matches!(Path::parse(""), Err(PathError::Unknown { .. })));
        assert!(Path::parse(&"x".repeat(1 << 20)).is_err());
    }
}
