//! Absolute limits per stage: a quantile's value against the configured limit.
//!
//! The answer is the standing judge's: broken when a window shows more samples above the limit than
//! the quantile allows, beyond chance; the value beside it is the summary window's. A value above
//! the limit that chance explains is not a broken promise yet, and its sentence says so. Below a
//! quantile's sample floor and in silence there is no answer. The whole query (`e2e`) has a limit
//! only where one is configured; its standing rule is relative to the baseline.

use lens_hist::Counts;
use lens_model::{Nanos, UnixNanos};
use serde::Serialize;
use utoipa::ToSchema;

use super::standing::{Held, LimitWatched, Stream, Test};
use super::{Verdict, verdict};
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

/// The absolute limits of a series as they stand, with the values of the summary window's `counts`.
pub fn slo(
    stream: &Stream,
    counts: &Counts,
    rules: &Rules,
    last_event: UnixNanos,
    now: UnixNanos,
) -> Vec<Slo> {
    let silent = verdict::silence(rules, last_event, now);
    stream.limits().iter().map(|limit| stands(limit, counts, silent.as_ref())).collect()
}

fn stands(limit: &LimitWatched, counts: &Counts, silent: Option<&String>) -> Slo {
    let Test::Limit { quantile, limit: largest } = limit.test else {
        unreachable!("limits are made of limits")
    };
    let estimate = counts.quantile(quantile);
    let (state, reason) = match (silent, limit.watched.held()) {
        (Some(silence), _) => (Verdict::Stale, Some(silence.clone())),
        (None, Held::Broken(_)) => {
            let above = estimate.samples > 0 && estimate.bucket_high.is_none();
            let reason = "above the largest measurable latency, 68.7 s";
            (Verdict::Violation, above.then(|| reason.to_owned()))
        }
        (None, Held::Kept(_)) => {
            let above = estimate.value.is_some_and(|value| value > largest);
            let reason = "above its limit, by no more than chance explains";
            (Verdict::Ok, above.then(|| reason.to_owned()))
        }
        (None, Held::Unjudged) => {
            let (found, floor) = (estimate.samples, limit.test.samples_min());
            let reason = format!("{found} samples; {} needs {floor} in one window", limit.name);
            (Verdict::InsufficientData, Some(reason))
        }
    };
    Slo {
        quantile: limit.name,
        value_ms: estimate.value.map(Nanos::as_millis_f64),
        limit_ms: largest.as_millis_f64(),
        state,
        reason,
    }
}
