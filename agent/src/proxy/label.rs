//! The slice a request is counted under, from a pattern such as `backend/{query:language}/large`.
//!
//! Why a pattern: an unmodified engine says nothing of repository, language or size, but the
//! request often does. Each of the three parts is a name or a place to find one.
//! Promise: any request has a slice. What is absent or is no name becomes the part's own fallback,
//! so that nothing a client sends is ever refused for its label.
//! Bounds: how many slices there are is bounded by who counts them (`ledger`).

use std::borrow::Cow;
use std::str::FromStr;

use http::HeaderMap;
use http::header::HeaderName;
use lens_model::Slice;
use thiserror::Error;

/// What an absent or impossible part is called when the pattern does not say.
const UNKNOWN: &str = "unknown";

/// Why a pattern was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PatternError {
    /// Not three parts.
    #[error("{pattern:?} needs three parts, such as backend/rust/large")]
    Shape {
        /// What was given.
        pattern: String,
    },
    /// A place that is neither a header nor a query parameter.
    #[error(
        "{part:?} names no place: use a name, {{header:NAME}} or {{query:NAME}}, each with |FALLBACK if wanted"
    )]
    Place {
        /// The part.
        part: String,
    },
    /// A name no slice may have.
    #[error("{0}")]
    Name(String),
}

/// Where one part of the slice comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Fixed(Box<str>),
    Header(HeaderName, Box<str>),
    Query(Box<str>, Box<str>),
}

/// How requests are labelled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    parts: [Part; 3],
    /// What a request is called when its parts make no slice, each being a name of its own.
    fallback: Slice,
}

impl Pattern {
    /// The one slice of all requests, where the pattern holds no place.
    pub fn fixed(&self) -> Option<&Slice> {
        let all = self.parts.iter().all(|part| matches!(part, Part::Fixed(_)));
        all.then_some(&self.fallback)
    }

    /// The slice of a request.
    pub fn slice(&self, headers: &HeaderMap, query: Option<&str>) -> Slice {
        let [repo_type, language, size] = &self.parts;
        let of = |part, fallback| found(part, headers, query).unwrap_or(Cow::Borrowed(fallback));
        let fallback = &self.fallback;
        let made = |repo_type: &str, language: &str, size: &str| {
            // A part that is no name gives way alone; the others stay.
            let good = |value: &str| Slice::new(value, "x", "x").is_ok();
            let pick = |value: &str, otherwise: &str| {
                if good(value) { value.to_owned() } else { otherwise.to_owned() }
            };
            Slice::new(
                &pick(repo_type, fallback.repo_type()),
                &pick(language, fallback.language()),
                &pick(size, fallback.size()),
            )
        };
        made(
            &of(repo_type, fallback.repo_type()),
            &of(language, fallback.language()),
            &of(size, fallback.size()),
        )
        .unwrap_or_else(|_| fallback.clone())
    }
}

fn found<'a>(
    part: &'a Part,
    headers: &'a HeaderMap,
    query: Option<&'a str>,
) -> Option<Cow<'a, str>> {
    match part {
        Part::Fixed(name) => Some(Cow::Borrowed(name)),
        Part::Header(name, _) => headers.get(name)?.to_str().ok().map(Cow::Borrowed),
        Part::Query(name, _) => parameter(query?, name),
    }
}

/// The first value of a query parameter, percent-decoded.
fn parameter<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    let values = query.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = values.into_iter().find(|(key, _)| *key == name)?;
    if value.contains(['%', '+']) { decoded(value).map(Cow::Owned) } else { Some(value.into()) }
}

/// A form value without its escapes, if that is text.
fn decoded(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(rest.next())?, digit(rest.next())?);
                u8::try_from(high * 16 + low).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shape = || PatternError::Shape { pattern: text.chars().take(200).collect() };
        let parts: Vec<&str> = text.split('/').collect();
        let [repo_type, language, size] = parts[..] else { return Err(shape()) };
        let parts = [part(repo_type)?, part(language)?, part(size)?];
        let name = |part: &Part| match part {
            Part::Fixed(name) | Part::Header(_, name) | Part::Query(_, name) => name.clone(),
        };
        let [repo_type, language, size] = [name(&parts[0]), name(&parts[1]), name(&parts[2])];
        let fallback = Slice::new(&repo_type, &language, &size)
            .map_err(|error| PatternError::Name(error.to_string()))?;
        Ok(Self { parts, fallback })
    }
}

fn part(text: &str) -> Result<Part, PatternError> {
    let Some(inner) = text.strip_prefix('{') else { return Ok(Part::Fixed(text.into())) };
    let refuse = || PatternError::Place { part: text.chars().take(200).collect() };
    let inner = inner.strip_suffix('}').ok_or_else(refuse)?;
    let (place, fallback) = inner.split_once('|').unwrap_or((inner, UNKNOWN));
    let (kind, name) = place.split_once(':').ok_or_else(refuse)?;
    match kind {
        "header" => {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| refuse())?;
            Ok(Part::Header(name, fallback.into()))
        }
        "query" if !name.is_empty() => Ok(Part::Query(name.into(), fallback.into())),
        _ => Err(refuse()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn slice(pattern: &str, header: Option<&str>, query: Option<&str>) -> String {
        let mut headers = HeaderMap::new();
        if let Some(value) = header {
            headers.insert("x-repo-type", HeaderValue::from_str(value).unwrap());
        }
        pattern.parse::<Pattern>().unwrap().slice(&headers, query).to_string()
    }

    #[test]
    fn each_part_comes_from_where_the_pattern_says() {
        let pattern = "{header:X-Repo-Type}/{query:language|any}/large";
        let query = Some("q=language&language=Rust&language=go");
        assert_eq!(slice(pattern, Some("backend"), query), "backend/rust/large");
        assert_eq!(slice(pattern, None, None), "unknown/any/large");
        assert_eq!(slice("backend/rust/large", Some("x"), query), "backend/rust/large");
        assert_eq!(slice("a/{query:l}/b", None, Some("l=c%2B%2b")), "a/c++/b");
    }

    #[test]
    fn a_part_that_is_no_name_gives_way_and_the_others_stay() {
        let pattern = "{header:x-repo-type|any}/{query:l}/large";
        for bad in ["l=", "l=a%20b", "l=a+b", "l=%zz", "l=%ff", "l=../x", "l", "m=x"] {
            assert_eq!(slice(pattern, Some("web"), Some(bad)), "web/unknown/large", "{bad}");
        }
        let long = "x".repeat(4_000);
        assert_eq!(slice(pattern, Some(&long), Some("l=go")), "any/go/large");
    }

    #[test]
    fn a_fixed_pattern_says_so() {
        let fixed: Pattern = "backend/rust/large".parse().unwrap();
        assert_eq!(fixed.fixed().unwrap().to_string(), "backend/rust/large");
        assert_eq!("backend/{query:l}/large".parse::<Pattern>().unwrap().fixed(), None);
    }

    #[test]
    fn a_pattern_that_names_no_place_is_refused_with_what_would_do() {
        for bad in ["a/b", "a/b/c/d", "a/{query:l/c", "a/{cookie:l}/c", "a/{query:}/c", "a/b c/d"] {
            let error = bad.parse::<Pattern>().unwrap_err().to_string();
            assert!(error.contains("use ") || error.contains("three parts"), "{bad}: {error}");
        }
        assert!("a/{query:l|b c}/d".parse::<Pattern>().is_err());
        assert!("a/{header:b d}/d".parse::<Pattern>().is_err());
    }
}
