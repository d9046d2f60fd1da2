//! Stage C: ranks candidate windows by what they say, not only by which letters they share.
//!
//! Query and window become vectors over hashed features (identifiers and the words they are made
//! of), weighted by 1 + ln(count) and by rarity in the slice, and are compared by their cosine;
//! to that come how close together the query's words stand and whether the query occurs as it
//! is. Two features may share a hash: with [`DIMENSIONS`] places that is rare in a window and only
//! blurs a score.

use std::collections::HashMap;

use super::tokens::{identifiers, subtokens};
use crate::numbers::{fnv1a, whole};

/// Places of a feature vector.
pub(super) const DIMENSIONS: usize = 4_096;

/// Distinct words of a query that proximity looks at.
const PROXIMITY_WORDS_MAX: usize = 16;

/// Words apart at which proximity is worth half.
const PROXIMITY_HALF: f32 = 8.0;

/// What each part adds to a score of at most 1.
const WEIGHT_COSINE: f32 = 0.40;
const WEIGHT_PROXIMITY: f32 = 0.25;
const WEIGHT_VERBATIM: f32 = 0.20;
const WEIGHT_PRIOR: f32 = 0.15;

/// The place of a feature.
fn place(feature: &str) -> usize {
    let hash = fnv1a(feature.bytes().map(|byte| byte.to_ascii_lowercase()));
    usize::try_from((hash ^ (hash >> 32)) % DIMENSIONS as u64).unwrap_or(0)
}

/// Calls `each` with the place of every feature of a text.
fn for_each_feature(text: &str, mut each: impl FnMut(usize)) {
    for (_, identifier) in identifiers(text) {
        each(place(identifier));
        let mut words = subtokens(identifier);
        if let (Some(first), rest) = (words.next(), words) {
            let mut several = false;
            for word in rest {
                several = true;
                each(place(word));
            }
            if several || first.len() < identifier.len() {
                each(place(first));
            }
        }
    }
}

/// How rare each feature is in a slice.
#[derive(Debug)]
pub(super) struct Rarity {
    windows: u32,
    windows_with: Vec<u32>,
    last_window: Vec<u32>,
}

impl Default for Rarity {
    fn default() -> Self {
        Self { windows: 0, windows_with: vec![0; DIMENSIONS], last_window: vec![0; DIMENSIONS] }
    }
}

impl Rarity {
    /// Counts one window.
    pub(super) fn add(&mut self, text: &str) {
        self.windows += 1;
        for_each_feature(text, |at| {
            if self.last_window[at] != self.windows {
                self.last_window[at] = self.windows;
                self.windows_with[at] += 1;
            }
        });
    }

    fn weight(&self, at: usize) -> f32 {
        let (all, with) = (f64::from(self.windows), f64::from(self.windows_with[at]));
        single(((1.0 + all) / (1.0 + with)).ln() + 0.1)
    }
}

/// A weight needs no more digits than a single holds.
#[expect(clippy::cast_possible_truncation, reason = "rounding to a single is what is wanted")]
const fn single(value: f64) -> f32 {
    value as f32
}

/// A candidate to be ranked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    /// The text of its window.
    pub text: &'a str,
    /// What the stages before thought of it, 0 to 1.
    pub prior: f32,
}

