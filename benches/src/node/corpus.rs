//! Which source files the node serves: a bounded, deterministic walk and a fair choice.
//!
//! A checkout alone may be small, so the default corpus adds the sources of every package the
//! build downloaded. All of those would be too many, and the first few thousand by name would be
//! one slice only; so whole repositories are chosen in turn for the slice that has the fewest
//! files so far, in an order fixed by a hash of their name.
//!
//! Promise: the same directories give the same files in the same order. Nothing outside the
//! given directories is read, links are not followed.
//! Bounds: [`ENTRIES_MAX`] directory entries, [`DEPTH_MAX`] levels, [`FILE_BYTES_MAX`] a file,
//! [`CorpusLimits`] for the chosen files.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use lens_model::Slice;
use thiserror::Error;

use super::fold;
use super::language::Language;
use super::walk::Walk;
use crate::numbers::fnv1a;

/// Directory entries looked at in one walk; the rest is left out and counted.
pub const ENTRIES_MAX: usize = 400_000;

/// Levels below a corpus directory.
pub const DEPTH_MAX: usize = 32;

/// Largest file that is indexed; larger ones are generated or data.
pub const FILE_BYTES_MAX: u64 = 512 << 10;

/// Files chosen when nothing else is said.
pub const FILES_DEFAULT: usize = 3_000;

/// Bytes chosen when nothing else is said.
pub const BYTES_DEFAULT: u64 = 36 << 20;

/// One repository may take at most this part of all files, so that no single one crowds out
/// the others.
const REPOSITORY_SHARE: usize = 8;

/// Files one repository may always have.
const REPOSITORY_FILES_MIN: usize = 50;

/// Why there is nothing to serve.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CorpusError {
    /// A directory cannot be read.
    #[error("cannot read the corpus directory {}: {source}; name a directory of source files you may read", path.display())]
    Unreadable {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// What was named is not a directory.
    #[error("the corpus {} is not a directory; name the directory that holds the source files", path.display())]
    NotADirectory {
        /// What was named.
        path: PathBuf,
    },
    /// The directories hold no source.
    #[error(
        "no source files under {directories}: looked for .rs .c .h .cpp .py .ts .js .go .java .rb files of 1 byte to 512 KiB, outside target, node_modules and hidden directories; name a checkout"
    )]
    Empty {
        /// The directories, separated by commas.
        directories: String,
    },
    /// No directory was named.
    #[error("no corpus directory was named; give at least one, such as --corpus .")]
    None,
}

/// How much of the found source is chosen.
#[derive(Clone, Copy, Debug)]
pub struct CorpusLimits {
    /// Files at most.
    pub files: usize,
    /// Bytes at most.
    pub bytes: u64,
}

impl Default for CorpusLimits {
    fn default() -> Self {
        Self { files: FILES_DEFAULT, bytes: BYTES_DEFAULT }
    }
}

/// A package directory and what it counts as.
#[derive(Clone, Debug)]
pub struct Repository {
    /// A name unique in the corpus.
    pub name: String,
    /// Where it is.
    pub root: PathBuf,
    /// The slice it belongs to.
    pub slice: Slice,
    /// Source files found in it, chosen or not.
    pub files_found: usize,
    /// Bytes of source found in it, chosen or not.
    pub bytes_found: u64,
}

/// A file that was chosen, not read yet.
#[derive(Clone, Debug)]
pub struct CorpusFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its path within its repository, with `/`.
    pub relative: String,
    /// Its repository, an index into [`Corpus::repositories`].
    pub repository: usize,
    /// The language it is in.
    pub language: Language,
    /// Its size when it was found.
    pub bytes: u64,
}

/// The chosen files and the repositories they come from.
#[derive(Clone, Debug)]
pub struct Corpus {
    /// Repositories with at least one chosen file.
    pub repositories: Vec<Repository>,
    /// The files, repository by repository.
    pub files: Vec<CorpusFile>,
    /// Source files that were found but not chosen, or could not be looked at.
    pub files_left_out: usize,
}

