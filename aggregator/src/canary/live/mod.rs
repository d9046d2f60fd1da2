//! The controller on live data: fed the slots the standing judge is fed, moving levers by what they
//! show.
//!
//! Time is that of the slots, so that a replay of the windows decides the same at the same place. One
//! lock around the rollout; whoever takes it does so off the threads that serve the network.
//! Promise: what a slot decides is durable with the windows it rests on before a lever moves or anyone
//! is told ([`settle`]); after a restart the comparison goes on with the next slot, bit for bit. While
//! the disk refuses, harm still rolls back and nothing is promoted.
//! Bounds: [`TAPE_BYTES_MAX`] of windows, [`DECISIONS_MAX`] decisions.

mod acts;
mod outside;
mod settle;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use lens_model::UnixNanos;
use lens_model::limits::WINDOW_SLOTS_MAX;
use lens_service::env::Env;
use parking_lot::Mutex;
use serde::Serialize;
use tracing::{error, warn};

use super::book::{Book, Rollout};
use super::config::Config;
use super::controller::{Action, Phase, decide};
use super::decision::{Decision, Word};
use super::levers::Levers;
use super::store::{Batch, Store, StoreError};
use super::tape;
use crate::judge::canary::{Comparison, Evidence, Plan};
use crate::judge::slot::{SLOT, Slot, SlotWindows};
use crate::state;

pub use acts::{Cannot, Released, kill, release};
pub use settle::{run, settle};

/// Windows kept of all rollouts together, bytes.
pub const TAPE_BYTES_MAX: u64 = 256 << 20;

/// Decisions kept.
pub const DECISIONS_MAX: u64 = 1_000;

/// Slots between two times the comparison is kept whole; between them its windows are enough.
const WHOLE_EVERY: u32 = 12;

/// Changes kept for a disk that refuses; past them windows are let go.
const PENDING_MAX: usize = 2_000;

/// What is kept of a decision before the decision itself, which comes last, under `decision`.
#[derive(Serialize)]
struct Kept<'a> {
    id: u64,
    t: String,
    word: Word,
    rollout: u64,
    version: &'a str,
    salt: &'a str,
    /// The slot the rollout began with: 0 in a replay.
    began_ms: i64,
    software: &'static str,
    /// BLAKE3 of `decision` as it stands here; what the audit record holds.
    digest: String,
    /// Whether a replay of the windows decides the same, and if not, why.
    replay: Option<&'a str>,
    plan: &'a Plan,
}

/// What stands between the two. Inside a text its quotes would be escaped, so it stands nowhere else.
const SEAM: &str = ",\"decision\":";

/// The decision of its kept form, byte for byte what its digest is of.
pub(super) fn decision_of(kept: &[u8]) -> Option<&[u8]> {
    let text = std::str::from_utf8(kept).ok()?;
    Some(text.split_once(SEAM)?.1.strip_suffix('}')?.as_bytes())
}

/// What is behind the lock.
#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) book: Book,
    pub(super) comparison: Option<Comparison>,
    /// What was known after the last slot.
    pub(super) evidence: Option<Evidence>,
    /// The newest decisions: all there are without a store.
    recent: VecDeque<(u64, Vec<u8>)>,
    /// Changes that are not durable yet.
    pending: Batch,
    /// Slots since the comparison was kept whole.
    unsaved: u32,
    /// The last decision that is in the audit record.
    audited: u64,
    /// Why nothing can be written down.
    pub(super) trouble: Option<String>,
    /// Why the levers do not stand as they are wanted.
    pub(super) stuck: Option<String>,
}

/// The controller.
#[derive(Debug)]
pub struct Live {
    /// What rollouts are held to.
    pub config: Config,
    env: Env,
    levers: Arc<dyn Levers>,
    inner: Mutex<Inner>,
    store: Store,
    settling: tokio::sync::Mutex<()>,
    /// Rung when something was decided.
    bell: tokio::sync::Notify,
}

