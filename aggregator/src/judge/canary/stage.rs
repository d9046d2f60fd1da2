//! One stage of a comparison: what its hosts were like before, what each arm did since, and what is
//! shown of the step it is in.

use lens_hist::{Counts, Quantile};
use lens_model::{Arm, Stage};
use serde::{Deserialize, Serialize};

use super::evalue::Hits;
use super::evidence::{ArmSummary, Breaker, QuantileSummary};
use super::harm::Phi;
use super::histogram::Histogram;
use super::host_effect::{self, Hosts};
use super::placebo::Placebo;
use super::plan::Plan;
use super::promotion::Promotion;
use super::reference::N_LEVELS;
use super::slow_host::SlowHosts;
use super::tally::{ArmTally, EdgeMargins, HostTally, NOT_WORSE_LEVELS};

/// Largest factor a host effect may widen a margin by; beyond it nothing can be shown.
const FACTOR_MAX: f64 = 1e3;

/// The circuit breaker: a canary that fails this share of its requests …
const BREAKER_RATE: f64 = 0.2;
/// … in this many windows in a row …
const BREAKER_WINDOWS: u32 = 2;
/// … of at least this many requests each …
const BREAKER_REQUESTS: u64 = 20;
/// … while the baseline fails less than this share.
const BREAKER_BASELINE: f64 = 0.02;

/// One arm since the rollout began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ArmTotal {
    /// Latencies.
    pub latencies: Histogram,
    /// Requests and failed ones.
    pub requests: u64,
    /// Failed requests.
    pub failed: u64,
}

/// One stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageState {
    /// Which.
    pub stage: Stage,
    /// The baseline's windows by host before the rollout.
    pub placebo: Placebo,
    /// The watch over its hosts.
    pub slow: SlowHosts,
    /// What is shown of the step.
    pub promotion: Promotion,
    /// Requests that count as one.
    pub phi: Phi,
    /// What the margin of harm is widened to by host differences, at each level.
    pub factors_harm: [f64; N_LEVELS],
    /// What the margins of promotion are divided by.
    pub factors_promotion: [f64; 2],
    /// Baseline and canary since the rollout began.
    pub arms: [ArmTotal; 2],
    /// The canary's latencies since the step began.
    pub step_latencies: Histogram,
    /// Windows of the step in which each arm had data.
    pub step_windows: [u64; 2],
    /// Windows since each arm last had data.
    pub silent: [u64; 2],
    /// Baseline requests and failures, from history on: the running rate for "not worse".
    pub baseline_errors: (u64, u64),
    breaking: u32,
    /// Set while the circuit is broken.
    pub breaker: Option<Breaker>,
}

fn rate(hits: Hits) -> f64 {
    if hits.n == 0 { 0.0 } else { hits.hits as f64 / hits.n as f64 }
}

impl StageState {
    /// A stage that has seen nothing.
    pub fn new(stage: Stage) -> Self {
        Self {
            stage,
            placebo: Placebo::default(),
            slow: SlowHosts::default(),
            promotion: Promotion::default(),
            phi: [1.0; N_LEVELS + 1],
            factors_harm: [1.0; N_LEVELS],
            factors_promotion: [1.0; 2],
            arms: [ArmTotal::default(), ArmTotal::default()],
            step_latencies: Histogram::default(),
            step_windows: [0; 2],
            silent: [0; 2],
            baseline_errors: (0, 0),
            breaking: 0,
            breaker: None,
        }
    }

    /// Every host carries both arms: nothing lasting is between them.
    pub fn settle_in_host(&mut self, plan: &Plan) {
        self.phi = [plan.phi_in_host; N_LEVELS + 1];
        self.factors_harm = [1.0; N_LEVELS];
        self.factors_promotion = [1.0; 2];
    }

    /// Arms have hosts of their own: `ln_quantiles` are those of hosts before the rollout, by level.
    pub fn settle_split(&mut self, plan: &Plan, hosts: Hosts, ln_quantiles: &[Vec<f64>; N_LEVELS]) {
        self.phi = self.placebo.phi(hosts.canary);
        let factor = |level: usize, confidence: f64| {
            let known = &ln_quantiles[level];
            let tau = host_effect::tau(known).unwrap_or(f64::INFINITY);
            host_effect::factor(tau, known.len(), hosts, confidence).min(FACTOR_MAX)
        };
        self.factors_harm = std::array::from_fn(|level| factor(level, plan.host_confidence));
        self.factors_promotion =
            NOT_WORSE_LEVELS.map(|level| factor(level, plan.host_confidence_promotion));
    }

    /// What its windows' edges stand off the thresholds.
    pub fn margins(&self, plan: &Plan, not_worse: [f64; 2]) -> EdgeMargins {
        EdgeMargins {
            harm: self.factors_harm.map(|factor| factor.max(plan.margin_harm)),
            not_worse: std::array::from_fn(|i| not_worse[i] / self.factors_promotion[i]),
            slow: plan.margin_host,
        }
    }

    /// Begins a step.
    pub fn begin_step(&mut self) {
        self.promotion = Promotion::default();
        self.step_latencies = Histogram::default();
        self.step_windows = [0; 2];
    }

