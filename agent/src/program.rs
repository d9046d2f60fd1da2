//! The program: flags, configuration, the tasks, and how they end.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Parser;
use lens_service::args::ServiceArgs;
use lens_service::env::Env;
use lens_service::exit::Exit;
use lens_service::program::Program;
use lens_service::shutdown::Shutdown;
use lens_service::supervise;
use tracing::{error, info, warn};

use crate::admin;
use crate::agent::Agent;
use crate::config::{Config, KEYS, PREFIX};
use crate::ingest::Ingest;
use crate::proxy::{Proxy, ProxyError};
use crate::status::Status;

/// Longest that one harvest may take before the watchdog is no longer answered.
const HARVEST_MAX: Duration = Duration::from_secs(30);

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
    let config = Arc::new(config);
    // A second signal means now: nothing has anything to save that the spool does not hold.
    #[allow(clippy::exit)]
    let shutdown = match Shutdown::on_signals(|| std::process::exit(130)) {
        Ok(shutdown) => shutdown,
        Err(error) => {
            error!(%error, "signals cannot be handled");
            return Exit::Internal;
        }
    };
    let agent = match Agent::open(env.clone(), Arc::clone(&config)).await {
        Ok(agent) => agent,
        Err(error) => {
            error!("{error}");
            return Exit::Usage;
        }
    };
    crate::telemetry::observe(&agent.admin().status);
    let listener = match admin::listen(config.admin_listen).await {
        Ok(listener) => listener,
        Err(error) => {
            error!("{error}");
            return Exit::Usage;
        }
    };
    let proxy = match open_proxy(&config, &agent).await {
        Ok(proxy) => proxy,
        Err(error) => {
            error!("{error}");
            return Exit::Usage;
        }
    };
    let listening = listener.local_addr().map(|at| at.to_string()).unwrap_or_default();
    let proxied = proxy.as_ref().and_then(|proxy| proxy.address().ok()).map(|at| at.to_string());
    info!(
        identity = %config.identity,
        segments = %config.segments_dir.display(),
        spool = %config.spool_dir.display(),
        admin = listening,
        proxy = proxied,
        "lens-agent {}",
        env!("CARGO_PKG_VERSION"),
    );
    let status = agent.admin().status;
    let ingest = match Ingest::start(&env, &config.ingest, &config.segments_dir, &status).await {
        Ok(ingest) => ingest,
        Err(error) => {
            error!("{error}");
            return Exit::Usage;
        }
    };
    // One line for a parent process that let the system choose the ports.
    println!(
        "{}",
        serde_json::json!({"event": "ready", "admin": listening, "ingest": ingest.bound, "proxy": proxied})
    );
    let (stop_admin, admin_stopped) = Shutdown::manual();
    let admin = tokio::spawn(admin::serve(listener, agent.admin(), async move {
        admin_stopped.wait().await;
    }));
    let _hangups = lens_service::shutdown::hangups().map_or_else(
        |error| {
            warn!(%error, "SIGHUP cannot be handled");
            None
        },
        |hangups| Some(tokio::spawn(note_hangups(hangups, agent.admin().status))),
    );
    let shutdown = after_proxy(proxy, shutdown);
    let status = agent.admin().status;
    let rounds = move || {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        count(&status.counters.harvests_total) + count(&status.counters.harvests_paused_total)
    };
    let round_max = HARVEST_MAX + Duration::from(config.harvest_interval);
    let supervised = tokio::spawn(supervise::watched(rounds, round_max, shutdown.clone()));
    supervise::ready(&format!("harvesting {}", config.segments_dir.display()));
    // Listeners stop first, so that the last harvest finds all that was answered.
    let (harvest_last, stop_harvesting) = Shutdown::manual();
    let drain = tokio::spawn(async move {
        shutdown.wait().await;
        ingest.stop().await;
        harvest_last.begin();
    });
    agent.run(&stop_harvesting).await;
    drop(drain.await);
    drop(supervised.await);
    stop_admin.begin();
    drop(tokio::time::timeout(Duration::from_secs(1), admin).await);
    Exit::Done
}

/// The proxy, where it is on.
async fn open_proxy(config: &Config, agent: &Agent) -> Result<Option<Proxy>, ProxyError> {
    let Some(proxy) = config.proxy.clone() else { return Ok(None) };
    let name = config.identity.agent.as_str();
    let proxy = Proxy::open(proxy, &config.segments_dir, name, agent.assignment()).await?;
    // Set once, here.
    agent.admin().status.proxy.set(proxy.counters()).ok();
    Ok(Some(proxy))
}

/// Runs the proxy; the shutdown that begins once it has let its requests end and closed its segment,
/// so that the agent's last harvest has all of them.
fn after_proxy(proxy: Option<Proxy>, shutdown: Shutdown) -> Shutdown {
    let Some(proxy) = proxy else { return shutdown };
    let (ended, after) = Shutdown::manual();
    tokio::spawn(async move {
        proxy.run(shutdown.clone()).await;
        shutdown.wait().await;
        ended.begin();
    });
    after
}

async fn note_hangups(mut hangups: tokio::signal::unix::Signal, status: Arc<Status>) {
    while hangups.recv().await.is_some() {
        info!("certificates are taken up anew; nothing else to reload");
        status.reload.notify_one();
    }
}
