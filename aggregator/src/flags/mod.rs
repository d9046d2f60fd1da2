//! Flags and assignment: what is decided, kept and told to every agent.
//!
//! [`Flags`] is the one door: each change is made durable under the next generation and only then
//! told. Stopping is the exception: kill and emergency are told first and made durable in the same
//! breath, because a slow disk must not keep a canary running.
//! Promise: generations told only grow, across restarts too; every word told is signed.
//! Refusal: a state that cannot be read keeps the aggregator from starting, because going on
//! without it could release a kill switch that someone engaged.

mod feed;
mod keep;
mod run;
#[cfg(test)]
mod tests;

use std::path::Path as FilePath;
use std::sync::Arc;

use lens_flags::{
    Control, ControlError, Document, Path, PercentError, Rollback, Sample, Scope, Share,
    SignedDocument, SigningKey, Value, VerifyingKey,
};
use lens_model::{Flag, Nanos, UnixNanos};
use lens_service::env::{Abandoned, Env};
use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::watch;

pub use feed::feed;
pub use keep::KeepError;
use keep::Keeper;
pub use run::run;

/// How long a document holds without a newer one: then nobody watches the canary, so nobody is in it.
pub const DOCUMENT_LIFE: Nanos = Nanos::from_secs(15 * 60);

/// Generations passed over at a start: more than can have been told without being durable, which are
/// one kill and one emergency.
const START_SKIP: u64 = 4;

/// Why a change was not made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FlagsError {
    /// It makes no sense.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A share that is none.
    #[error(transparent)]
    Percent(#[from] PercentError),
    /// It could not be made durable.
    #[error("not kept, so not done: {0}")]
    Keep(#[from] KeepError),
    /// The job that makes it durable was abandoned.
    #[error("not done: the write was abandoned")]
    Abandoned(#[from] Abandoned),
}

/// What a change came to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Told {
    /// The generation that carries it.
    pub generation: u64,
    /// Whether it changed anything.
    pub changed: bool,
    /// Why it is not durable yet, where that is so: it holds, and is tried again until it is.
    pub undurable: Option<String>,
}

/// Everything decided, as of one generation.
#[derive(Clone, Debug)]
pub struct Status {
    /// The generation.
    pub generation: u64,
    /// Everything decided.
    pub control: Control,
    /// What was told.
    pub document: Document,
    /// Why it is not durable, where that is so.
    pub undurable: Option<String>,
}

#[derive(Clone, Debug)]
struct Held {
    generation: u64,
    control: Control,
    /// Why what is held is not what is kept, where that is so.
    undurable: Option<String>,
    document: Document,
}

struct Inner {
    env: Env,
    scope: Scope,
    key: SigningKey,
    held: Mutex<Held>,
    /// Taken for as long as something is made durable; never while `held` is.
    keeper: Mutex<Keeper>,
    told: watch::Sender<Arc<SignedDocument>>,
}

/// The service; cheap to clone.
#[derive(Clone)]
pub struct Flags(Arc<Inner>);

impl std::fmt::Debug for Flags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let held = self.0.held.lock();
        f.debug_struct("Flags").field("generation", &held.generation).finish_non_exhaustive()
    }
}

/// What a control comes to, for nodes.
fn document(control: &Control, generation: u64, scope: Scope, now: UnixNanos) -> Document {
    Document {
        generation,
        issued_at: now,
        expires_at: UnixNanos(now.0.saturating_add(DOCUMENT_LIFE.0)),
        scope,
        assignment: control.assignment(now),
        version: control.rollout().map(|rollout| rollout.version.clone()).unwrap_or_default(),
        bits: control.bits(now),
        emergency: control.emergency().is_some(),
    }
}

impl Flags {
    /// Opens what is kept in a directory, made with a fresh key if it is not there. Blocks.
    ///
    /// # Errors
    /// [`KeepError`] names the file at fault.
    pub fn open(env: &Env, dir: &FilePath, scope: Scope) -> Result<Self, KeepError> {
        let (keeper, key, kept) = Keeper::open(env, dir)?;
        let opened = Self::begin(env, scope, key, keeper, kept.control, kept.generation);
        // What was just begun is durable before anyone is told of it.
        let inner = &opened.0;
        let (generation, control) = inner.now();
        inner.keeper.lock().keep(generation, &control)?;
        Ok(opened)
    }

    /// Keeps nothing, under a key that no agent has reason to believe: until [`Flags::open`] gave
    /// the real one, and for tests.
    pub fn in_memory(env: &Env) -> Self {
        let key = SigningKey::from_bytes(&[0; 32]);
        Self::begin(env, Scope::Fleet, key, Keeper::nothing(), Control::default(), 0)
    }

