//! What one latency sample and one stage boundary cost the node that records them.
//!
//! Beside `hdrhistogram` (the recorder most Rust services use) and the OpenTelemetry SDK's
//! histogram with four attributes. See benches/README.md for the method.

mod common;

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use lens_model::limits::LATENCY_NANOS_MAX;
use lens_model::{Slice, Stage};
use lens_segment::{Node, Recorder, Series, Trace};
use opentelemetry::KeyValue;
use opentelemetry::metrics::MeterProvider as _;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider, Temporality};

use common::measure::{Suite, nanos, pin, prefer, processors, timed};
use common::report::{Report, Target};
use common::{Options, Outcome, data};

/// Stages a pass: a pass of the boundary cases takes about 60 µs.
const STAGES: usize = 1_024;

/// Loads that wait for each other, in place of a stage's work: some 50 ns.
const LOADS: usize = 24;

fn main() -> Outcome {
    let options = Options::read();
    let mut report = Report::new("record", options);
    let (here, there) = processors();
    let values = data::latencies()?;
    let dir = tempfile::Builder::new().prefix("lens-bench-").tempdir_in(shared_memory())?;
    let node = Node { service: "lens", version: "1", instance: "bench" };
    let recorder = Recorder::create(dir.path(), node)?;
    let slice = Slice::new("backend", "rust", "large")?;
    let series = recorder.series(&slice, Stage::A)?;
    let next = recorder.series(&slice, Stage::B)?;
    let partner = Partner::start(series.clone(), values.clone(), there);
    if !pin(here) {
        report.note("threads could not be pinned: expect more noise");
    }
    if !prefer() {
        report.note("no privilege to run before others: expect more noise");
    }
    values_alone(&mut report, options, &values, &series, &partner)?;
    stage_boundaries(&mut report, options, &series, &next)?;
    report.note(format!("stage clock: {:?}", recorder.stage_clock()));
    partner.stop();
    report.finish()
}

/// A tmpfs where there is one, as a node would use.
fn shared_memory() -> std::path::PathBuf {
    let shm = std::path::PathBuf::from("/dev/shm");
    if shm.is_dir() { shm } else { std::env::temp_dir() }
}

fn hdr(digits: u8) -> Outcome<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, LATENCY_NANOS_MAX, digits)?)
}

/// One value at a time, nothing else: the cost of recording alone.
fn values_alone(
    report: &mut Report,
    options: Options,
    values: &[u64],
    series: &Series,
    partner: &Partner,
) -> Outcome {
    let count = values.len();
    let (mut three, mut two) = (hdr(3)?, hdr(2)?);
    let provider = SdkMeterProvider::builder()
        .with_reader(PeriodicReader::builder(Nowhere).with_interval(NEVER).build())
        .build();
    let otel = provider.meter("lens").f64_histogram("lens.stage.duration").build();
    let attributes = ["slice", "stage", "arm", "service"].map(|key| KeyValue::new(key, "value"));
    let as_seconds = |nanos: u64| Duration::from_nanos(nanos).as_secs_f64();
    let seconds: Vec<f64> = values.iter().copied().map(as_seconds).collect();

    let trace = Trace::new([7; 16], [1; 8]).ok_or("a trace")?;
    let mut suite = Suite::new(Duration::from_micros(300));
    let reference = suite.case(None, count, |passes| {
        timed(|| each(passes, values, |value| three.record(value).unwrap_or_default()))
    });
    let coarse = suite.case(Some(reference), count, |passes| {
        timed(|| each(passes, values, |value| two.record(value).unwrap_or_default()))
    });
    let nothing = suite.case(Some(reference), count, |passes| {
        timed(|| {
            each(passes, values, |value| {
                black_box(value);
            })
        })
    });
    let in_hand = suite.case(Some(reference), count, |passes| {
        let local = series.local();
        timed(|| each(passes, values, |value| local.record(value)))
    });
    let in_hand_two_digits = suite.case(Some(coarse), count, |passes| {
        let local = series.local();
        timed(|| each(passes, values, |value| local.record(value)))
    });
    let public = suite.case(Some(reference), count, |passes| {
        timed(|| each(passes, values, |value| series.record(value)))
    });
    let otel_record =
        |passes| timed(|| each(passes, &seconds, |value| otel.record(value, &attributes)));
    let otel_four = suite.case(Some(reference), count, otel_record);
    let public_otel = suite.case(Some(otel_four), count, |passes| {
        timed(|| each(passes, values, |value| series.record(value)))
    });
    let traced = suite.case(Some(public), count, |passes| {
        timed(|| each(passes, values, |value| series.record_traced(value, &trace)))
    });
    let pair = suite.case(Some(public), count, |passes| {
        partner.beside(|| timed(|| each(passes, values, |value| series.record(value))))
    });
    suite.run(options.pick(400, 20), options.pick(Duration::from_secs(30), Duration::from_secs(2)));

    report.plain("hdrhistogram 3 digits, record", suite.measured(reference).value, "ns");
    report.beside("hdrhistogram 2 digits, record", suite.measured(coarse), "hdr 3 digits", None);
    report.beside(
        "OpenTelemetry histogram, 4 attributes",
        suite.measured(otel_four),
        "hdr 3 digits",
        None,
    );
    report.beside("reading the value alone", suite.measured(nothing), "hdr 3 digits", None);
    let ratio = |limit| Some(Target::Ratio(limit));
    report.beside("record, in hand", suite.measured(in_hand), "hdr 3 digits", ratio(0.30));
    report.beside("record, in hand", suite.measured(in_hand_two_digits), "hdr 2 digits", None);
    report.beside("record, thread-local", suite.measured(public), "hdr 3 digits", ratio(0.40));
    report.beside(
        "record, thread-local",
        suite.measured(public_otel),
        "OpenTelemetry 4 attributes",
        ratio(0.01),
    );
    report.beside(
        "record, two threads on one series",
        suite.measured(pair),
        "one thread",
        ratio(1.1),
    );
    report.beside("record under a trace", suite.measured(traced), "record, thread-local", None);
    let overlapped = partner.overlapped();
    report.note(format!("two threads really ran together in {overlapped:.0} % of the samples"));
    provider.shutdown()?;
    Ok(())
}

