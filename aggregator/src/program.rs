//! The program: flags, configuration, the tasks, and how they end.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Parser;
use lens_service::args::ServiceArgs;
use lens_service::env::Env;
use lens_service::exit::Exit;
use lens_service::program::Program;
use lens_service::shutdown::Shutdown;
use tracing::{error, info};

use crate::config::{Config, KEYS, PREFIX};
use crate::ingest::Ingest;
use crate::listen::Listener;
use crate::state::State;
use crate::window::Windows;

/// Longest open requests are waited for at shutdown.
const DRAIN_MAX: Duration = Duration::from_secs(3);

/// lens-aggregator: merges the deltas of agents exactly and serves API and page.
#[derive(Parser, Debug)]
#[command(name = "lens-aggregator", version, about)]
pub struct Args {
    /// Configuration.
    #[command(flatten)]
    pub service: ServiceArgs,
}

/// Parses the process's arguments and runs.
pub fn main() -> ExitCode {
    run(&Args::parse().service).into()
}

/// Runs the aggregator until it is told to stop.
pub fn run(args: &ServiceArgs) -> Exit {
    let program =
        Program { name: "lens-aggregator", keys: KEYS, prefix: PREFIX, worker_threads: None };
    program.run(args, Config::check, serve)
}

#[allow(clippy::print_stdout)]
async fn serve(config: Config) -> Exit {
    // A second signal means now: there is nothing in memory that agents would not send again.
    #[allow(clippy::exit)]
    let shutdown = match Shutdown::on_signals(|| std::process::exit(130)) {
        Ok(shutdown) => shutdown,
        Err(error) => {
            error!(%error, "signals cannot be handled");
            return Exit::Internal;
        }
    };
    let windows = Windows::new(config.base, config.lateness);
    let env = Env::system();
    let now = env.now();
    let state = Arc::new(State::new(env.clone(), config.rules, windows, now));
    let ingest = Arc::new(Ingest::new(Arc::clone(&state)));
    let http = match tokio::net::TcpListener::bind(config.http_listen).await {
        Ok(http) => http,
        Err(error) => {
            error!(
                "http.listen {}: {error}: stop what listens there, or choose another port",
                config.http_listen
            );
            return Exit::Usage;
        }
    };
    let opened = Listener::open(config.quic_listen, &config.identity, config.trust_domain, ingest);
    let listener = match opened {
        Ok(listener) => listener,
        Err(error) => {
            error!("{error}");
            return Exit::Usage;
        }
    };
    let address =
        |at: std::io::Result<std::net::SocketAddr>| at.map(|at| at.to_string()).unwrap_or_default();
    let (quic, api) = (address(listener.address()), address(http.local_addr()));
    info!(quic, http = api, "lens-aggregator {}", env!("CARGO_PKG_VERSION"));
    // One line for a parent process that let the system choose ports.
    println!("{}", serde_json::json!({"event": "ready", "quic": quic, "http": api}));
    match lens_service::shutdown::hangups() {
        Ok(mut hangups) => {
            let renewal = listener.renewal(&config.identity);
            tokio::spawn(async move {
                while hangups.recv().await.is_some() {
                    match renewal.renew() {
                        Ok(()) => info!("certificates read anew, for connections to come"),
                        Err(error) => error!(%error, "certificates not renewed, the old ones stay"),
                    }
                }
            });
        }
        Err(error) => error!(%error, "SIGHUP cannot be handled"),
    }
    let listening = tokio::spawn(listener.run(shutdown.clone()));
    let ticking = tokio::spawn(tick(env, Arc::clone(&state), shutdown.clone()));
    let served =
        axum::serve(http, crate::api::router(Arc::clone(&state))).with_graceful_shutdown({
            let (shutdown, state) = (shutdown.clone(), Arc::clone(&state));
            async move {
                shutdown.wait().await;
                state.draining.store(true, Ordering::Relaxed);
            }
        });
    let http = tokio::spawn(async move { served.await });
    shutdown.wait().await;
    info!("draining");
    drop(tokio::time::timeout(DRAIN_MAX * 2, listening).await);
    // Event streams never end by themselves; the rest is answered by then.
    drop(tokio::time::timeout(DRAIN_MAX, http).await);
    ticking.abort();
    Exit::Done
}

/// Seals and trims windows, and tells of verdicts that changed, once a slot.
async fn tick(env: Env, state: Arc<State>, shutdown: Shutdown) {
    let base = state.windows.read().base();
    let mut watch = crate::judge::Watch::new();
    let mut ticks = tokio::time::interval(base.into());
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! { biased; () = shutdown.wait() => return, _ = ticks.tick() => {} }
        let state = Arc::clone(&state);
        // Sealing and judging walk every series: off the threads that serve the network.
        let turn = env.blocking(move || {
            let now = state.now();
            state.windows.write().advance(now);
            watch.tick(&state, &crate::snapshot::Snapshot::take(&state, now));
            watch
        });
        match turn.await {
            Ok(back) => watch = back,
            Err(error) => {
                error!(%error, "windows are no longer sealed");
                return;
            }
        }
    }
}
