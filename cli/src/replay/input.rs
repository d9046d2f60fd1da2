//! What recorded latencies are read from, and what is wrong with them when they cannot be.

use std::io::{BufRead, Read};

use lens_aggregator::judge::replay::ReplayError;
use lens_model::ParseSeriesError;
use lens_service::config::nearest;
use thiserror::Error;

/// Why a file was refused. Every line before the one named was taken.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum InputError {
    /// The file could not be read on.
    #[error("line {line}: cannot be read: {error}")]
    Read {
        /// The line, from 1.
        line: u64,
        /// Why.
        error: std::io::Error,
    },
    /// A field is wrong.
    #[error("line {line}: {field} {problem}")]
    Field {
        /// The line, from 1.
        line: u64,
        /// Which field.
        field: String,
        /// What it is and what would be right.
        problem: String,
    },
    /// A line as a whole is wrong.
    #[error("line {line}: {problem}")]
    Line {
        /// The line, from 1.
        line: u64,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A decision could not be written.
    #[error("decisions cannot be written: {0}")]
    Write(std::io::Error),
}

impl InputError {
    pub(super) fn field(line: u64, field: &str, problem: impl Into<String>) -> Self {
        Self::Field { line, field: field.into(), problem: problem.into() }
    }

    pub(super) fn line(line: u64, problem: impl Into<String>) -> Self {
        Self::Line { line, problem: problem.into() }
    }

    pub(super) fn replay(line: u64, error: &ReplayError) -> Self {
        Self::line(line, error.to_string())
    }

    pub(super) fn series(line: u64, field: &str, error: &ParseSeriesError) -> Self {
        Self::Field { line, field: field.into(), problem: format!("is wrong: {error}") }
    }
}

/// That a field is unknown, with the known one nearest to it.
pub(super) fn unknown(name: &str, known: &[&'static str]) -> String {
    let short: String = name.chars().take(80).collect();
    let near = nearest(name, known.iter().copied());
    let hint = near.map_or_else(String::new, |near| format!("did you mean {near}? "));
    format!("{short:?} is unknown: {hint}known are {}", known.join(", "))
}

/// Calls `each` with every line that is not blank, its end included, and its number from 1; none
/// may be longer than `bytes_max`.
pub(super) fn lines(
    mut input: impl BufRead,
    bytes_max: u64,
    mut each: impl FnMut(u64, &[u8]) -> Result<(), InputError>,
) -> Result<(), InputError> {
    let mut text = Vec::new();
    for line in 1.. {
        text.clear();
        let read = input.by_ref().take(bytes_max + 1).read_until(b'\n', &mut text);
        if read.map_err(|error| InputError::Read { line, error })? == 0 {
            break;
        }
        if text.len() as u64 > bytes_max {
            return Err(InputError::line(line, format!("is longer than {bytes_max} bytes")));
        }
        if !text.trim_ascii().is_empty() {
            each(line, &text)?;
        }
    }
    Ok(())
}

/// Milliseconds as whole nanoseconds; `None` unless finite and at least 0.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub(super) fn nanos(millis: f64) -> Option<u64> {
    (millis.is_finite() && millis >= 0.0).then(|| (millis * 1e6).round() as u64)
}
