//! Hindsight: the last minutes in fine steps, kept in memory until someone asks for them.
//!
//! Why readers of its own: harvests are slow and durable, these steps are fast and forgotten; each
//! has its own baselines, so neither waits for the other and no count is shipped twice.
//! Units: nanoseconds by the agent's clock. Bounds: `hindsight.span_s` of steps, `hindsight.max_bytes`
//! of memory; past either the oldest step goes, and one that goes before its time is counted.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lens_hist::block;
use lens_model::limits::AGENT_SEGMENTS_MAX;
use lens_model::{Nanos, SeriesKey, UnixNanos};
use lens_segment::{Harvest, ReadPolicy, SegmentReader, scan};
use lens_service::env::Env;
use lens_wire::{Capture, Instance, Label};
use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{debug, error};

use crate::harvest::instance;

/// What an entry takes up beside its block: two counted pointers, lengths, and the allocator's share.
const ENTRY_BYTES: usize = 80;

/// How fine, how long and how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Time between two steps.
    pub interval: Duration,
    /// How far back.
    pub span: Nanos,
    /// Bytes of memory.
    pub bytes_max: usize,
}

/// What one series counted in a step.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The search node.
    pub instance: Arc<Instance>,
    /// What was counted.
    pub key: Arc<SeriesKey>,
    /// When the step began.
    pub start: UnixNanos,
    /// How long it was.
    pub duration: Nanos,
    /// The counts, a block.
    pub block: Arc<[u8]>,
}

/// Whose counts, of what, and the counts: a block.
type Entry = (Arc<Instance>, Arc<SeriesKey>, Arc<[u8]>);

/// One step of every series that counted something in it.
#[derive(Debug)]
struct Step {
    start: UnixNanos,
    duration: Nanos,
    entries: Vec<Entry>,
}

impl Step {
    fn bytes(&self) -> usize {
        self.entries.iter().map(|(.., block)| ENTRY_BYTES + block.len()).sum()
    }

    fn end(&self) -> UnixNanos {
        UnixNanos(self.start.0.saturating_add(self.duration.0))
    }
}

#[derive(Debug, Default)]
struct Ring {
    steps: VecDeque<Step>,
    level: Level,
}

/// What is held, as `/status` shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// From when on there are steps.
    pub since: Option<UnixNanos>,
    /// Bytes held.
    pub bytes: usize,
    /// Steps that had to give way before their time.
    pub left_out: u64,
}

/// The last minutes.
#[derive(Debug)]
pub struct Hindsight {
    bounds: Bounds,
    ring: Mutex<Ring>,
}

/// What is given to one CAPTURE, frame by frame.
#[derive(Debug)]
pub struct Giving {
    /// Which capture.
    pub id: u64,
    /// From when on there are steps.
    pub held_from: UnixNanos,
    /// Steps that had to give way before their time.
    pub left_out: u64,
    /// What is still to be given, oldest first.
    pub left: VecDeque<Kept>,
}

impl Hindsight {
    /// Nothing yet.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, ring: Mutex::default() }
    }

    /// Takes a step, and lets go of what is too old or too much.
    fn push(&self, step: Step) {
        let mut ring = self.ring.lock();
        let Ring { steps, level } = &mut *ring;
        level.since.get_or_insert(step.start);
        let oldest = step.end().minus(self.bounds.span);
        level.bytes += step.bytes();
        steps.push_back(step);
        while let Some(first) = steps.front() {
            let old = first.end() <= oldest;
            if !old && level.bytes <= self.bounds.bytes_max {
                break;
            }
            level.left_out += u64::from(!old);
            level.bytes -= first.bytes();
            level.since = Some(first.end());
            steps.pop_front();
        }
    }

    /// What is held of what a capture asks for, `ahead` being how far the aggregator's clock is ahead.
    pub fn give(&self, asked: &Capture, ahead: i64) -> Giving {
        let behind = ahead.saturating_neg();
        let (from, to) = (asked.from.shifted(behind), asked.to.shifted(behind));
        let wanted = |key: &SeriesKey| {
            asked.slice.as_ref().is_none_or(|slice| *slice == key.slice)
                && asked.stage.is_none_or(|stage| stage == key.stage)
                && asked.arm.is_none_or(|arm| arm == key.arm)
        };
        let ring = self.ring.lock();
        let mut left = VecDeque::new();
        for step in ring.steps.iter().filter(|step| step.start < to && step.end() > from) {
            let (start, duration) = (step.start, step.duration);
            for (instance, key, block) in step.entries.iter().filter(|(_, key, _)| wanted(key)) {
                let (instance, key) = (Arc::clone(instance), Arc::clone(key));
                left.push_back(Kept { instance, key, start, duration, block: Arc::clone(block) });
            }
        }
        let held_from = ring.level.since.unwrap_or(to);
        Giving { id: asked.id, held_from, left_out: ring.level.left_out, left }
    }

    /// What is held.
    pub fn level(&self) -> Level {
        self.ring.lock().level
    }
}

