//! Takes a query through the stages, with the clocks and the ledger beside it.
//!
//! A: lexical, always, `min(500, 4k)` windows. B: symbols, in modes `struct` and `hybrid`,
//! `min(100, 2k)` symbols, merged with A's windows. C: rerank, when more than [`RERANK_MIN`] and
//! at most [`RERANK_MAX`] windows are left. A failure in A fails the query; B and C cannot fail.

use std::collections::HashMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use lens_model::{Arm, Stage, Trace};
use serde::Serialize;
use tantivy::TantivyError;

use super::index::SearchIndex;
use super::recording::SliceRecording;
use super::request::{Mode, Query};
use super::rerank;
use super::symbol_table::SymbolMatch;
use super::symbols::SymbolKind;
use crate::Regression;
use crate::numbers::{index32, millis};

/// Windows stage A finds at most.
const LEXICAL_MAX: usize = 500;

/// Symbols stage B finds at most.
const SYMBOLS_MAX: usize = 100;

/// Stage C needs more windows than this to be worth its time.
pub(super) const RERANK_MIN: usize = 10;

/// Stage C takes no more windows than this.
pub(super) const RERANK_MAX: usize = 200;

/// Bytes of a line that an answer shows.
const SNIPPET_CHARS_MAX: usize = 200;

/// Part of a window's first score that comes from letters; the rest comes from symbols.
const LEXICAL_WEIGHT: f32 = 0.5;

/// What stages cost, and what slows them down.
#[derive(Debug)]
pub(super) struct Slowdown {
    pub(super) regressions: Vec<Regression>,
    pub(super) started: Instant,
}

impl Slowdown {
    /// Does the work of a stage; where a regression applies, does it again and again until the
    /// factor times its own time has passed.
    fn work<T>(&self, stage: Stage, arm: Arm, mut work: impl FnMut() -> T) -> T {
        if self.regressions.is_empty() {
            return work();
        }
        let since_start = self.started.elapsed();
        let factor = Regression::factor_of(&self.regressions, stage, arm, since_start);
        let began = Instant::now();
        let result = work();
        let until: Duration = began.elapsed().mul_f64(factor);
        while began.elapsed() < until {
            black_box(work());
        }
        result
    }
}

/// Milliseconds per stage by the recorder's clock; absent where a stage did not run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct LatencyMs {
    pub(super) stage_a: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stage_b: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stage_c: Option<f64>,
    pub(super) total: f64,
}

/// One place that was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Hit {
    /// Repository and path.
    pub(super) file: String,
    pub(super) repo: String,
    /// From 1.
    pub(super) line: u32,
    /// Bytes from 0.
    pub(super) col: u32,
    pub(super) lang: &'static str,
    pub(super) snippet: String,
    /// From 0 to 1.
    pub(super) score: f64,
    pub(super) why: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) symbol_kind: Option<SymbolKind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) symbol_name: Option<String>,
}

/// What a query found and what it took.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) hits: Vec<Hit>,
    /// Windows that matched before the best were chosen.
    pub(super) total: usize,
    pub(super) latency_ms: LatencyMs,
}

/// A window on its way through the stages.
#[derive(Clone, Copy, Debug)]
struct Found {
    window: u32,
    lexical: f32,
    /// Symbol's index, its score and how it matched.
    symbol: Option<(u32, f32, SymbolMatch)>,
    score: f32,
    reranked: bool,
}

impl Found {
    fn prior(&self) -> f32 {
        let symbol = self.symbol.map_or(0.0, |(_, score, _)| score);
        LEXICAL_WEIGHT * self.lexical + (1.0 - LEXICAL_WEIGHT) * symbol
    }
}

/// When a query arrived, and which request it was.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) arrived: Instant,
    /// Known where the caller named it in the form of a trace.
    pub(super) trace: Option<Trace>,
}

/// Runs a query and records what it took since it arrived.
///
/// # Errors
/// When the n-gram index cannot be read.
pub(super) fn search(
    index: &SearchIndex,
    recording: &SliceRecording,
    slowdown: &Slowdown,
    query: &Query,
    asked: Asked,
) -> Result<Answer, TantivyError> {
    let mut latency = LatencyMs::default();
    let mut timer = recording.query(asked);
    let arm = recording.arm();

    let lexical_k = (4 * query.k).min(LEXICAL_MAX);
    let mut found = slowdown.work(Stage::A, arm, || by_letters(index, query, lexical_k))?;
    let mut last = &mut latency.stage_a;
    if query.mode != Mode::Lex {
        *last = millis(timer.next(Stage::B));
        let symbols_k = (2 * query.k).min(SYMBOLS_MAX);
        found = slowdown.work(Stage::B, arm, || with_symbols(index, query, &found, symbols_k));
        last = latency.stage_b.insert(0.0);
    }
    if found.len() > RERANK_MIN && found.len() <= RERANK_MAX {
        *last = millis(timer.next(Stage::C));
        found = slowdown.work(Stage::C, arm, || reranked(index, query, &found));
        last = latency.stage_c.insert(0.0);
    }
    *last = millis(timer.end());

    let total = found.len();
    found.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.window.cmp(&b.window)));
    found.truncate(query.k);
    let hits = found.iter().map(|found| hit(index, query, found)).collect();
    latency.total = millis(timer.finish());
    Ok(Answer { hits, total, latency_ms: latency })
}

