//! The walk over corpus directories: finds source files and the repositories they belong to.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use super::corpus::{CorpusError, CorpusFile, DEPTH_MAX, ENTRIES_MAX, FILE_BYTES_MAX, Repository};
use super::language::Language;
use super::repository::{Manifests, classify};

/// Directories that hold what tools made, not source.
const SKIPPED: [&str; 2] = ["target", "node_modules"];

/// What has been found so far.
#[derive(Debug, Default)]
pub(super) struct Walk {
    pub(super) repositories: Vec<Repository>,
    pub(super) files: Vec<CorpusFile>,
    pub(super) files_left_out: usize,
    entries: usize,
    seen: HashSet<PathBuf>,
    names: HashSet<String>,
}

/// A repository while its files are still being found.
struct Draft {
    root: PathBuf,
    name: String,
    manifests: Manifests,
    bytes: BTreeMap<Language, u64>,
    files: Vec<CorpusFile>,
}

/// A directory still to be visited.
struct Pending {
    path: PathBuf,
    depth: usize,
    draft: usize,
    in_workspace: bool,
}

impl Walk {
    /// Adds one corpus directory. One that was already walked, or lies in one that was, adds
    /// nothing.
    pub(super) fn directory(&mut self, directory: &Path) -> Result<(), CorpusError> {
        let unreadable = |source| CorpusError::Unreadable { path: directory.into(), source };
        let root = directory.canonicalize().map_err(unreadable)?;
        if !root.is_dir() {
            return Err(CorpusError::NotADirectory { path: directory.into() });
        }
        let top = root.file_name().map_or_else(|| "root".into(), |n| n.to_string_lossy().into());
        let mut drafts = vec![Draft::new(root.clone(), top, Manifests::default())];
        let mut pending =
            vec![Pending { path: root.clone(), depth: 0, draft: 0, in_workspace: false }];
        while let Some(mut at) = pending.pop() {
            if !self.seen.insert(at.path.clone()) {
                continue;
            }
            let entries = match sorted_entries(&at.path) {
                Ok(entries) => entries,
                Err(source) if at.depth == 0 => return Err(unreadable(source)),
                Err(_) => {
                    self.files_left_out += 1;
                    continue;
                }
            };
            let names: Vec<String> = entries.iter().map(|entry| entry.name.clone()).collect();
            let manifests = Manifests::of_directory(&at.path, &names);
            if !at.in_workspace && (manifests.package || manifests.workspace) {
                if at.depth == 0 {
                    drafts[0].manifests = manifests;
                } else {
                    let name = relative(&root, &at.path);
                    drafts.push(Draft::new(at.path.clone(), name, manifests));
                    at.draft = drafts.len() - 1;
                }
                at.in_workspace = manifests.workspace;
            }
            self.visit(&at, entries, &mut drafts[at.draft], &mut pending);
        }
        self.finish(drafts);
        Ok(())
    }

    /// Takes the source files of one directory and queues its subdirectories, last name first
    /// so that the first is visited next.
    fn visit(
        &mut self,
        at: &Pending,
        entries: Vec<Entry>,
        draft: &mut Draft,
        pending: &mut Vec<Pending>,
    ) {
        let mut below = Vec::new();
        for entry in entries {
            self.entries += 1;
            if self.entries > ENTRIES_MAX {
                self.files_left_out += 1;
                continue;
            }
            let path = at.path.join(&entry.name);
            if entry.is_directory {
                let skipped = entry.name.starts_with('.') || SKIPPED.contains(&entry.name.as_str());
                if !skipped && at.depth < DEPTH_MAX {
                    below.push(Pending {
                        path,
                        depth: at.depth + 1,
                        draft: at.draft,
                        in_workspace: at.in_workspace,
                    });
                }
                continue;
            }
            let Some(language) = Language::of_path(&path) else {
                continue;
            };
            match std::fs::metadata(&path).map(|meta| meta.len()) {
                Ok(bytes @ 1..=FILE_BYTES_MAX) => {
                    *draft.bytes.entry(language).or_default() += bytes;
                    let relative = relative(&draft.root, &path);
                    draft.files.push(CorpusFile { path, relative, repository: 0, language, bytes });
                }
                Ok(0) => {}
                Ok(_) | Err(_) => self.files_left_out += 1,
            }
        }
        pending.extend(below.into_iter().rev());
    }

