//! The program: flags, configuration, the tasks, and how they end.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Parser;
use lens_model::Nanos;
use lens_service::args::ServiceArgs;
use lens_service::env::Env;
use lens_service::exit::Exit;
use lens_service::program::Program;
use lens_service::shutdown::Shutdown;
use lens_service::time::rfc3339;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::{error, info, warn};

use crate::admin::{self, Admin};
use crate::config::{Config, KEYS, PREFIX};
use crate::harvest::Harvester;
use crate::link;
use crate::spool::{MemorySpool, SharedSpool};
use crate::status::Status;

/// Longest a drain may take before the process ends all the same.
const DRAIN_MAX: Duration = Duration::from_secs(8);

/// lens-agent: harvests the latency segments of search nodes and ships them to an aggregator.
#[derive(Parser, Debug)]
#[command(name = "lens-agent", version, about)]
pub struct Args {
    /// Configuration.
    #[command(flatten)]
    pub service: ServiceArgs,
}

/// Parses the process's arguments and runs.
pub fn main() -> ExitCode {
    run(&Args::parse().service).into()
}

/// Runs the agent until it is told to stop.
pub fn run(args: &ServiceArgs) -> Exit {
    let program =
        Program { name: "lens-agent", keys: KEYS, prefix: PREFIX, worker_threads: Some(2) };
    program.run(args, Config::check, serve)
}

#[allow(clippy::print_stdout)]
async fn serve(config: Config) -> Exit {
    let env = Env::system();
    let incarnation = match env.incarnation() {
        Ok(incarnation) => incarnation,
        Err(error) => {
            error!(%error, "no randomness");
            return Exit::Internal;
        }
    };
    let config = Arc::new(config);
    let status = Arc::new(Status::new(env.now(), config.identity.to_string(), incarnation));
    let spool = MemorySpool::new(incarnation, config.spool_frames_max, config.spool_bytes_max);
    let shared = SharedSpool {
        spool: Arc::new(Mutex::new(Box::new(spool))),
        changed: Arc::new(Notify::new()),
    };
    // A second signal means now: no destructor has anything to save that the segments do not hold.
    #[allow(clippy::exit)]
    let shutdown = match Shutdown::on_signals(|| std::process::exit(130)) {
        Ok(shutdown) => shutdown,
        Err(error) => {
            error!(%error, "signals cannot be handled");
            return Exit::Internal;
        }
    };
    let listener = match admin::listen(config.admin_listen).await {
        Ok(listener) => listener,
        Err(error) => {
            error!("{error}");
            return Exit::Usage;
        }
    };
    let listening = listener.local_addr().map(|at| at.to_string()).unwrap_or_default();
    info!(
        identity = %config.identity,
        segments = %config.segments_dir.display(),
        admin = listening,
        started = rfc3339(status.started),
        "lens-agent {}",
        env!("CARGO_PKG_VERSION"),
    );
    // One line for a parent process that let the system choose the port.
    println!("{}", serde_json::json!({"event": "ready", "admin": listening}));
    let served = Admin { status: Arc::clone(&status), shared: shared.clone() };
    let (stop_admin, admin_stopped) = Shutdown::manual();
    let admin = tokio::spawn(admin::serve(listener, served, async move {
        admin_stopped.wait().await;
    }));
    let (tell_drained, drained) = Shutdown::manual();
    let link = tokio::spawn(link::run(
        env.clone(),
        Arc::clone(&config),
        shared.clone(),
        Arc::clone(&status),
        drained,
    ));
    match lens_service::shutdown::hangups() {
        Ok(mut hangups) => {
            tokio::spawn(async move {
                while hangups.recv().await.is_some() {
                    info!(
                        "certificates are read anew with each connection; nothing else to reload"
                    );
                }
            });
        }
        Err(error) => warn!(%error, "SIGHUP cannot be handled"),
    }
    let harvester = Harvester::new(
        env.clone(),
        config.segments_dir.clone(),
        config.identity.agent.as_str(),
        &config.zone,
        Arc::clone(&status),
        shared.clone(),
    );
    let harvester = harvest_until(&env, &config, harvester, &status, &shutdown).await;
    info!("draining");
    // The last harvest is spooled: the link may finish once it is acknowledged.
    tell_drained.send_replace(true);
    let complete = tokio::time::timeout(DRAIN_MAX, link).await;
    stop_admin.send_replace(true);
    drop(tokio::time::timeout(Duration::from_secs(1), admin).await);
    let left = shared.spool.lock().level().frames;
    if !matches!(complete, Ok(Ok(true))) || left > 0 {
        warn!(left, "ended with deltas the aggregator never acknowledged");
    } else if let Some(harvester) = harvester {
        harvester.stopped();
    }
    Exit::Done
}

/// Harvests on the whole multiples of the interval, so that intervals nest into slots, and once
/// more at the end; gives the harvester back unless it failed.
async fn harvest_until(
    env: &Env,
    config: &Config,
    mut harvester: Harvester,
    status: &Arc<Status>,
    shutdown: &Shutdown,
) -> Option<Harvester> {
    let mut next_scan = tokio::time::Instant::now();
    loop {
        let now = env.now();
        let wait = Nanos(config.harvest_interval.0 - now.0 % config.harvest_interval.0);
        let last = tokio::select! {
            biased;
            () = tokio::time::sleep(wait.into()) => false,
            () = shutdown.wait() => true,
        };
        let look = last || tokio::time::Instant::now() >= next_scan;
        if look {
            next_scan = tokio::time::Instant::now() + config.scan_interval;
        }
        let clock = *status.clock.lock();
        // File reads: off the threads that serve the network.
        let wall = Arc::clone(&env.clock);
        let turn = env.blocking(move || {
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
                return None;
            }
        }
        if last {
            status.draining.store(true, Ordering::Relaxed);
            return Some(harvester);
        }
    }
}