impl Live {
    /// A controller that takes up what its directory holds. Blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError`] when the directory or what is in it cannot be used.
    pub fn open(env: Env, config: Config, levers: Arc<dyn Levers>) -> Result<Self, StoreError> {
        let dir: Option<&Path> = config.dir.as_deref();
        let store = dir.map_or_else(|| Ok(Store::nothing()), |dir| Store::open(&env, dir))?;
        let inner = Mutex::new(Inner::load(&store, env.now())?);
        let (settling, bell) = (tokio::sync::Mutex::default(), tokio::sync::Notify::new());
        let live = Self { config, env, levers, inner, store, settling, bell };
        live.agree_on_kill();
        Ok(live)
    }

    /// A controller that keeps nothing.
    pub fn unconfigured(env: Env, levers: Arc<dyn Levers>) -> Self {
        let config = Config::default();
        let (inner, store) = (Mutex::default(), Store::nothing());
        let (settling, bell) = (tokio::sync::Mutex::default(), tokio::sync::Notify::new());
        Self { config, env, levers, inner, store, settling, bell }
    }

    /// Whether a rollout survives a restart.
    pub const fn durable(&self) -> bool {
        self.store.durable()
    }

    /// How the levers stand.
    pub fn stand(&self) -> super::levers::Stand {
        self.levers.stand(self.env.now())
    }

    /// Takes in a slot, as the standing judge does. One that was taken in before changes nothing.
    pub fn slot(&self, shared: &state::State, windows: &SlotWindows) {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        if !matches!(inner.book.state.phase, Phase::Step(_)) {
            return;
        }
        let (Some(comparison), Some(rollout)) = (&mut inner.comparison, &mut inner.book.rollout)
        else {
            return;
        };
        if comparison.observe(windows, &[]).is_err() {
            return;
        }
        inner.unsaved += 1;
        keep_slot(rollout, windows, &mut inner.pending);
        if windows.slot.0 >= rollout.began {
            let evidence = comparison.evidence();
            self.judge(shared, inner, evidence);
        }
        let decided = inner.book.decisions;
        self.keep(inner);
        if decided > inner.audited {
            self.bell.notify_one();
        }
    }

    /// What the evidence makes of the rollout.
    fn judge(&self, shared: &state::State, inner: &mut Inner, mut evidence: Evidence) {
        let at = evidence.t_ms;
        let before = inner.book.nominal();
        let outside = outside::blockers(shared, self, inner);
        if !outside.is_empty() && !evidence.shows_harm() {
            let alone = inner.book.state.blockers(&evidence, at).is_empty();
            if let (true, Some(rollout)) = (alone, &mut inner.book.rollout) {
                rollout.aside.get_or_insert_with(|| outside[0].message.clone());
            }
        }
        evidence.blockers.extend(outside);
        tell_hosts(shared, inner.evidence.as_ref(), &evidence);
        let (state, actions) = decide(inner.book.state.clone(), &evidence, at);
        inner.book.state = state;
        inner.evidence = Some(evidence);
        self.carry_out(shared, inner, actions, before);
    }

    /// Notes what is to be kept and told. Levers are moved by [`settle`].
    fn carry_out(
        &self,
        shared: &state::State,
        inner: &mut Inner,
        actions: Vec<Action>,
        before: f64,
    ) {
        let version = inner.book.rollout.as_ref().map_or_else(String::new, |r| r.version.clone());
        for action in actions {
            match action {
                Action::SetShare(_) => {}
                Action::BeginStep(step) => {
                    if let Some(comparison) = &mut inner.comparison {
                        comparison.begin_step(step);
                        inner.unsaved = WHOLE_EVERY;
                    }
                }
                Action::Alert(what) => shared.tell("canary", &version, what),
                Action::Decided(decision) => {
                    let number = self.keep_decision(inner, &decision);
                    if decision.word == Word::Rollback {
                        inner.book.rollbacks += 1;
                        inner.book.retreat("canary_rollback", Some(number), before, self.env.now());
                    }
                    let message = format!("{}: {}", decision.word.as_str(), decision.reason);
                    shared.tell("canary", &version, message);
                }
            }
        }
    }

