//! How soon a restarted aggregator gives the same answers: 480 series over an hour of 5 s slots.
//!
//! Twelve slices × four stages on ten hosts of one agent, 500 samples a series and slot, written by
//! the aggregator's own commits with their roll-up. Then the process's part of a restart: the store
//! and its log are opened, and memory is made of them, which is all an agent or the API waits for.
//! The judge, which goes over the same hour in the background, is timed apart. The files are in the
//! system's cache, as they are when a process and not its machine was restarted.

mod common;

use std::sync::Arc;
use std::time::Instant;

use lens_aggregator::aggregator::embedded_log;
use lens_aggregator::log::Record;
use lens_aggregator::log::record::{Body, Histogram};
use lens_aggregator::state::{Rules, State};
use lens_aggregator::store::{Place, Store, StoreConfig};
use lens_aggregator::window::Windows;
use lens_aggregator::worker::Engine;
use lens_hist::{Sparse, block};
use lens_model::{Arm, Incarnation, InstanceName, Nanos, Sequence, Slice, Stage, UnixNanos};
use lens_service::env::Env;
use lens_service::planted::PlantedSet;
use lens_wire::{ClockOffset, Instance, Label};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand_distr::{Distribution, LogNormal};

use common::measure::{median, nanos};
use common::report::{Report, Target};
use common::{Options, Outcome};

const SLICES: usize = 12;
const HOSTS: usize = 10;
const SAMPLES: usize = 500;

/// Slots of an hour.
const SLOTS: u64 = 720;

/// Slots merged in one commit.
const COMMIT_SLOTS: u64 = 6;

/// Slots memory holds by default: the summary window of five minutes and a minute more.
const HELD_SLOTS: usize = 72;

fn main() -> Outcome {
    let options = Options::read();
    let mut report = Report::new("store", options);
    let slots = options.pick(SLOTS, 36);
    let dir = tempfile::tempdir()?;
    let env = Env::system();
    let config = StoreConfig { held_slots: HELD_SLOTS, ..StoreConfig::default() };
    let config = StoreConfig { dir: dir.path().join("store"), ..config };
    let place = Place::take(Arc::clone(&env.disk), config, PlantedSet::NONE)?;
    let each = fill(&env, &place, slots)?;
    report.plain("commit of six slots, 2,880 rows", each, "ms");
    restarts(&mut report, &env, &place, options.pick(5, 2))?;
    report.note(format!("{} series x {slots} slots", SLICES * Stage::ALL.len() * HOSTS));
    report.note("back: store and log open, memory made of them; judge: the same hour, after that");
    report.finish()
}

/// Writes the hour; the median time of a commit, ms.
fn fill(env: &Env, place: &Arc<Place>, slots: u64) -> Outcome<f64> {
    let now = env.now();
    let begun = now.minus(Nanos::from_secs(5 * slots));
    let mut store = Store::open(place, begun)?;
    let bodies = bodies()?;
    let (mut records, mut took) = (Vec::new(), Vec::new());
    for slot in 0..slots {
        let start = begun.plus(Nanos::from_secs(5 * slot));
        let received = start.plus(Nanos::from_secs(5));
        let body = Body { start, ..bodies[usize::try_from(slot)? % bodies.len()].clone() };
        records.push(Record {
            identity: "spiffe://lens.test/agent/a1".parse()?,
            incarnation: Incarnation(1),
            sequence: Sequence(slot + 1),
            received,
            body: Some(body),
        });
        if records.len() as u64 == COMMIT_SLOTS {
            let at = Instant::now();
            store.commit(std::mem::take(&mut records), slot + 2, received)?;
            took.push(nanos(at.elapsed()) / 1e6);
            store.maintain(received)?;
        }
    }
    Ok(median(&mut took))
}

/// Deltas of 5 s with samples of their own.
fn bodies() -> Outcome<Vec<Body>> {
    let (latencies, mut rng) = (LogNormal::new(16.5, 0.8)?, SmallRng::seed_from_u64(1));
    let label = |text| Label::new(text);
    let instance = |n: usize| -> Outcome<Instance> {
        let name = InstanceName::new(&format!("n{n}"))?;
        Ok(Instance { name, service: label("lens")?, version: label("1")?, zone: label("")? })
    };
    let slice = |n: usize| Ok(Slice::new("backend", &format!("l{n}"), "large")?);
    let instances = (0..HOSTS).map(instance).collect::<Outcome<Vec<_>>>()?;
    let slices = (0..SLICES).map(slice).collect::<Outcome<Vec<_>>>()?;
    let mut bodies = Vec::new();
    for _ in 0..4 {
        let mut histograms = Vec::new();
        for (instance, slice) in (0..HOSTS).flat_map(|i| (0..SLICES).map(move |s| (i, s))) {
            for stage in Stage::ALL {
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                let values = (0..SAMPLES).map(|_| latencies.sample(&mut rng) as u64);
                let mut bytes = Vec::new();
                block::encode(&values.collect::<Sparse>(), &mut bytes);
                let (arm, block) = (Arm::Baseline, bytes.into());
                histograms.push(Histogram { instance, slice, stage, arm, block });
            }
        }
        bodies.push(Body {
            start: UnixNanos(0),
            duration: Nanos::from_secs(5),
            clock: ClockOffset { offset_nanos: 0, error_nanos: 1 },
            instances: instances.clone(),
            slices: slices.clone(),
            histograms,
            requests: Vec::new(),
            gauges: Vec::new(),
        });
    }
    Ok(bodies)
}

fn restarts(report: &mut Report, env: &Env, place: &Arc<Place>, rounds: usize) -> Outcome {
    let log = embedded_log(env, place);
    let (mut back, mut judged) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let windows = Windows::new(Nanos::from_secs(5), Nanos::from_secs(60)).holding(HELD_SLOTS);
        let state = State::new(env.clone(), Rules::default(), windows, env.now());
        let at = Instant::now();
        let engine = Engine::open(place, &log, &state)?;
        back.push(nanos(at.elapsed()) / 1e9);
        let at = Instant::now();
        state.judge_until(state.now());
        judged.push(nanos(at.elapsed()) / 1e9);
        drop(engine);
    }
    report.limited("back after a restart", median(&mut back), "s", Target::Value(2.0));
    report.plain("judge, the hour again", median(&mut judged), "s");
    Ok(())
}
