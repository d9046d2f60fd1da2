//! What taking the counts out of a live segment costs the agent.
//!
//! The writer sits on the other processor and has just written, so every changed line comes from
//! its cache. Beside it: the two `pread`s a harvest cannot do without, and what `hdrhistogram`
//! offers for the same end, a clone and a reset under the recorder's lock.

mod common;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use hdrhistogram::Histogram;
use lens_hist::layout::SLOTS;
use lens_model::limits::LATENCY_NANOS_MAX;
use lens_model::{Nanos, SeriesKey};
use lens_segment::{Harvest, Node, ReadPolicy, Recorder, RecorderOptions, SegmentReader, Series};
use parking_lot::Mutex;

use common::measure::{median, pin, prefer, processors, timed};
use common::report::{Report, Target};
use common::{Options, Outcome, data};

/// Bytes of one block's counters, and the distance between blocks (docs/segment.md, "Layout").
const BLOCK_BYTES: usize = SLOTS * 4;
const BLOCK_STRIDE: usize = 15_424;
const SHARDS: usize = 4;

fn main() -> Outcome {
    let options = Options::read();
    let mut report = Report::new("harvest", options);
    let (here, there) = processors();
    let writer = Writer::start(data::latencies()?, there);
    if !pin(here) {
        report.note("threads could not be pinned: expect more noise");
    }
    if !prefer() {
        report.note("no privilege to run before others: expect more noise");
    }
    let rounds = options.pick(600, 60);
    for samples in [8_192, 100] {
        one_block(&mut report, &writer, samples, rounds)?;
    }
    for samples in [100, 1_000] {
        whole_segment(&mut report, &writer, samples, options.pick(200, 20))?;
    }
    report.note("shard: one block of 3,841 counters of one series and one writing thread");
    report.note("harvest includes the commit that makes it the baseline of the next");
    report.finish()
}

/// A segment with `series` of the 64 series registered, and its reader.
struct Segment {
    _dir: tempfile::TempDir,
    series: Vec<Series>,
    reader: SegmentReader,
    path: PathBuf,
}

impl Segment {
    fn new(keys: &[SeriesKey]) -> Outcome<Self> {
        let shm = PathBuf::from("/dev/shm");
        let parent = if shm.is_dir() { shm } else { std::env::temp_dir() };
        let dir = tempfile::Builder::new().prefix("lens-bench-").tempdir_in(parent)?;
        let node = Node { service: "lens", version: "1", instance: "bench" };
        let sizes = RecorderOptions {
            shards: SHARDS,
            series_max: keys.len(),
            ..RecorderOptions::default()
        };
        let recorder = Recorder::create_with(dir.path(), node, sizes)?;
        let register = |key: &SeriesKey| recorder.series_in_arm(&key.slice, key.stage, key.arm);
        let series = keys.iter().map(register).collect::<Result<Vec<_>, _>>()?;
        let reader = SegmentReader::open(recorder.path(), &ReadPolicy::default())?;
        let path = recorder.path().to_owned();
        Ok(Self { _dir: dir, series, reader, path })
    }

    /// One harvest and its commit: nanoseconds, and the samples it found.
    fn harvest(&mut self, into: &mut Harvest) -> Outcome<(f64, u64)> {
        let mut result = Ok(());
        let took = timed(|| {
            result = self.reader.harvest(Nanos::from_secs(1), into);
            self.reader.commit();
        });
        result?;
        Ok((took, into.records))
    }
}

/// One series, one shard, beside the reads alone and beside an hdrhistogram.
fn one_block(report: &mut Report, writer: &Writer, samples: usize, rounds: usize) -> Outcome {
    let mut segment = Segment::new(&data::keys()?[..1])?;
    let hdr = Arc::new(Mutex::new(Histogram::<u64>::new_with_bounds(1, LATENCY_NANOS_MAX, 2)?));
    let file = File::open(&segment.path)?;
    let block_at = last_blocks(&file, 1)?;
    let (mut found, mut buffer) = (Harvest::default(), vec![0_u8; BLOCK_BYTES]);
    let (mut ours, mut reads, mut clones) = (Vec::new(), Vec::new(), Vec::new());
    let (mut to_reads, mut to_clone, mut idle) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        writer.write(&segment.series, samples)?;
        let mut ok = Ok(());
        let two_reads = timed(|| {
            for _ in 0..2 {
                ok = file.read_exact_at(&mut buffer, block_at);
            }
        });
        ok?;
        if buffer.iter().all(|byte| *byte == 0) {
            return Err("the writer's block is not where docs/segment.md says".into());
        }
        // The same again, so that the lines are the writer's once more.
        segment.harvest(&mut found)?;
        writer.write(&segment.series, samples)?;
        let (took, records) = segment.harvest(&mut found)?;
        if records != samples as u64 {
            return Err(format!("{records} samples harvested of {samples}").into());
        }
        let (unchanged, _) = segment.harvest(&mut found)?;
        writer.write_hdr(&hdr, samples)?;
        let mut copy = None;
        let cloned = timed(|| {
            let mut held = hdr.lock();
            copy = Some(held.clone());
            held.reset();
        });
        drop(copy);
        // The first rounds grow buffers and catch up with the page tables.
        if round >= rounds / 10 {
            ours.push(took);
            reads.push(two_reads);
            clones.push(cloned);
            to_reads.push(took / two_reads);
            to_clone.push(took / cloned);
            idle.push(unchanged);
        }
    }
    let micros = |values: &mut Vec<f64>| median(values) / 1e3;
    let name = |what: &str| format!("{what}, {samples} samples");
    report.plain(name("two preads of a live block"), micros(&mut reads), "us");
    report.plain(name("hdrhistogram clone and reset"), micros(&mut clones), "us");
    let per_shard = micros(&mut ours);
    let target = Some(Target::Value(2.0));
    let peer = ("two preads alone", median(&mut to_reads));
    report.compared(name("harvest of one shard"), per_shard, "us", peer, target);
    let peer = ("hdrhistogram clone and reset", median(&mut to_clone));
    report.compared(name("harvest of one shard"), per_shard, "us", peer, None);
    report.plain(name("harvest of one unchanged shard after"), micros(&mut idle), "us");
    Ok(())
}

