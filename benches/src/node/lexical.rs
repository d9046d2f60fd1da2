//! Stage A: which windows of text share most three-letter pieces with the query.
//!
//! A tantivy index over n-grams of the lower-cased text, ranked by BM25. A window matches when it
//! holds at least [`SHARE_NUM`] in [`SHARE_DEN`] of the query's pieces, so a query finds what it
//! is part of and what differs in a few letters. The slice, and the repository where one was
//! named, are indexed terms that must match.

use tantivy::collector::TopDocs;
use tantivy::indexer::NoMergePolicy;
use tantivy::query::{BooleanQuery, ConstScoreQuery, Occur, Query, TermQuery};
use tantivy::schema::{
    FAST, Field, INDEXED, IndexRecordOption, Schema, TextFieldIndexing, TextOptions,
};
use tantivy::tokenizer::{LowerCaser, NgramTokenizer, TextAnalyzer, TokenStream};
use tantivy::{Index, IndexReader, IndexWriter, ReloadPolicy, TantivyDocument, TantivyError, Term};

/// Letters of a piece.
const GRAM: usize = 3;

/// Distinct pieces of a query that are searched for.
const GRAMS_MAX: usize = 48;

/// The part of the pieces a window must hold.
const SHARE_NUM: usize = 1;
const SHARE_DEN: usize = 2;

/// Memory for building, bytes in all: as few segments as possible without crowding a laptop.
const WRITER_BYTES: usize = 160 << 20;

/// Threads for building at most.
const WRITER_THREADS_MAX: usize = 4;

const TOKENIZER: &str = "grams";

#[derive(Clone, Copy, Debug)]
struct Fields {
    grams: Field,
    slice: Field,
    repository: Field,
    window: Field,
}

/// Takes windows until [`LexicalBuilder::finish`].
pub(super) struct LexicalBuilder {
    index: Index,
    writer: IndexWriter,
    fields: Fields,
}

impl std::fmt::Debug for LexicalBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LexicalBuilder").finish_non_exhaustive()
    }
}

fn analyzer() -> Result<TextAnalyzer, TantivyError> {
    Ok(TextAnalyzer::builder(NgramTokenizer::new(GRAM, GRAM, false)?).filter(LowerCaser).build())
}

/// Runs of blanks become one: indentation would otherwise be the commonest piece of all.
fn squeezed(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split_ascii_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    out
}

impl LexicalBuilder {
    /// An empty index in memory.
    ///
    /// # Errors
    /// What tantivy refuses; the schema is constant, so only for want of threads or memory.
    pub(super) fn new() -> Result<Self, TantivyError> {
        let mut schema = Schema::builder();
        let indexing = TextFieldIndexing::default()
            .set_tokenizer(TOKENIZER)
            .set_index_option(IndexRecordOption::WithFreqs);
        let fields = Fields {
            grams: schema
                .add_text_field("grams", TextOptions::default().set_indexing_options(indexing)),
            slice: schema.add_u64_field("slice", INDEXED),
            repository: schema.add_u64_field("repository", INDEXED),
            window: schema.add_u64_field("window", FAST),
        };
        let index = Index::create_in_ram(schema.build());
        index.tokenizers().register(TOKENIZER, analyzer()?);
        let threads = std::thread::available_parallelism()
            .map_or(1, std::num::NonZero::get)
            .min(WRITER_THREADS_MAX);
        let writer = index.writer_with_num_threads(threads, WRITER_BYTES)?;
        // Merging would go on while the first queries run and be counted in their latency.
        writer.set_merge_policy(Box::new(NoMergePolicy));
        Ok(Self { index, writer, fields })
    }

    /// Adds one window of text.
    ///
    /// # Errors
    /// When a writer thread has failed.
    pub(super) fn add(
        &self,
        window: u64,
        slice: usize,
        repository: usize,
        text: &str,
    ) -> Result<(), TantivyError> {
        let mut document = TantivyDocument::default();
        document.add_text(self.fields.grams, squeezed(text));
        document.add_u64(self.fields.slice, slice as u64);
        document.add_u64(self.fields.repository, repository as u64);
        document.add_u64(self.fields.window, window);
        self.writer.add_document(document).map(|_| ())
    }

    /// Finishes building.
    ///
    /// # Errors
    /// When a writer thread has failed.
    pub(super) fn finish(mut self) -> Result<Lexical, TantivyError> {
        self.writer.commit()?;
        self.writer.wait_merging_threads()?;
        let reader = self.index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        Ok(Lexical { reader, fields: self.fields, analyzer: analyzer()? })
    }
}

