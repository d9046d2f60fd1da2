//! One running aggregator: store, worker, listener, alerts and clockwork, on whatever machine it is given.
//!
//! Everything but signals, standard output, exit codes and HTTP, so that the very same aggregator
//! runs in a program and in a simulated world. All of it lives in one future: dropping
//! [`Aggregator::run`] ends every task where it stands, as a crash would.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lens_flags::Scope;
use lens_model::Nanos;
use lens_service::env::Env;
use lens_service::shutdown::Shutdown;
use thiserror::Error;
use tokio::task::JoinSet;
use tracing::{debug_span, error};

use crate::alerts::Desk;
use crate::alerts::transport::Http;
use crate::canary::Live;
use crate::capture::Captures;
use crate::config::Config;
use crate::export::remote_write::{self, Config as RemoteWrite};
use crate::flags::Flags;
use crate::guards::Guards;
use crate::ingest::Ingest;
use crate::listen::{ListenError, Listener, Renewal};
use crate::log::{EmbeddedLog, LogError, PartitionLog};
use crate::security::Security;
use crate::state::State;
use crate::steady::Steady;
use crate::store::{Place, StoreError};
use crate::window::Windows;
use crate::worker::{OpenLog, WorkError, Worker};

/// Longest the worker may take over what was received before shutdown.
const DRAIN_MAX: Duration = Duration::from_secs(3);

/// Why an aggregator could not be started.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The store or the log cannot be opened.
    #[error(transparent)]
    Store(#[from] WorkError),
    /// The listener cannot be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// What was told to whom cannot be kept.
    #[error(transparent)]
    Alerts(#[from] crate::alerts::StoreError),
    /// Rollouts cannot be kept.
    #[error(transparent)]
    Canary(#[from] crate::canary::store::StoreError),
    /// Flags and kill switch cannot be kept.
    #[error("control.dir {0}")]
    Flags(#[from] crate::flags::KeepError),
}

impl From<StoreError> for StartError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.into())
    }
}

/// A started aggregator that does not run yet.
pub struct Aggregator {
    env: Env,
    state: Arc<State>,
    listener: Listener,
    worker: Worker,
    remote_write: Option<RemoteWrite>,
}

/// Starts an aggregator on a machine and runs it until shutdown.
///
/// # Errors
/// [`StartError`].
pub async fn run_on(env: Env, config: &Config, shutdown: Shutdown) -> Result<(), StartError> {
    Aggregator::start(env, config).await?.run(shutdown).await;
    Ok(())
}

/// The log in the store's directory.
pub fn embedded_log(env: &Env, place: &Place) -> OpenLog {
    let (env, dir) = (env.clone(), place.dir().join("log"));
    Arc::new(move || {
        let identity = env.incarnation().map_err(LogError::Io)?;
        let log = EmbeddedLog::open(Arc::clone(&env.disk), &dir, identity.0)?;
        Ok(Arc::new(log) as Arc<dyn PartitionLog>)
    })
}

impl Aggregator {
    /// Opens store, log and socket.
    ///
    /// # Errors
    /// [`StartError`] names what cannot be used.
    pub async fn start(env: Env, config: &Config) -> Result<Self, StartError> {
        Self::start_secured(env, config, Security::default()).await
    }

    /// As [`Aggregator::start`], with this at its doors.
    ///
    /// # Errors
    /// As [`Aggregator::start`].
    pub async fn start_secured(
        env: Env,
        config: &Config,
        security: Security,
    ) -> Result<Self, StartError> {
        let place = Place::take(Arc::clone(&env.disk), config.store.clone(), env.planted)?;
        let log = embedded_log(&env, &place);
        Self::begin(env, config, security, place, log).await
    }

    /// As [`Aggregator::start`], over another log.
    ///
    /// # Errors
    /// As [`Aggregator::start`].
    pub async fn start_with(
        env: Env,
        config: &Config,
        place: Arc<Place>,
        log: OpenLog,
    ) -> Result<Self, StartError> {
        Self::begin(env, config, Security::default(), place, log).await
    }

