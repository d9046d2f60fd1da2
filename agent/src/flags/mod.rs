//! What the control plane decided, as this agent believes, keeps and passes on.
//!
//! A document is taken when the control key held here signed it, it is meant for this agent, and its
//! generation is above the last one's. It is then durable, in every node's flag page, and told to
//! whoever routes requests on this host; what stops something is passed on before it is durable.
//! Promise: an older or equal generation is never taken, across restarts too; a kill switch outlives
//! agent and aggregator. When a document's time is up its canary ends, because nobody watches it any
//! more; its flags and its kill switch stay.
//! Refusal: another control key is not believed until someone removes the one held.

mod keep;
mod pages;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use lens_flags::{Assignment, Document, SignedDocument, VerifyError, VerifyingKey};
use lens_model::{TrustDomain, UnixNanos};
use lens_segment::FlagWords;
use lens_service::env::Env;
use lens_wire::{Applied, Trouble};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use keep::Keeper;
pub(crate) use keep::control_key;
pub use pages::Pages;

/// Time between two looks at what time has made of a document.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Held {
    /// The control key believed.
    key: Option<VerifyingKey>,
    signed: Option<SignedDocument>,
    document: Option<Document>,
    trouble: Option<(Trouble, String)>,
    /// What is held is not what is kept.
    undurable: bool,
}

/// What `/status` shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlagsStatus {
    /// The document in force, if one is.
    pub document: Option<Document>,
    /// The public control key believed, hex, if one is.
    pub key: Option<String>,
    /// Whether the key comes from the configuration.
    pub configured: bool,
    /// What is in force where.
    pub applied: Applied,
    /// What was wrong with the last document, if anything was.
    pub problem: Option<String>,
    /// Whether the document's time is up.
    pub expired: bool,
}

/// The word in force, for whoever acts on it.
#[derive(Debug)]
pub struct Flags {
    env: Env,
    domain: TrustDomain,
    keeper: Keeper,
    held: Mutex<Held>,
    /// Taken for as long as a document is worked on, so that they are taken one after the other.
    turn: Mutex<()>,
    /// Aggregator's clock minus ours, nanoseconds: a document's times are by the aggregator's.
    ahead: AtomicI64,
    pages: Arc<Pages>,
    assignment: watch::Sender<Assignment>,
    applied: watch::Sender<Applied>,
}

/// What a page says under a document at an instant.
fn page_words(document: &Document, now: UnixNanos) -> FlagWords {
    let assignment = document.assignment_at(now);
    FlagWords {
        generation: document.generation,
        bits: document.bits,
        killed: assignment.killed,
        salt: assignment.salt,
        share_ppm: assignment.effective().ppm(),
    }
}

fn trouble(error: &VerifyError) -> Trouble {
    match error {
        VerifyError::Key | VerifyError::KeyForm => Trouble::Key,
        VerifyError::Signature => Trouble::Signature,
        VerifyError::Scope { .. } => Trouble::Scope,
        _ => Trouble::Document,
    }
}

impl Flags {
    /// Takes up what is kept in a directory; `configured` is the only key believed, if given.
    /// Blocks.
    pub fn open(
        env: &Env,
        dir: &Path,
        domain: TrustDomain,
        configured: Option<VerifyingKey>,
    ) -> Self {
        let keeper = Keeper::new(env, dir, configured);
        let flags = Self {
            env: env.clone(),
            domain,
            keeper,
            held: Mutex::default(),
            turn: Mutex::default(),
            ahead: AtomicI64::new(0),
            pages: Arc::default(),
            assignment: watch::Sender::new(Assignment::default()),
            applied: watch::Sender::new(Applied::NOTHING),
        };
        flags.take_up();
        flags
    }

    /// Begins with what an earlier process kept.
    fn take_up(&self) {
        let key = match self.keeper.key() {
            Ok(key) => key,
            Err(error) => return self.note(Trouble::Storage, error),
        };
        self.held.lock().key = key;
        let Some(key) = key else { return };
        let signed = match self.keeper.document() {
            Ok(Some(signed)) => signed,
            Ok(None) => return,
            Err(error) => return self.note(Trouble::Storage, error),
        };
        match signed.open(&key, &self.domain) {
            Ok(document) => {
                info!(generation = document.generation, "flags taken up");
                let mut held = self.held.lock();
                (held.signed, held.document) = (Some(signed), Some(document));
                // What an earlier process read may have been in memory alone: it is kept anew.
                held.undurable = true;
            }
            Err(error) => return self.note(trouble(&error), error.to_string()),
        }
        self.apply(false);
    }

    /// Who is in the canary now, and each change of it. Nobody is before the control plane spoke.
    pub fn assignment(&self) -> watch::Receiver<Assignment> {
        self.assignment.subscribe()
    }

    /// What is in force, and each change of it.
    pub fn applied(&self) -> watch::Receiver<Applied> {
        self.applied.subscribe()
    }

    /// The flag pages it writes.
    pub fn pages(&self) -> Arc<Pages> {
        Arc::clone(&self.pages)
    }

    /// Notes how far the aggregator's clock is ahead of ours, nanoseconds.
    pub fn clock_is_ahead(&self, nanos: i64) {
        self.ahead.store(nanos, Ordering::Relaxed);
    }

    /// What the aggregator's clock says now, as far as that is known.
    fn now(&self) -> UnixNanos {
        let ahead = self.ahead.load(Ordering::Relaxed);
        UnixNanos(self.env.now().0.saturating_add_signed(ahead))
    }

