//! What one aggregator knows, shared by its listener, its API and its page.
//!
//! One lock around the windows and one around the agents, both held for microseconds and never
//! across an await. Everything that changes is counted here under the name it is exported by.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use lens_model::limits::JUDGE_SLOTS_MAX;
use lens_model::{AgentName, Incarnation, Nanos, Sequence, Slice, UnixNanos};
use lens_service::env::Env;
use lens_wire::Applied;
use parking_lot::RwLock;
use serde::Serialize;
use tokio::sync::broadcast;
use tracing::warn;

use crate::alerts::Desk;
use crate::canary::Live;
use crate::capture::Captures;
use crate::exemplars::Exemplars;
use crate::export::remote_write::Tally;
use crate::flags::Flags;
use crate::guards::Guards;
use crate::judge::slot::{Slot, SlotWindows};
use crate::judge::standing::Standing;
use crate::reload::Renew;
use crate::security::Security;
use crate::store::{Committed, Coverage, History, KnownAgent, Loaded, Store, StoreError};
use crate::window::Windows;

/// Slots after its end at which a slot is taken as whole: 10 s, twice the slowest usual harvest.
const WATERMARK_SLOTS: u64 = 2;

/// How the aggregator judges and shows; each from the configuration key of the same name.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Slices named in the configuration; shown even when nothing was ever fed.
    pub slices_known: Vec<Slice>,
    /// Slices taken on without being told of them.
    pub slices_automatic_max: usize,
    /// Width of the window that tiles, tables, verdicts and gauges speak of.
    pub summary_window: Nanos,
    /// Silence after which a series is stale.
    pub stale_after: Nanos,
    /// Largest p99/p95 that is not a violation.
    pub tail_ratio_max: f64,
    /// p99 below which no ratio is judged: a microsecond tail harms nobody.
    pub tail_floor: Nanos,
    /// Stage A's limits, then B's and C's p95.
    pub slo_a_p95: Nanos,
    /// Stage A's p99 limit.
    pub slo_a_p99: Nanos,
    /// Stage B's p95 limit.
    pub slo_b_p95: Nanos,
    /// Stage C's p95 limit.
    pub slo_c_p95: Nanos,
    /// The whole query's p95 limit, where one is promised.
    pub slo_e2e_p95: Option<Nanos>,
    /// How much slower than the baseline's a canary's whole query may be, as a share of 1.
    pub e2e_regression_max: f64,
    /// Limits of single slices, in place of the ones above.
    pub slices: BTreeMap<Slice, SliceRules>,
    /// Days in which one stream just at its limit may raise one false alarm.
    pub false_alarm_days: f64,
    /// Narrowest window a rule is judged on.
    pub window_min: Nanos,
}

/// How strictly tails are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A change under review.
    Pr,
    /// Every night, and in production.
    Nightly,
    /// A release candidate.
    Release,
}

impl Mode {
    /// The mode of this name.
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "pr" => Some(Self::Pr),
            "nightly" => Some(Self::Nightly),
            "release" => Some(Self::Release),
            _ => None,
        }
    }

    /// Largest p99/p95 that is not a violation.
    pub const fn tail_ratio(self) -> f64 {
        match self {
            Self::Pr => 2.5,
            Self::Nightly => 2.0,
            Self::Release => 1.8,
        }
    }
}

/// The limits of one slice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SliceRules {
    /// Largest p99/p95 that is not a violation.
    pub tail_ratio: f64,
    /// Stage A's p95 limit.
    pub a_p95: Nanos,
    /// Stage A's p99 limit.
    pub a_p99: Nanos,
    /// Stage B's p95 limit.
    pub b_p95: Nanos,
    /// Stage C's p95 limit.
    pub c_p95: Nanos,
    /// The whole query's p95 limit.
    pub e2e_p95: Option<Nanos>,
}

impl Rules {
    /// The limits that hold for a slice.
    pub fn of_slice(&self, slice: &Slice) -> SliceRules {
        self.slices.get(slice).copied().unwrap_or(self.of_all())
    }

    /// The limits that hold for slices without any of their own.
    pub const fn of_all(&self) -> SliceRules {
        SliceRules {
            tail_ratio: self.tail_ratio_max,
            a_p95: self.slo_a_p95,
            a_p99: self.slo_a_p99,
            b_p95: self.slo_b_p95,
            c_p95: self.slo_c_p95,
            e2e_p95: self.slo_e2e_p95,
        }
    }

