//! Query parameters: taken strictly, refused with what would be right.

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use lens_hist::Quantile;
use lens_model::limits::QUERY_POINTS_MAX;
use lens_model::{Arm, Nanos, Slice, Stage, UnixNanos};

use super::problem::Problem;
use crate::window::{Selection, Span};

/// Span of a question that names none.
const SPAN_DEFAULT: Nanos = Nanos::from_secs(15 * 60);

/// Quantiles one query may name.
const QUANTILES_MAX: usize = 32;

/// The parameters of one request, in the order given.
#[derive(Debug)]
pub(super) struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Query::from_request_parts(parts, state)
            .await
            .map(|Query(pairs)| Self(pairs))
            .map_err(|error| Problem::bad_query(error.body_text()))
    }
}

impl Params {
    /// Refuses any parameter that is not one of these.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), Problem> {
        match self.0.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            Some((name, _)) => Err(Problem::unknown_parameter(name, known)),
            None => Ok(()),
        }
    }

    /// The value of a parameter that may stand once; an empty value is as if it were absent.
    pub(super) fn one(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut values = self.0.iter().filter(|(n, _)| n == name).map(|(_, value)| value.trim());
        let first = values.next();
        if values.next().is_some() {
            return Err(Problem::bad_parameter(name, format!("{name} is given more than once")));
        }
        Ok(first.filter(|value| !value.is_empty()))
    }

    /// A parameter that is `true` or `false`, by default the latter.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.one(name)? {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => {
                let other: String = other.chars().take(80).collect();
                Err(Problem::bad_parameter(name, format!("{other:?} is neither true nor false")))
            }
        }
    }

    /// `slice`, `stage` and `arm`.
    pub(super) fn selection(&self) -> Result<Selection, Problem> {
        let refuse = |name: &'static str| {
            move |error: lens_model::ParseSeriesError| {
                Problem::bad_parameter(name, error.to_string())
            }
        };
        Ok(Selection {
            slice: self
                .one("slice")?
                .map(str::parse::<Slice>)
                .transpose()
                .map_err(refuse("slice"))?,
            stage: self
                .one("stage")?
                .map(str::parse::<Stage>)
                .transpose()
                .map_err(refuse("stage"))?,
            arm: self.one("arm")?.map(str::parse::<Arm>).transpose().map_err(refuse("arm"))?,
            host: None,
        })
    }

    /// `from` and `to`, by default the last 15 minutes.
    pub(super) fn span(&self, now: UnixNanos) -> Result<Span, Problem> {
        let at = |name| self.one(name)?.map(|text| instant(name, text, now)).transpose();
        let to = at("to")?.unwrap_or(UnixNanos(now.0.saturating_add(1)));
        let from = at("from")?.unwrap_or_else(|| to.minus(SPAN_DEFAULT));
        if from >= to {
            let (from, to) = (lens_service::time::rfc3339(from), lens_service::time::rfc3339(to));
            let detail = format!("from is {from}, which is not before to, {to}");
            return Err(Problem::bad_parameter("from", detail));
        }
        Ok(Span { from, to })
    }

    /// `step`: a multiple of the base window wide enough for at most [`QUERY_POINTS_MAX`] points.
    pub(super) fn step(&self, span: Span, base: Nanos) -> Result<Option<Nanos>, Problem> {
        let Some(text) = self.one("step")? else { return Ok(None) };
        let base_s = base.0 / 1_000_000_000;
        let refuse = |detail: String| Problem::bad_parameter("step", detail);
        let step = duration(text).filter(|step| step.0 > 0).ok_or_else(|| {
            refuse(format!(
                "{text:?} is no step: use a number and s, m or h, such as {base_s}s or 1m"
            ))
        })?;
        if step.0 % base.0 != 0 {
            let near = step.0.div_ceil(base.0).max(1) * base_s;
            let detail = format!("{text} is no multiple of the {base_s} s window: use {near}s");
            return Err(refuse(detail));
        }
        let width = span.to.since(span.from).0;
        let points = width.div_ceil(step.0);
        if points > QUERY_POINTS_MAX as u64 {
            let fits = width.div_ceil(QUERY_POINTS_MAX as u64).div_ceil(base.0) * base_s;
            return Err(refuse(format!(
                "{text} would give {points} points, more than {QUERY_POINTS_MAX}: use {fits}s or more"
            )));
        }
        Ok(Some(step))
    }

    /// `q`, repeated or separated by commas; by default the four that are always shown.
    pub(super) fn quantiles(&self) -> Result<Vec<Quantile>, Problem> {
        let texts =
            || self.0.iter().filter(|(name, _)| name == "q").flat_map(|(_, v)| v.split(','));
        let mut quantiles = Vec::new();
        for text in texts().map(str::trim).filter(|text| !text.is_empty()) {
            let quantile = text.parse().ok().and_then(Quantile::new).ok_or_else(|| {
                let text: String = text.chars().take(80).collect();
                let detail = format!(
                    "{text:?} is no quantile: use ratios above 0 and below 1, such as 0.99"
                );
                Problem::bad_parameter("q", detail)
            })?;
            if !quantiles.contains(&quantile) {
                quantiles.push(quantile);
            }
        }
        if quantiles.len() > QUANTILES_MAX {
            let detail = format!("{} quantiles, more than {QUANTILES_MAX}", quantiles.len());
            return Err(Problem::bad_parameter("q", detail));
        }
        Ok(if quantiles.is_empty() { Quantile::SHOWN.to_vec() } else { quantiles })
    }
}