    /// The error rate that must be shown not to be reached, from what was known before the window.
    pub fn error_rate(&self, plan: &Plan, step: usize) -> f64 {
        let (failed, requests) = self.baseline_errors;
        let ratio = plan.error_ratios[step] * rate(Hits { hits: failed, n: requests });
        plan.error_rates[step].max(ratio).min(0.999)
    }

    /// Passes one window of a rollout, with what both arms did in it.
    pub fn pass(&mut self, canary: &ArmTally, baseline: &ArmTally) {
        for (arm, tally) in [baseline, canary].into_iter().enumerate() {
            let present = tally.n > 0 || tally.errors.n > 0;
            self.step_windows[arm] += u64::from(present);
            self.silent[arm] = if present { 0 } else { self.silent[arm].saturating_add(1) };
            self.arms[arm].requests = self.arms[arm].requests.saturating_add(tally.errors.n);
            self.arms[arm].failed = self.arms[arm].failed.saturating_add(tally.errors.hits);
        }
    }

    /// Counts the baseline's requests of a window once it has been judged.
    pub fn count_baseline(&mut self, errors: Hits) {
        let (failed, requests) = &mut self.baseline_errors;
        *failed = failed.saturating_add(errors.hits);
        *requests = requests.saturating_add(errors.n);
    }

    /// Sets or clears the breaker. A canary whose failures are one host's alone does not set it.
    pub fn watch_breaker(&mut self, tallies: &[HostTally]) {
        let sum = |arm: fn(&HostTally) -> Hits| {
            tallies.iter().fold(Hits::default(), |sum, tally| sum.plus(arm(tally)))
        };
        let (canary, baseline) = (sum(|t| t.canary.errors), sum(|t| t.baseline.errors));
        let serving = tallies.iter().filter(|tally| tally.canary.errors.n > 0).count();
        let worst = tallies.iter().map(|t| t.canary.errors).max_by_key(|errors| errors.hits);
        let rest = canary.minus(worst.unwrap_or_default());
        let by_version = serving < 2 || rate(rest) >= BREAKER_RATE;
        let broken = canary.n >= BREAKER_REQUESTS
            && rate(canary) >= BREAKER_RATE
            && baseline.n > 0
            && rate(baseline) < BREAKER_BASELINE
            && by_version;
        self.breaking = if broken { self.breaking.saturating_add(1) } else { 0 };
        self.breaker = (self.breaking >= BREAKER_WINDOWS).then_some(Breaker {
            stage: self.stage,
            canary: (canary.hits, canary.n),
            baseline: (baseline.hits, baseline.n),
        });
    }

    /// Both arms, for people.
    pub fn summaries(&self) -> impl Iterator<Item = ArmSummary> {
        Arm::ALL.into_iter().zip(&self.arms).map(|(arm, total)| ArmSummary {
            stage: self.stage,
            arm,
            samples: total.latencies.n(),
            requests: total.requests,
            errors: total.failed,
            quantiles: quantiles(&total.latencies.to_counts()),
        })
    }
}

fn quantiles(counts: &Counts) -> Vec<QuantileSummary> {
    let wanted = [("p50", Quantile::P50), ("p95", Quantile::P95), ("p99", Quantile::P99)];
    let estimates = counts.quantiles(&wanted.map(|(_, quantile)| quantile));
    let named = wanted.iter().zip(estimates);
    named
        .filter_map(|((name, _), estimate)| {
            Some(QuantileSummary {
                quantile: (*name).to_owned(),
                value_ms: estimate.value?.as_millis_f64(),
                low_ms: estimate.low.map(lens_model::Nanos::as_millis_f64),
                high_ms: estimate.high.map(lens_model::Nanos::as_millis_f64),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(host: usize, canary: (u64, u64), baseline: (u64, u64)) -> HostTally {
        let arm = |(hits, n)| ArmTally { n, errors: Hits { hits, n }, ..ArmTally::default() };
        HostTally { host, canary: arm(canary), baseline: arm(baseline) }
    }

    fn broken(windows: &[Vec<HostTally>]) -> bool {
        let mut stage = StageState::new(Stage::E2e);
        windows.iter().for_each(|tallies| stage.watch_breaker(tallies));
        stage.breaker.is_some()
    }

    #[test]
    fn a_canary_that_fails_a_fifth_of_its_requests_twice_breaks_the_circuit() {
        let bad = vec![tally(0, (4, 20), (1, 100))];
        assert!(broken(&[bad.clone(), bad.clone()]));
        assert!(!broken(std::slice::from_ref(&bad)), "one window is not enough");
        let good = vec![tally(0, (0, 20), (1, 100))];
        assert!(!broken(&[bad.clone(), good, bad]));
        let few = vec![tally(0, (19, 19), (1, 100))];
        assert!(!broken(&[few.clone(), few]), "nineteen requests are not enough");
        let all_bad = vec![tally(0, (20, 20), (2, 100))];
        assert!(!broken(&[all_bad.clone(), all_bad]), "the baseline fails as well");
    }

    #[test]
    fn one_failing_host_does_not_break_the_circuit_of_the_version() {
        let one: Vec<_> =
            (0..5).map(|h| tally(h, if h == 2 { (20, 20) } else { (0, 20) }, (0, 100))).collect();
        assert!(!broken(&[one.clone(), one]));
        let all: Vec<_> = (0..5).map(|h| tally(h, (5, 20), (0, 100))).collect();
        assert!(broken(&[all.clone(), all]));
    }
}