    /// Largest p99/p95 of a slice that is not a violation.
    pub fn tail_ratio(&self, slice: &Slice) -> f64 {
        self.of_slice(slice).tail_ratio
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            slices_known: Vec::new(),
            slices_automatic_max: lens_model::limits::AUTOMATIC_SLICES_MAX,
            summary_window: Nanos::from_secs(300),
            stale_after: Nanos::from_secs(30),
            tail_ratio_max: 2.0,
            tail_floor: Nanos::from_millis(1),
            slo_a_p95: Nanos::from_millis(5),
            slo_a_p99: Nanos::from_millis(10),
            slo_b_p95: Nanos::from_millis(300),
            slo_c_p95: Nanos::from_millis(300),
            slo_e2e_p95: None,
            e2e_regression_max: 0.1,
            slices: BTreeMap::new(),
            false_alarm_days: 30.0,
            window_min: Nanos::from_secs(10),
        }
    }
}

/// One agent as the aggregator sees it.
#[derive(Clone, Debug, Serialize)]
pub struct AgentState {
    /// Its identity, from its certificate.
    pub identity: String,
    /// Its software version, as it says.
    pub version: String,
    /// The life its deltas are numbered in.
    #[serde(serialize_with = "as_text")]
    pub incarnation: Incarnation,
    /// Where it connected from, since this aggregator started.
    pub address: Option<SocketAddr>,
    /// Whether a connection stands now.
    pub connected: bool,
    /// When the last frame came.
    #[serde(serialize_with = "as_rfc3339")]
    pub last_frame: UnixNanos,
    /// How long after the end of its interval the last delta was merged, nanoseconds.
    pub lag_nanos: u64,
    /// Aggregator clock minus agent clock, as the agent measured it, nanoseconds.
    pub clock_offset_nanos: i64,
    /// The last delta merged.
    pub acked: Sequence,
    /// Deltas merged.
    pub deltas: u64,
    /// Deltas that came again and changed nothing.
    pub duplicates: u64,
    /// Deltas merged into a slot that had been sealed, or older than the ring.
    pub late: u64,
    /// Deltas or frames refused, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Samples merged.
    pub samples: u64,
    /// Search nodes it reports for.
    pub instances: Vec<String>,
    /// When the certificate it last came with ends; unknown until it came.
    #[serde(skip)]
    pub certificate_expires: Option<UnixNanos>,
    /// What of the control plane's word it has in force; unknown until it said so.
    #[serde(skip)]
    pub applied: Option<Applied>,
    /// Which stretches of time it accounted for.
    #[serde(skip)]
    pub coverage: Coverage,
    /// The life of the newest delta in that; `None` before the first.
    #[serde(skip)]
    pub covered_life: Option<Incarnation>,
    /// When the last connection of that life ended, or its last delta of an earlier start came.
    #[serde(skip)]
    pub ended: UnixNanos,
}

impl AgentState {
    /// An agent nothing is known of but its identity.
    pub fn new(identity: String, incarnation: Incarnation, now: UnixNanos) -> Self {
        Self {
            identity,
            version: String::new(),
            incarnation,
            address: None,
            connected: false,
            last_frame: now,
            lag_nanos: 0,
            clock_offset_nanos: 0,
            acked: Sequence(0),
            deltas: 0,
            duplicates: 0,
            late: 0,
            rejected: BTreeMap::new(),
            samples: 0,
            instances: Vec::new(),
            coverage: Coverage::default(),
            certificate_expires: None,
            applied: None,
            covered_life: None,
            ended: now,
        }
    }

    /// When the life that its coverage ends in was last heard of; `None` while that is connected.
    ///
    /// A life that begins anew says nothing of the one before it, so its connection ends no gap:
    /// its first delta does.
    pub fn heard(&self) -> Option<UnixNanos> {
        let covered = self.is_covered();
        let heard = if covered { self.last_frame.max(self.ended) } else { self.ended };
        (!(self.connected && covered)).then_some(heard)
    }

    /// Notes that a connection of a life stands.
    pub fn enter(&mut self, life: Incarnation, now: UnixNanos) {
        if self.incarnation != life {
            // The one whose place it takes may have been heard of until now.
            if self.is_covered() {
                self.ended = self.ended.max(self.last_frame);
            }
            (self.incarnation, self.acked) = (life, Sequence(0));
        }
        (self.connected, self.last_frame) = (true, now);
    }

