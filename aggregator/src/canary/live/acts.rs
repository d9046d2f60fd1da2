//! What people do: begin, go on, end, kill, release.

use std::fmt::Write as _;
use std::sync::Arc;

use lens_model::{Nanos, UnixNanos};
use lens_service::env::Env;
use thiserror::Error;

use super::{HISTORY_SLOTS, Inner, Live, WHOLE_EVERY, keep_slot, outside, slot_of};
use crate::canary::book::{APPROVALS_MIN, Book, Rollout};
use crate::canary::controller::{self, Command, Phase, Refused};
use crate::canary::levers::Stuck;
use crate::judge::canary::{Blocker, BlockerCode, Comparison, Evidence};
use crate::judge::slot::Slot;
use crate::state;

/// Age from which evidence says nothing of now.
const EVIDENCE_STALE: Nanos = Nanos::from_secs(60);

/// Why a command was not obeyed. Everything is as it was.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Cannot {
    /// The controller refuses.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The plan is out of range.
    #[error(transparent)]
    Plan(#[from] crate::judge::canary::PlanError),
    /// A lever does not move.
    #[error("{0}")]
    Stuck(#[from] Stuck),
    /// Randomness for a salt is missing.
    #[error("no salt could be made: {0}")]
    Random(std::io::Error),
}

/// What became of a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Released {
    /// Rollouts may begin again.
    Done(Vec<String>),
    /// More people must agree: these do.
    Waiting(Vec<String>),
}

/// A salt of its own for each rollout, so that the same people are not always the canary.
fn fresh_salt(env: &Env) -> Result<String, Cannot> {
    let mut bytes = [0; 8];
    env.random.fill(&mut bytes).map_err(Cannot::Random)?;
    Ok(bytes.iter().fold(String::new(), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    }))
}

impl Live {
    /// Looks at everything known.
    pub fn look<T>(&self, look: impl FnOnce(&Book, Option<&Evidence>) -> T) -> T {
        let inner = self.inner.lock();
        look(&inner.book, inner.evidence.as_ref())
    }

    /// Why the levers do not stand as they are wanted, and why nothing can be written down.
    pub fn troubles(&self) -> (Option<String>, Option<String>) {
        let inner = self.inner.lock();
        (inner.stuck.clone(), inner.trouble.clone())
    }

    /// Begins a rollout. The last hour of windows is its history.
    ///
    /// # Errors
    /// [`Cannot`].
    pub fn start(
        &self,
        shared: &state::State,
        version: &str,
        salt: Option<String>,
        by: &str,
    ) -> Result<(), Cannot> {
        let salt = salt.map_or_else(|| fresh_salt(&self.env), Ok)?;
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        let mut comparison = Comparison::new(self.config.plan.clone())?;
        let began = slot_of(shared.now()).next();
        let plan = Box::new(comparison.plan().clone());
        let start = Command::Start(plan);
        // Its actions are what follows: the share by `settle`, the first step by the comparison.
        let (state, _) = controller::command(&inner.book.state, start, None, began.start_millis())?;
        let number = inner.book.rollouts + 1;
        if let Some(last) = inner.book.rollout.take() {
            inner.book.tapes.push_back((last.number, last.taped));
        }
        let mut rollout = Rollout {
            number,
            version: version.into(),
            salt,
            by: by.into(),
            began: began.0,
            aside: None,
            taped: 0,
            cut: false,
        };
        self.history(shared, inner, &mut comparison, &mut rollout);
        comparison.begin(began);
        (inner.book.state, inner.book.rollouts) = (state, number);
        (inner.book.rollout, inner.comparison) = (Some(rollout), Some(comparison));
        (inner.evidence, inner.unsaved) = (None, WHOLE_EVERY);
        shared.tell("canary", version, format!("started by {by}"));
        self.keep(inner);
        Ok(())
    }

