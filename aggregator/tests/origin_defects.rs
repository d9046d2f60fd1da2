//! What a tail monitor must not do, each once: measurement and logic, not alerting.
//!
//! Each test plays a stream through the standing judge and reads what it says.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use lens_aggregator::judge::Verdict;
use lens_aggregator::judge::decision::{Decision, Kind, SlotJudge};
use lens_aggregator::judge::slot::{HostWindow, Slot, SlotWindows};
use lens_aggregator::judge::standing::Standing;
use lens_aggregator::state::Rules;
use lens_hist::{Sparse, layout};
use lens_model::{Arm, SeriesKey, Slice, Stage};

/// A judge of one series.
struct Bench {
    standing: Standing,
    key: SeriesKey,
    slot: i64,
    decisions: Vec<Decision>,
}

impl Bench {
    fn new(language: &str, stage: Stage) -> Self {
        let slice = Slice::new("backend", language, "large").unwrap();
        let key = SeriesKey { slice, stage, arm: Arm::Baseline };
        Self { standing: Standing::new(&Rules::default()), key, slot: 0, decisions: Vec::new() }
    }

    /// Plays `slots` slots of these (milliseconds, count).
    fn play(&mut self, slots: i64, values: &[(f64, u64)]) -> &mut Self {
        let mut entries: Vec<(usize, u64)> = values
            .iter()
            .map(|(ms, count)| {
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                let nanos = (ms * 1e6) as u64;
                (layout::index_of(nanos), *count)
            })
            .collect();
        entries.sort_unstable();
        let mut counts = Sparse::new();
        entries.iter().for_each(|(index, count)| counts.push(*index, *count));
        for _ in 0..slots {
            let window = HostWindow {
                slice: Arc::new(self.key.slice.clone()),
                stage: self.key.stage,
                arm: self.key.arm,
                host: "a/n".into(),
                ok: counts.total(),
                counts: counts.clone(),
                errors: 0,
            };
            let windows = if counts.is_empty() { Vec::new() } else { vec![window] };
            let slot = SlotWindows { slot: Slot(self.slot), windows };
            self.standing.slot(&slot, &mut self.decisions);
            self.slot += 1;
        }
        self
    }

    fn verdict(&self) -> Verdict {
        let stream = self.standing.stream(&self.key).unwrap();
        self.standing.verdict(stream, stream.tail())
    }

    fn said(&self, kind: Kind, word: &str) -> usize {
        self.decisions.iter().filter(|d| d.kind == kind && d.decision == word).count()
    }
}

const HEALTHY: [(f64, u64); 4] = [(10.0, 470), (14.0, 22), (18.0, 7), (25.0, 1)];
const LONG: [(f64, u64); 2] = [(10.0, 480), (40.0, 20)];

#[test]
fn resolution_twenty_zeros_and_a_one_are_no_violation() {
    let mut bench = Bench::new("rust", Stage::B);
    bench.play(1, &[(0.0, 20), (1.0, 1)]);
    assert_eq!(bench.verdict(), Verdict::InsufficientData);
    bench.play(200, &[(0.0, 20), (0.9, 1)]);
    assert_eq!(
        bench.said(Kind::Tail, "violation"),
        0,
        "under the absolute floor nothing is judged"
    );
}

#[test]
fn no_minimum_n_one_huge_outlier_decides_nothing() {
    let mut bench = Bench::new("rust", Stage::B);
    bench.play(1, &[(10.0, 12), (60_000.0, 1)]);
    assert_eq!(bench.verdict(), Verdict::InsufficientData);
    bench.play(60, &HEALTHY).play(1, &[(10.0, 499), (60_000.0, 1)]).play(60, &HEALTHY);
    assert_eq!(bench.said(Kind::Tail, "violation"), 0);
}

