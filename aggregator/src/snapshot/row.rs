//! One series over the summary window: quantiles, rate, verdicts.

use lens_hist::{Counts, Estimate, Quantile, samples_min, samples_sure};
use lens_model::{Arm, Nanos, SeriesKey, Slice, Stage, UnixNanos};
use serde::Serialize;
use utoipa::ToSchema;

use super::{rfc3339, some_rfc3339};
use crate::judge::standing::{Forecast, Stream, Trend};
use crate::judge::{self, Evidence, Slo, Verdict};
use crate::state::State;
use crate::window::{Selection, SeriesState, Span};

/// Span behind `rate_per_s`: long enough for the slowest harvest, short enough to follow a change.
const RATE_SPAN: Nanos = Nanos::from_secs(60);

/// A quantile with its 95 % interval. `value_ms` is `null` exactly when `reason` says why.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Value {
    /// The quantile, milliseconds.
    #[schema(example = 3.214)]
    pub value_ms: Option<f64>,
    /// Lower end of its 95 % interval; known before the value is.
    #[schema(example = 3.05)]
    pub low_ms: Option<f64>,
    /// Upper end of its 95 % interval.
    #[schema(example = 3.41)]
    pub high_ms: Option<f64>,
    /// Whether there is a value, of too few samples to decide anything by: fewer than ten beyond it,
    /// counting those that depend on each other as one.
    pub low_confidence: bool,
    /// Why there is no value.
    pub reason: Option<String>,
}

impl Value {
    /// The value a histogram gives a quantile, or the reason it gives none.
    pub fn new(quantile: Quantile, estimate: &Estimate) -> Self {
        let floor = samples_min(quantile);
        let reason = match (estimate.value, estimate.samples) {
            (Some(_), _) => None,
            (None, 0) => Some("no samples".to_owned()),
            (None, n) if n < floor => Some(format!("{n} samples; a 95 % interval needs {floor}")),
            (None, n) if estimate.effective < floor => Some(format!(
                "{n} samples, worth {} independent ones; a 95 % interval needs {floor}",
                estimate.effective
            )),
            (None, _) => Some("above the largest measurable latency, 68.7 s".to_owned()),
        };
        Self {
            value_ms: estimate.value.map(Nanos::as_millis_f64),
            low_ms: estimate.low.map(Nanos::as_millis_f64),
            high_ms: estimate.high.map(Nanos::as_millis_f64),
            low_confidence: reason.is_none() && estimate.effective < samples_sure(quantile),
            reason,
        }
    }
}

/// One series over the summary window.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Row {
    /// The slice of the corpus, `repo_type/language/size`.
    #[schema(value_type = String, example = "backend/rust/large")]
    pub slice: Slice,
    /// The stage of the query.
    #[schema(value_type = String, example = "stage_a")]
    pub stage: Stage,
    /// The arm of the rollout.
    #[schema(value_type = String, example = "baseline")]
    pub arm: Arm,
    /// Samples in the window.
    #[schema(example = 4_812)]
    pub count: u64,
    /// Samples ever merged.
    #[schema(example = 91_204)]
    pub merged_total: u64,
    /// Samples a second over the last minute of whole slots; `null` in the first seconds.
    #[schema(example = 16.2)]
    pub rate_per_s: Option<f64>,
    /// Median.
    pub p50: Value,
    /// 95th percentile.
    pub p95: Value,
    /// 99th percentile.
    pub p99: Value,
    /// 99.9th percentile.
    pub p99_9: Value,
    /// p99/p95; `null` below the sample floor.
    #[schema(example = 1.62)]
    pub ratio: Option<f64>,
    /// Lower end of the ratio's 95 % interval.
    #[schema(example = 1.51)]
    pub ratio_low: Option<f64>,
    /// Upper end of the ratio's 95 % interval.
    #[schema(example = 1.74)]
    pub ratio_high: Option<f64>,
    /// Largest ratio that is not a violation.
    #[schema(example = 2.0)]
    pub ratio_max: f64,
    /// The tail verdict.
    pub verdict: Verdict,
    /// One sentence saying what it rests on.
    pub reason: String,
    /// Beginning of the window that showed the violation; `null` without one.
    #[serde(serialize_with = "some_rfc3339")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub since: Option<UnixNanos>,
    /// Disjoint windows in a row, up to the newest, that each speak against the rule.
    #[schema(example = 0)]
    pub consecutive_windows: u32,
    /// The same in numbers.
    #[schema(value_type = Object)]
    pub evidence: Evidence,
    /// Where the ratio is going; `null` with fewer than 18 points of 320 s.
    #[schema(value_type = Option<Object>)]
    pub trend: Option<Trend>,
    /// When it will be a violation; `null` unless three looks agree that it will within a day.
    #[schema(value_type = Option<Object>)]
    pub forecast: Option<Forecast>,
    /// Whether very slow requests became more than the first hour had, beyond what chance does in
    /// 30 days; `null` before there is an hour to compare with.
    pub drift: Option<bool>,
    /// When samples were last recorded.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub last_seen: UnixNanos,
    /// How long ago that was, seconds.
    #[schema(example = 1.4)]
    pub age_s: f64,
    /// Hosts that report the series.
    #[schema(example = 2)]
    pub hosts: usize,
    /// Whether every absolute limit of the stage is kept; `null` where one has no answer or the
    /// stage has none.
    pub slo_ok: Option<bool>,
    /// The absolute limits of the stage.
    pub slo: Vec<Slo>,
}