    /// What `/status` shows.
    pub fn status(&self) -> FlagsStatus {
        let now = self.now();
        let held = self.held.lock();
        FlagsStatus {
            document: held.document.clone(),
            key: held.key.map(|key| keep::hex(key.as_bytes())),
            configured: self.keeper.is_configured(),
            applied: *self.applied.borrow(),
            problem: held.trouble.as_ref().map(|(_, why)| why.clone()),
            expired: held.document.as_ref().is_some_and(|document| document.is_expired(now)),
        }
    }

    /// Takes a document, or notes why not. Blocks for as long as the disk takes.
    pub fn take(&self, signed: &SignedDocument) {
        let _turn = self.turn.lock();
        if self.held.lock().signed.as_ref() == Some(signed) {
            // Told again, as after each connection; what was wrong since is over.
            self.held.lock().trouble = None;
            return self.tell();
        }
        match self.judge(signed) {
            Ok((key, document)) => self.accept(key, document, signed),
            Err((trouble, why)) => {
                self.note(trouble, why);
                self.tell();
            }
        }
    }

    /// The key to believe from now on and the document, or why not.
    fn judge(
        &self,
        signed: &SignedDocument,
    ) -> Result<(VerifyingKey, Document), (Trouble, String)> {
        let (key, last) = self.believed(signed)?;
        let opened = signed.open(&key, &self.domain);
        let document = opened.map_err(|error| (trouble(&error), error.to_string()))?;
        // WIRE-144
        if let Some(last) = last.filter(|last| document.generation <= *last) {
            let why = format!("its generation is {}, this agent has {last}", document.generation);
            return Err((Trouble::Older, why));
        }
        // Stopping never comes too late.
        if document.is_expired(self.now()) && !document.assignment.killed {
            return Err((Trouble::Expired, "its time was up when it came".into()));
        }
        Ok((key, document))
    }

    /// The key to hold a document against, and the last generation under it.
    fn believed(
        &self,
        signed: &SignedDocument,
    ) -> Result<(VerifyingKey, Option<u64>), (Trouble, String)> {
        let (key, last) = {
            let held = self.held.lock();
            (held.key, held.document.as_ref().map(|document| document.generation))
        };
        if let Some(key) = key.filter(|key| *key.as_bytes() == signed.key) {
            return Ok((key, last));
        }
        // Someone may have removed the key meanwhile, so that another may be believed.
        let kept = self.keeper.key().map_err(|why| (Trouble::Storage, why))?;
        if kept.is_some() {
            return Err((Trouble::Key, self.keeper.remedy()));
        }
        let fresh = signed.verifying_key().map_err(|error| (trouble(&error), error.to_string()))?;
        Ok((fresh, None))
    }

    fn accept(&self, key: VerifyingKey, document: Document, signed: &SignedDocument) {
        let stops = document.assignment.killed || document.emergency;
        let generation = document.generation;
        let fresh = self.held.lock().key != Some(key);
        if fresh {
            info!(key = keep::hex(key.as_bytes()), "control key taken on at first sight");
        }
        let hold = || {
            let mut held = self.held.lock();
            held.key = Some(key);
            (held.signed, held.document) = (Some(signed.clone()), Some(document));
            (held.undurable, held.trouble) = (true, None);
        };
        if stops {
            hold();
            self.apply(true);
            self.keep();
            self.tell();
        } else {
            let kept = self.keeper.keep(&key, signed);
            hold();
            self.kept(kept);
            self.apply(true);
        }
        info!(generation, stops, "flags applied");
    }

    /// Makes what is held durable, if it is not.
    fn keep(&self) {
        let held = {
            let held = self.held.lock();
            if !held.undurable {
                return;
            }
            held.key.zip(held.signed.clone())
        };
        if let Some((key, signed)) = held {
            self.kept(self.keeper.keep(&key, &signed));
        }
    }

    fn kept(&self, kept: Result<(), String>) {
        match kept {
            Ok(()) => {
                let mut held = self.held.lock();
                held.undurable = false;
                held.trouble.take_if(|(trouble, _)| *trouble == Trouble::Storage);
            }
            Err(why) => self.note(Trouble::Storage, why),
        }
    }

    fn note(&self, trouble: Trouble, why: String) {
        let mut held = self.held.lock();
        let news = held.trouble.as_ref().is_none_or(|(_, before)| *before != why);
        if news {
            warn!(why, "flags: trouble with a document");
        }
        held.trouble = Some((trouble, why));
    }

    /// Writes what holds now to every page and tells whoever routes. What was just received is
    /// written over anything; what was kept is not written over a page that has newer.
    fn apply(&self, received: bool) {
        let now = self.now();
        let Some(document) = self.held.lock().document.clone() else { return };
        self.pages.say(page_words(&document, now), received);
        let assignment = document.assignment_at(now);
        self.assignment.send_if_modified(|held| std::mem::replace(held, assignment) != assignment);
        self.tell();
    }

    /// Tells the aggregator what is in force, when that is news.
    fn tell(&self) {
        let (pages, failed) = self.pages.written();
        let applied = {
            let held = self.held.lock();
            Applied {
                generation: held.document.as_ref().map_or(0, |document| document.generation),
                pages,
                failed,
                trouble: held.trouble.as_ref().map_or(Trouble::None, |(trouble, _)| *trouble),
            }
        };
        self.applied.send_if_modified(|held| std::mem::replace(held, applied) != applied);
    }

    /// What time does: a document ends, a page comes or goes, a write is tried again.
    fn look(&self) {
        let _turn = self.turn.lock();
        self.keep();
        self.pages.mend();
        self.apply(false);
    }

    /// Keeps pages and routes true to the document for as long as it is polled.
    pub async fn run(self: Arc<Self>) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let flags = Arc::clone(&self);
            if self.env.blocking(move || flags.look()).await.is_err() {
                return;
            }
        }
    }
}
