//! Where foreign samples go: into a segment of the agent's own, which the harvester reads as any
//! other.
//!
//! Why a segment: its counters outlive the process, so what was answered OK is not lost with a killed
//! agent, and there is one way from here on instead of two.
//! Promise: a message is taken whole or, when the harvester is behind, not at all and to be sent
//! again. No counter grows by more between two harvests than a harvest can tell.
//! Bounds: 256 series, 128 request counters, 64 gauges (those of a segment); 2^30 samples not yet
//! harvested. Usable from any thread; a thread has a shard of its own or shares the last one.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use lens_model::{Arm, SeriesKey, Slice};
use lens_segment::{CreateError, Gauge, Node, Recorder, RecorderOptions, Requests, Series};
use parking_lot::RwLock;
use serde_json::{Value, json};

use super::reading::{Counts, Point, Reading, Request, Source};
use super::refusal::Refusal;
use super::unit::Carry;
use crate::status::Status;

/// The name the segment's samples go under, beside the search nodes' own.
pub const INSTANCE: &str = "ingest";

/// Samples taken in and not yet harvested beyond which senders are told to come back: half of what a
/// harvest may find one counter grown by.
pub const UNHARVESTED_MAX: u64 = 1 << 30;

/// Error above which a series is of low resolution, as a share of the value.
pub const LOW_RESOLUTION: f64 = 0.05;

/// The gauge that carries the number of series of low resolution to the aggregator.
pub const LOW_RESOLUTION_GAUGE: &str = "ingest_low_resolution_series";

/// The harvester is behind: nothing was counted, all may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{UNHARVESTED_MAX} samples wait for the harvester: send again later")]
pub struct Busy;

/// A series with what is known of where its samples came from.
#[derive(Debug)]
struct Entry {
    series: Series,
    carry: Carry,
    samples: AtomicU64,
    coarse_samples: AtomicU64,
    sources: AtomicU8,
    error_ppm_max: AtomicU64,
}

/// The request counters of a slice and arm.
struct Outcomes {
    requests: Requests,
    carry: [Carry; 2],
}

impl Outcomes {
    fn count(&self, request: &Request) {
        let count = u64::from(self.carry[usize::from(request.failed)].add(request.weight));
        match request.failed {
            false => self.requests.add(count, 0),
            true => self.requests.add(0, count),
        }
    }
}

