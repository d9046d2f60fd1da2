//! What judging costs: a tick over 12 slices × 4 stages × 2 arms, and rows through a replay.
//!
//! A tick takes in one 5 s slot of every series and judges the windows that end with it: two on
//! average, all nine widths every 21 minutes, which is the slowest tick. 500 samples a series and
//! slot, 100 requests a second; more samples do not make more buckets, so it hardly costs more.

mod common;

use std::sync::Arc;
use std::time::Instant;

use lens_aggregator::judge::replay::Replay;
use lens_aggregator::judge::slot::{HostWindow, Slot, SlotWindows};
use lens_aggregator::judge::standing::Standing;
use lens_aggregator::state::Rules;
use lens_hist::Sparse;
use lens_model::{Arm, Nanos, Slice, Stage};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand_distr::{Distribution, LogNormal};

use common::measure::{median, nanos, pin, processors};
use common::report::{Report, Target};
use common::{Options, Outcome};

/// Slots of which every width of window is full.
const WARM: i64 = 512;

/// Samples of one series in one slot.
const SAMPLES: usize = 500;

fn main() -> Outcome {
    let options = Options::read();
    let mut report = Report::new("judge", options);
    if !pin(processors().0) {
        report.note("threads could not be pinned: expect more noise");
    }
    ticks(&mut report, options.pick(1_024, 64))?;
    rows(&mut report, options.pick(4_000_000, 200_000))?;
    report.note("tick: 96 series, 500 samples each; slowest: all nine widths end with it");
    report.note("row: one request counted by the replay's driver, parsing not included");
    report.finish()
}

fn slices() -> Outcome<Vec<Arc<Slice>>> {
    let slice = |n: usize| Ok(Arc::new(Slice::new("backend", &format!("l{n}"), "large")?));
    (0..12).map(slice).collect()
}

/// One slot of all series, each with samples of its own.
fn windows(slices: &[Arc<Slice>], rng: &mut SmallRng) -> Outcome<Vec<HostWindow>> {
    let latencies = LogNormal::new(16.5, 0.8)?;
    let mut found = Vec::new();
    for slice in slices {
        for stage in Stage::ALL {
            for arm in Arm::ALL {
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                let values = (0..SAMPLES).map(|_| latencies.sample(rng) as u64);
                found.push(HostWindow {
                    slice: Arc::clone(slice),
                    stage,
                    arm,
                    host: "agent/node".into(),
                    counts: values.collect::<Sparse>(),
                    ok: SAMPLES as u64,
                    errors: 0,
                });
            }
        }
    }
    Ok(found)
}

fn ticks(report: &mut Report, measured: i64) -> Outcome {
    let (slices, mut rng) = (slices()?, SmallRng::seed_from_u64(1));
    let sets: Vec<Vec<HostWindow>> =
        (0..16).map(|_| windows(&slices, &mut rng)).collect::<Outcome<_>>()?;
    let mut standing = Standing::new(&Rules::default());
    let mut took = Vec::new();
    for slot in 0..WARM + measured {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let windows = sets[(slot % 16) as usize].clone();
        let windows = SlotWindows { slot: Slot(slot), windows };
        let begun = Instant::now();
        standing.take(&windows);
        if slot >= WARM {
            took.push(nanos(begun.elapsed()) / 1e6);
        }
    }
    let slowest = took.iter().copied().fold(0.0, f64::max);
    report.limited("tick, median", median(&mut took), "ms", Target::Value(5.0));
    report.limited("tick, slowest", slowest, "ms", Target::Value(5.0));
    Ok(())
}

fn rows(report: &mut Report, count: i64) -> Outcome {
    let mut replay =
        Replay::new(Nanos::from_secs(60), vec![Box::new(Standing::new(&Rules::default()))]);
    let (latencies, mut rng) = (LogNormal::new(16.5, 0.8)?, SmallRng::seed_from_u64(2));
    let mut series = Vec::new();
    for slice in slices()? {
        series.push(replay.series(&slice, Stage::A, Arm::Baseline, "n1")?);
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let values: Vec<u64> = (0..4_096).map(|_| latencies.sample(&mut rng) as u64).collect();
    let begun = Instant::now();
    for row in 0..count {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let at = row as usize;
        replay.record(row / 10, series[at % series.len()], values[at % values.len()], true)?;
    }
    replay.finish();
    let each = nanos(begun.elapsed()) / count as f64;
    report.limited("row through the driver", each, "ns", Target::Value(1_000.0));
    Ok(())
}
