//! The programs that hosts run: the real agent and the real aggregator, as configured here.

use std::path::Path;
use std::sync::Arc;

use lens_agent::Agent;
use lens_aggregator::aggregator::{Aggregator, StartError};
use lens_aggregator::config::Config;
use lens_aggregator::log::PartitionLog;
use lens_aggregator::log::adversary::{AdversaryLog, Faults};
use lens_aggregator::state::State;
use lens_aggregator::store::Place;
use lens_aggregator::window::{Host, Selection};
use lens_aggregator::worker::OpenLog;
use lens_hist::Counts;
use lens_service::config::{Settings, Sources};
use lens_service::env::Env;
use lens_service::tls::IdentityFiles;
use parking_lot::Mutex;

use super::certificates::{DOMAIN, SERVER};
use super::life::Program;
use super::oracle::Sums;

/// Where the aggregator listens.
pub const QUIC_PORT: u16 = 7_443;

/// Where an agent keeps its spool.
pub const SPOOL_DIR: &str = "/spool";

/// The aggregator's state, for as long as one runs.
pub type Probe = Arc<Mutex<Option<Arc<State>>>>;

fn settings(
    keys: &'static [lens_service::config::Key],
    identity: &IdentityFiles,
    more: &[(&str, String)],
) -> Result<Settings, String> {
    let text = |path: &Path| path.display().to_string();
    let mut flags = vec![
        ("identity.cert".to_owned(), text(&identity.cert)),
        ("identity.key".to_owned(), text(&identity.key)),
        ("identity.ca".to_owned(), text(&identity.ca)),
    ];
    flags.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    let sources = Sources { flags, ..Sources::default() };
    Settings::load(keys, "LENS_WORLD", &sources).map_err(|problems| problems.to_string())
}

/// The aggregator.
///
/// # Errors
/// Its configuration is not good.
pub fn aggregator(
    identity: &IdentityFiles,
    probe: &Probe,
    adverse_log: Option<u64>,
) -> Result<impl Fn() -> Program + use<>, String> {
    let more = [
        ("quic.listen", format!("0.0.0.0:{QUIC_PORT}")),
        ("identity.trust_domain", DOMAIN.to_owned()),
        ("store.dir", "/store".to_owned()),
        ("captures.automatic", "false".to_owned()),
    ];
    let settings = settings(lens_aggregator::config::KEYS, identity, &more)?;
    let config = Config::check(&settings).map_err(|e| e.to_string())?;
    let probe = Arc::clone(probe);
    // Not on the aggregator's host: it outlives every crash there, with all its broken promises.
    let log = adverse_log.map(|seed| Arc::new(AdversaryLog::new(seed, Faults::ALL)));
    Ok(move || -> Program {
        let (config, probe, log) = (config.clone(), Arc::clone(&probe), log.clone());
        Box::new(move |env, shutdown| {
            Box::pin(async move {
                match start(env, &config, log).await {
                    Ok(aggregator) => {
                        *probe.lock() = Some(aggregator.state());
                        aggregator.run(shutdown).await;
                        *probe.lock() = None;
                    }
                    // Whoever supervises it starts it again.
                    Err(error) => tracing::warn!(%error, "aggregator not started"),
                }
            })
        })
    })
}

async fn start(
    env: Env,
    config: &Config,
    log: Option<Arc<AdversaryLog>>,
) -> Result<Aggregator, StartError> {
    let Some(log) = log else { return Aggregator::start(env, config).await };
    let place = Place::take(Arc::clone(&env.disk), config.store.clone(), env.planted)?;
    let open: OpenLog = Arc::new(move || Ok(Arc::clone(&log) as Arc<dyn PartitionLog>));
    Aggregator::start_with(env, config, place, open).await
}

/// An agent of that name, for the segments in a directory.
///
/// # Errors
/// Its configuration is not good.
pub fn agent(
    identity: &IdentityFiles,
    segments: &Path,
    spool_bytes: u64,
) -> Result<impl Fn() -> Program + use<>, String> {
    let more = [
        ("segments.dir", segments.display().to_string()),
        ("spool.dir", SPOOL_DIR.to_owned()),
        ("aggregator.endpoints", format!("{SERVER}:{QUIC_PORT}")),
        // Never asked for there, and ten steps a second for each of its agents.
        ("hindsight.span_s", "0".to_owned()),
    ];
    let settings = settings(lens_agent::config::KEYS, identity, &more)?;
    let mut config = lens_agent::config::Config::check(&settings).map_err(|e| e.to_string())?;
    // Far below what a configuration may say, so that a world of seconds fills it.
    config.spool_bytes_max = spool_bytes;
    let config = Arc::new(config);
    Ok(move || -> Program {
        let config = Arc::clone(&config);
        Box::new(move |env, shutdown| {
            Box::pin(async move {
                match Agent::open(env, config).await {
                    Ok(agent) => {
                        agent.run(&shutdown).await;
                    }
                    Err(error) => tracing::warn!(%error, "agent not started"),
                }
            })
        })
    })
}

/// What the aggregator answers now; `None` while none runs.
pub fn answers(probe: &Probe) -> Option<Sums> {
    let state = probe.lock().clone()?;
    let windows = state.windows.read();
    let mut sums = Sums::default();
    for (key, held) in windows.series() {
        for host in held.hosts {
            let host: Host = (*host).clone();
            let who = (host.agent.to_string(), host.instance.to_string(), key.clone());
            let mut counts = Counts::new();
            let selection = Selection { host: Some(host), ..Selection::series(&key) };
            windows.lifetime(&selection, &mut counts);
            sums.series.insert(who, counts);
        }
    }
    for (key, counts) in windows.requests_total() {
        sums.requests.insert(key, (counts.ok, counts.error));
    }
    Some(sums)
}
