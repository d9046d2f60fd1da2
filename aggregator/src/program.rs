//! The program: flags, configuration, the tasks, and how they end.

use std::path::PathBuf;
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
use lens_service::supervise;
use lens_service::tls::{self, HttpsFiles, IdentityFiles, Stamp, TlsError};
use tracing::{error, info};

use crate::aggregator::Aggregator;
use crate::audit::Audit;
use crate::auth::Gate;
use crate::config::{AuthConfig, Config, KEYS, PREFIX};
use crate::listen::Renewal;
use crate::reload;
use crate::security::{Revocations, Security};
use crate::serve::Tls;
use crate::state::State;

/// Longest open requests are waited for at shutdown.
const DRAIN_MAX: Duration = Duration::from_secs(3);

/// Longest that sealing and judging one slot may take before the watchdog is no longer answered.
const TURN_MAX: Duration = Duration::from_secs(30);

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
    // Before anything is read: what changes from now on is noticed.
    let look = watched(&config);
    let looked = look();
    let security = match secured(&env, &config) {
        Ok(security) => security,
        Err(error) => {
            error!("{error}");
            return Exit::Usage;
        }
    };
    let tls = match https(&env, &config) {
        Ok(tls) => tls,
        Err(error) => {
            error!("{error}");
            return Exit::Usage;
        }
    };
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
    let carrier = config.otlp.as_ref().map(|otlp| crate::export::otlp::carrier(&env, otlp));
    let carrier = match carrier.transpose() {
        Ok(carrier) => carrier,
        Err(error) => {
            error!("otlp.endpoint: {error}");
            return Exit::Usage;
        }
    };
    let aggregator = match Aggregator::start_secured(env, &config, security).await {
        Ok(aggregator) => aggregator,
        Err(error) => {
            error!("{error}");
            return Exit::Usage;
        }
    };
    let state = aggregator.state();
    crate::telemetry::observe(&state);
    let address =
        |at: std::io::Result<std::net::SocketAddr>| at.map(|at| at.to_string()).unwrap_or_default();
    let (quic, api) = (address(aggregator.address()), address(http.local_addr()));
    info!(quic, http = api, "lens-aggregator {}", env!("CARGO_PKG_VERSION"));
    // One line for a parent process that let the system choose ports.
    println!("{}", serde_json::json!({"event": "ready", "quic": quic, "http": api}));
    renewing(&state, &config.identity, aggregator.renewal(&config), tls.clone());
    let watched = tokio::spawn(reload::watch(Arc::clone(&state), looked, look));
    match lens_service::shutdown::hangups() {
        Ok(mut hangups) => {
            let state = Arc::clone(&state);
            tokio::spawn(async move {
                while hangups.recv().await.is_some() {
                    reload::everything(&state).await;
                }
            });
        }
        Err(error) => error!(%error, "SIGHUP cannot be handled"),
    }
    let (counted, turn_max) = (Arc::clone(&state), TURN_MAX + Duration::from(config.base));
    let rounds = move || counted.rounds.load(Ordering::Relaxed);
    let supervised = tokio::spawn(supervise::watched(rounds, turn_max, shutdown.clone()));
    let signing = tokio::spawn(state.security.audit.clone().keep_signed(shutdown.clone()));
    let running = tokio::spawn(aggregator.run(shutdown.clone()));
    let exporting = config.otlp.clone().zip(carrier).map(|(otlp, carrier)| {
        let (stop, stopped) = Shutdown::manual();
        (stop, tokio::spawn(crate::export::otlp::run(Arc::clone(&state), otlp, carrier, stopped)))
    });
    let router = crate::api::router(Arc::clone(&state));
    let http =
        tokio::spawn(crate::serve::serve(http, tls.map(|(tls, _)| tls), router, shutdown.clone()));
    supervise::ready(&format!("agents at {quic}, page at {api}"));
    shutdown.wait().await;
    drop(supervised.await);
    state.draining.store(true, Ordering::Relaxed);
    info!("draining");
    drop(tokio::time::timeout(DRAIN_MAX * 2, running).await);
    // What was merged last is exported as well.
    if let Some((stop, exporting)) = exporting {
        stop.begin();
        drop(tokio::time::timeout(DRAIN_MAX, exporting).await);
    }
    // Event streams never end by themselves; the rest is answered by then.
    drop(tokio::time::timeout(DRAIN_MAX, http).await);
    watched.abort();
    drop(tokio::time::timeout(DRAIN_MAX, signing).await);
    // What the last requests changed is under a signed head as well.
    state.security.audit.sign().await;
    Exit::Done
}