#[inline(always)]
fn each<T: Copy>(passes: u64, values: &[T], mut record: impl FnMut(T)) {
    for _ in 0..passes {
        for &value in black_box(values) {
            record(value);
        }
    }
}

/// A stage boundary inside work, as the difference between work with and without it.
fn stage_boundaries(
    report: &mut Report,
    options: Options,
    series: &Series,
    next: &Series,
) -> Outcome {
    let work = Work::new();
    let mut histogram = hdr(3)?;
    let bare = std::cell::RefCell::new(hdr(3)?);
    let mut suite = Suite::new(Duration::from_micros(250));
    let control = suite.case(None, STAGES, |passes| work.alone(passes));
    let peer = suite.case(None, STAGES, |passes| {
        work.marginal(passes, |at| {
            let start = Instant::now();
            let at = work.stage(at);
            let took = start.elapsed();
            #[allow(clippy::cast_possible_truncation)]
            histogram.record(took.as_nanos() as u64).unwrap_or_default();
            at
        })
    });
    let lap = suite.case(Some(peer), STAGES, |passes| {
        let mut timer = series.start();
        let mut turn = false;
        let marginal = work.marginal(passes, |at| {
            let at = work.stage(at);
            turn = !turn;
            black_box(timer.lap(if turn { next } else { series }));
            at
        });
        timer.stop();
        marginal
    });
    let guard = suite.case(Some(peer), STAGES, |passes| {
        work.marginal(passes, |at| {
            let timer = series.start();
            let at = work.stage(at);
            black_box(timer.stop());
            at
        })
    });
    // Nothing between the boundaries: what a lap takes when no work hides it.
    let bare_peer = suite.case(None, STAGES, |passes| {
        let mut histogram = bare.borrow_mut();
        timed(|| {
            for _ in 0..passes * STAGES as u64 {
                let start = Instant::now();
                #[allow(clippy::cast_possible_truncation)]
                let took = black_box(start).elapsed().as_nanos() as u64;
                histogram.record(took).unwrap_or_default();
            }
        })
    });
    let bare_lap = suite.case(Some(bare_peer), STAGES, |passes| {
        let mut timer = series.start();
        let took = timed(|| {
            for _ in 0..passes * STAGES as u64 {
                black_box(timer.lap(series));
            }
        });
        timer.stop();
        took
    });
    suite.run(options.pick(400, 20), options.pick(Duration::from_secs(20), Duration::from_secs(2)));
    report.plain("a stage's work, unmeasured", suite.measured(control).value, "ns");
    report.plain("two Instants and hdr 3, marginal", suite.measured(peer).value, "ns");
    let peer = "Instants and hdr 3";
    report.beside("lap, marginal", suite.measured(lap), peer, Some(Target::Ratio(0.20)));
    report.plain("two Instants and hdr 3, no work", suite.measured(bare_peer).value, "ns");
    report.beside("lap, no work to hide it", suite.measured(bare_lap), "the same, no work", None);
    report.beside("start and stop, marginal", suite.measured(guard), peer, None);
    Ok(())
}

