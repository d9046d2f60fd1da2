//! Guards at work: probes at their times, readings, switches, and what these do.

use std::sync::Arc;
use std::time::Duration;

use lens_model::Stage;
use lens_service::shutdown::Shutdown;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tracing::{error, warn};

use super::config::Overload;
use super::switch::{Act, Kind};
use super::{Change, edge};
use crate::alerts::transport;
use crate::audit::{Decision, Entry};
use crate::auth::Verb;
use crate::snapshot::Snapshot;
use crate::state::State;

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// Looks between two of the service's load, which walks every series.
const LOAD_EVERY: u32 = 5;

/// Who acts when nobody asked.
const OURSELVES: &str = "lens-aggregator";

/// How the service stands now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    /// Where too many requests fail, in a sentence.
    pub failing: Option<String>,
    /// Where the whole query is surely too slow, in a sentence.
    pub slow: Option<String>,
    /// Whether something is known, and all of it is within the limits.
    pub well: bool,
}

impl Load {
    #[allow(clippy::cast_precision_loss)]
    fn read(snapshot: &Snapshot, limits: &Overload) -> Self {
        let mut load = Self { well: true, ..Self::default() };
        let mut known = false;
        for requests in &snapshot.requests {
            let total = requests.ok.saturating_add(requests.error);
            if total < limits.samples_min {
                continue;
            }
            known = true;
            let percent = 100.0 * requests.error as f64 / total as f64;
            if percent > limits.error_percent {
                let of = (&requests.slice, requests.arm);
                load.failing = Some(format!(
                    "{percent:.2} % of {} {} requests fail, limit {} %",
                    of.0, of.1, limits.error_percent
                ));
            }
        }
        let whole = snapshot.rows.iter().filter(|row| row.stage == Stage::E2e);
        for row in whole.filter(|row| row.count >= limits.samples_min) {
            let Some(p99) = row.p99.value_ms else { continue };
            known = true;
            load.well &= p99 <= limits.p99_ms;
            if row.p99.low_ms.is_some_and(|low| low > limits.p99_ms) {
                load.slow = Some(format!(
                    "p99 of {} {} is {p99:.0} ms, limit {} ms",
                    row.slice, row.arm, limits.p99_ms
                ));
            }
        }
        load.well &= known && load.failing.is_none() && load.slow.is_none();
        load
    }
}

/// Guards until shutdown; returns at once where nothing is configured.
pub async fn run(state: Arc<State>, shutdown: Shutdown) {
    let guards = &state.guards;
    if !guards.config.is_on() {
        return;
    }
    let client = match transport::client(None) {
        Ok(client) => client,
        Err(error) => {
            error!(%error, "no probe can be made");
            return;
        }
    };
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut probes = JoinSet::new();
    let mut looks = 0_u32;
    loop {
        tokio::select! {
            biased;
            () = shutdown.wait() => return,
            Some(ended) = probes.join_next(), if !probes.is_empty() => {
                if let Ok((place, outcome)) = ended {
                    guards.ended(place, outcome, guards.elapsed(), state.now());
                }
            }
            _ = ticks.tick() => {
                for (place, probe) in guards.begin(guards.elapsed()) {
                    let client = client.clone();
                    probes.spawn(async move { (place, edge::ask(client, probe).await) });
                }
                looks = looks.wrapping_add(1);
            }
        }
        turn(&state, looks.is_multiple_of(LOAD_EVERY)).await;
    }
}

/// One look at everything, and what follows from it.
pub(super) async fn turn(state: &Arc<State>, load: bool) {
    let held = Arc::clone(state);
    let look = move || {
        let guards = &held.guards;
        let (now, wall) = (guards.elapsed(), held.now());
        let sampled = guards.sample(&held.windows.read(), now, wall);
        let wanted = load && guards.config.act(Kind::ServiceOverload) != Act::Off;
        let read = |held: &State| Load::read(&Snapshot::take(held, wall), &guards.config.overload);
        let load = wanted.then(|| read(&held));
        let changes = guards.step(load.as_ref(), held.canary.stand().killed, now, wall);
        (sampled, changes)
    };
    let (sampled, changes) = match state.env.blocking(look).await {
        Ok(found) => found,
        Err(error) => {
            error!(%error, "guards were not looked at");
            return;
        }
    };
    for change in &changes {
        act(state, change).await;
    }
    take_back(state).await;
    if sampled || !changes.is_empty() {
        let held = Arc::clone(state);
        if let Err(error) = state.env.blocking(move || held.guards.keep()).await {
            error!(%error, "what guards know was not kept");
        }
    }
}

/// Does what a switch does, once: before it is written down, so that a crash between repeats it.
async fn act(state: &Arc<State>, change: &Change) {
    let (kind, message) = match change {
        Change::Engaged(kind, reason) => (*kind, format!("engaged: {reason}")),
        Change::LetGo(kind) => (*kind, "let go: recovered".to_owned()),
    };
    warn!(guard = kind.as_str(), "{message}");
    state.tell("guard", kind.as_str(), message);
    let Change::Engaged(_, reason) = change else { return };
    if state.guards.config.act(kind) != Act::Kill {
        return;
    }
    let reason = format!("{}: {reason}", kind.as_str());
    let entry = entry(Verb::KillEngage.as_str(), &reason);
    let kill = crate::canary::live::kill(state, reason, OURSELVES);
    let trouble = if state.security.audit.is_on() {
        // A record that fails is said by the audit itself.
        state.security.audit.act_first(entry, kill).await.0
    } else {
        kill.await
    };
    for trouble in trouble {
        error!(%trouble, "the kill switch is on, and not durable");
    }
}

/// Takes a rollout back where a guard alarmed after it began, if it is to be.
async fn take_back(state: &Arc<State>) {
    if !state.guards.config.rollback {
        return;
    }
    let Some(began) = state.canary.began() else { return };
    let Some(reason) = state.guards.alarmed_since(began) else { return };
    let (held, why) = (Arc::clone(state), reason.clone());
    let back = state.env.blocking(move || held.canary.take_back(&held, &why)).await;
    if back.unwrap_or(false) && state.security.audit.is_on() {
        // Less first, the record after: as for every decision against a canary.
        if let Err(error) = state.security.audit.record(entry("canary.decide", &reason)).await {
            error!(%error, "a rollback is not in the audit record");
        }
    }
}

fn entry(verb: &str, reason: &str) -> Entry {
    Entry {
        principal: OURSELVES.into(),
        credential: "guard".into(),
        role: String::new(),
        verb: verb.into(),
        target: "canary".into(),
        arguments: reason.as_bytes().to_vec(),
        decision: Decision::Done,
    }
}
