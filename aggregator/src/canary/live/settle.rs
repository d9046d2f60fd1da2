//! Brings the world in line with what was decided: less first, then the record, then more.
//!
//! Said again after every slot and every command, so that what did not work is tried again and what a
//! crash interrupted is finished after the restart. A decision is in the audit record before the
//! canary gets more because of it; it gets less at once. A crash between the record and the note of
//! it repeats the record, under the same number.

use std::sync::Arc;
use std::time::Duration;

use lens_service::shutdown::Shutdown;
use tracing::error;

use super::{Live, decision_of};
use crate::audit::{Decision as Outcome, Entry};
use crate::canary::controller::Phase;
use crate::canary::levers::Routed;
use crate::canary::store::Batch;
use crate::state;

/// Who acts when nobody asked.
const OURSELVES: &str = "lens-aggregator";

/// Decisions recorded in one go.
const RECORDED_MAX: usize = 64;

/// Longest time between two looks at whether everything is in line.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Keeps everything in line until shutdown.
pub async fn run(shared: Arc<state::State>, shutdown: Shutdown) {
    loop {
        settle(&shared).await;
        tokio::select! {
            biased;
            () = shutdown.wait() => return,
            () = shared.canary.bell.notified() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}

/// Brings everything in line.
pub async fn settle(shared: &Arc<state::State>) {
    let _turn = shared.canary.settling.lock().await;
    route(shared, false).await;
    if record(shared).await {
        route(shared, true).await;
    }
}

/// A lever that is to move.
enum Move {
    Kill(String),
    Route(Routed),
}

/// Moves the lever that is due.
async fn route(shared: &Arc<state::State>, more: bool) {
    let live = Arc::clone(&shared.canary);
    let held = Arc::clone(&live);
    let Ok(due) = shared.env.blocking(move || held.due(more)).await else { return };
    let moved = match due {
        None => return,
        Some(Move::Kill(reason)) => live.levers.kill(&reason, OURSELVES).await,
        Some(Move::Route(wanted)) => live.levers.route(&wanted).await,
    };
    if let Err(stuck) = &moved {
        error!(%stuck, "the canary's share is not what it should be");
    }
    let stuck = moved.err().map(|stuck| stuck.0);
    if let Err(error) = shared.env.blocking(move || live.moved(stuck)).await {
        error!(%error, "how the levers stand is not noted");
    }
}

/// Records what was decided since the last time; false when that did not work.
async fn record(shared: &Arc<state::State>) -> bool {
    let (audit, live) = (&shared.security.audit, &shared.canary);
    loop {
        let held = Arc::clone(live);
        let Ok(due) = shared.env.blocking(move || held.unrecorded()).await else { return false };
        if due.is_empty() {
            return true;
        }
        for (number, json) in due {
            if audit.is_on()
                && let Err(error) = audit.record(entry(number, &json)).await
            {
                error!(%error, number, "a decision is not in the audit record: no promotion follows");
                return false;
            }
            let held = Arc::clone(live);
            if shared.env.blocking(move || held.recorded(number)).await.is_err() {
                return false;
            }
        }
    }
}

fn entry(number: u64, json: &[u8]) -> Entry {
    let kept: serde_json::Value = serde_json::from_slice(json).unwrap_or_default();
    let text = |name: &str| kept[name].as_str().unwrap_or_default().to_owned();
    Entry {
        principal: OURSELVES.into(),
        credential: "controller".into(),
        role: String::new(),
        verb: "canary.decide".into(),
        target: format!("{} of {}, decision {number}", text("word"), text("version")),
        // The bytes whose digest the decision carries.
        arguments: decision_of(json).unwrap_or_default().to_vec(),
        decision: Outcome::Allowed,
    }
}

impl Live {
    /// What lever is to move, and where to; `None` while all stand as they should, or while only
    /// less is allowed and more is wanted.
    fn due(&self, more: bool) -> Option<Move> {
        let mut inner = self.inner.lock();
        let stand = self.stand();
        if inner.book.state.phase == Phase::Killed {
            return (!stand.killed).then(|| Move::Kill(inner.book.state.reason.clone()));
        }
        let wanted = inner.book.wanted()?;
        if stand.routed.as_ref() == Some(&wanted) {
            inner.stuck = None;
            return None;
        }
        let now = stand.routed.map_or(0.0, |routed| routed.share);
        // What is not durable yet gives nothing more.
        let allowed = wanted.share < now || (more && inner.trouble.is_none());
        allowed.then_some(Move::Route(wanted))
    }

    fn moved(&self, stuck: Option<String>) {
        self.inner.lock().stuck = stuck;
    }

    /// Decisions that are not in the audit record yet, in order.
    fn unrecorded(&self) -> Vec<(u64, Vec<u8>)> {
        let (from, to) = {
            let inner = self.inner.lock();
            (inner.audited, inner.book.decisions)
        };
        let most = usize::try_from(to.saturating_sub(from)).unwrap_or(0).min(RECORDED_MAX);
        let numbered = |json: Vec<u8>| {
            let kept: serde_json::Value = serde_json::from_slice(&json).ok()?;
            Some((kept["id"].as_u64()?, json))
        };
        let before = from.saturating_add(most as u64).saturating_add(1);
        let found = self.decisions(before, most).unwrap_or_default();
        let mut due: Vec<_> = found.into_iter().filter_map(numbered).collect();
        due.retain(|(number, _)| *number > from);
        due.reverse();
        due
    }

    /// Notes that a decision is in the audit record.
    fn recorded(&self, number: u64) {
        let mut inner = self.inner.lock();
        inner.audited = inner.audited.max(number);
        let mut batch = Batch::default();
        batch.put("audited", &inner.audited);
        if let Err(error) = self.store.commit(&batch) {
            error!(%error, "a decision may be in the audit record twice");
        }
    }
}
