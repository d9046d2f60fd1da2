//! What a comparison knows at one moment, whole: every decision carries it.

use lens_model::{Arm, Slice, Stage};
use serde::{Deserialize, Serialize};

use super::hosts::Spread;
use super::slow_host::SlowHost;
use super::unit::Leading;

/// Something that stands in the way, for programs and for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocker {
    /// A fixed word.
    pub code: BlockerCode,
    /// One sentence, with the numbers.
    pub message: String,
}

/// What stands in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum BlockerCode {
    NoCanary,
    NoBaseline,
    StaleCanary,
    StaleBaseline,
    SilentSlice,
    TooFewWindows,
    HostSplitWithoutHistory,
    MarginNotShowable,
    NotShown,
    HarmSuspected,
    OneHost,
    TailRule,
    Dwell,
    TimedOut,
    QualityMissing,
    QualityGate,
    OpenViolation,
    ShareNotInForce,
    NotDurable,
    StaleEvidence,
    Guard,
}

impl BlockerCode {
    /// Whether it speaks of the moment, not of the windows compared.
    pub const fn is_of_now(self) -> bool {
        matches!(
            self,
            Self::QualityMissing
                | Self::QualityGate
                | Self::OpenViolation
                | Self::ShareNotInForce
                | Self::NotDurable
                | Self::StaleEvidence
                | Self::Guard
        )
    }
}

impl Blocker {
    /// A blocker.
    pub fn new(code: BlockerCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// One arm at one stage since the rollout began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArmSummary {
    /// The stage.
    pub stage: Stage,
    /// The arm.
    pub arm: Arm,
    /// Latency samples.
    pub samples: u64,
    /// Requests.
    pub requests: u64,
    /// Failed requests.
    pub errors: u64,
    /// Quantiles that the samples suffice for, milliseconds with a 95 % interval for independent
    /// requests.
    pub quantiles: Vec<QuantileSummary>,
}

/// One quantile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuantileSummary {
    /// `p50`, `p95`, `p99`.
    pub quantile: String,
    /// Milliseconds.
    pub value_ms: f64,
    /// Lower end of the interval.
    pub low_ms: Option<f64>,
    /// Upper end of the interval.
    pub high_ms: Option<f64>,
}

/// Evidence that the canary is worse.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HarmEvidence {
    /// Logarithm of the evidence.
    pub ln_e: f64,
    /// What it must reach for a rollback: ln 1/α.
    pub bound: f64,
    /// Chance, at most, of so much evidence ever if the canary is no worse.
    pub p_value: f64,
    /// The part that adds most.
    pub leading: Option<Leading>,
    /// The evidence that is left without the one host it rests on most; `null` when the canary has
    /// one host only, which then cannot be told from its version.
    pub without_host: Option<WithoutHost>,
    /// The error rate that breaks the circuit, when it does.
    pub breaker: Option<Breaker>,
}

/// The evidence without one host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WithoutHost {
    /// The hosts left out: one, or those that share a fold.
    pub hosts: Vec<Box<str>>,
    /// Logarithm of what is left.
    pub ln_e: f64,
    /// What it must reach, too, for a rollback of the version.
    pub bound: f64,
}

/// An error rate so high that no test is needed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Breaker {
    /// The stage.
    pub stage: Stage,
    /// The canary's failed requests and requests in the last window.
    pub canary: (u64, u64),
    /// The baseline's.
    pub baseline: (u64, u64),
}

/// Evidence that the canary is not worse than the step's margins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PromotionEvidence {
    /// Logarithm of the least of the parts.
    pub ln_e: f64,
    /// What every part must reach: ln 1/α.
    pub bound: f64,
    /// The parts.
    pub parts: Vec<PromotionPart>,
}

/// One thing that must be shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PromotionPart {
    /// The stage; `null` for a quality signal.
    pub stage: Option<Stage>,
    /// `p95`, `p99`, `errors`, or a quality signal.
    pub metric: String,
    /// The ratio, for errors the rate, that must be shown not to be reached.
    pub margin: f64,
    /// Logarithm of the evidence.
    pub ln_e: f64,
}

/// Everything a decision rests on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// End of the last window taken in, milliseconds from the slots' origin.
    pub t_ms: i64,
    /// Windows since the rollout began.
    pub windows: u64,
    /// The step it is for, from 0.
    pub step: usize,
    /// Windows since the step began.
    pub windows_in_step: u64,
    /// How the arms are spread over hosts.
    pub spread: Spread,
    /// Hosts that carry the canary, and hosts that carry the baseline.
    pub hosts: (usize, usize),
    /// Both arms at every stage.
    pub arms: Vec<ArmSummary>,
    /// Evidence that the canary is worse.
    pub harm: HarmEvidence,
    /// Evidence that it is not.
    pub promotion: PromotionEvidence,
    /// Hosts found slower than the others of their arm since the rollout began.
    pub slow_hosts: Vec<SlowHost>,
    /// Why nothing can be decided: no data, or none that could be.
    pub undecidable: Vec<Blocker>,
    /// What stands in the way of promotion beside the evidence itself.
    pub blockers: Vec<Blocker>,
}

impl Evidence {
    /// Whether the canary is shown to be worse, and that not by one host alone.
    pub fn shows_harm(&self) -> bool {
        let by_version = self.harm.without_host.as_ref().is_none_or(|left| left.ln_e >= left.bound);
        self.harm.breaker.is_some() || (self.harm.ln_e >= self.harm.bound && by_version)
    }

    /// Whether there is harm that rests on one host.
    pub fn harm_rests_on_one_host(&self) -> bool {
        self.harm.ln_e >= self.harm.bound && !self.shows_harm()
    }

    /// Whether everything that must be shown for promotion is.
    pub fn shows_not_worse(&self) -> bool {
        !self.promotion.parts.is_empty() && self.promotion.ln_e >= self.promotion.bound
    }
}

/// A slice and what was seen of it in the last minute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SliceTraffic {
    /// The slice.
    pub(super) slice: Slice,
    /// Canary samples.
    pub(super) canary: u64,
    /// Baseline samples.
    pub(super) baseline: u64,
}
