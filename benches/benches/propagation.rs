//! From a decision to a node's load: the aggregator's call, signature, disk, QUIC, the agent's
//! verification and disk, the flag page, and a node that reads it. Everything is the programs' own,
//! in one process on loopback; the node looks all the time, on a thread of its own. The emergency's own
//! call, a bare `POST /canary/killswitch` over a connection that is made for it, is timed whole, too.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lens_agent::Agent;
use lens_aggregator::aggregator::Aggregator;
use lens_aggregator::flags::Flags;
use lens_benches::nearest_rank;
use lens_segment::{Node, Recorder};
use lens_service::certs::{self, CertFiles, Subject};
use lens_service::config::{Key, Settings, Sources};
use lens_service::env::Env;
use lens_service::shutdown::Shutdown;
use tokio::runtime::Runtime;

use common::measure::nanos;
use common::report::{Report, Target};
use common::{Options, Outcome};

/// Longest one decision may take before the bench gives up.
const ROUND_MAX: Duration = Duration::from_secs(10);

/// The promise: every reachable node obeys a kill within a second.
const KILL_NANOS_MAX: f64 = 1e9;

/// Longest all rounds may take; fewer are measured, and said, on a slow machine.
const ALL_MAX: Duration = Duration::from_secs(60);

/// Longest the two services get to end.
const END_MAX: Duration = Duration::from_secs(2);

/// Between two looks of the node: it must not hold a processor that the services need.
const LOOK: Duration = Duration::from_micros(20);

fn main() -> Outcome {
    let options = Options::read();
    let dir = tempfile::tempdir()?;
    let runtime = Runtime::new()?;
    let measured = measure(&runtime, dir.path(), options);
    // A job that waits for a disk or a peer must not keep the bench from ending.
    runtime.shutdown_timeout(END_MAX);
    measured?.finish()
}

#[allow(clippy::print_stderr)]
fn measure(runtime: &Runtime, dir: &Path, options: Options) -> Outcome<Report> {
    let mut report = Report::new("propagation", options);
    eprintln!("propagation: starting aggregator, agent and node");
    let world = runtime.block_on(World::start(dir))?;
    world.reaches_the_node(world.flags.status().generation)?;
    eprintln!("propagation: the node reads what is told");
    let (rounds, began) = (options.pick(400, 20), Instant::now());
    let mut changes = Vec::new();
    let mut kills = Vec::new();
    let mut posts = Vec::new();
    for round in 0..rounds {
        if began.elapsed() > ALL_MAX {
            break;
        }
        let share = f64::from(round % 100 + 1);
        changes.push(world.timed(runtime, async |flags| {
            Ok(flags.set_canary("2.0.0", 7, share).await?.generation)
        })?);
        kills.push(
            world
                .timed(runtime, async |flags| Ok(flags.kill("bench", "bench").await.generation))?,
        );
        world.timed(runtime, async |flags| Ok(flags.release().await?.generation))?;
        posts.push(world.timed_post()?);
        world.timed(runtime, async |flags| Ok(flags.release().await?.generation))?;
        if (round + 1) % (rounds / 10) == 0 {
            eprintln!("propagation: {} of {rounds} rounds, {:.1?}", round + 1, began.elapsed());
        }
    }
    let done = kills.len();
    for (name, mut times, limit) in [
        ("share, call to node's load", changes, None),
        ("kill, call to node's load", kills, Some(KILL_NANOS_MAX)),
        ("kill, POST to node's load", posts, Some(KILL_NANOS_MAX)),
    ] {
        times.sort_by(f64::total_cmp);
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(|q| nearest_rank(&times, q).unwrap_or(f64::NAN));
        report.plain(format!("{name}, p50"), p50, "ns");
        match limit {
            Some(limit) => report.limited(format!("{name}, p99"), p99, "ns", Target::Value(limit)),
            None => report.plain(format!("{name}, p99"), p99, "ns"),
        }
        report.plain(format!("{name}, max"), max, "ns");
    }
    report.note(format!("{done} of {rounds} rounds"));
    report.note(format!("the node looks about every {LOOK:?}"));
    Ok(report)
}

struct World {
    flags: Flags,
    http: SocketAddr,
    /// The newest generation the node has read, and since when by `began`, nanoseconds.
    seen: Arc<(AtomicU64, AtomicU64)>,
    began: Instant,
    /// Their senders' end means shutdown.
    _running: [lens_service::shutdown::Trigger; 3],
}

fn settings(keys: &'static [Key], files: &CertFiles, more: &[(&str, String)]) -> Outcome<Settings> {
    let text = |path: &Path| path.display().to_string();
    let mut flags = vec![
        ("identity.cert".to_owned(), text(&files.cert)),
        ("identity.key".to_owned(), text(&files.key)),
        ("identity.ca".to_owned(), text(&files.ca)),
    ];
    flags.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    let sources = Sources { flags, ..Sources::default() };
    Settings::load(keys, "LENS_BENCH", &sources).map_err(|error| error.to_string().into())
}

