//! The lifecycle: conditions and an instant in, the next state and what is to be told out.
//!
//! Promise: pure. What is told is the difference between where an alert stands and what the outside
//! was last told, so each transition is told once however often it is computed, and what could not
//! be told while it was kept quiet is told when the quiet ends, if it still holds.
//! A reading of `unknown`, or none at all, breaks every wait and ends nothing: no data never
//! resolves an alert.

mod act;
#[cfg(test)]
pub(super) mod tests;

use std::collections::{BTreeMap, BTreeSet};

use lens_model::{Nanos, UnixNanos};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::alert::{Alert, Phase, Quiet, Told};
use super::condition::{Condition, Key, Reading, Rule, Severity, Subject};
use super::policy::{Maintenance, Policy};

pub use act::{ActError, Action, NOTE_BYTES_MAX, SILENCE_SECS_MAX};

/// Alerts held at once; a further one is left out and counted.
pub const ALERTS_MAX: usize = 4_096;

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It fires.
    Fired,
    /// It became worse.
    Raised,
    /// It is back within the time in which it counts as the same.
    Reopened,
    /// Nobody took it on: the next step of the chain hears of it.
    Escalated,
    /// Someone took it on.
    Acknowledged,
    /// It is over.
    Resolved,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::Fired,
        Self::Raised,
        Self::Reopened,
        Self::Escalated,
        Self::Acknowledged,
        Self::Resolved,
    ];

    /// The name used in JSON, labels and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fired => "fired",
            Self::Raised => "raised",
            Self::Reopened => "reopened",
            Self::Escalated => "escalated",
            Self::Acknowledged => "acknowledged",
            Self::Resolved => "resolved",
        }
    }
}

/// One thing to tell, once.
#[derive(Clone, Debug, PartialEq)]
pub struct Transition {
    /// What happened.
    pub kind: Kind,
    /// The alert as it then stood.
    pub alert: Alert,
    /// The severity told before, if any was.
    pub before: Option<Severity>,
    /// When.
    pub at: UnixNanos,
}

/// What one step gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// What to tell, in order of key.
    pub transitions: Vec<Transition>,
    /// Alerts that are history now.
    pub closed: Vec<Alert>,
}

/// Every alert that is not history.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Book {
    /// By key.
    pub alerts: BTreeMap<Key, Alert>,
    /// The number of the next episode.
    pub episodes: u64,
    /// Alerts left out because the book was full.
    pub refused: u64,
}

impl Book {
    /// Takes one reading of everything.
    ///
    /// A subject without a condition reads unknown. Conditions with the same key: the last counts.
    pub fn step(
        &mut self,
        conditions: &[Condition],
        policy: &Policy,
        maintenance: &[Maintenance],
        now: UnixNanos,
    ) -> Outcome {
        let read: BTreeMap<&Key, &Condition> =
            conditions.iter().map(|condition| (&condition.key, condition)).collect();
        self.open(&read, now);
        let deeper = Deeper { lost: self.lost(), limits: self.limits() };
        let mut outcome = Outcome::default();
        let mut gone = Vec::new();
        for (key, alert) in &mut self.alerts {
            observe(alert, read.get(key).copied(), now);
            if !advance(alert, policy, now) {
                gone.push(key.clone());
                continue;
            }
            alert.quiet = quiet(alert, maintenance, &deeper, now);
            outcome.transitions.extend(tell(alert, now));
            outcome.transitions.extend(climb(alert, policy, now));
        }
        for key in gone {
            // What never fired leaves no trace: nobody was told.
            outcome.closed.extend(self.alerts.remove(&key).filter(|alert| alert.fired.is_some()));
        }
        outcome
    }

    fn open(&mut self, read: &BTreeMap<&Key, &Condition>, now: UnixNanos) {
        for (key, condition) in read {
            if condition.state != Reading::Violated || self.alerts.contains_key(*key) {
                continue;
            }
            if self.alerts.len() >= ALERTS_MAX {
                self.refused += 1;
                continue;
            }
            self.episodes += 1;
            let alert = Alert::open(condition, self.episodes, now);
            self.alerts.insert((*key).clone(), alert);
        }
    }

    /// Agents that are lost, or were until a moment ago: until their own alert has resolved, what is
    /// heard through them is still coming back.
    fn lost(&self) -> BTreeSet<String> {
        let lost = self
            .alerts
            .values()
            .filter(|alert| alert.key.rule == Rule::AgentLost && alert.phase != Phase::Resolved);
        lost.filter_map(|alert| alert.key.subject.name.clone()).collect()
    }

    /// Subjects over an absolute limit, with the alert that speaks of it: the one people were told of,
    /// else that of p95, which most requests feel.
    fn limits(&self) -> BTreeMap<Subject, Key> {
        let mut speaks: BTreeMap<Subject, (bool, Key)> = BTreeMap::new();
        // p95 stands before p99.
        for alert in self.alerts.values().filter(|alert| alert.phase != Phase::Resolved) {
            let over = alert.phase == Phase::Firing || alert.reading == Reading::Violated;
            if !matches!(alert.key.rule, Rule::SloP95 | Rule::SloP99) || !over {
                continue;
            }
            let told = matches!(alert.told, Told::Firing(_));
            let held = speaks.get(&alert.key.subject);
            if held.is_none_or(|(before, _)| told && !before) {
                speaks.insert(alert.key.subject.clone(), (told, alert.key.clone()));
            }
        }
        speaks.into_iter().map(|(subject, (_, key))| (subject, key)).collect()
    }
}

