//! Records synthetic latencies through the recorder, as a node would, and says exactly what.
//!
//! Every value is kept, so the report has counts and quantiles that are exact, to hold beside
//! whatever a receiver made of the same recordings.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use lens_model::{Arm, InstanceName, SeriesKey, Slice, Stage};
use lens_segment::{Node, Recorder, RecorderOptions, RegisterError, Requests, Series};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::pace::wait_until;
pub use super::record_report::{RecordError, RecordReport, RecordedRequests, RecordedSeries};
use super::{Arrival, Distribution, Sampler, Schedule, VALUES_MAX};
use crate::numbers::{millis, whole};
use crate::{Quantiles, Regression};

/// Service name of synthetic recordings.
const SERVICE: &str = "lens";

/// What to record.
#[derive(Clone, Debug)]
pub struct RecordLoad {
    /// Where the segment is created.
    pub dir: PathBuf,
    /// The instance it is created for.
    pub instance: InstanceName,
    /// The version it says it runs.
    pub version: String,
    /// Slices, chosen evenly for each request.
    pub slices: Vec<Slice>,
    /// Stages recorded for each request; the end-to-end latency is the sum of the others, or
    /// drawn itself when it is the only one.
    pub stages: Vec<Stage>,
    /// Arms that get requests.
    pub arms: Vec<Arm>,
    /// Share of the canary when both arms get requests.
    pub canary_share: f64,
    /// Requests a second.
    pub rate: f64,
    /// How requests arrive.
    pub arrival: Arrival,
    /// How long.
    pub duration: Duration,
    /// How latencies are distributed, for each stage.
    pub distribution: Distribution,
    /// Stages that become slower.
    pub regress: Vec<Regression>,
    /// Share of requests that fail; their latencies are recorded like others.
    pub errors: f64,
    /// Where all choices come from.
    pub seed: u64,
    /// Where every value is written as CSV.
    pub raw_out: Option<PathBuf>,
    /// Record at the intended times; otherwise as fast as possible.
    pub paced: bool,
}

/// Records until the schedule ends or `stop` is set. Blocks the calling thread.
///
/// # Errors
/// [`RecordError`] when the load makes no sense, or the segment or a file cannot be used.
pub fn run(load: &RecordLoad, stop: &AtomicBool) -> Result<RecordReport, RecordError> {
    load.check()?;
    let mut lanes = Lanes::open(load)?;
    let mut raw = RawOut::create(load)?;
    // Each purpose has its own generator, so that one more choice here leaves the others alone.
    let mut choices = StdRng::seed_from_u64(load.seed.wrapping_add(1));
    let mut values = StdRng::seed_from_u64(load.seed.wrapping_add(2));
    let start = Instant::now();
    let mut requests_total = 0;
    let mut stopped_early = false;
    for at in Schedule::new(load.arrival, load.rate, load.duration, load.seed) {
        // Unpaced, every start has come already; only the order to stop is looked at.
        let due = if load.paced { at } else { 0 };
        if !wait_until(start, due, stop) {
            stopped_early = true;
            break;
        }
        let slice = choices.random_range(0..load.slices.len());
        let arm = load.choose_arm(choices.random());
        let ok = choices.random::<f64>() >= load.errors;
        let lane = lanes.of(slice, arm);
        lane.request(load, at, &mut values, ok, |stage, nanos| {
            raw.write(at, &load.slices[slice], stage, arm, load.instance.as_str(), nanos, ok)
        })
        .map_err(|source| raw_out_error(load, source))?;
        requests_total += 1;
    }
    raw.finish().map_err(|source| raw_out_error(load, source))?;
    Ok(lanes.report(load, requests_total, start.elapsed().as_secs_f64(), stopped_early))
}

fn raw_out_error(load: &RecordLoad, source: std::io::Error) -> RecordError {
    RecordError::RawOut { path: load.raw_out.clone().unwrap_or_default(), source }
}

impl RecordLoad {
    fn check(&self) -> Result<(), RecordError> {
        for (what, empty) in [
            ("slices", self.slices.is_empty()),
            ("stages", self.stages.is_empty()),
            ("arms", self.arms.is_empty()),
        ] {
            if empty {
                return Err(RecordError::Nothing { what });
            }
        }
        let values = whole(self.rate * self.duration.as_secs_f64() * self.stages.len() as f64);
        if values > VALUES_MAX as u64 {
            return Err(RecordError::TooMany { values });
        }
        Ok(())
    }

    /// The arm of a request, by a number drawn from 0 to 1.
    fn choose_arm(&self, drawn: f64) -> Arm {
        match self.arms.as_slice() {
            [only] => *only,
            _ if drawn < self.canary_share => Arm::Canary,
            _ => Arm::Baseline,
        }
    }

    /// Nanoseconds of a stage at a time of the run, regressions applied.
    fn slowed(&self, nanos: u64, stage: Stage, arm: Arm, at: u64) -> u64 {
        let since_start = Duration::from_nanos(at);
        let factor = Regression::factor_of(&self.regress, stage, arm, since_start);
        if factor == 1.0 { nanos } else { whole(nanos as f64 * factor) }
    }
}

/// What one slice and arm record into.
struct Lane {
    slice: Slice,
    arm: Arm,
    stages: Vec<LaneStage>,
    requests: Requests,
    ok: u64,
    error: u64,
}

struct LaneStage {
    stage: Stage,
    series: Series,
    sampler: Sampler,
    values: Vec<u64>,
}

