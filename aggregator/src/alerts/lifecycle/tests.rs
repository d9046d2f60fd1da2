//! The lifecycle, second by second. The tests named after defects hold what alerting of this kind
//! is known to get wrong.

use lens_model::{Arm, Slice, Stage};
use serde_json::json;

use super::*;
use crate::alerts::policy::Step;

pub(crate) const START: UnixNanos = UnixNanos(1_800_000_000_000_000_000);

pub(crate) fn slice(language: &str) -> Slice {
    Slice::new("backend", language, "large").unwrap()
}

pub(crate) fn tail(slice: &Slice) -> Key {
    let subject = Subject {
        slice: Some(slice.clone()),
        stage: Some(Stage::A),
        arm: Some(Arm::Baseline),
        name: None,
    };
    Key { rule: Rule::Tail, subject }
}

pub(crate) fn condition(key: &Key, state: Reading, severity: Severity) -> Condition {
    Condition {
        key: key.clone(),
        state,
        severity,
        summary: "p99 is 2.61 times p95, more than 2".into(),
        evidence: json!({"ratio": 2.61, "threshold": 2.0}),
        since: None,
        agents: vec!["a1".into()],
        actions: vec!["look at the outliers".into()],
    }
}

/// A transition to `fired`, for tests of what comes after.
pub(crate) fn fired(slice: &Slice) -> Transition {
    let condition = condition(&tail(slice), Reading::Violated, Severity::Error);
    let mut alert = Alert::open(&condition, 1, START);
    alert.phase = Phase::Firing;
    alert.fired = Some(START);
    alert.told = Told::Firing(Severity::Error);
    Transition { kind: Kind::Fired, alert, before: None, at: START }
}

/// A book, its policy, and a clock that is stepped.
struct Scene {
    book: Book,
    policy: Policy,
    maintenance: Vec<Maintenance>,
    second: u64,
}

impl Scene {
    fn new() -> Self {
        let policy = Policy::default();
        Self { book: Book::default(), policy, maintenance: Vec::new(), second: 0 }
    }

    fn now(&self) -> UnixNanos {
        START.plus(Nanos::from_secs(self.second))
    }

    /// The same readings every five seconds for a while; what was told.
    fn run(&mut self, secs: u64, conditions: &[Condition]) -> Vec<(u64, Kind)> {
        let mut told = Vec::new();
        let end = self.second + secs;
        while self.second < end {
            self.second += 5;
            let now = self.now();
            let outcome = self.book.step(conditions, &self.policy, &self.maintenance, now);
            told.extend(outcome.transitions.iter().map(|t| (self.second, t.kind)));
        }
        told
    }

    fn reads(&mut self, secs: u64, state: Reading) -> Vec<(u64, Kind)> {
        self.run(secs, &[condition(&tail(&slice("rust")), state, Severity::Error)])
    }

    fn alert(&self) -> &Alert {
        self.book.alerts.values().next().unwrap()
    }
}

#[test]
fn one_notification_a_transition_from_opening_to_resolving() {
    let mut scene = Scene::new();
    assert_eq!(scene.reads(60, Reading::Violated), []);
    assert_eq!(scene.alert().state(scene.now()), "pending");
    assert_eq!(scene.reads(600, Reading::Violated), [(65, Kind::Fired)]);
    assert_eq!(scene.alert().state(scene.now()), "firing");
    assert_eq!(scene.reads(600, Reading::Clear), [(845, Kind::Resolved)]);
    assert_eq!(scene.alert().state(scene.now()), "resolved");
}

#[test]
fn defect_id_changes_each_evaluation_one_key_holds_from_opening_to_resolving() {
    let mut scene = Scene::new();
    let mut ids = BTreeSet::new();
    for state in [Reading::Violated, Reading::Violated, Reading::Clear, Reading::Unknown] {
        scene.reads(200, state);
        ids.insert((scene.alert().key.to_string(), scene.alert().key.id(), scene.alert().episode));
    }
    assert_eq!(ids.len(), 1);
}

