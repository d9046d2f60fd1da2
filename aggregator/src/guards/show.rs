//! How guards stand: for the API and metrics, for alerting, and for the rollout they may hold.

use lens_model::{Nanos, UnixNanos};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::cusum::{Rule, Side};
use super::probe::{Outcome, Probe, Stand, Track};
use super::switch::{Act, Kind, Reading as Read};
use super::{Detector, Guards, STALE, Switch};
use crate::alerts::{Condition, Key, Reading, Rule as AlertRule, Severity, Subject, advice};
use crate::judge::canary::{Blocker, BlockerCode};

/// How one guard stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// All is well, by evidence.
    Ok,
    /// Something is not, and not for long enough to alarm.
    Suspect,
    /// It alarms.
    Alarm,
    /// It cannot tell.
    InsufficientData,
}

impl Standing {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Ok, Self::Suspect, Self::Alarm, Self::InsufficientData];

    /// The name used in JSON and labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Suspect => "suspect",
            Self::Alarm => "alarm",
            Self::InsufficientData => "insufficient_data",
        }
    }
}

/// One guard.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct GuardState {
    /// Its name: `cusum/GAUGE`, `probe/NAME` or `switch/NAME`.
    #[schema(example = "probe/class")]
    pub guard: String,
    /// How it stands.
    pub state: Standing,
    /// Since when it alarms.
    #[serde(serialize_with = "when")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub since: Option<UnixNanos>,
    /// One sentence for people.
    #[schema(example = "answered with 0 results, 1 or more expected")]
    pub message: String,
    /// The numbers behind it, an object.
    #[schema(value_type = Object)]
    pub evidence: Value,
}

fn when<S: serde::Serializer>(at: &Option<UnixNanos>, to: S) -> Result<S::Ok, S::Error> {
    at.map(lens_service::time::rfc3339).serialize(to)
}

impl Guards {
    /// Every guard configured: detectors, probes, switches.
    pub fn states(&self) -> Vec<GuardState> {
        let (inner, now) = (self.inner.lock(), self.elapsed());
        let old = STALE.max(Nanos(self.config.sample.0.saturating_mul(2)));
        let detectors = self.config.detectors.iter().filter_map(|(name, rule)| {
            Some(of_detector(name, rule, inner.detectors.get(name)?, now, old))
        });
        let probes = self.config.probes.iter().zip(&inner.tracks);
        let probes = probes.map(|(probe, track)| of_probe(probe, track));
        let switches = inner.switches.iter().filter_map(|(kind, switch)| {
            let act = self.config.act(*kind);
            (act != Act::Off).then(|| of_switch(*kind, act, switch))
        });
        detectors.chain(probes).chain(switches).collect()
    }

    /// Why what is known is not kept, while that is so.
    pub fn trouble(&self) -> Option<String> {
        self.inner.lock().trouble.clone()
    }

    /// What stands in the way of a promotion: every detector and probe that is not known to be well.
    /// A switch rests on these, or on what the rollout is held to anyway.
    pub(crate) fn blockers(&self) -> Vec<Blocker> {
        let bad =
            |guard: &GuardState| guard.state != Standing::Ok && !guard.guard.starts_with("switch/");
        let found = self.states().into_iter().filter(bad);
        let blocker = |guard: GuardState| {
            let message = format!("guard {}: {}", guard.guard, guard.message);
            Blocker::new(BlockerCode::Guard, message)
        };
        found.map(blocker).collect()
    }

    /// The first guard whose alarm is on and began after an instant, in a sentence.
    pub(super) fn alarmed_since(&self, began: UnixNanos) -> Option<String> {
        let alarmed = |guard: &GuardState| {
            guard.state == Standing::Alarm && guard.since.is_some_and(|since| since > began)
        };
        let found = self.states().into_iter().find(alarmed)?;
        Some(format!("guard {}: {}", found.guard, found.message))
    }
}

