//! The export at work: what there is at each interval, sent request by request.
//!
//! There is no queue of old states. A request that may be tried again waits with full jitter, twice
//! as long each time up to [`WAIT_MAX`], or as long as the receiver asks; when the next export is due
//! before that, what is left is given up, because the newer points hold the same counts and more.
//! Within one interval the very same message is sent again, so that a receiver may tell repeats by
//! start and end. At most one export and one request are in memory.
//! Promise: never blocks ingest; what could not be sent is counted. On shutdown one last export is
//! tried, within [`LAST_MAX`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lens_hist::Counts;
use lens_model::Nanos;
use lens_service::env::{Abandoned, Env};
use lens_service::shutdown::Shutdown;
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::answer::Outcome;
use super::buckets::Buckets;
use super::carry::Carry;
use super::config::Config;
use super::gather::{Chunk, gather};
use super::ledger::Ledger;
use super::points::Origin;
use super::stats::Stats;
use crate::state::State;
use crate::window::Selection;

/// First and longest wait before another attempt.
const WAIT_MIN: Nanos = Nanos::from_secs(1);
const WAIT_MAX: Nanos = Nanos::from_secs(60);

/// Longest the last export may take.
const LAST_MAX: Duration = Duration::from_secs(2);

struct Exporter {
    state: Arc<State>,
    carry: Box<dyn Carry>,
    interval: Duration,
    buckets: Arc<Buckets>,
    origin: Arc<Origin>,
    /// Made once the store is open.
    ledger: Arc<Mutex<Option<Ledger>>>,
    shutdown: Shutdown,
    /// Attempts in a row that failed.
    failures: u32,
    /// Nothing is sent before this.
    not_before: Instant,
    /// What the receiver said last, so that it is logged once.
    said: String,
}

/// Exports until told to stop.
pub async fn run(state: Arc<State>, config: Config, carry: Box<dyn Carry>, shutdown: Shutdown) {
    let origin = Origin { resource: config.resource, temporality: config.temporality };
    state.otlp.on.store(true, Ordering::Relaxed);
    let mut exporter = Exporter {
        state,
        carry,
        interval: config.interval.into(),
        buckets: Arc::new(Buckets::new(config.scale)),
        origin: Arc::new(origin),
        ledger: Arc::default(),
        shutdown: shutdown.clone(),
        failures: 0,
        not_before: Instant::now(),
        said: String::new(),
    };
    // The ledger knows from now on what is there already.
    if exporter.gather().await.is_err() {
        return;
    }
    let mut due = Instant::now() + exporter.interval;
    loop {
        tokio::select! {
            biased;
            () = shutdown.wait() => break,
            () = tokio::time::sleep_until(due.max(exporter.not_before)) => {}
        }
        let begun = Instant::now();
        let missed = begun.saturating_duration_since(due).as_nanos() / exporter.interval.as_nanos();
        Stats::add(&exporter.state.otlp.exports_put_off, u64::try_from(missed).unwrap_or(u64::MAX));
        due = begun + exporter.interval;
        if exporter.export(due).await.is_err() {
            return;
        }
    }
    let last = async {
        tokio::time::sleep_until(exporter.not_before).await;
        exporter.export(Instant::now()).await
    };
    drop(tokio::time::timeout(LAST_MAX, last).await);
}

