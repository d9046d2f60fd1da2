//! The agent as a whole, without the process around it: spool, harvester and link, and how they end.
//!
//! Everything of the machine comes from an [`Env`], and everything that runs is owned: dropping the
//! future of [`Agent::run`] stops all of it where it stands, as a crash would.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lens_flags::Assignment;
use lens_model::Nanos;
use lens_service::env::{Abandoned, Env};
use lens_service::shutdown::Shutdown;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug_span, error, info, warn};

use crate::admin::Admin;
use crate::config::Config;
use crate::exemplars::Waiting;
use crate::flags::Flags;
use crate::harvest::Harvester;
use crate::hindsight::{self, Hindsight};
use crate::link::{self, Beside};
use crate::spool::{DurableSpool, Outbox, SharedSpool, SpoolError};
use crate::status::Status;

/// Longest a drain may take before the agent ends all the same.
const DRAIN_MAX: Duration = Duration::from_secs(8);

/// Why an agent did not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The spool cannot be used.
    #[error(
        "spool.dir {dir}: {source}: name a directory on a disk that this agent alone may write"
    )]
    Spool {
        /// The directory.
        dir: String,
        /// What was wrong with it.
        source: SpoolError,
    },
    /// Opening the spool gave nothing back.
    #[error(transparent)]
    Abandoned(#[from] Abandoned),
}

/// An agent that is about to run.
#[derive(Debug)]
pub struct Agent {
    env: Env,
    config: Arc<Config>,
    status: Arc<Status>,
    spool: Arc<DurableSpool>,
    flags: Arc<Flags>,
}

/// Runs an agent until shutdown, then drains it; whether everything spooled was acknowledged.
///
/// # Errors
/// [`StartError`].
pub async fn run_on(
    env: Env,
    config: Arc<Config>,
    shutdown: &Shutdown,
) -> Result<bool, StartError> {
    Ok(Agent::open(env, config).await?.run(shutdown).await)
}

impl Agent {
    /// Opens the spool.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn open(env: Env, config: Arc<Config>) -> Result<Self, StartError> {
        let job = {
            let (env, config) = (env.clone(), Arc::clone(&config));
            move || {
                let agent = &config.identity.agent;
                DurableSpool::open(&env, &config.spool_dir, config.spool_bytes_max, agent)
            }
        };
        let opened = env.blocking(job).await?;
        let flags = {
            let (env, config) = (env.clone(), Arc::clone(&config));
            let domain = config.identity.trust_domain.clone();
            move || Flags::open(&env, &config.control_dir, domain, config.control_key)
        };
        let (spool, recovered) = opened.map_err(|source| StartError::Spool {
            dir: config.spool_dir.display().to_string(),
            source,
        })?;
        if let Some(why) = &recovered.renewed {
            warn!(
                why,
                lost = recovered.deltas_lost,
                "the spool lost something, and asks what was merged"
            );
        }
        info!(
            created = recovered.created,
            deltas = recovered.deltas,
            segments = recovered.segments,
            repaired = recovered.repaired,
            torn_bytes = recovered.torn_bytes,
            "spool open"
        );
        let identity = config.identity.to_string();
        let status = Arc::new(Status::new(env.now(), identity, recovered));
        let flags = Arc::new(env.blocking(flags).await?);
        Ok(Self { env, config, status, spool: Arc::new(spool), flags })
    }

    /// What the admin endpoints show of it.
    pub fn admin(&self) -> Admin {
        Admin {
            status: Arc::clone(&self.status),
            spool: Arc::clone(&self.spool),
            flags: Arc::clone(&self.flags),
        }
    }

    /// Who is in the canary, for whoever routes requests on this host.
    pub fn assignment(&self) -> watch::Receiver<Assignment> {
        self.flags.assignment()
    }

    /// Runs until shutdown, then drains; whether everything spooled was acknowledged.
    pub async fn run(self, shutdown: &Shutdown) -> bool {
        let shared = SharedSpool::new(Arc::clone(&self.spool) as Arc<dyn Outbox>);
        let (tell_drained, drained) = Shutdown::manual();
        let slow = Arc::<Waiting>::default();
        let harvester = Harvester::new(
            self.env.clone(),
            self.config.segments_dir.clone(),
            &self.config.zone,
            Arc::clone(&self.status),
            Arc::clone(&self.spool),
            Arc::clone(&shared.changed),
        )
        .telling(self.flags.pages())
        .exemplifying(Arc::clone(&slow));
        let hindsight = self.config.hindsight.map(|bounds| Arc::new(Hindsight::new(bounds)));
        let mut looking = JoinSet::new();
        if let Some(held) = &hindsight {
            self.status.hindsight.get_or_init(|| Arc::clone(held));
            looking.spawn(hindsight::run(
                self.env.clone(),
                Arc::clone(held),
                self.config.segments_dir.clone(),
                self.config.zone.clone(),
                self.config.scan_interval,
            ));
        }
        let mut telling = JoinSet::new();
        telling.spawn(Arc::clone(&self.flags).run());
        let mut link = JoinSet::new();
        link.spawn(link::run(
            self.env.clone(),
            Arc::clone(&self.config),
            shared,
            Arc::clone(&self.status),
            Beside { flags: Arc::clone(&self.flags), slow, hindsight },
            drained,
        ));
        self.harvest_until(harvester, shutdown).await;
        info!("draining");
        // The last harvest is spooled: the link may finish once it is acknowledged.
        tell_drained.begin();
        let complete = matches!(timeout(DRAIN_MAX, link.join_next()).await, Ok(Some(Ok(true))));
        let left = self.spool.level().frames;
        if !complete || left > 0 {
            warn!(left, "ended with deltas never acknowledged: the next start sends them");
        }
        complete && left == 0
    }

    /// Harvests on the whole multiples of the interval, so that intervals nest into slots, and once
    /// more at the end.
    async fn harvest_until(&self, mut harvester: Harvester, shutdown: &Shutdown) {
        let (env, config) = (&self.env, &self.config);
        let mut next_scan = Instant::now();
        loop {
            let now = env.now();
            let wait = Nanos(config.harvest_interval.0 - now.0 % config.harvest_interval.0);
            let last = tokio::select! {
                biased;
                () = sleep(wait.into()) => false,
                () = shutdown.wait() => true,
            };
            let look = last || Instant::now() >= next_scan;
            if look {
                next_scan = Instant::now() + config.scan_interval;
            }
            let clock = *self.status.clock.lock();
            // File reads and syncs: off the threads that serve the network.
            let wall = Arc::clone(&env.clock);
            let turn = env.blocking(move || {
                let _span = debug_span!("harvest", scan = look).entered();
                if look {
                    harvester.scan();
                }
                harvester.harvest(wall.now(), clock);
                harvester
            });
            match turn.await {
                Ok(back) => harvester = back,
                Err(error) => {
                    error!(%error, "harvest failed");
                    return;
                }
            }
            if last {
                self.status.draining.store(true, Ordering::Relaxed);
                return;
            }
        }
    }
}
