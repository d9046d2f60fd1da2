//! What is said of one series now: the standing judge's answer beside the summary window's numbers.
//!
//! The verdict is the judge's, from windows of every width; ratio and interval are the summary
//! window's, which is what people look at. Below the sample floor there is no ratio, and in silence
//! the answer is `stale`, however good the last samples were.

use lens_hist::{Counts, Quantile, samples_min};
use lens_model::{Nanos, SeriesKey, UnixNanos};
use serde::Serialize;
use utoipa::ToSchema;

use super::Verdict;
use super::slot::{SLOT, Slot};
use super::standing::{Finding, Held, Stream, Test};
use super::survivors::Survivors;
use super::tail::rule;
use crate::snapshot::{rfc3339, some_rfc3339};
use crate::state::Rules;

/// What a tail verdict rests on.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Evidence {
    /// Samples in the summary window.
    #[schema(example = 4_812)]
    pub samples: u64,
    /// Fewest samples of a window on which the rule is judged.
    #[schema(example = 1_000)]
    pub floor: u64,
    /// Width of the summary window, seconds.
    #[schema(example = 300.0)]
    pub window_s: f64,
    /// p99 below which no ratio is judged, milliseconds.
    #[schema(example = 1.0)]
    pub absolute_floor_ms: f64,
    /// How the verdict was reached.
    #[schema(example = "likelihood_ratio")]
    pub method: &'static str,
    /// The window that decided; `null` before any did.
    #[schema(value_type = Option<Object>)]
    pub decided: Option<Decided>,
}

/// The window a verdict rests on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ToSchema)]
pub struct Decided {
    /// Its first instant.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub from: UnixNanos,
    /// Its width, seconds.
    #[schema(example = 20.0)]
    pub window_s: f64,
    /// Its samples.
    #[schema(example = 20_112)]
    pub samples: u64,
    /// Standard deviations by which it speaks against the rule; `null` for a tail above what can be
    /// measured.
    #[schema(example = 6.1)]
    pub z: f64,
    /// Deviations its width asks for.
    #[schema(example = 4.9)]
    pub z_needed: f64,
    /// How many of the series' samples count as one: its overdispersion.
    #[schema(example = 1.0)]
    pub phi: f64,
}

impl Decided {
    fn new(finding: &Finding) -> Self {
        Self {
            from: instant(finding.first()),
            window_s: finding.scale.secs(),
            samples: finding.samples,
            z: finding.z,
            z_needed: finding.z_needed,
            phi: finding.phi,
        }
    }
}

/// The beginning of a slot numbered from the Unix epoch.
#[allow(clippy::cast_sign_loss)]
fn instant(slot: Slot) -> UnixNanos {
    UnixNanos(slot.0.max(0) as u64 * SLOT.0)
}

/// The tail verdict of one series.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct TailVerdict {
    /// The verdict.
    pub verdict: Verdict,
    /// One sentence for people, whatever the verdict.
    pub reason: String,
    /// p99/p95 of the summary window; `null` below p99's sample floor, above range, or where p95
    /// is 0.
    #[schema(example = 1.62)]
    pub ratio: Option<f64>,
    /// Lower end of its 95 % interval.
    pub ratio_low: Option<f64>,
    /// Upper end of its 95 % interval.
    pub ratio_high: Option<f64>,
    /// Largest ratio that is not a violation.
    #[schema(example = 2.0)]
    pub threshold: f64,
    /// Beginning of the window that showed the violation; `null` without one.
    #[serde(serialize_with = "some_rfc3339")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub since: Option<UnixNanos>,
    /// Disjoint windows in a row, up to the newest, that each speak against the rule.
    #[schema(example = 0)]
    pub consecutive_windows: u32,
    /// What it rests on.
    pub evidence: Evidence,
}

/// The verdict on one series: what the judge holds of it, and the summary window's `counts`.
pub fn tail_verdict(
    stream: Option<&Stream>,
    key: &SeriesKey,
    counts: &Counts,
    rules: &Rules,
    last_event: UnixNanos,
    now: UnixNanos,
) -> TailVerdict {
    let limit = rules.tail_ratio(&key.slice);
    let test = Test::Tail { limit, floor: rules.tail_floor };
    let held = stream.map_or(Held::Unjudged, |stream| stream.tail().held());
    let phi = stream.map_or(1.0, |stream| stream.tail().phi());
    let summary = Summary::of(counts, phi);
    let (verdict, reason) = match silence(rules, last_event, now) {
        Some(reason) => (Verdict::Stale, reason),
        None => said(&held, stream, &summary, &test, rules, limit),
    };
    let episode = match held {
        Held::Broken(episode) => Some(episode),
        _ => None,
    };
    let finding = match held {
        Held::Unjudged => None,
        Held::Kept(finding) => Some(finding),
        Held::Broken(episode) => Some(episode.found),
    };
    TailVerdict {
        verdict,
        reason,
        ratio: summary.ratio,
        ratio_low: summary.low,
        ratio_high: summary.high,
        threshold: limit,
        since: episode.map(|episode| instant(episode.found.first())),
        consecutive_windows: episode.map_or(0, |episode| episode.windows),
        evidence: Evidence {
            samples: summary.samples,
            floor: test.samples_min(),
            window_s: rules.summary_window.as_secs_f64(),
            absolute_floor_ms: rules.tail_floor.as_millis_f64(),
            method: "likelihood_ratio",
            decided: finding.as_ref().map(Decided::new),
        },
    }
}