/// The segment and what was registered in it.
pub struct Sink {
    recorder: Recorder,
    status: Arc<Status>,
    file: String,
    recorded: AtomicU64,
    harvested: AtomicU64,
    series: RwLock<HashMap<SeriesKey, Arc<Entry>>>,
    requests: RwLock<HashMap<(Slice, Arm), Outcomes>>,
    gauges: RwLock<HashMap<String, Gauge>>,
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sink").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Sink {
    /// Creates the segment in `dir`.
    ///
    /// # Errors
    /// [`CreateError`].
    pub fn create(dir: &Path, status: Arc<Status>) -> Result<Self, CreateError> {
        let node =
            Node { service: "lens-ingest", version: env!("CARGO_PKG_VERSION"), instance: INSTANCE };
        let recorder = Recorder::create_with(dir, node, RecorderOptions::default())?;
        let name = recorder.path().file_name();
        let file = name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Self {
            recorder,
            status,
            file,
            recorded: AtomicU64::new(0),
            harvested: AtomicU64::new(0),
            series: RwLock::default(),
            requests: RwLock::default(),
            gauges: RwLock::default(),
        })
    }

    /// Counts everything that was read; samples counted. What finds no place is added to the
    /// reading's refusals.
    ///
    /// # Errors
    /// [`Busy`]: then nothing was counted.
    pub fn take(&self, reading: &mut Reading) -> Result<u64, Busy> {
        let points = std::mem::take(&mut reading.points);
        let ceiling = points.iter().map(|point| point.counts.ceiling()).sum();
        if ceiling > UNHARVESTED_MAX {
            // It would never be let in.
            reading.refused.add(Refusal::TooMany, points.len() as u64);
            return Ok(0);
        }
        self.admit(ceiling)?;
        let mut counted = 0;
        for point in &points {
            match self.entry(&point.key) {
                Ok(entry) => counted += entry.record(point),
                Err(why) => reading.refused.add(why, 1),
            }
        }
        if points.iter().any(|point| point.counts.error() > LOW_RESOLUTION) {
            self.tell_low_resolution();
        }
        // What was admitted and not counted, for want of a place or of a whole weight, waits for
        // nobody.
        self.recorded.fetch_sub(ceiling - counted.min(ceiling), Ordering::Relaxed);
        for request in std::mem::take(&mut reading.requests) {
            if let Err(why) = self.count_request(&request) {
                reading.refused.add(why, 1);
            }
        }
        for (name, value) in std::mem::take(&mut reading.gauges) {
            if self.gauge(&name).map(|gauge| gauge.set(value)).is_err() {
                reading.refused.add(Refusal::GaugeName, 1);
            }
        }
        Ok(counted)
    }

    /// Lets in so many samples, unless too many wait.
    fn admit(&self, samples: u64) -> Result<(), Busy> {
        // Relaxed throughout: sums alone. Between the addition and a refusal others may be refused
        // too, which costs them a retry.
        let after = self.recorded.fetch_add(samples, Ordering::Relaxed) + samples;
        let waits = |harvested| after.saturating_sub(harvested) > UNHARVESTED_MAX;
        if waits(self.harvested.load(Ordering::Relaxed)) && waits(self.look_at_harvested()) {
            self.recorded.fetch_sub(samples, Ordering::Relaxed);
            return Err(Busy);
        }
        Ok(())
    }

    fn look_at_harvested(&self) -> u64 {
        let segments = self.status.segments.lock();
        let ours = segments.iter().find(|segment| segment.file == self.file);
        let harvested = ours.map_or(0, |segment| segment.samples);
        drop(segments);
        self.harvested.fetch_max(harvested, Ordering::Relaxed).max(harvested)
    }

    fn entry(&self, key: &SeriesKey) -> Result<Arc<Entry>, Refusal> {
        if let Some(entry) = self.series.read().get(key) {
            return Ok(Arc::clone(entry));
        }
        let mut series = self.series.write();
        if let Some(entry) = series.get(key) {
            return Ok(Arc::clone(entry));
        }
        let made = self
            .recorder
            .series_in_arm(&key.slice, key.stage, key.arm)
            .map_err(|_| Refusal::SeriesFull)?;
        let entry = Arc::new(Entry::new(made));
        series.insert(key.clone(), Arc::clone(&entry));
        Ok(entry)
    }

    fn count_request(&self, request: &Request) -> Result<(), Refusal> {
        let key = (request.slice.clone(), request.arm);
        if let Some(outcomes) = self.requests.read().get(&key) {
            outcomes.count(request);
            return Ok(());
        }
        let mut known = self.requests.write();
        if !known.contains_key(&key) {
            let made = self.recorder.requests_for(&request.slice, request.arm);
            let requests = made.map_err(|_| Refusal::SeriesFull)?;
            known.insert(key.clone(), Outcomes { requests, carry: Default::default() });
        }
        known.get(&key).into_iter().for_each(|outcomes| outcomes.count(request));
        Ok(())
    }

    fn gauge(&self, name: &str) -> Result<Gauge, Refusal> {
        if let Some(gauge) = self.gauges.read().get(name) {
            return Ok(gauge.clone());
        }
        let gauge = self.recorder.try_gauge(name).map_err(|_| Refusal::GaugeName)?;
        self.gauges.write().insert(name.to_owned(), gauge.clone());
        Ok(gauge)
    }

    /// Tells the aggregator, as a gauge of this host, how many series are of low resolution.
    fn tell_low_resolution(&self) {
        let coarse = self.shown_series().iter().filter(|shown| shown.low_resolution()).count();
        // At most 256 series. A table of gauges that is full is told of by `/status` alone.
        #[allow(clippy::cast_precision_loss)]
        if let Ok(gauge) = self.gauge(LOW_RESOLUTION_GAUGE) {
            gauge.set(coarse as f64);
        }
    }

    /// Samples not yet harvested.
    pub fn unharvested(&self) -> u64 {
        let harvested = self.look_at_harvested();
        self.recorded.load(Ordering::Relaxed).saturating_sub(harvested)
    }

    /// The segment as `/status` shows it.
    pub fn show(&self) -> Value {
        json!({
            "segment": self.file,
            "instance": INSTANCE,
            "samples_total": self.recorded.load(Ordering::Relaxed),
            "samples_unharvested": self.unharvested(),
            "samples_unharvested_max": UNHARVESTED_MAX,
        })
    }

    /// Every series with where its samples came from, ordered.
    pub fn shown_series(&self) -> Vec<Shown> {
        let mut all: Vec<_> = self.series.read().values().map(|entry| entry.show()).collect();
        all.sort_by(|a, b| a.key.cmp(&b.key));
        all
    }
}

