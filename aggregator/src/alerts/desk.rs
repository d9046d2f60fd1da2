//! The desk: everything alerting knows, changed in steps that are durable before they are told.
//!
//! One lock around it all, held while a step is written down, so that steps and settlements never
//! interleave; everyone who takes it does so off the threads that serve the network.
//! When the disk refuses, alerting goes on in memory and says so as an alert of its own: people who
//! are told twice are better off than people who are not told.

mod acts;
mod queue;
#[cfg(test)]
pub(super) mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use lens_model::UnixNanos;
use lens_service::env::Env;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tracing::error;

use super::alert::{Alert, Phase};
use super::condition::{Condition, Reading, Severity};
use super::config::Config;
use super::lifecycle::{Book, Kind, Outcome, Transition};
use super::notice::{Delivery, Progress, Route};
use super::policy::Maintenance;
use super::show;
use super::sink::Thread;
use super::store::{Batch, Shelf, Store, StoreError};
use super::transport::{Http, Nowhere, Transport};

pub use acts::AnnounceError;
pub use queue::Next;
pub(crate) use queue::wait;

/// Closed alerts kept.
pub const PAST_MAX: usize = 1_000;

/// Settled deliveries kept.
pub const SETTLED_MAX: usize = 1_000;

/// Deliveries waiting for one sink; a further one pushes out the oldest.
pub const QUEUE_MAX: usize = 1_000;

/// Failures in a row after which a sink counts as failing.
pub const FAILURES_MIN: u32 = 3;

/// How one sink fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Notices delivered since start.
    pub delivered: u64,
    /// Attempts to be made again since start.
    pub retried: u64,
    /// Notices given up since start.
    pub dead: u64,
    /// Failures since the last success.
    pub failures: u32,
    /// Since when it takes nothing.
    pub failing_since: Option<UnixNanos>,
    /// Whether the last failure was final.
    pub refused: bool,
    /// What came back last.
    pub said: Option<String>,
}

/// Counts that survive a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Alerts that fired, by severity at that time.
    pub fired: BTreeMap<Severity, u64>,
    /// Transitions, by kind.
    pub transitions: BTreeMap<Kind, u64>,
    /// Episodes of severity critical.
    pub incidents: u64,
    /// The number of the next delivery.
    pub seq: u64,
    /// The number of the last episode.
    pub episodes: u64,
}

/// What is behind the lock.
#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) book: Book,
    pub(super) past: VecDeque<Alert>,
    pub(super) deliveries: BTreeMap<u64, Delivery>,
    pub(super) announced: Vec<Maintenance>,
    pub(super) threads: BTreeMap<(String, String), Thread>,
    pub(super) sinks: BTreeMap<String, Health>,
    pub(super) totals: Totals,
    /// Since when nothing can be written down, and why.
    pub(super) trouble: Option<(UnixNanos, String)>,
}

/// Everything alerting knows.
#[derive(Debug)]
pub struct Desk {
    /// How it is configured.
    pub config: Config,
    pub(super) env: Env,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) inner: Mutex<Inner>,
    /// Rung when a sink has something to send.
    pub(super) bells: BTreeMap<String, Notify>,
    routes: Vec<Route>,
    store: Store,
}

/// A bot's message as it is kept.
#[derive(Serialize, Deserialize)]
struct KeptThread {
    sink: String,
    key: String,
    #[serde(flatten)]
    thread: Thread,
}

impl Desk {
    /// A desk on this machine's network, if there is anyone to tell. Blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError`] when the directory or TLS cannot be used.
    pub fn start(env: Env, config: Config) -> Result<Self, StoreError> {
        let transport: Arc<dyn Transport> = match config.sinks.len() {
            0 => Arc::new(Nowhere),
            _ => Arc::new(Http::new().map_err(|why| StoreError::new("alerts.sink", why))?),
        };
        Self::open(env, config, transport)
    }