/// The finished index.
pub(super) struct Lexical {
    reader: IndexReader,
    fields: Fields,
    analyzer: TextAnalyzer,
}

impl std::fmt::Debug for Lexical {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lexical").finish_non_exhaustive()
    }
}

/// A window that matches, with its BM25 score relative to the best one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct LexicalHit {
    /// The window's number.
    pub window: u64,
    /// Its score as a part of the best score, 0 to 1.
    pub score: f32,
}

impl Lexical {
    /// The at most `limit` best windows of a slice, or of one repository of it, best first.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub(super) fn search(
        &self,
        query: &str,
        slice: usize,
        repository: Option<usize>,
        limit: usize,
    ) -> Result<Vec<LexicalHit>, TantivyError> {
        let grams = self.grams_of(query);
        if grams.is_empty() || limit == 0 {
            return Ok(Vec::new());
        }
        let required = (grams.len() * SHARE_NUM).div_ceil(SHARE_DEN);
        let mut pieces: Vec<Box<dyn Query>> = Vec::with_capacity(grams.len());
        for gram in grams {
            let term = Term::from_field_text(self.fields.grams, &gram);
            pieces.push(Box::new(TermQuery::new(term, IndexRecordOption::WithFreqs)));
        }
        let pieces = BooleanQuery::union_with_minimum_required_clauses(pieces, required);
        let mut clauses: Vec<(Occur, Box<dyn Query>)> =
            vec![(Occur::Must, Box::new(pieces)), (Occur::Must, filter(self.fields.slice, slice))];
        if let Some(repository) = repository {
            clauses.push((Occur::Must, filter(self.fields.repository, repository)));
        }
        let searcher = self.reader.searcher();
        let top = searcher
            .search(&BooleanQuery::new(clauses), &TopDocs::with_limit(limit).order_by_score())?;
        let best = top.first().map_or(1.0, |(score, _)| score.max(f32::MIN_POSITIVE));
        let mut hits = Vec::with_capacity(top.len());
        for (score, address) in top {
            let windows =
                searcher.segment_reader(address.segment_ord).fast_fields().u64("window")?;
            if let Some(window) = windows.first(address.doc_id) {
                hits.push(LexicalHit { window, score: score / best });
            }
        }
        Ok(hits)
    }

    /// The distinct pieces of a query; one shorter than a piece has none.
    fn grams_of(&self, query: &str) -> Vec<String> {
        let squeezed = squeezed(query);
        let mut grams: Vec<String> = Vec::new();
        let mut analyzer = self.analyzer.clone();
        let mut stream = analyzer.token_stream(&squeezed);
        while grams.len() < GRAMS_MAX && stream.advance() {
            let gram = &stream.token().text;
            if !grams.contains(gram) {
                grams.push(gram.clone());
            }
        }
        grams
    }
}

/// A term that must match and adds nothing to the score.
fn filter(field: Field, value: usize) -> Box<dyn Query> {
    let term = Term::from_field_u64(field, value as u64);
    let query = TermQuery::new(term, IndexRecordOption::Basic);
    Box::new(ConstScoreQuery::new(Box::new(query), 0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_window_of_the_slice_comes_first_and_others_slices_never() {
        let builder = LexicalBuilder::new().unwrap();
        builder.add(10, 0, 0, "fn   ParseHeader(line)").unwrap();
        builder.add(11, 0, 1, "fn parse_other(x)").unwrap();
        builder.add(12, 1, 2, "fn parse_header(line)").unwrap();
        builder.add(13, 0, 1, "nothing at all alike").unwrap();
        let index = builder.finish().unwrap();
        let hits = index.search("parseheader", 0, None, 10).unwrap();
        assert_eq!((hits[0].window, hits[0].score), (10, 1.0));
        assert!(hits.iter().all(|hit| hit.window != 12 && hit.window != 13), "{hits:?}");
        assert_eq!(index.search("parse_", 0, Some(1), 10).unwrap().len(), 1);
        assert_eq!(index.search("ab", 0, None, 10).unwrap(), []);
        assert_eq!(index.search("parse", 0, None, 0).unwrap(), []);
        assert_eq!(index.search("größe ∑∑∑", 0, None, 5).unwrap(), []);
    }
}
