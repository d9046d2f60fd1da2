//! Captures: the last minutes in fine steps, pulled from agents when something went wrong or someone
//! asks, and kept as files that other tools read.
//!
//! One is collected at a time: every connected agent that speaks it is asked, and it is whole when
//! each of those has answered; what one did not answer is named. Steps are a second look at counts
//! that deltas deliver, and are never merged.
//! Bounds: [`COLLECT_MAX`] of time and `CAPTURE_BYTES_MAX` of steps while collecting, `CAPTURES_MAX`
//! kept, of which the oldest gives way.

mod files;
mod grid;
mod heat;
mod parquet;
mod summary;
#[cfg(test)]
mod tests;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lens_model::limits::CAPTURE_BYTES_MAX;
use lens_model::{AgentName, InstanceName, Nanos, SeriesKey, Slice, UnixNanos};
use lens_service::env::Env;
use lens_service::shutdown::Shutdown;
use lens_wire::Captured;
use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::{Notify, broadcast};
use tracing::{info, warn};

use crate::state::State;
use crate::window::{Selection, Span};

pub use files::Format;
pub use summary::{AgentPart, Part, SlowRequest, Stand, Summary};

/// Longest agents are waited for.
pub const COLLECT_MAX: Nanos = Nanos::from_secs(20);

/// Least time a capture is open, so that every connection has asked its agent.
const COLLECT_MIN: Nanos = Nanos::from_millis(500);

/// Time between two looks at whether a capture is whole.
const LOOK: Duration = Duration::from_millis(100);

/// Least time between two captures of one slice that nobody asked for.
pub const AUTOMATIC_GAP: Nanos = Nanos::from_secs(600);

/// What is captured when nobody says how much.
pub const SPAN_DEFAULT: Nanos = Nanos::from_secs(600);

/// Questions that wait for a connection to take them; there is one at a time.
const ASKS_MAX: usize = 8;

/// What a capture asks every agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Its number: when it began, so that they are in order.
    pub id: u64,
    /// The time.
    pub span: Span,
    /// Whose counts.
    pub selection: Selection,
}

/// Why none was begun.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BeginError {
    /// One is being collected.
    #[error("capture {0:016x} is being collected: ask again when it is done, within 20 s")]
    Busy(u64),
    /// Nobody could answer.
    #[error("no agent is connected: a capture is of what agents hold")]
    NoAgents,
}

/// What one series of one node counted in one step.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    /// Its place in [`Open::names`].
    name: u32,
    start: UnixNanos,
    duration: Nanos,
    block: Box<[u8]>,
}

/// Whose step it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Name {
    key: SeriesKey,
    agent: AgentName,
    instance: InstanceName,
}

/// A capture being collected.
#[derive(Debug)]
struct Open {
    asked: Arc<Asked>,
    summary: Summary,
    /// By agent; there from when it was asked.
    parts: BTreeMap<AgentName, AgentPart>,
    names: Vec<Name>,
    name_at: HashMap<Name, u32>,
    steps: Vec<Step>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Inner {
    open: Option<Open>,
    /// The one whose files are being written.
    ending: Option<Summary>,
    /// Oldest first.
    kept: Vec<Summary>,
    /// When a slice was last captured without being asked.
    automatic: BTreeMap<Slice, UnixNanos>,
}

/// All captures.
#[derive(Debug)]
pub struct Captures {
    env: Env,
    dir: Option<PathBuf>,
    automatic: bool,
    asks: broadcast::Sender<Arc<Asked>>,
    inner: Mutex<Inner>,
    begun: Notify,
}

impl Captures {
    /// Without a directory: nothing outlives the process.
    pub fn in_memory(env: Env) -> Self {
        Self {
            env,
            dir: None,
            automatic: false,
            asks: broadcast::Sender::new(ASKS_MAX),
            inner: Mutex::default(),
            begun: Notify::new(),
        }
    }

    /// Those kept in a directory; `automatic` says whether violations begin one.
    pub fn open(env: Env, dir: PathBuf, automatic: bool) -> Self {
        let kept = files::load(&env, &dir);
        let own = Self { dir: Some(dir), automatic, ..Self::in_memory(env) };
        own.inner.lock().kept = kept;
        own
    }

    /// What connections hear of new captures by.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Asked>> {
        self.asks.subscribe()
    }

