//! Sends real queries to search nodes, open loop, and says what came of each one.
//!
//! Queries come from the nodes' own `/queries`. A pacing thread gives the intended starts; a
//! request that finds [`SearchLoad::in_flight_max`] others unanswered is not sent and counted as
//! unsent, so offered = sent + unsent always holds and nothing is hidden.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::pace::wait_until;
use super::search_client;
use super::search_report::{Outcome, Tally};
pub use super::search_report::{SearchError, SearchReport, StageCount, TargetReport};
use super::{Arrival, Schedule, VALUES_MAX};
use crate::node::SampleQuery;
use crate::numbers::{nanos_of, whole};

/// Requests unanswered at once when nothing is said.
pub const IN_FLIGHT_DEFAULT: usize = 256;

/// Queries fetched when nothing is said.
pub const QUERIES_DEFAULT: usize = 500;

/// How long a request may take before it counts as an error.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// Starts handed over ahead of their sending.
const STARTS_BUFFERED: usize = 1_024;

/// Different users the queries claim to come from.
const USERS: u32 = 1_000;

/// A node that gets queries, and how many compared with the others.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its base address, such as `http://127.0.0.1:7700`.
    pub url: String,
    weight: Arc<AtomicU32>,
}

impl Target {
    /// A target of weight 1. A trailing slash of the address is dropped.
    pub fn new(url: &str) -> Self {
        let url = url.trim_end_matches('/').to_owned();
        Self { url, weight: Arc::new(AtomicU32::new(1)) }
    }

    /// Changes its weight, also while load runs: clones share it. 0 sends it nothing.
    pub fn set_weight(&self, weight: u32) {
        self.weight.store(weight, Ordering::Relaxed);
    }

    /// Its weight.
    pub fn weight(&self) -> u32 {
        self.weight.load(Ordering::Relaxed)
    }
}

/// Counts that can be watched while load runs.
#[derive(Debug, Default)]
pub struct SearchProgress {
    /// Requests sent.
    pub sent: AtomicU64,
    /// Requests answered well.
    pub ok: AtomicU64,
    /// Requests that failed.
    pub errors: AtomicU64,
    /// Requests that could not be sent.
    pub unsent: AtomicU64,
}

/// What to send.
#[derive(Clone, Debug)]
pub struct SearchLoad {
    /// Where to.
    pub targets: Vec<Target>,
    /// Requests a second over all targets.
    pub rate: f64,
    /// How requests arrive.
    pub arrival: Arrival,
    /// How long.
    pub duration: Duration,
    /// Queries to fetch; they are chosen from at random.
    pub queries: usize,
    /// Where all choices come from.
    pub seed: u64,
    /// Requests unanswered at once; one more is not sent.
    pub in_flight_max: usize,
    /// Shared counts for whoever watches.
    pub progress: Arc<SearchProgress>,
}

impl SearchLoad {
    /// Load on `urls` at `rate` a second for `duration`, everything else by default.
    pub fn new(urls: &[String], rate: f64, duration: Duration, seed: u64) -> Self {
        Self {
            targets: urls.iter().map(|url| Target::new(url)).collect(),
            rate,
            arrival: Arrival::default(),
            duration,
            queries: QUERIES_DEFAULT,
            seed,
            in_flight_max: IN_FLIGHT_DEFAULT,
            progress: Arc::default(),
        }
    }
}

/// Sends queries until the schedule ends or `shutdown` completes, then waits for the answers
/// still to come, at most [`TIMEOUT`].
///
/// # Errors
/// [`SearchError`] when there is no target, or one gives no queries.
pub async fn run(
    load: SearchLoad,
    shutdown: impl Future<Output = ()>,
) -> Result<SearchReport, SearchError> {
    let first = load.targets.first().ok_or(SearchError::NoTarget)?;
    let values = whole(load.rate * load.duration.as_secs_f64());
    if values > VALUES_MAX as u64 {
        return Err(SearchError::TooMany { values });
    }
    let client = search_client::client(TIMEOUT, load.in_flight_max)
        .map_err(|e| SearchError::Start(e.to_string()))?;
    // The nodes of one service have one corpus, so the queries of the first serve for all.
    let queries = search_client::queries(&client, &first.url, load.queries, load.seed)
        .await
        .map_err(|problem| SearchError::Unreachable { url: first.url.clone(), problem })?;
    if queries.is_empty() {
        return Err(SearchError::NoQueries { url: first.url.clone() });
    }

    let stop = Arc::new(AtomicBool::new(false));
    let start = Instant::now();
    let mut starts = pacing_thread(&load, start, Arc::clone(&stop))?;
    let mut run = Run::new(&load, queries, client);
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown, if !run.tally.stopped_early => {
                run.tally.stopped_early = true;
                stop.store(true, Ordering::Relaxed);
            }
            Some(ended) = run.in_flight.join_next() => run.take(ended),
            next = starts.recv() => match next {
                Some(at) => run.send(start, at),
                None => break,
            },
        }
    }
    while let Some(ended) = run.in_flight.join_next().await {
        run.take(ended);
    }
    Ok(run.tally.report(&load, run.queries.len(), start.elapsed()))
}