impl Lane {
    /// Draws and records the stages of one request.
    fn request(
        &mut self,
        load: &RecordLoad,
        at: u64,
        rng: &mut StdRng,
        ok: bool,
        mut wrote: impl FnMut(Stage, u64) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        let mut sum = 0_u64;
        let alone = self.stages.len() == 1;
        for lane in &mut self.stages {
            let nanos = if lane.stage == Stage::E2e && !alone {
                sum
            } else {
                load.slowed(lane.sampler.sample(rng), lane.stage, self.arm, at)
            };
            sum = sum.saturating_add(nanos);
            lane.series.record(nanos);
            lane.values.push(nanos);
            wrote(lane.stage, nanos)?;
        }
        if ok {
            self.requests.ok();
            self.ok += 1;
        } else {
            self.requests.error();
            self.error += 1;
        }
        Ok(())
    }
}

/// All slices and arms, arm by arm within a slice.
struct Lanes {
    lanes: Vec<Lane>,
    arms: Vec<Arm>,
    /// Keeps the segment open to the end.
    _recorder: Recorder,
}

impl Lanes {
    fn open(load: &RecordLoad) -> Result<Self, RecordError> {
        let refused = |source| RecordError::Recorder { dir: load.dir.clone(), source };
        let failed = |source: RegisterError| refused(source.into());
        let node =
            Node { service: SERVICE, version: &load.version, instance: load.instance.as_str() };
        let recorder = Recorder::create_with(&load.dir, node, RecorderOptions::default())
            .map_err(|source| refused(source.into()))?;
        let sampler = load.distribution.sampler()?;
        // The end-to-end stage is last in order, after the stages it is the sum of.
        let mut stages = load.stages.clone();
        stages.sort_unstable();
        stages.dedup();
        let mut arms = load.arms.clone();
        arms.sort_unstable();
        arms.dedup();
        let mut lanes = Vec::new();
        for slice in &load.slices {
            for arm in &arms {
                let stages = stages
                    .iter()
                    .map(|stage| {
                        Ok(LaneStage {
                            stage: *stage,
                            series: recorder.series_in_arm(slice, *stage, *arm).map_err(failed)?,
                            sampler: sampler.clone(),
                            values: Vec::new(),
                        })
                    })
                    .collect::<Result<_, RecordError>>()?;
                let requests = recorder.requests_for(slice, *arm).map_err(failed)?;
                let slice = slice.clone();
                lanes.push(Lane { slice, arm: *arm, stages, requests, ok: 0, error: 0 });
            }
        }
        Ok(Self { lanes, arms, _recorder: recorder })
    }

    fn of(&mut self, slice: usize, arm: Arm) -> &mut Lane {
        let within = self.arms.iter().position(|held| *held == arm).unwrap_or(0);
        &mut self.lanes[slice * self.arms.len() + within]
    }

    fn report(
        self,
        load: &RecordLoad,
        requests_total: u64,
        elapsed_s: f64,
        stopped_early: bool,
    ) -> RecordReport {
        // A slice that was named twice has two lanes and one series.
        let mut values: BTreeMap<SeriesKey, Vec<u64>> = BTreeMap::new();
        let mut requests: BTreeMap<(Slice, Arm), (u64, u64)> = BTreeMap::new();
        for lane in self.lanes {
            for stage in lane.stages {
                let slice = lane.slice.clone();
                let key = SeriesKey { slice, stage: stage.stage, arm: lane.arm };
                values.entry(key).or_default().extend(stage.values);
            }
            let counts = requests.entry((lane.slice, lane.arm)).or_default();
            counts.0 += lane.ok;
            counts.1 += lane.error;
        }
        let series: Vec<RecordedSeries> = values
            .into_iter()
            .map(|(key, mut values)| RecordedSeries { key, quantiles: Quantiles::of(&mut values) })
            .collect();
        let requests = requests.into_iter().map(|((slice, arm), (ok, error))| RecordedRequests {
            slice,
            arm,
            ok,
            error,
        });
        RecordReport {
            seed: load.seed,
            instance: load.instance.clone(),
            requests_total,
            recorded_total: series.iter().map(|series| series.quantiles.count).sum(),
            elapsed_s,
            stopped_early,
            series,
            requests: requests.collect(),
        }
    }
}

/// The file of raw values, if one was named: `t_ms,slice,stage,arm,host,latency_ms,ok`.
struct RawOut(Option<BufWriter<std::fs::File>>);

impl RawOut {
    fn create(load: &RecordLoad) -> Result<Self, RecordError> {
        let Some(path) = &load.raw_out else {
            return Ok(Self(None));
        };
        let open = || {
            let mut out = BufWriter::new(std::fs::File::create(path)?);
            writeln!(out, "t_ms,slice,stage,arm,host,latency_ms,ok")?;
            Ok(Self(Some(out)))
        };
        open().map_err(|source| raw_out_error(load, source))
    }

    #[expect(clippy::too_many_arguments, reason = "one per column")]
    fn write(
        &mut self,
        at: u64,
        slice: &Slice,
        stage: Stage,
        arm: Arm,
        host: &str,
        nanos: u64,
        ok: bool,
    ) -> std::io::Result<()> {
        let Some(out) = &mut self.0 else {
            return Ok(());
        };
        let (t_ms, latency_ms) = (millis(at), millis(nanos));
        writeln!(out, "{t_ms:.6},{slice},{stage},{arm},{host},{latency_ms:.6},{ok}")
    }

    fn finish(self) -> std::io::Result<()> {
        self.0.map_or(Ok(()), |mut out| out.flush())
    }
}