impl Row {
    /// The row of a series as of `now`; `counts` is room to work in.
    pub(super) fn new(
        state: &State,
        key: &SeriesKey,
        held: &SeriesState,
        now: UnixNanos,
        counts: &mut Counts,
    ) -> Self {
        let rules = &state.rules;
        let selection = Selection::series(key);
        counts.clear();
        let rate_per_s = {
            let windows = state.windows.read();
            let rate = rate(state, windows.base(), now, |span| {
                let mut recent = Counts::new();
                windows.sum(&selection, span, &mut recent);
                recent.total()
            });
            windows.sum(&selection, Span::last(rules.summary_window, now), counts);
            rate
        };
        let standing = state.judge.read();
        // A series may be newer than the newest slot that was judged.
        let unjudged = Stream::new(key, rules);
        let stream = standing.stream(key).unwrap_or(&unjudged);
        let phi = stream.tail().phi();
        let estimates = counts.quantiles_of_dependent(&Quantile::SHOWN, phi);
        let value = |at: usize| Value::new(Quantile::SHOWN[at], &estimates[at]);
        let tail = judge::tail_verdict(Some(stream), key, counts, rules, held.last_event, now);
        let slo = judge::slo(stream, counts, rules, held.last_event, now);
        Self {
            slice: key.slice.clone(),
            stage: key.stage,
            arm: key.arm,
            count: tail.evidence.samples,
            merged_total: held.merged_total,
            rate_per_s,
            p50: value(0),
            p95: value(1),
            p99: value(2),
            p99_9: value(3),
            ratio: tail.ratio,
            ratio_low: tail.ratio_low,
            ratio_high: tail.ratio_high,
            ratio_max: tail.threshold,
            verdict: tail.verdict,
            reason: tail.reason,
            since: tail.since,
            consecutive_windows: tail.consecutive_windows,
            evidence: tail.evidence,
            trend: stream.future().trend().copied(),
            forecast: stream.future().forecast().copied(),
            drift: stream.future().drifts(),
            last_seen: held.last_event,
            age_s: now.since(held.last_event).as_secs_f64(),
            hosts: held.hosts.len(),
            slo_ok: slo_ok(&slo),
            slo,
        }
    }

    /// The series this row is about.
    pub fn key(&self) -> SeriesKey {
        SeriesKey { slice: self.slice.clone(), stage: self.stage, arm: self.arm }
    }
}

fn slo_ok(slo: &[Slo]) -> Option<bool> {
    if slo.iter().any(|slo| slo.state == Verdict::Violation) {
        return Some(false);
    }
    (!slo.is_empty() && slo.iter().all(|slo| slo.state == Verdict::Ok)).then_some(true)
}

/// Samples a second over the whole slots of the last minute, or of the uptime when that is less.
fn rate(
    state: &State,
    base: Nanos,
    now: UnixNanos,
    total: impl FnOnce(Span) -> u64,
) -> Option<f64> {
    let to = UnixNanos(now.0 / base.0 * base.0);
    let uptime_slots = now.since(state.started).0 / base.0;
    let slots = (RATE_SPAN.0 / base.0).min(uptime_slots);
    if slots == 0 {
        return None;
    }
    let width = Nanos(slots * base.0);
    Some(total(Span { from: to.minus(width), to }) as f64 / width.as_secs_f64())
}
