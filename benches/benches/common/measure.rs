//! Paired, interleaved sampling: short samples in random order, each right after one of its peer.
//!
//! A busy machine changes speed between samples by more than most differences of interest. Two
//! samples that follow each other within a millisecond see the same machine, so the ratio of a
//! pair is steadier than either, and the median over many pairs ignores those that were
//! interrupted.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Keeps the calling thread on processor `cpu`, where there is one and the system allows it.
pub(crate) fn pin(cpu: usize) -> bool {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).is_ok()
}

/// Asks to run before ordinary work for the short time of a bench; refused without privilege.
pub(crate) fn prefer() -> bool {
    rustix::process::nice(-10).is_ok()
}

/// Processors to measure on and to help on: the last two, or the only one twice.
pub(crate) fn processors() -> (usize, usize) {
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    (all - 1, all.saturating_sub(2))
}

/// Nanoseconds `work` takes.
#[inline]
pub(crate) fn timed(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    nanos(start.elapsed())
}

pub(crate) fn nanos(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}

/// The middle of `values`, which it sorts. NaN of none.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => values[len / 2],
        len => f64::midpoint(values[len / 2 - 1], values[len / 2]),
    }
}

/// Which case of a suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Id(usize);

/// Runs a number of passes and says how many nanoseconds they took.
type Passes<'a> = Box<dyn FnMut(u64) -> f64 + 'a>;

struct Case<'a> {
    peer: usize,
    operations: f64,
    passes: u64,
    run: Passes<'a>,
    values: Vec<f64>,
    ratios: Vec<f64>,
}

/// What a case came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    /// Nanoseconds an operation, median.
    pub(crate) value: f64,
    /// Median of the ratios to the peer's sample right before.
    pub(crate) ratio: f64,
}

/// Cases that are measured together.
pub(crate) struct Suite<'a> {
    cases: Vec<Case<'a>>,
    sample: Duration,
}

impl<'a> Suite<'a> {
    /// A suite with samples of about `sample`.
    pub(crate) fn new(sample: Duration) -> Self {
        Self { cases: Vec::new(), sample }
    }

    /// Adds a case: `run` does as many passes as asked, each of `operations` operations. It is
    /// compared with `peer`, or with itself where it is a reference.
    pub(crate) fn case(
        &mut self,
        peer: Option<Id>,
        operations: usize,
        run: impl FnMut(u64) -> f64 + 'a,
    ) -> Id {
        let id = self.cases.len();
        #[allow(clippy::cast_precision_loss)]
        let operations = operations as f64;
        let peer = peer.map_or(id, |peer| peer.0);
        let (values, ratios) = (Vec::new(), Vec::new());
        self.cases.push(Case { peer, operations, passes: 1, run: Box::new(run), values, ratios });
        Id(id)
    }

    /// Takes `rounds` samples of every case, or as many as fit `budget` (but at least five).
    pub(crate) fn run(&mut self, rounds: usize, budget: Duration) {
        let mut rng = StdRng::seed_from_u64(rand::rng().random());
        self.calibrate();
        let mut order: Vec<usize> = (0..self.cases.len()).collect();
        let start = Instant::now();
        for round in 0..rounds {
            if round >= 5 && start.elapsed() > budget {
                break;
            }
            order.shuffle(&mut rng);
            for &at in &order {
                let peer = self.sample(self.cases[at].peer);
                let value = self.sample(at);
                let case = &mut self.cases[at];
                case.values.push(value);
                case.ratios.push(value / peer);
            }
        }
    }

    /// Warms every case up and sets its passes to fill a sample.
    fn calibrate(&mut self) {
        let goal = nanos(self.sample);
        for case in &mut self.cases {
            (case.run)(1);
            let mut took = f64::INFINITY;
            for _ in 0..3 {
                took = took.min((case.run)(1));
            }
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let passes = (goal / took.max(1.0)) as u64;
            case.passes = passes.clamp(1, 1_000);
        }
    }

    #[allow(clippy::cast_precision_loss)]
    fn sample(&mut self, at: usize) -> f64 {
        let case = &mut self.cases[at];
        (case.run)(case.passes) / (case.passes as f64 * case.operations)
    }

    /// The medians of a case.
    pub(crate) fn measured(&mut self, id: Id) -> Measured {
        let case = &mut self.cases[id.0];
        Measured { value: median(&mut case.values), ratio: median(&mut case.ratios) }
    }
}