    fn keep_decision(&self, inner: &mut Inner, decision: &Decision) -> u64 {
        let number = inner.book.decisions + 1;
        inner.book.decisions = number;
        let json = serde_json::to_string(decision);
        let (Ok(json), Some(rollout)) = (json, &inner.book.rollout) else { return number };
        let kept = Kept {
            id: number,
            t: lens_service::time::rfc3339(self.env.now()),
            word: decision.word,
            rollout: rollout.number,
            version: &rollout.version,
            salt: &rollout.salt,
            began_ms: rollout.first().start_millis(),
            software: env!("CARGO_PKG_VERSION"),
            digest: blake3::hash(json.as_bytes()).to_hex().to_string(),
            replay: inner.why_no_replay(self.durable()),
            plan: &inner.book.state.plan,
        };
        let head = serde_json::to_string(&kept).unwrap_or_default();
        let head = head.strip_suffix('}').unwrap_or(&head);
        let bytes = format!("{head}{SEAM}{json}}}").into_bytes();
        inner.pending.decide(number, bytes.clone());
        if let Some(past) = number.checked_sub(DECISIONS_MAX) {
            inner.pending.forget_decision(past);
        }
        if !self.durable() {
            inner.recent.push_front((number, bytes));
            inner.recent.truncate(usize::try_from(DECISIONS_MAX).unwrap_or(0));
        }
        number
    }

    /// Makes everything pending durable, the book with it.
    fn keep(&self, inner: &mut Inner) {
        if !self.durable() {
            inner.pending = Batch::default();
            return;
        }
        if inner.unsaved >= WHOLE_EVERY
            && let Some(comparison) = &inner.comparison
        {
            inner.pending.put("comparison", comparison);
            inner.unsaved = 0;
        }
        inner.bound_tapes();
        inner.pending.put("book", &inner.book);
        match self.store.commit(&inner.pending) {
            Ok(()) => {
                inner.pending = Batch::default();
                inner.trouble = None;
            }
            Err(failed) => {
                error!(%failed, "the canary goes on in memory and is not promoted");
                inner.trouble = Some(failed.to_string());
                if inner.pending.len() > PENDING_MAX {
                    inner.pending.let_slots_go();
                    inner.unsaved = WHOLE_EVERY;
                    if let Some(rollout) = &mut inner.book.rollout {
                        rollout.cut = true;
                    }
                }
            }
        }
    }

    /// Decisions as they were written, the newest first, from before a number.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn decisions(&self, before: u64, most: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        if self.durable() {
            return self.store.decisions(before, most);
        }
        let inner = self.inner.lock();
        let older = inner.recent.iter().filter(|(number, _)| *number < before);
        Ok(older.take(most).map(|(_, bytes)| bytes.clone()).collect())
    }

    /// Some slots a rollout was judged by, from one on, in order; none at the end.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn taped(&self, rollout: u64, from: Slot) -> Result<Vec<SlotWindows>, StoreError> {
        let slots = self.store.slots(rollout, from)?;
        Ok(slots.iter().filter_map(|(slot, bytes)| tape::decode(*slot, bytes)).collect())
    }
}

fn keep_slot(rollout: &mut Rollout, windows: &SlotWindows, pending: &mut Batch) {
    let bytes = tape::encode(windows);
    rollout.taped += bytes.len() as u64;
    pending.tape(rollout.number, windows.slot, bytes);
}

/// Says which hosts were found to differ since the last slot.
fn tell_hosts(shared: &state::State, before: Option<&Evidence>, now: &Evidence) {
    let told = before.map_or(0, |evidence| evidence.slow_hosts.len());
    for slow in now.slow_hosts.iter().skip(told) {
        let message = format!("slower than the other hosts of the {} at {}", slow.arm, slow.stage);
        shared.tell("canary", slow.host.as_ref(), message);
    }
    let carries = |evidence: &Evidence| {
        let left = evidence.harm.without_host.as_ref();
        left.filter(|_| evidence.harm_rests_on_one_host()).map(|left| left.hosts.clone())
    };
    if let Some(hosts) =
        carries(now).filter(|hosts| before.and_then(carries) != Some(hosts.clone()))
    {
        shared.tell("canary", hosts.join(", "), "carries the canary's harm alone");
    }
}