/// Stands for what a stage does: loads of which each gives the address of the next.
struct Work {
    chain: Vec<u32>,
}

impl Work {
    /// A walk over 4 KiB, which stays in the nearest cache.
    fn new() -> Self {
        let len = 1_024_u32;
        Self { chain: (0..len).map(|at| (at * 5 + 7) % len).collect() }
    }

    /// Never inlined: with and without a measurement around it, it is the same code.
    #[inline(never)]
    fn stage(&self, mut at: usize) -> usize {
        let chain = &self.chain[..];
        for _ in 0..LOADS {
            at = chain[at & 1_023] as usize;
        }
        at
    }

    #[inline(never)]
    fn alone(&self, passes: u64) -> f64 {
        timed(|| self.stages(passes, |at| self.stage(at)))
    }

    #[inline(always)]
    fn stages(&self, passes: u64, mut stage: impl FnMut(usize) -> usize) {
        let mut at = black_box(1);
        for _ in 0..passes {
            for _ in 0..STAGES {
                at = stage(at);
            }
        }
        black_box(at);
    }

    /// Nanoseconds that `stage` takes beyond its work: half of the control before, half after.
    #[inline(always)]
    fn marginal(&self, passes: u64, stage: impl FnMut(usize) -> usize) -> f64 {
        let before = self.alone(passes);
        let with = timed(|| self.stages(passes, stage));
        let after = self.alone(passes);
        with - before.min(after)
    }
}

/// A thread on the other processor that records into the same series while asked to.
struct Partner {
    thread: Thread,
    shared: std::sync::Arc<Shared>,
    samples: std::cell::RefCell<Vec<f64>>,
}

#[derive(Default)]
struct Shared {
    wanted: AtomicBool,
    stopped: AtomicBool,
    passes: AtomicU64,
}

impl Partner {
    fn start(series: Series, values: Vec<u64>, cpu: usize) -> Self {
        let shared = std::sync::Arc::new(Shared::default());
        let theirs = std::sync::Arc::clone(&shared);
        let handle = std::thread::spawn(move || {
            pin(cpu);
            prefer();
            while !theirs.stopped.load(Ordering::Acquire) {
                if !theirs.wanted.load(Ordering::Acquire) {
                    std::thread::park();
                    continue;
                }
                each(1, &values, |value| series.record(value));
                theirs.passes.fetch_add(1, Ordering::Release);
            }
        });
        Self { thread: handle.thread().clone(), shared, samples: std::cell::RefCell::default() }
    }

    /// Runs `sample` while the partner records; tries again when the partner hardly ran.
    fn beside(&self, mut sample: impl FnMut() -> f64) -> f64 {
        let passes = || self.shared.passes.load(Ordering::Acquire);
        let before = passes();
        self.shared.wanted.store(true, Ordering::Release);
        self.thread.unpark();
        let asked = Instant::now();
        while passes() == before && asked.elapsed() < Duration::from_millis(20) {
            std::hint::spin_loop();
        }
        let mut took = f64::NAN;
        for _ in 0..4 {
            let (first, start) = (passes(), Instant::now());
            took = sample();
            #[allow(clippy::cast_precision_loss)]
            let rate = (passes() - first) as f64 / nanos(start.elapsed());
            // At full speed a pass of the partner takes well below 16 µs.
            let together = rate > 1.0 / 16_000.0;
            self.samples.borrow_mut().push(f64::from(u8::from(together)));
            if together {
                break;
            }
        }
        self.shared.wanted.store(false, Ordering::Release);
        took
    }

    /// The share of samples in which both threads ran, percent.
    fn overlapped(&self) -> f64 {
        let samples = self.samples.borrow();
        #[allow(clippy::cast_precision_loss)]
        let all = samples.len() as f64;
        samples.iter().sum::<f64>() / all * 100.0
    }

    fn stop(&self) {
        self.shared.stopped.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// So long an interval that nothing is collected during a run.
const NEVER: Duration = Duration::from_secs(86_400);

/// An exporter that drops what it gets: the SDK records nothing without one.
struct Nowhere;

impl PushMetricExporter for Nowhere {
    async fn export(&self, _: &ResourceMetrics) -> OTelSdkResult {
        Ok(())
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn temporality(&self) -> Temporality {
        Temporality::Delta
    }
}
