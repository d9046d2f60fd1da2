//! Processor time from counts to merged counts, both sides together: ours over QUIC with mutual
//! TLS on loopback, OTLP over gRPC with mutual TLS beside it.
//!
//! Ours is the agent's own link and the aggregator's own listener and ingest, unchanged; only the
//! spool is the bench's, and encodes a batch when the link asks for it. OTLP is what everybody
//! runs: a tonic client with 16 exports in flight, a tonic server that adds to windows.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lens_agent::config::Config;
use lens_agent::flags::Flags;
use lens_agent::link;
use lens_agent::spool::{
    HistogramDelta, Level, Outbox, Record, Recovered, SharedSpool, SpoolError,
};
use lens_agent::status::Status;
use lens_aggregator::aggregator::embedded_log;
use lens_aggregator::ingest::Ingest;
use lens_aggregator::listen::Listener;
use lens_aggregator::state::{Rules, State};
use lens_aggregator::store::{Place, StoreConfig};
use lens_aggregator::window::Windows;
use lens_aggregator::worker::Worker;
use lens_hist::{Sparse, block};
use lens_model::{Incarnation, InstanceName, Nanos, Sequence, SeriesKey, UnixNanos};
use lens_service::certs::{self, CertFiles, Subject};
use lens_service::env::Env;
use lens_service::shutdown::Shutdown;
use lens_service::time::unix_now;
use lens_service::tls::{self, IdentityFiles};
use lens_wire::{ClockOffset, Instance, Label};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tonic::transport::{
    Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig,
};
use tonic::{Request, Response, Status as GrpcStatus};

use common::measure::{median, nanos, prefer};
use common::otlp::{self, Exponential};
use common::report::{Report, Target};
use common::{Options, Outcome, data};

const SAMPLES: usize = 100;
const BATCHES: usize = 16;
const SECOND: Nanos = Nanos::from_secs(1);
/// Exports the OTLP client keeps under way.
const EXPORTS: usize = 16;
/// Longest a round may take before the bench gives up on it.
const ROUND_MAX: Duration = Duration::from_secs(60);

fn main() -> Outcome {
    let options = Options::read();
    let mut report = Report::new("end_to_end", options);
    prefer();
    let batches = data::batches(BATCHES, SAMPLES)?;
    let dir = tempfile::tempdir()?;
    let files = Files::issue(dir.path())?;
    let ours = Ours::start(&files, &batches)?;
    let theirs = Theirs::start(&files, &batches)?;
    let (rounds, few, many) = options.pick((12, 500, 10_000), (3, 100, 1_500));
    // Connections, buffers and windows come to their size.
    ours.ship(many / 5)?;
    theirs.ship(few / 5)?;
    let (mut cpu, mut otlp, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let (mut rate, mut otlp_rate) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        // Who goes first changes, so that neither always meets the warmer machine.
        let (mine, other) = if round % 2 == 0 {
            let mine = spent(many, || ours.ship(many))?;
            (mine, spent(few, || theirs.ship(few))?)
        } else {
            let other = spent(few, || theirs.ship(few))?;
            (spent(many, || ours.ship(many))?, other)
        };
        cpu.push(mine.cpu_micros);
        otlp.push(other.cpu_micros);
        ratios.push(mine.cpu_micros / other.cpu_micros);
        rate.push(mine.rate);
        otlp_rate.push(other.rate);
    }
    ours.check()?;
    theirs.check()?;
    let value = median(&mut cpu);
    report.plain("OTLP over gRPC, mutual TLS: processor time", median(&mut otlp), "us/batch");
    let peer = ("OTLP over gRPC", median(&mut ratios));
    let target = Some(Target::Ratio(1.0 / 12.0));
    report.compared("ours over QUIC: processor time", value, "us/batch", peer, target);
    report.plain("OTLP over gRPC: rate on this machine", median(&mut otlp_rate), "batches/s");
    report.plain("ours over QUIC: rate on this machine", median(&mut rate), "batches/s");
    #[allow(clippy::cast_precision_loss)]
    let per_delta = value * 1e3 / data::SERIES as f64;
    report.plain("ours: processor time a series' delta, both sides", per_delta, "ns");
    report.note(format!("a batch: 64 series with {SAMPLES} samples each, one exporter"));
    report.note("both sides: one runtime thread for each end, both ends in this process");
    report.finish()
}

/// What a number of batches cost.
struct Spent {
    cpu_micros: f64,
    rate: f64,
}

