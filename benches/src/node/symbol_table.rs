//! Stage B: looks a query up among the definitions of one slice.
//!
//! Three ways in, best first: the whole name or its beginning (binary search over sorted names),
//! the words a name is made of (postings weighted by rarity), and a misspelt name (a pass over
//! the distinct names with a bounded edit distance, as no index of edits is kept).

use std::collections::HashMap;

use super::symbols::SymbolKind;
use super::tokens::{identifiers, subtokens};
use crate::numbers::index32;

/// Terms of a query that are looked up; the rest is ignored here.
const TERMS_MAX: usize = 8;

/// Names with one beginning that are taken.
const PREFIX_MATCHES_MAX: usize = 64;

/// Edits a name may be away: an insertion, a deletion or a replacement is one.
const EDITS_MAX: usize = 2;

/// Letters a term needs before it is taken for misspelt.
const FUZZY_LETTERS_MIN: usize = 5;

/// A definition in the table.
#[derive(Clone, Debug)]
pub(super) struct Symbol {
    /// Its name as written.
    pub name: Box<str>,
    /// What it is.
    pub kind: SymbolKind,
    /// The file, an index into the node's files.
    pub file: u32,
    /// Its line, from 1.
    pub line: u32,
    /// The column of its name, bytes from 0.
    pub column: u32,
}

/// How a symbol came to match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SymbolMatch {
    /// The whole name.
    Exact,
    /// The beginning of the name.
    Prefix,
    /// Words of the name.
    Subtoken,
    /// The name but for a few letters.
    Fuzzy,
}

/// A symbol that matches, with a score from 0 to 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct SymbolHit {
    /// Index of the symbol in its table.
    pub symbol: u32,
    /// How well it matches, 0 to 1.
    pub score: f32,
    /// How it came to match.
    pub how: SymbolMatch,
}

/// The definitions of one slice.
#[derive(Debug, Default)]
pub(super) struct SymbolTable {
    symbols: Vec<Symbol>,
    /// Distinct lower-case names, sorted, with their symbols.
    names: Vec<(Box<str>, Vec<u32>)>,
    /// Positions in `names` by lower-case word.
    words: HashMap<Box<str>, Vec<u32>>,
}

impl SymbolTable {
    /// Builds the table.
    pub(super) fn new(symbols: Vec<Symbol>) -> Self {
        let mut by_name: HashMap<String, Vec<u32>> = HashMap::new();
        for (at, symbol) in symbols.iter().enumerate() {
            by_name.entry(symbol.name.to_ascii_lowercase()).or_default().push(index32(at));
        }
        let mut names: Vec<(Box<str>, Vec<u32>)> =
            by_name.into_iter().map(|(name, list)| (name.into_boxed_str(), list)).collect();
        names.sort_by(|a, b| a.0.cmp(&b.0));
        let mut words: HashMap<Box<str>, Vec<u32>> = HashMap::new();
        for (at, (_, list)) in names.iter().enumerate() {
            // The spelling with capitals knows where the words of the name begin.
            for word in list.first().into_iter().flat_map(|s| subtokens(&symbols[*s as usize].name))
            {
                let postings = words.entry(word.to_ascii_lowercase().into()).or_default();
                if postings.last() != Some(&index32(at)) {
                    postings.push(index32(at));
                }
            }
        }
        Self { symbols, names, words }
    }

    /// The symbols.
    pub(super) fn symbols(&self) -> &[Symbol] {
        &self.symbols
    }

    /// The at most `limit` best matches of `query`, best first, ties by order of the corpus.
    pub(super) fn search(&self, query: &str, limit: usize) -> Vec<SymbolHit> {
        let mut scores: HashMap<u32, (f32, SymbolMatch)> = HashMap::new();
        let terms: Vec<String> =
            identifiers(query).take(TERMS_MAX).map(|(_, t)| t.to_ascii_lowercase()).collect();
        for term in &terms {
            self.whole_and_prefix(term, &mut scores);
            self.misspelt(term, &mut scores);
        }
        self.by_words(query, &mut scores);

        let mut ranked: Vec<_> = scores.into_iter().collect();
        ranked.sort_by(|a, b| b.1.0.total_cmp(&a.1.0).then(a.0.cmp(&b.0)));
        let hits = ranked.into_iter().flat_map(|(name, (score, how))| {
            let list = &self.names[name as usize].1;
            list.iter().map(move |symbol| SymbolHit { symbol: *symbol, score, how })
        });
        hits.take(limit).collect()
    }

    fn whole_and_prefix(&self, term: &str, scores: &mut HashMap<u32, (f32, SymbolMatch)>) {
        let start = self.names.partition_point(|(name, _)| name.as_ref() < term);
        for (at, (name, _)) in self.names.iter().enumerate().skip(start).take(PREFIX_MATCHES_MAX) {
            if !name.starts_with(term) {
                break;
            }
            if name.len() == term.len() {
                better(scores, at, 1.0, SymbolMatch::Exact);
            } else if term.len() >= 3 {
                let share = term.len() as f32 / name.len() as f32;
                better(scores, at, 0.5 + 0.4 * share, SymbolMatch::Prefix);
            }
        }
    }

