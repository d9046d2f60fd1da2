//! The state machine by itself: evidence in, decisions out.

use super::controller::*;
use super::decision::Word;
use crate::judge::canary::*;

fn evidence() -> Evidence {
    let part = |metric: &str| PromotionPart {
        stage: Some(lens_model::Stage::E2e),
        metric: metric.to_owned(),
        margin: 1.25,
        ln_e: 5.0,
    };
    Evidence {
        t_ms: 0,
        windows: 100,
        step: 0,
        windows_in_step: 100,
        spread: Spread::InHost,
        hosts: (5, 5),
        arms: Vec::new(),
        harm: HarmEvidence {
            ln_e: 0.0,
            bound: 50_f64.ln(),
            p_value: 1.0,
            leading: None,
            without_host: None,
            breaker: None,
        },
        promotion: PromotionEvidence {
            ln_e: 5.0,
            bound: 20_f64.ln(),
            parts: vec![part("p95"), part("p99"), part("errors")],
        },
        slow_hosts: Vec::new(),
        undecidable: Vec::new(),
        blockers: Vec::new(),
    }
}

fn started() -> State {
    command(&State::default(), Command::Start(Box::default()), None, 0).unwrap().0
}

fn words(actions: &[Action]) -> Vec<Word> {
    let decided = |action: &Action| match action {
        Action::Decided(decision) => Some(decision.word),
        _ => None,
    };
    actions.iter().filter_map(decided).collect()
}

fn harmful() -> Evidence {
    let mut evidence = evidence();
    evidence.harm.ln_e = 4.0;
    evidence
}

#[test]
fn a_good_canary_walks_every_step_and_completes() {
    let mut state = started();
    let mut shares = vec![state.share()];
    let (mut now, mut found) = (0, Vec::new());
    for step in 0..3 {
        let evidence = Evidence { step, ..evidence() };
        now += 299_000;
        let (held, actions) = decide(state, &evidence, now);
        assert_eq!(words(&actions), [Word::Hold], "the dwell is not over");
        now += 601_000;
        let (next, actions) = decide(held, &evidence, now);
        found.extend(words(&actions));
        state = next;
        shares.push(state.share());
    }
    assert_eq!(found, [Word::Promote, Word::Promote, Word::Complete]);
    assert_eq!(shares, [5.0, 25.0, 95.0, 100.0]);
    assert_eq!(state.phase, Phase::Complete);
    assert!(decide(state, &harmful(), now + 1).1.is_empty(), "it is over");
}

#[test]
fn harm_rolls_back_at_once_with_all_its_evidence() {
    let (state, actions) = decide(started(), &harmful(), 5_000);
    assert_eq!((state.phase, state.share()), (Phase::RolledBack, 0.0));
    assert_eq!(actions[0], Action::SetShare(0.0));
    let Action::Decided(decision) = &actions[1] else { panic!("{actions:?}") };
    assert_eq!(decision.evidence, harmful());
    assert!(decision.reason.contains("ln E 4.00 of 3.91"), "{}", decision.reason);
    assert!(matches!(actions[2], Action::Alert(_)));
}

#[test]
fn harm_of_one_host_holds_and_says_so() {
    let mut evidence = harmful();
    evidence.harm.without_host =
        Some(WithoutHost { hosts: vec!["h3".into()], ln_e: 0.2, bound: 20_f64.ln() });
    let (state, actions) = decide(started(), &evidence, 900_000);
    assert_eq!((state.phase, words(&actions)), (Phase::Step(0), vec![Word::Hold]));
    let codes: Vec<_> = state.blockers(&evidence, 900_000).iter().map(|b| b.code).collect();
    assert_eq!(codes, [BlockerCode::OneHost]);
    evidence.harm.without_host = Some(WithoutHost { hosts: vec![], ln_e: 3.1, bound: 3.0 });
    assert_eq!(decide(state, &evidence, 905_000).0.phase, Phase::RolledBack);
}

#[test]
fn a_failing_canary_is_rolled_back_without_a_test() {
    let mut evidence = evidence();
    let stage = lens_model::Stage::E2e;
    evidence.harm.breaker = Some(Breaker { stage, canary: (30, 40), baseline: (0, 900) });
    let (state, actions) = decide(started(), &evidence, 10_000);
    assert_eq!((state.phase, words(&actions)), (Phase::RolledBack, vec![Word::Rollback]));
    assert!(state.reason.contains("30 of 40"), "{}", state.reason);
}