#[allow(clippy::cast_precision_loss)]
fn spent(batches: u64, ship: impl FnOnce() -> Outcome) -> Outcome<Spent> {
    let cpu = || {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
    };
    let (before, start) = (cpu(), Instant::now());
    ship()?;
    let (after, took) = (cpu(), start.elapsed());
    let batches = batches as f64;
    Ok(Spent { cpu_micros: (after - before) / batches, rate: batches / (nanos(took) / 1e9) })
}

/// Certificates of both ends, from one authority.
struct Files {
    agent: CertFiles,
    server: CertFiles,
}

impl Files {
    fn issue(dir: &std::path::Path) -> Outcome<Self> {
        certs::init(dir, 1)?;
        let agent = Subject::Agent("spiffe://lens.test/agent/bench".parse()?);
        let server = Subject::Server(vec!["localhost".into(), "127.0.0.1".into()]);
        Ok(Self {
            agent: certs::issue(dir, "bench", &agent, 1, false)?,
            server: certs::issue(dir, "server", &server, 1, false)?,
        })
    }
}

fn identity(files: &CertFiles) -> IdentityFiles {
    IdentityFiles { cert: files.cert.clone(), key: files.key.clone(), ca: files.ca.clone() }
}

fn runtime(name: &str) -> Outcome<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    Ok(builder.worker_threads(1).thread_name(name).enable_all().build()?)
}

/// A spool that holds no batch: each is encoded from its counts when the link asks for it, as a
/// harvest does before it appends.
#[derive(Debug)]
struct Feed {
    batches: Vec<Vec<Sparse>>,
    keys: Vec<Arc<SeriesKey>>,
    instance: Arc<Instance>,
    wanted: Arc<AtomicU64>,
    acked: Arc<AtomicU64>,
    done: Arc<Notify>,
}

impl Outbox for Feed {
    fn incarnation(&self) -> Incarnation {
        Incarnation(u128::from(std::process::id()))
    }

    fn renew(&self, _: Incarnation) -> Result<(), SpoolError> {
        // A life ends when an aggregator has forgotten it; this one outlives the run.
        Ok(())
    }

    fn load(&self, _: Sequence) -> Result<(), SpoolError> {
        Ok(())
    }

    #[allow(clippy::cast_possible_truncation)]
    fn get(&self, sequence: Sequence) -> Option<Arc<Record>> {
        if sequence.0 > self.wanted.load(Ordering::Relaxed) {
            return None;
        }
        let batch = &self.batches[sequence.0 as usize % self.batches.len()];
        let mut bytes = Vec::with_capacity(256);
        let mut samples = 0;
        let mut delta = |(key, counts): (&Arc<SeriesKey>, &Sparse)| {
            bytes.clear();
            block::encode(counts, &mut bytes);
            samples += counts.total();
            HistogramDelta {
                instance: Arc::clone(&self.instance),
                key: Arc::clone(key),
                block: bytes.as_slice().into(),
            }
        };
        let histograms = self.keys.iter().zip(batch).map(&mut delta).collect();
        Some(Arc::new(Record {
            start: unix_now().minus(SECOND),
            duration: SECOND,
            clock: ClockOffset::UNMEASURED,
            histograms,
            requests: Vec::new(),
            gauges: Vec::new(),
            samples,
        }))
    }

    fn acknowledge(&self, acked: Sequence) {
        self.acked.fetch_max(acked.0, Ordering::Relaxed);
        if acked.0 >= self.wanted.load(Ordering::Relaxed) {
            self.done.notify_one();
        }
    }

    fn level(&self) -> Level {
        let left = self.wanted.load(Ordering::Relaxed) - self.acked.load(Ordering::Relaxed);
        let last = Sequence(self.wanted.load(Ordering::Relaxed));
        Level { frames: left, last, ..Level::default() }
    }
}

/// Our two ends.
struct Ours {
    client: Runtime,
    _server: Runtime,
    state: Arc<State>,
    status: Arc<Status>,
    wanted: Arc<AtomicU64>,
    acked: Arc<AtomicU64>,
    done: Arc<Notify>,
    changed: Arc<Notify>,
    /// What it merged, durably.
    _dir: tempfile::TempDir,
    /// Dropped last: their senders' end means shutdown.
    _running: [lens_service::shutdown::Trigger; 2],
}