impl Inner {
    fn load(store: &Store, now: UnixNanos) -> Result<Self, StoreError> {
        let Some(book) = store.single::<Book>("book")? else { return Ok(Self::default()) };
        let audited = store.single("audited")?.unwrap_or(0);
        let mut inner = Self { book, audited, ..Self::default() };
        let (Phase::Step(step), Some(rollout)) = (inner.book.state.phase, &mut inner.book.rollout)
        else {
            return Ok(inner);
        };
        match store.single::<Comparison>("comparison") {
            Ok(Some(mut comparison)) => {
                catch_up(store, rollout.number, &mut comparison)?;
                inner.evidence = Some(comparison.evidence());
                inner.comparison = Some(comparison);
            }
            // Another version may have written it: the step is shown again, from nothing.
            unread => {
                let why = unread.err().map_or_else(|| "it is missing".into(), |e| e.to_string());
                error!(why, "the comparison begins anew");
                rollout.aside = Some("the comparison was begun anew after a restart".into());
                let fresh = Comparison::new(inner.book.state.plan.clone()).ok();
                inner.comparison = fresh.map(|mut fresh| {
                    fresh.begin(slot_of(now).next());
                    fresh.begin_step(step);
                    fresh
                });
                inner.unsaved = WHOLE_EVERY;
            }
        }
        Ok(inner)
    }

    /// Why a replay of the rollout's windows may decide otherwise; `None` when it decides the same.
    fn why_no_replay(&self, durable: bool) -> Option<&str> {
        let rollout = self.book.rollout.as_ref()?;
        if !durable {
            return Some("windows are not kept: canary.dir is not set");
        }
        if rollout.cut {
            return Some("the first windows were let go: they were more than is kept");
        }
        rollout.aside.as_deref()
    }

    /// Lets the oldest windows go when there are too many.
    fn bound_tapes(&mut self) {
        let Some(rollout) = &mut self.book.rollout else { return };
        let before: u64 = self.book.tapes.iter().map(|(_, bytes)| bytes).sum();
        let mut held = before + rollout.taped;
        while held > TAPE_BYTES_MAX {
            match self.book.tapes.pop_front() {
                Some((number, bytes)) => {
                    self.pending.forget_slots(number, Slot(i64::MAX));
                    held -= bytes;
                }
                None => {
                    // Only what a restart needs is kept from now on.
                    rollout.cut = true;
                    if self.unsaved == 0
                        && let Some(next) = self.comparison.as_ref().and_then(Comparison::next_slot)
                    {
                        self.pending.forget_slots(rollout.number, next);
                        rollout.taped = 0;
                    }
                    return;
                }
            }
        }
    }
}

/// Gives a comparison the windows it was given since it was last kept whole.
fn catch_up(store: &Store, rollout: u64, comparison: &mut Comparison) -> Result<(), StoreError> {
    let mut from = comparison.next_slot().unwrap_or(Slot(i64::MIN));
    loop {
        let slots = store.slots(rollout, from)?;
        let Some((last, _)) = slots.last() else { return Ok(()) };
        from = last.next();
        for (slot, bytes) in &slots {
            match tape::decode(*slot, bytes).map(|windows| comparison.observe(&windows, &[])) {
                Some(Ok(())) => {}
                _ => warn!(slot = slot.0, "a kept window is left out"),
            }
        }
    }
}

/// The slot an instant lies in.
#[allow(clippy::cast_possible_wrap)]
pub(super) const fn slot_of(now: UnixNanos) -> Slot {
    Slot((now.0 / SLOT.0) as i64)
}

/// Slots of history a comparison begins with.
const HISTORY_SLOTS: i64 = WINDOW_SLOTS_MAX as i64;
