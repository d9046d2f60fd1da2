//! Reading segments: what was counted since the last time, and only then a new baseline.
//!
//! A harvest is read from every segment, turned into records, made durable in the spool together
//! with what the baselines grow by, and only then committed: so that what could not be spooled is
//! simply read again, larger, the next time, by this process or the next. A segment that makes no
//! sense is quarantined with its reason; one whose process is dead is drained once more and removed
//! when its counts are in the spool.
//! Units: nanoseconds by the agent's clock. Bounds: `AGENT_SEGMENTS_MAX` segments.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use lens_journal::AppendError;
use lens_model::limits::AGENT_SEGMENTS_MAX;
use lens_model::{Nanos, UnixNanos};
use lens_segment::{
    Baseline, Harvest, HarvestError, ReadPolicy, Scan, SegmentInfo, SegmentReader, scan,
};
use lens_service::env::Env;
use lens_service::planted::Planted;
use lens_wire::{ClockOffset, Instance, Label};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::exemplars::Waiting;
use crate::flags::Pages;
use crate::gather::Gathered;
use crate::spool::{DurableSpool, Harvested, SpoolError};
use crate::status::{Counters, SegmentStatus, Status};

#[derive(Debug)]
struct Held {
    reader: SegmentReader,
    instance: Arc<Instance>,
    /// When the baseline was last moved; `None` while it is that of the segment's creation or of
    /// another process.
    committed_at: Option<Instant>,
    /// Whether the segment says that this spool reads it.
    marked: bool,
    samples: u64,
    series: usize,
}

/// Why a segment is not read, and which one it is, where that is known.
#[derive(Debug)]
struct Quarantined {
    reason: String,
    segment: Option<u128>,
}

/// A segment as a harvest found it.
struct Read {
    path: PathBuf,
    dead: bool,
    samples: u64,
}

/// Everything the agent reads from.
#[derive(Debug)]
pub struct Harvester {
    env: Env,
    dir: PathBuf,
    policy: ReadPolicy,
    zone: Label,
    held: BTreeMap<PathBuf, Held>,
    quarantined: BTreeMap<PathBuf, Quarantined>,
    last: Option<UnixNanos>,
    /// Whether this process has harvested.
    harvested: bool,
    harvest: Harvest,
    status: Arc<Status>,
    spool: Arc<DurableSpool>,
    changed: Arc<Notify>,
    /// Where each node is told what the control plane decided.
    pages: Arc<Pages>,
    /// Where slow requests wait to be sent.
    slow: Arc<Waiting>,
}

impl Harvester {
    /// A harvester of the segments in `dir` that goes on where the spool's last harvest ended, and
    /// rings `changed` when there is more to send.
    pub fn new(
        env: Env,
        dir: PathBuf,
        zone: &str,
        status: Arc<Status>,
        spool: Arc<DurableSpool>,
        changed: Arc<Notify>,
    ) -> Self {
        Self {
            env,
            dir,
            policy: ReadPolicy::default(),
            zone: Label::lossy(zone),
            held: BTreeMap::new(),
            quarantined: BTreeMap::new(),
            last: spool.harvested(),
            harvested: false,
            harvest: Harvest::default(),
            status,
            spool,
            changed,
            pages: Arc::default(),
            slow: Arc::default(),
        }
    }

    /// The same, telling the nodes it finds through these pages.
    #[must_use]
    pub fn telling(mut self, pages: Arc<Pages>) -> Self {
        self.pages = pages;
        self
    }

    /// The same, handing on the slow requests it finds.
    #[must_use]
    pub fn exemplifying(mut self, slow: Arc<Waiting>) -> Self {
        self.slow = slow;
        self
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
        // No segment is marked as read before the mark itself is durable.
        if !self.begun() {
            return;
        }
        if found.left_out > 0 {
            self.status.drop_counted("more segments than an agent harvests");
        }
        self.quarantined.retain(|path, _| found.paths.contains(path));
        self.pages.keep(|path| found.paths.iter().any(|found| found == path));
        for path in &found.paths {
            let known = self.held.contains_key(path) || self.quarantined.contains_key(path);
            if known || self.held.len() >= AGENT_SEGMENTS_MAX {
                continue;
            }
            match SegmentReader::open(path, &self.policy) {
                Ok(reader) => self.hold(path.clone(), reader),
                Err(error) => self.quarantine(path, &error.to_string(), None),
            }
        }
        self.forget_gone(&found);
        if self.begun() {
            self.mark();
        }
        self.status.scanned.store(true, Ordering::Relaxed);
    }

    /// Makes the spool's beginning durable, or the baselines of segments taken over, where that is
    /// due.
    fn begun(&self) -> bool {
        let begun = self.spool.begin(&|| exports(&self.held));
        if let Err(error) = &begun {
            self.pause(error);
        }
        begun.is_ok()
    }

