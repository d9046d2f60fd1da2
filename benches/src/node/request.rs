//! What a query may say, and how a bad one is answered.
//!
//! Every refusal names the field and what would be right; an unknown field is answered with the
//! nearest known one. A refused query counts nowhere: it says nothing about the search.

use lens_model::Slice;
use serde::Serialize;
use serde_json::Value;

use super::index::SearchIndex;
use crate::arguments::nearest;
use crate::numbers::fnv1a;

/// Longest query, characters.
pub const QUERY_CHARS_MAX: usize = 1_000;

/// Hits one query may ask for.
pub const K_MAX: usize = 200;

/// Hits when nothing is said.
pub const K_DEFAULT: usize = 10;

/// Longest user name, characters.
pub(super) const USER_CHARS_MAX: usize = 256;

/// Names of repositories a refusal lists.
const NAMES_SHOWN_MAX: usize = 5;

const FIELDS: [&str; 6] = ["q", "repo", "slice", "k", "mode", "user"];

/// Which stages a query asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Stage A, then C.
    Lex,
    /// Stages A and B, then C.
    Struct,
    /// Stages A and B, then C.
    #[default]
    Hybrid,
}

/// A query that may be run.
#[derive(Clone, Debug)]
pub(super) struct Query {
    pub(super) text: String,
    /// Index of the slice it belongs to.
    pub(super) slice: usize,
    /// Index of the repository it is confined to.
    pub(super) repository: Option<usize>,
    pub(super) k: usize,
    pub(super) mode: Mode,
    /// Who asks, where they say so.
    pub(super) user: Option<String>,
}

/// A query that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Refusal {
    /// The field that is wrong; `body` for the whole.
    pub(super) field: String,
    /// What is wrong and what would be right.
    pub(super) message: String,
}

fn refuse(field: &str, message: impl Into<String>) -> Refusal {
    Refusal { field: field.chars().take(80).collect(), message: message.into() }
}

impl Query {
    /// Checks a request body against the index.
    pub(super) fn parse(body: &[u8], index: &SearchIndex) -> Result<Self, Refusal> {
        let json: Value = serde_json::from_slice(body)
            .map_err(|e| refuse("body", format!("not JSON ({e}); send {{\"q\": \"text\"}}")))?;
        let Value::Object(fields) = json else {
            return Err(refuse("body", "not a JSON object; send {\"q\": \"text\"}"));
        };
        if let Some(unknown) = fields.keys().find(|name| !FIELDS.contains(&name.as_str())) {
            let hint = nearest(unknown, &FIELDS)
                .map_or_else(String::new, |near| format!(", did you mean {near:?}?"));
            let known = FIELDS.join(", ");
            return Err(refuse(unknown, format!("unknown field{hint}; known are {known}")));
        }
        let text = |name: &'static str, max: usize| match fields.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if (1..=max).contains(&text.chars().count()) => {
                Ok(Some(text.as_str()))
            }
            Some(_) => Err(refuse(name, format!("use a string of 1 to {max} characters"))),
        };
        let q = text("q", QUERY_CHARS_MAX)?.filter(|q| !q.trim().is_empty()).ok_or_else(|| {
            refuse("q", format!("say what to search for, 1 to {QUERY_CHARS_MAX} characters"))
        })?;
        let user = text("user", USER_CHARS_MAX)?.map(str::to_owned);
        let k = match fields.get("k") {
            None | Some(Value::Null) => K_DEFAULT,
            Some(value) => value
                .as_u64()
                .and_then(|k| usize::try_from(k).ok())
                .filter(|k| (1..=K_MAX).contains(k))
                .ok_or_else(|| refuse("k", format!("use a whole number from 1 to {K_MAX}")))?,
        };
        let mode = match text("mode", QUERY_CHARS_MAX)? {
            None | Some("hybrid") => Mode::Hybrid,
            Some("lex") => Mode::Lex,
            Some("struct") => Mode::Struct,
            Some(_) => return Err(refuse("mode", "use lex, struct or hybrid")),
        };
        let (slice, repository) =
            place(index, q, text("repo", QUERY_CHARS_MAX)?, text("slice", QUERY_CHARS_MAX)?)?;
        Ok(Self { text: q.to_owned(), slice, repository, k, mode, user })
    }
}

/// The one slice a query belongs to: that of its repository, the one it names, or else one that
/// a hash of its text chooses, the same on every node with the same corpus.
fn place(
    index: &SearchIndex,
    q: &str,
    repo: Option<&str>,
    slice: Option<&str>,
) -> Result<(usize, Option<usize>), Refusal> {
    let repository = repo
        .map(|name| index.repository_named(name).ok_or_else(|| unknown_repository(index, name)))
        .transpose()?;
    let named = slice.map(|text| named_slice(index, text)).transpose()?;
    match (repository, named) {
        (Some(repository), named) => {
            let own = index.slice_of_repository(repository);
            if named.is_some_and(|named| named != own) {
                let own = &index.slices[own].slice;
                return Err(refuse(
                    "slice",
                    format!("that repository is in {own}; leave slice out"),
                ));
            }
            Ok((own, Some(repository)))
        }
        (None, Some(named)) => Ok((named, None)),
        (None, None) => {
            let choice = fnv1a(q.bytes()) % (index.slices.len().max(1) as u64);
            Ok((usize::try_from(choice).unwrap_or(0), None))
        }
    }
}

fn named_slice(index: &SearchIndex, text: &str) -> Result<usize, Refusal> {
    let slice: Slice = text.parse().map_err(|e| refuse("slice", format!("{e}")))?;
    index.slice_named(&slice).ok_or_else(|| {
        let known: Vec<String> = index.slices.iter().map(|s| s.slice.to_string()).collect();
        refuse("slice", format!("this node serves no such slice; it serves {}", known.join(", ")))
    })
}

fn unknown_repository(index: &SearchIndex, name: &str) -> Refusal {
    let known: Vec<&str> = index.repositories.iter().map(|r| r.name.as_str()).collect();
    let hint = match nearest(name, &known) {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("known are {} and others, see /stats", {
            known[..known.len().min(NAMES_SHOWN_MAX)].join(", ")
        }),
    };
    refuse("repo", format!("INDEX_MISSING: this node serves no such repository; {hint}"))
}
