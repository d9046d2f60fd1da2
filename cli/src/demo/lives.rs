//! The lives of the demo's processes: which are to be killed when, how often one may be, and what a
//! killed node had recorded.
//!
//! A node that was killed cannot say what it recorded. Two things outlive it: its ledger, which
//! bounds every count from both sides, and its segment, which the demo holds open from the moment
//! the node was ready. The segment is believed within the ledger's bounds and not a sample beyond.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use lens_benches::arguments::{self, ArgumentError};
use lens_benches::node::{KeptLedger, Ledger, LedgerError, LedgerSeries};
use lens_model::{Nanos, SeriesKey};
use lens_segment::{Harvest, ReadPolicy, SegmentReader};

/// A process that was killed so many times within [`KILLS_WITHIN`] is not started again.
const KILLS_MAX: usize = 3;

/// See [`KILLS_MAX`].
const KILLS_WITHIN: Duration = Duration::from_secs(10);

/// Longer than any node of a demo lives: what its counters may have counted is not limited by it.
const LIFE_MAX: Nanos = Nanos::from_secs(366 * 24 * 3600);

/// A process to kill, and when after the first query: `agent-1@20s`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kill {
    /// Its name.
    pub name: String,
    /// When.
    pub after: Duration,
}

impl FromStr for Kill {
    type Err = ArgumentError;

    fn from_str(text: &str) -> Result<Self, ArgumentError> {
        let Some((name, after)) = text.split_once('@') else {
            let problem = "the time is missing";
            return Err(ArgumentError::new("kill", text, problem, "agent-1@20s"));
        };
        Ok(Self { name: name.trim().into(), after: arguments::duration(after)? })
    }
}

impl fmt::Display for Kill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{:?}", self.name, self.after)
    }
}

/// A process that was killed and started again.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Restart {
    /// Its name.
    pub process: String,
    /// When it was found dead, after the first query.
    pub after: Duration,
    /// How long until its successor was ready; `None` when the demo ended first.
    pub back_after: Option<Duration>,
    /// For a node, samples that were on the way: how many at most, and how many its memory held.
    pub on_the_way: Option<(u64, u64)>,
}

/// When each process was killed, so that one that dies again and again is told apart.
#[derive(Debug, Default)]
pub(crate) struct Deaths(BTreeMap<String, Vec<Instant>>);

impl Deaths {
    /// Counts a death; whether it is one too many.
    pub(crate) fn one_too_many(&mut self, name: &str, now: Instant) -> bool {
        let times = self.0.entry(name.to_owned()).or_default();
        times.retain(|at| now.duration_since(*at) < KILLS_WITHIN);
        times.push(now);
        times.len() >= KILLS_MAX
    }
}

/// What is said of a process that is not started again.
pub(crate) fn too_often() -> String {
    format!("it was killed {KILLS_MAX} times within {} s", KILLS_WITHIN.as_secs())
}

/// One life of a node.
pub(crate) struct NodeLife {
    ledger: PathBuf,
    /// Its segment; absent until it is ready.
    memory: Option<SegmentReader>,
}

/// What a killed node is found to have recorded.
#[derive(Debug)]
pub(crate) struct Inheritance {
    /// Exactly that, as far as it can be known.
    pub ledger: Option<Ledger>,
    /// Samples on the way when it was killed: at most, and found to be recorded.
    pub on_the_way: (u64, u64),
    /// What does not fit, in a sentence.
    pub doubt: Option<String>,
}

impl NodeLife {
    /// The life of a node that keeps its ledger there.
    pub(crate) const fn new(ledger: PathBuf) -> Self {
        Self { ledger, memory: None }
    }

    /// Holds the segment of the node with this process number open, so that it outlives its name.
    pub(crate) fn hold(&mut self, segments: &Path, pid: u32) -> Result<(), String> {
        let found = lens_segment::scan(segments).map_err(|error| error.to_string())?;
        let open = |path: &PathBuf| SegmentReader::open(path, &ReadPolicy::default()).ok();
        let own = |reader: &SegmentReader| reader.info().pid == pid;
        self.memory = found.paths.iter().filter_map(open).find(own);
        match self.memory {
            Some(_) => Ok(()),
            None => Err(format!("no segment of process {pid} in {}", segments.display())),
        }
    }

    /// Whether it ever answered queries.
    pub(crate) const fn was_ready(&self) -> bool {
        self.memory.is_some()
    }