/// What is told instead of what follows from it.
struct Deeper {
    /// Agents that are lost: what is heard through them is silent.
    lost: BTreeSet<String>,
    /// Subjects over a limit: their budget burns, and one limit speaks for both.
    limits: BTreeMap<Subject, Key>,
}

fn observe(alert: &mut Alert, condition: Option<&Condition>, now: UnixNanos) {
    let reading = condition.map_or(Reading::Unknown, |condition| condition.state);
    if reading != alert.reading {
        alert.reading = reading;
        alert.reading_since = now;
    }
    if let Some(condition) = condition.filter(|_| reading == Reading::Violated) {
        alert.describe(condition);
        // An alert that is over takes its severity anew when it comes back.
        alert.severity = match alert.phase {
            Phase::Resolved => condition.severity,
            _ => alert.severity.max(condition.severity),
        };
    }
}

/// Moves the alert along; `false` when it is history.
fn advance(alert: &mut Alert, policy: &Policy, now: UnixNanos) -> bool {
    let lasted = now.since(alert.reading_since);
    let broken = alert.reading == Reading::Violated && lasted >= policy.pending(alert.key.rule);
    match alert.phase {
        Phase::Pending if broken => {
            alert.phase = Phase::Firing;
            alert.fired = Some(now);
        }
        Phase::Pending => return alert.reading != Reading::Clear,
        Phase::Firing => {
            let held = alert.fired.is_none_or(|fired| now.since(fired) >= policy.hold);
            if alert.reading == Reading::Clear && lasted >= policy.clear && held {
                alert.phase = Phase::Resolved;
                alert.resolved = Some(now);
            }
        }
        Phase::Resolved => {
            let since = alert.resolved.map_or(Nanos(u64::MAX), |at| now.since(at));
            if broken && since < policy.reopen {
                alert.reopen(now);
            } else if since >= policy.reopen || alert.told == Told::Nothing {
                return false;
            }
        }
    }
    true
}

impl Alert {
    /// Comes back as the same alert. Whoever took it on took on what was over since.
    fn reopen(&mut self, now: UnixNanos) {
        self.phase = Phase::Firing;
        self.fired = Some(now);
        self.resolved = None;
        self.ack = None;
        self.steps = 0;
        self.reopened += 1;
    }
}

fn quiet(
    alert: &Alert,
    maintenance: &[Maintenance],
    deeper: &Deeper,
    now: UnixNanos,
) -> Option<Quiet> {
    if alert.silenced(now) {
        return Some(Quiet::Silence);
    }
    if let Some(window) = maintenance.iter().find(|window| window.covers(&alert.key, now)) {
        return Some(Quiet::Maintenance(window.id.clone()));
    }
    if matches!(alert.key.rule, Rule::Burn | Rule::SloP95 | Rule::SloP99)
        && let Some(limit) = deeper.limits.get(&alert.key.subject)
        && *limit != alert.key
    {
        return Some(Quiet::Inhibited(limit.to_string()));
    }
    let deaf = alert.key.rule != Rule::AgentLost
        && !alert.agents.is_empty()
        && alert.agents.iter().all(|agent| deeper.lost.contains(agent));
    deaf.then(|| {
        let agent = Key { rule: Rule::AgentLost, subject: Subject::named(alert.agents[0].clone()) };
        Quiet::Inhibited(agent.to_string())
    })
}

/// The difference between where the alert stands and what was told.
fn tell(alert: &mut Alert, now: UnixNanos) -> Option<Transition> {
    let before = match alert.told {
        Told::Firing(severity) => Some(severity),
        Told::Nothing | Told::Resolved => None,
    };
    let (kind, told) = match (alert.phase, alert.told) {
        // Good news is told even to those who asked for quiet: what they know would be wrong.
        (Phase::Resolved, Told::Firing(_)) => (Kind::Resolved, Told::Resolved),
        (Phase::Firing, _) if alert.quiet.is_some() => return None,
        // A quiet that ends must not tell of what seems over already, though not for long enough.
        (Phase::Firing, _) if alert.reading != Reading::Violated => return None,
        (Phase::Firing, Told::Nothing) => (Kind::Fired, Told::Firing(alert.severity)),
        (Phase::Firing, Told::Resolved) => (Kind::Reopened, Told::Firing(alert.severity)),
        (Phase::Firing, Told::Firing(severity)) if alert.severity > severity => {
            (Kind::Raised, Told::Firing(alert.severity))
        }
        _ => return None,
    };
    alert.told = told;
    Some(Transition { kind, alert: alert.clone(), before, at: now })
}

/// The next steps of the chain, while nobody has taken the alert on.
fn climb(alert: &mut Alert, policy: &Policy, now: UnixNanos) -> Vec<Transition> {
    let mut steps = Vec::new();
    let Told::Firing(severity) = alert.told else { return steps };
    let taken = alert.ack.is_some() || alert.quiet.is_some();
    if alert.phase != Phase::Firing || taken || alert.reading == Reading::Clear {
        return steps;
    }
    let lasted = alert.fired.map_or(Nanos(0), |fired| now.since(fired));
    while let Some(step) = policy.chain.get(alert.steps)
        && lasted >= step.after
        && alert.severity >= step.severity_min
    {
        alert.steps += 1;
        let alert = alert.clone();
        steps.push(Transition { kind: Kind::Escalated, alert, before: Some(severity), at: now });
    }
    steps
}
