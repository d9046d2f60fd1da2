//! A simulated fleet whose windows go through the replay of the canary controller.
//!
//! Twenty hosts serve a base latency (lognormal, p50 20.6 ms, p95 74 ms, p99 126 ms) that shared
//! load, stalls, wandering hosts and lasting host differences multiply, as a scenario says. Every
//! run is a function of its seed.

use lens_aggregator::canary::CanaryJudge;
use lens_aggregator::judge::canary::Plan;
use lens_aggregator::judge::decision::{Decision, SlotJudge};
use lens_aggregator::judge::replay::{Replay, ReplaySeries};
use lens_hist::layout;
use lens_model::{Arm, Nanos, Slice, Stage};

/// SplitMix64: small, seeded, good enough to draw from.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    pub fn poisson(&mut self, mean: f64) -> u64 {
        if mean > 60.0 {
            return (mean + mean.sqrt() * self.normal()).round().max(0.0) as u64;
        }
        let (limit, mut product, mut k) = ((-mean).exp(), self.uniform(), 0);
        while product > limit {
            product *= self.uniform();
            k += 1;
        }
        k
    }
}

/// What disturbs the fleet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scenario {
    pub name: &'static str,
    /// Shared load: standard deviation of the logarithm, 120 s.
    pub load: f64,
    /// Share of host-windows that stall, threefold.
    pub stalls: f64,
    /// Each host's own wandering, 60 s.
    pub wander: f64,
    /// Threefold stalls of 30 s, one a host in half an hour.
    pub long_stalls: bool,
    /// Lasting differences of hosts.
    pub effect: f64,
}

const CALM: Scenario = Scenario {
    name: "S0 independent",
    load: 0.0,
    stalls: 0.0,
    wander: 0.0,
    long_stalls: false,
    effect: 0.0,
};

pub const SCENARIOS: [Scenario; 6] = [
    CALM,
    Scenario { name: "S1 shared load", load: 0.15, ..CALM },
    Scenario { name: "S2 and short stalls", load: 0.15, stalls: 0.01, ..CALM },
    Scenario { name: "S3 and wandering hosts", load: 0.15, stalls: 0.01, wander: 0.1, ..CALM },
    Scenario { name: "S5 load and 30 s stalls", load: 0.15, long_stalls: true, ..CALM },
    Scenario {
        name: "S4 as S3 and host effects",
        load: 0.15,
        stalls: 0.01,
        wander: 0.1,
        effect: 0.05,
        ..CALM
    },
];

/// How the arms are spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Spread {
    /// A share of every host's requests.
    InHost(f64),
    /// This many of the hosts.
    Split(usize),
}

/// One run's settings.
#[derive(Clone, Debug)]
pub struct World {
    pub scenario: Scenario,
    pub spread: Spread,
    pub hosts: usize,
    pub rps: f64,
    pub history_windows: i64,
    pub windows: i64,
    /// The canary's latencies over the baseline's.
    pub factor: f64,
    /// Error rates of baseline and canary.
    pub errors: (f64, f64),
    /// A host, which arms of it, and by how much it is slower than it should be.
    pub slow: Option<(usize, &'static [Arm], f64)>,
    pub plan: Plan,
    /// Slices × stages that see the same load, for measuring cost.
    pub stages: &'static [Stage],
    pub slices: usize,
}

impl World {
    pub fn new(scenario: Scenario, spread: Spread, rps: f64) -> Self {
        Self {
            scenario,
            spread,
            hosts: 20,
            rps,
            history_windows: 24,
            windows: 720,
            factor: 1.0,
            errors: (0.001, 0.001),
            slow: None,
            plan: Plan::default(),
            stages: &[Stage::E2e],
            slices: 1,
        }
    }

    fn carries(&self, host: usize, arm: Arm, rollout: bool) -> f64 {
        let canary = match self.spread {
            _ if !rollout => 0.0,
            Spread::InHost(share) => share,
            Spread::Split(hosts) => f64::from(u8::from(host < hosts)),
        };
        if arm == Arm::Canary { canary } else { 1.0 - canary }
    }
}

/// Base latencies by equal steps of probability, nanoseconds.
pub fn base_latencies() -> Vec<f64> {
    const STEPS: usize = 1 << 14;
    let quantile = |at: usize| {
        let p = (at as f64 + 0.5) / STEPS as f64;
        20.6e6 * (0.778 * lens_aggregator::judge::math::normal_quantile(p)).exp()
    };
    (0..STEPS).map(quantile).collect()
}

/// The multipliers of one fleet, window by window.
struct Fleet {
    load: f64,
    wander: Vec<f64>,
    effects: Vec<f64>,
    stalled_until: Vec<i64>,
}

impl Fleet {
    fn new(world: &World, rng: &mut Rng) -> Self {
        let s = &world.scenario;
        Self {
            load: s.load * rng.normal(),
            wander: (0..world.hosts).map(|_| s.wander * rng.normal()).collect(),
            effects: (0..world.hosts).map(|_| s.effect * rng.normal()).collect(),
            stalled_until: vec![i64::MIN; world.hosts],
        }
    }