/// Hands over every intended start when it has come.
fn pacing_thread(
    load: &SearchLoad,
    start: Instant,
    stop: Arc<AtomicBool>,
) -> Result<mpsc::Receiver<u64>, SearchError> {
    let (sender, receiver) = mpsc::channel(STARTS_BUFFERED);
    let schedule = Schedule::new(load.arrival, load.rate, load.duration, load.seed);
    let pace = move || {
        for at in schedule {
            if !wait_until(start, at, &stop) || sender.blocking_send(at).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new()
        .name("lens-load-pace".into())
        .spawn(pace)
        .map_err(|e| SearchError::Start(e.to_string()))?;
    Ok(receiver)
}

/// The load while it runs.
struct Run<'a> {
    load: &'a SearchLoad,
    queries: Vec<SampleQuery>,
    client: reqwest::Client,
    rng: StdRng,
    in_flight: JoinSet<Outcome>,
    tally: Tally,
}

impl<'a> Run<'a> {
    fn new(load: &'a SearchLoad, queries: Vec<SampleQuery>, client: reqwest::Client) -> Self {
        Self {
            load,
            queries,
            client,
            rng: StdRng::seed_from_u64(load.seed.wrapping_add(1)),
            in_flight: JoinSet::new(),
            tally: Tally::new(load.targets.len()),
        }
    }

    /// Sends the request meant for `at` nanoseconds after `start`, or counts it as unsent.
    fn send(&mut self, start: Instant, at: u64) {
        self.tally.offered += 1;
        let user = self.rng.random_range(0..USERS);
        let target = self.choose_target();
        let query = self.queries.choose(&mut self.rng);
        let room = self.in_flight.len() < self.load.in_flight_max;
        let (Some(query), Some(target), true) = (query, target, room) else {
            self.tally.unsent += 1;
            self.load.progress.unsent.fetch_add(1, Ordering::Relaxed);
            return;
        };
        self.tally.targets[target].0 += 1;
        self.load.progress.sent.fetch_add(1, Ordering::Relaxed);
        let request =
            search_client::request(&self.client, &self.load.targets[target].url, query, user);
        self.in_flight.spawn(async move {
            let sent = nanos_of(start.elapsed());
            let result = search_client::answer(request).await;
            let ended = nanos_of(start.elapsed());
            Outcome {
                target,
                from_intended: ended.saturating_sub(at),
                from_send: ended.saturating_sub(sent),
                result,
            }
        });
    }

    /// A target by weight.
    fn choose_target(&mut self) -> Option<usize> {
        let weights: Vec<u64> =
            self.load.targets.iter().map(|target| u64::from(target.weight())).collect();
        let all: u64 = weights.iter().sum();
        if all == 0 {
            return None;
        }
        let mut drawn = self.rng.random_range(0..all);
        weights.iter().position(|weight| match drawn.checked_sub(*weight) {
            Some(left) => {
                drawn = left;
                false
            }
            None => true,
        })
    }

    fn take(&mut self, ended: Result<Outcome, tokio::task::JoinError>) {
        let outcome = match ended {
            Ok(outcome) => outcome,
            Err(error) => {
                tracing::error!(%error, "a request's task ended by a fault");
                *self.tally.errors.entry("other".into()).or_default() += 1;
                return;
            }
        };
        let progress = &self.load.progress;
        let counter = if outcome.result.is_ok() { &progress.ok } else { &progress.errors };
        counter.fetch_add(1, Ordering::Relaxed);
        self.tally.count(outcome);
    }
}
