//! Absolute limits per stage: a quantile's value against the configured limit.
//!
//! The limits are promises about the service's latency, so the comparison is of the value itself;
//! its interval stands beside it wherever the value is shown. Below a quantile's sample floor and
//! in silence there is no answer. The whole query (`e2e`) has no absolute limit here: its rule is
//! relative to the baseline.

use lens_hist::{Counts, Quantile};
use lens_model::{Nanos, Stage, UnixNanos};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Verdict, point};
use crate::state::Rules;

/// One absolute limit and how the samples stand to it.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Slo {
    /// Which quantile is limited: `p95`, `p99`.
    #[schema(example = "p95")]
    pub quantile: &'static str,
    /// Its value over the window, milliseconds; `null` without enough samples.
    #[schema(example = 3.2)]
    pub value_ms: Option<f64>,
    /// The largest value that keeps the promise, milliseconds.
    #[schema(example = 5.0)]
    pub limit_ms: f64,
    /// How they stand.
    pub state: Verdict,
    /// Why there is no value, or no answer in spite of one; `null` otherwise.
    pub reason: Option<String>,
}

/// The absolute limits of a stage.
pub fn limits(rules: &Rules, stage: Stage) -> Vec<(&'static str, Quantile, Nanos)> {
    match stage {
        Stage::A => {
            vec![("p95", Quantile::P95, rules.slo_a_p95), ("p99", Quantile::P99, rules.slo_a_p99)]
        }
        Stage::B => vec![("p95", Quantile::P95, rules.slo_b_p95)],
        Stage::C => vec![("p95", Quantile::P95, rules.slo_c_p95)],
        Stage::E2e => Vec::new(),
    }
}

/// Holds one window of a stage against the stage's limits.
pub fn slo(
    counts: &Counts,
    rules: &Rules,
    stage: Stage,
    last_event: Option<UnixNanos>,
    now: UnixNanos,
) -> Vec<Slo> {
    let silent = last_event.and_then(|last| point::silence(rules, last, now));
    let compare = |(name, quantile, limit): (&'static str, Quantile, Nanos)| {
        let estimate = counts.quantile(quantile);
        let floor = lens_hist::samples_min(quantile);
        let above_range = estimate.samples >= floor && estimate.value.is_none();
        let (state, reason) = match (&silent, estimate.value) {
            (Some(silence), _) => (Verdict::Stale, Some(silence.clone())),
            (None, Some(value)) if value <= limit => (Verdict::Ok, None),
            (None, Some(_)) => (Verdict::Violation, None),
            (None, None) if above_range => {
                (Verdict::Violation, Some("above the largest measurable latency, 68.7 s".into()))
            }
            (None, None) => {
                let reason = format!("{} samples; {name} needs {floor}", estimate.samples);
                (Verdict::InsufficientData, Some(reason))
            }
        };
        Slo {
            quantile: name,
            value_ms: estimate.value.map(Nanos::as_millis_f64),
            limit_ms: limit.as_millis_f64(),
            state,
            reason,
        }
    };
    limits(rules, stage).into_iter().map(compare).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_kept_broken_or_unanswered() {
        let rules = Rules::default();
        let now = UnixNanos(1_000_000_000_000);
        let states = |counts: &Counts, last| {
            slo(counts, &rules, Stage::A, last, now).iter().map(|s| s.state).collect::<Vec<_>>()
        };
        let mut counts = Counts::new();
        counts.add(lens_hist::layout::index_of(4_000_000), 100);
        assert_eq!(states(&counts, Some(now)), [Verdict::Ok, Verdict::InsufficientData]);
        counts.add(lens_hist::layout::index_of(20_000_000), 1_000);
        assert_eq!(states(&counts, Some(now)), [Verdict::Violation, Verdict::Violation]);
        let long_ago = now.minus(Nanos::from_secs(31));
        assert_eq!(states(&counts, Some(long_ago)), [Verdict::Stale, Verdict::Stale]);
        assert!(slo(&counts, &rules, Stage::E2e, Some(now), now).is_empty());
    }
}
