//! What the agent's proxy adds to a request: the same client asks the same engine directly and
//! through the proxy, in turn, on kept connections.
//!
//! Every request through the proxy is recorded as in service. Engine, proxy and client run in this
//! process: two runtime threads for the proxy as in the agent, one for the engine, and the client
//! on the bench's own thread, which waits for one answer at a time.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use lens_agent::config::{KEYS, PREFIX};
use lens_agent::proxy::{Outcome as Ended, Proxy, ProxyConfig};
use lens_benches::nearest_rank;
use lens_flags::{Assignment, Share};
use lens_model::Arm;
use lens_service::config::{Settings, Sources};
use lens_service::shutdown::{Shutdown, Trigger};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use common::measure::{median, nanos};
use common::report::{Report, Target};
use common::{Options, Outcome};

/// Bytes of an answer's body, about ten hits.
const BODY_BYTES: usize = 4 << 10;

fn main() -> Outcome {
    let options = Options::read();
    let mut report = Report::new("proxy", options);
    let (rounds, each) = options.pick((40, 500), (5, 100));
    let engines = Runtime::new()?;
    let engine = engines.block_on(engine())?;
    let proxied = Proxied::start(engine)?;
    let (mut direct, mut through) = (Client::open(engine)?, Client::open(proxied.address)?);
    for client in [&mut direct, &mut through] {
        client.ask(each)?;
    }
    let (mut one, mut other) = (Vec::new(), Vec::new());
    let mut added = Vec::new();
    for round in 0..rounds {
        // Who goes first changes, so that neither always meets the warmer machine.
        let (mut a, mut b) = if round % 2 == 0 {
            (direct.ask(each)?, through.ask(each)?)
        } else {
            let b = through.ask(each)?;
            (direct.ask(each)?, b)
        };
        added.push(quantile(&mut b, 0.99) - quantile(&mut a, 0.99));
        one.extend(a);
        other.extend(b);
    }
    proxied.check((rounds + 1) * each)?;
    for (name, values) in [("directly", &mut one), ("through the proxy", &mut other)] {
        for (of, q) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
            report.plain(format!("{name}: {of}"), quantile(values, q) / 1e3, "us");
        }
    }
    let middle = (quantile(&mut other, 0.5) - quantile(&mut one, 0.5)) / 1e3;
    report.plain("added to p50", middle, "us");
    let whole = (quantile(&mut other, 0.99) - quantile(&mut one, 0.99)) / 1e3;
    report.limited("added to p99, of all", whole, "us", Target::Value(1_000.0));
    let value = median(&mut added) / 1e3;
    report.limited("added to p99, median round", value, "us", Target::Value(1_000.0));
    report.note(format!("{rounds} rounds of {each} requests each way, answers of {BODY_BYTES} B"));
    report.finish()
}

/// The value at a quantile of what it sorts, nearest rank.
fn quantile(values: &mut [f64], q: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    nearest_rank(values, q).unwrap_or(f64::NAN)
}

/// The least an engine does: it answers every request with the same bytes.
async fn engine() -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {BODY_BYTES}\r\n\r\n");
    let answer = [head.into_bytes(), vec![b'x'; BODY_BYTES]].concat();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut read = [0; 4_096];
                // Requests of this bench fit one segment.
                while stream.set_nodelay(true).is_ok()
                    && matches!(stream.read(&mut read).await, Ok(1..))
                    && stream.write_all(&answer).await.is_ok()
                {}
            });
        }
    });
    Ok(address)
}

/// A proxy that sends half of everyone to each of two upstreams, which are one engine.
struct Proxied {
    address: SocketAddr,
    counters: std::sync::Arc<lens_agent::proxy::Counters>,
    _stop: Trigger,
    _assign: watch::Sender<Assignment>,
    _runtime: Runtime,
    _segments: tempfile::TempDir,
}

impl Proxied {
    fn start(engine: SocketAddr) -> Outcome<Self> {
        let engine = engine.to_string();
        let flags = [
            ("proxy.listen", "127.0.0.1:0"),
            ("proxy.stable", &engine),
            ("proxy.canary", &engine),
            ("proxy.slice", "backend/{query:language|any}/large"),
            ("proxy.user_header", "x-user"),
        ];
        let flags = flags.map(|(key, text)| (key.to_owned(), text.to_owned())).to_vec();
        let settings = Settings::load(KEYS, PREFIX, &Sources { flags, ..Sources::default() })?;
        let config = ProxyConfig::check(&settings).map_err(|found| format!("{found:?}"))?;
        let config = config.ok_or("the proxy is off")?;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let half = Assignment { share: Share::percent(50.0)?, ..Assignment::default() };
        let (assign, assignment) = watch::channel(half);
        let segments = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?;
        let opened = Proxy::open(config, segments.path(), "bench", assignment);
        let proxy = runtime.block_on(opened)?;
        let (address, counters) = (proxy.address()?, proxy.counters());
        let (stop, shutdown) = Shutdown::manual();
        runtime.spawn(proxy.run(shutdown));
        let (_stop, _assign, _runtime, _segments) = (stop, assign, runtime, segments);
        Ok(Self { address, counters, _stop, _assign, _runtime, _segments })
    }

    /// Every request was answered and counted, in both arms.
    fn check(&self, expected: usize) -> Outcome {
        let of = |arm| self.counters.requests(arm, Ended::Ok);
        let (baseline, canary) = (of(Arm::Baseline), of(Arm::Canary));
        if baseline + canary != expected as u64 || baseline == 0 || canary == 0 {
            return Err(format!("{baseline} and {canary} counted of {expected}").into());
        }
        Ok(())
    }
}

/// One kept connection.
struct Client {
    stream: TcpStream,
    asked: usize,
    answer: Vec<u8>,
}

impl Client {
    fn open(address: SocketAddr) -> Outcome<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, asked: 0, answer: vec![0; BODY_BYTES + 4_096] })
    }

    /// Asks so many times, each time as the next of 64 users; nanoseconds of each.
    fn ask(&mut self, times: usize) -> Outcome<Vec<f64>> {
        (0..times).map(|_| self.once()).collect()
    }

    fn once(&mut self) -> Outcome<f64> {
        self.asked += 1;
        let request = format!(
            "GET /search?q=parse_header&language=rust HTTP/1.1\r\nhost: lens\r\nx-user: u{}\r\n\r\n",
            self.asked % 64
        );
        let start = Instant::now();
        self.stream.write_all(request.as_bytes())?;
        let mut filled = 0;
        loop {
            let count = self.stream.read(&mut self.answer[filled..])?;
            if count == 0 {
                return Err("the connection was closed".into());
            }
            filled += count;
            let head = self.answer[..filled].windows(4).position(|window| window == b"\r\n\r\n");
            if head.is_some_and(|head| filled == head + 4 + BODY_BYTES) {
                return Ok(nanos(start.elapsed()));
            }
        }
    }
}