    /// Gives a comparison what the judge was fed in the last hour.
    fn history(
        &self,
        shared: &state::State,
        inner: &mut Inner,
        comparison: &mut Comparison,
        rollout: &mut Rollout,
    ) {
        let Some(last) = shared.judge.read().now() else { return };
        let mut heard = false;
        for number in last.0.saturating_sub(HISTORY_SLOTS - 1)..=last.0 {
            let Ok(held) = u64::try_from(number) else { continue };
            let windows = shared.windows.read().slot(held, Slot(number));
            heard |= !windows.windows.is_empty();
            // Slots before the first request say nothing of the baseline.
            if heard && comparison.observe(&windows, &[]).is_ok() {
                keep_slot(rollout, &windows, &mut inner.pending);
            }
        }
    }

    /// Goes to the next step now, if the evidence allows it.
    ///
    /// # Errors
    /// [`Cannot`], with everything that stands in the way.
    pub fn progress(&self, shared: &state::State, by: &str) -> Result<(), Cannot> {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        let mut evidence = inner.evidence.clone();
        if let Some(evidence) = &mut evidence {
            evidence.blockers.retain(|blocker| !blocker.code.is_of_now());
            evidence.blockers.extend(outside::blockers(shared, self, inner));
            evidence.blockers.extend(stale(evidence, shared));
        }
        let at = evidence.as_ref().map_or(0, |evidence| evidence.t_ms);
        let before = inner.book.nominal();
        let (state, actions) =
            controller::command(&inner.book.state, Command::Progress, evidence.as_ref(), at)?;
        inner.book.state = state;
        if let Some(rollout) = &mut inner.book.rollout {
            rollout.aside.get_or_insert_with(|| format!("{by} moved it on by hand"));
        }
        self.carry_out(shared, inner, actions, before);
        self.keep(inner);
        Ok(())
    }

    /// Everything that stands in the way of the next step now.
    pub fn blockers(&self, shared: &state::State) -> Vec<Blocker> {
        let inner = self.inner.lock();
        let Phase::Step(_) = inner.book.state.phase else { return Vec::new() };
        let Some(evidence) = &inner.evidence else {
            let message = "nothing has been compared since the rollout began";
            return vec![Blocker::new(BlockerCode::NoCanary, message)];
        };
        let mut evidence = evidence.clone();
        evidence.blockers.retain(|blocker| !blocker.code.is_of_now());
        evidence.blockers.extend(outside::blockers(shared, self, &inner));
        evidence.blockers.extend(stale(&evidence, shared));
        inner.book.state.blockers(&evidence, evidence.t_ms)
    }

    /// Ends the rollout.
    ///
    /// # Errors
    /// [`Cannot`] when none is under way.
    pub fn abort(&self, shared: &state::State, reason: &str, by: &str) -> Result<(), Cannot> {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        let before = inner.book.nominal();
        let (now, abort) = (self.now_ms(), Command::Abort(reason.into()));
        let (state, actions) = controller::command(&inner.book.state, abort, None, now)?;
        inner.book.state = state;
        inner.book.retreat("canary_abort", None, before, self.env.now());
        let version = inner.book.rollout.as_ref().map_or("", |rollout| &rollout.version);
        shared.tell("canary", version, format!("aborted by {by}: {reason}"));
        self.carry_out(shared, inner, actions, before);
        self.keep(inner);
        Ok(())
    }

    /// When the rollout that is under way began, to the slot; `None` without one.
    pub(crate) fn began(&self) -> Option<UnixNanos> {
        let inner = self.inner.lock();
        let rollout = inner.book.rollout.as_ref()?;
        let Phase::Step(_) = inner.book.state.phase else { return None };
        // It is compared from the slot after the one it was started in.
        let millis = u64::try_from(Slot(rollout.began - 1).start_millis()).ok()?;
        Some(UnixNanos(millis.saturating_mul(1_000_000)))
    }

    /// Takes the rollout back for a reason that is not in its evidence; whether one was under way.
    pub(crate) fn take_back(&self, shared: &state::State, reason: &str) -> bool {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        let before = inner.book.nominal();
        let (now, back) = (self.now_ms(), Command::TakeBack(reason.into()));
        let Ok((state, actions)) = controller::command(&inner.book.state, back, None, now) else {
            return false;
        };
        inner.book.state = state;
        inner.book.retreat("canary_guard", None, before, self.env.now());
        self.carry_out(shared, inner, actions, before);
        self.keep(inner);
        true
    }

