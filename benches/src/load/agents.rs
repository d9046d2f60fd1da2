//! Many agents at once against an aggregator: real connections, real frames, synthetic latencies.
//!
//! Every agent has its own identity, socket and connection, and ships one delta a batch as a real
//! one would: names first, then counts, at most as many frames unacknowledged as it is allowed.
//! Batches have intended times; one that must wait for its turn is charged for the wait. What was
//! sent and what was acknowledged is counted, so that the receiver can be checked to the sample.
//!
//! Bounds: [`AGENTS_MAX`] agents, `FRAME_SERIES_MAX` series of each, [`VALUES_MAX`] batches.
//! Refusal: a connection that ends is not made again; its agent is counted as failed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lens_model::limits::{CONNECTIONS_MAX, FRAME_SERIES_MAX};
use lens_model::{AgentName, Arm, ParseSeriesError, SeriesKey, Slice, SpiffeId, Stage};
use lens_service::certs::{self, Subject};
use lens_service::tls::IdentityFiles;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::agents_link::{Link, Ready, Sent};
pub use super::agents_report::{AgentsError, AgentsReport, ShippedSeries};
use super::pace::wait_until;
use super::{Arrival, Distribution, Schedule, VALUES_MAX};
use crate::Quantiles;
use crate::numbers::whole;

/// Agents one run may have: as many as an aggregator keeps connections.
pub const AGENTS_MAX: usize = CONNECTIONS_MAX;

/// Samples of all series in one batch: drawing them must not keep others waiting.
pub const SAMPLES_MAX: usize = 1_000_000;

/// Connections made at once: a herd of handshakes is not what is measured.
const CONNECTING_AT_ONCE: usize = 32;

/// Longest the last acknowledgements are waited for.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// Days that a certificate issued for a run is good for.
const CERT_DAYS: u32 = 2;

/// Trust domain of issued identities.
const TRUST_DOMAIN: &str = "lens.load";

/// Whose identities the agents have.
#[derive(Clone, Debug)]
pub enum Identities {
    /// Issued for this run by the authority in a directory, files beside it.
    Issue {
        /// Directory of `ca.pem` and `ca.key`.
        dir: PathBuf,
        /// What names begin with; a number follows.
        prefix: String,
    },
    /// One that is there; only one agent can have it.
    Given(IdentityFiles),
}

/// What to send.
#[derive(Clone, Debug)]
pub struct AgentsLoad {
    /// How many agents.
    pub agents: usize,
    /// The aggregator, `host:port`.
    pub endpoint: String,
    /// The name its certificate must carry, when not the endpoint's host.
    pub server_name: Option<String>,
    /// Who the agents are.
    pub identities: Identities,
    /// Batches a second of each agent.
    pub rate_batches: f64,
    /// How batches arrive. Constant ones of all agents coincide, as harvests on whole seconds do.
    pub arrival: Arrival,
    /// Series in each batch.
    pub series: usize,
    /// Samples of each series in each batch.
    pub samples: usize,
    /// How long.
    pub duration: Duration,
    /// How latencies are distributed.
    pub distribution: Distribution,
    /// Where all choices come from.
    pub seed: u64,
}

/// The series every agent reports: eight of each slice.
///
/// # Errors
/// None for as many as a frame holds; the names are checked all the same.
fn series_keys(count: usize) -> Result<Vec<SeriesKey>, ParseSeriesError> {
    let each = Stage::ALL.len() * Arm::ALL.len();
    let key = |at: usize| {
        Ok(SeriesKey {
            slice: Slice::new("load", "synthetic", &format!("s{:03}", at / each))?,
            stage: Stage::ALL[at % Stage::ALL.len()],
            arm: Arm::ALL[at / Stage::ALL.len() % Arm::ALL.len()],
        })
    };
    (0..count).map(key).collect()
}