/// p99/p95 of these counts, and the ends of its 95 % interval where `phi` samples count as one;
/// `None` below p99's sample floor.
pub fn ratio(counts: &Counts, phi: f64) -> (Option<f64>, Option<f64>, Option<f64>) {
    let summary = Summary::of(counts, phi);
    (summary.ratio, summary.low, summary.high)
}

/// The summary window's ratio.
struct Summary {
    samples: u64,
    p99: Option<Nanos>,
    ratio: Option<f64>,
    low: Option<f64>,
    high: Option<f64>,
}

impl Summary {
    fn of(counts: &Counts, phi: f64) -> Self {
        let estimates = counts.quantiles(&[Quantile::P95, Quantile::P99]);
        let samples = estimates[0].samples;
        let p99 = estimates[1].value;
        let ratio = match (estimates[0].value, p99) {
            (Some(p95), Some(p99)) if p95.0 > 0 => Some(p99.0 as f64 / p95.0 as f64),
            _ => None,
        };
        let interval = || rule::interval(&Survivors::of(counts), phi);
        let enough = samples >= samples_min(Quantile::P99);
        let (low, high) = if enough { interval() } else { (None, None) };
        Self { samples, p99, ratio, low, high }
    }

    fn sentence(&self, ratio: f64) -> String {
        let end = |end: Option<f64>| end.map_or("no bound".to_owned(), |end| format!("{end:.2}"));
        format!("p99 is {ratio:.2} times p95 ({} to {})", end(self.low), end(self.high))
    }
}

fn said(
    held: &Held,
    stream: Option<&Stream>,
    summary: &Summary,
    test: &Test,
    rules: &Rules,
    limit: f64,
) -> (Verdict, String) {
    match held {
        Held::Unjudged => {
            let (found, needed) = (summary.samples, test.samples_min());
            let reason = format!(
                "{found} samples in the window; the tail rule needs {needed} in one of up to 2,560 s"
            );
            (Verdict::InsufficientData, reason)
        }
        Held::Kept(_) => {
            if let Some(p99) = summary.p99.filter(|p99| *p99 < rules.tail_floor) {
                let (p99, floor) = (p99.as_millis_f64(), rules.tail_floor.as_millis_f64());
                let reason =
                    format!("p99 of {p99:.3} ms is under {floor} ms, where no ratio is judged");
                return (Verdict::Ok, reason);
            }
            let reason = match summary.ratio {
                Some(ratio) if ratio > limit => {
                    format!("{}; not shown to be above {limit}", summary.sentence(ratio))
                }
                Some(ratio) => format!("{}, at most {limit}", summary.sentence(ratio)),
                None => format!("no window shows p99 above {limit} times p95"),
            };
            (Verdict::Ok, reason)
        }
        Held::Broken(episode) => {
            let secs = episode.found.scale.secs();
            let measure = stream.map(|stream| stream.tail().measure()).unwrap_or_default();
            let reason = match (measure.value, measure.low) {
                (Some(ratio), Some(low)) => format!(
                    "p99 is {ratio:.2} times p95 over {secs} s, at least {low:.2}, more than {limit}"
                ),
                (Some(ratio), None) => {
                    format!("p99 is {ratio:.2} times p95 over {secs} s, more than {limit}")
                }
                (None, _) => {
                    "p99 lies above the largest latency that can be measured, 68.7 s".into()
                }
            };
            (Verdict::Violation, reason)
        }
    }
}

/// The sentence that says a series is silent; `None` while it is not.
pub(super) fn silence(rules: &Rules, last_event: UnixNanos, now: UnixNanos) -> Option<String> {
    let age = now.since(last_event);
    (age > rules.stale_after).then(|| {
        let (age, allowed) = (age.as_secs_f64(), rules.stale_after.as_secs_f64());
        format!("silent for {age:.0} s, longer than {allowed} s")
    })
}