fn of_detector(name: &str, rule: &Rule, held: &Detector, now: Nanos, old: Nanos) -> GuardState {
    let cusum = &held.cusum;
    let fresh = held.last.is_some_and(|(_, at)| now.0.saturating_sub(at.0) < old.0);
    let state = match (fresh, cusum.alarm, cusum.beyond) {
        (false, ..) => Standing::InsufficientData,
        (true, Some(_), _) => Standing::Alarm,
        (true, None, 0) => Standing::Ok,
        (true, None, _) => Standing::Suspect,
    };
    let reading = held.last.map(|(x, _)| x);
    let message = match (state, cusum.alarm, reading) {
        (Standing::InsufficientData, ..) => "no node reports the gauge now".to_owned(),
        (_, Some(side), Some(x)) => {
            let way = if side == Side::Low { "below" } else { "above" };
            format!("the gauge stays {way} its mean of {}: {x} now", rule.mean)
        }
        _ => format!("sums {:.2} and {:.2} of {}", cusum.up, cusum.down, rule.h),
    };
    GuardState {
        guard: format!("cusum/{name}"),
        state,
        since: held.since.filter(|_| state == Standing::Alarm),
        message,
        evidence: json!({"reading": reading, "mean": rule.mean, "sd": rule.sd, "h": rule.h,
            "sustained": rule.sustained, "up": cusum.up, "down": cusum.down,
            "beyond": cusum.beyond, "readings": cusum.readings}),
    }
}

fn of_probe(probe: &Probe, track: &Track) -> GuardState {
    let state = match track.stand() {
        Stand::Unknown => Standing::InsufficientData,
        Stand::Passing => Standing::Ok,
        Stand::Shaken => Standing::Suspect,
        Stand::Failing => Standing::Alarm,
    };
    let message = match track.last.as_ref().map(|(_, outcome)| outcome) {
        None => "has not run yet".to_owned(),
        Some(Outcome::Passed { results: Some(results) }) => format!("{results} results"),
        Some(Outcome::Passed { results: None }) => "answered".to_owned(),
        Some(Outcome::TooFew { results }) => {
            format!("answered with {results} results, {} or more expected", probe.results_min)
        }
        Some(Outcome::Failed { why }) => format!("failed: {why}"),
    };
    let at = track.last.as_ref().map(|(at, _)| lens_service::time::rfc3339(*at));
    GuardState {
        guard: format!("probe/{}", probe.name),
        state,
        since: track.failing_since.filter(|_| state == Standing::Alarm),
        message,
        evidence: json!({"query": probe.query, "last_run": at, "failures": track.failures,
            "too_few": track.too_few}),
    }
}

fn of_switch(kind: Kind, act: Act, switch: &Switch) -> GuardState {
    let (state, message) = match (&switch.engaged, &switch.last) {
        (Some(engaged), _) => (Standing::Alarm, engaged.reason.clone()),
        (None, Some(Read::Well)) => (Standing::Ok, "not engaged".to_owned()),
        (None, _) => (Standing::InsufficientData, "not engaged; nothing shows it is well".into()),
    };
    GuardState {
        guard: format!("switch/{}", kind.as_str()),
        state,
        since: switch.engaged.as_ref().map(|engaged| engaged.since),
        message,
        evidence: json!({"act": act}),
    }
}

/// One condition a guard.
pub fn conditions(guards: &Guards) -> Vec<Condition> {
    let condition = |guard: GuardState| Condition {
        key: Key { rule: AlertRule::Guard, subject: Subject::named(&guard.guard) },
        state: match guard.state {
            Standing::Ok => Reading::Clear,
            Standing::Alarm => Reading::Violated,
            Standing::Suspect | Standing::InsufficientData => Reading::Unknown,
        },
        severity: if guard.guard.starts_with("switch/") {
            Severity::Critical
        } else {
            Severity::Error
        },
        summary: guard.message,
        evidence: guard.evidence,
        since: guard.since,
        agents: Vec::new(),
        actions: advice(AlertRule::Guard, &guard.guard),
    };
    guards.states().into_iter().map(condition).collect()
}