#[test]
fn overlapping_windows_one_burst_is_one_window_and_never_ten() {
    let mut bench = Bench::new("rust", Stage::B);
    bench.play(60, &HEALTHY).play(2, &LONG).play(24, &HEALTHY);
    let stream = bench.standing.stream(&bench.key).unwrap();
    if let lens_aggregator::judge::standing::Held::Broken(episode) = stream.tail().held() {
        assert!(episode.windows <= 1, "{episode:?}");
    }
    assert!(bench.said(Kind::Tail, "violation") <= 1);
}

#[test]
fn stale_windows_a_silent_slice_does_not_keep_its_verdict() {
    let mut bench = Bench::new("rust", Stage::B);
    bench.play(60, &LONG);
    assert_eq!(bench.verdict(), Verdict::Violation);
    bench.play(7, &[]);
    assert_eq!(bench.verdict(), Verdict::Stale);
}

#[test]
fn one_good_sample_resolves_nothing_and_lasting_calm_does() {
    let mut bench = Bench::new("rust", Stage::B);
    bench.play(60, &LONG).play(3, &HEALTHY);
    assert_eq!(bench.verdict(), Verdict::Violation);
    bench.play(120, &HEALTHY);
    assert_eq!(bench.verdict(), Verdict::Ok);
}

#[test]
fn ratio_blindness_a_uniformly_slower_stage_breaks_its_absolute_limit() {
    let mut bench = Bench::new("rust", Stage::A);
    let scaled = |factor: f64| HEALTHY.map(|(ms, count)| (ms * factor, count));
    bench.play(60, &scaled(0.2));
    assert_eq!(bench.said(Kind::Slo, "violation"), 0);
    bench.play(12, &scaled(2.0));
    assert_eq!(bench.said(Kind::Tail, "violation"), 0, "the ratio is the same");
    assert_eq!(bench.said(Kind::Slo, "violation"), 2, "p95 and p99");
}

#[test]
fn trend_three_points_are_no_trend_and_no_nan() {
    let mut bench = Bench::new("rust", Stage::B);
    bench.play(64 * 3, &HEALTHY);
    assert_eq!(bench.standing.stream(&bench.key).unwrap().future().trend(), None);
    bench.play(64 * 24, &HEALTHY);
    let stream = bench.standing.stream(&bench.key).unwrap();
    let trend = stream.future().trend().unwrap();
    assert!(trend.trend_strength.is_finite() && trend.z.is_finite(), "{trend:?}");
    assert_eq!(trend.trend, lens_aggregator::judge::standing::Direction::Stable);
}

#[test]
fn go_and_rust_slices_are_judged_like_any_other() {
    for language in ["go", "rust"] {
        let mut bench = Bench::new(language, Stage::B);
        assert_eq!(bench.play(60, &HEALTHY).verdict(), Verdict::Ok, "{language}");
    }
}

#[test]
fn an_unfed_judge_says_nothing_and_a_tail_can_be_broken_beyond_one_point_two() {
    let standing = Standing::new(&Rules::default());
    assert_eq!(standing.streams().count(), 0);
    let mut bench = Bench::new("rust", Stage::B);
    assert_eq!(bench.play(60, &LONG).verdict(), Verdict::Violation, "p99 is measured, not 1.2 p95");
}

#[test]
fn the_stage_limits_of_the_dashboard_can_fire_for_every_stage() {
    for (stage, ms) in [(Stage::A, 30.0), (Stage::B, 400.0), (Stage::C, 400.0)] {
        let mut bench = Bench::new("rust", stage);
        bench.play(20, &[(ms, 500)]);
        assert!(bench.said(Kind::Slo, "violation") >= 1, "{stage}");
    }
}

#[test]
fn what_fired_resolves_again_and_does_not_fire_on_every_update() {
    let mut bench = Bench::new("rust", Stage::C);
    bench.play(60, &[(400.0, 500)]);
    assert_eq!(bench.said(Kind::Slo, "violation"), 1);
    bench.play(240, &[(100.0, 500)]);
    assert_eq!(bench.said(Kind::Slo, "ok"), 1);
}
