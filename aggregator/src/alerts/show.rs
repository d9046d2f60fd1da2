//! Alerts and deliveries as API, page, stream and webhooks show them.

use lens_model::UnixNanos;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::alert::{self, Quiet};
use super::condition::{Reading, Rule, Severity};
use super::lifecycle::Kind;
use super::notice::{self, Progress};
use crate::snapshot::rfc3339;

/// One alert.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Alert {
    /// Its short name, for addresses.
    #[schema(example = "9f3c1a5b7d2e4f60")]
    pub id: String,
    /// Its name from opening to resolving, `rule/slice/stage/arm`.
    #[schema(example = "tail/backend/rust/large/stage_b/canary")]
    pub key: String,
    /// The rule.
    pub rule: Rule,
    /// The slice, if the rule speaks of one.
    #[schema(example = "backend/rust/large")]
    pub slice: Option<String>,
    /// The stage.
    #[schema(example = "stage_b")]
    pub stage: Option<String>,
    /// The arm.
    #[schema(example = "canary")]
    pub arm: Option<String>,
    /// The agent, sink or store.
    pub name: Option<String>,
    /// The rule in words.
    #[schema(example = "Latency tail too long")]
    pub title: &'static str,
    /// `pending`, `firing`, `acknowledged`, `silenced` or `resolved`.
    #[schema(example = "firing")]
    pub state: &'static str,
    /// The worst it was in this episode.
    pub severity: Severity,
    /// What the rule reads now: `unknown` neither holds nor is broken, and resolves nothing.
    pub reading: Reading,
    /// Since when it reads so.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub reading_since: UnixNanos,
    /// Which opening this is, counted over all alerts.
    #[schema(example = 12)]
    pub episode: u64,
    /// How often it came back within this episode.
    pub reopened: u32,
    /// When the rule was first seen broken.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub opened: UnixNanos,
    /// When it began to fire.
    #[serde(serialize_with = "maybe")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub fired: Option<UnixNanos>,
    /// When it was over.
    #[serde(serialize_with = "maybe")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub resolved: Option<UnixNanos>,
    /// Who took it on.
    pub acknowledged_by: Option<String>,
    /// When.
    #[serde(serialize_with = "maybe")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub acknowledged: Option<UnixNanos>,
    /// Until when it is kept quiet by someone.
    #[serde(serialize_with = "maybe")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub silenced_until: Option<UnixNanos>,
    /// Why nobody is told now, if nobody is.
    #[schema(example = "inhibited by agent_lost/a1")]
    pub quiet: Option<String>,
    /// Steps of the escalation chain that heard of it.
    pub escalation_steps: usize,
    /// One sentence saying what is wrong, from the last reading that said.
    #[schema(example = "p99 is 2.61 times p95, more than 2")]
    pub summary: String,
    /// The numbers behind it.
    #[schema(value_type = Object, example = json!({"ratio": 2.61, "threshold": 2.0, "samples": 4812}))]
    pub evidence: Value,
    /// What to do, the measured cause first where there is one.
    pub recommended_actions: Vec<String>,
}

impl Alert {
    /// The alert as of `now`.
    pub fn new(alert: &alert::Alert, now: UnixNanos) -> Self {
        let subject = &alert.key.subject;
        let ack = alert.ack.as_ref();
        Self {
            id: alert.key.id(),
            key: alert.key.to_string(),
            rule: alert.key.rule,
            slice: subject.slice.as_ref().map(ToString::to_string),
            stage: subject.stage.map(|stage| stage.to_string()),
            arm: subject.arm.map(|arm| arm.to_string()),
            name: subject.name.clone(),
            title: alert.key.rule.title(),
            state: alert.state(now),
            severity: alert.severity,
            reading: alert.reading,
            reading_since: alert.reading_since,
            episode: alert.episode,
            reopened: alert.reopened,
            opened: alert.opened,
            fired: alert.fired,
            resolved: alert.resolved,
            acknowledged_by: ack.map(|ack| ack.by.clone()),
            acknowledged: ack.map(|ack| ack.at),
            silenced_until: alert.silence.as_ref().map(|s| s.until).filter(|until| *until > now),
            quiet: alert.quiet.as_ref().map(|quiet| match quiet {
                Quiet::Silence => "silenced".into(),
                Quiet::Maintenance(id) => format!("maintenance {id}"),
                Quiet::Inhibited(key) => format!("inhibited by {key}"),
            }),
            escalation_steps: alert.steps,
            summary: alert.summary.clone(),
            evidence: alert.evidence.clone(),
            recommended_actions: alert.actions.clone(),
        }
    }
}

/// One notice on its way to one sink.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Delivery {
    /// The notice's name, the same over every retry.
    #[schema(example = "msg_5d41402abc4b2a76b9719d911")]
    pub id: String,
    /// To which sink.
    #[schema(example = "pager")]
    pub sink: String,
    /// What it tells.
    pub kind: Kind,
    /// Keys of the alerts it is about.
    pub alerts: Vec<String>,
    /// How far it got.
    pub progress: Progress,
    /// Attempts made.
    pub attempts: u32,
    /// When it was queued.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub queued: UnixNanos,
    /// When the next attempt is due; `null` once settled.
    #[serde(serialize_with = "maybe")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub due: Option<UnixNanos>,
    /// When it was delivered or given up.
    #[serde(serialize_with = "maybe")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub settled: Option<UnixNanos>,
    /// What came back last.
    #[schema(example = "202 Event processed")]
    pub said: Option<String>,
}

impl Delivery {
    /// The delivery as it stands.
    pub fn new(delivery: &notice::Delivery) -> Self {
        let queued = delivery.progress == Progress::Queued;
        Self {
            id: delivery.notice.id.clone(),
            sink: delivery.sink.clone(),
            kind: delivery.notice.kind,
            alerts: delivery.notice.alerts.iter().map(|alert| alert.key.to_string()).collect(),
            progress: delivery.progress,
            attempts: delivery.attempts,
            queued: delivery.queued,
            due: queued.then_some(delivery.due),
            settled: delivery.settled,
            said: delivery.said.clone(),
        }
    }
}

/// One sink and how it fares.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Sink {
    /// Its name.
    #[schema(example = "pager")]
    pub name: String,
    /// Its protocol.
    #[schema(example = "pagerduty")]
    pub kind: &'static str,
    /// Least severity it hears of.
    pub severity_min: Severity,
    /// Notices waiting.
    pub queued: usize,
    /// Notices delivered since the aggregator started.
    pub delivered: u64,
    /// Attempts that are to be made again, since the aggregator started.
    pub retried: u64,
    /// Notices given up since the aggregator started.
    pub dead: u64,
    /// Since when it takes nothing; `null` while it does.
    #[serde(serialize_with = "maybe")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub failing_since: Option<UnixNanos>,
    /// What came back last.
    pub said: Option<String>,
}

/// What the snapshot holds of alerts: those that are open, the newest first, and the sinks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct Summary {
    /// Alerts that fire, acknowledged and silenced ones included.
    pub firing: usize,
    /// Those of severity critical among them.
    pub critical: usize,
    /// Alerts waiting to fire.
    pub pending: usize,
    /// The alerts that are open, the newest first, at most 100.
    pub open: Vec<Alert>,
    /// Deliveries, the newest first, at most 20.
    pub deliveries: Vec<Delivery>,
    /// The sinks.
    pub sinks: Vec<Sink>,
    /// Whether alerts and deliveries survive a restart.
    pub durable: bool,
}

fn maybe<S: serde::Serializer>(at: &Option<UnixNanos>, to: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => rfc3339(at, to),
        None => to.serialize_none(),
    }
}
