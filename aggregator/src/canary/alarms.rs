//! The rollout as conditions of alerts: taken back, held for people, killed. One key each.

use lens_model::{Nanos, UnixNanos};
use serde_json::json;

use super::controller::Phase;
use crate::alerts::{Condition, Key, Reading, Rule, Severity, Subject, advice};
use crate::state;

/// How long a rollback is told of, unless a rollout begins before.
const TOLD: Nanos = Nanos::from_secs(86_400);

/// One reading of each.
pub(crate) fn conditions(state: &state::State, now: UnixNanos) -> Vec<Condition> {
    state.canary.look(|book, evidence| {
        let rollout = &book.state;
        let since_ms = u64::try_from(rollout.since_ms).unwrap_or(0);
        let since = UnixNanos(since_ms.saturating_mul(1_000_000));
        let lately = now.since(since) < TOLD;
        let held = matches!(rollout.phase, Phase::Step(_)) && rollout.timed_out;
        let ways = evidence.map(|evidence| rollout.blockers(evidence, evidence.t_ms));
        let waits =
            ways.unwrap_or_default().iter().map(|way| way.message.clone()).collect::<Vec<_>>();
        let waits = format!("a step waits for people: {}", waits.join("; "));
        let readings = [
            ("rolled_back", Severity::Critical, rollout.phase == Phase::RolledBack && lately),
            ("held", Severity::Warning, held),
            ("killed", Severity::Critical, rollout.phase == Phase::Killed),
        ];
        let version = book.rollout.as_ref().map(|rollout| &rollout.version);
        let condition = |(name, severity, violated)| Condition {
            key: Key { rule: Rule::Canary, subject: Subject::named(name) },
            state: if violated { Reading::Violated } else { Reading::Clear },
            severity,
            summary: if name == "held" && held { waits.clone() } else { rollout.reason.clone() },
            evidence: json!({"version": version, "share_percent": rollout.share(),
                "decision": book.decisions, "reason": rollout.reason}),
            since: violated.then_some(since),
            agents: Vec::new(),
            actions: advice(Rule::Canary, name),
        };
        readings.into_iter().map(condition).collect()
    })
}