/// A segment looked at; none where it cannot be read, which the harvester names.
type Looked = Option<(SegmentReader, Arc<Instance>)>;

/// Reads every segment at its own pace.
struct Sampler {
    dir: PathBuf,
    zone: Label,
    held: BTreeMap<PathBuf, Looked>,
    harvest: Harvest,
    last: Option<(UnixNanos, Instant)>,
}

impl Sampler {
    /// Opens segments that are new and forgets those that are gone.
    fn scan(&mut self) {
        let Ok(found) = scan(&self.dir) else { return };
        self.held.retain(|path, _| found.paths.contains(path));
        for path in found.paths {
            if self.held.len() < AGENT_SEGMENTS_MAX && !self.held.contains_key(&path) {
                let looked = self.open(&path);
                self.held.insert(path, looked);
            }
        }
    }

    fn open(&mut self, path: &std::path::Path) -> Looked {
        let mut reader = SegmentReader::open(path, &ReadPolicy::default()).ok()?;
        // What was counted before belongs to no step.
        reader.harvest(Nanos(u64::MAX), &mut self.harvest).ok()?;
        reader.commit();
        let instance = Arc::new(instance(reader.info(), &self.zone));
        Some((reader, instance))
    }

    /// One step: what was counted since the last.
    fn step(&mut self, now: UnixNanos) -> Option<Step> {
        let (start, begun) = self.last.replace((now, Instant::now()))?;
        let elapsed = Nanos::from(begun.elapsed());
        let mut entries = Vec::new();
        for held in self.held.values_mut() {
            let Some((reader, instance)) = held else { continue };
            if let Err(why) = reader.harvest(elapsed, &mut self.harvest) {
                debug!(segment = %reader.path().display(), %why, "no step of it");
                if reader.quarantined().is_some() {
                    *held = None;
                }
                continue;
            }
            for delta in &self.harvest.series {
                let mut bytes = Vec::new();
                block::encode(&delta.counts, &mut bytes);
                entries.push((Arc::clone(instance), Arc::clone(&delta.key), bytes.into()));
            }
            reader.commit();
        }
        // A clock that was set back gives a step of no length, not one of a wrong time.
        let start = start.min(now);
        Some(Step { start, duration: now.since(start), entries })
    }
}

