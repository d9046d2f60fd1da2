//! What settings hold: a switch, a number or a word.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::path::Path;

/// Longest text, bytes.
pub(crate) const TEXT_BYTES_MAX: usize = 64;

/// A setting's value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// On or off.
    Bool(bool),
    /// A finite number.
    Number(f64),
    /// A word.
    Text(String),
}

/// Why a setting cannot hold a value.
#[derive(Clone, Debug, PartialEq, Error)]
#[error("{path} cannot be {found}: give {wanted}")]
pub struct ValueError {
    path: Path,
    found: String,
    wanted: String,
}

/// What a setting may hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Form {
    Bool,
    Number { least: f64, most: f64 },
    Text,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("true or false"),
            Self::Number { least, most } => write!(f, "a number from {least} to {most}"),
            Self::Text => write!(f, "1 to {TEXT_BYTES_MAX} visible ASCII characters"),
        }
    }
}

impl Form {
    /// The value, if it has this form.
    pub(crate) fn take(self, path: Path, value: Value) -> Result<Value, ValueError> {
        let good = match (self, &value) {
            (Self::Bool, Value::Bool(_)) => true,
            (Self::Number { least, most }, Value::Number(n)) => (least..=most).contains(n),
            (Self::Text, Value::Text(text)) => {
                (1..=TEXT_BYTES_MAX).contains(&text.len())
                    && text.bytes().all(|byte| byte.is_ascii_graphic())
            }
            _ => false,
        };
        if good { Ok(value) } else { Err(self.refusal(path, &value)) }
    }

    fn refusal(self, path: Path, value: &Value) -> ValueError {
        let found: String = value.to_string().chars().take(TEXT_BYTES_MAX).collect();
        ValueError { path, found, wanted: self.to_string() }
    }
}

impl Value {
    /// The value that `text` is for `path`, as people write it.
    ///
    /// # Errors
    /// [`ValueError`] says what would be right.
    pub fn parse(path: Path, text: &str) -> Result<Self, ValueError> {
        let value = match path.form() {
            Form::Bool => text.parse().ok().map(Self::Bool),
            Form::Number { .. } => text.parse().ok().map(Self::Number),
            Form::Text => None,
        };
        Self::checked(path, value.unwrap_or_else(|| Self::Text(text.into())))
    }

    /// The value, if `path` may hold it.
    ///
    /// # Errors
    /// [`ValueError`] says what would be right.
    pub fn checked(path: Path, value: Self) -> Result<Self, ValueError> {
        path.form().take(path, value)
    }

    /// Whether it is on; a number or a word never is.
    pub const fn is_on(&self) -> bool {
        matches!(self, Self::Bool(true))
    }

    /// The number, if it is one.
    pub const fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(on) => on.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_reads_back_from_its_own_text() {
        for path in Path::all() {
            let value = path.default_value();
            assert_eq!(Value::parse(path, &value.to_string()), Ok(value.clone()));
            let json = serde_json::to_string(&value).unwrap();
            assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), value);
        }
    }

    #[test]
    fn what_a_setting_cannot_hold_is_refused_with_what_it_can() {
        let bad = [
            (Path::EmergencyDisable, "yes", "true or false"),
            (Path::CanaryTrafficPercentage, "100.5", "a number from 0 to 100"),
            (Path::MaxErrorRate, "NaN", "a number from 0 to 1"),
            (Path::AbExperimentId, "", "visible ASCII"),
        ];
        for (path, text, wanted) in bad {
            let error = Value::parse(path, text).unwrap_err().to_string();
            assert!(error.contains(wanted) && error.contains(path.as_str()), "{error}");
        }
        let long = "x".repeat(TEXT_BYTES_MAX);
        assert!(Value::parse(Path::AbControlGroup, &long).is_ok());
        assert!(Value::parse(Path::AbControlGroup, &(long + "x")).is_err());
    }
}
