//! What must hold of a comparison whatever it is shown.
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]

use std::sync::Arc;

use lens_hist::Sparse;
use lens_model::{Arm, Slice, Stage};
use proptest::prelude::*;

use super::*;
use crate::judge::slot::{HostWindow, Slot, SlotWindows};

/// Latencies of one arm's window, from a small seeded sequence.
fn latencies(n: u64, seed: u64, scale: u64) -> Sparse {
    let draw = |i: u64| {
        let mixed = (i ^ seed.wrapping_mul(0x9E37_79B9)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let u = (mixed >> 40) as f64 / (1_u64 << 24) as f64;
        (1e6 / (1.0 - 0.999 * u).powf(0.6)) as u64 * scale
    };
    (0..n).map(draw).collect()
}

fn window(host: usize, arm: Arm, counts: Sparse, errors: u64) -> HostWindow {
    let slice = Slice::new("backend", "rust", "large").unwrap();
    let (ok, host) = (counts.total() - errors, format!("h{host}").into());
    HostWindow { slice: Arc::new(slice), stage: Stage::E2e, arm, host, counts, ok, errors }
}

/// How a simulated slot is made.
#[derive(Clone, Copy)]
struct Make {
    hosts: usize,
    canary: u64,
    scale: u64,
    /// Canary latencies over the baseline's, in hundredths, of which hosts.
    slower: (u64, fn(usize) -> bool),
}

const ALIKE: Make = Make { hosts: 3, canary: 40, scale: 100, slower: (100, |_| true) };

fn slot(make: Make, t: i64) -> SlotWindows {
    let mut windows = Vec::new();
    for host in 0..make.hosts {
        let seed = (t + 1_000) as u64 * 100 + host as u64;
        windows.push(window(host, Arm::Baseline, latencies(300, seed, make.scale), 0));
        if t >= 0 && make.canary > 0 {
            let slower = if make.slower.1(host) { make.slower.0 } else { 100 };
            let scale = make.scale * slower / 100;
            let canary = latencies(make.canary, seed + 50, scale);
            windows.push(window(host, Arm::Canary, canary, 0));
        }
    }
    SlotWindows { slot: Slot(t), windows }
}

fn begun() -> Comparison {
    let mut comparison = Comparison::new(Plan::default()).unwrap();
    comparison.begin(Slot(0));
    comparison
}

fn seen(make: Make, slots: std::ops::Range<i64>) -> Comparison {
    let mut comparison = begun();
    slots.for_each(|t| comparison.observe(&slot(make, t), &[]).unwrap());
    comparison
}

#[test]
fn windows_without_data_leave_the_evidence_where_it_was() {
    let mut comparison = seen(Make { slower: (110, |_| true), ..ALIKE }, -30..20);
    let before = comparison.evidence();
    assert!(before.harm.ln_e.abs() > 0.01, "{}", before.harm.ln_e);
    for t in 20..200 {
        let alone = Make { canary: 0, ..ALIKE };
        comparison.observe(&slot(alone, t), &[]).unwrap();
    }
    let after = comparison.evidence();
    for (a, b) in before.promotion.parts.iter().zip(&after.promotion.parts) {
        assert_eq!(a.ln_e, b.ln_e, "{}", a.metric);
    }
    // Mass that starts later stands at 1: a mixture moves toward 1 and never away from it.
    let (a, b) = (before.harm.ln_e, after.harm.ln_e);
    assert!((a < b && b <= 0.0) || (a > b && b >= 0.0) || (a - b).abs() < 0.2, "{a} {b}");
    let codes: Vec<BlockerCode> = after.blockers.iter().map(|b| b.code).collect();
    assert!(codes.contains(&BlockerCode::StaleCanary), "{codes:?}");
}

#[test]
fn doubling_every_latency_changes_nothing() {
    let make = |scale| Make { scale, slower: (120, |_| true), ..ALIKE };
    let (once, twice) = (seen(make(100), -30..30), seen(make(200), -30..30));
    assert_eq!(once.evidence().harm.ln_e, twice.evidence().harm.ln_e);
    assert_eq!(once.evidence().promotion.ln_e, twice.evidence().promotion.ln_e);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_order_of_a_slots_parts_gives_the_same_state(seed in any::<u64>()) {
        let sorted = seen(ALIKE, -26..14);
        let mut shuffled = begun();
        let mut state = seed | 1;
        for t in -26..14 {
            let mut windows = slot(ALIKE, t);
            for at in (1..windows.windows.len()).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
                windows.windows.swap(at, (state >> 33) as usize % (at + 1));
            }
            shuffled.observe(&windows, &[]).unwrap();
        }
        prop_assert_eq!(shuffled, sorted);
    }

    #[test]
    fn a_comparison_that_is_stored_and_read_back_goes_on_as_if_it_had_not_been(at in -20_i64..20) {
        let make = Make { slower: (130, |_| true), ..ALIKE };
        let whole = seen(make, -26..20);
        let stored = serde_json::to_string(&seen(make, -26..at)).unwrap();
        let mut back: Comparison = serde_json::from_str(&stored).unwrap();
        (at..20).for_each(|t| back.observe(&slot(make, t), &[]).unwrap());
        prop_assert_eq!(back, whole);
    }
}

