//! What goes to one sink at one time, and how far it got.

use lens_model::UnixNanos;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::alert::Alert;
use super::condition::{Rule, Severity};
use super::lifecycle::{Kind, Transition};

/// Alerts one notice speaks of; more make a further notice.
pub(super) const GROUP_MAX: usize = 20;

/// What one sink is told at one time: one kind of transition, of one alert or of several of a rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// Names it over every retry and restart: receivers that see it again may drop it.
    pub id: String,
    /// What happened.
    pub kind: Kind,
    /// When.
    pub at: UnixNanos,
    /// The severity told before, if any was.
    pub before: Option<Severity>,
    /// To whom: one or more.
    pub alerts: Vec<Alert>,
}

/// How far a delivery got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    /// Waiting for its turn or its next attempt.
    Queued,
    /// Taken by the receiver.
    Delivered,
    /// Given up: refused for good, too old, or pushed out of a full queue.
    Dead,
}

/// One notice on its way to one sink.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delivery {
    /// Its place in the order of everything.
    pub seq: u64,
    /// To which sink.
    pub sink: String,
    /// What.
    pub notice: Notice,
    /// How far it got.
    pub progress: Progress,
    /// Attempts made.
    pub attempts: u32,
    /// When it was queued.
    pub queued: UnixNanos,
    /// When the next attempt is due.
    pub due: UnixNanos,
    /// When it was delivered or given up.
    pub settled: Option<UnixNanos>,
    /// What came back last.
    pub said: Option<String>,
}

/// What routing needs to know of a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// Its name.
    pub sink: String,
    /// Least severity it hears of.
    pub severity_min: Severity,
    /// Whether several alerts of a rule go in one notice: for what people read.
    pub groups: bool,
    /// Its step in the escalation chain, if it stands in one.
    pub step: Option<usize>,
}

impl Route {
    /// Whether this sink hears of it.
    fn takes(&self, transition: &Transition) -> bool {
        let alert = &transition.alert;
        let own =
            alert.key.rule == Rule::Sink && alert.key.subject.name.as_deref() == Some(&self.sink);
        let reached = match (self.step, transition.kind) {
            (None, kind) => kind != Kind::Escalated,
            (Some(step), Kind::Escalated) => step + 1 == alert.steps,
            (Some(step), _) => step < alert.steps,
        };
        // Nobody can be told through a sink that it fails.
        reached && !own && alert.severity >= self.severity_min
    }
}

/// What each sink is told of these transitions, in order.
pub(super) fn notices(transitions: &[Transition], routes: &[Route]) -> Vec<(String, Notice)> {
    let mut out: Vec<(String, Notice)> = Vec::new();
    for route in routes {
        let begin = out.len();
        for transition in transitions.iter().filter(|transition| route.takes(transition)) {
            let fits = |(_, notice): &&mut (String, Notice)| {
                notice.kind == transition.kind
                    && notice.alerts[0].key.rule == transition.alert.key.rule
                    && notice.alerts.len() < GROUP_MAX
            };
            match out[begin..].iter_mut().find(fits).filter(|_| route.groups) {
                Some((_, notice)) => notice.alerts.push(transition.alert.clone()),
                None => out.push((route.sink.clone(), Notice::of(transition, &route.sink))),
            }
        }
    }
    out
}

impl Notice {
    /// The notice of one transition to one sink. Its id follows from what happened, so that computed
    /// again it is the same.
    pub fn of(transition: &Transition, sink: &str) -> Self {
        let Transition { kind, alert, before, at } = transition;
        let name = format!(
            "{sink}\n{}\n{}\n{}\n{}\n{}",
            kind.as_str(),
            alert.key,
            alert.episode,
            alert.steps,
            at.0
        );
        Self {
            id: format!("msg_{}", &blake3::hash(name.as_bytes()).to_hex()[..26]),
            kind: *kind,
            at: *at,
            before: *before,
            alerts: vec![alert.clone()],
        }
    }

    /// The worst severity among its alerts.
    pub fn severity(&self) -> Severity {
        self.alerts.iter().map(|alert| alert.severity).max().unwrap_or(Severity::Warning)
    }

    /// One line: what happened to what.
    pub fn headline(&self) -> String {
        let alert = &self.alerts[0];
        let rule = alert.key.rule;
        let word = match self.kind {
            Kind::Fired => "",
            Kind::Raised => "Worse: ",
            Kind::Reopened => "Again: ",
            Kind::Escalated => "Unacknowledged: ",
            Kind::Acknowledged => "Acknowledged: ",
            Kind::Resolved => "Resolved: ",
        };
        match self.alerts.len() {
            1 => format!("{word}{}: {}", rule.title(), subject(alert)),
            more => format!("{word}{}: {more} subjects", rule.title()),
        }
    }
}

/// What an alert is about, for people.
pub(super) fn subject(alert: &Alert) -> String {
    let key = alert.key.to_string();
    let (_, subject) = key.split_once('/').unwrap_or(("", "everything"));
    subject.replace("/stage_", " stage_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::lifecycle::tests::{fired, slice};

    fn route(sink: &str, groups: bool, step: Option<usize>) -> Route {
        Route { sink: sink.into(), severity_min: Severity::Warning, groups, step }
    }

    #[test]
    fn people_read_one_notice_of_many_alerts_and_machines_one_of_each() {
        let transitions: Vec<Transition> =
            (0..GROUP_MAX + 1).map(|n| fired(&slice(&format!("l{n}")))).collect();
        let routes = [route("people", true, None), route("machine", false, None)];
        let told = notices(&transitions, &routes);
        let of = |sink: &str| told.iter().filter(|(to, _)| to == sink).count();
        assert_eq!((of("people"), of("machine")), (2, GROUP_MAX + 1));
        assert_eq!(told[0].1.alerts.len(), GROUP_MAX);
        assert!(told[0].1.headline().ends_with("20 subjects"));
        assert_eq!(told, notices(&transitions, &routes), "ids do not change");
    }

    #[test]
    fn a_step_of_the_chain_hears_nothing_before_its_turn_and_everything_after() {
        let mut transition = fired(&slice("rust"));
        let chain = [route("first", false, Some(0)), route("second", false, Some(1))];
        let to = |transition: &Transition| -> Vec<String> {
            notices(std::slice::from_ref(transition), &chain).into_iter().map(|n| n.0).collect()
        };
        assert!(to(&transition).is_empty());
        transition.kind = Kind::Escalated;
        transition.alert.steps = 1;
        assert_eq!(to(&transition), ["first"]);
        transition.alert.steps = 2;
        assert_eq!(to(&transition), ["second"]);
        transition.kind = Kind::Resolved;
        assert_eq!(to(&transition), ["first", "second"]);
    }

    #[test]
    fn a_sink_is_not_told_of_its_own_failing_nor_below_its_severity() {
        let mut transition = fired(&slice("rust"));
        let critical = Route { severity_min: Severity::Critical, ..route("pager", false, None) };
        assert!(
            notices(std::slice::from_ref(&transition), std::slice::from_ref(&critical)).is_empty()
        );
        transition.alert.severity = Severity::Critical;
        assert_eq!(notices(std::slice::from_ref(&transition), &[critical]).len(), 1);
        transition.alert.key = crate::alerts::Key {
            rule: Rule::Sink,
            subject: crate::alerts::Subject::named("pager"),
        };
        let routes = [route("pager", false, None), route("chat", false, None)];
        let told = notices(&[transition], &routes);
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].0, "chat");
    }
}