#[test]
fn defect_one_good_sample_resolves_a_short_good_spell_changes_nothing() {
    let mut scene = Scene::new();
    scene.reads(400, Reading::Violated);
    for _ in 0..20 {
        assert_eq!(scene.reads(175, Reading::Clear), []);
        assert_eq!(scene.reads(5, Reading::Violated), []);
    }
    assert_eq!(scene.alert().state(scene.now()), "firing");
}

#[test]
fn defect_no_cool_down_an_alert_holds_and_what_returns_soon_is_the_same_alert() {
    let mut scene = Scene::new();
    scene.policy.clear = Nanos::from_secs(10);
    let mut told = scene.reads(70, Reading::Violated);
    told.extend(scene.reads(300, Reading::Clear));
    assert_eq!(told, [(65, Kind::Fired), (365, Kind::Resolved)], "held for five minutes");
    assert_eq!(scene.reads(65, Reading::Violated), [(435, Kind::Reopened)]);
    assert_eq!((scene.alert().episode, scene.alert().reopened), (1, 1));
    scene.reads(1_300, Reading::Clear);
    assert!(scene.book.alerts.is_empty(), "history after the time to come back");
    scene.reads(65, Reading::Violated);
    assert_eq!(scene.alert().episode, 2);
}

#[test]
fn defect_alerts_refire_on_every_update_a_day_of_the_same_is_told_once() {
    let mut scene = Scene::new();
    assert_eq!(scene.reads(86_400, Reading::Violated).len(), 1);
    assert_eq!(scene.book.alerts.len(), 1);
}

#[test]
fn defect_nothing_ever_sets_resolved_what_holds_again_resolves() {
    let mut scene = Scene::new();
    scene.reads(400, Reading::Violated);
    let told = scene.reads(400, Reading::Clear);
    assert_eq!(told.iter().map(|t| t.1).collect::<Vec<_>>(), [Kind::Resolved]);
}

#[test]
fn defect_de_escalation_reported_as_escalation_easing_is_silent_and_worsening_told_once() {
    let mut scene = Scene::new();
    let key = tail(&slice("rust"));
    let at = |severity| [condition(&key, Reading::Violated, severity)];
    assert_eq!(scene.run(100, &at(Severity::Warning)).len(), 1);
    assert_eq!(scene.run(100, &at(Severity::Critical)), [(105, Kind::Raised)]);
    assert_eq!(scene.run(300, &at(Severity::Error)), []);
    assert_eq!(scene.run(300, &at(Severity::Critical)), []);
}

#[test]
fn defect_stale_window_silence_never_resolves_and_never_fires() {
    let mut scene = Scene::new();
    scene.reads(30, Reading::Violated);
    assert_eq!(
        scene.reads(3_600, Reading::Unknown),
        [],
        "a pending alert does not fire on silence"
    );
    scene.reads(70, Reading::Violated);
    assert_eq!(scene.alert().state(scene.now()), "firing");
    assert_eq!(scene.reads(86_400, Reading::Unknown), []);
    assert_eq!(scene.run(86_400, &[]), [], "nor when nothing is read at all");
    assert_eq!(scene.alert().state(scene.now()), "firing");
    // Good samples broken by silence are no proof either.
    for _ in 0..20 {
        assert_eq!(scene.reads(170, Reading::Clear), []);
        assert_eq!(scene.reads(5, Reading::Unknown), []);
    }
}

#[test]
fn defect_one_outlier_pages_what_passes_within_the_wait_is_told_to_nobody() {
    let mut scene = Scene::new();
    for _ in 0..50 {
        assert_eq!(scene.reads(60, Reading::Violated), []);
        assert_eq!(scene.reads(5, Reading::Clear), []);
    }
    assert!(scene.book.alerts.is_empty());
}