impl Entry {
    fn new(series: Series) -> Self {
        Self {
            series,
            carry: Carry::default(),
            samples: AtomicU64::new(0),
            coarse_samples: AtomicU64::new(0),
            sources: AtomicU8::new(0),
            error_ppm_max: AtomicU64::new(0),
        }
    }

    fn record(&self, point: &Point) -> u64 {
        let one;
        let counts = match &point.counts {
            Counts::Many(many) => many.counts.as_slice(),
            Counts::One { nanos, weight } => {
                one = [(*nanos, self.carry.add(*weight))];
                &one
            }
        };
        let mut samples = 0;
        for (nanos, count) in counts {
            // Each is at most POINT_SAMPLES_MAX, a quarter of what is taken at once.
            if self.series.record_many(*nanos, *count).is_ok() {
                samples += u64::from(*count);
            }
        }
        // The slowest of each second stays, as of what nodes record under traces.
        for slow in &point.slow {
            self.series.exemplify(slow.nanos, &slow.trace, slow.at);
        }
        let error = point.counts.error();
        self.samples.fetch_add(samples, Ordering::Relaxed);
        self.sources.fetch_or(point.source.bit(), Ordering::Relaxed);
        self.error_ppm_max.fetch_max(super::unit::whole(error * 1e6), Ordering::Relaxed);
        if error > LOW_RESOLUTION {
            self.coarse_samples.fetch_add(samples, Ordering::Relaxed);
        }
        samples
    }

    fn show(&self) -> Shown {
        let sources = self.sources.load(Ordering::Relaxed);
        let of = |source: &&Source| sources & source.bit() != 0;
        Shown {
            key: self.series.key().clone(),
            samples: self.samples.load(Ordering::Relaxed),
            coarse_samples: self.coarse_samples.load(Ordering::Relaxed),
            error: self.error_ppm_max.load(Ordering::Relaxed) as f64 / 1e6,
            sources: Source::ALL.iter().filter(of).map(|source| source.label()).collect(),
        }
    }
}

/// A series as it is shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    /// What it counts.
    pub key: SeriesKey,
    /// Samples taken into it.
    pub samples: u64,
    /// Those of them whose value is known to no better than [`LOW_RESOLUTION`].
    pub coarse_samples: u64,
    /// Most a value of it may be off, as a share of itself.
    pub error: f64,
    /// Where its samples came from. More than one counts the same request twice, unless the senders
    /// are different processes.
    pub sources: Vec<&'static str>,
}

impl Shown {
    /// Whether some of its samples are of low resolution.
    pub fn low_resolution(&self) -> bool {
        self.coarse_samples > 0
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        json!({
            "slice": self.key.slice,
            "stage": self.key.stage,
            "arm": self.key.arm,
            "samples_total": self.samples,
            "low_resolution": self.low_resolution(),
            "low_resolution_samples_total": self.coarse_samples,
            "error_percent_max": self.error * 100.0,
            "sources": self.sources,
            "several_sources": self.sources.len() > 1,
        })
    }
}
