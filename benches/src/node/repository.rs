//! What a repository is, and which slice it belongs to.
//!
//! A repository is a directory with a package manifest: the outermost workspace root above a
//! file, else the nearest package directory, else the corpus directory itself.
//!
//! Its slice is `repo_type/language/size`:
//! * `repo_type`: `monorepo` when it is a workspace of several members or carries manifests of
//!   several kinds, else `frontend` when its manifest is `package.json`, else `backend`.
//! * `language`: the one with more than half of the bytes, else `mixed`.
//! * `size`: bytes of source, `small` under [`SMALL_BYTES_MAX`], `medium` under
//!   [`MEDIUM_BYTES_MAX`], else `large`.

use std::collections::BTreeMap;
use std::path::Path;

use lens_model::{ParseSeriesError, Slice};

use super::language::Language;

/// Source bytes from which a repository is no longer small.
pub(super) const SMALL_BYTES_MAX: u64 = 128 << 10;

/// Source bytes from which a repository is large.
pub(super) const MEDIUM_BYTES_MAX: u64 = 1 << 20;

/// Largest manifest that is read to see whether it is a workspace.
const MANIFEST_BYTES_MAX: u64 = 1 << 20;

/// Files that make a directory a package.
const PACKAGE_MANIFESTS: [&str; 8] = [
    "Cargo.toml",
    "package.json",
    "pyproject.toml",
    "setup.py",
    "go.mod",
    "pom.xml",
    "build.gradle",
    "Gemfile",
];

/// Files that make a directory a workspace whatever they say.
const WORKSPACE_MANIFESTS: [&str; 3] = ["pnpm-workspace.yaml", "lerna.json", "go.work"];

/// What the manifests of a directory say about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Manifests {
    /// It is a package of its own.
    pub package: bool,
    /// It is the root of several packages.
    pub workspace: bool,
    /// Its manifest is `package.json`.
    pub frontend: bool,
    /// It has manifests of several kinds.
    pub several_kinds: bool,
}

impl Manifests {
    /// Reads what `names`, the entries of `directory`, say. A manifest that cannot be read
    /// counts as present and as no workspace.
    pub(super) fn of_directory(directory: &Path, names: &[String]) -> Self {
        let has = |name: &str| names.iter().any(|entry| entry == name);
        let read = |name: &str| {
            let path = directory.join(name);
            let size = std::fs::metadata(&path).map_or(u64::MAX, |meta| meta.len());
            if size > MANIFEST_BYTES_MAX {
                return String::new();
            }
            std::fs::read_to_string(path).unwrap_or_default()
        };
        let kinds = PACKAGE_MANIFESTS.iter().filter(|name| has(name)).count();
        // setup.py beside pyproject.toml is one package described twice.
        let twice = usize::from(has("setup.py") && has("pyproject.toml"));
        let workspace = WORKSPACE_MANIFESTS.iter().any(|name| has(name))
            || (has("Cargo.toml") && is_cargo_workspace(&read("Cargo.toml")))
            || (has("package.json") && is_npm_workspace(&read("package.json")));
        Self {
            package: kinds > 0,
            workspace,
            frontend: has("package.json"),
            several_kinds: kinds - twice > 1,
        }
    }

    /// The first part of the slice.
    pub(super) const fn repo_type(self) -> &'static str {
        if self.workspace || self.several_kinds {
            "monorepo"
        } else if self.frontend {
            "frontend"
        } else {
            "backend"
        }
    }
}

/// Whether a Cargo manifest has a `[workspace]` with several members or a pattern of them.
fn is_cargo_workspace(manifest: &str) -> bool {
    let Some((_, section)) = manifest.split_once("[workspace]") else {
        return false;
    };
    let section = section.split("\n[").next().unwrap_or(section);
    let Some((_, members)) = section.split_once("members") else {
        return false;
    };
    let Some((_, list)) = members.split_once('[') else {
        return false;
    };
    let list = list.split(']').next().unwrap_or(list);
    list.contains('*') || list.matches('"').count() >= 4
}

/// Whether a `package.json` names several workspaces or a pattern of them.
fn is_npm_workspace(manifest: &str) -> bool {
    let Ok(json) = serde_json::from_str::<serde_json::Value>(manifest) else {
        return false;
    };
    let workspaces = &json["workspaces"];
    let list = workspaces.as_array().or_else(|| workspaces["packages"].as_array());
    list.is_some_and(|list| {
        list.len() > 1 || list.iter().any(|entry| entry.as_str().is_some_and(|e| e.contains('*')))
    })
}

/// The slice of a repository with these manifests and these bytes of source per language.
///
/// # Errors
/// None in practice, as every part is a constant of this module; kept so that nothing panics.
pub(super) fn classify(
    manifests: Manifests,
    bytes_by_language: &BTreeMap<Language, u64>,
) -> Result<Slice, ParseSeriesError> {
    let bytes: u64 = bytes_by_language.values().sum();
    let language = bytes_by_language
        .iter()
        .find(|(_, share)| **share * 2 > bytes)
        .map_or("mixed", |(language, _)| language.as_str());
    let size = match bytes {
        0..SMALL_BYTES_MAX => "small",
        SMALL_BYTES_MAX..MEDIUM_BYTES_MAX => "medium",
        _ => "large",
    };
    Slice::new(manifests.repo_type(), language, size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workspace_of_several_members_is_a_monorepo_and_of_one_is_not() {
        assert!(is_cargo_workspace("[workspace]\nmembers = [\n \"a\",\n \"b\",\n]\n"));
        assert!(is_cargo_workspace("[package]\n[workspace]\nmembers = [\"crates/*\"]"));
        assert!(!is_cargo_workspace("[workspace]\nmembers = [\"only\"]"));
        assert!(!is_cargo_workspace("[workspace]\n[dependencies]\nmembers = [\"a\", \"b\"]"));
        assert!(is_npm_workspace(r#"{"workspaces": {"packages": ["a", "b"]}}"#));
        assert!(!is_npm_workspace(r#"{"workspaces": ["a"]}"#));
        assert!(!is_npm_workspace("not json"));
    }

    #[test]
    fn language_needs_more_than_half_and_size_follows_the_bytes() {
        let slice = |bytes: &[(Language, u64)]| {
            classify(Manifests::default(), &bytes.iter().copied().collect()).unwrap().to_string()
        };
        assert_eq!(slice(&[(Language::Rust, SMALL_BYTES_MAX - 1)]), "backend/rust/small");
        assert_eq!(slice(&[(Language::C, SMALL_BYTES_MAX)]), "backend/c/medium");
        assert_eq!(slice(&[(Language::Go, MEDIUM_BYTES_MAX)]), "backend/go/large");
        assert_eq!(slice(&[(Language::Go, 5), (Language::C, 5)]), "backend/mixed/small");
    }
}
