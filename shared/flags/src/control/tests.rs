use super::*;

const T0: UnixNanos = UnixNanos(1_790_000_000_000_000_000);

fn at(hours: u64) -> UnixNanos {
    after(T0, Nanos::from_secs(hours * 3_600))
}

fn latency(ms: f64) -> Sample {
    Sample { latency_ms: Some(ms), ..Sample::default() }
}

fn set(control: &mut Control, path: &str, value: Value, hours: Option<u64>) {
    let path = Path::parse(path).unwrap();
    control.set_override(path, value, "a test", hours.map(at), "ops", T0).unwrap();
}

#[test]
fn everything_holds_its_default_before_anyone_said_otherwise() {
    let control = Control::default();
    for path in Path::all() {
        assert_eq!(control.value(path, T0), path.default_value(), "{path}");
    }
    let on: Vec<_> =
        Flag::ALL.into_iter().filter(|flag| control.is_enabled(*flag, None, T0)).collect();
    assert_eq!(on, Flag::ALL.into_iter().filter(|f| f.default_value()).collect::<Vec<_>>());
    assert_eq!(control.assignment(T0), Assignment::default());
}

#[test]
fn groups_numbers_and_unknown_paths_are_never_on() {
    let control = Control::default();
    for path in ["stageA", "canary", "canary.trafficPercentage", "rollbackThresholds", "nothing"] {
        assert!(!control.is_path_enabled(path, None, T0), "{path}");
    }
    assert!(control.is_path_enabled("qualityGating", None, T0));
}

#[test]
fn an_override_holds_until_it_expires_or_is_removed() {
    let mut control = Control::default();
    set(&mut control, "stageB.lruCaching", Value::Bool(true), Some(2));
    assert!(control.is_enabled(Flag::StageBLruCaching, None, at(1)));
    assert!(!control.is_enabled(Flag::StageBLruCaching, None, at(2)));
    assert!(!control.expire(at(1)) && control.expire(at(2)) && !control.expire(at(2)));
    set(&mut control, "stageB.lruCaching", Value::Bool(true), None);
    assert!(control.is_enabled(Flag::StageBLruCaching, None, at(9_999)));
    assert!(control.remove_override(Path::Flag(Flag::StageBLruCaching)));
    assert!(!control.remove_override(Path::Flag(Flag::StageBLruCaching)));
    assert!(!control.is_enabled(Flag::StageBLruCaching, None, T0));
}

#[test]
fn what_cannot_be_overridden_is_refused_and_changes_nothing() {
    let mut control = Control::default();
    let mut refused = |path: &str, value, reason, end| {
        let path = Path::parse(path).unwrap();
        control.set_override(path, value, reason, end, "ops", T0).unwrap_err()
    };
    let number = Value::Number(50.0);
    let error = refused("canary.trafficPercentage", number.clone(), "r", None);
    assert!(matches!(error, ControlError::Elsewhere { .. }));
    let error = refused("canary.killSwitchEnabled", Value::Bool(false), "r", None);
    assert!(matches!(error, ControlError::Elsewhere { .. }));
    let error = refused("qualityGating", number, "r", None);
    assert!(matches!(error, ControlError::Value(_)));
    assert_eq!(refused("qualityGating", Value::Bool(false), " ", None), ControlError::Unreasoned);
    let error = refused("qualityGating", Value::Bool(false), "r", Some(T0));
    assert_eq!(error, ControlError::Expired);
    assert_eq!(control, Control::default());
}

#[test]
fn the_mean_after_one_sample_is_a_tenth_of_it() {
    let mut control = Control::default();
    let sample = Sample { latency_ms: Some(10.0), error_rate: Some(0.04), quality: Some(0.97) };
    assert_eq!(control.record(Flag::OptimizedHnsw, sample, T0), None);
    let measured = control.measured()[&Path::Flag(Flag::OptimizedHnsw)];
    assert!((measured.latency_ms - 1.0).abs() < 1e-12);
    assert!((measured.error_rate - 0.004).abs() < 1e-12);
    assert!((measured.quality - 0.997).abs() < 1e-12);
}

#[test]
fn what_was_not_measured_moves_no_mean() {
    let mut control = Control::default();
    for value in [f64::NAN, f64::INFINITY] {
        let sample = Sample { latency_ms: Some(value), ..Sample::default() };
        assert_eq!(control.record(Flag::OptimizedHnsw, sample, T0), None);
    }
    let measured = control.measured()[&Path::Flag(Flag::OptimizedHnsw)];
    assert_eq!((measured.latency_ms, measured.quality), (0.0, 1.0));
}

