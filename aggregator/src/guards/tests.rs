//! Guards on real windows and disks: what is fresh, what is kept, and when switches let go.

use std::sync::Arc;

use lens_model::{AgentName, InstanceName};

use super::probe::tests::{PASSED, few, probe};
use super::*;
use crate::window::Host;

const fn at(secs: u64) -> (Nanos, UnixNanos) {
    (Nanos::from_secs(secs), UnixNanos((1_000 + secs) * 1_000_000_000))
}

const RULE: Rule = Rule { mean: 0.85, sd: 0.043, h: 3.0, sustained: 2 };

fn config() -> Config {
    Config {
        detectors: [("recall_at_50".to_owned(), RULE)].into(),
        sample: Nanos::from_secs(30),
        probes: vec![probe("class"), probe("def")],
        again: Nanos::from_secs(1),
        acts: Kind::ALL.into_iter().map(|kind| (kind, Act::Kill)).collect(),
        recover_success: 0.9,
        recover: Nanos::from_secs(30),
        ..Config::default()
    }
}

fn windows() -> Windows {
    Windows::new(Nanos::from_secs(5), Nanos::from_secs(60))
}

fn report(windows: &mut Windows, node: &str, value: f64, wall: UnixNanos) {
    let (agent, instance) = (AgentName::new("a").unwrap(), InstanceName::new(node).unwrap());
    let host = windows.host(&Host { agent, instance }).unwrap();
    windows.set_gauge(&host, "recall_at_50", value, wall).unwrap();
}

fn standing(guards: &Guards, name: &str) -> Standing {
    guards.states().into_iter().find(|guard| guard.guard == name).unwrap().state
}

#[tokio::test(start_paused = true)]
async fn a_detector_takes_the_mean_of_new_readings_and_without_any_neither_passes_nor_alarms() {
    let guards = Guards::open(Env::system(), config());
    let name = "cusum/recall_at_50";
    let mut windows = windows();
    assert!(guards.sample(&windows, at(0).0, at(0).1));
    assert_eq!(standing(&guards, name), Standing::InsufficientData, "nothing was reported");
    report(&mut windows, "1", 0.80, at(20).1);
    report(&mut windows, "2", 0.90, at(20).1);
    assert!(!guards.sample(&windows, at(29).0, at(29).1), "not due");
    assert!(guards.sample(&windows, at(30).0, at(30).1));
    assert_eq!(standing(&guards, name), Standing::Ok);
    // The same readings again are none.
    guards.sample(&windows, at(60).0, at(60).1);
    assert_eq!(guards.inner.lock().detectors["recall_at_50"].cusum.readings, 1);
    for secs in [90, 120, 150] {
        report(&mut windows, "1", 0.5, at(secs).1);
        guards.sample(&windows, at(secs).0, at(secs).1);
    }
    assert_eq!(standing(&guards, name), Standing::Alarm);
    assert_eq!(guards.alarmed_since(at(149).1).map(|_| ()), Some(()));
    assert_eq!(guards.alarmed_since(at(150).1), None, "it began then, not after");
    tokio::time::advance(std::time::Duration::from_secs(400)).await;
    assert_eq!(standing(&guards, name), Standing::InsufficientData, "silence is no alarm");
    assert!(guards.blockers().iter().any(|blocker| blocker.message.contains(name)));
}

fn fail(guards: &Guards, place: usize, outcome: Outcome, secs: u64) {
    guards.ended(place, outcome, at(secs).0, at(secs).1);
}

fn step(guards: &Guards, killed: bool, secs: u64) -> Vec<Change> {
    guards.step(None, killed, at(secs).0, at(secs).1)
}