/// Sends until the schedule ends or `stop` completes, and waits for the acknowledgements.
///
/// # Errors
/// [`AgentsError`] when the load makes no sense, or not a single agent was let in.
pub async fn run(
    load: AgentsLoad,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<AgentsReport, AgentsError> {
    load.check()?;
    let keys: Arc<[SeriesKey]> = series_keys(load.series)?.into();
    let sampler = load.distribution.sampler()?;
    let identities = load.identities()?;
    let mut failures: BTreeMap<String, usize> = BTreeMap::new();
    let mut ready: Vec<Ready> = Vec::new();
    let turns = Arc::new(Semaphore::new(CONNECTING_AT_ONCE));
    let mut connecting = JoinSet::new();
    for (name, files) in identities {
        let (turns, load) = (Arc::clone(&turns), load.clone());
        connecting.spawn(async move {
            let _turn = turns.acquire_owned().await;
            Link::open(&load.endpoint, load.server_name.as_deref(), name, &files).await
        });
    }
    while let Some(done) = connecting.join_next().await {
        match done.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(link) => ready.push(link),
            Err(error) => *failures.entry(error).or_default() += 1,
        }
    }
    if ready.is_empty() {
        let reason = failures.into_keys().next().unwrap_or_default();
        return Err(AgentsError::Unreachable { endpoint: load.endpoint, reason });
    }
    let connected = ready.len();

    let stopped = Arc::new(AtomicBool::new(false));
    let stopper = tokio::spawn({
        let stopped = Arc::clone(&stopped);
        async move {
            stop.await;
            stopped.store(true, Ordering::Relaxed);
        }
    });
    let start = Instant::now();
    let give_up = start + load.duration + DRAIN_MAX;
    let (mut lanes, mut shipping) = (Vec::new(), JoinSet::new());
    for (at, link) in ready.into_iter().enumerate() {
        let (to, intended) = mpsc::unbounded_channel();
        lanes.push(to);
        let batch = super::agents_link::Batch {
            keys: Arc::clone(&keys),
            samples: load.samples,
            sampler: sampler.clone(),
            seed: load.seed.wrapping_add(2 + at as u64),
            interval: Duration::from_secs_f64(1.0 / load.rate_batches),
        };
        shipping.spawn(link.ship(batch, start, intended, give_up));
    }
    let offered = tokio::task::spawn_blocking({
        let (load, stopped) = (load.clone(), Arc::clone(&stopped));
        move || pace(&load, start, &lanes, &stopped)
    });
    let mut sent = Vec::new();
    while let Some(done) = shipping.join_next().await {
        let done = done.unwrap_or_else(|error| Sent::failed(error.to_string()));
        if let Some(reason) = &done.failed {
            *failures.entry(reason.clone()).or_default() += 1;
        }
        sent.push(done);
    }
    let offered = offered.await.unwrap_or(0);
    stopper.abort();
    let elapsed_s = start.elapsed().as_secs_f64();
    let stopped_early = stopped.load(Ordering::Relaxed);
    Ok(report(&load, &keys, &sent, failures, connected, offered, elapsed_s, stopped_early))
}

/// Tells each agent its intended times as they come, on a thread that wakes on time; gives how
/// many were told.
fn pace(
    load: &AgentsLoad,
    start: Instant,
    lanes: &[mpsc::UnboundedSender<u64>],
    stop: &AtomicBool,
) -> u64 {
    let mut schedules: Vec<Schedule> = (0..lanes.len())
        .map(|lane| {
            let seed = load.seed.wrapping_add(1).wrapping_mul(lane as u64 + 1);
            Schedule::new(load.arrival, load.rate_batches, load.duration, seed)
        })
        .collect();
    let mut next = BinaryHeap::new();
    for (lane, schedule) in schedules.iter_mut().enumerate() {
        next.extend(schedule.next().map(|at| Reverse((at, lane))));
    }
    let mut offered = 0;
    while let Some(Reverse((at, lane))) = next.pop() {
        if !wait_until(start, at, stop) {
            break;
        }
        // An agent whose connection ended takes nothing more; what it was offered still counts.
        lanes[lane].send(at).ok();
        offered += 1;
        next.extend(schedules[lane].next().map(|at| Reverse((at, lane))));
    }
    offered
}

#[expect(clippy::too_many_arguments, reason = "everything a run came to, put together once")]
fn report(
    load: &AgentsLoad,
    keys: &[SeriesKey],
    sent: &[Sent],
    failures: BTreeMap<String, usize>,
    connected: usize,
    offered: u64,
    elapsed_s: f64,
    stopped_early: bool,
) -> AgentsReport {
    let sum = |count: fn(&Sent) -> u64| sent.iter().map(count).sum::<u64>();
    let all = |values: fn(&Sent) -> &Vec<u64>| -> Quantiles {
        let mut all: Vec<u64> = sent.iter().flat_map(values).copied().collect();
        Quantiles::of(&mut all)
    };
    let (batches_sent, batches_acknowledged) = (sum(|one| one.sent), sum(|one| one.acknowledged));
    let samples = load.samples as u64;
    let series = keys.iter().map(|key| ShippedSeries {
        key: key.clone(),
        sent: batches_sent * samples,
        acknowledged: batches_acknowledged * samples,
    });
    let series: Vec<ShippedSeries> = series.collect();
    AgentsReport {
        seed: load.seed,
        agents: load.agents,
        connected,
        failures,
        batches_offered: offered,
        batches_sent,
        batches_unsent: offered.saturating_sub(batches_sent),
        batches_acknowledged,
        samples_sent: series.iter().map(|series| series.sent).sum(),
        samples_acknowledged: series.iter().map(|series| series.acknowledged).sum(),
        bytes_sent: sum(|one| one.bytes),
        elapsed_s,
        stopped_early,
        from_intended: all(|one| &one.from_intended),
        from_send: all(|one| &one.from_send),
        series,
    }
}