impl Corpus {
    /// The directories served by default: the checkout, and the sources of downloaded packages
    /// under `$CARGO_HOME/registry/src` (default `~/.cargo`), as far as they exist.
    pub fn default_dirs(checkout: &Path) -> Vec<PathBuf> {
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
        let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home);
        let mut directories = vec![checkout.to_path_buf()];
        if let Some(registries) = cargo.map(|cargo| cargo.join("registry").join("src"))
            && let Ok(entries) = std::fs::read_dir(registries)
        {
            let mut found: Vec<PathBuf> = entries
                .filter_map(|entry| entry.ok().map(|entry| entry.path()))
                .filter(|path| path.is_dir())
                .collect();
            found.sort();
            directories.append(&mut found);
        }
        directories
    }

    /// Walks the directories and chooses files within the limits.
    ///
    /// # Errors
    /// [`CorpusError`] when no directory was named, one cannot be read, or none holds source.
    pub fn gather(directories: &[PathBuf], limits: CorpusLimits) -> Result<Self, CorpusError> {
        if directories.is_empty() {
            return Err(CorpusError::None);
        }
        let mut walk = Walk::default();
        let mut first_directory_repositories = 0;
        for (at, directory) in directories.iter().enumerate() {
            walk.directory(directory)?;
            if at == 0 {
                first_directory_repositories = walk.repositories.len();
            }
        }
        let Walk { mut repositories, files, files_left_out, .. } = walk;
        if files.is_empty() {
            let names: Vec<_> = directories.iter().map(|d| d.display().to_string()).collect();
            return Err(CorpusError::Empty { directories: names.join(", ") });
        }
        fold::fold_rare(&mut repositories);
        let found = files.len();
        let chosen = choose(&repositories, files, first_directory_repositories, limits);
        let mut corpus = Self::of_chosen(repositories, chosen);
        corpus.files_left_out = files_left_out + found - corpus.files.len();
        Ok(corpus)
    }

    /// Keeps only the repositories that have files, renumbered.
    fn of_chosen(all: Vec<Repository>, mut files: Vec<CorpusFile>) -> Self {
        let mut repositories = Vec::new();
        let mut renumbered = HashMap::new();
        for file in &mut files {
            let old = file.repository;
            file.repository = *renumbered.entry(old).or_insert_with(|| {
                repositories.push(all[old].clone());
                repositories.len() - 1
            });
        }
        Self { repositories, files, files_left_out: 0 }
    }

    /// The distinct slices, in order.
    pub fn slices(&self) -> Vec<Slice> {
        let mut slices: Vec<_> = self.repositories.iter().map(|r| r.slice.clone()).collect();
        slices.sort();
        slices.dedup();
        slices
    }
}

/// Chooses files: the first directory's repositories whole, then others in turn by slice.
fn choose(
    repositories: &[Repository],
    files: Vec<CorpusFile>,
    first: usize,
    limits: CorpusLimits,
) -> Vec<CorpusFile> {
    let per_repository = (limits.files / REPOSITORY_SHARE).max(REPOSITORY_FILES_MIN);
    let mut by_repository: Vec<Vec<CorpusFile>> = vec![Vec::new(); repositories.len()];
    for file in files {
        by_repository[file.repository].push(file);
    }
    // Repositories still to be taken, per slice, the next one last.
    let mut waiting: BTreeMap<&Slice, Vec<usize>> = BTreeMap::new();
    for (at, repository) in repositories.iter().enumerate().skip(first) {
        waiting.entry(&repository.slice).or_default().push(at);
    }
    for queue in waiting.values_mut() {
        queue.sort_by_key(|at| std::cmp::Reverse(fnv1a(repositories[*at].name.bytes())));
    }

    let mut chosen = Vec::new();
    let mut bytes = 0;
    let mut files_of: HashMap<&Slice, usize> = HashMap::new();
    let mut take = |at: usize, cap: usize, files_of: &mut HashMap<_, usize>| {
        for file in std::mem::take(&mut by_repository[at]).into_iter().take(cap) {
            if chosen.len() >= limits.files || bytes + file.bytes > limits.bytes {
                return false;
            }
            bytes += file.bytes;
            *files_of.entry(&repositories[at].slice).or_default() += 1;
            chosen.push(file);
        }
        true
    };
    let mut room = (0..first).all(|at| take(at, usize::MAX, &mut files_of));
    while room {
        let poorest = waiting
            .iter()
            .filter(|(_, queue)| !queue.is_empty())
            .min_by_key(|(slice, _)| files_of.get(*slice).copied().unwrap_or(0))
            .map(|(slice, _)| *slice);
        let Some(slice) = poorest else { break };
        let Some(at) = waiting.get_mut(slice).and_then(Vec::pop) else {
            break;
        };
        room = take(at, per_repository, &mut files_of);
    }
    chosen
}