    /// A desk with what its directory holds. Blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError`] when the directory cannot be used.
    pub fn open(
        env: Env,
        config: Config,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, StoreError> {
        let store = match &config.dir {
            Some(dir) => Store::open(&env, dir)?,
            None => Store::nothing(),
        };
        let inner = Inner::load(&store, &config, env.now())?;
        let bells = config.sinks.iter().map(|sink| (sink.name.clone(), Notify::new())).collect();
        let inner = Mutex::new(inner);
        Ok(Self { routes: routes(&config), config, env, transport, inner, bells, store })
    }

    /// A desk without sinks or directory.
    pub fn unconfigured(env: Env) -> Self {
        let transport = Arc::new(Nowhere);
        let (config, store) = (Config::default(), Store::nothing());
        let (inner, bells, routes) = (Mutex::default(), BTreeMap::new(), Vec::new());
        Self { routes, config, env, transport, inner, bells, store }
    }

    /// Whether what it knows survives a restart.
    pub fn durable(&self) -> bool {
        self.store.durable()
    }

    /// Takes one reading of everything and gives what it made happen. Blocks on the disk.
    pub fn evaluate(&self, conditions: &[Condition], now: UnixNanos) -> Vec<Transition> {
        let mut inner = self.inner.lock();
        let maintenance = inner.maintenance(&self.config, now);
        let before = inner.book.clone();
        let outcome = inner.book.step(conditions, &self.config.policy, &maintenance, now);
        let mut batch = Batch::default();
        let Outcome { transitions, closed } = outcome;
        for alert in closed {
            inner.close(alert, &mut batch);
        }
        self.tell(&mut inner, &before, &transitions, now, &mut batch);
        transitions
    }

    /// Writes down what differs from `before` together with the deliveries that tell of it, and
    /// rings the sinks.
    fn tell(
        &self,
        inner: &mut Inner,
        before: &Book,
        transitions: &[Transition],
        now: UnixNanos,
        batch: &mut Batch,
    ) {
        for (key, alert) in &inner.book.alerts {
            if before.alerts.get(key).is_none_or(|held| alert.moved(held)) {
                batch.put(Shelf::Alerts, key.to_string(), alert);
            }
        }
        for key in before.alerts.keys().filter(|key| !inner.book.alerts.contains_key(*key)) {
            batch.forget(Shelf::Alerts, key.to_string());
        }
        inner.count(transitions);
        let rung = inner.enqueue(transitions, &self.routes, now, batch);
        inner.totals.episodes = inner.book.episodes;
        if !batch.is_empty() {
            batch.put(Shelf::Totals, "totals", &inner.totals);
        }
        self.commit(inner, batch, now);
        for sink in rung {
            self.ring(&sink);
        }
    }

    pub(super) fn ring(&self, sink: &str) {
        if let Some(bell) = self.bells.get(sink) {
            bell.notify_one();
        }
    }

    pub(super) fn commit(&self, inner: &mut Inner, batch: &Batch, now: UnixNanos) {
        match self.store.commit(batch) {
            Ok(()) => inner.trouble = None,
            Err(failed) => {
                if inner.trouble.is_none() {
                    error!(%failed, "alerting goes on in memory until the disk takes it");
                }
                inner.trouble.get_or_insert((now, failed.to_string()));
            }
        }
    }

    /// What the snapshot shows.
    pub fn summary(&self, now: UnixNanos) -> show::Summary {
        const OPEN_MAX: usize = 100;
        const DELIVERIES_MAX: usize = 20;
        let inner = self.inner.lock();
        let of = |phase| inner.book.alerts.values().filter(move |alert| alert.phase == phase);
        let mut open: Vec<&Alert> =
            inner.book.alerts.values().filter(|alert| alert.phase != Phase::Resolved).collect();
        open.sort_by_key(|alert| std::cmp::Reverse((alert.phase == Phase::Firing, alert.opened)));
        show::Summary {
            firing: of(Phase::Firing).count(),
            critical: of(Phase::Firing).filter(|a| a.severity == Severity::Critical).count(),
            pending: of(Phase::Pending).count(),
            open: open.into_iter().take(OPEN_MAX).map(|a| show::Alert::new(a, now)).collect(),
            deliveries: inner.newest(DELIVERIES_MAX),
            sinks: inner.shown_sinks(&self.config),
            durable: self.durable(),
        }
    }

    /// The counts that survive a restart.
    pub fn totals(&self) -> Totals {
        self.inner.lock().totals.clone()
    }

    /// How each sink fares, by name.
    pub fn healths(&self) -> BTreeMap<String, Health> {
        self.inner.lock().sinks.clone()
    }

    /// Alerts that are open, the newest first.
    pub fn open_alerts(&self) -> Vec<Alert> {
        let mut open: Vec<Alert> = self.inner.lock().book.alerts.values().cloned().collect();
        open.sort_by_key(|alert| std::cmp::Reverse(alert.opened));
        open
    }

    /// Alerts that are history, the newest first.
    pub fn past_alerts(&self) -> Vec<Alert> {
        self.inner.lock().past.iter().rev().cloned().collect()
    }

    /// Deliveries, the newest first, at most so many.
    pub fn deliveries(&self, most: usize) -> Vec<show::Delivery> {
        self.inner.lock().newest(most)
    }

    /// Since when nothing can be written down, and why.
    pub fn trouble(&self) -> Option<(UnixNanos, String)> {
        self.inner.lock().trouble.clone()
    }
}

/// What routing needs to know of each sink.
fn routes(config: &Config) -> Vec<Route> {
    let chain = &config.policy.chain;
    let route = |sink: &super::sink::Sink| Route {
        sink: sink.name.clone(),
        severity_min: sink.severity_min,
        groups: sink.kind.groups(),
        step: chain.iter().position(|step| step.sinks.contains(&sink.name)),
    };
    config.sinks.iter().map(route).collect()
}

impl Inner {
    fn load(store: &Store, config: &Config, now: UnixNanos) -> Result<Self, StoreError> {
        let mut inner = Self::default();
        for mut alert in store.load::<Alert>(Shelf::Alerts)? {
            // While nobody looked nothing was read: time passed then is evidence of nothing.
            alert.reading = Reading::Unknown;
            alert.reading_since = now;
            inner.book.alerts.insert(alert.key.clone(), alert);
        }
        inner.past = store.load(Shelf::Past)?.into();
        inner.announced = store.load(Shelf::Maintenance)?;
        inner.totals = store.load(Shelf::Totals)?.pop().unwrap_or_default();
        inner.book.episodes = inner.totals.episodes;
        for KeptThread { sink, key, thread } in store.load(Shelf::Threads)? {
            inner.threads.insert((sink, key), thread);
        }
        let names: BTreeSet<&str> = config.sinks.iter().map(|sink| sink.name.as_str()).collect();
        for mut delivery in store.load::<Delivery>(Shelf::Deliveries)? {
            if delivery.progress == Progress::Queued && !names.contains(delivery.sink.as_str()) {
                delivery.settle(Progress::Dead, "the sink is no longer configured", now);
            }
            inner.deliveries.insert(delivery.seq, delivery);
        }
        inner.sinks = names.iter().map(|name| ((*name).into(), Health::default())).collect();
        Ok(inner)
    }