/// 64 series written by one thread, harvested whole.
#[allow(clippy::cast_precision_loss)]
fn whole_segment(report: &mut Report, writer: &Writer, samples: usize, rounds: usize) -> Outcome {
    let mut segment = Segment::new(&data::keys()?)?;
    let file = File::open(&segment.path)?;
    let blocks_at = last_blocks(&file, data::SERIES)?;
    let (mut found, mut buffer) = (Harvest::default(), vec![0_u8; BLOCK_BYTES]);
    let (mut ours, mut ratios, mut reads) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        writer.write(&segment.series, samples)?;
        let mut ok = Ok(());
        let preads = timed(|| {
            for at in 0..data::SERIES {
                let offset = blocks_at + (at * SHARDS * BLOCK_STRIDE) as u64;
                for _ in 0..2 {
                    ok = file.read_exact_at(&mut buffer, offset);
                }
            }
        });
        ok?;
        segment.harvest(&mut found)?;
        writer.write(&segment.series, samples)?;
        let (took, records) = segment.harvest(&mut found)?;
        if records != (samples * data::SERIES) as u64 {
            return Err(format!("{records} samples harvested of {samples} each").into());
        }
        if round >= rounds / 10 {
            ours.push(took);
            ratios.push(took / preads);
            reads.push(preads);
        }
    }
    let shards = data::SERIES as f64;
    let name = |what: &str| format!("{what}, {samples} samples each");
    let whole = median(&mut ours) / 1e3;
    report.plain(name("two preads, 64 series"), median(&mut reads) / 1e3, "us");
    let peer = ("two preads alone", median(&mut ratios));
    report.compared(name("harvest, 64 series x 1 shard"), whole, "us", peer, None);
    let per_shard = whole / shards;
    report.limited(name("the same, a shard"), per_shard, "us", Target::Value(2.0));
    Ok(())
}

/// Where the blocks of a segment's last `series` series begin: they end the file, on pages.
fn last_blocks(file: &File, series: usize) -> Outcome<u64> {
    let bytes = (series * SHARDS * BLOCK_STRIDE).next_multiple_of(4_096);
    let total = usize::try_from(file.metadata()?.len())?;
    Ok(total.checked_sub(bytes).ok_or("the segment is too short")? as u64)
}

/// What the writer is asked for.
enum Job {
    Series(Vec<Series>, usize),
    Hdr(Arc<Mutex<Histogram<u64>>>, usize),
}

/// The recording thread, on the other processor. The first to record, so its shard is the first.
struct Writer {
    jobs: SyncSender<Job>,
    done: Receiver<()>,
}

impl Writer {
    fn start(values: Vec<u64>, cpu: usize) -> Self {
        let (jobs, asked) = sync_channel::<Job>(0);
        let (tell, done) = sync_channel(0);
        std::thread::spawn(move || {
            pin(cpu);
            prefer();
            let mut at = 0;
            while let Ok(job) = asked.recv() {
                match job {
                    Job::Series(all, samples) => {
                        for series in &all {
                            for _ in 0..samples {
                                series.record(values[at % values.len()]);
                                at += 1;
                            }
                        }
                    }
                    Job::Hdr(histogram, samples) => {
                        for _ in 0..samples {
                            histogram.lock().saturating_record(values[at % values.len()]);
                            at += 1;
                        }
                    }
                }
                if tell.send(()).is_err() {
                    return;
                }
            }
        });
        Self { jobs, done }
    }

    fn write(&self, series: &[Series], samples: usize) -> Outcome {
        self.ask(Job::Series(series.to_vec(), samples))
    }

    fn write_hdr(&self, histogram: &Arc<Mutex<Histogram<u64>>>, samples: usize) -> Outcome {
        self.ask(Job::Hdr(Arc::clone(histogram), samples))
    }

    fn ask(&self, job: Job) -> Outcome {
        self.jobs.send(job).map_err(|_| "the writer ended")?;
        self.done.recv_timeout(Duration::from_secs(10))?;
        Ok(())
    }
}