    /// Forgets how far segments were read that are no more, once it is sure that they are.
    fn forget_gone(&self, found: &Scan) {
        let known = |path: &PathBuf| {
            let quarantined = self.quarantined.get(path);
            self.held.contains_key(path) || quarantined.is_some_and(|q| q.segment.is_some())
        };
        // A directory that is empty may be one that is not mounted.
        let sure = found.left_out == 0 && !found.cut_short && !found.paths.is_empty();
        if sure && found.paths.iter().all(known) {
            let quarantined = || self.quarantined.values().filter_map(|q| q.segment);
            self.spool.forget_others(|segment| quarantined().any(|q| q == segment));
        }
    }

    /// Begins where an earlier process ended, as far as that is known; whether the segment may be
    /// marked at once.
    fn take_up(&mut self, path: &Path, reader: &mut SegmentReader) -> bool {
        let segment = reader.info().incarnation;
        let unknown = match self.spool.kept(segment) {
            Some(baseline) => match reader.baseline_import(&baseline) {
                Ok(()) => {
                    self.spool.hand_over(segment);
                    return true;
                }
                Err(error) => error.to_string(),
            },
            None => match reader.mark() {
                Ok(mark) if mark == 0 || mark == self.spool.origin() => return true,
                Ok(_) => "a spool that is lost, or another agent, has read it".to_owned(),
                Err(error) => error.to_string(),
            },
        };
        // What of the present counts was shipped is not known: none of them is shipped again. A
        // wrong sum would look like a right one.
        if reader.harvest(Nanos(u64::MAX), &mut self.harvest).is_ok() {
            reader.commit();
        }
        self.spool.hand_over(segment);
        self.spool.snapshot_next();
        let skipped = self.harvest.records;
        warn!(segment = %path.display(), unknown, skipped, "taken up at its present counts");
        Counters::add(&self.status.counters.segments_taken_over_total, 1);
        self.status.drop_counted("segment taken up at its present counts");
        false
    }

    fn hold(&mut self, path: PathBuf, mut reader: SegmentReader) {
        // Before anything else of it: a kill switch does not wait for a harvest.
        match reader.flag_page() {
            Ok(page) => self.pages.add(page),
            Err(error) => warn!(segment = %path.display(), %error, "no flag page"),
        }
        let markable = self.take_up(&path, &mut reader);
        let info = reader.info();
        let instance = Arc::new(instance(info, &self.zone));
        info!(instance = %instance.name, version = %instance.version, "segment found");
        let (committed_at, marked) = (None, false);
        let mut held = Held { reader, instance, committed_at, marked, samples: 0, series: 0 };
        if markable {
            held.mark(&path, self.spool.origin(), &self.status);
        }
        self.held.insert(path, held);
    }

    /// Marks segments taken over, their baselines now being durable.
    fn mark(&mut self) {
        for (path, held) in self.held.iter_mut().filter(|(_, held)| !held.marked) {
            held.mark(path, self.spool.origin(), &self.status);
        }
    }

    fn quarantine(&mut self, path: &Path, reason: &str, segment: Option<u128>) {
        warn!(segment = %path.display(), reason, "segment quarantined");
        self.status.drop_counted("segment quarantined");
        let quarantined = Quarantined { reason: reason.to_owned(), segment };
        self.quarantined.insert(path.to_owned(), quarantined);
    }

    /// Reads every segment once and spools what was counted since the last time.
    ///
    /// `now` is the end of the interval, `clock` the clocks as measured.
    pub fn harvest(&mut self, now: UnixNanos, clock: ClockOffset) {
        let began = Instant::now();
        if self.env.planted(Planted::CurrentSegmentOnly) {
            self.drop_older_segments();
        }
        let start = self.last.unwrap_or(now).min(now);
        let mut gathered = Gathered::new(start, now.since(start), clock);
        let read = self.read(&mut gathered, now);
        if self.env.planted(Planted::BaselineBeforeSpool) {
            self.held.values_mut().for_each(|held| held.reader.commit());
        }
        if self.spool(gathered.finish(), now) {
            self.commit(read, now, now.since(start));
            self.changed.notify_one();
        }
        *self.status.disk.lock() = self.spool.disk();
        self.show();
        let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.status.counters.harvest_nanos_last.store(took, Ordering::Relaxed);
    }

