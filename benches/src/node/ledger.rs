//! The node's own count of what it recorded, and the file that keeps it when the node is killed.
//!
//! A slice has one page of eight numbers in the file for each arm the node serves. It is written when a query begins to be
//! recorded and when it has been, never between, so that no stage's time has a system call in it.
//! Promise: the file of a killed node bounds the truth. With `n` queries on the way in a slice, for
//! each of its counters: kept ≤ recorded ≤ kept + `n`, and `n` is 0 for a node that was idle.
//! Why a plain write and no mapping: what one `pwrite` was given is the kernel's, whatever becomes
//! of the process, and 64 bytes within one page are not written by halves. A host that loses its
//! power loses the file, as it does the segment.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lens_model::{Arm, Slice, Stage};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Bytes of a slice's page: queries begun and ended, four stages, requests answered and failed.
const PAGE_BYTES: usize = 8 * 8;

/// Longest ledger that is read, bytes: a thousand slices are well under 1 MB.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// What the node counted itself, beside the recorder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// The node's instance name.
    pub instance: String,
    /// Samples per series that has any.
    pub series: Vec<LedgerSeries>,
    /// Requests per slice that had any.
    pub requests: Vec<LedgerRequests>,
}

/// Samples recorded into one series.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerSeries {
    /// The slice.
    pub slice: Slice,
    /// The stage.
    pub stage: Stage,
    /// The arm.
    pub arm: Arm,
    /// How many samples.
    pub recorded: u64,
}

/// Requests of one slice by outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerRequests {
    /// The slice.
    pub slice: Slice,
    /// The arm.
    pub arm: Arm,
    /// Answered.
    pub ok: u64,
    /// Failed by the node's fault: a stage failed, or it was overloaded.
    pub error: u64,
}

/// Why a ledger is not kept, or cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The file cannot be used.
    #[error("ledger {}: cannot {doing}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not a ledger.
    #[error("ledger {}: {what}; give the file that a node was started with", path.display())]
    Senseless {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

/// The counters of a slice at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// By stage: A, B, C, end to end.
    pub(super) samples: [u64; 4],
    pub(super) ok: u64,
    pub(super) error: u64,
}

/// The first line of the file.
#[derive(Serialize, Deserialize)]
struct Head {
    instance: String,
    /// A page each, in this order.
    pages: Vec<(Arm, Slice)>,
}

/// Makes the pages of a ledger.
pub(super) struct Keeper {
    file: Option<Arc<File>>,
    pages_at: u64,
    pages: Vec<(Arm, Slice)>,
}

/// One slice's page, in the file where there is one.
pub(super) struct Page {
    file: Option<Arc<File>>,
    at: u64,
    /// Queries begun and ended. Held over the write, so that the last page written is the newest.
    queries: Mutex<(u64, u64)>,
}

impl Keeper {
    /// Creates the file, with a page for each slice of each arm, every page zero.
    pub(super) fn create(
        path: Option<&Path>,
        instance: &str,
        arms: &[Arm],
        slices: &[Slice],
    ) -> Result<Self, LedgerError> {
        let own = |arm: &Arm| slices.iter().map(|slice| (*arm, slice.clone())).collect::<Vec<_>>();
        let pages: Vec<_> = arms.iter().flat_map(own).collect();
        let Some(path) = path else {
            return Ok(Self { file: None, pages_at: 0, pages });
        };
        let failed = |doing| move |source| LedgerError::Io { path: path.to_owned(), doing, source };
        let head = Head { instance: instance.into(), pages: pages.clone() };
        let mut head =
            serde_json::to_vec(&head).map_err(io::Error::other).map_err(failed("write it"))?;
        head.push(b'\n');
        // A page never crosses a page of memory.
        head.resize(head.len().next_multiple_of(PAGE_BYTES), b'\n');
        let file = File::create(path).map_err(failed("create it"))?;
        let pages_at = head.len() as u64;
        file.set_len(pages_at + (pages.len() * PAGE_BYTES) as u64).map_err(failed("size it"))?;
        file.write_all_at(&head, 0).map_err(failed("write it"))?;
        Ok(Self { file: Some(Arc::new(file)), pages_at, pages })
    }

    /// What each page counts.
    pub(super) fn pages(&self) -> &[(Arm, Slice)] {
        &self.pages
    }

    /// The page with this index.
    pub(super) fn page(&self, index: usize) -> Page {
        let at = self.pages_at + (index * PAGE_BYTES) as u64;
        Page { file: self.file.clone(), at, queries: Mutex::new((0, 0)) }
    }
}

impl Page {
    /// A query begins to be recorded.
    pub(super) fn begin(&self, counts: impl FnOnce() -> Counts) {
        self.write(|queries| queries.0 += 1, counts);
    }

    /// A query has been recorded.
    pub(super) fn end(&self, counts: impl FnOnce() -> Counts) {
        self.write(|queries| queries.1 += 1, counts);
    }

    fn write(&self, change: impl FnOnce(&mut (u64, u64)), counts: impl FnOnce() -> Counts) {
        let Some(file) = &self.file else {
            return;
        };
        let mut queries = self.queries.lock();
        change(&mut queries);
        // Read under the lock: what is counted here was recorded, and stays so.
        let Counts { samples: [a, b, c, e2e], ok, error } = counts();
        let mut page = [0; PAGE_BYTES];
        let numbers = [queries.0, queries.1, a, b, c, e2e, ok, error];
        for (bytes, number) in page.chunks_exact_mut(8).zip(numbers) {
            bytes.copy_from_slice(&number.to_le_bytes());
        }
        if let Err(error) = file.write_all_at(&page, self.at) {
            tracing::error!(%error, "the ledger's file falls behind");
        }
    }
}

