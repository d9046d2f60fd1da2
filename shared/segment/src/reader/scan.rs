//! Which files of a directory are segments, by name. Opening decides.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use lens_model::limits::AGENT_SEGMENTS_MAX;

use crate::create::SUFFIX;

/// Directory entries looked at in one scan: a full directory costs time, never memory.
const ENTRIES_MAX: usize = 65_536;

/// Why a directory was not scanned.
#[derive(Debug, thiserror::Error)]
#[error("{path}: cannot list the segment directory: {source}")]
#[non_exhaustive]
pub struct ScanError {
    /// The directory.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// What a scan found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Scan {
    /// Files named like segments, sorted; at most [`AGENT_SEGMENTS_MAX`].
    pub paths: Vec<PathBuf>,
    /// Files named like segments beyond that, counted.
    pub left_out: usize,
    /// The directory has more entries than one scan looks at: `left_out` is a lower bound.
    pub cut_short: bool,
}

/// Lists the segments in `dir`. A directory that does not exist yet has none.
///
/// The first [`AGENT_SEGMENTS_MAX`] by name are listed, so that repeated scans of an overfull
/// directory agree.
///
/// # Errors
/// [`ScanError`] when the directory cannot be read.
pub fn scan(dir: &Path) -> Result<Scan, ScanError> {
    let failed = |source| ScanError { path: dir.to_owned(), source };
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Scan::default()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Scan::default();
    for (seen, entry) in entries.enumerate() {
        if seen >= ENTRIES_MAX {
            found.cut_short = true;
            break;
        }
        let name = entry.map_err(failed)?.file_name();
        if is_segment(&name) {
            found.paths.push(dir.join(name));
        }
    }
    found.paths.sort_unstable();
    found.left_out = found.paths.len().saturating_sub(AGENT_SEGMENTS_MAX);
    found.paths.truncate(AGENT_SEGMENTS_MAX);
    Ok(found)
}

fn is_segment(name: &OsStr) -> bool {
    let bytes = name.as_encoded_bytes();
    bytes.ends_with(SUFFIX.as_bytes()) && !bytes.starts_with(b".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_is_sorted_and_bounded_at_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        for at in 0..AGENT_SEGMENTS_MAX + 3 {
            std::fs::write(dir.path().join(format!("{at:04}.lens")), b"").unwrap();
        }
        for other in [".0000.lens", ".x.lens.tmp", "0000.lens.tmp", "readme"] {
            std::fs::write(dir.path().join(other), b"").unwrap();
        }
        let found = scan(dir.path()).unwrap();
        assert_eq!((found.paths.len(), found.left_out), (AGENT_SEGMENTS_MAX, 3));
        assert!(found.paths.is_sorted() && found.paths[0].ends_with("0000.lens"));
    }

    #[test]
    fn a_missing_directory_has_no_segments_and_a_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(scan(&dir.path().join("none")).unwrap(), Scan::default());
        let file = dir.path().join("file");
        std::fs::write(&file, b"").unwrap();
        assert!(scan(&file).is_err());
    }
}
