//! What an earlier life of this agent had read, so that its successor neither counts it again nor
//! loses what came since.
//!
//! Written beside the segments, and like them gone with the machine's memory: a list of segments
//! while the agent runs, their exact baselines once it has stopped with everything acknowledged.
//! A successor takes up exact baselines where they stand; of a segment that is only listed it knows
//! that part was shipped but not how much, so it begins at the present counts and says so. Counting
//! such a part twice would be worse than missing it: a wrong sum looks like a right one.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use lens_segment::{Baseline, BlockBaseline};
use serde::{Deserialize, Serialize};
use tracing::warn;

/// Largest file read, bytes: 256 segments of 256 busy series are under it.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// What is known of one segment from an earlier life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// Nothing: it is new.
    New,
    /// It was read, but not to which point.
    Read,
    /// It was read exactly to here.
    Exactly(Baseline),
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Stored {
    /// Segments by incarnation, in hexadecimal.
    segments: BTreeMap<String, Option<StoredBaseline>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredBaseline {
    blocks: Vec<StoredBlock>,
    requests: Vec<[u64; 2]>,
}

/// Series, shard, and index and value of the block's counters.
type StoredBlock = (u16, u16, Vec<(u16, u32)>);

/// The file of one agent's baselines.
#[derive(Debug)]
pub struct Baselines {
    path: PathBuf,
    stored: Stored,
}

fn name(incarnation: u128) -> String {
    format!("{incarnation:032x}")
}

impl Baselines {
    /// What the last life left in `dir`; nothing where there is no file or none that can be read.
    pub fn load(dir: &Path, agent: &str) -> Self {
        let path = dir.join(format!("{agent}.baselines"));
        let stored = match read(&path) {
            Ok(stored) => stored,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Stored::default(),
            Err(error) => {
                warn!(path = %path.display(), %error, "earlier baselines cannot be read");
                Stored::default()
            }
        };
        Self { path, stored }
    }

    /// What is known of a segment.
    pub fn of(&self, incarnation: u128) -> Known {
        match self.stored.segments.get(&name(incarnation)) {
            None => Known::New,
            Some(None) => Known::Read,
            Some(Some(stored)) => Known::Exactly(Baseline {
                incarnation,
                blocks: stored
                    .blocks
                    .iter()
                    .map(|(series, shard, counters)| BlockBaseline {
                        series: *series,
                        shard: *shard,
                        counters: counters.clone(),
                    })
                    .collect(),
                requests: stored.requests.clone(),
            }),
        }
    }

    /// Notes that these segments are being read, before anything of them is shipped.
    ///
    /// # Errors
    /// The file cannot be written; the caller reads on, and a crash may count again.
    pub fn reading(&mut self, segments: impl Iterator<Item = u128>) -> io::Result<()> {
        self.stored.segments = segments.map(|incarnation| (name(incarnation), None)).collect();
        self.write()
    }

    /// Notes exactly how far each segment was read, everything of it being acknowledged.
    ///
    /// # Errors
    /// The file cannot be written; the segments stay noted as being read.
    pub fn stopped(&mut self, baselines: impl Iterator<Item = Baseline>) -> io::Result<()> {
        let stored = |baseline: Baseline| {
            let blocks = baseline.blocks.into_iter();
            let stored = StoredBaseline {
                blocks: blocks.map(|b| (b.series, b.shard, b.counters)).collect(),
                requests: baseline.requests,
            };
            (name(baseline.incarnation), Some(stored))
        };
        self.stored.segments = baselines.map(stored).collect();
        self.write()
    }

    fn write(&self) -> io::Result<()> {
        let fresh = self.path.with_extension("baselines.new");
        std::fs::write(&fresh, serde_json::to_vec(&self.stored)?)?;
        std::fs::rename(&fresh, &self.path)
    }
}

fn read(path: &Path) -> io::Result<Stored> {
    let length = std::fs::metadata(path)?.len();
    if length > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("{length} bytes, more than {FILE_BYTES_MAX}")));
    }
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baseline() -> Baseline {
        let block = BlockBaseline { series: 3, shard: 1, counters: vec![(7, 9), (3_840, 1)] };
        Baseline { incarnation: 42, blocks: vec![block], requests: vec![[5, 1]] }
    }

    #[test]
    fn a_successor_takes_up_exactly_where_a_clean_stop_left_off() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = Baselines::load(dir.path(), "a1");
        assert_eq!(first.of(42), Known::New);
        first.reading([42, 43].into_iter()).unwrap();
        first.stopped([baseline()].into_iter()).unwrap();
        let second = Baselines::load(dir.path(), "a1");
        assert_eq!(second.of(42), Known::Exactly(baseline()));
        assert_eq!(second.of(43), Known::New);
    }

    #[test]
    fn a_successor_of_a_crash_knows_only_that_a_segment_was_read() {
        let dir = tempfile::tempdir().unwrap();
        Baselines::load(dir.path(), "a1").reading([42].into_iter()).unwrap();
        assert_eq!(Baselines::load(dir.path(), "a1").of(42), Known::Read);
        assert_eq!(Baselines::load(dir.path(), "a2").of(42), Known::New);
    }

    #[test]
    fn a_file_that_makes_no_sense_is_taken_as_none() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a1.baselines"), "{\"segments\":3}").unwrap();
        assert_eq!(Baselines::load(dir.path(), "a1").of(42), Known::New);
    }
}
