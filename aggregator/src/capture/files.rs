//! A capture on disk: what is known of it, and its counts in the forms that other tools read.

use std::io;
use std::path::{Path, PathBuf};

use lens_journal::{read_whole, replace_whole};
use lens_model::limits::CAPTURE_FILE_BYTES_MAX;
use lens_model::{Nanos, UnixNanos};
use lens_service::env::Env;
use tracing::warn;

use super::grid::{counted, on_grid};
use super::heat::heat;
use super::parquet::parquet;
use super::{Name, Step, Summary};
use crate::export::hlog;

/// Grid on which the steps of several nodes are merged in the interval log: the default step.
const GRID: Nanos = Nanos::from_millis(100);

/// A form of the counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An HdrHistogram interval log, one tag a series, all nodes together.
    Hlog,
    /// Parquet, a row a bucket, step, series and node.
    Parquet,
    /// JSON for heat maps.
    Heat,
}

impl Format {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Hlog, Self::Parquet, Self::Heat];

    /// The name used in addresses and files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hlog => "hlog",
            Self::Parquet => "parquet",
            Self::Heat => "heat",
        }
    }

    /// What a browser is told it is.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Hlog => "text/plain; charset=utf-8",
            Self::Parquet => "application/vnd.apache.parquet",
            Self::Heat => "application/json",
        }
    }
}

/// The files of one capture, or why there are none.
pub(super) struct Files(io::Result<Vec<(Format, Vec<u8>)>>);

impl Files {
    /// Writes the counts in every form, and counts the samples.
    pub(super) fn of(names: &[Name], steps: &[Step], summary: &mut Summary) -> Self {
        summary.samples = counted(names, steps).map(|(.., block)| block.total()).sum();
        Self(render(names, steps, summary))
    }
}

fn render(names: &[Name], steps: &[Step], summary: &Summary) -> io::Result<Vec<(Format, Vec<u8>)>> {
    let log = log(names, steps, summary.from)?;
    let table = parquet(names, steps).map_err(io::Error::other)?;
    let heat = serde_json::to_vec(&heat(names, steps, summary.from, summary.to))?;
    Ok(vec![(Format::Hlog, log), (Format::Parquet, table), (Format::Heat, heat)])
}

/// All nodes of a series together, by the step of the grid that holds the middle of theirs.
fn log(names: &[Name], steps: &[Step], from: UnixNanos) -> io::Result<Vec<u8>> {
    let mut intervals = Vec::new();
    on_grid(names, steps, GRID, |t, key, counts| {
        intervals.push((t, GRID, key.to_string(), counts.to_sparse()));
    });
    hlog::write(from, &intervals).map(String::into_bytes)
}

fn path(dir: &Path, id: u64, ending: &str) -> PathBuf {
    dir.join(format!("{id:016x}.{ending}"))
}

/// Writes everything; what is known of it last, so that what is known has its files.
pub(super) fn write(env: &Env, dir: &Path, summary: &mut Summary, files: &Files) -> io::Result<()> {
    let files = files.0.as_ref().map_err(|error| io::Error::other(error.to_string()))?;
    env.disk.create_dir_all(dir)?;
    summary.files.clear();
    for (format, bytes) in files {
        replace_whole(&*env.disk, &path(dir, summary.id, format.as_str()), bytes)?;
        summary.files.push((format.as_str().to_owned(), bytes.len() as u64));
    }
    let known = serde_json::to_vec(summary)?;
    replace_whole(&*env.disk, &path(dir, summary.id, "json"), &known)
}

/// A file's bytes.
pub(super) fn read(env: &Env, dir: &Path, id: u64, format: Format) -> io::Result<Vec<u8>> {
    read_whole(&*env.disk, &path(dir, id, format.as_str()), CAPTURE_FILE_BYTES_MAX)
}

/// Removes one; what is known of it first.
pub(super) fn remove(env: &Env, dir: &Path, summary: &Summary) {
    let endings = ["json", "hlog", "parquet", "heat"];
    for ending in endings {
        match env.disk.remove(&path(dir, summary.id, ending)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn!(%error, id = %summary.name(), "a file of an old capture cannot be removed");
            }
            _ => {}
        }
    }
}

/// What is known of every capture in a directory, oldest first. One that cannot be read is passed
/// over and named in the log.
pub(super) fn load(env: &Env, dir: &Path) -> Vec<Summary> {
    let Ok(names) = env.disk.list(dir) else { return Vec::new() };
    let mut kept = Vec::new();
    for name in names.iter().filter(|name| name.as_encoded_bytes().ends_with(b".json")) {
        let file = dir.join(name);
        let read = read_whole(&*env.disk, &file, CAPTURE_FILE_BYTES_MAX);
        match read.and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::other)) {
            Ok(summary) => kept.push(summary),
            Err(error) => warn!(%error, file = %file.display(), "not read as a capture"),
        }
    }
    kept.sort_by_key(|summary: &Summary| summary.id);
    kept
}