/// Takes steps until dropped.
pub async fn run(
    env: Env,
    hindsight: Arc<Hindsight>,
    dir: PathBuf,
    zone: String,
    scan_interval: Duration,
) {
    let (held, harvest) = (BTreeMap::new(), Harvest::default());
    let mut sampler = Sampler { dir, zone: Label::lossy(&zone), held, harvest, last: None };
    let mut ticks = interval(hindsight.bounds.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut next_scan = Instant::now();
    loop {
        ticks.tick().await;
        let look = Instant::now() >= next_scan;
        if look {
            next_scan = Instant::now() + scan_interval;
        }
        let (clock, into) = (Arc::clone(&env.clock), Arc::clone(&hindsight));
        // File reads: off the threads that serve the network.
        let turn = env.blocking(move || {
            if let Some(step) = sampler.step(clock.now()) {
                into.push(step);
            }
            // After the step, so that a new segment's first one is whole.
            if look {
                sampler.scan();
            }
            sampler
        });
        match turn.await {
            Ok(back) => sampler = back,
            Err(error) => {
                error!(%error, "the last minutes are no longer kept");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lens_hist::Sparse;
    use lens_model::{Arm, InstanceName, Slice, Stage};

    const STEP: u64 = 100_000_000;

    fn instance() -> Arc<Instance> {
        let label = |text| Label::new(text).unwrap();
        let name = InstanceName::new("n1").unwrap();
        Arc::new(Instance { name, service: label("lens"), version: label("1"), zone: label("") })
    }

    fn key(stage: Stage) -> Arc<SeriesKey> {
        let slice = Slice::new("backend", "rust", "large").unwrap();
        Arc::new(SeriesKey { slice, stage, arm: Arm::Baseline })
    }

    fn step(number: u64) -> Step {
        let mut block = Vec::new();
        block::encode(&[number].into_iter().collect::<Sparse>(), &mut block);
        let entries = [Stage::A, Stage::C]
            .map(|stage| (instance(), key(stage), Arc::from(block.as_slice())))
            .to_vec();
        Step { start: UnixNanos(number * STEP), duration: Nanos(STEP), entries }
    }

    fn asked(from: u64, to: u64, stage: Option<Stage>) -> Capture {
        let (from, to) = (UnixNanos(from * STEP), UnixNanos(to * STEP));
        Capture { id: 3, from, to, slice: None, stage, arm: None }
    }

    fn hindsight(steps: u64, bytes_max: usize) -> Hindsight {
        let (interval, span) = (Duration::from_nanos(STEP), Nanos(steps * STEP));
        Hindsight::new(Bounds { interval, span, bytes_max })
    }

    #[test]
    fn what_is_asked_for_is_given_oldest_first() {
        let held = hindsight(100, usize::MAX);
        (10..20).for_each(|number| held.push(step(number)));
        let giving = held.give(&asked(12, 14, Some(Stage::C)), 0);
        let starts: Vec<_> = giving.left.iter().map(|k| (k.start.0 / STEP, k.key.stage)).collect();
        assert_eq!(starts, [(12, Stage::C), (13, Stage::C)]);
        assert_eq!((giving.id, giving.held_from, giving.left_out), (3, UnixNanos(10 * STEP), 0));
        assert_eq!(held.give(&asked(0, 99, None), 0).left.len(), 20);
        // The aggregator's clock is two steps ahead: its 14 is our 12.
        #[allow(clippy::cast_possible_wrap)]
        let ahead = 2 * STEP as i64;
        let shifted = held.give(&asked(14, 15, None), ahead);
        assert!(shifted.left.iter().all(|kept| kept.start.0 == 12 * STEP));
        assert_eq!(shifted.left.len(), 2);
    }

    #[test]
    fn the_old_goes_in_its_time_and_what_is_too_much_before_it() {
        let held = hindsight(5, usize::MAX);
        (0..9).for_each(|number| held.push(step(number)));
        assert_eq!(held.give(&asked(0, 99, None), 0).left.len(), 10);
        assert_eq!((held.level().since, held.level().left_out), (Some(UnixNanos(4 * STEP)), 0));
        let one = step(1).bytes();
        let held = hindsight(100, 3 * one);
        (0..9).for_each(|number| held.push(step(number)));
        let level = held.level();
        assert_eq!((level.bytes, level.left_out), (3 * one, 6));
        assert_eq!(level.since, Some(UnixNanos(6 * STEP)));
    }

    #[test]
    fn an_idle_host_says_since_when_it_looks() {
        let held = hindsight(5, usize::MAX);
        for number in 0..9 {
            let (start, duration) = (UnixNanos(number * STEP), Nanos(STEP));
            held.push(Step { start, duration, entries: Vec::new() });
        }
        assert_eq!(held.give(&asked(0, 99, None), 0).held_from, UnixNanos(4 * STEP));
    }
}
