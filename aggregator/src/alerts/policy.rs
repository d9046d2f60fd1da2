//! When an alert fires, holds, resolves and comes back; who hears of it when; when nobody does.

use lens_model::{Nanos, UnixNanos};
use serde::{Deserialize, Serialize};

use super::condition::{Key, Rule, Severity};

/// The waiting times of the lifecycle.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// How long a rule is broken before anyone is told.
    pub pending: Nanos,
    /// The same for a silent slice, whose traffic may just be thin.
    pub pending_silent: Nanos,
    /// How long it holds, without a break, before the alert resolves.
    pub clear: Nanos,
    /// Least time an alert fires.
    pub hold: Nanos,
    /// Time after resolving within which the same alert comes back instead of a new one opening.
    pub reopen: Nanos,
    /// Steps of the escalation chain, in order of time.
    pub chain: Vec<Step>,
}

/// One step of the escalation chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Who that is, such as `secondary`.
    pub name: String,
    /// How long an alert fires unacknowledged before they hear of it.
    pub after: Nanos,
    /// The sinks that reach them; these hear of nothing before.
    pub sinks: Vec<String>,
    /// Least severity that comes this far.
    pub severity_min: Severity,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            pending: Nanos::from_secs(60),
            pending_silent: Nanos::from_secs(300),
            clear: Nanos::from_secs(180),
            hold: Nanos::from_secs(300),
            reopen: Nanos::from_secs(900),
            chain: Vec::new(),
        }
    }
}

impl Policy {
    /// How long this rule is broken before anyone is told: at once where waiting cannot make the
    /// reading surer.
    pub fn pending(&self, rule: Rule) -> Nanos {
        match rule {
            Rule::Store | Rule::Sink | Rule::Guard => Nanos(0),
            Rule::Silent => self.pending_silent,
            _ => self.pending,
        }
    }
}

/// A time during which what it covers is not told of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maintenance {
    /// What it is called by.
    pub id: String,
    /// From when.
    pub from: UnixNanos,
    /// Until when, not included.
    pub to: UnixNanos,
    /// Keys it covers begin so; an empty text covers everything.
    pub covers: String,
    /// Who announced it.
    pub by: String,
    /// Why.
    pub reason: String,
}

impl Maintenance {
    /// Whether it covers this alert now: by the beginning of its key, or of its slice.
    pub fn covers(&self, key: &Key, now: UnixNanos) -> bool {
        let within = self.from <= now && now < self.to;
        let slice = || key.subject.slice.as_ref().map(ToString::to_string).unwrap_or_default();
        within && (key.to_string().starts_with(&self.covers) || slice().starts_with(&self.covers))
    }
}
