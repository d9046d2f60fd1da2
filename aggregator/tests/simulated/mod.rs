//! Streams of latencies with a known tail, through the judge as a replay drives it.
//!
//! Latencies are lognormal with p95 at 50 ms; the spread gives the wanted p99/p95. Only the slowest
//! tenth is drawn one by one, the rest is one bucket: nothing the rule looks at is simplified.

// Each user takes a part of this; what cannot fail here is a fault of the simulation.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::f64::consts::LN_2;

use lens_aggregator::judge::decision::{Decision, Kind};
use lens_aggregator::judge::math::normal_quantile;
use lens_aggregator::judge::replay::Replay;
use lens_aggregator::judge::standing::Standing;
use lens_aggregator::state::Rules;
use lens_hist::layout;
use lens_model::{Arm, Nanos, Slice, Stage};
use rand::{RngExt, SeedableRng, rngs::SmallRng};

/// What makes samples depend on each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Load {
    /// Nothing.
    Independent,
    /// All latencies swing together: AR(1) of this standard deviation and time constant, seconds.
    Swings(f64, f64),
    /// The share of very slow requests swings: its coefficient of variation and time constant.
    Bursts(f64, f64),
    /// Every request comes this many times.
    Clusters(u64),
}

/// One simulated stream.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    /// Requests a second.
    pub rps: u64,
    /// True p99/p95.
    pub ratio: f64,
    /// From this second on the ratio is the second value.
    pub change: Option<(u64, f64)>,
    /// Dependence.
    pub load: Load,
    /// Length, seconds.
    pub secs: u64,
}

const Z_95: f64 = 1.644_853_626_951_472_2;
const Z_99: f64 = 2.326_347_874_040_840_8;
const P95_NANOS: f64 = 50e6;
const DRAWN: f64 = 0.1;
const CELLS: usize = 1 << 16;

/// Standard normal values at the middles of equal shares of the upper tenth.
pub struct UpperTenth(Vec<f64>);

impl UpperTenth {
    pub fn new() -> Self {
        let cell = |at: usize| -normal_quantile((at as f64 + 0.5) / CELLS as f64 * DRAWN);
        Self((0..CELLS).map(cell).collect())
    }
}

/// When a violation was first said, seconds from the stream's beginning; `None` if never.
pub fn first_violation(
    stream: &Stream,
    upper: &UpperTenth,
    rules: &Rules,
    seed: u64,
) -> Option<f64> {
    let mut replay = Replay::new(Nanos::from_secs(60), vec![Box::new(Standing::new(rules))]);
    let slice = Slice::new("backend", "rust", "large").unwrap();
    let series = replay.series(&slice, Stage::C, Arm::Baseline, "h1").unwrap();
    let mut source = Source::new(stream, upper, seed);
    for slot in 0..stream.secs / 5 {
        let counts = source.slot(slot * 5);
        let t_ms = i64::try_from(slot * 5_000).unwrap();
        replay.add(t_ms, series, counts, stream.rps * 5, 0).unwrap();
        if let Some(at) = replay.decisions().find_map(|decision| violation(&decision)) {
            return Some(at);
        }
    }
    replay.finish();
    replay.decisions().find_map(|decision| violation(&decision))
}

fn violation(decision: &Decision) -> Option<f64> {
    let found = decision.kind == Kind::Tail && decision.decision == "violation";
    found.then_some(decision.t_ms as f64 / 1e3)
}

struct Source<'a> {
    stream: Stream,
    upper: &'a UpperTenth,
    rng: SmallRng,
    /// The load's AR(1), standard normal.
    swing: f64,
}

impl<'a> Source<'a> {
    fn new(stream: &Stream, upper: &'a UpperTenth, seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let swing = normal(&mut rng);
        Self { stream: *stream, upper, rng, swing }
    }