    fn read(&mut self, gathered: &mut Gathered, now: UnixNanos) -> Vec<Read> {
        let (mut read, mut failed) = (Vec::new(), Vec::new());
        for (path, held) in &mut self.held {
            // Asked before reading: what a process wrote before it died is then read below.
            let dead = matches!(held.reader.owner_alive(), Ok(false));
            let elapsed = match held.committed_at {
                Some(at) => Nanos::from(at.elapsed()),
                // The first harvest may be of everything since the segment was made.
                None => self.env.now().since(held.reader.info().created),
            };
            match held.reader.harvest(elapsed, &mut self.harvest) {
                Ok(()) => {
                    let samples = gathered.take(&held.instance, &held.reader, &self.harvest);
                    let gave_way = self.slow.offer(&held.instance, &self.harvest.exemplars, now);
                    Counters::add(&self.status.counters.exemplars_dropped_total, gave_way);
                    read.push(Read { path: path.clone(), dead, samples });
                }
                Err(HarvestError::Quarantined { why, .. }) => {
                    failed.push((path.clone(), why.to_string()));
                }
                Err(error) => {
                    warn!(%error, "segment not read this time");
                    self.status.drop_counted("segment not read");
                }
            }
        }
        for (path, reason) in failed {
            let segment = self.held.remove(&path).map(|held| {
                self.spool.keep(held.reader.baseline_export());
                held.reader.info().incarnation
            });
            self.quarantine(&path, &reason, segment);
        }
        read
    }

    /// Makes records durable; whether the baselines may move.
    fn spool(&self, records: Vec<Harvested>, now: UnixNanos) -> bool {
        let Err(error) = self.spool.append(records, now, &|| exports(&self.held)) else {
            *self.status.paused.lock() = None;
            return true;
        };
        // The baselines stay: the same counts are read again, with more, the next time.
        Counters::add(&self.status.counters.harvests_paused_total, 1);
        self.pause(&error);
        let full =
            matches!(error, SpoolError::Append(AppendError::Full { .. } | AppendError::DiskFull));
        full && self.env.planted(Planted::DropWhenFull)
    }

    fn pause(&self, error: &SpoolError) {
        let why = error.to_string();
        let before = self.status.paused.lock().replace(why.clone());
        if before.as_ref() != Some(&why) {
            warn!(error = why, "harvesting is paused; counts stay in the segments");
        }
    }

    fn commit(&mut self, read: Vec<Read>, now: UnixNanos, interval: Nanos) {
        let counters = &self.status.counters;
        if !std::mem::replace(&mut self.harvested, true) && self.last.is_some() {
            // The first harvest of this process covers the time in which there was none.
            counters.harvest_gap_nanos_max.fetch_max(interval.0, Ordering::Relaxed);
        }
        for Read { path, dead, samples } in read {
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
                remove(&path, held, &self.spool, &self.status);
            }
        }
        Counters::add(&counters.harvests_total, 1);
        self.last = Some(now);
    }

    /// The mistake of reading an instance's newest segment alone.
    fn drop_older_segments(&mut self) {
        let mut newest: BTreeMap<String, UnixNanos> = BTreeMap::new();
        for held in self.held.values() {
            let at = newest.entry(held.instance.name.to_string()).or_default();
            *at = (*at).max(held.reader.info().created);
        }
        let older = |held: &Held| {
            newest.get(held.instance.name.as_str()) != Some(&held.reader.info().created)
        };
        let paths: Vec<PathBuf> = self
            .held
            .iter()
            .filter(|(_, held)| older(held))
            .map(|(path, _)| path.clone())
            .collect();
        for path in paths {
            if let Some(held) = self.held.remove(&path) {
                remove(&path, held, &self.spool, &self.status);
            }
        }
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
        let quarantined = self.quarantined.iter().map(|(path, quarantined)| SegmentStatus {
            file: name(path),
            instance: String::new(),
            service: String::new(),
            version: String::new(),
            pid: 0,
            series: 0,
            samples: 0,
            state: "quarantined",
            reason: Some(quarantined.reason.clone()),
        });
        *self.status.segments.lock() = live.chain(quarantined).collect();
    }
}

impl Held {
    fn mark(&mut self, path: &Path, origin: u128, status: &Status) {
        self.marked = true;
        if let Err(error) = self.reader.set_mark(origin) {
            warn!(
                segment = %path.display(),
                %error,
                "not marked as read: were the spool lost, its counts would be taken again"
            );
            status.drop_counted("segment not marked");
        }
    }
}

/// The search node that a segment says it is of.
pub(crate) fn instance(info: &SegmentInfo, zone: &Label) -> Instance {
    Instance {
        name: info.instance.clone(),
        service: Label::lossy(&info.service),
        version: Label::lossy(&info.version),
        zone: zone.clone(),
    }
}

/// What readers have committed.
fn exports(held: &BTreeMap<PathBuf, Held>) -> Vec<Baseline> {
    held.values().map(|held| held.reader.baseline_export()).collect()
}

/// Removes the segment of a dead process, everything in it being durable in the spool.
fn remove(path: &Path, held: Held, spool: &DurableSpool, status: &Status) {
    info!(instance = %held.instance.name, "node gone: segment drained");
    let baseline = held.reader.baseline_export();
    match held.reader.remove() {
        Ok(()) => {
            spool.forget(baseline.incarnation);
            Counters::add(&status.counters.segments_removed_total, 1);
        }
        Err(error) => {
            warn!(segment = %path.display(), %error, "not removed");
            // It is found again by the next scan, and begun where it stands.
            spool.keep(baseline);
        }
    }
}