    /// What it recorded, now that it is dead.
    pub(crate) fn inherit(mut self, name: &str) -> Inheritance {
        let nothing = Inheritance { ledger: None, on_the_way: (0, 0), doubt: None };
        let kept = match KeptLedger::read(&self.ledger) {
            Ok(kept) => kept,
            // It was killed before it could record.
            Err(LedgerError::Io { .. }) if self.memory.is_none() => return nothing,
            Err(error) => return Inheritance { doubt: Some(error.to_string()), ..nothing },
        };
        let Some(memory) = &mut self.memory else {
            return Inheritance { ledger: Some(kept.ledger), ..nothing };
        };
        let mut harvest = Harvest::default();
        if let Err(error) = memory.harvest(LIFE_MAX, &mut harvest) {
            return Inheritance { doubt: Some(format!("{name}: {error}")), ..nothing };
        }
        let counted = harvest.series.iter().map(|one| ((*one.key).clone(), one.counts.total()));
        settle(name, kept, &counted.collect())
    }
}

/// Takes memory's counts where the ledger allows them.
fn settle(name: &str, kept: KeptLedger, memory: &BTreeMap<SeriesKey, u64>) -> Inheritance {
    let KeptLedger { mut ledger, on_the_way } = kept;
    let mut least: BTreeMap<SeriesKey, u64> = memory.keys().map(|key| (key.clone(), 0)).collect();
    for LedgerSeries { slice, stage, arm, recorded } in ledger.series.drain(..) {
        least.insert(SeriesKey { slice, stage, arm }, recorded);
    }
    let (mut most, mut found, mut doubt) = (0, 0, None);
    for (key, least) in least {
        let more = on_the_way.iter().find(|(slice, arm, _)| (slice, *arm) == (&key.slice, key.arm));
        let more = more.map_or(0, |(_, _, queries)| *queries);
        let recorded = memory.get(&key).copied().unwrap_or(0);
        if !(least..=least + more).contains(&recorded) {
            doubt = Some(format!(
                "{name}'s memory holds {recorded} samples of {key}, its ledger allows {least} to {}",
                least + more
            ));
        }
        (most, found) = (most + more, found + recorded.saturating_sub(least));
        let SeriesKey { slice, stage, arm } = key;
        ledger.series.push(LedgerSeries { slice, stage, arm, recorded });
    }
    Inheritance { ledger: Some(ledger), on_the_way: (most, found), doubt }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use lens_model::{Arm, Slice, Stage};

    use super::*;

    fn key(stage: Stage) -> SeriesKey {
        let slice = Slice::new("backend", "rust", "small").unwrap();
        SeriesKey { slice, stage, arm: Arm::Baseline }
    }

    fn kept(recorded: u64, on_the_way: u64) -> KeptLedger {
        let SeriesKey { slice, stage, arm } = key(Stage::A);
        let on_the_way = vec![(slice.clone(), arm, on_the_way)];
        let series = vec![LedgerSeries { slice, stage, arm, recorded }];
        let ledger = Ledger { instance: "node-1".into(), series, requests: Vec::new() };
        KeptLedger { ledger, on_the_way }
    }

    #[test]
    fn memory_is_believed_within_the_ledgers_bounds_and_not_a_sample_beyond() {
        let found = |kept, a: u64| settle("node-1", kept, &BTreeMap::from([(key(Stage::A), a)]));
        for recorded in 5..=7 {
            let found = found(kept(5, 2), recorded);
            assert_eq!((found.on_the_way, found.doubt), ((2, recorded - 5), None));
            assert_eq!(found.ledger.unwrap().series[0].recorded, recorded);
        }
        for (recorded, on_the_way) in [(4, 2), (8, 2), (6, 0)] {
            let doubt = found(kept(5, on_the_way), recorded).doubt.unwrap();
            assert!(doubt.contains("allows 5 to"), "{doubt}");
        }
        // A series the ledger has nothing of yet.
        let memory = BTreeMap::from([(key(Stage::A), 5), (key(Stage::B), 1)]);
        let both = settle("node-1", kept(5, 1), &memory);
        assert_eq!((both.on_the_way, both.doubt), ((2, 1), None));
        let lost = settle("node-1", kept(5, 1), &BTreeMap::new());
        assert!(lost.doubt.unwrap().contains("holds 0 samples"));
    }

    #[test]
    fn a_kill_names_a_process_and_a_time() {
        let kill: Kill = "agent-1@20s".parse().unwrap();
        assert_eq!((kill.name.as_str(), kill.after), ("agent-1", Duration::from_secs(20)));
        assert!("agent-1".parse::<Kill>().unwrap_err().to_string().contains("agent-1@20s"));
        assert!("agent-1@soon".parse::<Kill>().is_err());
    }

    #[test]
    fn the_third_kill_within_ten_seconds_is_one_too_many() {
        let (mut deaths, start) = (Deaths::default(), Instant::now());
        let mut dies =
            |name: &str, secs| deaths.one_too_many(name, start + Duration::from_secs(secs));
        assert!(!dies("node-1", 0) && !dies("node-1", 9) && !dies("node-2", 9));
        assert!(!dies("node-1", 10), "the first is ten seconds ago");
        assert!(dies("node-1", 18));
    }
}
