//! One alert: what is known of it, what people did about it, and what the outside was told.

use lens_model::UnixNanos;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::condition::{Condition, Key, Reading, Severity};

/// Largest evidence kept with an alert, bytes of JSON; a larger one is replaced by its size.
pub(super) const EVIDENCE_BYTES_MAX: usize = 8 << 10;

/// Where an alert stands. What people did comes on top: an acknowledged alert still fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Broken, not yet for long enough to tell anyone.
    Pending,
    /// Broken for long enough.
    Firing,
    /// Held again for long enough.
    Resolved,
}

/// Who took an alert on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// Who.
    pub by: String,
    /// When.
    pub at: UnixNanos,
    /// Why, if said.
    pub note: Option<String>,
}

/// Who keeps an alert quiet, and until when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    /// Who.
    pub by: String,
    /// Until when.
    pub until: UnixNanos,
    /// Why, if said.
    pub note: Option<String>,
}

/// Why nobody is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", content = "what", rename_all = "snake_case")]
pub enum Quiet {
    /// Someone silenced it.
    Silence,
    /// A maintenance window covers it.
    Maintenance(String),
    /// Every agent it is heard of through is lost, which is told instead.
    Inhibited(String),
}

/// What the outside was last told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", content = "severity", rename_all = "snake_case")]
pub enum Told {
    /// Nothing.
    Nothing,
    /// That it fires, and how badly.
    Firing(Severity),
    /// That it is over.
    Resolved,
}

/// One alert, by its key. It keeps its key from opening to resolving, and when it comes back soon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// What names it.
    #[serde(flatten)]
    pub key: Key,
    /// Which opening under this key this is, from 1.
    pub episode: u64,
    /// Where it stands.
    pub phase: Phase,
    /// The worst it was in this episode: within one it only rises.
    pub severity: Severity,
    /// The last reading.
    pub reading: Reading,
    /// Since when the reading is this one, without a break.
    pub reading_since: UnixNanos,
    /// When the rule was first seen broken.
    pub opened: UnixNanos,
    /// When it began to fire.
    pub fired: Option<UnixNanos>,
    /// When it was over.
    pub resolved: Option<UnixNanos>,
    /// How often it came back within this episode.
    pub reopened: u32,
    /// Who took it on.
    pub ack: Option<Ack>,
    /// Who keeps it quiet.
    pub silence: Option<Silence>,
    /// Why nobody is told now.
    pub quiet: Option<Quiet>,
    /// What the outside was told.
    pub told: Told,
    /// Steps of the escalation chain reached.
    pub steps: usize,
    /// One sentence, of the last reading that said something.
    pub summary: String,
    /// The numbers behind it.
    pub evidence: Value,
    /// Agents it is heard of through.
    pub agents: Vec<String>,
    /// What to do.
    pub actions: Vec<String>,
}

impl Alert {
    /// A fresh alert of a condition that reads violated.
    pub fn open(condition: &Condition, episode: u64, now: UnixNanos) -> Self {
        let mut alert = Self {
            key: condition.key.clone(),
            episode,
            phase: Phase::Pending,
            severity: condition.severity,
            reading: Reading::Violated,
            reading_since: now,
            opened: now,
            fired: None,
            resolved: None,
            reopened: 0,
            ack: None,
            silence: None,
            quiet: None,
            told: Told::Nothing,
            steps: 0,
            summary: String::new(),
            evidence: Value::Null,
            agents: Vec::new(),
            actions: Vec::new(),
        };
        alert.describe(condition);
        alert
    }

    /// Takes what a reading says in words and numbers.
    pub fn describe(&mut self, condition: &Condition) {
        self.summary.clone_from(&condition.summary);
        self.agents.clone_from(&condition.agents);
        self.actions.clone_from(&condition.actions);
        let bytes = serde_json::to_vec(&condition.evidence).map_or(usize::MAX, |json| json.len());
        self.evidence = if bytes <= EVIDENCE_BYTES_MAX {
            condition.evidence.clone()
        } else {
            serde_json::json!({"left_out": format!("{bytes} bytes, more than {EVIDENCE_BYTES_MAX}")})
        };
    }

    /// Its state in one word, what people did included.
    pub fn state(&self, now: UnixNanos) -> &'static str {
        match self.phase {
            Phase::Pending => "pending",
            Phase::Resolved => "resolved",
            Phase::Firing if self.silenced(now) => "silenced",
            Phase::Firing if self.ack.is_some() => "acknowledged",
            Phase::Firing => "firing",
        }
    }

    /// Whether someone keeps it quiet now.
    pub fn silenced(&self, now: UnixNanos) -> bool {
        self.silence.as_ref().is_some_and(|silence| silence.until > now)
    }

    /// Whether what must survive a restart differs; words and numbers are measured anew.
    pub fn moved(&self, before: &Self) -> bool {
        let words = |alert: &Self| Self {
            summary: String::new(),
            evidence: Value::Null,
            agents: Vec::new(),
            actions: Vec::new(),
            ..alert.clone()
        };
        words(self) != words(before)
    }
}