#[test]
fn zero_results_stay_engaged_until_people_released_the_kill_and_the_probe_passes() {
    let guards = Guards::open(Env::system(), config());
    fail(&guards, 1, PASSED, 1);
    fail(&guards, 0, few(), 1);
    assert_eq!(step(&guards, false, 1), []);
    fail(&guards, 0, few(), 2);
    let changes = step(&guards, false, 2);
    assert!(
        matches!(&changes[..], [Change::Engaged(Kind::ZeroResultsEmergency, _)]),
        "{changes:?}"
    );
    assert_eq!(step(&guards, true, 3), [], "once an engagement");
    fail(&guards, 0, PASSED, 4);
    assert_eq!(step(&guards, true, 4), [], "the kill switch is on");
    assert_eq!(step(&guards, false, 5), [Change::LetGo(Kind::ZeroResultsEmergency)]);
}

#[test]
fn a_failed_search_recovers_only_by_its_share_of_runs_over_the_whole_time() {
    let guards = Guards::open(Env::system(), config());
    let failed = || Outcome::Failed { why: "refused".into() };
    for secs in 1..=2 {
        fail(&guards, 0, failed(), secs);
        fail(&guards, 1, failed(), secs);
    }
    let changes = step(&guards, false, 2);
    assert!(matches!(&changes[..], [Change::Engaged(Kind::SearchSystemFailure, _)]), "{changes:?}");
    for secs in 3..=31 {
        (0..2).for_each(|place| fail(&guards, place, PASSED, secs));
        assert_eq!(step(&guards, true, secs), [], "{secs} s, 30 s after it began are not over");
    }
    assert_eq!(step(&guards, true, 32), [Change::LetGo(Kind::SearchSystemFailure)]);
    assert_eq!(step(&guards, true, 33), []);
}

#[test]
fn an_overload_engages_after_its_time_without_a_break_and_silence_is_none() {
    let overload = config::Overload {
        error_for: Nanos::from_secs(10),
        p99_for: Nanos::from_secs(5),
        ..config::Overload::default()
    };
    let guards = Guards::open(Env::system(), Config { overload, probes: Vec::new(), ..config() });
    let bad = run::Load { failing: Some("5 % fail".into()), ..run::Load::default() };
    let take = |load: &run::Load, secs| guards.step(Some(load), false, at(secs).0, at(secs).1);
    assert_eq!(take(&bad, 0), []);
    assert_eq!(take(&run::Load::default(), 5), [], "nothing known breaks it");
    assert_eq!(take(&bad, 6), []);
    assert_eq!(take(&bad, 15), []);
    assert!(matches!(&take(&bad, 16)[..], [Change::Engaged(Kind::ServiceOverload, _)]));
    let well = run::Load { well: true, ..run::Load::default() };
    assert_eq!(take(&well, 20), []);
    assert_eq!(take(&run::Load::default(), 40), [], "silence ends no overload");
    assert_eq!(take(&well, 41), []);
    assert_eq!(take(&well, 71), [Change::LetGo(Kind::ServiceOverload)]);
}

#[test]
fn sums_and_engaged_switches_outlive_a_restart_and_sums_of_another_rule_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { dir: Some(dir.path().join("guards")), ..config() };
    let guards = Guards::open(Env::system(), config.clone());
    let mut windows = windows();
    report(&mut windows, "1", 0.807, at(0).1);
    guards.sample(&windows, at(0).0, at(0).1);
    (1..=2).for_each(|secs| fail(&guards, 0, few(), secs));
    assert_eq!(step(&guards, false, 2).len(), 1);
    guards.keep();
    assert_eq!(guards.trouble(), None);
    let again = Guards::open(Env::system(), config.clone());
    assert!((again.inner.lock().detectors["recall_at_50"].cusum.down - 0.5).abs() < 1e-9);
    assert_eq!(standing(&again, "switch/zero_results_emergency"), Standing::Alarm);
    let mut changed = config.clone();
    changed.detectors.insert("recall_at_50".into(), Rule { h: 5.0, ..RULE });
    let changed = Guards::open(Env::system(), changed);
    assert_eq!(changed.inner.lock().detectors["recall_at_50"].cusum, Cusum::default());
    std::fs::write(dir.path().join("guards/guards.json"), "{").unwrap();
    let anew = Arc::new(Guards::open(Env::system(), config));
    assert_eq!(standing(&anew, "switch/zero_results_emergency"), Standing::InsufficientData);
}
