//! Agents, an engine and a world that is against them: whatever it does, the counts are exact.
//!
//! Each run follows from its seed. Agents keep every delta until it is acknowledged and resume from
//! what is durable, as the protocol has them do; the log may be an adversary, the disk may fail, the
//! aggregator is killed and the machine loses power. At the end every series of the store, of memory
//! and of each resolution holds what was recorded.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use lens_hist::{Counts, Sparse, block};
use lens_journal::testing::{Crash, FaultyDisk};
use lens_model::{Arm, Incarnation, InstanceName, Nanos, SeriesKey, SpiffeId, Stage};
use lens_service::env::Clock;
use lens_service::planted::PlantedSet;
use lens_wire::{ClockOffset, Instance, Label};

use super::*;
use crate::aggregator::embedded_log;
use crate::ingest::Life;
use crate::log::adversary::{AdversaryLog, Faults};
use crate::log::record::{Body, Histogram, Requests};
use crate::state::Rules;
use crate::store::{Resolution, StoreConfig};
use crate::window::{Selection, Span, Windows};

const SECOND: u64 = 1_000_000_000;
const START: u64 = 1_800_000_000 * SECOND;

#[derive(Debug)]
struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now(&self) -> UnixNanos {
        UnixNanos(self.0.load(Ordering::Relaxed))
    }
}

