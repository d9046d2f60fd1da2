//! What happened, as one hash: every datagram and every write to a disk, with its virtual time.

use std::sync::Arc;

use parking_lot::Mutex;

/// The events of one world, in order. Clones are the same trace.
#[derive(Clone, Debug, Default)]
pub struct Trace(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    hasher: blake3::Hasher,
    events: u64,
    kept: Option<Vec<String>>,
}

impl Trace {
    /// A trace that keeps a line for each event beside the hash, to find where two runs part.
    pub fn keeping() -> Self {
        let trace = Self::default();
        trace.0.lock().kept = Some(Vec::new());
        trace
    }

    /// Adds an event: when (virtual nanoseconds), what, on which numbers, with which bytes.
    pub fn add(&self, at: u64, what: &str, numbers: &[u64], bytes: &[u8]) {
        let mut inner = self.0.lock();
        inner.events += 1;
        inner.hasher.update(&at.to_le_bytes());
        inner.hasher.update(what.as_bytes());
        for number in numbers {
            inner.hasher.update(&number.to_le_bytes());
        }
        inner.hasher.update(&(bytes.len() as u64).to_le_bytes());
        inner.hasher.update(bytes);
        if let Some(kept) = &mut inner.kept {
            let hash = &blake3::hash(bytes).to_hex()[..8];
            kept.push(format!("{at:>15} {what} {numbers:?} {} bytes {hash}", bytes.len()));
        }
    }

    /// The hash of everything so far, hexadecimal, and the number of events in it.
    pub fn hash(&self) -> (String, u64) {
        let inner = self.0.lock();
        (inner.hasher.finalize().to_hex()[..32].to_owned(), inner.events)
    }

    /// The lines kept.
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().kept.clone().unwrap_or_default()
    }
}