/// A ledger read from the file of a node that is no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptLedger {
    /// What was certainly recorded.
    pub ledger: Ledger,
    /// Queries on the way at the end, by slice and arm, where there were any: so many samples a stage, and
    /// so many requests, may have been recorded beyond the ledger.
    pub on_the_way: Vec<(Slice, Arm, u64)>,
}

impl KeptLedger {
    /// Reads the file that a node was given.
    ///
    /// # Errors
    /// [`LedgerError`] when it cannot be read, or is no ledger.
    pub fn read(path: &Path) -> Result<Self, LedgerError> {
        let failed = |source| LedgerError::Io { path: path.into(), doing: "read it", source };
        let senseless =
            |what: &str| LedgerError::Senseless { path: path.into(), what: what.into() };
        if std::fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
            return Err(senseless("it is too long"));
        }
        let bytes = std::fs::read(path).map_err(failed)?;
        let line = bytes.iter().position(|byte| *byte == b'\n');
        let line = line.ok_or_else(|| senseless("it has no first line"))?;
        let head: Head = serde_json::from_slice(&bytes[..line])
            .map_err(|error| senseless(&error.to_string()))?;
        let pages = bytes.get((line + 1).next_multiple_of(PAGE_BYTES)..).unwrap_or_default();
        if pages.len() != head.pages.len() * PAGE_BYTES {
            return Err(senseless("it does not have a page for each slice"));
        }
        Ok(head.with_pages(pages))
    }
}

impl Head {
    fn with_pages(self, pages: &[u8]) -> KeptLedger {
        let (mut series, mut requests) = (Vec::new(), Vec::new());
        let mut on_the_way = Vec::new();
        for ((arm, slice), page) in self.pages.iter().zip(pages.chunks_exact(PAGE_BYTES)) {
            let arm = *arm;
            let mut numbers = page.chunks_exact(8).map(|bytes| {
                bytes.iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
            });
            let mut number = || numbers.next().unwrap_or(0);
            let (begun, ended) = (number(), number());
            for stage in [Stage::A, Stage::B, Stage::C, Stage::E2e] {
                series.push(LedgerSeries { slice: slice.clone(), stage, arm, recorded: number() });
            }
            let (ok, error) = (number(), number());
            requests.push(LedgerRequests { slice: slice.clone(), arm, ok, error });
            on_the_way.push((slice.clone(), arm, begun.saturating_sub(ended)));
        }
        series.retain(|one| one.recorded > 0);
        requests.retain(|one| one.ok + one.error > 0);
        on_the_way.retain(|(_, _, queries)| *queries > 0);
        KeptLedger { ledger: Ledger { instance: self.instance, series, requests }, on_the_way }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slices() -> Vec<Slice> {
        ["rust", "go"].map(|language| Slice::new("backend", language, "small").unwrap()).into()
    }

    fn keeper(path: &Path) -> Keeper {
        Keeper::create(Some(path), "node-1", &[Arm::Canary], &slices()).unwrap()
    }

    #[test]
    fn a_query_on_the_way_is_told_apart_from_what_was_recorded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let keeper = keeper(&path);
        let empty = KeptLedger::read(&path).unwrap();
        assert_eq!((empty.ledger.series.len(), empty.on_the_way.len()), (0, 0));

        let page = keeper.page(1);
        let one = Counts { samples: [3, 2, 1, 3], ok: 2, error: 1 };
        page.begin(Counts::default);
        page.begin(Counts::default);
        page.end(|| one);
        let kept = KeptLedger::read(&path).unwrap();
        let [_, go] = <[Slice; 2]>::try_from(slices()).unwrap();
        assert_eq!(kept.on_the_way, [(go.clone(), Arm::Canary, 1)]);
        let counts: Vec<_> = kept.ledger.series.iter().map(|s| (s.stage, s.recorded)).collect();
        assert_eq!(counts, [(Stage::A, 3), (Stage::B, 2), (Stage::C, 1), (Stage::E2e, 3)]);
        assert!(kept.ledger.series.iter().all(|s| s.slice == go && s.arm == Arm::Canary));
        let requests = LedgerRequests { slice: go, arm: Arm::Canary, ok: 2, error: 1 };
        assert_eq!(kept.ledger.requests, [requests]);
        page.end(|| one);
        assert!(KeptLedger::read(&path).unwrap().on_the_way.is_empty());
    }

    #[test]
    fn a_file_that_is_no_ledger_is_refused_with_what_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let refused = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            KeptLedger::read(&path).unwrap_err().to_string()
        };
        assert!(refused(b"").contains("first line"));
        assert!(refused(b"{}\n").contains("missing field"));
        drop(keeper(&path));
        let whole = std::fs::read(&path).unwrap();
        assert!(refused(&whole[..whole.len() - 1]).contains("a page for each slice"));
        std::fs::remove_file(&path).unwrap();
        assert!(KeptLedger::read(&path).unwrap_err().to_string().contains("cannot read it"));
    }
}
