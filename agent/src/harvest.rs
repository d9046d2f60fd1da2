//! Reading segments: what was counted since the last time, and only then a new baseline.
//!
//! A harvest is read from every segment, turned into records, given to the spool, and committed:
//! in that order, so that a record that could not be spooled is simply read again, larger, the
//! next time. A segment that makes no sense is quarantined with its reason; one whose process is
//! dead is drained once more and removed when its counts are in the spool.
//! Units: nanoseconds by the agent's clock. Bounds: `AGENT_SEGMENTS_MAX` segments.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use lens_hist::block;
use lens_model::limits::{AGENT_SEGMENTS_MAX, FRAME_BYTES_MAX, FRAME_SERIES_MAX};
use lens_model::{Nanos, UnixNanos};
use lens_segment::{Harvest, ReadPolicy, SegmentReader, scan};
use lens_service::env::Env;
use lens_wire::{ClockOffset, Instance, Label};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::baselines::{Baselines, Known};
use crate::spool::SharedSpool;
use crate::spool::{GaugeValue, HistogramDelta, Record, RequestDelta};
use crate::status::{Counters, SegmentStatus, Status};

/// Bytes of blocks after which a record is closed and another begun: a frame has room for more.
const RECORD_BYTES_MAX: usize = FRAME_BYTES_MAX / 2;

/// Names one dictionary frame must bring before a record's delta; kept well under its bound.
const RECORD_ENTRIES_MAX: usize = FRAME_SERIES_MAX / 2;

#[derive(Debug)]
struct Held {
    reader: SegmentReader,
    instance: Arc<Instance>,
    /// When the baseline was last moved; `None` while it is that of the segment's creation.
    committed_at: Option<Instant>,
    samples: u64,
    series: usize,
}

/// Everything the agent reads from.
#[derive(Debug)]
pub struct Harvester {
    env: Env,
    dir: PathBuf,
    policy: ReadPolicy,
    zone: Label,
    held: BTreeMap<PathBuf, Held>,
    quarantined: BTreeMap<PathBuf, String>,
    last: Option<UnixNanos>,
    harvest: Harvest,
    baselines: Baselines,
    status: Arc<Status>,
    shared: SharedSpool,
}

impl Harvester {
    /// A harvester of the segments in `dir` for the agent of that name.
    pub fn new(
        env: Env,
        dir: PathBuf,
        agent: &str,
        zone: &str,
        status: Arc<Status>,
        shared: SharedSpool,
    ) -> Self {
        Self {
            baselines: Baselines::load(&dir, agent),
            env,
            dir,
            policy: ReadPolicy::default(),
            zone: Label::lossy(zone),
            held: BTreeMap::new(),
            quarantined: BTreeMap::new(),
            last: None,
            harvest: Harvest::default(),
            status,
            shared,
        }
    }

    /// Looks for segments that were not there before and forgets those that are gone.
    pub fn scan(&mut self) {
        let found = match scan(&self.dir) {
            Ok(found) => found,
            Err(error) => {
                warn!(dir = %self.dir.display(), %error, "segments cannot be looked for");
                self.status.drop_counted("scan failed");
                return;
            }
        };
        if found.left_out > 0 {
            self.status.drop_counted("more segments than an agent harvests");
        }
        self.quarantined.retain(|path, _| found.paths.contains(path));
        let held_before = self.held.len();
        for path in found.paths {
            let known = self.held.contains_key(&path) || self.quarantined.contains_key(&path);
            if known || self.held.len() >= AGENT_SEGMENTS_MAX {
                continue;
            }
            match SegmentReader::open(&path, &self.policy) {
                Ok(reader) => self.hold(path, reader),
                Err(error) => self.quarantine(&path, &error.to_string()),
            }
        }
        if self.held.len() != held_before {
            let reading = self.held.values().map(|held| held.reader.info().incarnation);
            if let Err(error) = self.baselines.reading(reading) {
                warn!(%error, "not noted what is read: a crash of this agent may count again");
                self.status.drop_counted("baselines not written");
            }
        }
        self.status.scanned.store(true, Ordering::Relaxed);
    }