#[test]
fn a_flag_is_taken_back_once_for_a_day_by_the_first_limit_it_breaks() {
    let all = Sample { latency_ms: Some(121.0), error_rate: Some(0.6), quality: Some(0.0) };
    for (sample, word) in [
        (all, "latency"),
        (Sample { latency_ms: None, ..all }, "quality"),
        (Sample { latency_ms: None, quality: None, ..all }, "error"),
    ] {
        let mut control = Control::default();
        set(&mut control, "stageC.enabled", Value::Bool(true), None);
        let rollback = control.record(Flag::StageCEnabled, sample, T0).unwrap();
        assert!(rollback.reason.contains(word), "{}", rollback.reason);
        assert_eq!(rollback.flag, "stageC.enabled");
        assert!(!control.is_enabled(Flag::StageCEnabled, None, at(23)));
        assert_eq!(control.record(Flag::StageCEnabled, sample, at(1)), None);
        assert_eq!(control.history().len(), 1);
        let held = control.measured()[&Path::Flag(Flag::StageCEnabled)];
        assert_eq!(held.rollbacks, 1);
        // After a day the flag's own value holds again.
        assert!(control.overrides(at(24)).next().is_none());
    }
}

#[test]
fn a_guarded_flag_stays_off_after_three_rollbacks_until_its_record_is_cleared() {
    let mut control = Control::default();
    control.set(Path::Flag(Flag::OptimizedHnsw), Value::Bool(true));
    control.set(Path::Flag(Flag::PerformanceMonitoring), Value::Bool(false));
    for n in 0..3 {
        assert!(control.is_enabled(Flag::OptimizedHnsw, None, at(n * 25)), "{n}");
        assert!(control.record(Flag::OptimizedHnsw, latency(500.0), at(n * 25)).is_some());
    }
    assert!(!control.is_enabled(Flag::OptimizedHnsw, None, at(100)));
    assert!(control.remove_override(Path::Flag(Flag::OptimizedHnsw)));
    assert!(control.is_enabled(Flag::OptimizedHnsw, None, at(100)));
}

#[test]
fn a_guarded_flag_near_its_latency_limit_is_held_off_and_others_are_not() {
    let mut control = Control::default();
    for flag in [Flag::OptimizedHnsw, Flag::StageBEnabled] {
        control.set(Path::Flag(flag), Value::Bool(true));
        // A mean of 10 ms: above 0.8 × 12, below 12.
        assert_eq!(control.record(flag, latency(100.0), T0), None);
    }
    assert!(!control.is_enabled(Flag::OptimizedHnsw, None, T0));
    assert!(control.is_enabled(Flag::StageBEnabled, None, T0));
    set(&mut control, "performanceMonitoring", Value::Bool(false), None);
    assert!(control.is_enabled(Flag::OptimizedHnsw, None, T0));
}

#[test]
fn an_experiment_divides_users_evenly_and_only_those_who_are_known() {
    let mut control = Control::default();
    let flag = Flag::OptimizedHnsw;
    let on = |control: &Control, user: &str| control.is_enabled(flag, Some(user), T0);
    let users: Vec<String> = (0..10_000).map(|n| format!("user-{n}")).collect();
    assert!(!users.iter().any(|user| on(&control, user)));
    set(&mut control, "abTesting.enabled", Value::Bool(true), None);
    let treated = users.iter().filter(|user| on(&control, user)).count();
    // A tenth of all are in it, half of them treated: 500, six standard deviations are 131.
    assert!(treated.abs_diff(500) < 131, "{treated}");
    assert!(users.iter().all(|user| on(&control, user) == on(&control, user)));
    assert!(!control.is_enabled(flag, None, T0));
    set(&mut control, "abTesting.trafficPercentage", Value::Number(100.0), None);
    let treated = users.iter().filter(|user| on(&control, user)).count();
    assert!(treated.abs_diff(5_000) < 300, "{treated}");
    let other = Flag::StageBEnabled;
    assert!(!users.iter().any(|user| control.is_enabled(other, Some(user), T0)));
}

