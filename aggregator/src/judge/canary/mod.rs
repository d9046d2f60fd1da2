//! Canary against baseline, looked at after every window.
//!
//! Both arms at the same time, on the same slices, counted against thresholds of the baseline's
//! earlier windows. Evidence that the canary is worse and evidence that it is not are kept apart:
//! the absence of one is not the other. Both are e-processes, so looking at every window costs
//! nothing; what costs is dependence between requests, which is measured from placebos, capped, and
//! taken into the margins when arms have hosts of their own. One bad host is told from a bad
//! version by the evidence that is left without it.
//! Source: Turner, Ly & Grünwald 2024; Lindon & Malek 2022; Waudby-Smith & Ramdas 2024; claims and
//! simulated error rates in docs/verdicts-canary.md.

mod comparison;
pub mod evalue;
pub mod evidence;
pub mod harm;
pub mod histogram;
pub mod host_effect;
pub mod hosts;
pub mod placebo;
pub mod plan;
pub mod process;
pub mod promotion;
pub mod quality;
pub mod reference;
mod report;
pub mod slow_host;
pub mod stage;
pub mod stratum;
pub mod tally;
pub mod unit;
pub mod weights;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;

pub use comparison::{Comparison, OutOfOrder, STREAMS_MAX};
pub use evidence::{
    ArmSummary, Blocker, BlockerCode, Breaker, Evidence, HarmEvidence, PromotionEvidence,
    PromotionPart, QuantileSummary, WithoutHost,
};
pub use hosts::Spread;
pub use placebo::HOSTS_MAX;
pub use plan::{PLAN_BYTES_MAX, Plan, PlanError, STEPS_MAX};
pub use quality::QualityWindow;
pub use report::canary_hosts_needed;
pub use slow_host::{Counted, SlowHost};
pub use unit::{Both, Leading};