    /// The counts of the slot that begins at `second`.
    fn slot(&mut self, second: u64) -> Vec<(usize, u64)> {
        let ratio = match self.stream.change {
            Some((from, ratio)) if second >= from => ratio,
            _ => self.stream.ratio,
        };
        let sigma = ratio.ln() / (Z_99 - Z_95);
        let (cluster, tau) = match self.stream.load {
            Load::Clusters(size) => (size, 1.0),
            Load::Swings(_, tau) | Load::Bursts(_, tau) => (1, tau),
            Load::Independent => (1, 1.0),
        };
        let keep = (-5.0 / tau).exp();
        self.swing = keep * self.swing + (1.0 - keep * keep).sqrt() * normal(&mut self.rng);
        let scale = match self.stream.load {
            Load::Swings(sd, _) => (sd * self.swing).exp(),
            _ => 1.0,
        };
        let beyond = match self.stream.load {
            Load::Bursts(cv, _) => {
                let spread = (1.0 + cv * cv).ln();
                (spread.sqrt() * self.swing - spread / 2.0).exp()
            }
            _ => 1.0,
        };
        let n = self.stream.rps * 5 / cluster;
        let drawn = self.binomial(n, DRAWN);
        let mut counts = vec![0_u64; layout::SLOTS];
        // Below p90; far enough below not to reach it when all swings.
        counts[layout::index_of(nanos(P95_NANOS * 0.1 * scale))] += (n - drawn) * cluster;
        // Beyond twice p95, one draw in `beyond` is kept, or doubled where it is more.
        let twice = LN_2 / sigma + Z_95;
        for _ in 0..drawn {
            let z = self.upper.0[self.rng.random_range(0..CELLS)];
            let mut at = z;
            if beyond < 1.0 && z > twice && self.rng.random::<f64>() > beyond {
                at = self.between(twice);
            } else if beyond > 1.0 && (Z_95..twice).contains(&z) {
                let share = 1.0 - lens_aggregator::judge::math::normal_cdf(twice);
                if self.rng.random::<f64>() < (beyond - 1.0) * share / (0.05 - share) {
                    at = self.above(twice);
                }
            }
            let value = P95_NANOS * scale * (sigma * (at - Z_95)).exp();
            counts[layout::index_of(nanos(value))] += cluster;
        }
        counts.into_iter().enumerate().filter(|(_, count)| *count > 0).collect()
    }

    /// A draw between p95 and twice p95.
    fn between(&mut self, twice: f64) -> f64 {
        loop {
            let z = self.upper.0[self.rng.random_range(0..CELLS / 2)];
            if (Z_95..twice).contains(&z) {
                return z;
            }
        }
    }

    /// A draw beyond twice p95.
    fn above(&mut self, twice: f64) -> f64 {
        let end = self.upper.0.partition_point(|z| *z > twice).max(1);
        self.upper.0[self.rng.random_range(0..end)]
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn binomial(&mut self, n: u64, share: f64) -> u64 {
        // Exact for what is few, normal for what is many: 500 trials at 0.1 are many.
        if n < 500 {
            return (0..n).filter(|_| self.rng.random::<f64>() < share).count() as u64;
        }
        let (mean, sd) = (n as f64 * share, (n as f64 * share * (1.0 - share)).sqrt());
        (mean + sd * normal(&mut self.rng)).round().clamp(0.0, n as f64) as u64
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn nanos(value: f64) -> u64 {
    value as u64
}

fn normal(rng: &mut SmallRng) -> f64 {
    normal_quantile(rng.random::<f64>().clamp(1e-12, 1.0 - 1e-12))
}

/// How many of `runs` streams alarmed, and after how many seconds from `onset` on, ascending.
pub fn table(stream: &Stream, runs: u64, seed: u64, onset: f64) -> (usize, Vec<f64>) {
    let (upper, rules) = (UpperTenth::new(), Rules::default());
    let found = |run: u64| first_violation(stream, &upper, &rules, seed.wrapping_add(run));
    let mut delays: Vec<f64> = (0..runs).filter_map(found).map(|at| at - onset).collect();
    delays.sort_unstable_by(f64::total_cmp);
    (delays.len(), delays)
}