#[test]
fn an_emergency_turns_everything_off_and_leaves_experiments_off_for_two_days() {
    let mut control = Control::default();
    control.set(Path::Flag(Flag::ExperimentalReranker), Value::Bool(true));
    control.set_canary("2.0.0", 7, Share::ALL).unwrap();
    control.emergency_disable("smoke", T0);
    assert_eq!(control.bits(T0), 0);
    assert_eq!(control.assignment(T0).effective(), Share::NONE);
    assert_eq!(control.overrides(T0).count(), 7);
    control.clear_emergency();
    assert!(control.is_enabled(Flag::QualityGating, None, T0));
    assert!(!control.is_enabled(Flag::ExperimentalReranker, None, at(47)));
    assert!(control.is_enabled(Flag::ExperimentalReranker, None, at(48)));
    assert_eq!(control.assignment(T0).effective(), Share::ALL);
}

#[test]
fn the_emergency_can_be_set_by_its_path() {
    let mut control = Control::default();
    set(&mut control, "emergencyDisable", Value::Bool(true), None);
    assert_eq!(control.emergency().unwrap().reason, "a test");
    assert!(control.value(Path::EmergencyDisable, T0).is_on());
    set(&mut control, "emergencyDisable", Value::Bool(false), None);
    assert!(control.emergency().is_none());
}

#[test]
fn a_kill_stops_canary_and_stages_once_and_holds_until_released() {
    let mut control = Control::default();
    control.set_stage_flags(true, true, true);
    set(&mut control, "stageC.enabled", Value::Bool(true), None);
    control.set_canary("2.0.0", 7, Share::percent(25.0).unwrap()).unwrap();
    assert!(control.kill("p99 tripled", "ops", T0));
    assert!(!control.kill("again", "ops", at(1)));
    let last = control.history().back().unwrap();
    assert_eq!((last.flag.as_str(), last.reason.as_str()), (KILL_SWITCH, "p99 tripled"));
    assert_eq!(control.history().len(), 1);
    assert_eq!(control.value(Path::CanaryTrafficPercentage, T0), Value::Number(0.0));
    assert!(control.value(Path::Flag(Flag::CanaryKillSwitchEnabled), T0).is_on());
    assert_eq!(control.bits(T0), 0);
    let error = control.set_canary("2.0.0", 7, Share::ALL).unwrap_err();
    assert!(matches!(error, ControlError::Killed { .. }));
    assert!(control.release() && !control.release());
    for flag in STAGES {
        assert!(!control.is_enabled(flag, None, T0), "{flag:?}");
    }
    assert_eq!(control.assignment(T0).share, Share::NONE);
    control.set_canary("2.0.1", 8, Share::ALL).unwrap();
    assert_eq!(control.assignment(T0).effective(), Share::ALL);
}

#[test]
fn nobody_is_in_the_canary_unless_it_is_progressive() {
    let mut control = Control::default();
    control.set_canary("2.0.0", 7, Share::ALL).unwrap();
    set(&mut control, "canary.progressiveRollout", Value::Bool(false), None);
    assert_eq!(control.assignment(T0).effective(), Share::NONE);
}

#[test]
fn the_history_and_every_text_are_bounded() {
    let mut control = Control::default();
    for n in 0..=HISTORY_MAX {
        assert!(control.kill(&format!("{n} {}", "é".repeat(600)), "ops", T0));
        control.release();
    }
    assert_eq!(control.history().len(), HISTORY_MAX);
    assert!(control.history()[0].reason.starts_with("1 "));
    assert!(control.history().iter().all(|entry| entry.reason.len() <= REASON_BYTES_MAX));
    for version in ["", "a b", &"x".repeat(65)] {
        assert!(control.set_canary(version, 0, Share::ALL).is_err(), "{version}");
    }
}

#[test]
fn what_was_decided_reads_back_from_what_was_kept() {
    let mut control = Control::default();
    control.set_canary("2.0.0", 7, Share::percent(25.0).unwrap()).unwrap();
    set(&mut control, "stageB.enabled", Value::Bool(true), Some(5));
    control.record(Flag::OptimizedHnsw, latency(500.0), T0);
    control.emergency_disable("smoke", T0);
    control.kill("fire", "ops", T0);
    let kept = serde_json::to_string(&control).unwrap();
    assert_eq!(serde_json::from_str::<Control>(&kept).unwrap(), control);
    assert!(serde_json::from_str::<Control>("{\"more\": 1}").is_err());
}