    /// Notes that its connection ended.
    pub fn leave(&mut self, now: UnixNanos) {
        self.connected = false;
        if self.is_covered() {
            self.ended = now;
        }
    }

    /// Whether what its coverage ends in is of the life that is, or was last, connected.
    fn is_covered(&self) -> bool {
        self.covered_life.is_none_or(|life| life == self.incarnation)
    }

    /// Takes over what the store knows.
    fn know(&mut self, known: &KnownAgent) {
        self.acked = known.acked;
        self.deltas = known.deltas;
        self.late = known.late;
        self.samples = known.samples;
        self.clock_offset_nanos = known.clock_offset_nanos;
        self.lag_nanos = known.lag_nanos;
        self.coverage = known.coverage.clone();
        self.covered_life = known.life();
    }
}

fn as_text<T: std::fmt::Display, S: serde::Serializer>(
    value: &T,
    to: S,
) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

fn as_rfc3339<S: serde::Serializer>(at: &UnixNanos, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&lens_service::time::rfc3339(*at))
}

/// Something that happened, as the event stream tells it.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// When, by the aggregator's clock.
    #[serde(serialize_with = "as_rfc3339")]
    pub t: UnixNanos,
    /// What kind: `verdict`, `agent`, `slice`, `alert`.
    pub kind: &'static str,
    /// What it is about: a series key, an agent's name.
    pub subject: String,
    /// One sentence for people.
    pub message: String,
}

/// Counters of the aggregator about itself, each exported as `lens_aggregator_<name>`.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct Counters {
    pub frames_total: AtomicU64,
    pub bytes_total: AtomicU64,
    pub deltas_accepted_total: AtomicU64,
    pub deltas_duplicate_total: AtomicU64,
    pub deltas_late_total: AtomicU64,
    pub deltas_refused_total: AtomicU64,
    pub samples_merged_total: AtomicU64,
    pub connections_total: AtomicU64,
    pub connections_refused_total: AtomicU64,
    pub handshakes_failed_total: AtomicU64,
    pub retries_total: AtomicU64,
    pub connections_aged_total: AtomicU64,
    pub connections_revoked_total: AtomicU64,
}

impl Counters {
    /// Adds to a counter.
    pub fn add(counter: &AtomicU64, more: u64) {
        counter.fetch_add(more, Ordering::Relaxed);
    }
}

/// Everything one aggregator knows.
pub struct State {
    /// The machine it runs on.
    pub env: Env,
    /// When it started.
    pub started: UnixNanos,
    /// How it judges and shows.
    pub rules: Rules,
    /// The merged counts.
    pub windows: RwLock<Windows>,
    /// What is held of every series' rules.
    pub judge: RwLock<Standing>,
    /// The agents, by name.
    pub agents: RwLock<BTreeMap<AgentName, AgentState>>,
    /// What happened, for whoever listens.
    pub events: broadcast::Sender<Event>,
    /// Whether the QUIC listener takes agents.
    pub listening: AtomicBool,
    /// Whether it is shutting down.
    pub draining: AtomicBool,
    /// Rounds of sealing and judging done.
    pub rounds: AtomicU64,
    /// Slow requests with their traces.
    pub exemplars: RwLock<Exemplars>,
    /// The last minutes as agents held them, pulled when something was wrong.
    pub captures: Arc<Captures>,
    /// What it counts about itself.
    pub counters: Counters,
    /// Alerts and whom they are told to.
    pub alerts: Arc<Desk>,
    /// The rollout and what moves it.
    pub canary: Arc<Live>,
    /// Flags and assignment.
    pub flags: Flags,
    /// What watches search itself.
    pub guards: Arc<Guards>,
    /// Who may what.
    pub security: Security,
    /// What takes up renewed certificates, once there are any.
    pub renew: OnceLock<Renew>,
    /// When this aggregator's own certificate ends; 0 while that is not known.
    pub certificate_expires: AtomicU64,
    /// What the export to an OTLP receiver counts.
    pub otlp: crate::export::otlp::Stats,
    /// When the store was made.
    pub(crate) counted_since: OnceLock<UnixNanos>,
    /// Where questions about more than memory holds are answered, while the store is open.
    history: RwLock<Option<History>>,
    /// What remote write counts, where it is on.
    pub remote_write: Option<Arc<Tally>>,
    /// Why nothing is taken in, while the store is not open.
    fault: RwLock<Option<String>>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("started", &self.started).finish_non_exhaustive()
    }
}

