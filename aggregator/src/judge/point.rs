//! The tail rule: p99 must not exceed `tail_ratio_max` times p95.
//!
//! This is the plain comparison of two point estimates, guarded where it would be nonsense: below
//! the sample floor of p99 (368) it says `insufficient_data`, below the absolute floor no ratio is
//! judged because a microsecond tail harms nobody, and a silent series is `stale`, not fine.
//! The guard is not enough near the threshold: at a true ratio of 1.95 and 1,000 samples a window,
//! the comparison is "violated" in about a third of the windows. The likelihood-ratio test over
//! dyadic windows replaces it behind these same names, bringing the interval of the ratio that is
//! `null` here; until then callers must not read more certainty into a verdict than its evidence.

use lens_hist::{Counts, Quantile, samples_min};
use lens_model::limits::WINDOW_SLOTS_MAX;
use lens_model::{Nanos, UnixNanos};
use serde::Serialize;
use utoipa::ToSchema;

use super::Verdict;
use crate::state::Rules;
use crate::window::Span;

/// Why a ratio has no interval yet.
pub(crate) const NO_INTERVAL: &str =
    "the interval of the ratio comes with the likelihood-ratio test; the verdict compares p99/p95";

/// What a tail verdict rests on.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Evidence {
    /// Samples in the window.
    #[schema(example = 4_812)]
    pub samples: u64,
    /// Fewest samples at which the rule is judged.
    #[schema(example = 368)]
    pub floor: u64,
    /// Width of the window, seconds.
    #[schema(example = 300.0)]
    pub window_s: f64,
    /// p99 below which no ratio is judged, milliseconds.
    #[schema(example = 1.0)]
    pub absolute_floor_ms: f64,
    /// How the verdict was reached.
    #[schema(example = "point_comparison")]
    pub method: &'static str,
}

impl Evidence {
    /// The evidence of a window with this many samples.
    pub fn new(samples: u64, rules: &Rules) -> Self {
        Self {
            samples,
            floor: samples_min(Quantile::P99),
            window_s: rules.summary_window.as_secs_f64(),
            absolute_floor_ms: rules.tail_floor.as_millis_f64(),
            method: "point_comparison",
        }
    }
}

/// The tail verdict of one series over one window.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct TailVerdict {
    /// The verdict.
    pub verdict: Verdict,
    /// One sentence for people, whatever the verdict.
    pub reason: String,
    /// p99/p95 of the window; `null` below the sample floor, above range, or where p95 is 0.
    #[schema(example = 1.62)]
    pub ratio: Option<f64>,
    /// Lower end of the ratio's 95 % interval.
    pub ratio_low: Option<f64>,
    /// Upper end of the ratio's 95 % interval.
    pub ratio_high: Option<f64>,
    /// Largest ratio that is not a violation.
    #[schema(example = 2.0)]
    pub threshold: f64,
    /// What it rests on.
    pub evidence: Evidence,
}

/// Judges one series' window. `last_event` is `None` for a series that was never heard of.
pub fn judge(
    counts: &Counts,
    rules: &Rules,
    last_event: Option<UnixNanos>,
    now: UnixNanos,
) -> TailVerdict {
    let floor = samples_min(Quantile::P99);
    let estimates = counts.quantiles(&[Quantile::P95, Quantile::P99]);
    let samples = estimates[0].samples;
    let (p95, p99) = (estimates[0].value, estimates[1].value);
    let ratio = match (p95, p99) {
        (Some(p95), Some(p99)) if samples >= floor && p95.0 > 0 => {
            Some(p99.0 as f64 / p95.0 as f64)
        }
        _ => None,
    };
    let (verdict, reason) = decide(rules, last_event, now, samples, p99, ratio);
    TailVerdict {
        verdict,
        reason,
        ratio,
        ratio_low: None,
        ratio_high: None,
        threshold: rules.tail_ratio_max,
        evidence: Evidence::new(samples, rules),
    }
}

