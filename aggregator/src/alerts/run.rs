//! Alerting at work: evaluation at its interval, a task a sink, and the test of a sink.

use std::sync::Arc;

use lens_model::{Nanos, UnixNanos};
use lens_service::shutdown::Shutdown;
use serde::Serialize;
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::error;
use utoipa::ToSchema;

use super::alert::{Alert, Phase, Told};
use super::condition::{Condition, Key, Reading, Rule, Severity, Subject};
use super::deliver;
use super::lifecycle::{Kind, Transition};
use super::notice::Notice;
use super::sense::Sense;
use super::sink::{Kind as SinkKind, Outcome};
use crate::snapshot::Snapshot;
use crate::state::State;

/// Evaluates and delivers until told to stop; returns once every attempt under way has ended.
pub async fn run(state: Arc<State>, shutdown: Shutdown) {
    let mut sinks = tokio::task::JoinSet::new();
    for sink in state.alerts.config.sinks.clone() {
        sinks.spawn(deliver::run(Arc::clone(&state.alerts), sink, shutdown.clone()));
    }
    evaluate(&state, &shutdown).await;
    while sinks.join_next().await.is_some() {}
}

async fn evaluate(state: &Arc<State>, shutdown: &Shutdown) {
    let interval = state.alerts.config.interval.max(Nanos::from_secs(1));
    let mut ticks = tokio::time::interval(interval.into());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sense = Sense::default();
    loop {
        tokio::select! { biased; () = shutdown.wait() => return, _ = ticks.tick() => {} }
        let held = Arc::clone(state);
        let turn = state.env.blocking(move || {
            turn(&held, &mut sense);
            sense
        });
        match turn.await {
            Ok(back) => sense = back,
            Err(error) => {
                error!(%error, "alerts are no longer evaluated");
                return;
            }
        }
    }
}

/// One evaluation: reads, steps, and tells whoever listens to the event stream.
pub(crate) fn turn(state: &State, sense: &mut Sense) {
    let now = state.now();
    let snapshot = Snapshot::take(state, now);
    let conditions = sense.read(state, &state.alerts, &snapshot);
    for transition in state.alerts.evaluate(&conditions, now) {
        tell(state, &transition);
        capture(state, &transition);
    }
}

/// Captures the last minutes of the slice that an alert of latencies or errors begins to fire for.
fn capture(state: &State, Transition { kind, alert, .. }: &Transition) {
    let of_requests = matches!(
        alert.key.rule,
        Rule::Tail | Rule::SloP95 | Rule::SloP99 | Rule::Burn | Rule::ErrorRate
    );
    let begins = matches!(kind, Kind::Fired | Kind::Reopened);
    if let (true, true, Some(slice)) = (of_requests, begins, &alert.key.subject.slice) {
        state.captures.violated(state, slice, &alert.key.to_string());
    }
}

/// Tells the event stream of a transition.
pub(crate) fn tell(state: &State, transition: &Transition) {
    let Transition { kind, alert, .. } = transition;
    let message = format!("{} ({}): {}", kind.as_str(), alert.severity.as_str(), alert.summary);
    state.tell("alert", alert.key.to_string(), message);
}

/// How the test of a sink went.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Tested {
    /// The sink.
    #[schema(example = "pager")]
    pub sink: String,
    /// Whether it took the test.
    pub delivered: bool,
    /// What came back.
    #[schema(example = "202 Event processed")]
    pub said: String,
    /// How long it took, milliseconds.
    #[schema(example = 84.2)]
    pub took_ms: f64,
}

/// Sends a test to a sink, past its queue; `None` when there is no such sink. Where a test would
/// stay open it is resolved at once.
pub async fn test(state: &Arc<State>, name: &str) -> Option<Tested> {
    let desk = &state.alerts;
    let sink = desk.config.sinks.iter().find(|sink| sink.name == name)?;
    let begun = Instant::now();
    let now = state.now();
    let mut outcome = deliver::send(desk, sink, &notice(name, Kind::Fired, now)).await;
    let stays = matches!(sink.kind, SinkKind::PagerDuty { .. } | SinkKind::Alertmanager { .. });
    if stays && matches!(outcome, Outcome::Delivered { .. }) {
        outcome = deliver::send(desk, sink, &notice(name, Kind::Resolved, now)).await;
    }
    desk.noted(name, &outcome, state.now());
    let (delivered, said) = match outcome {
        Outcome::Delivered { said, .. } => (true, said),
        Outcome::Retry { said, .. } | Outcome::Refused { said } => (false, said),
    };
    let took_ms = begun.elapsed().as_secs_f64() * 1e3;
    Some(Tested { sink: name.into(), delivered, said, took_ms })
}

/// A notice that says it is a test. Its key is the one no sink is ever told of: its own failing.
fn notice(sink: &str, kind: Kind, now: UnixNanos) -> Notice {
    let condition = Condition {
        key: Key { rule: Rule::Sink, subject: Subject::named(sink) },
        state: Reading::Violated,
        severity: Severity::Warning,
        summary: "This is a test of the sink. Nothing is wrong.".into(),
        evidence: json!({"test": true}),
        since: None,
        agents: Vec::new(),
        actions: vec!["Nothing is to be done".into()],
    };
    let mut alert = Alert::open(&condition, 0, now);
    (alert.phase, alert.fired) = (Phase::Firing, Some(now));
    alert.told = Told::Firing(Severity::Warning);
    if kind == Kind::Resolved {
        (alert.phase, alert.resolved) = (Phase::Resolved, Some(now));
    }
    Notice::of(&Transition { kind, alert, before: None, at: now }, sink)
}