impl AgentsLoad {
    fn check(&self) -> Result<(), AgentsError> {
        for (what, value, most) in [
            ("--n", self.agents, AGENTS_MAX),
            ("--series", self.series, FRAME_SERIES_MAX),
            ("--samples", self.samples, SAMPLES_MAX / self.series.clamp(1, FRAME_SERIES_MAX)),
        ] {
            if !(1..=most).contains(&value) {
                return Err(AgentsError::Bounds { what, value, most });
            }
        }
        let batches = whole(self.agents as f64 * self.rate_batches * self.duration.as_secs_f64());
        if batches > VALUES_MAX as u64 {
            return Err(AgentsError::TooMany { batches });
        }
        match &self.identities {
            Identities::Given(_) if self.agents > 1 => Err(AgentsError::Shared),
            _ => Ok(()),
        }
    }

    /// A name and its files for each agent.
    fn identities(&self) -> Result<Vec<(AgentName, IdentityFiles)>, AgentsError> {
        match &self.identities {
            Identities::Given(files) => {
                let id = lens_service::tls::identity_of_file(&files.cert)?;
                Ok(vec![(id.agent, files.clone())])
            }
            Identities::Issue { dir, prefix } => (0..self.agents)
                .map(|number| {
                    let agent = AgentName::new(&format!("{prefix}-{number:04}"))?;
                    let trust_domain = lens_model::TrustDomain::new(TRUST_DOMAIN)?;
                    let id = SpiffeId { trust_domain, agent: agent.clone() };
                    // Issued anew each time: one that is left from an earlier run may be too old.
                    let name = agent.as_str();
                    let files = certs::issue(dir, name, &Subject::Agent(id), CERT_DAYS, true)?;
                    Ok((agent, IdentityFiles { cert: files.cert, key: files.key, ca: files.ca }))
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load() -> AgentsLoad {
        AgentsLoad {
            agents: 2,
            endpoint: "127.0.0.1:1".into(),
            server_name: None,
            identities: Identities::Issue { dir: "/nonexistent".into(), prefix: "load".into() },
            rate_batches: 1.0,
            arrival: Arrival::Constant,
            series: 8,
            samples: 1,
            duration: Duration::from_secs(1),
            distribution: Distribution::Constant(Duration::from_millis(5)),
            seed: 1,
        }
    }

    #[test]
    fn series_are_all_different() {
        let keys = series_keys(FRAME_SERIES_MAX).unwrap();
        let different: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(different.len(), FRAME_SERIES_MAX);
    }

    #[test]
    fn a_load_that_makes_no_sense_is_refused_with_what_would() {
        let refused = |load: AgentsLoad| load.check().unwrap_err().to_string();
        assert!(refused(AgentsLoad { agents: 0, ..load() }).contains("--n is 0"));
        let text = refused(AgentsLoad { series: FRAME_SERIES_MAX + 1, ..load() });
        assert!(text.contains("--series") && text.contains("4096"), "{text}");
        let text = refused(AgentsLoad { series: 1_000, samples: 1_001, ..load() });
        assert!(text.contains("--samples is 1001; use 1 to 1000"), "{text}");
        let text = refused(AgentsLoad { rate_batches: 2e7, ..load() });
        assert!(text.contains("--rate-batches"), "{text}");
        let files = IdentityFiles { cert: "a".into(), key: "b".into(), ca: "c".into() };
        let text = refused(AgentsLoad { identities: Identities::Given(files), ..load() });
        assert!(text.contains("--certs"), "{text}");
        assert!(load().check().is_ok());
    }

    #[tokio::test]
    async fn a_directory_without_an_authority_is_named() {
        let error = run(load(), std::future::pending()).await.unwrap_err();
        assert!(error.to_string().contains("/nonexistent"), "{error}");
    }
}