    async fn begin(
        env: Env,
        config: &Config,
        security: Security,
        place: Arc<Place>,
        log: OpenLog,
    ) -> Result<Self, StartError> {
        let windows = Windows::new(config.base, config.lateness);
        let windows = windows.holding(config.store.held_slots);
        let state = State::new(env.clone(), config.rules.clone(), windows, env.now());
        let mut state = state.secured(security);
        state.alerts = Arc::new(Desk::start(env.clone(), config.alerts.clone())?);
        state.remote_write = config.remote_write.as_ref().map(|_| Arc::default());
        let scope = config.trust_domain.clone().map_or(Scope::Fleet, Scope::TrustDomain);
        state.flags = Flags::open(&env, &config.control_dir, scope)?;
        let levers = Arc::new(state.flags.clone());
        state.canary = Arc::new(Live::open(env.clone(), config.canary.clone(), levers)?);
        state.guards = Arc::new(Guards::open(env.clone(), config.guards.clone()));
        let (dir, automatic) = (config.captures_dir.clone(), config.captures_automatic);
        state.captures = Arc::new(Captures::open(env.clone(), dir, automatic));
        let (ingest, queue) = Ingest::new(Arc::new(state));
        let state = Arc::clone(&ingest.state);
        let interval = config.commit_interval;
        let worker = Worker::start(Arc::clone(&ingest), queue, place, log, interval).await?;
        let domain = config.trust_domain.clone();
        let listener = Listener::open(config.quic_listen, &config.identity, domain, ingest)?
            .limited(config.limits);
        let remote_write = config.remote_write.clone();
        Ok(Self { env, state, listener, worker, remote_write })
    }

    /// What it knows.
    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.state)
    }

    /// The address agents connect to.
    ///
    /// # Errors
    /// The operating system's.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.address()
    }

    /// What takes up renewed certificates while this runs.
    pub fn renewal(&self, config: &Config) -> Renewal {
        self.listener.renewal(&config.identity)
    }

    /// Runs until shutdown: then agents are told to come back, and what was received is merged.
    pub async fn run(self, shutdown: Shutdown) {
        let mut alerting = JoinSet::new();
        alerting.spawn(crate::alerts::run(Arc::clone(&self.state), shutdown.clone()));
        let mut tasks = JoinSet::new();
        if let Some(config) = self.remote_write {
            // Dropped at shutdown: what it had not sent is in the next collection as well.
            tasks.spawn(write_to_remote(Arc::clone(&self.state), config, shutdown.clone()));
        }
        tasks.spawn(tick(self.env, Arc::clone(&self.state), shutdown.clone()));
        tasks.spawn(crate::guards::run(Arc::clone(&self.state), shutdown.clone()));
        tasks.spawn(crate::capture::run(Arc::clone(&self.state), shutdown.clone()));
        tasks.spawn(crate::canary::run(Arc::clone(&self.state), shutdown.clone()));
        tasks.spawn(crate::flags::feed(Arc::clone(&self.state), shutdown.clone()));
        tasks.spawn(crate::flags::run(self.state.flags.clone(), shutdown.clone()));
        let (stop_worker, stopped) = Shutdown::manual();
        let mut worker = JoinSet::new();
        worker.spawn(self.worker.run(stopped));
        self.listener.run(shutdown).await;
        self.state.draining.store(true, Ordering::Relaxed);
        stop_worker.begin();
        drop(tokio::time::timeout(DRAIN_MAX, worker.join_next()).await);
        drop(tokio::time::timeout(DRAIN_MAX, alerting.join_next()).await);
    }
}

/// Pushes metrics until shutdown.
async fn write_to_remote(state: Arc<State>, config: RemoteWrite, shutdown: Shutdown) {
    match Http::new() {
        Ok(http) => remote_write::run(state, config, Arc::new(http), shutdown).await,
        Err(error) => error!(%error, "metrics cannot be written to remote"),
    }
}

/// Seals and trims windows, and tells of verdicts that changed, once a slot.
async fn tick(env: Env, state: Arc<State>, shutdown: Shutdown) {
    let base: Nanos = state.windows.read().base();
    let (mut watch, mut steady) = (crate::judge::Watch::new(), Steady::default());
    let mut ticks = tokio::time::interval(base.into());
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! { biased; () = shutdown.wait() => return, _ = ticks.tick() => {} }
        let turn_of = Arc::clone(&state);
        let state = Arc::clone(&state);
        let believed = steady.at(tokio::time::Instant::now(), state.now());
        // Sealing and judging walk every series: off the threads that serve the network.
        let turn = env.blocking(move || {
            let _span = debug_span!("judge").entered();
            let now = state.now();
            if let Some(believed) = believed {
                state.windows.write().advance(believed);
                state.judge_until(believed);
            }
            watch.tick(&state, &crate::snapshot::Snapshot::take(&state, now));
            watch
        });
        match turn.await {
            Ok(back) => {
                watch = back;
                turn_of.rounds.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                error!(%error, "windows are no longer sealed");
                return;
            }
        }
    }
}