    fn step(&mut self, world: &World, t: i64, rng: &mut Rng) -> Vec<f64> {
        let s = &world.scenario;
        let next = |x: f64, sd: f64, tau: f64, rng: &mut Rng| {
            let keep = (-5.0 / tau).exp();
            keep * x + sd * (1.0 - keep * keep).sqrt() * rng.normal()
        };
        self.load = next(self.load, s.load, 120.0, rng);
        (0..world.hosts)
            .map(|host| {
                self.wander[host] = next(self.wander[host], s.wander, 60.0, rng);
                if s.long_stalls && rng.uniform() < 1.0 / 360.0 {
                    self.stalled_until[host] = t + 6;
                }
                let stalled = self.stalled_until[host] > t || rng.uniform() < s.stalls;
                let stall = if stalled { 3.0 } else { 1.0 };
                stall * (self.load + self.wander[host] + self.effects[host]).exp()
            })
            .collect()
    }
}

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Canary decisions with their times, seconds.
    pub canary: Vec<(&'static str, f64)>,
    /// Hosts named, how and when.
    pub hosts: Vec<(String, &'static str, f64)>,
    /// The last canary decision, whole.
    pub last: Option<Decision>,
}

impl Outcome {
    pub fn at(&self, word: &str) -> Option<f64> {
        self.canary.iter().find(|(found, _)| *found == word).map(|(_, at)| *at)
    }

    fn take(&mut self, decision: Decision) {
        let at = decision.t_ms as f64 / 1_000.0;
        if decision.kind == lens_aggregator::judge::decision::Kind::Host {
            let host = decision.evidence["host"].as_str().unwrap_or_default().to_owned();
            self.hosts.push((host, decision.decision, at));
        } else {
            self.canary.push((decision.decision, at));
            self.last = Some(decision);
        }
    }

    fn over(&self) -> bool {
        self.at("rollback").is_some() || self.at("complete").is_some()
    }
}

/// Runs a world from a seed, until the rollout is over.
pub fn run(world: &World, base: &[f64], seed: u64) -> Outcome {
    let judge = CanaryJudge::new(world.plan.clone()).expect("the plan is in range");
    run_with(world, base, seed, vec![Box::new(judge)])
}

/// [`run`] with judges of the caller's.
pub fn run_with(
    world: &World,
    base: &[f64],
    seed: u64,
    judges: Vec<Box<dyn SlotJudge>>,
) -> Outcome {
    let mut rng = Rng::new(seed);
    let mut fleet = Fleet::new(world, &mut rng);
    let mut replay = Replay::new(Nanos::from_secs(10), judges);
    let series = series(world, &mut replay);
    let mut outcome = Outcome::default();
    let mut counts = Counts::default();
    for t in -world.history_windows..world.windows {
        let factors = fleet.step(world, t, &mut rng);
        for (place, &(host, arm, series)) in series.iter().enumerate() {
            let share = world.carries(host, arm, t >= 0);
            if share == 0.0 {
                continue;
            }
            let slow = world.slow.filter(|slow| slow.0 == host && slow.1.contains(&arm) && t >= 0);
            let own = if arm == Arm::Canary { world.factor } else { 1.0 };
            let factor = factors[host] * own * slow.map_or(1.0, |slow| slow.2);
            let n = rng.poisson(world.rps * 5.0 * share / world.hosts as f64);
            let rate = if arm == Arm::Canary { world.errors.1 } else { world.errors.0 };
            let errors = rng.poisson(n as f64 * rate).min(n);
            counts.draw(n, factor, base, &mut rng);
            // The first window of a slot is read a millisecond later: the clock moves with it.
            let t_ms = t * 5_000 + i64::from(place == 0);
            let added = replay.add(t_ms, series, counts.each(), n - errors, errors);
            added.expect("windows come in order");
        }
        replay.decisions().for_each(|decision| outcome.take(decision));
        if outcome.over() {
            return outcome;
        }
    }
    replay.finish();
    replay.decisions().for_each(|decision| outcome.take(decision));
    outcome
}

fn series(world: &World, replay: &mut Replay) -> Vec<(usize, Arm, ReplaySeries)> {
    let mut series = Vec::new();
    for slice in 0..world.slices {
        let slice = Slice::new("backend", &format!("l{slice}"), "large").expect("a good name");
        for &stage in world.stages {
            for host in 0..world.hosts {
                for arm in Arm::ALL {
                    let name = format!("host-{host}");
                    let known = replay.series(&slice, stage, arm, &name).expect("few series");
                    series.push((host, arm, known));
                }
            }
        }
    }
    series
}

/// Counts drawn for one window.
struct Counts {
    at: Vec<u32>,
    touched: Vec<usize>,
}

impl Default for Counts {
    fn default() -> Self {
        Self { at: vec![0; layout::SLOTS], touched: Vec::new() }
    }
}

impl Counts {
    fn draw(&mut self, n: u64, factor: f64, base: &[f64], rng: &mut Rng) {
        self.touched.drain(..).for_each(|index| self.at[index] = 0);
        for _ in 0..n {
            let nanos = base[rng.next() as usize % base.len()] * factor;
            let index = layout::index_of(nanos as u64);
            if self.at[index] == 0 {
                self.touched.push(index);
            }
            self.at[index] += 1;
        }
        self.touched.sort_unstable();
    }

    fn each(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.touched.iter().map(|&index| (index, u64::from(self.at[index])))
    }
}