impl Ours {
    fn start(files: &Files, batches: &[Vec<Vec<u64>>]) -> Outcome<Self> {
        let (client, server) = (runtime("agent")?, runtime("aggregator")?);
        let windows = Windows::new(Nanos::from_secs(5), Nanos::from_secs(60));
        let state = Arc::new(State::new(Env::system(), Rules::default(), windows, unix_now()));
        let (ingest, queue) = Ingest::new(Arc::clone(&state));
        let (env, dir) = (&state.env, tempfile::tempdir()?);
        let store = StoreConfig { dir: dir.path().join("store"), ..StoreConfig::default() };
        let place = Place::take(Arc::clone(&env.disk), store, env.planted)?;
        let log = embedded_log(env, &place);
        let worker = Worker::start(Arc::clone(&ingest), queue, place, log, Duration::ZERO);
        let worker = server.block_on(worker)?;
        let listener = {
            let _entered = server.enter();
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            Listener::open(any, &identity(&files.server), None, ingest)?
        };
        let address = listener.address()?;
        let (stop_server, server_stopped) = Shutdown::manual();
        server.spawn(listener.run(server_stopped.clone()));
        server.spawn(worker.run(server_stopped));

        let feed = Feed {
            batches: batches.iter().map(|batch| data::sparse(batch)).collect(),
            keys: data::keys()?.into_iter().map(Arc::new).collect(),
            instance: Arc::new(Instance {
                name: InstanceName::new("n1")?,
                service: Label::new("lens")?,
                version: Label::new("1")?,
                zone: Label::new("")?,
            }),
            wanted: Arc::default(),
            acked: Arc::default(),
            done: Arc::default(),
        };
        let (wanted, acked) = (Arc::clone(&feed.wanted), Arc::clone(&feed.acked));
        let done = Arc::clone(&feed.done);
        let spiffe = tls::identity_of_file(&files.agent.cert)?;
        let status = Arc::new(Status::new(unix_now(), spiffe.to_string(), Recovered::default()));
        let shared = SharedSpool::new(Arc::new(feed));
        let changed = Arc::clone(&shared.changed);
        let config = Arc::new(config(files, spiffe, address));
        let (stop_client, client_stopped) = Shutdown::manual();
        let domain = config.identity.trust_domain.clone();
        let flags = Flags::open(&Env::system(), &dir.path().join("control"), domain, None);
        let (env, flags) = (Env::system(), Arc::new(flags));
        let seen = Arc::clone(&status);
        let beside = link::Beside { flags, slow: Arc::default(), hindsight: None };
        client.spawn(link::run(env, config, shared, seen, beside, client_stopped));
        let running = [stop_server, stop_client];
        Ok(Self {
            client,
            _server: server,
            state,
            status,
            wanted,
            acked,
            done,
            changed,
            _dir: dir,
            _running: running,
        })
    }

    /// Ships a number of batches and waits until all are acknowledged.
    fn ship(&self, batches: u64) -> Outcome {
        let wanted = self.wanted.fetch_add(batches, Ordering::Relaxed) + batches;
        self.changed.notify_one();
        let all = async {
            while self.acked.load(Ordering::Relaxed) < wanted {
                self.done.notified().await;
            }
        };
        let shipped = self.client.block_on(async { tokio::time::timeout(ROUND_MAX, all).await });
        shipped.map_err(|_| {
            let error = self.status.link.lock().last_error.clone();
            format!("not acknowledged in time: {}", error.unwrap_or_default()).into()
        })
    }

    /// Every sample was merged once.
    fn check(&self) -> Outcome {
        let expected = self.wanted.load(Ordering::Relaxed) * (data::SERIES * SAMPLES) as u64;
        let merged = self.state.counters.samples_merged_total.load(Ordering::Relaxed);
        if merged == expected { Ok(()) } else { Err(format!("{merged} of {expected}").into()) }
    }
}

fn config(files: &Files, spiffe: lens_model::SpiffeId, address: SocketAddr) -> Config {
    Config {
        segments_dir: std::env::temp_dir(),
        scan_interval: Duration::from_secs(1),
        hindsight: None,
        harvest_interval: SECOND,
        endpoints: vec![address.to_string()],
        server_name: Some("localhost".into()),
        identity_files: identity(&files.agent),
        identity: spiffe,
        spool_dir: std::path::PathBuf::new(),
        spool_bytes_max: 64 << 20,
        control_dir: std::path::PathBuf::new(),
        control_key: None,
        zone: String::new(),
        labels: Vec::new(),
        proxy: None,
        admin_listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        ingest: lens_agent::ingest::IngestConfig::default(),
    }
}