impl State {
    /// A fresh state, without anyone to alert.
    pub fn new(env: Env, rules: Rules, windows: Windows, now: UnixNanos) -> Self {
        let alerts = Arc::new(Desk::unconfigured(env.clone()));
        let flags = Flags::in_memory(&env);
        let canary = Arc::new(Live::unconfigured(env.clone(), Arc::new(flags.clone())));
        let guards = Arc::new(Guards::off(env.clone()));
        let captures = Captures::in_memory(env.clone());
        Self {
            env,
            started: now,
            judge: RwLock::new(Standing::new(&rules)),
            rules,
            windows: RwLock::new(windows),
            agents: RwLock::new(BTreeMap::new()),
            events: broadcast::Sender::new(lens_model::limits::EVENT_BACKLOG_MAX),
            listening: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            rounds: AtomicU64::new(0),
            exemplars: RwLock::default(),
            captures: Arc::new(captures),
            counters: Counters::default(),
            alerts,
            canary,
            flags,
            guards,
            security: Security::default(),
            renew: OnceLock::new(),
            certificate_expires: AtomicU64::new(0),
            otlp: crate::export::otlp::Stats::default(),
            counted_since: OnceLock::new(),
            history: RwLock::new(None),
            remote_write: None,
            fault: RwLock::new(None),
        }
    }

    /// Judges every slot that is known whole at `now`, two slots after its end, once each. What
    /// comes later than that corrects what is shown and no verdict.
    ///
    /// The first call begins an hour back, so that a restart forgets nothing: what memory no longer
    /// holds is read from the store. While that cannot be read nothing is judged.
    pub fn judge_until(&self, now: UnixNanos) {
        let base = self.windows.read().base().0;
        let due = (now.0 / base).saturating_sub(WATERMARK_SLOTS + 1);
        let first = due.saturating_sub(JUDGE_SLOTS_MAX - 1);
        let judged = self.judge.read().now();
        let next = judged.and_then(|slot| u64::try_from(slot.0 + 1).ok()).unwrap_or(0);
        for number in next.max(first)..=due {
            match self.slot(number, now) {
                Ok(Some(windows)) => {
                    self.judge.write().take(&windows);
                    self.canary.slot(self, &windows);
                }
                Ok(None) => return,
                Err(error) => {
                    warn!(%error, "what was recorded before cannot be read: judging waits");
                    return;
                }
            }
        }
    }

    /// Everything recorded in a slot, from memory where that holds it; `None` while only a store
    /// that is closed knows.
    fn slot(&self, number: u64, now: UnixNanos) -> Result<Option<SlotWindows>, StoreError> {
        let slot = Slot(i64::try_from(number).unwrap_or(i64::MAX));
        let held = {
            let windows = self.windows.read();
            let whole = number.saturating_mul(windows.base().0) >= windows.held_from(now).0;
            whole.then(|| windows.slot(number, slot))
        };
        match (held, self.history()) {
            (Some(held), _) => Ok(Some(held)),
            (None, Some(history)) => history.view()?.slot(number, slot).map(Some),
            (None, None) if self.faulted().is_some() => Ok(None),
            (None, None) => Ok(Some(SlotWindows { slot, windows: Vec::new() })),
        }
    }

    /// When the store was made that everything is counted in, 0 when that was not written down;
    /// `None` until a store is open.
    pub fn counted_since(&self) -> Option<UnixNanos> {
        self.counted_since.get().copied()
    }

    /// What answers questions about more than memory holds, while the store is open.
    pub fn history(&self) -> Option<History> {
        self.history.read().clone()
    }

    /// Why nothing is taken in, while that is so.
    pub fn faulted(&self) -> Option<String> {
        self.fault.read().clone()
    }

    /// Says that the store is closed, and why, or that it is open again.
    pub(crate) fn fault(&self, reason: Option<String>) {
        if reason.is_some() {
            *self.history.write() = None;
        }
        *self.fault.write() = reason;
    }