impl World {
    async fn start(dir: &Path) -> Outcome<Self> {
        certs::init(dir, 1)?;
        let own = Subject::Agent("spiffe://lens.test/agent/bench".parse()?);
        let server = Subject::Server(vec!["localhost".into(), "127.0.0.1".into()]);
        let agent = certs::issue(dir, "bench", &own, 1, false)?;
        let server = certs::issue(dir, "server", &server, 1, false)?;
        let at = |name: &str| dir.join(name).display().to_string();
        let more = [("quic.listen", "127.0.0.1:0".to_owned()), ("store.dir", at("store"))];
        let config = settings(lens_aggregator::config::KEYS, &server, &more)?;
        let config = lens_aggregator::config::Config::check(&config).map_err(|e| e.to_string())?;
        let aggregator = Aggregator::start(Env::system(), &config).await?;
        let (address, state) = (aggregator.address()?, aggregator.state());
        let (stop_aggregator, stopped) = Shutdown::manual();
        tokio::spawn(aggregator.run(stopped));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let http = listener.local_addr()?;
        let (stop_http, stopped) = Shutdown::manual();
        let router = lens_aggregator::api::router(Arc::clone(&state));
        tokio::spawn(lens_aggregator::serve::serve(listener, None, router, stopped));

        let more = [
            ("segments.dir", at("segments")),
            ("spool.dir", at("spool")),
            ("segments.scan_interval_ms", "100".to_owned()),
            ("aggregator.endpoints", address.to_string()),
        ];
        let config = settings(lens_agent::config::KEYS, &agent, &more)?;
        let config = lens_agent::config::Config::check(&config).map_err(|e| e.to_string())?;
        let agent = Agent::open(Env::system(), Arc::new(config)).await?;
        let (stop_agent, stopped) = Shutdown::manual();
        tokio::spawn(async move { agent.run(&stopped).await });

        let (seen, began) = (Arc::<(AtomicU64, AtomicU64)>::default(), Instant::now());
        let node = Node { service: "lens", version: "1", instance: "node-1" };
        let node = Recorder::create(dir.join("segments"), node)?;
        let told = Arc::clone(&seen);
        std::thread::spawn(move || watch(&node, &told, began));
        let running = [stop_aggregator, stop_agent, stop_http];
        Ok(Self { flags: state.flags.clone(), http, seen, began, _running: running })
    }

    /// From the call to the node's load of what it decided, nanoseconds.
    fn timed(
        &self,
        runtime: &Runtime,
        decide: impl AsyncFnOnce(&Flags) -> Outcome<u64>,
    ) -> Outcome<f64> {
        let called = self.began.elapsed();
        let generation = runtime.block_on(decide(&self.flags))?;
        self.reaches_the_node(generation)?;
        let seen = Duration::from_nanos(self.seen.1.load(Ordering::Acquire));
        Ok(nanos(seen.saturating_sub(called)))
    }

    /// From before the connection of a kill by `POST` to the node's load of it, nanoseconds.
    fn timed_post(&self) -> Outcome<f64> {
        let called = self.began.elapsed();
        let mut stream = TcpStream::connect(self.http)?;
        stream.set_read_timeout(Some(ROUND_MAX))?;
        stream.write_all(
            b"POST /canary/killswitch HTTP/1.1\r\nhost: lens\r\nconnection: close\r\n\r\n",
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if !answer.starts_with("HTTP/1.1 200") {
            return Err(format!("the kill was answered with {answer}").into());
        }
        self.reaches_the_node(self.flags.status().generation)?;
        let seen = Duration::from_nanos(self.seen.1.load(Ordering::Acquire));
        Ok(nanos(seen.saturating_sub(called)))
    }

    /// Waits until the node has read a generation or a newer one.
    fn reaches_the_node(&self, generation: u64) -> Outcome {
        let deadline = Instant::now() + ROUND_MAX;
        while self.seen.0.load(Ordering::Acquire) < generation {
            if Instant::now() > deadline {
                let read = self.seen.0.load(Ordering::Acquire);
                let why =
                    format!("the node read generation {read} in {ROUND_MAX:?}, not {generation}");
                return Err(why.into());
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        Ok(())
    }
}

/// Looks at the flag page all the time, for as long as the process lives.
fn watch(node: &Recorder, told: &(AtomicU64, AtomicU64), began: Instant) {
    let mut last = 0;
    loop {
        let generation = node.flags().generation();
        if generation == last {
            std::thread::sleep(LOOK);
            continue;
        }
        last = generation;
        let at = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        told.1.store(at, Ordering::Release);
        told.0.store(generation, Ordering::Release);
    }
}