/// SplitMix64.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }

    fn happens(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

struct Agent {
    identity: SpiffeId,
    incarnation: Incarnation,
    /// Every delta ever made, number 1 first; sent from `sent` on.
    made: Vec<Record>,
    sent: usize,
    acked: usize,
}

impl Agent {
    fn life(&self) -> Life {
        (self.identity.agent.clone(), self.incarnation)
    }
}

struct World {
    chance: Chance,
    clock: Arc<TestClock>,
    env: Env,
    disk: FaultyDisk,
    config: StoreConfig,
    adversary: Option<Arc<AdversaryLog>>,
    place: Option<Arc<Place>>,
    ingest: Arc<Ingest>,
    queue: mpsc::Receiver<Submission>,
    engine: Option<Engine>,
    agents: Vec<Agent>,
    recorded: BTreeMap<SeriesKey, u64>,
    requests: u64,
    /// Connections: while they follow a life, it is told of.
    following: Vec<tokio::sync::watch::Receiver<crate::ingest::Progress>>,
}

fn key(series: u64) -> SeriesKey {
    let slice = ["backend/rust/large", "backend/go/small"][(series % 2) as usize].parse().unwrap();
    let stage = [Stage::A, Stage::B][(series / 2 % 2) as usize];
    SeriesKey { slice, stage, arm: Arm::Baseline }
}

fn fresh(env: &Env) -> (Arc<Ingest>, mpsc::Receiver<Submission>) {
    let windows = Windows::new(Nanos::from_secs(5), Nanos::from_secs(60));
    Ingest::new(Arc::new(State::new(env.clone(), Rules::default(), windows, env.now())))
}

impl World {
    fn new(seed: u64, adversary: Option<Faults>, planted: PlantedSet) -> Self {
        let disk = FaultyDisk::new(seed);
        let clock = Arc::new(TestClock(AtomicU64::new(START)));
        let env = Env {
            disk: Arc::new(disk.clone()),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            planted,
            ..Env::system()
        };
        let (ingest, queue) = fresh(&env);
        let agents = (0..2).map(|n| Agent {
            identity: format!("spiffe://lens.test/agent/a{n}").parse().unwrap(),
            incarnation: Incarnation(u128::from(seed) << 8 | n),
            made: Vec::new(),
            sent: 0,
            acked: 0,
        });
        let mut world = Self {
            chance: Chance(seed),
            clock,
            disk,
            config: StoreConfig { dir: "/store".into(), ..StoreConfig::default() },
            adversary: adversary.map(|faults| Arc::new(AdversaryLog::new(seed, faults))),
            place: None,
            ingest,
            queue,
            engine: None,
            agents: agents.collect(),
            recorded: BTreeMap::new(),
            requests: 0,
            following: Vec::new(),
            env,
        };
        world.start();
        world
    }

    fn log(&self, place: &Place) -> OpenLog {
        match &self.adversary {
            Some(log) => {
                let log = Arc::clone(log);
                Arc::new(move || Ok(Arc::clone(&log) as Arc<dyn PartitionLog>))
            }
            None => embedded_log(&self.env, place),
        }
    }

    /// Starts the aggregator anew, with nothing in memory; agents connect and resume.
    fn start(&mut self) {
        (self.engine, self.place) = (None, None);
        self.following.clear();
        (self.ingest, self.queue) = fresh(&self.env);
        let disk = Arc::clone(&self.env.disk);
        let place = Place::take(disk, self.config.clone(), self.env.planted).unwrap();
        self.place = Some(place);
        self.open();
    }

    fn open(&mut self) {
        let place = self.place.as_ref().unwrap();
        let log = self.log(place);
        for attempt in 0.. {
            match Engine::open(place, &log, &self.ingest.state) {
                Ok(engine) => {
                    self.engine = Some(engine);
                    break;
                }
                Err(error) => {
                    assert!(attempt < 20, "{error}");
                    // After a while there is room again.
                    if attempt == 5 {
                        self.disk.set_capacity(u64::MAX);
                    }
                }
            }
        }
        (0..self.agents.len()).for_each(|at| self.connect(at));
    }

    /// What WELCOME says.
    fn connect(&mut self, at: usize) {
        let agent = &mut self.agents[at];
        let history = self.ingest.state.history().unwrap();
        let (name, incarnation) = agent.life();
        let durable = history.watermark(&name, incarnation).unwrap().unwrap();
        let durable = usize::try_from(durable.0).unwrap();
        assert!(durable >= agent.acked, "acknowledged {}, durable {durable}", agent.acked);
        (agent.acked, agent.sent) = (durable, durable);
    }

    /// One agent's next delta, of a time up to `back` seconds ago.
    fn record(&mut self, back: u64) {
        let at = usize::try_from(self.chance.below(self.agents.len() as u64)).unwrap();
        let now = self.env.now();
        let start = now.minus(Nanos::from_secs(1 + self.chance.below(back)));
        let mut body = Body {
            start,
            duration: Nanos::from_secs(1),
            clock: ClockOffset { offset_nanos: 0, error_nanos: 1 },
            instances: vec![Instance {
                name: InstanceName::new("n1").unwrap(),
                service: Label::new("lens").unwrap(),
                version: Label::new("1").unwrap(),
                zone: Label::new("").unwrap(),
            }],
            slices: (0..2).map(|series| key(series).slice).collect(),
            histograms: Vec::new(),
            requests: Vec::new(),
            gauges: Vec::new(),
        };
        for series in 0..4 {
            if self.chance.happens(50) {
                continue;
            }
            let count = 1 + self.chance.below(5);
            let values = (0..count).map(|_| 1_000 + self.chance.below(1_000_000));
            let mut bytes = Vec::new();
            block::encode(&values.collect::<Sparse>(), &mut bytes);
            *self.recorded.entry(key(series)).or_default() += count;
            let (stage, arm) = (key(series).stage, Arm::Baseline);
            let slice = usize::try_from(series % 2).unwrap();
            body.histograms.push(Histogram { instance: 0, slice, stage, arm, block: bytes.into() });
        }
        self.requests += 3;
        let (slice, arm) = (0, Arm::Baseline);
        body.requests.push(Requests { instance: 0, slice, arm, ok: 2, error: 1 });
        let agent = &mut self.agents[at];
        let (identity, incarnation) = (agent.identity.clone(), agent.incarnation);
        let sequence = Sequence(agent.made.len() as u64 + 1);
        let body = Some(body);
        agent.made.push(Record { identity, incarnation, sequence, received: now, body });
    }

    /// Arrives now, however old the delta is.
    fn submit(&mut self, mut record: Record) -> Submission {
        record.received = self.env.now();
        let submitted = futures_util::FutureExt::now_or_never(self.ingest.submit(&record));
        submitted.unwrap().unwrap();
        self.queue.try_recv().unwrap()
    }

    /// The power goes in the middle of what a turn writes.
    fn lose_power(&mut self) {
        let nth = 1 + self.chance.below(40);
        self.disk.power_off_before(nth);
        let mut batch = Vec::new();
        for at in 0..self.agents.len() {
            let agent = &self.agents[at];
            self.following.push(self.ingest.follow(&agent.life()));
            let upto = (agent.sent + 8).min(agent.made.len());
            let records = agent.made[agent.sent..upto].to_vec();
            batch.extend(records.into_iter().map(|record| self.submit(record)));
        }
        let mut engine = self.engine.take().unwrap();
        if let Ok(done) = engine.turn(&self.ingest.state, &self.ingest, &batch) {
            tell(&self.ingest, &batch, &done);
        }
        self.take_acknowledgements();
        drop(engine);
        self.disk.crash(Crash::AnyPart);
        self.start();
    }

    /// Sends what agents have, a part of it twice, and merges it.
    fn turn(&mut self) {
        let mut batch = Vec::new();
        for at in 0..self.agents.len() {
            let life = self.agents[at].life();
            let follow = self.ingest.follow(&life);
            let agent = &mut self.agents[at];
            let upto = (agent.sent + 8).min(agent.made.len());
            let again = agent.sent.saturating_sub(2).max(agent.acked.min(agent.sent));
            let from = if self.chance.happens(15) { again } else { agent.sent };
            let records = agent.made[from..upto].to_vec();
            agent.sent = upto;
            batch.extend(records.into_iter().map(|record| self.submit(record)));
            // A second connection of the agent, with what the first had sent before, maybe long ago.
            if self.chance.happens(10) && upto > 0 {
                let back = usize::try_from(self.chance.below(4)).unwrap().min(upto - 1);
                let record = self.agents[at].made[upto - 1 - back].clone();
                batch.push(self.submit(record));
            }
            self.following.push(follow);
        }
        let mut engine = self.engine.take().unwrap();
        match engine.turn(&self.ingest.state, &self.ingest, &batch) {
            Ok(done) => {
                tell(&self.ingest, &batch, &done);
                self.engine = Some(engine);
                self.hear();
            }
            Err(_) => {
                // As the worker does: closed, opened again, and agents resume.
                self.take_acknowledgements();
                self.ingest.state.fault(Some("failed".into()));
                drop(engine);
                self.open();
            }
        }
    }

    fn take_acknowledgements(&mut self) {
        for agent in &mut self.agents {
            let acked = self.ingest.follow(&agent.life()).borrow().acked;
            agent.acked = agent.acked.max(usize::try_from(acked.0).unwrap());
        }
    }

    /// Agents take acknowledgements, and those whose deltas did not come through connect anew.
    fn hear(&mut self) {
        self.take_acknowledgements();
        for at in 0..self.agents.len() {
            if self.agents[at].acked < self.agents[at].sent {
                self.connect(at);
            }
        }
    }

    fn advance(&self, secs: u64) {
        self.clock.0.fetch_add(secs * SECOND, Ordering::Relaxed);
    }

    fn maintain(&mut self) {
        let now = self.env.now();
        let mut engine = self.engine.take().unwrap();
        loop {
            match engine.store.maintain(now) {
                Ok(true) => {}
                Ok(false) => break self.engine = Some(engine),
                Err(_) => {
                    self.ingest.state.fault(Some("failed".into()));
                    drop(engine);
                    return self.open();
                }
            }
        }
    }

    /// Sends until everything is acknowledged, or says that it never is.
    fn heal(&mut self) -> Result<(), String> {
        for _ in 0..2_000 {
            if self.agents.iter().all(|agent| agent.acked == agent.made.len()) {
                return Ok(());
            }
            self.turn();
        }
        Err("not everything is acknowledged".into())
    }

    /// What every way of asking says, against what was recorded.
    fn check(&self) -> Result<(), String> {
        let state = &self.ingest.state;
        let view = state.history().unwrap().view().map_err(|error| error.to_string())?;
        for (key, recorded) in &self.recorded {
            let same = |what: &str, counts: &Counts| {
                let merged = counts.total();
                if merged == *recorded {
                    return Ok(());
                }
                Err(format!("{what}: {} of {key:?}, recorded {recorded}", merged))
            };
            let selection = Selection::series(key);
            let mut lifetime = Counts::new();
            state.windows.read().lifetime(&selection, &mut lifetime);
            same("memory", &lifetime)?;
            let total = state.windows.read().series()[key].merged_total;
            if total != *recorded {
                return Err(format!("merged_total: {total} of {key:?}, recorded {recorded}"));
            }
            for resolution in Resolution::ALL {
                let mut sum = Counts::new();
                let hour = 3_600 * SECOND;
                let from = UnixNanos(START / hour * hour).minus(Nanos::from_secs(40 * 86_400));
                let span = Span { from, to: UnixNanos(START + 400 * 24 * hour) };
                let step = Nanos(24 * hour);
                view.steps(&selection, span, resolution, step, |_, counts| sum.merge(counts))
                    .map_err(|error| error.to_string())?;
                same(&format!("{resolution:?}"), &sum)?;
            }
        }
        let requests = state.windows.read().requests_total();
        let requests: u64 = requests.values().map(|counts| counts.ok + counts.error).sum();
        if requests != self.requests {
            return Err(format!("requests: {requests}, counted {}", self.requests));
        }
        Ok(())
    }
}

/// What may happen in a run.
#[derive(Clone, Copy, Default)]
struct Run {
    adversary: Option<Faults>,
    power: bool,
    errors: bool,
    back_secs: u64,
}

fn run(seed: u64, what: Run, planted: PlantedSet) -> Result<(), String> {
    let mut world = World::new(seed, what.adversary, planted);
    for _ in 0..30 {
        (0..world.chance.below(6)).for_each(|_| world.record(what.back_secs));
        if what.errors && world.chance.happens(20) {
            let nth = 1 + world.chance.below(6);
            world.disk.fail_sync(nth);
        }
        if what.errors && world.chance.happens(5) {
            world.disk.set_capacity(world.disk.used());
        }
        if what.power && world.chance.happens(20) {
            world.lose_power();
        } else {
            world.turn();
        }
        world.disk.set_capacity(u64::MAX);
        if world.chance.happens(10) {
            world.disk.kill();
            world.start();
        }
        let secs = world.chance.below(1 + what.back_secs / 10);
        world.advance(secs);
        if world.chance.happens(30) {
            world.maintain();
        }
    }
    world.heal()?;
    world.check()?;
    world.advance(2 * what.back_secs);
    world.maintain();
    world.check()?;
    world.start();
    world.check()
}

/// Runs seeds and says how many it took until one of them was found out; `None`: none was.
fn found(what: Run, planted: Planted, seeds: u64) -> Option<u64> {
    (1..=seeds).find(|seed| {
        let outcome = std::panic::catch_unwind(|| run(*seed, what, PlantedSet::of(&[planted])));
        !matches!(outcome, Ok(Ok(())))
    })
}

fn exact(what: Run, seeds: std::ops::RangeInclusive<u64>) {
    for seed in seeds {
        if let Err(error) = run(seed, what, PlantedSet::NONE) {
            panic!("seed {seed}: {error}");
        }
    }
}

const LATE: Run = Run { adversary: None, power: false, errors: false, back_secs: 4 * 3_600 };
const ADVERSE: Run = Run { adversary: Some(Faults::ALL), ..LATE };

#[test]
fn any_order_of_arrival_with_restarts_in_between_adds_up_at_every_resolution() {
    exact(LATE, 1..=3);
}

#[test]
fn a_log_that_loses_doubles_reorders_and_forgets_costs_no_count() {
    exact(ADVERSE, 1..=3);
}

#[test]
fn power_lost_in_the_middle_of_a_turn_costs_no_count() {
    exact(Run { power: true, back_secs: 60, ..LATE }, 1..=3);
}

#[test]
fn failed_syncs_and_a_full_disk_cost_no_count() {
    exact(Run { errors: true, power: true, back_secs: 60, ..LATE }, 1..=3);
}

#[test]
fn the_planted_mistakes_of_log_and_store_are_found() {
    let power = Run { power: true, back_secs: 60, ..LATE };
    // A log that really forgets what is trimmed, as a remote one does.
    let apart = Run { adversary: Some(Faults::NONE), ..power };
    let within = [
        (Planted::NoDedup, LATE),
        (Planted::TwoTransactions, power),
        (Planted::GapAccepted, ADVERSE),
        (Planted::LateDropped, LATE),
        (Planted::RollupMissesLate, LATE),
        (Planted::TrimBeforeCommit, apart),
        (Planted::DedupByTimeWindow, LATE),
    ];
    for (mistake, what) in within {
        let seeds = found(what, mistake, 12);
        println!("{mistake:?}: found by seed {seeds:?}");
        assert!(seeds.is_some(), "{mistake:?} was not found within 12 seeds");
    }
}

#[test]
fn an_hour_of_many_series_is_back_after_a_restart() {
    let mut world = World::new(1, None, PlantedSet::NONE);
    let (series, slots) = (40, 60);
    fill(&mut world, series, slots);
    let total = |world: &World| {
        let windows = world.ingest.state.windows.read();
        windows.series().values().map(|series| series.merged_total).sum::<u64>()
    };
    let before = total(&world);
    assert_eq!(before, 3 * series * slots);
    world.disk.kill();
    world.start();
    assert_eq!(total(&world), before);
}

/// Three samples a series in each of so many slots.
fn fill(world: &mut World, series: u64, slots: u64) {
    for at in 0..slots {
        world.advance(5);
        world.record(1);
        let mut record = world.agents.iter_mut().find_map(|agent| agent.made.pop()).unwrap();
        record.sequence = Sequence(at + 1);
        record.identity = "spiffe://lens.test/agent/a9".parse().unwrap();
        record.incarnation = Incarnation(9);
        let body = record.body.as_mut().unwrap();
        body.start = world.env.now();
        let slice = |n: u64| format!("backend/l{n}/large").parse().unwrap();
        body.slices = (0..series).map(slice).collect();
        body.requests[0].slice = 0;
        let mut bytes = Vec::new();
        let values = [1_000 + at, 2_000_000 + at * 1_000, 9_000_000];
        block::encode(&values.into_iter().collect::<Sparse>(), &mut bytes);
        let histogram = |slice| Histogram {
            instance: 0,
            slice,
            stage: Stage::A,
            arm: Arm::Baseline,
            block: bytes.as_slice().into(),
        };
        body.histograms = (0..usize::try_from(series).unwrap()).map(histogram).collect();
        let batch = [world.submit(record)];
        let engine = world.engine.as_mut().unwrap();
        let done = engine.turn(&world.ingest.state, &world.ingest, &batch).unwrap();
        assert_eq!(done[0].merges.len(), 1, "{done:?}");
    }
}

/// A log whose first append panics.
#[derive(Debug)]
struct PanickingLog {
    log: AdversaryLog,
    panicked: std::sync::atomic::AtomicBool,
}

impl PartitionLog for PanickingLog {
    fn append(&self, partition: Partition, batch: &[Vec<u8>]) -> Result<Position, LogError> {
        assert!(self.panicked.swap(true, Ordering::Relaxed), "as asked");
        self.log.append(partition, batch)
    }

    fn read(
        &self,
        partition: Partition,
        from: Position,
        max: usize,
    ) -> Result<crate::log::Entries, LogError> {
        self.log.read(partition, from, max)
    }

    fn trim(&self, partition: Partition, to: Position) -> Result<(), LogError> {
        self.log.trim(partition, to)
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_panic_the_store_is_opened_again_once_nobody_reads_in_the_old_one() {
    let mut world = World::new(1, None, PlantedSet::NONE);
    (world.engine, world.place) = (None, None);
    let (ingest, queue) = fresh(&world.env);
    let disk = Arc::clone(&world.env.disk);
    let place = Place::take(disk, world.config.clone(), PlantedSet::NONE).unwrap();
    let log = Arc::new(PanickingLog {
        log: AdversaryLog::new(1, Faults::NONE),
        panicked: std::sync::atomic::AtomicBool::new(false),
    });
    let opened = Arc::new(AtomicU64::new(0));
    let open_log: OpenLog = Arc::new({
        let opened = Arc::clone(&opened);
        move || {
            opened.fetch_add(1, Ordering::Relaxed);
            Ok(Arc::clone(&log) as Arc<dyn PartitionLog>)
        }
    });
    let interval = Duration::from_millis(100);
    let worker = Worker::start(Arc::clone(&ingest), queue, place, open_log, interval);
    let worker = worker.await.unwrap();
    let (stop, stopped) = Shutdown::manual();
    let running = tokio::spawn(worker.run(stopped));
    let state = Arc::clone(&ingest.state);
    let view = state.history().unwrap().view().unwrap();

    world.record(1);
    let record = world.agents.iter().find_map(|agent| agent.made.first().cloned()).unwrap();
    let life = (record.identity.agent.clone(), record.incarnation);
    let follow = ingest.follow(&life);
    ingest.submit(&record).await.unwrap();
    while state.faulted().is_none() {
        tokio::time::sleep(REOPEN_MIN).await;
    }
    tokio::time::sleep(10 * REOPEN_MAX).await;
    assert_eq!(opened.load(Ordering::Relaxed), 1, "a question is still being answered");
    drop(view);
    while state.faulted().is_some() {
        tokio::time::sleep(REOPEN_MIN).await;
    }
    assert_eq!(opened.load(Ordering::Relaxed), 2);

    // What was not acknowledged comes again.
    assert_eq!(follow.borrow().acked, Sequence(0));
    ingest.submit(&record).await.unwrap();
    while follow.borrow().acked < Sequence(1) {
        tokio::time::sleep(REOPEN_MIN).await;
    }
    stop.begin();
    running.await.unwrap();
}