fn decide(
    rules: &Rules,
    last_event: Option<UnixNanos>,
    now: UnixNanos,
    samples: u64,
    p99: Option<Nanos>,
    ratio: Option<f64>,
) -> (Verdict, String) {
    let floor = samples_min(Quantile::P99);
    let Some(last_event) = last_event else {
        return (Verdict::InsufficientData, "no samples were ever received".into());
    };
    if let Some(reason) = silence(rules, last_event, now) {
        return (Verdict::Stale, reason);
    }
    if samples < floor {
        let reason = format!("{samples} samples in the window; p99 needs {floor}");
        return (Verdict::InsufficientData, reason);
    }
    let Some(p99) = p99 else {
        let reason = "p99 lies above the largest latency that can be measured, 68.7 s".into();
        return (Verdict::Violation, reason);
    };
    if p99 < rules.tail_floor {
        let (p99, floor) = (p99.as_millis_f64(), rules.tail_floor.as_millis_f64());
        let reason = format!("p99 of {p99:.3} ms is under {floor} ms, where no ratio is judged");
        return (Verdict::Ok, reason);
    }
    let limit = rules.tail_ratio_max;
    match ratio {
        Some(ratio) if ratio > limit => {
            (Verdict::Violation, format!("p99 is {ratio:.2} times p95, more than {limit}"))
        }
        Some(ratio) => (Verdict::Ok, format!("p99 is {ratio:.2} times p95, at most {limit}")),
        None => (Verdict::Violation, "p95 is 0 while p99 is not: the ratio has no bound".into()),
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

/// How many disjoint summary windows in a row, the newest ending at `now`, are violations.
///
/// `sum` adds the counts of a span; it is asked for as many windows as the ring holds, at most,
/// which is twelve of the default width.
pub fn consecutive_windows(
    rules: &Rules,
    base: Nanos,
    now: UnixNanos,
    mut sum: impl FnMut(Span, &mut Counts),
) -> u32 {
    let width = rules.summary_window.max(base);
    let ring = Nanos(base.0.saturating_mul(WINDOW_SLOTS_MAX as u64));
    let mut counts = Counts::new();
    let mut found = 0;
    let mut to = now;
    while now.since(to) < ring {
        let from = to.minus(width);
        counts.clear();
        sum(Span { from, to }, &mut counts);
        if judge(&counts, rules, Some(to), to).verdict != Verdict::Violation {
            break;
        }
        found += 1;
        to = from;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixNanos = UnixNanos(1_000_000_000_000);

    fn counted(slow: u64, slow_ms: u64, fast: u64, fast_ms: u64) -> Counts {
        let mut counts = Counts::new();
        counts.add(lens_hist::layout::index_of(slow_ms * 1_000_000), slow);
        counts.add(lens_hist::layout::index_of(fast_ms * 1_000_000), fast);
        counts
    }

    fn verdict(counts: &Counts, last_event: Option<UnixNanos>) -> TailVerdict {
        judge(counts, &Rules::default(), last_event, NOW)
    }

    #[test]
    fn the_threshold_itself_is_no_violation_and_beyond_it_is_one() {
        // 3 % slow samples: p95 is fast, p99 is slow.
        let above = verdict(&counted(30, 21, 970, 10), Some(NOW));
        assert_eq!(above.verdict, Verdict::Violation, "{above:?}");
        let below = verdict(&counted(30, 19, 970, 10), Some(NOW));
        assert_eq!(below.verdict, Verdict::Ok, "{below:?}");
        assert!((below.ratio.unwrap() - 1.9).abs() < 0.02);
    }

    #[test]
    fn one_sample_below_the_floor_nothing_is_judged() {
        let few = verdict(&counted(11, 100, 356, 10), Some(NOW));
        assert_eq!((few.verdict, few.ratio), (Verdict::InsufficientData, None));
        let enough = verdict(&counted(12, 100, 356, 10), Some(NOW));
        assert_eq!(enough.verdict, Verdict::Violation);
    }

    #[test]
    fn silence_is_stale_however_good_the_last_samples_were() {
        let counts = counted(0, 1, 1_000, 10);
        let edge = NOW.minus(Rules::default().stale_after);
        assert_eq!(verdict(&counts, Some(edge)).verdict, Verdict::Ok);
        assert_eq!(verdict(&counts, Some(UnixNanos(edge.0 - 1))).verdict, Verdict::Stale);
        assert_eq!(verdict(&Counts::new(), None).verdict, Verdict::InsufficientData);
    }

    #[test]
    fn a_tail_under_the_absolute_floor_is_not_judged_by_its_ratio() {
        let mut counts = Counts::new();
        counts.add(lens_hist::layout::index_of(900_000), 30);
        counts.add(lens_hist::layout::index_of(10_000), 970);
        let verdict = verdict(&counts, Some(NOW));
        assert_eq!(verdict.verdict, Verdict::Ok);
        assert!(verdict.reason.contains("under 1 ms"), "{}", verdict.reason);
        assert!(verdict.ratio.unwrap() > 80.0);
    }

    #[test]
    fn a_tail_beyond_what_can_be_measured_is_a_violation() {
        let mut counts = counted(0, 1, 970, 10);
        counts.record(u64::MAX);
        counts.add(lens_hist::layout::OVERFLOW, 29);
        let verdict = verdict(&counts, Some(NOW));
        assert_eq!((verdict.verdict, verdict.ratio), (Verdict::Violation, None));
    }
}