#[test]
fn each_slot_is_judged_once() {
    let mut comparison = seen(ALIKE, -26..5);
    let before = comparison.clone();
    assert!(comparison.observe(&slot(ALIKE, 4), &[]).is_err());
    assert!(comparison.observe(&slot(ALIKE, -3), &[]).is_err());
    assert_eq!(comparison, before);
}

#[test]
fn a_slower_canary_is_shown_to_be_worse_and_by_what() {
    let evidence = seen(Make { slower: (200, |_| true), ..ALIKE }, -26..40).evidence();
    assert!(evidence.shows_harm(), "{:?}", evidence.harm);
    assert!(!evidence.shows_not_worse());
    let leading = evidence.harm.leading.unwrap();
    let share = |counted: Counted| counted.above as f64 / counted.n as f64;
    assert!(share(leading.counts.canary) > share(leading.counts.baseline), "{leading:?}");
    assert_eq!(evidence.spread, Spread::InHost);
    assert_eq!(evidence.hosts, (3, 3));
}

#[test]
fn one_slow_host_among_five_is_a_host_and_not_a_version() {
    let make = Make { hosts: 5, slower: (400, |host| host == 3), ..ALIKE };
    let evidence = seen(make, -26..80).evidence();
    assert!(evidence.harm.ln_e >= evidence.harm.bound, "{}", evidence.harm.ln_e);
    assert!(!evidence.shows_harm() && evidence.harm_rests_on_one_host());
    assert_eq!(evidence.harm.without_host.unwrap().hosts, vec!["h3".into()]);
    let named: Vec<_> = evidence.slow_hosts.iter().map(|slow| (&*slow.host, slow.arm)).collect();
    assert_eq!(named, vec![("h3", Arm::Canary)]);
}

#[test]
fn arms_on_hosts_of_their_own_are_not_judged_without_history() {
    let mut comparison = begun();
    for t in 0..60 {
        let canary = window(0, Arm::Canary, latencies(300, t as u64, 400), 0);
        let other = |h: usize| window(h, Arm::Baseline, latencies(300, t as u64 + 7, 100), 0);
        let windows = vec![canary, other(1), other(2), other(3)];
        comparison.observe(&SlotWindows { slot: Slot(t), windows }, &[]).unwrap();
    }
    let evidence = comparison.evidence();
    assert_eq!(evidence.spread, Spread::HostSplit);
    assert_eq!(evidence.undecidable[0].code, BlockerCode::HostSplitWithoutHistory);
    assert!(evidence.harm.ln_e.abs() < 1e-9 && !evidence.shows_harm());
    assert!(!evidence.shows_not_worse());
}

#[test]
fn arms_on_hosts_of_their_own_are_judged_with_an_hour_of_history() {
    let windows = |t: i64, canary: u64| {
        let of = |host: usize| {
            let arm = if t >= 0 && host == 0 { Arm::Canary } else { Arm::Baseline };
            let scale = if arm == Arm::Canary { canary } else { 100 };
            window(host, arm, latencies(100, (t + 1_000) as u64 * 10 + host as u64, scale), 0)
        };
        SlotWindows { slot: Slot(t), windows: (0..5).map(of).collect() }
    };
    let run = |canary: u64| {
        let mut comparison = begun();
        (-721..60).for_each(|t| comparison.observe(&windows(t, canary), &[]).unwrap());
        comparison.evidence()
    };
    let (alike, slower) = (run(100), run(200));
    assert_eq!((alike.spread, alike.hosts), (Spread::HostSplit, (1, 4)));
    assert!(alike.undecidable.is_empty() && !alike.shows_harm(), "{:?}", alike.harm);
    assert!(slower.shows_harm(), "{:?}", slower.harm);
}

#[test]
fn streams_past_the_limit_are_left_out_and_counted() {
    let mut comparison = begun();
    let mut windows: Vec<HostWindow> = Vec::new();
    for n in 0..=STREAMS_MAX {
        let slice = Slice::new("backend", &format!("l{n}"), "large").unwrap();
        let window = window(0, Arm::Baseline, latencies(1, n as u64, 1), 0);
        windows.push(HostWindow { slice: Arc::new(slice), ..window });
    }
    comparison.observe(&SlotWindows { slot: Slot(0), windows: windows.clone() }, &[]).unwrap();
    assert_eq!(comparison.streams_refused, 1);
    windows.pop();
}

#[test]
fn a_falling_quality_signal_is_harm_and_a_kept_one_is_shown() {
    let run = |canary: f64| {
        let mut comparison = begun();
        for t in -24..700 {
            let of = |arm: Arm, value: f64, n: u64| {
                let mut marks = evalue::Marks::default();
                marks.add(value, n / 2);
                marks.add(value - 0.1, n / 2);
                QualityWindow { signal: "recall".into(), arm, marks }
            };
            let mut quality = vec![of(Arm::Baseline, 0.9, 400)];
            if t >= 0 {
                quality.push(of(Arm::Canary, canary, 40));
            }
            comparison.observe(&slot(ALIKE, t), &quality).unwrap();
        }
        comparison.evidence()
    };
    let fallen = run(0.6);
    assert_eq!(fallen.harm.leading.as_ref().unwrap().metric, "recall");
    assert!(fallen.shows_harm(), "{:?}", fallen.harm);
    let kept = run(0.95);
    assert!(!kept.shows_harm());
    let part = kept.promotion.parts.iter().find(|part| part.metric == "recall").unwrap();
    assert!(part.ln_e > 0.0, "{part:?}");
}