#[test]
fn missing_data_never_passes_and_says_why() {
    let blocked = Blocker::new(BlockerCode::NoCanary, "no request of the canary has been seen");
    let missing = Evidence { undecidable: vec![blocked], ..evidence() };
    let (state, actions) = decide(started(), &missing, 900_000);
    assert_eq!((state.phase, words(&actions)), (Phase::Step(0), vec![Word::InsufficientData]));
    let mut nothing = evidence();
    nothing.promotion.parts.clear();
    let (state, _) = decide(started(), &nothing, 900_000);
    assert_eq!(state.phase, Phase::Step(0), "nothing compared is nothing shown");
    let suspected = Evidence { harm: HarmEvidence { ln_e: 0.8, ..evidence().harm }, ..evidence() };
    assert_eq!(decide(state, &suspected, 900_000).0.phase, Phase::Step(0));
}

#[test]
fn a_step_that_lasts_too_long_alerts_once_and_is_moved_by_people_only() {
    let mut weak = evidence();
    weak.promotion.ln_e = 1.0;
    let (state, _) = decide(started(), &weak, 1_000);
    let (state, actions) = decide(state, &weak, 3_600_000);
    let alerts = |actions: &[Action]| {
        actions.iter().filter(|action| matches!(action, Action::Alert(_))).count()
    };
    assert_eq!((alerts(&actions), words(&actions)), (1, vec![Word::Hold]));
    let (state, actions) = decide(state, &evidence(), 3_605_000);
    assert_eq!((alerts(&actions), state.phase), (0, Phase::Step(0)), "good now, and yet held");
    let moved = command(&state, Command::Progress, Some(&evidence()), 3_610_000).unwrap();
    assert_eq!(moved.0.phase, Phase::Step(1));
}

#[test]
fn progress_without_evidence_is_refused_with_what_stands_in_the_way() {
    let state = started();
    let Err(Refused::Blocked(blockers)) = command(&state, Command::Progress, None, 5) else {
        panic!("moved without evidence")
    };
    assert_eq!(blockers.len(), 1);
    let refused = command(&state, Command::Progress, Some(&evidence()), 5).unwrap_err();
    assert!(refused.to_string().contains("this step has lasted 0 s of 300 s"), "{refused}");
    let stale = Evidence { step: 1, ..evidence() };
    assert!(command(&state, Command::Progress, Some(&stale), 900_000).is_err(), "of another step");
}

#[test]
fn kill_is_obeyed_anywhere_and_nothing_begins_before_release() {
    for state in [State::default(), started(), decide(started(), &harmful(), 1).0] {
        let (killed, actions) = command(&state, Command::Kill("leak".into()), None, 9).unwrap();
        assert_eq!((killed.phase, killed.share()), (Phase::Killed, 0.0));
        assert_eq!(actions[0], Action::SetShare(0.0));
        assert!(command(&killed, Command::Start(Box::default()), None, 10).is_err());
        assert!(command(&killed, Command::Kill("again".into()), None, 10).is_ok());
        let (released, _) = command(&killed, Command::Release, None, 11).unwrap();
        assert_eq!(released.phase, Phase::Idle);
    }
    assert!(command(&started(), Command::Release, None, 1).is_err());
    assert!(command(&started(), Command::Start(Box::default()), None, 1).is_err());
    assert!(command(&State::default(), Command::Abort(String::new()), None, 1).is_err());
    let aborted = command(&started(), Command::Abort("x".repeat(5_000)), None, 1).unwrap().0;
    assert_eq!((aborted.phase, aborted.reason.len()), (Phase::Aborted, REASON_BYTES_MAX));
}

#[test]
fn the_state_comes_back_from_its_stored_form() {
    for state in [State::default(), started(), decide(started(), &evidence(), 5).0] {
        let stored = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<State>(&stored).unwrap(), state);
    }
}

#[test]
fn the_same_reason_to_hold_is_told_once() {
    let mut weak = evidence();
    weak.promotion.ln_e = 1.0;
    let (mut state, mut told) = (started(), 0);
    for t in 0..360 {
        let (next, actions) = decide(state, &weak, t * 5_000);
        told += words(&actions).len();
        state = next;
    }
    assert_eq!(told, 2, "the dwell, then what is not shown");
}

#[test]
fn a_rollout_is_taken_back_only_while_one_is_under_way() {
    let back = || Command::TakeBack("guard probe/class: 0 results".into());
    let (state, actions) = command(&started(), back(), None, 9).unwrap();
    assert_eq!((state.phase, state.share()), (Phase::RolledBack, 0.0));
    assert!(actions.contains(&Action::SetShare(0.0)), "{actions:?}");
    assert!(command(&state, back(), None, 10).is_err());
    assert!(command(&State::default(), back(), None, 10).is_err());
}
