//! Reads the chosen files and builds what the stages search: windows, n-grams, symbols, rarity.
//!
//! The unit that is found and ranked is a window: [`WINDOW_LINES`] lines of one file. The texts
//! stay in memory, because stage C reads dozens of windows a query and a page fault in the midst
//! would be measured as search.

use std::collections::HashMap;

use lens_model::Slice;
use tantivy::TantivyError;
use thiserror::Error;

use super::corpus::{Corpus, CorpusError, FILE_BYTES_MAX, Repository};
use super::language::Language;
use super::lexical::{Lexical, LexicalBuilder};
use super::rerank::Rarity;
use super::symbol_table::{Symbol, SymbolTable};
use super::symbols;
use crate::numbers::index32;

/// Lines of a window.
pub const WINDOW_LINES: usize = 48;

/// Bytes of a window; what one with longer lines has beyond is not searched.
pub const WINDOW_BYTES_MAX: usize = 16 << 10;

/// Files between two reports of progress.
const PROGRESS_FILES: usize = 100;

/// Why the index was not built.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IndexError {
    /// There is nothing to index.
    #[error(transparent)]
    Corpus(#[from] CorpusError),
    /// The n-gram index failed.
    #[error("building the n-gram index failed: {0}; lower --files-max if memory is short")]
    Lexical(#[from] TantivyError),
    /// Indexing was told to stop.
    #[error("indexing was stopped before it was done")]
    Stopped,
}

/// A file in the index.
#[derive(Debug)]
pub(super) struct IndexedFile {
    /// Its path within its repository.
    pub(super) path: String,
    pub(super) repository: usize,
    pub(super) language: Language,
    pub(super) text: Box<str>,
    first_window: u32,
}

/// A stretch of lines of one file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) file: u32,
    /// Its first line, from 1.
    pub(super) first_line: u32,
    start: u32,
    end: u32,
}

/// What belongs to one slice.
#[derive(Debug)]
pub(super) struct SliceIndex {
    pub(super) slice: Slice,
    pub(super) files: usize,
    pub(super) repositories: usize,
    pub(super) windows: usize,
    pub(super) symbols: SymbolTable,
    pub(super) rarity: Rarity,
}

/// How much of the corpus the symbols cover, percent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Coverage {
    /// Files with at least one definition.
    pub(super) files: f64,
    /// Symbols whose line and column lead to their name in the text.
    pub(super) spans: f64,
}

/// Everything the stages search.
#[derive(Debug)]
pub(super) struct SearchIndex {
    pub(super) repositories: Vec<Repository>,
    pub(super) files: Vec<IndexedFile>,
    pub(super) windows: Vec<Window>,
    pub(super) slices: Vec<SliceIndex>,
    pub(super) lexical: Lexical,
    slice_of_repository: Vec<usize>,
    repository_by_name: HashMap<String, usize>,
    slice_by_name: HashMap<Slice, usize>,
}

impl SearchIndex {
    /// Reads and indexes the corpus; `progress` is told files done and files in all, and says
    /// whether to go on.
    pub(super) fn build(
        corpus: Corpus,
        mut progress: impl FnMut(usize, usize) -> bool,
    ) -> Result<Self, IndexError> {
        let total = corpus.files.len();
        progress(0, total);
        let names = || corpus.repositories.iter().map(|r| r.root.display().to_string());
        let files: Vec<IndexedFile> = corpus
            .files
            .iter()
            .filter_map(|file| {
                let text = read_source(&file.path)?;
                Some(IndexedFile {
                    path: file.relative.clone(),
                    repository: file.repository,
                    language: file.language,
                    text: text.into_boxed_str(),
                    first_window: 0,
                })
            })
            .collect();
        if files.is_empty() {
            let directories = names().collect::<Vec<_>>().join(", ");
            return Err(CorpusError::Empty { directories }.into());
        }
        let mut draft = Draft::new(corpus.repositories, files);
        let lexical = LexicalBuilder::new()?;
        let skipped = total - draft.files.len();
        for at in 0..draft.files.len() {
            draft.add(at, &lexical)?;
            if (at + 1) % PROGRESS_FILES == 0 && !progress(skipped + at + 1, total) {
                return Err(IndexError::Stopped);
            }
        }
        let index = draft.finish(lexical.finish()?);
        progress(total, total);
        Ok(index)
    }

    /// The text of a window.
    pub(super) fn text(&self, window: Window) -> &str {
        let file = &self.files[window.file as usize];
        file.text.get(window.start as usize..window.end as usize).unwrap_or("")
    }

    /// The window that a line of a file lies in.
    pub(super) fn window_at(&self, file: u32, line: u32) -> u32 {
        let below = line.saturating_sub(1) / index32(WINDOW_LINES);
        self.files[file as usize].first_window + below
    }

    /// Measures how much of the corpus the symbols cover, from the texts themselves.
    pub(super) fn coverage(&self) -> Coverage {
        let mut has_symbols = vec![false; self.files.len()];
        let (mut symbols, mut resolved) = (0_usize, 0_usize);
        for slice in &self.slices {
            for symbol in slice.symbols.symbols() {
                has_symbols[symbol.file as usize] = true;
                symbols += 1;
                let window = self.windows[self.window_at(symbol.file, symbol.line) as usize];
                let line = (symbol.line - window.first_line) as usize;
                let found = self.text(window).lines().nth(line).is_some_and(|line| {
                    line.get(symbol.column as usize..)
                        .is_some_and(|rest| rest.starts_with(symbol.name.as_ref()))
                });
                resolved += usize::from(found);
            }
        }
        let percent = |part: usize, all: usize| 100.0 * part as f64 / all.max(1) as f64;
        let with_symbols = has_symbols.iter().filter(|has| **has).count();
        Coverage {
            files: percent(with_symbols, self.files.len()),
            spans: percent(resolved, symbols),
        }
    }

