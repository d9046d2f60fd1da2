//! The rollout as it is shown: the fields it always had, and beside them what they rest on.

use lens_service::time::rfc3339;
use serde_json::{Map, Value, json};

use crate::canary::Live;
use crate::canary::book::{Book, Retreat};
use crate::canary::controller::{Phase, State};
use crate::canary::levers::Stand;
use crate::judge::canary::Evidence;
use crate::state;

/// Retreats shown.
const SHOWN_MAX: usize = 5;

/// All of it.
pub(super) fn status(live: &Live, shared: &state::State) -> Value {
    let stand = live.stand();
    let blockers = live.blockers(shared);
    let (stuck, trouble) = live.troubles();
    let now = shared.now();
    let mut shown = live.look(|book, evidence| of_book(live, book, evidence, &stand));
    shown.insert("blockers".into(), json!(blockers));
    shown.insert(
        "trouble".into(),
        json!([stuck, trouble].into_iter().flatten().collect::<Vec<_>>()),
    );
    shown.insert("durable".into(), live.durable().into());
    let dwell = live.look(|book, _| {
        #[allow(clippy::cast_possible_wrap)]
        let now_ms = (now.0 / 1_000_000) as i64;
        dwell_remaining(&book.state, now_ms)
    });
    shown.insert("dwell_remaining_s".into(), json!(dwell));
    Value::Object(shown)
}

fn of_book(
    live: &Live,
    book: &Book,
    evidence: Option<&Evidence>,
    stand: &Stand,
) -> Map<String, Value> {
    let state = &book.state;
    let rollout = book.rollout.as_ref();
    let traffic = if state.phase == Phase::Idle && !stand.killed {
        // What a start begins with.
        live.config.plan.shares.first().copied().unwrap_or(0.0)
    } else {
        book.nominal()
    };
    let routed = stand.routed.as_ref().map_or(0.0, |routed| routed.share);
    let [a, b, c] = stand.stages;
    let history: Vec<Value> = book.retreats.iter().take(SHOWN_MAX).map(retreat).collect();
    let since = u64::try_from(state.since_ms).unwrap_or(0).saturating_mul(1_000_000);
    let since = (since > 0).then(|| rfc3339(lens_model::UnixNanos(since)));
    let value = json!({
        "trafficPercentage": traffic,
        "killSwitchEnabled": true,
        "progressiveRollout": stand.progressive,
        "stageFlags": {"stageA_native_scanner": a, "stageB_enabled": b, "stageC_enabled": c},
        "nextStage": next_stage(live, book),
        "rollbackHistory": history,
        "killed": stand.killed || state.phase == Phase::Killed,
        "share_percent": routed,
        "hold_back_percent": plan(live, state).hold_back,
        "phase": state.phase.as_str(),
        "stage": book.stage(),
        "step": match state.phase { Phase::Step(step) => Some(step), _ => None },
        "steps": plan(live, state).shares,
        "since": since,
        "reason": state.reason,
        "timed_out": state.timed_out,
        "version": rollout.map(|rollout| &rollout.version),
        "salt": rollout.map(|rollout| &rollout.salt),
        "rollout": rollout.map(|rollout| rollout.number),
        "started_by": rollout.map(|rollout| &rollout.by),
        "generation": stand.generation,
        "decisions": book.decisions,
        "rollbacks_total": book.rollbacks,
        "kills_total": book.kills,
        "release_approvals": book.approvals.iter().map(|a| &a.by).collect::<Vec<_>>(),
        "evidence": evidence,
        "evidence_reason": match evidence {
            Some(_) => None,
            None => Some("nothing has been compared since the rollout began"),
        },
    });
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// The plan in force: the rollout's, or the one a start would take.
fn plan<'a>(live: &'a Live, state: &'a State) -> &'a crate::judge::canary::Plan {
    if state.phase == Phase::Idle { &live.config.plan } else { &state.plan }
}

fn retreat(retreat: &Retreat) -> Value {
    json!({
        "flagName": retreat.flag,
        "reason": retreat.reason,
        "timestamp": rfc3339(retreat.at),
        "metrics": {"trafficPercentage": 0, "previousTrafficPercentage": retreat.share_before},
        "version": retreat.version,
        "decision": retreat.decision,
    })
}

/// `current_percentage` and `stage`, for refusals.
pub(super) fn standing(book: &Book) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert("current_percentage".into(), json!(book.nominal()));
    map.insert("stage".into(), book.stage().into());
    map
}

/// What comes next; `null` where nothing does before people act.
fn next_stage(live: &Live, book: &Book) -> Option<String> {
    let after = |step: usize| {
        let share = plan(live, &book.state).shares.get(step + 1);
        share.map_or_else(|| "complete".into(), |share| format!("{share}%"))
    };
    match book.state.phase {
        Phase::Idle => Some(after(0)),
        Phase::Step(step) => Some(after(step)),
        Phase::Complete => Some("complete".into()),
        Phase::Aborted | Phase::RolledBack | Phase::Killed => None,
    }
}

/// How long the step must still last, seconds; `null` outside one.
#[allow(clippy::cast_precision_loss)]
fn dwell_remaining(state: &State, now_ms: i64) -> Option<f64> {
    let Phase::Step(step) = state.phase else { return None };
    let dwell = *state.plan.dwell_s.get(step)? as f64;
    let stayed = now_ms.saturating_sub(state.since_ms) as f64 / 1e3;
    Some((dwell - stayed).max(0.0))
}