#[test]
fn a_dead_agent_does_not_page_for_each_of_its_slices() {
    let mut scene = Scene::new();
    let lost = Key { rule: Rule::AgentLost, subject: Subject::named("a1") };
    let mut all = vec![condition(&lost, Reading::Violated, Severity::Error)];
    all[0].agents.clear();
    for n in 0..40 {
        let subject = Subject::slice(&slice(&format!("l{n}")));
        let key = Key { rule: Rule::Silent, subject };
        all.push(condition(&key, Reading::Violated, Severity::Warning));
    }
    assert_eq!(scene.run(1_200, &all), [(65, Kind::Fired)]);
    let quiet = |scene: &Scene| {
        scene.book.alerts.values().filter(|a| matches!(a.quiet, Some(Quiet::Inhibited(_)))).count()
    };
    assert_eq!(quiet(&scene), 40);
    // The agent is back; its slices are heard of again a moment later.
    all[0].state = Reading::Clear;
    assert_eq!(scene.run(60, &all), []);
    all.iter_mut().for_each(|condition| condition.state = Reading::Clear);
    assert_eq!(scene.run(600, &all), [(1_385, Kind::Resolved)]);
    // One heard through a second agent as well is not inhibited.
    all[1].agents.push("a2".into());
    all.iter_mut().for_each(|condition| condition.state = Reading::Violated);
    let told = scene.run(1_200, &all);
    assert_eq!(told.len(), 2, "{told:?}");
}

#[test]
fn a_budget_that_burns_because_a_limit_is_broken_is_not_told_twice() {
    let mut scene = Scene::new();
    let subject = tail(&slice("rust")).subject;
    let of = |rule| {
        let key = Key { rule, subject: subject.clone() };
        condition(&key, Reading::Violated, Severity::Critical)
    };
    assert_eq!(scene.run(300, &[of(Rule::Burn), of(Rule::SloP95)]), [(65, Kind::Fired)]);
    let alone = scene
        .run(1_200, &[of(Rule::Burn), Condition { state: Reading::Clear, ..of(Rule::SloP95) }]);
    assert_eq!(alone.iter().map(|t| t.1).collect::<Vec<_>>(), [Kind::Resolved, Kind::Fired]);
}

#[test]
fn two_limits_of_one_series_page_once_whichever_is_broken_first() {
    let subject = tail(&slice("rust")).subject;
    let of = |rule, state| {
        let key = Key { rule, subject: subject.clone() };
        condition(&key, state, Severity::Critical)
    };
    let (broken, kept) = (Reading::Violated, Reading::Clear);
    let both = |p95, p99| [of(Rule::SloP95, p95), of(Rule::SloP99, p99)];
    let kinds = |told: Vec<(u64, Kind)>| told.into_iter().map(|(_, kind)| kind).collect::<Vec<_>>();
    for first in [both(broken, broken), both(broken, kept), both(kept, broken)] {
        let mut scene = Scene::new();
        assert_eq!(kinds(scene.run(300, &first)), [Kind::Fired]);
        assert_eq!(scene.run(300, &both(broken, broken)), [], "the other one adds nothing");
        assert_eq!(kinds(scene.run(1_200, &both(kept, kept))), [Kind::Resolved]);
    }
    // Where the told one ends and the other goes on, that is told.
    let mut scene = Scene::new();
    assert_eq!(kinds(scene.run(300, &both(broken, broken))), [Kind::Fired]);
    assert_eq!(kinds(scene.run(1_200, &both(kept, broken))), [Kind::Resolved, Kind::Fired]);
    // A p95 that cannot be told keeps nobody from hearing of p99.
    let mut scene = Scene::new();
    scene.run(10, &both(broken, kept));
    assert_eq!(kinds(scene.run(300, &both(Reading::Unknown, broken))), [Kind::Fired]);
}

