//! Small texts people type: durations, ratios, `name:key=value,…` lists.
//!
//! Every refusal says which text was wrong and what would be right, because these errors are
//! read at a prompt by someone who has not read the documentation.

use std::time::Duration;

use thiserror::Error;

/// Longest duration an argument may name.
const DURATION_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// Characters of a refused text that an error repeats.
const ECHO_CHARS_MAX: usize = 80;

/// An argument that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what} {value:?}: {problem}; write {example}")]
pub struct ArgumentError {
    /// What the text was for, such as `duration`.
    pub what: &'static str,
    /// The text, cut to a printable length.
    pub value: String,
    /// What is wrong with it.
    pub problem: String,
    /// What would be right.
    pub example: &'static str,
}

impl ArgumentError {
    /// An error about `value`, which is cut to a printable length.
    pub fn new(
        what: &'static str,
        value: &str,
        problem: impl Into<String>,
        example: &'static str,
    ) -> Self {
        let value = value.chars().take(ECHO_CHARS_MAX).collect();
        Self { what, value, problem: problem.into(), example }
    }
}

/// Reads a duration: a number and one of `ns us ms s m h`, such as `30s` or `1.5ms`.
///
/// # Errors
/// [`ArgumentError`] when the number or the unit is missing or unknown, or it is negative or
/// longer than a year.
pub fn duration(text: &str) -> Result<Duration, ArgumentError> {
    let refuse = |problem: &str| {
        ArgumentError::new(
            "duration",
            text,
            problem,
            "a number and a unit, such as 250us, 5ms, 30s, 1m or 2h",
        )
    };
    let trimmed = text.trim();
    let split = trimmed
        .find(|c: char| c.is_ascii_alphabetic() || c == 'µ')
        .ok_or_else(|| refuse("the unit is missing"))?;
    let (number, unit) = trimmed.split_at(split);
    let seconds_per_unit = match unit {
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(refuse("the unit is unknown")),
    };
    let number: f64 = number.trim().parse().map_err(|_| refuse("the number is missing"))?;
    let seconds = number * seconds_per_unit;
    if !(0.0..=DURATION_MAX.as_secs_f64()).contains(&seconds) {
        return Err(refuse("it must lie between 0 and one year"));
    }
    Ok(Duration::from_nanos(crate::numbers::whole(seconds * 1e9)))
}

/// Reads a share between 0 and 1, such as `0.05`.
///
/// # Errors
/// [`ArgumentError`] when it is not a number or lies outside.
pub fn share(text: &str) -> Result<f64, ArgumentError> {
    number_within("share", text, 0.0, 1.0, "a number from 0 to 1, such as 0.05")
}

/// Reads a rate per second, above 0 and at most ten million.
///
/// # Errors
/// [`ArgumentError`] when it is not a number or lies outside.
pub fn rate(text: &str) -> Result<f64, ArgumentError> {
    number_within("rate", text, 1e-3, 1e7, "requests per second from 0.001 to 10000000, such as 50")
}

pub(crate) fn number_within(
    what: &'static str,
    text: &str,
    low: f64,
    high: f64,
    example: &'static str,
) -> Result<f64, ArgumentError> {
    let number: f64 = text
        .trim()
        .parse()
        .map_err(|_| ArgumentError::new(what, text, "it is not a number", example))?;
    if !(low..=high).contains(&number) {
        let problem = format!("it must lie between {low} and {high}");
        return Err(ArgumentError::new(what, text, problem, example));
    }
    Ok(number)
}

/// The nearest of `known` to `given`, when near enough to be a slip of the hand.
pub(crate) fn nearest<'a>(given: &str, known: &[&'a str]) -> Option<&'a str> {
    /// Similarity below which a suggestion would only confuse.
    const SIMILARITY_MIN: f64 = 0.6;
    known
        .iter()
        .map(|name| (strsim::jaro_winkler(given, name), *name))
        .filter(|(similarity, _)| *similarity >= SIMILARITY_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_in_every_unit() {
        for (text, nanos) in [
            ("5ns", 5),
            ("250us", 250_000),
            ("1.5ms", 1_500_000),
            ("30s", 30_000_000_000),
            ("1m", 60_000_000_000),
            ("2h", 7_200_000_000_000),
            ("0s", 0),
        ] {
            assert_eq!(duration(text).unwrap(), Duration::from_nanos(nanos), "{text}");
        }
    }

    #[test]
    fn a_refused_duration_says_what_would_be_right() {
        for (text, problem) in [
            ("30", "unit is missing"),
            ("", "unit is missing"),
            ("3 fortnights", "unit is unknown"),
            ("ms", "number is missing"),
            ("-1s", "between 0"),
            ("1e9h", "unit is unknown"),
            ("999999999h", "between 0"),
        ] {
            let error = duration(text).unwrap_err().to_string();
            assert!(error.contains(problem) && error.contains("30s"), "{text}: {error}");
        }
    }

    #[test]
    fn shares_and_rates_are_bounded() {
        assert_eq!(share("0.05"), Ok(0.05));
        for bad in ["1.1", "-0.1", "NaN", "half", ""] {
            assert!(share(bad).is_err(), "{bad}");
        }
        assert!(rate("0").is_err() && rate("inf").is_err() && rate("50").is_ok());
    }

    #[test]
    fn a_slip_is_answered_with_the_nearest_name_and_nonsense_with_none() {
        assert_eq!(nearest("mod", &["q", "mode", "slice"]), Some("mode"));
        assert_eq!(nearest("zzzz", &["q", "mode", "slice"]), None);
    }
}