    pub(super) fn slice_of_repository(&self, repository: usize) -> usize {
        self.slice_of_repository[repository]
    }

    pub(super) fn repository_named(&self, name: &str) -> Option<usize> {
        self.repository_by_name.get(name).copied()
    }

    pub(super) fn slice_named(&self, slice: &Slice) -> Option<usize> {
        self.slice_by_name.get(slice).copied()
    }
}

/// The text of a file, unless it is too large, unreadable, or no text.
fn read_source(path: &std::path::Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let fits = text.len() as u64 <= FILE_BYTES_MAX;
    (fits && !text.contains('\0')).then_some(text)
}

/// The index while it is being built.
struct Draft {
    repositories: Vec<Repository>,
    files: Vec<IndexedFile>,
    windows: Vec<Window>,
    slices: Vec<SliceIndex>,
    symbols: Vec<Vec<Symbol>>,
    slice_of_repository: Vec<usize>,
    slice_by_name: HashMap<Slice, usize>,
}

impl Draft {
    fn new(repositories: Vec<Repository>, files: Vec<IndexedFile>) -> Self {
        let mut used = vec![false; repositories.len()];
        files.iter().for_each(|file| used[file.repository] = true);
        let mut names: Vec<Slice> = repositories
            .iter()
            .zip(&used)
            .filter(|(_, used)| **used)
            .map(|(repository, _)| repository.slice.clone())
            .collect();
        names.sort();
        names.dedup();
        let slice_by_name: HashMap<Slice, usize> =
            names.iter().cloned().enumerate().map(|(at, name)| (name, at)).collect();
        let slice_of_repository: Vec<usize> = repositories
            .iter()
            .map(|r| slice_by_name.get(&r.slice).copied().unwrap_or_default())
            .collect();
        let mut slices: Vec<SliceIndex> = names
            .into_iter()
            .map(|slice| SliceIndex {
                slice,
                files: 0,
                repositories: 0,
                windows: 0,
                symbols: SymbolTable::default(),
                rarity: Rarity::default(),
            })
            .collect();
        for (at, _) in used.iter().enumerate().filter(|(_, used)| **used) {
            slices[slice_of_repository[at]].repositories += 1;
        }
        let symbols = slices.iter().map(|_| Vec::new()).collect();
        Self {
            repositories,
            files,
            windows: Vec::new(),
            slices,
            symbols,
            slice_of_repository,
            slice_by_name,
        }
    }

    fn add(&mut self, at: usize, lexical: &LexicalBuilder) -> Result<(), TantivyError> {
        let file = &mut self.files[at];
        let slice_at = self.slice_of_repository[file.repository];
        let slice = &mut self.slices[slice_at];
        slice.files += 1;
        file.first_window = index32(self.windows.len());
        let (mut start, mut line) = (0, 1);
        while start < file.text.len() {
            let end = window_end(&file.text, start);
            let searched = start + floor_boundary(&file.text[start..end], WINDOW_BYTES_MAX);
            let text = &file.text[start..searched];
            if !text.trim().is_empty() {
                lexical.add(self.windows.len() as u64, slice_at, file.repository, text)?;
                slice.rarity.add(text);
                slice.windows += 1;
            }
            self.windows.push(Window {
                file: index32(at),
                first_line: line,
                start: index32(start),
                end: index32(searched),
            });
            start = end;
            line += index32(WINDOW_LINES);
        }
        self.symbols[slice_at].extend(symbols::extract(file.language, &file.text).iter().map(
            |found| Symbol {
                name: found.name.into(),
                kind: found.kind,
                file: index32(at),
                line: found.line,
                column: found.column,
            },
        ));
        Ok(())
    }

    fn finish(mut self, lexical: Lexical) -> SearchIndex {
        for (slice, symbols) in self.slices.iter_mut().zip(self.symbols) {
            slice.symbols = SymbolTable::new(symbols);
        }
        let repository_by_name =
            self.repositories.iter().enumerate().map(|(at, r)| (r.name.clone(), at)).collect();
        SearchIndex {
            repositories: self.repositories,
            files: self.files,
            windows: self.windows,
            slices: self.slices,
            lexical,
            slice_of_repository: self.slice_of_repository,
            repository_by_name,
            slice_by_name: self.slice_by_name,
        }
    }
}

/// Where the window that begins at `start` ends: after [`WINDOW_LINES`] line feeds or the text.
fn window_end(text: &str, start: usize) -> usize {
    text[start..]
        .bytes()
        .enumerate()
        .filter(|(_, byte)| *byte == b'\n')
        .nth(WINDOW_LINES - 1)
        .map_or(text.len(), |(at, _)| start + at + 1)
}

/// The largest character boundary of `text` that is at most `at`.
fn floor_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_hold_their_number_of_lines_and_cut_only_at_characters() {
        let text = "é\n".repeat(WINDOW_LINES + 1);
        let end = window_end(&text, 0);
        assert_eq!(text[..end].lines().count(), WINDOW_LINES);
        assert_eq!(window_end(&text, end), text.len());
        assert_eq!(floor_boundary("aé", 2), 1);
        assert_eq!(floor_boundary("aé", 9), 3);
    }
}
