//! What a recording process says of itself in a second shared file, to be read after its death.
//!
//! Each thread has a slot for each of its counters: two numbers, how many records it has *begun*
//! and how many it has *done*, written by one `pwrite` before the record and one after it. What a
//! `pwrite` was given is the kernel's, so it stands after a kill at any instant.
//!
//! The inequality that must hold, whenever the process is killed, for every counter `c` of every
//! thread: done(c) ≤ recorded(c) ≤ begun(c), and over all counters of one thread
//! Σ begun − Σ done ≤ 1: at most the one record in flight may be absent or present.

use std::fs::File;
use std::io::{self, Error, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes of a slot: begun and done.
const SLOT_BYTES: usize = 16;

/// The oracle while its process lives.
#[derive(Debug)]
pub struct Oracle {
    file: File,
    counters: usize,
}

/// One thread's part of the oracle; it alone writes there.
#[derive(Debug)]
pub struct Pen<'a> {
    file: &'a File,
    at: u64,
    counts: Vec<u64>,
}

impl Oracle {
    /// Creates the file for so many threads of so many counters each, all zero.
    ///
    /// # Errors
    /// What the system said.
    pub fn create(path: &Path, threads: usize, counters: usize) -> io::Result<Self> {
        let file = File::create(path)?;
        file.set_len((threads * counters * SLOT_BYTES) as u64)?;
        Ok(Self { file, counters })
    }

    /// The part of a thread.
    pub fn pen(&self, thread: usize) -> Pen<'_> {
        let at = (thread * self.counters * SLOT_BYTES) as u64;
        Pen { file: &self.file, at, counts: vec![0; self.counters] }
    }
}

impl Pen<'_> {
    /// Has one record of a counter made, and says so before and after.
    ///
    /// # Errors
    /// What the system said; the record was made only if the first write succeeded.
    pub fn record(&mut self, counter: usize, record: impl FnOnce()) -> io::Result<()> {
        self.counts[counter] += 1;
        let (count, at) =
            (self.counts[counter].to_le_bytes(), self.at + (counter * SLOT_BYTES) as u64);
        self.file.write_all_at(&count, at)?;
        record();
        self.file.write_all_at(&count, at + 8)
    }
}

/// What is known of one counter, all threads together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Records that were certainly made.
    pub done: u64,
    /// Records that may have been made.
    pub begun: u64,
}

impl Bounds {
    /// Whether so many records fit.
    pub const fn allow(&self, recorded: u64) -> bool {
        self.done <= recorded && recorded <= self.begun
    }
}

/// Reads the oracle of a process that is dead: bounds by counter.
///
/// # Errors
/// What the system said, or `InvalidData` when a thread has more than one record in flight, which
/// would make the bounds worthless.
pub fn read(path: &Path, threads: usize, counters: usize) -> io::Result<Vec<Bounds>> {
    let bytes = std::fs::read(path)?;
    if bytes.len() != threads * counters * SLOT_BYTES {
        return Err(Error::new(ErrorKind::InvalidData, "the oracle has another size"));
    }
    let mut bounds = vec![Bounds::default(); counters];
    for thread in bytes.chunks_exact(counters * SLOT_BYTES) {
        let mut in_flight = 0;
        for (bounds, slot) in bounds.iter_mut().zip(thread.chunks_exact(SLOT_BYTES)) {
            let mut halves = slot.chunks_exact(8).map(|half| {
                half.iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
            });
            let begun = halves.next().unwrap_or(0);
            let done = halves.next().unwrap_or(0);
            in_flight += begun.saturating_sub(done);
            bounds.begun += begun;
            bounds.done += done;
        }
        if in_flight > 1 {
            return Err(Error::new(ErrorKind::InvalidData, "more than one record in flight"));
        }
    }
    Ok(bounds)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_record_in_flight_is_begun_and_not_done() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("oracle");
        let oracle = Oracle::create(&path, 2, 3).unwrap();
        let (mut first, mut second) = (oracle.pen(0), oracle.pen(1));
        for _ in 0..5 {
            first.record(2, || {}).unwrap();
        }
        let mut seen = Vec::new();
        second.record(2, || seen = read(&path, 2, 3).unwrap()).unwrap();
        assert_eq!(seen[2], Bounds { done: 5, begun: 6 });
        assert!(seen[2].allow(5) && seen[2].allow(6) && !seen[2].allow(4) && !seen[2].allow(7));
        assert_eq!(read(&path, 2, 3).unwrap()[2], Bounds { done: 6, begun: 6 });
    }

    #[test]
    fn an_oracle_that_bounds_nothing_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("oracle");
        let oracle = Oracle::create(&path, 1, 2).unwrap();
        for counter in 0..2 {
            oracle.file.write_all_at(&1_u64.to_le_bytes(), counter * 16).unwrap();
        }
        assert_eq!(read(&path, 1, 2).unwrap_err().kind(), ErrorKind::InvalidData);
        assert_eq!(read(&path, 1, 3).unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