    /// Notes that everything was turned off. Gives what could not be made durable, as a sentence.
    fn note_kill(&self, shared: &state::State, reason: &str) -> Option<String> {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        let before = inner.book.nominal();
        let (now, kill) = (self.now_ms(), Command::Kill(reason.into()));
        if let Ok((state, actions)) = controller::command(&inner.book.state, kill, None, now) {
            inner.book.state = state;
            inner.book.kills += 1;
            inner.book.approvals.clear();
            inner.book.retreat("canary_kill_switch", None, before, self.env.now());
            self.carry_out(shared, inner, actions, before);
        }
        self.keep(inner);
        inner.trouble.clone()
    }

    /// Notes who agrees to a release, and gives who does now.
    fn agree(&self, people: &[String]) -> Result<Vec<String>, Cannot> {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        controller::command(&inner.book.state, Command::Release, None, self.now_ms())?;
        let agree = inner.book.approve(people, self.env.now());
        self.keep(inner);
        Ok(agree)
    }

    /// Notes that the switch was released.
    fn note_release(&self, shared: &state::State, agree: &[String]) -> Result<(), Cannot> {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        let now = self.now_ms();
        let (state, _) = controller::command(&inner.book.state, Command::Release, None, now)?;
        inner.book.state = state;
        inner.book.approvals.clear();
        shared.tell("canary", "", format!("kill switch released by {}", agree.join(" and ")));
        self.keep(inner);
        Ok(())
    }

    /// Whichever of book and levers knows of a kill, both do.
    pub(super) fn agree_on_kill(&self) {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        let killed = inner.book.state.phase == Phase::Killed;
        if self.stand().killed && !killed {
            let before = inner.book.nominal();
            let kill = Command::Kill("the kill switch was found on at the start".into());
            if let Ok((state, _)) =
                controller::command(&inner.book.state, kill, None, self.now_ms())
            {
                inner.book.state = state;
                inner.book.kills += 1;
                inner.book.retreat("canary_kill_switch", None, before, self.env.now());
                self.keep(inner);
            }
        }
    }

    #[allow(clippy::cast_possible_wrap)]
    fn now_ms(&self) -> i64 {
        (self.env.now().0 / 1_000_000) as i64
    }
}

/// Turns everything off. The levers come first and wait for nothing; what could not be made durable
/// is given back in sentences, and is off all the same.
pub async fn kill(shared: &Arc<state::State>, reason: String, by: &str) -> Vec<String> {
    let levers = shared.canary.levers.kill(&reason, by).await;
    let held = Arc::clone(shared);
    let noted = shared.env.blocking(move || held.canary.note_kill(&held, &reason)).await;
    let noted = noted.unwrap_or_else(|_| Some("the write was abandoned".into()));
    levers.err().map(|stuck| stuck.0).into_iter().chain(noted).collect()
}

/// Lets rollouts begin again once two people agree.
///
/// # Errors
/// [`Cannot`] when the switch is not on or does not move.
pub async fn release(shared: &Arc<state::State>, people: Vec<String>) -> Result<Released, Cannot> {
    let abandoned = |_| Stuck("the write was abandoned".into());
    let held = Arc::clone(shared);
    let agree =
        shared.env.blocking(move || held.canary.agree(&people)).await.map_err(abandoned)??;
    if agree.len() < APPROVALS_MIN {
        return Ok(Released::Waiting(agree));
    }
    shared.canary.levers.release().await?;
    let (held, all) = (Arc::clone(shared), agree.clone());
    let noted = shared.env.blocking(move || held.canary.note_release(&held, &all)).await;
    noted.map_err(abandoned)??;
    Ok(Released::Done(agree))
}

/// That the evidence is too old to act on.
fn stale(evidence: &Evidence, shared: &state::State) -> Option<Blocker> {
    #[allow(clippy::cast_possible_wrap)]
    let now_ms = (shared.now().0 / 1_000_000) as i64;
    let age_ms = now_ms.saturating_sub(evidence.t_ms).unsigned_abs();
    (age_ms > EVIDENCE_STALE.0 / 1_000_000).then(|| {
        let message = format!("nothing was compared for {} s", age_ms / 1_000);
        Blocker::new(BlockerCode::StaleEvidence, message)
    })
}