    fn begin(
        env: &Env,
        scope: Scope,
        key: SigningKey,
        keeper: Keeper,
        control: Control,
        kept: u64,
    ) -> Self {
        let generation = if kept == 0 { 1 } else { kept.saturating_add(START_SKIP) };
        let document = document(&control, generation, scope.clone(), env.now());
        let told = watch::Sender::new(Arc::new(SignedDocument::sign(&document, &key)));
        let held = Mutex::new(Held { generation, control, undurable: None, document });
        Self(Arc::new(Inner {
            env: env.clone(),
            scope,
            key,
            held,
            keeper: Mutex::new(keeper),
            told,
        }))
    }

    /// The key that agents verify with.
    pub fn public_key(&self) -> VerifyingKey {
        self.0.key.verifying_key()
    }

    /// What was told last, and each word from now on.
    pub fn subscribe(&self) -> watch::Receiver<Arc<SignedDocument>> {
        self.0.told.subscribe()
    }

    /// Everything decided.
    pub fn status(&self) -> Status {
        let Held { generation, control, undurable, document } = self.0.held.lock().clone();
        Status { generation, control, document, undurable }
    }

    /// Rollbacks and kills, oldest first, at most [`lens_flags::HISTORY_MAX`].
    pub fn history(&self) -> Vec<Rollback> {
        self.0.held.lock().control.history().iter().cloned().collect()
    }

    /// Gives a share of everyone to a version. The same again changes nothing.
    ///
    /// # Errors
    /// [`FlagsError`]; nothing was told then.
    pub async fn set_canary(
        &self,
        version: &str,
        salt: u32,
        share_percent: f64,
    ) -> Result<Told, FlagsError> {
        let (version, share) = (version.to_owned(), Share::percent(share_percent)?);
        self.change(move |control, _| control.set_canary(&version, salt, share)).await
    }

    /// Ends a rollout without a kill: nobody is in the canary.
    ///
    /// # Errors
    /// [`FlagsError`]; nothing was told then.
    pub async fn end_canary(&self) -> Result<Told, FlagsError> {
        self.change(|control, _| {
            control.end_canary();
            Ok(())
        })
        .await
    }

    /// Turns whole stages on or off.
    ///
    /// # Errors
    /// [`FlagsError`]; nothing was told then.
    pub async fn set_stage_flags(
        &self,
        native_scanner: bool,
        stage_b: bool,
        stage_c: bool,
    ) -> Result<Told, FlagsError> {
        self.change(move |control, _| {
            control.set_stage_flags(native_scanner, stage_b, stage_c);
            Ok(())
        })
        .await
    }

    /// Makes a setting hold a value, until `expires_at` if given.
    ///
    /// # Errors
    /// [`FlagsError`]; nothing was told then.
    pub async fn set_override(
        &self,
        path: Path,
        value: Value,
        reason: &str,
        expires_at: Option<UnixNanos>,
        by: &str,
    ) -> Result<Told, FlagsError> {
        let (reason, by) = (reason.to_owned(), by.to_owned());
        if path == Path::EmergencyDisable && value.is_on() {
            // Checked as any other before it acts first.
            let mut probe = self.0.held.lock().control.clone();
            probe.set_override(path, value, &reason, expires_at, &by, self.0.env.now())?;
            return Ok(self.emergency_disable(&reason).await);
        }
        self.change(move |control, now| {
            control.set_override(path, value.clone(), &reason, expires_at, &by, now)
        })
        .await
    }

    /// Lets a setting hold its own value again.
    ///
    /// # Errors
    /// [`FlagsError`]; nothing was told then.
    pub async fn remove_override(&self, path: Path) -> Result<Told, FlagsError> {
        self.change(move |control, _| {
            control.remove_override(path);
            Ok(())
        })
        .await
    }

    /// Takes what was measured of a flag while it was on; gives the rollback it led to, if any.
    /// What changes no flag is neither told nor made durable by itself.
    ///
    /// # Errors
    /// [`FlagsError`]; nothing was told then.
    pub async fn record(&self, flag: Flag, sample: Sample) -> Result<Option<Rollback>, FlagsError> {
        if self.0.measured_quietly(flag, sample) {
            return Ok(None);
        }
        let (give, take) = std::sync::mpsc::channel();
        let told = self.change(move |control, now| {
            // Each try says what it came to; the last one counts.
            drop(give.send(control.record(flag, sample, now)));
            Ok(())
        });
        drop(told.await?);
        Ok(take.try_iter().last().flatten())
    }

    /// Engages the kill switch: told at once, made durable in the same breath.
    pub async fn kill(&self, reason: &str, by: &str) -> Told {
        let (reason, by) = (reason.to_owned(), by.to_owned());
        self.act_first(move |control, now| {
            control.kill(&reason, &by, now);
        })
        .await
    }

    /// Releases the kill switch; the canary's share stays none until it is given anew.
    ///
    /// # Errors
    /// [`FlagsError`]; it is still engaged then.
    pub async fn release(&self) -> Result<Told, FlagsError> {
        self.change(|control, _| {
            control.release();
            Ok(())
        })
        .await
    }