    /// Notes exactly how far everything was read. To be called once, when nothing more is read and
    /// everything spooled was acknowledged.
    pub fn stopped(mut self) {
        let baselines = self.held.values().map(|held| held.reader.baseline_export());
        if let Err(error) = self.baselines.stopped(baselines) {
            warn!(%error, "baselines not written: the next start skips what comes until then");
        }
    }

    /// Begins where an earlier life of this agent ended, as far as that is known.
    fn take_up(&mut self, path: &Path, reader: &mut SegmentReader) {
        let result = match self.baselines.of(reader.info().incarnation) {
            Known::New => return,
            Known::Exactly(baseline) => {
                reader.baseline_import(&baseline).map_err(|error| error.to_string())
            }
            Known::Read => Err("this agent was killed while reading it".to_owned()),
        };
        let Err(reason) = result else { return };
        // What of the present counts was shipped is not known: none of them is shipped again.
        if reader.harvest(Nanos(u64::MAX), &mut self.harvest).is_ok() {
            reader.commit();
        }
        warn!(segment = %path.display(), reason, "taken up at its present counts");
        self.status.drop_counted("segment taken up at its present counts");
    }

    fn hold(&mut self, path: PathBuf, mut reader: SegmentReader) {
        self.take_up(&path, &mut reader);
        let info = reader.info();
        let instance = Arc::new(Instance {
            name: info.instance.clone(),
            service: Label::lossy(&info.service),
            version: Label::lossy(&info.version),
            zone: self.zone.clone(),
        });
        info!(instance = %instance.name, version = %instance.version, "segment found");
        let held = Held { reader, instance, committed_at: None, samples: 0, series: 0 };
        self.held.insert(path, held);
    }

    fn quarantine(&mut self, path: &Path, reason: &str) {
        warn!(segment = %path.display(), reason, "segment quarantined");
        self.status.drop_counted("segment quarantined");
        self.quarantined.insert(path.to_owned(), reason.to_owned());
    }

    /// Reads every segment once and spools what was counted since the last time.
    ///
    /// `now` is the end of the interval, `clock` the clocks as measured.
    pub fn harvest(&mut self, now: UnixNanos, clock: ClockOffset) {
        let began = Instant::now();
        let start = self.last.unwrap_or(now).min(now);
        let duration = now.since(start);
        let mut gathered = Gathered::new(start, duration, clock);
        let mut read = Vec::new();
        let mut failed = Vec::new();
        for (path, held) in &mut self.held {
            // Asked before reading: what a process wrote before it died is then read below.
            let dead = matches!(held.reader.owner_alive(), Ok(false));
            let elapsed = match held.committed_at {
                Some(at) => Nanos::from(at.elapsed()),
                // The first harvest is of everything since the segment was made.
                None => self.env.now().since(held.reader.info().created),
            };
            match held.reader.harvest(elapsed, &mut self.harvest) {
                Ok(()) => {
                    let samples = gathered.take(&held.instance, &self.harvest);
                    read.push((path.clone(), dead, samples));
                }
                Err(error) => failed.push((path.clone(), error.to_string())),
            }
        }
        let spooled = self.shared.spool.lock().append(gathered.finish());
        if let Err(error) = spooled {
            // The baselines stay: the same counts are read again, with more, the next time.
            Counters::add(&self.status.counters.harvests_paused_total, 1);
            warn!(%error, "harvest paused; counts stay in the segments");
        } else {
            self.commit(read, now);
            self.shared.changed.notify_one();
        }
        for (path, reason) in failed {
            self.held.remove(&path);
            self.quarantine(&path, &reason);
        }
        self.show();
        let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.status.counters.harvest_nanos_last.store(took, Ordering::Relaxed);
    }

