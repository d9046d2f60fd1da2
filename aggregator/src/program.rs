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

use crate::aggregator::Aggregator;
use crate::config::{Config, KEYS, PREFIX};

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
    let env = Env::system();
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
    let aggregator = match Aggregator::start(env, &config).await {
        Ok(aggregator) => aggregator,
        Err(error) => {
            error!("{error}");
            return Exit::Usage;
        }
    };
    let state = aggregator.state();
    let address =
        |at: std::io::Result<std::net::SocketAddr>| at.map(|at| at.to_string()).unwrap_or_default();
    let (quic, api) = (address(aggregator.address()), address(http.local_addr()));
    info!(quic, http = api, "lens-aggregator {}", env!("CARGO_PKG_VERSION"));
    // One line for a parent process that let the system choose ports.
    println!("{}", serde_json::json!({"event": "ready", "quic": quic, "http": api}));
    match lens_service::shutdown::hangups() {
        Ok(mut hangups) => {
            let renewal = aggregator.renewal(&config);
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
    let running = tokio::spawn(aggregator.run(shutdown.clone()));
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
    drop(tokio::time::timeout(DRAIN_MAX * 2, running).await);
    // Event streams never end by themselves; the rest is answered by then.
    drop(tokio::time::timeout(DRAIN_MAX, http).await);
    Exit::Done
}