/// An instant: RFC 3339, Unix seconds, `now`, or relative to now such as `-15m`.
fn instant(name: &str, text: &str, now: UnixNanos) -> Result<UnixNanos, Problem> {
    if text == "now" {
        return Ok(now);
    }
    if let Some(ago) = text.strip_prefix('-').and_then(duration) {
        return Ok(now.minus(ago));
    }
    // In a query string an unescaped `+01:00` arrives as ` 01:00`.
    if let Some(at) = lens_service::time::parse_rfc3339(&text.replace(' ', "+")) {
        return Ok(at);
    }
    unix_seconds(text).ok_or_else(|| {
        let text: String = text.chars().take(80).collect();
        let detail = format!(
            "{text:?} is no instant: use RFC 3339 (2026-11-21T19:40:20Z), Unix seconds or -15m"
        );
        Problem::bad_parameter(name, detail)
    })
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn unix_seconds(text: &str) -> Option<UnixNanos> {
    if let Ok(seconds) = text.parse::<u64>() {
        return seconds.checked_mul(1_000_000_000).map(UnixNanos);
    }
    let seconds: f64 = text.parse().ok()?;
    (0.0..1.8e10).contains(&seconds).then_some(UnixNanos((seconds * 1e9) as u64))
}

/// `90s`, `15m`, `1h`, `2d`; a bare number is seconds.
fn duration(text: &str) -> Option<Nanos> {
    let (digits, unit) = match text.char_indices().last()? {
        (at, 's') => (&text[..at], 1),
        (at, 'm') => (&text[..at], 60),
        (at, 'h') => (&text[..at], 3_600),
        (at, 'd') => (&text[..at], 86_400),
        _ => (text, 1),
    };
    let seconds = digits.parse::<u64>().ok()?.checked_mul(unit)?;
    seconds.checked_mul(1_000_000_000).map(Nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixNanos = UnixNanos(1_800_000_000_000_000_000);

    #[test]
    fn instants_are_read_in_every_promised_form() {
        let read = |text| instant("from", text, NOW).map(|at| at.0 / 1_000_000_000).ok();
        assert_eq!(read("-15m"), Some(1_799_999_100));
        assert_eq!(read("now"), Some(1_800_000_000));
        assert_eq!(read("1700000000"), Some(1_700_000_000));
        assert_eq!(read("1700000000.5"), Some(1_700_000_000));
        assert_eq!(read("1970-01-01T01:00:10 01:00"), Some(10));
        for bad in ["", "yesterday", "-15x", "-", "NaN", "-5", "99999999999999999999"] {
            let relative_seconds = bad == "-5";
            assert_eq!(read(bad).is_some(), relative_seconds, "{bad:?}");
        }
    }

    #[test]
    fn a_step_too_small_is_refused_with_the_smallest_that_fits() {
        let base = Nanos::from_secs(5);
        let span = Span { from: UnixNanos(0), to: UnixNanos(3_600_000_000_000 * 24) };
        let step = |text: &str| Params(vec![("step".into(), text.into())]).step(span, base);
        assert!(step("5s").unwrap_err().detail.contains("use 45s or more"));
        assert_eq!(step("45s").unwrap(), Some(Nanos::from_secs(45)));
        assert!(step("7s").unwrap_err().detail.contains("use 10s"));
        for bad in ["0s", "x", "-5s", "5ms", "99999999999999999999s"] {
            assert!(step(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn quantiles_are_repeated_or_listed_and_default_to_the_shown_ones() {
        let read = |pairs: &[&str]| {
            Params(pairs.iter().map(|v| ("q".into(), (*v).into())).collect()).quantiles()
        };
        assert_eq!(read(&[]).unwrap(), Quantile::SHOWN);
        assert_eq!(read(&["0.5,0.99", "0.5"]).unwrap(), [Quantile::P50, Quantile::P99]);
        for bad in ["99", "1", "0", "p99", "NaN"] {
            assert_eq!(read(&[bad]).unwrap_err().param.as_deref(), Some("q"));
        }
    }
}