    fn commit(&mut self, read: Vec<(PathBuf, bool, u64)>, now: UnixNanos) {
        let counters = &self.status.counters;
        for (path, dead, samples) in read {
            let Some(held) = self.held.get_mut(&path) else { continue };
            held.reader.commit();
            if let Some(at) = held.committed_at.replace(Instant::now()) {
                let gap = Nanos::from(at.elapsed()).0;
                counters.harvest_gap_nanos_max.fetch_max(gap, Ordering::Relaxed);
            }
            held.samples += samples;
            held.series = held.reader.catalogue().len();
            Counters::add(&counters.samples_harvested_total, samples);
            if dead && let Some(held) = self.held.remove(&path) {
                info!(instance = %held.instance.name, "node gone: segment drained");
                match held.reader.remove() {
                    Ok(()) => Counters::add(&counters.segments_removed_total, 1),
                    Err(error) => warn!(segment = %path.display(), %error, "not removed"),
                }
            }
        }
        Counters::add(&counters.harvests_total, 1);
        self.last = Some(now);
    }

    fn show(&self) {
        let name = |path: &Path| {
            path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
        };
        let live = self.held.iter().map(|(path, held)| SegmentStatus {
            file: name(path),
            instance: held.instance.name.to_string(),
            service: held.instance.service.to_string(),
            version: held.instance.version.to_string(),
            pid: held.reader.info().pid,
            series: held.series,
            samples: held.samples,
            state: "live",
            reason: None,
        });
        let quarantined = self.quarantined.iter().map(|(path, reason)| SegmentStatus {
            file: name(path),
            instance: String::new(),
            service: String::new(),
            version: String::new(),
            pid: 0,
            series: 0,
            samples: 0,
            state: "quarantined",
            reason: Some(reason.clone()),
        });
        *self.status.segments.lock() = live.chain(quarantined).collect();
    }
}

/// Records being filled from one harvest.
struct Gathered {
    start: UnixNanos,
    duration: Nanos,
    clock: ClockOffset,
    done: Vec<Record>,
    open: Record,
    bytes: usize,
    block: Vec<u8>,
}

impl Gathered {
    fn new(start: UnixNanos, duration: Nanos, clock: ClockOffset) -> Self {
        let open = empty(start, duration, clock);
        Self { start, duration, clock, done: Vec::new(), open, bytes: 0, block: Vec::new() }
    }

    /// Takes one segment's harvest and gives the samples in it.
    fn take(&mut self, instance: &Arc<Instance>, harvest: &Harvest) -> u64 {
        let mut samples = 0;
        for delta in &harvest.series {
            self.block.clear();
            block::encode(&delta.counts, &mut self.block);
            self.room(self.block.len());
            samples += delta.counts.total();
            self.open.samples += delta.counts.total();
            self.open.histograms.push(HistogramDelta {
                instance: Arc::clone(instance),
                key: Arc::clone(&delta.key),
                block: self.block.as_slice().into(),
            });
        }
        for delta in &harvest.requests {
            self.room(0);
            self.open.requests.push(RequestDelta {
                instance: Arc::clone(instance),
                slice: delta.slice.clone(),
                arm: delta.arm,
                ok: delta.ok,
                error: delta.error,
            });
        }
        for reading in &harvest.gauges {
            self.room(0);
            self.open.gauges.push(GaugeValue {
                instance: Arc::clone(instance),
                name: Label::lossy(&reading.name),
                value: reading.value,
            });
        }
        samples
    }

    /// Closes the open record when the next entry would make it too large for a frame.
    fn room(&mut self, bytes: usize) {
        let open = &self.open;
        let entries = open.histograms.len() + open.requests.len() + open.gauges.len();
        if entries >= RECORD_ENTRIES_MAX || self.bytes + bytes > RECORD_BYTES_MAX {
            let fresh = empty(self.start, self.duration, self.clock);
            self.done.push(std::mem::replace(&mut self.open, fresh));
            self.bytes = 0;
        }
        self.bytes += bytes + 8;
    }

    fn finish(mut self) -> Vec<Record> {
        let open = &self.open;
        if !(open.histograms.is_empty() && open.requests.is_empty() && open.gauges.is_empty()) {
            self.done.push(self.open);
        }
        self.done
    }
}

const fn empty(start: UnixNanos, duration: Nanos, clock: ClockOffset) -> Record {
    Record {
        start,
        duration,
        clock,
        histograms: Vec::new(),
        requests: Vec::new(),
        gauges: Vec::new(),
        samples: 0,
    }
}