    /// Names that hold words of the query, by the share of the query's rarity they cover.
    fn by_words(&self, query: &str, scores: &mut HashMap<u32, (f32, SymbolMatch)>) {
        let total = self.names.len() as f32;
        let mut covered: HashMap<u32, f32> = HashMap::new();
        let mut weight_sum = 0.0;
        let words = identifiers(query).flat_map(|(_, name)| subtokens(name)).take(TERMS_MAX);
        for word in words {
            let Some(postings) = self.words.get(word.to_ascii_lowercase().as_str()) else {
                weight_sum += (1.0 + total).ln();
                continue;
            };
            let weight = (1.0 + total / postings.len() as f32).ln();
            weight_sum += weight;
            for name in postings {
                *covered.entry(*name).or_default() += weight;
            }
        }
        for (name, weight) in covered {
            let words = self.names[name as usize]
                .1
                .first()
                .map_or(1, |symbol| subtokens(&self.symbols[*symbol as usize].name).count().max(1));
            // A short name that is covered says more than a long one that is.
            let brevity = 1.0 / (1.0 + words as f32 / 16.0);
            let score = 0.85 * (weight / weight_sum) * brevity;
            better(scores, name as usize, score, SymbolMatch::Subtoken);
        }
    }

    fn misspelt(&self, term: &str, scores: &mut HashMap<u32, (f32, SymbolMatch)>) {
        if term.len() < FUZZY_LETTERS_MIN {
            return;
        }
        for (at, (name, _)) in self.names.iter().enumerate() {
            if let Some(edits @ 1..) = edit_distance(term.as_bytes(), name.as_bytes(), EDITS_MAX) {
                let share = 1.0 - edits as f32 / term.len() as f32;
                better(scores, at, 0.7 * share, SymbolMatch::Fuzzy);
            }
        }
    }
}

fn better(scores: &mut HashMap<u32, (f32, SymbolMatch)>, at: usize, score: f32, how: SymbolMatch) {
    let held = scores.entry(index32(at)).or_insert((score, how));
    if score > held.0 {
        *held = (score, how);
    }
}

/// The edits between two texts if there are at most `max` (itself at most [`EDITS_MAX`]).
///
/// Only the diagonal band of the table that can stay within `max` is computed.
fn edit_distance(a: &[u8], b: &[u8], max: usize) -> Option<usize> {
    const WIDTH: usize = 80;
    if a.len().abs_diff(b.len()) > max || b.len() >= WIDTH {
        return None;
    }
    let far = max + 1;
    let mut row = [far; WIDTH];
    for (at, cell) in row.iter_mut().enumerate().take(far.min(b.len()) + 1) {
        *cell = at;
    }
    for (i, byte) in a.iter().enumerate() {
        let low = (i + 1).saturating_sub(max).max(1);
        let high = (i + 1 + max).min(b.len());
        let mut diagonal = row[low - 1];
        row[low - 1] = if low == 1 { (i + 1).min(far) } else { far };
        let mut least = row[low - 1];
        for j in low..=high {
            let replaced = diagonal + usize::from(*byte != b[j - 1]);
            diagonal = row[j];
            row[j] = replaced.min(row[j - 1] + 1).min(row[j] + 1).min(far);
            least = least.min(row[j]);
        }
        if least > max {
            return None;
        }
    }
    (row[b.len()] <= max).then_some(row[b.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(names: &[&str]) -> SymbolTable {
        let symbol = |name: &&str| Symbol {
            name: (*name).into(),
            kind: SymbolKind::Function,
            file: 0,
            line: 1,
            column: 0,
        };
        SymbolTable::new(names.iter().map(symbol).collect())
    }

    fn found(table: &SymbolTable, query: &str) -> Vec<(String, SymbolMatch)> {
        let hits = table.search(query, 10);
        hits.iter().map(|h| (table.symbols[h.symbol as usize].name.to_string(), h.how)).collect()
    }

    #[test]
    fn a_whole_name_comes_before_a_prefix_before_words() {
        let table = table(&["parse_header", "parse_header_line", "HeaderMap", "unrelated"]);
        let names = found(&table, "parse_header");
        assert_eq!(names[0], ("parse_header".into(), SymbolMatch::Exact));
        assert_eq!(names[1], ("parse_header_line".into(), SymbolMatch::Prefix));
        assert_eq!(names[2], ("HeaderMap".into(), SymbolMatch::Subtoken));
        assert_eq!(names.len(), 3);
    }

    #[test]
    fn words_in_any_order_and_misspelt_names_are_found() {
        let table = table(&["readConfigFile", "open_socket", "decode"]);
        assert_eq!(found(&table, "file config")[0].0, "readConfigFile");
        assert_eq!(found(&table, "open_sockt")[0], ("open_socket".into(), SymbolMatch::Fuzzy));
        assert!(found(&table, "zzz").is_empty() && found(&table, "").is_empty());
        assert_eq!(table.search("decode", 0).len(), 0);
    }

    #[test]
    fn edit_distance_agrees_with_the_full_table_within_its_bound() {
        let words = ["", "a", "ab", "kitten", "sitting", "kitte", "skitten", "tikten", "abcdef"];
        for a in words {
            for b in words {
                let full = strsim::levenshtein(a, b);
                let expected = (full <= 2).then_some(full);
                assert_eq!(edit_distance(a.as_bytes(), b.as_bytes(), 2), expected, "{a} {b}");
            }
        }
    }
}