    /// Begins one.
    ///
    /// # Errors
    /// [`BeginError`].
    pub fn begin(
        &self,
        state: &State,
        span: Span,
        selection: Selection,
        by: &str,
        reason: &str,
    ) -> Result<Summary, BeginError> {
        if !state.agents.read().values().any(|agent| agent.connected) {
            return Err(BeginError::NoAgents);
        }
        let mut inner = self.inner.lock();
        let open = inner.open.as_ref().map(|open| open.asked.id);
        if let Some(id) = open.or(inner.ending.as_ref().map(|ending| ending.id)) {
            return Err(BeginError::Busy(id));
        }
        let now = self.env.now();
        let last = inner.kept.last().map_or(0, |kept| kept.id);
        let id = now.0.max(last + 1);
        let summary = Summary::new(id, now, span, &selection, by, reason);
        let asked = Arc::new(Asked { id, span, selection });
        inner.open = Some(Open {
            asked: Arc::clone(&asked),
            summary: summary.clone(),
            parts: BTreeMap::new(),
            names: Vec::new(),
            name_at: HashMap::new(),
            steps: Vec::new(),
            bytes: 0,
        });
        drop(inner);
        // Without a connection there is nobody to hear it, and it ends without an answer.
        drop(self.asks.send(asked));
        self.begun.notify_one();
        info!(id = %summary.name(), reason, "capture begun");
        Ok(summary)
    }

    /// Begins one of a slice that something is wrong with, unless that was done just now.
    pub fn violated(&self, state: &State, slice: &Slice, reason: &str) {
        let now = self.env.now();
        if !self.automatic {
            return;
        }
        {
            let mut inner = self.inner.lock();
            let recent = inner.automatic.get(slice);
            if recent.is_some_and(|at| now.since(*at) < AUTOMATIC_GAP) || inner.open.is_some() {
                return;
            }
            inner.automatic.retain(|_, at| now.since(*at) < AUTOMATIC_GAP);
            inner.automatic.insert(slice.clone(), now);
        }
        let span = Span { from: now.minus(SPAN_DEFAULT), to: now };
        let selection = Selection { slice: Some(slice.clone()), ..Selection::default() };
        if let Err(error) = self.begin(state, span, selection, "alert", reason) {
            info!(%error, "not captured");
        }
    }

    /// What is being asked now, for a connection that comes while it is.
    pub fn current(&self) -> Option<Arc<Asked>> {
        self.inner.lock().open.as_ref().map(|open| Arc::clone(&open.asked))
    }

    /// Whether an agent is to be asked, which it is once: what it gave before its connection ended
    /// is not asked for again.
    pub fn asks(&self, id: u64, agent: &AgentName) -> bool {
        let asked = self.with(id, |open| match open.parts.entry(agent.clone()) {
            Entry::Vacant(part) => {
                part.insert(AgentPart::new(agent));
                true
            }
            Entry::Occupied(_) => false,
        });
        asked == Some(true)
    }

    /// Notes that an agent's connection ended: what it did not answer it will not answer.
    pub fn left(&self, agent: &AgentName) {
        let mut inner = self.inner.lock();
        let part = inner.open.as_mut().and_then(|open| open.parts.get_mut(agent));
        if let Some(part) = part.filter(|part| part.state == Part::Waiting) {
            part.state = Part::Lost;
        }
    }

    /// Does something to the open capture, if it is this one. (WIRE-165: one that is over takes
    /// nothing more.)
    fn with<T>(&self, id: u64, act: impl FnOnce(&mut Open) -> T) -> Option<T> {
        let mut inner = self.inner.lock();
        inner.open.as_mut().filter(|open| open.asked.id == id).map(act)
    }

    /// Takes a part of an agent's answer; `name` says what each id means.
    pub fn take(
        &self,
        agent: &AgentName,
        frame: &Captured,
        name: impl Fn(lens_wire::SeriesId) -> Option<(SeriesKey, InstanceName)>,
    ) {
        self.with(frame.id, |open| open.take(agent, frame, name));
    }

    /// Whether the open one is whole, or waited long enough.
    fn due(&self, now: UnixNanos) -> bool {
        self.inner.lock().open.as_ref().is_some_and(|open| {
            let age = now.since(open.summary.begun);
            let whole = open.parts.values().all(|part| part.state != Part::Waiting);
            age >= COLLECT_MAX || (whole && age >= COLLECT_MIN && !open.parts.is_empty())
        })
    }