    /// Makes memory what a store that was just opened has.
    pub(crate) fn restore(&self, loaded: Loaded, history: History) {
        let mut agents = self.agents.write();
        for (name, known) in &loaded.agents {
            let incarnation = known.life().unwrap_or(Incarnation(0));
            let agent = agents.entry(name.clone()).or_insert_with(|| {
                let identity = known.identity.clone();
                AgentState::new(identity, incarnation, known.last_delta)
            });
            agent.know(known);
            if agent.instances.is_empty() {
                agent.instances = loaded.windows.instances(name);
            }
        }
        drop(agents);
        *self.windows.write() = loaded.windows;
        self.counters.samples_merged_total.store(loaded.samples, Ordering::Relaxed);
        // A store is opened again and again, and made once.
        self.counted_since.get_or_init(|| loaded.made);
        *self.history.write() = Some(history);
    }

    /// Takes over what a durable batch changed.
    pub(crate) fn merged(&self, committed: &Committed, store: &Store) {
        let now = self.now();
        {
            let mut windows = self.windows.write();
            store.name(&mut windows);
            committed.merges.iter().for_each(|merge| windows.take(merge, now));
        }
        let counters = &self.counters;
        let late = committed.merges.iter().filter(|merge| merge.late).count() as u64;
        Counters::add(&counters.deltas_accepted_total, committed.merges.len() as u64);
        Counters::add(&counters.deltas_duplicate_total, committed.duplicates.len() as u64);
        Counters::add(&counters.deltas_late_total, late);
        let samples = committed.merges.iter().map(|merge| merge.samples).sum();
        Counters::add(&counters.samples_merged_total, samples);
        let mut agents = self.agents.write();
        for (name, known) in &committed.agents {
            if let Some(agent) = agents.get_mut(name) {
                agent.know(known);
            }
        }
        for (name, _) in &committed.duplicates {
            if let Some(agent) = agents.get_mut(name) {
                agent.duplicates += 1;
            }
        }
        for merge in &committed.merges {
            if let Some(agent) = agents.get_mut(&merge.record.identity.agent) {
                for (reason, count) in &merge.left_out {
                    *agent.rejected.entry((*reason).to_owned()).or_default() += count;
                }
            }
        }
        drop(agents);
        for slice in &committed.slices {
            let message = format!("slice {slice} seen for the first time");
            self.tell("slice", slice.to_string(), message);
        }
    }

    /// The same with this at its doors.
    #[must_use]
    pub fn secured(mut self, security: Security) -> Self {
        self.security = security;
        self
    }

    /// The aggregator's clock.
    pub fn now(&self) -> UnixNanos {
        self.env.now()
    }

    /// Tells whoever listens; with nobody listening it is not kept.
    pub fn tell(&self, kind: &'static str, subject: impl Into<String>, message: impl Into<String>) {
        let event = Event { t: self.now(), kind, subject: subject.into(), message: message.into() };
        drop(self.events.send(event));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(secs: u64) -> UnixNanos {
        UnixNanos(secs * 1_000_000_000)
    }

    const OLD: Incarnation = Incarnation(1);
    const NEW: Incarnation = Incarnation(2);

    /// Connected at 10 s, with a delta of the old life.
    fn delivering() -> AgentState {
        let mut agent = AgentState::new("spiffe://lens.test/agent/a1".into(), OLD, at(10));
        agent.enter(OLD, at(10));
        agent.covered_life = Some(OLD);
        agent
    }

    #[test]
    fn an_agent_is_heard_of_until_its_connection_ends_and_by_its_return() {
        let mut agent = delivering();
        assert_eq!(agent.heard(), None);
        agent.leave(at(30));
        assert_eq!(agent.heard(), Some(at(30)));
        agent.enter(OLD, at(90));
        assert_eq!(agent.heard(), None);
    }

    #[test]
    fn a_new_life_without_a_delta_says_nothing_of_the_one_before_it() {
        let mut agent = delivering();
        agent.leave(at(30));
        agent.enter(NEW, at(60));
        assert_eq!(agent.heard(), Some(at(30)), "connected");
        agent.leave(at(70));
        assert_eq!(agent.heard(), Some(at(30)), "and gone again");
        agent.enter(NEW, at(80));
        agent.covered_life = Some(NEW);
        assert_eq!(agent.heard(), None, "its first delta came");
    }

    #[test]
    fn a_life_whose_connection_another_took_over_was_heard_of_until_its_last_frame() {
        let mut agent = delivering();
        agent.last_frame = at(50);
        agent.enter(NEW, at(51));
        assert_eq!(agent.heard(), Some(at(50)));
    }
}