    /// Turns drafts with files into repositories with unique names.
    fn finish(&mut self, drafts: Vec<Draft>) {
        for draft in drafts {
            let Ok(slice) = classify(draft.manifests, &draft.bytes) else {
                continue;
            };
            if draft.files.is_empty() {
                continue;
            }
            let mut name = draft.name.clone();
            let mut copy = 2;
            while !self.names.insert(name.clone()) {
                name = format!("{}@{copy}", draft.name);
                copy += 1;
            }
            let repository = self.repositories.len();
            self.repositories.push(Repository {
                name,
                root: draft.root,
                slice,
                files_found: draft.files.len(),
                bytes_found: draft.bytes.values().sum(),
            });
            let owned = draft.files.into_iter().map(|file| CorpusFile { repository, ..file });
            self.files.extend(owned);
        }
    }
}

impl Draft {
    fn new(root: PathBuf, name: String, manifests: Manifests) -> Self {
        Self { root, name, manifests, bytes: BTreeMap::new(), files: Vec::new() }
    }
}

struct Entry {
    name: String,
    is_directory: bool,
}

/// The files and directories in `path` by name; links and names that are no text are left out.
fn sorted_entries(path: &Path) -> std::io::Result<Vec<Entry>> {
    let mut entries: Vec<Entry> = std::fs::read_dir(path)?
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let kind = entry.file_type().ok()?;
            let name = entry.file_name().into_string().ok()?;
            (kind.is_dir() || kind.is_file()).then(|| Entry { name, is_directory: kind.is_dir() })
        })
        .collect();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// `path` below `root`, its parts joined by `/`.
fn relative(root: &Path, path: &Path) -> String {
    let below = path.strip_prefix(root).unwrap_or(path);
    let parts: Vec<_> = below.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::super::corpus::{Corpus, CorpusLimits};
    use super::*;

    fn write(root: &Path, name: &str, text: &str) {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn files_belong_to_the_outermost_workspace_else_to_the_nearest_package() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        write(root, "ws/Cargo.toml", "[workspace]\nmembers = [\"a\", \"b\"]");
        write(root, "ws/a/Cargo.toml", "[package]");
        write(root, "ws/a/src/lib.rs", "fn a() {}");
        write(root, "solo/package.json", "{}");
        write(root, "solo/main.js", "function b() {}");
        write(root, "solo/node_modules/x/index.js", "skipped");
        write(root, "solo/.hidden/index.js", "skipped");
        write(root, "loose.py", "def c(): pass");
        write(root, "notes.txt", "not source");
        let corpus = Corpus::gather(&[root.into()], CorpusLimits::default()).unwrap();
        let found: Vec<_> = corpus
            .files
            .iter()
            .map(|f| {
                let repository = &corpus.repositories[f.repository];
                let name = if repository.root == root.canonicalize().unwrap() {
                    "top"
                } else {
                    &repository.name
                };
                format!("{name}|{}|{}", f.relative, repository.slice)
            })
            .collect();
        assert_eq!(
            found,
            [
                "top|loose.py|backend/python/small",
                "solo|main.js|frontend/javascript/small",
                "ws|a/src/lib.rs|monorepo/rust/small",
            ]
        );
    }

    #[test]
    fn a_corpus_without_source_names_the_directory_and_what_would_be_right() {
        let dir = tempfile::tempdir().unwrap();
        let empty = Corpus::gather(&[dir.path().into()], CorpusLimits::default()).unwrap_err();
        assert!(empty.to_string().contains(&dir.path().display().to_string()), "{empty}");
        assert!(empty.to_string().contains("name a checkout"), "{empty}");
        let missing = dir.path().join("missing");
        let error = Corpus::gather(&[missing], CorpusLimits::default()).unwrap_err().to_string();
        assert!(error.contains("missing") && error.contains("cannot read"), "{error}");
        assert!(Corpus::gather(&[], CorpusLimits::default()).is_err());
    }

    #[test]
    fn limits_hold_and_a_directory_named_twice_counts_once() {
        let dir = tempfile::tempdir().unwrap();
        for at in 0..20 {
            write(dir.path(), &format!("f{at:02}.rs"), "fn f() {}");
        }
        let twice = [dir.path().to_path_buf(), dir.path().to_path_buf()];
        let all = Corpus::gather(&twice, CorpusLimits::default()).unwrap();
        assert_eq!(all.files.len(), 20);
        let some = Corpus::gather(&twice, CorpusLimits { files: 7, bytes: 1 << 20 }).unwrap();
        assert_eq!((some.files.len(), some.files_left_out), (7, 13));
        let few = Corpus::gather(&twice, CorpusLimits { files: 7, bytes: 20 }).unwrap();
        assert_eq!(few.files.len(), 2);
    }
}