    /// Ends the open one: its files are written, and the oldest beyond the bound removed.
    fn finish(&self, state: &State) {
        let open = {
            let mut inner = self.inner.lock();
            let Some(open) = inner.open.take() else { return };
            // Shown as collected until its files are there.
            inner.ending = Some(open.so_far());
            open
        };
        let agents = state.agents.read();
        let without: Vec<AgentName> = agents
            .iter()
            .filter(|(name, agent)| agent.connected && !open.parts.contains_key(*name))
            .map(|(name, _)| name.clone())
            .collect();
        drop(agents);
        let slow = summary::slow(state, &open.asked);
        let (mut summary, files) = open.finish(&without, slow, self.env.now());
        if let Some(dir) = &self.dir {
            if let Err(error) = files::write(&self.env, dir, &mut summary, &files) {
                warn!(%error, dir = %dir.display(), "a capture cannot be kept");
                summary.failed(&format!("its files cannot be written: {error}"));
            }
        } else {
            summary.failed("captures.dir is not set: nothing is kept of it");
        }
        info!(id = %summary.name(), steps = summary.steps, "capture done");
        let message = format!("{} steps of {} agents", summary.steps, summary.agents.len());
        state.tell("capture", summary.name(), message);
        let mut inner = self.inner.lock();
        inner.ending = None;
        inner.kept.push(summary);
        while inner.kept.len() > lens_model::limits::CAPTURES_MAX {
            let oldest = inner.kept.remove(0);
            if let Some(dir) = &self.dir {
                files::remove(&self.env, dir, &oldest);
            }
        }
    }

    /// Every capture, newest first.
    pub fn all(&self) -> Vec<Summary> {
        let inner = self.inner.lock();
        let open = inner.open.iter().map(Open::so_far);
        open.chain(inner.ending.clone()).chain(inner.kept.iter().rev().cloned()).collect()
    }

    /// One of them.
    pub fn one(&self, id: u64) -> Option<Summary> {
        let inner = self.inner.lock();
        let open = inner.open.as_ref().filter(|open| open.asked.id == id).map(Open::so_far);
        open.or_else(|| inner.ending.iter().chain(&inner.kept).find(|one| one.id == id).cloned())
    }

    /// A file of one.
    ///
    /// # Errors
    /// The disk's; `NotFound` where it has none.
    pub fn file(&self, id: u64, format: Format) -> std::io::Result<Vec<u8>> {
        let dir = self.dir.as_ref().ok_or(std::io::ErrorKind::NotFound)?;
        files::read(&self.env, dir, id, format)
    }
}

impl Open {
    fn take(
        &mut self,
        agent: &AgentName,
        frame: &Captured,
        name: impl Fn(lens_wire::SeriesId) -> Option<(SeriesKey, InstanceName)>,
    ) {
        let part = self.parts.entry(agent.clone()).or_insert_with(|| AgentPart::new(agent));
        part.held_from = Some(frame.held_from.shifted(frame.offset_nanos));
        part.steps_left_out = frame.left_out;
        for entry in &frame.entries {
            let Some((key, instance)) = name(entry.series) else { continue };
            if self.bytes + entry.block.len() > CAPTURE_BYTES_MAX {
                self.summary.truncated = true;
                break;
            }
            let name = Name { key, agent: agent.clone(), instance };
            let next = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
            let at = *self.name_at.entry(name).or_insert_with_key(|name| {
                self.names.push(name.clone());
                next
            });
            part.steps += 1;
            self.bytes += entry.block.len() + size_of::<Step>();
            self.steps.push(Step {
                name: at,
                start: entry.start.shifted(frame.offset_nanos),
                duration: entry.duration,
                block: entry.block.clone(),
            });
        }
        if frame.last {
            part.state = Part::Answered;
        }
    }

    fn so_far(&self) -> Summary {
        let mut summary = self.summary.clone();
        summary.steps = self.steps.len() as u64;
        summary.agents = self.parts.values().cloned().collect();
        summary
    }

    /// What it came to, and its files.
    fn finish(
        mut self,
        without: &[AgentName],
        slow: Vec<SlowRequest>,
        now: UnixNanos,
    ) -> (Summary, files::Files) {
        for part in self.parts.values_mut().filter(|part| part.state == Part::Waiting) {
            part.state = Part::TooLate;
        }
        for agent in without {
            let unable = AgentPart { state: Part::CannotAnswer, ..AgentPart::new(agent) };
            self.parts.insert(agent.clone(), unable);
        }
        self.steps.sort_by_key(|step| (step.start, step.name));
        let mut summary = self.so_far();
        summary.stand = Stand::Done;
        summary.finished = Some(now);
        summary.series = self.names.len() as u64;
        summary.exemplars = slow;
        let files = files::Files::of(&self.names, &self.steps, &mut summary);
        (summary, files)
    }
}

/// Ends captures that are whole, until shutdown.
pub async fn run(state: Arc<State>, shutdown: Shutdown) {
    loop {
        tokio::select! {
            biased;
            () = shutdown.wait() => return,
            () = state.captures.begun.notified() => {}
        }
        while !state.captures.due(state.now()) {
            tokio::select! {
                biased;
                () = shutdown.wait() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        let own = Arc::clone(&state);
        // Sorts, compresses and writes files: off the threads that serve the network.
        if state.env.blocking(move || own.captures.finish(&own)).await.is_err() {
            return;
        }
    }
}
