//! What the lifecycle is fed: one reading of one rule about one subject.
//!
//! This is the whole of what alerting knows of judging. A judge with richer verdicts gives richer
//! conditions; nothing behind this type changes.

use std::fmt;

use lens_model::{Arm, Slice, Stage, UnixNanos};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// How bad, in the order in which it gets worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth a look during the day.
    Warning,
    /// A rule is broken for longer than chance explains.
    Error,
    /// A promise to users is broken: wakes people.
    Critical,
}

impl Severity {
    /// The name used in JSON, labels and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

impl std::str::FromStr for Severity {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Warning, Self::Error, Self::Critical]
            .into_iter()
            .find(|severity| severity.as_str() == text)
            .ok_or(())
    }
}

/// Which rule; the first part of an alert's key.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// p99 over p95 is too large.
    Tail,
    /// p95 is over its absolute limit.
    SloP95,
    /// p99 is over its absolute limit.
    SloP99,
    /// The share of requests over the limit spends the error budget too fast.
    Burn,
    /// Requests fail.
    ErrorRate,
    /// A slice that was heard of is silent.
    Silent,
    /// An agent is not connected.
    AgentLost,
    /// An agent's deltas arrive late.
    AgentLagging,
    /// An agent holds frames it could not deliver.
    SpoolAge,
    /// What should be durable is not.
    Store,
    /// A sink takes no notifications.
    Sink,
    /// A rollout was taken back, waits for people, or was killed.
    Canary,
    /// A detector, a probe or a switch of its own alarms.
    Guard,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Self; 13] = [
        Self::Tail,
        Self::SloP95,
        Self::SloP99,
        Self::Burn,
        Self::ErrorRate,
        Self::Silent,
        Self::AgentLost,
        Self::AgentLagging,
        Self::SpoolAge,
        Self::Store,
        Self::Sink,
        Self::Canary,
        Self::Guard,
    ];

    /// The name used in keys, JSON, labels and the runbook's headings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tail => "tail",
            Self::SloP95 => "slo_p95",
            Self::SloP99 => "slo_p99",
            Self::Burn => "burn",
            Self::ErrorRate => "error_rate",
            Self::Silent => "silent",
            Self::AgentLost => "agent_lost",
            Self::AgentLagging => "agent_lagging",
            Self::SpoolAge => "spool_age",
            Self::Store => "store",
            Self::Sink => "sink",
            Self::Canary => "canary",
            Self::Guard => "guard",
        }
    }

    /// What it is called in front of people.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Tail => "Latency tail too long",
            Self::SloP95 => "p95 over its limit",
            Self::SloP99 => "p99 over its limit",
            Self::Burn => "Latency budget burning",
            Self::ErrorRate => "Requests failing",
            Self::Silent => "Slice silent",
            Self::AgentLost => "Agent lost",
            Self::AgentLagging => "Agent lagging",
            Self::SpoolAge => "Agent's spool not draining",
            Self::Store => "Storage in trouble",
            Self::Sink => "Alert sink failing",
            Self::Canary => "Canary needs people",
            Self::Guard => "Guard alarms",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Rule {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|rule| rule.as_str() == text).ok_or(())
    }
}

/// What a condition is about: a series or a part of one, or something with a name of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Subject {
    /// The slice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice: Option<Slice>,
    /// The stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// The arm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arm: Option<Arm>,
    /// An agent's, a sink's or a store's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Subject {
    /// Something with a name.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), ..Self::default() }
    }

    /// A whole slice.
    pub fn slice(slice: &Slice) -> Self {
        Self { slice: Some(slice.clone()), ..Self::default() }
    }
}

/// What names an alert from its opening to its resolving: `rule/slice/stage/arm`, without the parts
/// the rule does not speak of; `agent_lost/a1` for something with a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// The rule.
    pub rule: Rule,
    /// What it is about.
    #[serde(flatten)]
    pub subject: Subject,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Subject { slice, stage, arm, name } = &self.subject;
        f.write_str(self.rule.as_str())?;
        if let Some(slice) = slice {
            write!(f, "/{slice}")?;
        }
        if let Some(stage) = stage {
            write!(f, "/{stage}")?;
        }
        if let Some(arm) = arm {
            write!(f, "/{arm}")?;
        }
        if let Some(name) = name {
            write!(f, "/{name}")?;
        }
        Ok(())
    }
}

impl Key {
    /// The key's short form for addresses: 16 hexadecimal digits of its hash.
    pub fn id(&self) -> String {
        blake3::hash(self.to_string().as_bytes()).to_hex()[..16].to_owned()
    }
}

/// What was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reading {
    /// The rule is broken.
    Violated,
    /// The rule holds, by evidence.
    Clear,
    /// It cannot be told: too few samples, or silence.
    Unknown,
}

/// One reading of one rule about one subject.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// What names it.
    pub key: Key,
    /// What was read.
    pub state: Reading,
    /// How bad it would be, or is.
    pub severity: Severity,
    /// One sentence for people.
    pub summary: String,
    /// The numbers behind it, an object.
    pub evidence: Value,
    /// Since when the evidence reaches back, if it says.
    pub since: Option<UnixNanos>,
    /// Agents the subject is heard of through; while all of them are lost it is not told of.
    pub agents: Vec<String>,
    /// What to do, the measured cause first where there is one.
    pub actions: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_as_its_parts_and_its_id_stays_the_same() {
        let subject = Subject {
            slice: Some("backend/rust/large".parse().unwrap()),
            stage: Some(Stage::B),
            arm: Some(Arm::Canary),
            name: None,
        };
        let key = Key { rule: Rule::Tail, subject };
        assert_eq!(key.to_string(), "tail/backend/rust/large/stage_b/canary");
        assert_eq!(key.id(), key.clone().id());
        assert_eq!(key.id().len(), 16);
        let lost = Key { rule: Rule::AgentLost, subject: Subject::named("a1") };
        assert_eq!(lost.to_string(), "agent_lost/a1");
        assert_ne!(lost.id(), key.id());
        let json = serde_json::to_string(&key).unwrap();
        assert_eq!(serde_json::from_str::<Key>(&json).unwrap(), key);
    }

    #[test]
    fn every_rule_reads_back_from_its_name() {
        for rule in Rule::ALL {
            assert_eq!(rule.as_str().parse(), Ok(rule));
            assert_eq!(serde_json::to_value(rule).unwrap(), rule.as_str());
        }
    }
}