#[test]
fn an_acknowledged_alert_climbs_no_further_and_a_silenced_one_speaks_when_the_silence_ends() {
    let mut scene = Scene::new();
    let step = |name: &str, after| Step {
        name: name.into(),
        after: Nanos::from_secs(after),
        sinks: vec![name.into()],
        severity_min: Severity::Error,
    };
    scene.policy.chain = vec![step("primary", 0), step("secondary", 300), step("management", 900)];
    let told = scene.reads(400, Reading::Violated);
    assert_eq!(told, [(65, Kind::Fired), (65, Kind::Escalated), (365, Kind::Escalated)]);
    let id = scene.alert().key.id();
    let now = scene.now();
    let (_, told) = scene.book.act(&id, &Action::Acknowledge, "ann", None, now).unwrap();
    assert_eq!(told.unwrap().kind, Kind::Acknowledged);
    let (_, again) = scene.book.act(&id, &Action::Acknowledge, "bob", None, now).unwrap();
    assert_eq!(again, None, "the second changes nothing");
    assert_eq!(scene.alert().ack.as_ref().unwrap().by, "ann");
    assert_eq!(scene.reads(3_600, Reading::Violated), []);

    let mut scene = Scene::new();
    scene.reads(30, Reading::Violated);
    let (id, now) = (scene.alert().key.id(), scene.now());
    let hour = Action::Silence(Nanos::from_secs(3_600));
    scene.book.act(&id, &hour, "ann", Some("known"), now).unwrap();
    assert_eq!(scene.reads(3_595, Reading::Violated), []);
    assert_eq!(scene.alert().state(scene.now()), "silenced");
    assert_eq!(scene.reads(60, Reading::Violated), [(3_630, Kind::Fired)]);
}

#[test]
fn maintenance_keeps_what_it_covers_quiet_and_what_outlasts_it_is_told() {
    let mut scene = Scene::new();
    scene.maintenance.push(Maintenance {
        id: "m1".into(),
        from: scene.now(),
        to: scene.now().plus(Nanos::from_secs(1_000)),
        covers: "backend/rust".into(),
        by: "ann".into(),
        reason: "reindexing".into(),
    });
    let other = condition(&tail(&slice("go")), Reading::Violated, Severity::Error);
    let rust = condition(&tail(&slice("rust")), Reading::Violated, Severity::Error);
    assert_eq!(scene.run(995, &[rust.clone(), other.clone()]), [(65, Kind::Fired)]);
    assert_eq!(scene.run(60, &[rust, other]), [(1_000, Kind::Fired)]);
}

#[test]
fn actions_are_refused_with_what_would_be_right() {
    let mut scene = Scene::new();
    scene.reads(100, Reading::Violated);
    let (id, now) = (scene.alert().key.id(), scene.now());
    let mut act = |id: &str, action| scene.book.act(id, &action, "ann", None, now).unwrap_err();
    assert_eq!(act("nope", Action::Acknowledge), ActError::Unknown("nope".into()));
    assert_eq!(act(&id, Action::Silence(Nanos(0))), ActError::Silence);
    let long = Nanos::from_secs(SILENCE_SECS_MAX + 1);
    assert_eq!(act(&id, Action::Silence(long)), ActError::Silence);
    assert!(matches!(act(&id, Action::Resolve), ActError::Violated(_)));
    let most = Action::Silence(Nanos::from_secs(SILENCE_SECS_MAX));
    let note = "x".repeat(NOTE_BYTES_MAX);
    scene.book.act(&id, &most, "ann", Some(&note), now).unwrap();
    let long = scene.book.act(&id, &most, "ann", Some(&format!("{note}x")), now);
    assert_eq!(long.unwrap_err(), ActError::Long);
    // What nothing will be heard of again may be declared over.
    scene.run(5, &[]);
    let (_, told) = scene.book.act(&id, &Action::Resolve, "ann", None, scene.now()).unwrap();
    assert_eq!(told.unwrap().kind, Kind::Resolved);
}

#[test]
fn a_full_book_counts_what_it_leaves_out() {
    let mut scene = Scene::new();
    let all: Vec<Condition> = (0..=ALERTS_MAX)
        .map(|n| condition(&tail(&slice(&format!("l{n}"))), Reading::Violated, Severity::Error))
        .collect();
    scene.run(5, &all[..ALERTS_MAX]);
    assert_eq!((scene.book.alerts.len(), scene.book.refused), (ALERTS_MAX, 0));
    scene.run(5, &all);
    assert_eq!((scene.book.alerts.len(), scene.book.refused), (ALERTS_MAX, 1));
}
