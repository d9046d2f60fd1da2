//! Real queries, sampled from what the corpus defines, for load to be made of.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

use super::index::{SearchIndex, SliceIndex};
use super::tokens::subtokens;
use lens_model::Slice;

/// Queries one request may ask for.
pub(super) const QUERIES_MAX: usize = 10_000;

/// Queries when nothing is said.
pub(super) const QUERIES_DEFAULT: usize = 500;

/// Letters a name needs before part of it is asked for.
const PREFIX_NAME_MIN: usize = 8;

/// Words of a query of several.
const WORDS_MAX: usize = 3;

/// Tries to find a name that suits a kind of query.
const TRIES: usize = 16;

/// What sort of query it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QueryKind {
    /// A whole identifier.
    Identifier,
    /// The beginning of one.
    Prefix,
    /// Words of one, as people type them.
    Words,
}

/// A query that finds something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleQuery {
    /// What to search for.
    pub q: String,
    /// The slice it was sampled from.
    pub slice: Slice,
    /// What sort it is.
    pub kind: QueryKind,
}

/// `count` queries, the slices in turn; the same seed gives the same queries.
pub(super) fn sample(index: &SearchIndex, count: usize, seed: u64) -> Vec<SampleQuery> {
    let mut rng = StdRng::seed_from_u64(seed);
    let slices: Vec<&SliceIndex> =
        index.slices.iter().filter(|slice| !slice.symbols.symbols().is_empty()).collect();
    let turns = slices.iter().cycle().take(if slices.is_empty() { 0 } else { count });
    turns.filter_map(|slice| one(slice, &mut rng)).collect()
}

fn one(slice: &SliceIndex, rng: &mut StdRng) -> Option<SampleQuery> {
    let kind = match rng.random_range(0..10_u32) {
        0..4 => QueryKind::Identifier,
        4..6 => QueryKind::Prefix,
        _ => QueryKind::Words,
    };
    let mut name = &slice.symbols.symbols().choose(rng)?.name;
    for _ in 0..TRIES {
        if suits(kind, name) {
            break;
        }
        name = &slice.symbols.symbols().choose(rng)?.name;
    }
    let q = match kind {
        QueryKind::Prefix if suits(kind, name) => name.chars().take(name.len() * 2 / 3).collect(),
        QueryKind::Words => {
            let words: Vec<_> =
                subtokens(name).map(str::to_ascii_lowercase).take(WORDS_MAX).collect();
            words.join(" ")
        }
        QueryKind::Identifier | QueryKind::Prefix => name.to_string(),
    };
    let q = if q.is_empty() { name.to_string() } else { q };
    Some(SampleQuery { q, slice: slice.slice.clone(), kind })
}

fn suits(kind: QueryKind, name: &str) -> bool {
    match kind {
        QueryKind::Identifier => name.len() >= 4,
        QueryKind::Prefix => name.len() >= PREFIX_NAME_MIN,
        QueryKind::Words => subtokens(name).nth(1).is_some(),
    }
}