/// What looks at the files that may change while this runs.
fn watched(config: &Config) -> impl Fn() -> reload::Stamps + Clone + Send + use<> {
    let own = &config.identity;
    let mut certificates = vec![own.cert.clone(), own.key.clone(), own.ca.clone()];
    let mut tokens = None;
    match &config.auth {
        AuthConfig::Mtls { operator_ca, .. } => certificates.extend(operator_ca.clone()),
        AuthConfig::Tokens(file) => tokens = Some(file.clone()),
        AuthConfig::None => {}
    }
    let revoked = config.revoked.clone();
    move || reload::Stamps {
        certificates: Stamp::of(certificates.iter().map(PathBuf::as_path)),
        tokens: Stamp::of(tokens.as_deref()),
        revoked: Stamp::of(revoked.as_deref()),
    }
}

/// What keeps strangers out, as configured.
fn secured(env: &Env, config: &Config) -> Result<Security, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let gate = match &config.auth {
        AuthConfig::None => Gate::default(),
        AuthConfig::Tokens(file) => Gate::tokens(file).map_err(|e| format!("auth.tokens {e}"))?,
        AuthConfig::Mtls { operators, .. } => Gate::certificates(operators.clone()),
    };
    let audit = match &config.audit {
        Some(places) => Audit::open(env, places).map_err(|error| text(&error))?,
        None => Audit::off(),
    };
    let revocations = Revocations::new(config.revoked.clone());
    // A list that cannot be read at the start might keep out someone who would then be let in.
    revocations.load(env).map_err(|error| format!("identity.revoked {error}"))?;
    Ok(Security { gate, audit, revocations, ..Security::default() })
}

/// TLS of the HTTP door, with the files it is made of; `None` where it is plain.
fn https(env: &Env, config: &Config) -> Result<Option<(Tls, HttpsFiles)>, TlsError> {
    let AuthConfig::Mtls { operator_ca, .. } = &config.auth else { return Ok(None) };
    let files = HttpsFiles {
        identity: config.identity.clone(),
        operator_ca: operator_ca.clone(),
        trust_domain: config.trust_domain.clone(),
    };
    let tls = tls::https(&files, env.net.crypto())?;
    Ok(Some((Arc::new(arc_swap::ArcSwap::from_pointee(tls)), files)))
}

/// Makes renewed certificates be taken up at both doors, or at neither.
fn renewing(
    state: &Arc<State>,
    files: &IdentityFiles,
    renewal: Renewal,
    tls: Option<(Tls, HttpsFiles)>,
) {
    let note = |state: &State, cert: &std::path::Path| -> Result<(), TlsError> {
        let end = tls::expiry_of_file(cert)?;
        state.certificate_expires.store(end.0, Ordering::Relaxed);
        Ok(())
    };
    if let Err(error) = note(state, &files.cert) {
        error!(%error, "when the certificate ends is not known");
    }
    let (weak, cert) = (Arc::downgrade(state), files.cert.clone());
    let renew = move || {
        let Some(state) = weak.upgrade() else { return Ok(()) };
        let fresh = tls.as_ref().map(|(_, files)| tls::https(files, state.env.net.crypto()));
        let fresh = fresh.transpose().map_err(|error| error.to_string())?;
        renewal.renew().map_err(|error| error.to_string())?;
        if let (Some((tls, _)), Some(fresh)) = (&tls, fresh) {
            tls.store(Arc::new(fresh));
        }
        note(&state, &cert).map_err(|error| error.to_string())
    };
    // The first stays: there is one listener.
    drop(state.renew.set(Arc::new(renew)));
}