    /// Turns every flag off: told at once, made durable in the same breath.
    pub async fn emergency_disable(&self, reason: &str) -> Told {
        let reason = reason.to_owned();
        self.act_first(move |control, now| {
            if control.emergency().is_none() {
                control.emergency_disable(&reason, now);
            }
        })
        .await
    }

    /// Ends an emergency.
    ///
    /// # Errors
    /// [`FlagsError`]; it still holds then.
    pub async fn clear_emergency(&self) -> Result<Told, FlagsError> {
        self.change(|control, _| {
            control.clear_emergency();
            Ok(())
        })
        .await
    }

    /// Makes a change durable, then tells it.
    async fn change(
        &self,
        change: impl Fn(&mut Control, UnixNanos) -> Result<(), ControlError> + Send + 'static,
    ) -> Result<Told, FlagsError> {
        let inner = Arc::clone(&self.0);
        // One job from beginning to end, so that a caller who stops waiting leaves nothing half done.
        self.0.env.blocking(move || inner.change(&change, false)).await?
    }

    /// Tells a change, then makes it durable.
    async fn act_first(&self, change: impl FnOnce(&mut Control, UnixNanos)) -> Told {
        let changed = self.0.at_once(change);
        let inner = Arc::clone(&self.0);
        let kept = self.0.env.blocking(move || inner.keep_up()).await;
        let held = self.0.held.lock();
        let undurable = match kept {
            Ok(()) => held.undurable.clone(),
            Err(error) => Some(error.to_string()),
        };
        Told { generation: held.generation, changed, undurable }
    }
}

impl Inner {
    fn now(&self) -> (u64, Control) {
        let held = self.held.lock();
        (held.generation, held.control.clone())
    }

    /// Makes a change durable, then tells it. One that changes nothing is told only if `anyway`.
    fn change(
        &self,
        change: &dyn Fn(&mut Control, UnixNanos) -> Result<(), ControlError>,
        anyway: bool,
    ) -> Result<Told, FlagsError> {
        let mut keeper = self.keeper.lock();
        loop {
            let (base, before) = self.now();
            let (now, mut control) = (self.env.now(), before.clone());
            change(&mut control, now)?;
            let changed = control != before;
            if !changed && !anyway {
                let undurable = self.held.lock().undurable.clone();
                return Ok(Told { generation: base, changed, undurable });
            }
            keeper.keep(base + 1, &control)?;
            let mut held = self.held.lock();
            // Someone may have stopped everything meanwhile: then this change is made on top of it.
            if held.generation == base {
                held.undurable = None;
                self.tell(&mut held, control, now);
                return Ok(Told { generation: base + 1, changed, undurable: None });
            }
        }
    }

    /// Takes what was measured, if that changes no flag.
    fn measured_quietly(&self, flag: Flag, sample: Sample) -> bool {
        let now = self.env.now();
        let mut held = self.held.lock();
        let mut control = held.control.clone();
        let rolled_back = control.record(flag, sample, now).is_some();
        if rolled_back || control.bits(now) != held.document.bits {
            return false;
        }
        held.control = control;
        true
    }

    /// Tells a change that is not durable yet; whether it changed anything.
    fn at_once(&self, change: impl FnOnce(&mut Control, UnixNanos)) -> bool {
        let now = self.env.now();
        let mut held = self.held.lock();
        let mut control = held.control.clone();
        change(&mut control, now);
        if control == held.control {
            return false;
        }
        held.undurable = Some("it is being written".into());
        self.tell(&mut held, control, now);
        true
    }

    /// Makes what is held durable, if it is not.
    fn keep_up(&self) {
        let mut keeper = self.keeper.lock();
        let (generation, control) = {
            let held = self.held.lock();
            if held.undurable.is_none() {
                return;
            }
            (held.generation, held.control.clone())
        };
        let kept = keeper.keep(generation, &control);
        let mut held = self.held.lock();
        if held.generation == generation {
            held.undurable = kept.err().map(|error| error.to_string());
        }
    }

    /// Whether time has made something else of what was told.
    fn is_stale(&self) -> bool {
        let now = self.env.now();
        let held = self.held.lock();
        let due = held.control.overrides(now).count() != held.control.overrides_kept();
        due || held.document.bits != held.control.bits(now)
    }

    /// Tells what holds now under a new generation.
    fn renew(&self) -> Result<Told, FlagsError> {
        let expire = |control: &mut Control, now| {
            control.expire(now);
            Ok(())
        };
        self.change(&expire, true)
    }

    fn tell(&self, held: &mut Held, control: Control, now: UnixNanos) {
        held.generation += 1;
        held.document = document(&control, held.generation, self.scope.clone(), now);
        held.control = control;
        // Under the lock, so that words are told in order.
        self.told.send_replace(Arc::new(SignedDocument::sign(&held.document, &self.key)));
    }
}