/// The OTLP receiver.
#[derive(Debug, Default)]
struct Receiver {
    windows: Arc<Mutex<otlp::Windows>>,
}

#[tonic::async_trait]
impl MetricsService for Receiver {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, GrpcStatus> {
        self.windows.lock().merge(request.get_ref());
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

/// What an OTLP exporter sends from.
struct Exporter {
    names: Vec<Vec<KeyValue>>,
    batches: Vec<Vec<Exponential>>,
}

impl Exporter {
    #[allow(clippy::cast_possible_truncation)]
    fn request(&self, turn: u64) -> ExportMetricsServiceRequest {
        let batch = &self.batches[turn as usize % self.batches.len()];
        let now: UnixNanos = unix_now();
        otlp::request(&self.names, batch, now.minus(SECOND).0, now.0)
    }
}

/// OTLP's two ends.
struct Theirs {
    client: Runtime,
    _server: Runtime,
    exporter: Arc<Exporter>,
    channel: MetricsServiceClient<Channel>,
    windows: Arc<Mutex<otlp::Windows>>,
    shipped: Arc<AtomicU64>,
}

impl Theirs {
    fn start(files: &Files, batches: &[Vec<Vec<u64>>]) -> Outcome<Self> {
        let (client, server) = (runtime("exporter")?, runtime("collector")?);
        let pem = |path: &std::path::Path| std::fs::read(path);
        let ca = Certificate::from_pem(pem(&files.server.ca)?);
        let own = |files: &CertFiles| -> Outcome<Identity> {
            Ok(Identity::from_pem(pem(&files.cert)?, pem(&files.key)?))
        };
        let receiver = Receiver::default();
        let windows = Arc::clone(&receiver.windows);
        let tls = ServerTlsConfig::new().identity(own(&files.server)?).client_ca_root(ca.clone());
        let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let service =
            Server::builder().tls_config(tls)?.add_service(MetricsServiceServer::new(receiver));
        server.spawn(service.serve(address));
        let tls = ClientTlsConfig::new()
            .ca_certificate(ca)
            .identity(own(&files.agent)?)
            .domain_name("localhost");
        let endpoint = Endpoint::from_shared(format!("https://{address}"))?.tls_config(tls)?;
        let channel = client.block_on(connect(&endpoint))?;
        let exporter = Exporter {
            names: data::keys()?.iter().map(otlp::attributes).collect(),
            batches: batches
                .iter()
                .map(|batch| batch.iter().map(|series| Exponential::of(series)).collect())
                .collect(),
        };
        Ok(Self {
            client,
            _server: server,
            exporter: Arc::new(exporter),
            channel: MetricsServiceClient::new(channel),
            windows,
            shipped: Arc::default(),
        })
    }

    /// Exports a number of batches, 16 at a time.
    fn ship(&self, batches: u64) -> Outcome {
        let end = self.shipped.load(Ordering::Relaxed) + batches;
        let exports = || {
            let (exporter, shipped) = (Arc::clone(&self.exporter), Arc::clone(&self.shipped));
            let mut channel = self.channel.clone();
            async move {
                loop {
                    let turn = shipped.fetch_add(1, Ordering::Relaxed);
                    if turn >= end {
                        shipped.fetch_sub(1, Ordering::Relaxed);
                        return Ok::<(), GrpcStatus>(());
                    }
                    channel.export(exporter.request(turn)).await?;
                }
            }
        };
        let tasks: Vec<_> = (0..EXPORTS).map(|_| self.client.spawn(exports())).collect();
        self.client.block_on(async {
            for task in tasks {
                tokio::time::timeout(ROUND_MAX, task).await???;
            }
            Ok(())
        })
    }

    /// Every sample was merged once.
    fn check(&self) -> Outcome {
        let expected = self.shipped.load(Ordering::Relaxed) * (data::SERIES * SAMPLES) as u64;
        let merged = self.windows.lock().samples();
        if merged == expected { Ok(()) } else { Err(format!("{merged} of {expected}").into()) }
    }
}

/// The server needs a moment to listen.
async fn connect(endpoint: &Endpoint) -> Outcome<Channel> {
    let start = Instant::now();
    loop {
        match endpoint.connect().await {
            Ok(channel) => return Ok(channel),
            Err(error) if start.elapsed() > Duration::from_secs(5) => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}