/// Scores every candidate from 0 to 1, in the order given.
pub(super) fn score(query: &str, candidates: &[Candidate<'_>], rarity: &Rarity) -> Vec<f32> {
    let mut features = Features::new();
    let (query_vector, query_length) = features.vector(query, rarity);
    let words = words_of(query);
    let needle = query.trim().to_ascii_lowercase();
    candidates
        .iter()
        .map(|candidate| {
            let (vector, length) = features.vector(candidate.text, rarity);
            let dot: f32 = query_vector
                .iter()
                .map(|(at, weight)| weight * vector.get(at).copied().unwrap_or(0.0))
                .sum();
            let lengths = query_length * length;
            let cosine = if lengths > 0.0 { (dot / lengths).min(1.0) } else { 0.0 };
            // A window is much longer than a query, so cosines crowd near 0: the root spreads them.
            let total = WEIGHT_COSINE * cosine.max(0.0).sqrt()
                + WEIGHT_PROXIMITY * proximity(&words, candidate.text)
                + WEIGHT_VERBATIM * verbatim(&needle, candidate.text)
                + WEIGHT_PRIOR * candidate.prior.clamp(0.0, 1.0);
            total.clamp(0.0, 1.0)
        })
        .collect()
}

/// Room for counting features, kept from one window to the next.
struct Features {
    counts: Vec<u32>,
    touched: Vec<usize>,
}

impl Features {
    fn new() -> Self {
        Self { counts: vec![0; DIMENSIONS], touched: Vec::new() }
    }

    /// The weighted vector of a text and its length.
    fn vector(&mut self, text: &str, rarity: &Rarity) -> (HashMap<usize, f32>, f32) {
        for_each_feature(text, |at| {
            if self.counts[at] == 0 {
                self.touched.push(at);
            }
            self.counts[at] += 1;
        });
        let mut square = 0.0;
        let mut vector = HashMap::with_capacity(self.touched.len());
        for at in self.touched.drain(..) {
            let count = std::mem::take(&mut self.counts[at]);
            let weight = (1.0 + single(f64::from(count).ln())) * rarity.weight(at);
            square += weight * weight;
            vector.insert(at, weight);
        }
        (vector, square.sqrt())
    }
}

/// The distinct lower-case words of a query.
fn words_of(query: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in identifiers(query).flat_map(|(_, name)| subtokens(name)) {
        let word = word.to_ascii_lowercase();
        if words.len() < PROXIMITY_WORDS_MAX && !words.contains(&word) {
            words.push(word);
        }
    }
    words
}

/// How many of the words occur and how close together, 0 to 1: the best over all stretches that
/// hold one more word than the one before.
fn proximity(words: &[String], text: &str) -> f32 {
    if words.is_empty() {
        return 0.0;
    }
    let mut last_seen: Vec<Option<usize>> = vec![None; words.len()];
    let mut best = 0.0_f32;
    let found = identifiers(text).flat_map(|(_, name)| subtokens(name)).enumerate();
    for (at, token) in found {
        let Some(which) = words.iter().position(|word| word.eq_ignore_ascii_case(token)) else {
            continue;
        };
        last_seen[which] = Some(at);
        // From the most recently seen word backwards: each adds coverage and distance.
        let mut ages: Vec<usize> = last_seen.iter().flatten().map(|seen| at - seen).collect();
        ages.sort_unstable();
        for (others, age) in ages.into_iter().enumerate() {
            let covered = (others + 1) as f32 / words.len() as f32;
            let apart = (age - others) as f32;
            best = best.max(covered * PROXIMITY_HALF / (PROXIMITY_HALF + apart));
        }
    }
    best
}

/// 1 where the query occurs as it is and ends at word boundaries, 0.6 where it occurs, else 0.
fn verbatim(needle: &str, text: &str) -> f32 {
    if needle.is_empty() {
        return 0.0;
    }
    let hay = text.to_ascii_lowercase();
    let word = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    let mut best = 0.0;
    for (at, _) in hay.match_indices(needle) {
        let bytes = hay.as_bytes();
        let inside = (at > 0 && word(bytes.get(at - 1))) || word(bytes.get(at + needle.len()));
        if !inside {
            return 1.0;
        }
        best = 0.6;
    }
    best
}

/// A score as it is shown: four digits.
pub(super) fn shown(score: f32) -> f64 {
    whole(f64::from(score) * 1e4) as f64 / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rank(query: &str, texts: &[&str]) -> Vec<f32> {
        let mut rarity = Rarity::default();
        texts.iter().for_each(|text| rarity.add(text));
        let candidates: Vec<_> = texts.iter().map(|text| Candidate { text, prior: 0.5 }).collect();
        score(query, &candidates, &rarity)
    }

    #[test]
    fn an_exact_match_ranks_first() {
        let scores = rank(
            "parse_header",
            &[
                "fn parse(x: u8) { let y = header_of(x); }",
                "fn parse_header(line: &str) -> Header { split(line) }",
                "fn unrelated() { let a = 1; }",
                "fn reparse_headers_all() {}",
            ],
        );
        let best = (0..4).max_by(|a, b| scores[*a].total_cmp(&scores[*b])).unwrap();
        assert_eq!(best, 1, "{scores:?}");
        assert!(scores.iter().all(|score| (0.0..=1.0).contains(score)), "{scores:?}");
    }

    #[test]
    fn words_close_together_rank_above_the_same_words_far_apart() {
        let far = format!("open {} socket", "filler ".repeat(60));
        let scores = rank("open socket", &[&far, "open the socket", "neither"]);
        assert!(scores[1] > scores[0] && scores[0] > scores[2], "{scores:?}");
    }

    #[test]
    fn queries_and_windows_without_words_score_without_failing() {
        assert_eq!(rank("+-*", &["", "a b"]).len(), 2);
        assert!(rank("", &["a"])[0] <= WEIGHT_PRIOR);
        assert_eq!(score("x", &[], &Rarity::default()), Vec::<f32>::new());
    }
}