impl Exporter {
    /// Gathers and sends what there is; waits for no attempt that is due at `until` or later.
    async fn export(&mut self, until: Instant) -> Result<(), Abandoned> {
        let mut chunks = self.gather().await.inspect_err(|error| {
            error!(%error, "nothing is exported any more");
        })?;
        let state = Arc::clone(&self.state);
        while let Some(chunk) = chunks.front() {
            let outcome = self.carry.send(&chunk.request).await;
            self.note(&outcome, chunk.points);
            match outcome {
                Outcome::Taken { .. } | Outcome::Refused { .. } => {
                    let marks = chunks.pop_front().into_iter().flat_map(|chunk| chunk.marks);
                    if let Some(ledger) = self.ledger.lock().as_mut() {
                        marks.for_each(|mark| ledger.settle(mark));
                    }
                }
                Outcome::Later { after, .. } => {
                    let wait = after.unwrap_or_else(|| pause(&state.env, self.failures));
                    self.not_before = Instant::now() + Duration::from(wait);
                    let again = self.not_before < until && self.waited().await;
                    if !again {
                        let left = chunks.iter().map(|chunk| chunk.points).sum();
                        Stats::add(&state.otlp.points_superseded, left);
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Waits until the next attempt may be made; `false` when it is not to be made any more.
    async fn waited(&self) -> bool {
        tokio::select! {
            biased;
            () = self.shutdown.wait() => false,
            () = tokio::time::sleep_until(self.not_before) => true,
        }
    }

    /// Reads the state off the threads that serve the network. Before the store is open there is
    /// nothing, and what there is then is where deltas begin.
    async fn gather(&self) -> Result<VecDeque<Chunk>, Abandoned> {
        let (state, ledger) = (Arc::clone(&self.state), Arc::clone(&self.ledger));
        let (buckets, origin) = (Arc::clone(&self.buckets), Arc::clone(&self.origin));
        let job = move || {
            let mut held = ledger.lock();
            if held.is_none() {
                *held = begin(&state, &origin);
            }
            let now = state.now();
            let chunks = held.as_mut().map(|held| gather(&state, held, &buckets, &origin, now));
            chunks.unwrap_or_default()
        };
        self.state.env.blocking(job).await
    }

    fn note(&mut self, outcome: &Outcome, points: u64) {
        let stats = &self.state.otlp;
        match outcome {
            Outcome::Taken { rejected, said } => {
                let rejected = (*rejected).min(points);
                Stats::add(&stats.requests_taken, 1);
                Stats::add(&stats.points_sent, points - rejected);
                Stats::add(&stats.points_rejected, rejected);
                stats.last_taken_nanos.store(self.state.now().0, Ordering::Relaxed);
                if std::mem::take(&mut self.failures) > 0 {
                    info!("the OTLP receiver takes data again");
                }
                if *said != self.said && (rejected > 0 || !said.is_empty()) {
                    warn!(rejected, said, "the OTLP receiver took a request in part");
                }
                self.said.clone_from(said);
            }
            Outcome::Later { said, .. } => {
                Stats::add(&stats.requests_retried, 1);
                if self.failures == 0 {
                    warn!(said, "the OTLP receiver takes nothing for now");
                }
                self.failures = self.failures.saturating_add(1);
            }
            Outcome::Refused { said } => {
                Stats::add(&stats.requests_refused, 1);
                Stats::add(&stats.points_refused, points);
                if *said != self.said {
                    warn!(said, points, "the OTLP receiver refused a request for good");
                }
                self.said.clone_from(said);
            }
        }
    }
}

/// The ledger as of now, once the store is open.
fn begin(state: &State, origin: &Origin) -> Option<Ledger> {
    let since = state.counted_since()?;
    let now = state.now();
    let series = state.windows.read().series();
    // What is counted already is no delta; what comes later is told whole, from now on.
    let first = match origin.temporality {
        super::Temporality::Cumulative => since,
        super::Temporality::Delta => now,
    };
    let mut ledger = Ledger::new(origin.temporality, first);
    let mut counts = Counts::new();
    for key in series.into_keys() {
        counts.clear();
        state.windows.read().lifetime(&Selection::series(&key), &mut counts);
        ledger.begin(key, &counts, now);
    }
    Some(ledger)
}

/// Full jitter: anything up to the wait that doubles with each failure.
fn pause(env: &Env, failures: u32) -> Nanos {
    let mut luck = [0; 8];
    // Without randomness the wait is the shortest, which is only unkind.
    drop(env.random.fill(&mut luck));
    let longest = WAIT_MIN.0.saturating_mul(1 << failures.min(10)).min(WAIT_MAX.0);
    Nanos((u64::from_le_bytes(luck) % longest).max(WAIT_MIN.0 / 4))
}