fn by_letters(
    index: &SearchIndex,
    query: &Query,
    limit: usize,
) -> Result<Vec<Found>, TantivyError> {
    let hits = index.lexical.search(&query.text, query.slice, query.repository, limit)?;
    let found = hits.into_iter().filter_map(|hit| {
        let window = u32::try_from(hit.window).ok()?;
        let score = LEXICAL_WEIGHT * hit.score;
        Some(Found { window, lexical: hit.score, symbol: None, score, reranked: false })
    });
    Ok(found.collect())
}

/// Looks the query up among the symbols and merges what it finds with the windows found before.
fn with_symbols(index: &SearchIndex, query: &Query, before: &[Found], limit: usize) -> Vec<Found> {
    let table = &index.slices[query.slice].symbols;
    let mut found = before.to_vec();
    let mut place: HashMap<u32, usize> =
        found.iter().enumerate().map(|(at, found)| (found.window, at)).collect();
    for hit in table.search(&query.text, limit) {
        let symbol = &table.symbols()[hit.symbol as usize];
        let repository = index.files[symbol.file as usize].repository;
        if query.repository.is_some_and(|only| only != repository) {
            continue;
        }
        let window = index.window_at(symbol.file, symbol.line);
        let at = *place.entry(window).or_insert_with(|| {
            found.push(Found { window, lexical: 0.0, symbol: None, score: 0.0, reranked: false });
            found.len() - 1
        });
        // Best first: a later symbol in the same window is a lesser one.
        found[at].symbol.get_or_insert((hit.symbol, hit.score, hit.how));
        found[at].score = found[at].prior();
    }
    found
}

fn reranked(index: &SearchIndex, query: &Query, before: &[Found]) -> Vec<Found> {
    let candidates: Vec<_> = before
        .iter()
        .map(|found| rerank::Candidate {
            text: index.text(index.windows[found.window as usize]),
            prior: found.prior(),
        })
        .collect();
    let scores = rerank::score(&query.text, &candidates, &index.slices[query.slice].rarity);
    let scored = before.iter().zip(scores);
    scored.map(|(found, score)| Found { score, reranked: true, ..*found }).collect()
}

/// Shows a window as the line in it that answers the query best.
fn hit(index: &SearchIndex, query: &Query, found: &Found) -> Hit {
    let window = index.windows[found.window as usize];
    let file = &index.files[window.file as usize];
    let repository = &index.repositories[file.repository];
    let mut why = Vec::new();
    let mut symbol_kind = None;
    let mut symbol_name = None;
    let text = index.text(window);
    let (mut line, mut col, verbatim) = best_line(text, &query.text);
    if let Some((symbol, _, how)) = found.symbol {
        let symbol = &index.slices[query.slice].symbols.symbols()[symbol as usize];
        symbol_kind = Some(symbol.kind);
        symbol_name = Some(symbol.name.to_string());
        why.push("symbol");
        match how {
            SymbolMatch::Exact => why.push("exact"),
            SymbolMatch::Prefix => why.push("struct"),
            SymbolMatch::Subtoken => why.push("subtoken"),
            SymbolMatch::Fuzzy => why.push("fuzzy"),
        }
        (line, col) = (symbol.line.saturating_sub(window.first_line), symbol.column);
    }
    if found.lexical > 0.0 {
        let kind = if verbatim { "exact" } else { "fuzzy" };
        if !why.contains(&kind) {
            why.push(kind);
        }
    }
    if found.reranked {
        why.push("semantic");
    }
    let shown = text.lines().nth(line as usize).unwrap_or("").trim();
    Hit {
        file: format!("{}/{}", repository.name, file.path),
        repo: repository.name.clone(),
        line: window.first_line + line,
        col,
        lang: file.language.as_str(),
        snippet: shown.chars().take(SNIPPET_CHARS_MAX).collect(),
        score: rerank::shown(found.score),
        why,
        symbol_kind,
        symbol_name,
    }
}

/// The line of a window that holds the query, else the one with the longest word of it, else the
/// first: its number from 0, its column, and whether it holds the query as it is.
fn best_line(text: &str, query: &str) -> (u32, u32, bool) {
    let find = |needle: &str| {
        let needle = needle.to_ascii_lowercase();
        text.lines().enumerate().find_map(|(at, line)| {
            let col = line.to_ascii_lowercase().find(&needle)?;
            Some((index32(at), index32(col)))
        })
    };
    if let Some((line, col)) = find(query.trim()) {
        return (line, col, true);
    }
    let mut words: Vec<&str> = query.split_whitespace().collect();
    words.sort_by_key(|word| std::cmp::Reverse(word.len()));
    let (line, col) = words.into_iter().find_map(find).unwrap_or((0, 0));
    (line, col, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_shown_is_the_one_that_holds_the_query() {
        let text = "use a;\nfn parse_header() {}\n";
        assert_eq!(best_line(text, "Parse_Header"), (1, 3, true));
        assert_eq!(best_line(text, "header of parse_header"), (1, 3, false));
        assert_eq!(best_line(text, "zzz"), (0, 0, false));
        assert_eq!(best_line("", ""), (0, 0, false));
    }

    #[test]
    fn a_slowed_stage_repeats_its_own_work() {
        let slowdown =
            Slowdown { regressions: vec!["stage_b=5".parse().unwrap()], started: Instant::now() };
        let mut runs = 0;
        let mut work = || {
            runs += 1;
            std::thread::sleep(Duration::from_millis(2));
        };
        slowdown.work(Stage::A, Arm::Canary, &mut work);
        slowdown.work(Stage::B, Arm::Canary, &mut work);
        // Once for A; B at least twice more, however coarse the sleep.
        assert!(runs >= 4, "{runs}");
    }
}
