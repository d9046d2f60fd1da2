//! Stretches of time that an agent did not account for: a number over them is not the whole.

use lens_model::UnixNanos;
use serde::Serialize;
use utoipa::ToSchema;

use super::rfc3339;
use crate::state::State;
use crate::window::Span;

/// A stretch of time without an agent's counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Incomplete {
    /// The agent.
    #[schema(example = "agent-1")]
    pub agent: String,
    /// End of what it accounted for.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub from: UnixNanos,
    /// From when on it did again; `null` while it does not.
    #[serde(serialize_with = "rfc3339_or_null")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub to: Option<UnixNanos>,
}

/// One gap of an agent's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Gap {
    /// End of what it accounted for.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub from: UnixNanos,
    /// From when on it did again; `null` while it does not.
    #[serde(serialize_with = "rfc3339_or_null")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub to: Option<UnixNanos>,
}

/// What is missing of a span, by agent.
pub fn incomplete(state: &State, span: Span, now: UnixNanos) -> Vec<Incomplete> {
    let agents = state.agents.read();
    let of = |(name, agent): (&lens_model::AgentName, &crate::state::AgentState)| {
        let missing = agent.coverage.missing(span, agent.heard(), now);
        let name = name.to_string();
        missing.into_iter().map(move |(from, to)| Incomplete { agent: name.clone(), from, to })
    };
    agents.iter().flat_map(of).collect()
}

pub(super) fn rfc3339_or_null<S: serde::Serializer>(
    at: &Option<UnixNanos>,
    to: S,
) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => rfc3339(at, to),
        None => to.serialize_none(),
    }
}
