//! Keeps the number of slices reasonable by folding the rare ones.
//!
//! A slice with a handful of files never gathers enough samples for a judgement and only
//! lengthens every table. The rule, applied in this order:
//! 1. in a corpus of at least [`CORPUS_FILES_MIN`] files, a slice with fewer than
//!    [`SLICE_FILES_MIN`] loses its language: `backend/ruby/small` → `backend/mixed/small`;
//! 2. one still as rare becomes `backend/mixed/small`;
//! 3. while there are more than [`SLICES_MAX`], the rarest becomes `backend/mixed/small`.
//!
//! A small corpus is left alone but for rule 3, so that two packages stay two slices.

use std::collections::BTreeMap;

use lens_model::Slice;

use super::corpus::Repository;

/// Slices at most.
pub(super) const SLICES_MAX: usize = 10;

/// Files below which a slice is rare.
pub(super) const SLICE_FILES_MIN: usize = 25;

/// Files from which rare slices are folded at all.
pub(super) const CORPUS_FILES_MIN: usize = 500;

/// Applies the rule to the repositories' slices.
pub(super) fn fold_rare(repositories: &mut [Repository]) {
    let Ok(catch_all) = Slice::new("backend", "mixed", "small") else {
        return;
    };
    let files: usize = repositories.iter().map(|repository| repository.files_found).sum();
    if files >= CORPUS_FILES_MIN {
        refold(repositories, |slice| {
            Slice::new(slice.repo_type(), "mixed", slice.size()).unwrap_or_else(|_| slice.clone())
        });
        refold(repositories, |_| catch_all.clone());
    }
    loop {
        let counts = files_by_slice(repositories);
        let rarest =
            counts.iter().filter(|(slice, _)| **slice != catch_all).min_by_key(|(_, n)| **n);
        match rarest {
            Some((rarest, _)) if counts.len() > SLICES_MAX => {
                let rarest = rarest.clone();
                for repository in repositories.iter_mut().filter(|r| r.slice == rarest) {
                    repository.slice = catch_all.clone();
                }
            }
            _ => return,
        }
    }
}

fn files_by_slice(repositories: &[Repository]) -> BTreeMap<Slice, usize> {
    let mut counts = BTreeMap::new();
    for repository in repositories {
        *counts.entry(repository.slice.clone()).or_insert(0) += repository.files_found;
    }
    counts
}

/// Gives every repository of a rare slice the slice that `to` names.
fn refold(repositories: &mut [Repository], to: impl Fn(&Slice) -> Slice) {
    let counts = files_by_slice(repositories);
    for repository in repositories {
        if counts.get(&repository.slice).is_some_and(|files| *files < SLICE_FILES_MIN) {
            repository.slice = to(&repository.slice);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(slice: &str, files: usize) -> Repository {
        Repository {
            name: slice.into(),
            root: "/".into(),
            slice: slice.parse().unwrap(),
            files_found: files,
            bytes_found: 0,
        }
    }

    #[test]
    fn rare_slices_of_a_large_corpus_lose_their_language_first() {
        let mut all = vec![
            repository("backend/rust/small", CORPUS_FILES_MIN),
            repository("monorepo/ruby/small", SLICE_FILES_MIN - 1),
            repository("monorepo/go/small", 1),
            repository("frontend/javascript/large", 1),
        ];
        fold_rare(&mut all);
        let slices: Vec<_> = all.iter().map(|r| r.slice.to_string()).collect();
        assert_eq!(
            slices,
            [
                "backend/rust/small",
                "monorepo/mixed/small",
                "monorepo/mixed/small",
                "backend/mixed/small"
            ]
        );
    }

    #[test]
    fn a_small_corpus_keeps_its_slices_up_to_the_bound() {
        let mut two = vec![repository("backend/rust/small", 2), repository("backend/c/small", 1)];
        fold_rare(&mut two);
        assert_ne!(two[0].slice, two[1].slice);
        let mut many: Vec<_> =
            (0..40).map(|at| repository(&format!("backend/l{at}/small"), at + 1)).collect();
        fold_rare(&mut many);
        assert_eq!(files_by_slice(&many).len(), SLICES_MAX);
    }
}