    fn maintenance(&self, config: &Config, now: UnixNanos) -> Vec<Maintenance> {
        let all = config.maintenance.iter().chain(&self.announced);
        all.filter(|window| now < window.to).cloned().collect()
    }

    /// Makes an alert history, with what stood for it elsewhere.
    fn close(&mut self, alert: Alert, batch: &mut Batch) {
        let name = alert.key.to_string();
        self.threads.retain(|(sink, key), _| {
            if *key == name {
                batch.forget(Shelf::Threads, format!("{sink}\n{key}"));
            }
            *key != name
        });
        batch.put(Shelf::Past, alert.episode.to_be_bytes(), &alert);
        self.past.push_back(alert);
        while self.past.len() > PAST_MAX
            && let Some(oldest) = self.past.pop_front()
        {
            batch.forget(Shelf::Past, oldest.episode.to_be_bytes());
        }
    }

    fn count(&mut self, transitions: &[Transition]) {
        for Transition { kind, alert, before, .. } in transitions {
            *self.totals.transitions.entry(*kind).or_default() += 1;
            let begins = matches!(kind, Kind::Fired | Kind::Reopened);
            if begins {
                *self.totals.fired.entry(alert.severity).or_default() += 1;
            }
            let was = before.is_some_and(|severity| severity == Severity::Critical);
            let is = alert.severity == Severity::Critical;
            self.totals.incidents +=
                u64::from((*kind == Kind::Fired || *kind == Kind::Raised) && is && !was);
        }
    }

    fn shown_sinks(&self, config: &Config) -> Vec<show::Sink> {
        let waiting = |name: &str| {
            let own = self.deliveries.values().filter(|d| d.progress == Progress::Queued);
            own.filter(|delivery| delivery.sink == name).count()
        };
        let shown = |sink: &super::sink::Sink| {
            let health = self.sinks.get(&sink.name).cloned().unwrap_or_default();
            show::Sink {
                name: sink.name.clone(),
                kind: sink.kind.as_str(),
                severity_min: sink.severity_min,
                queued: waiting(&sink.name),
                delivered: health.delivered,
                retried: health.retried,
                dead: health.dead,
                failing_since: health.failing_since,
                said: health.said,
            }
        };
        config.sinks.iter().map(shown).collect()
    }

    fn newest(&self, most: usize) -> Vec<show::Delivery> {
        self.deliveries.values().rev().take(most).map(show::Delivery::new).collect()
    }
}
