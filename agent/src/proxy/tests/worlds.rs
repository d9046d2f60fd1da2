//! A proxy, its upstreams and its clients, in one process and on loopback.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lens_flags::{Assignment, Share};
use lens_model::Arm;
use lens_service::config::{Settings, Sources};
use lens_service::shutdown::{Shutdown, Trigger};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::config::{KEYS, PREFIX};
use crate::proxy::{Counters, Outcome, Proxy, ProxyConfig};

/// Longest anything is waited for that ought to happen at once.
const PATIENCE: Duration = Duration::from_secs(20);

/// What an upstream does when it has read a request.
#[derive(Clone)]
pub(super) enum Step {
    /// Sends bytes.
    Send(Vec<u8>),
    /// Waits until it is told to go on.
    Wait(Arc<Notify>),
    /// Does nothing more on this connection and keeps it.
    Hang,
    /// Closes the connection at once, with a reset.
    Reset,
    /// Closes the connection.
    Close,
}

/// Sends text.
pub(super) fn send(text: &str) -> Step {
    Step::Send(text.as_bytes().to_vec())
}

/// An answer with this status and body.
pub(super) fn answer(status: u16, body: &str) -> Vec<Step> {
    let length = body.len();
    vec![send(&format!("HTTP/1.1 {status} Some\r\ncontent-length: {length}\r\n\r\n{body}"))]
}

/// An engine that does as it is told.
pub(super) struct Upstream {
    pub(super) address: SocketAddr,
    /// Each request as it came, head and body.
    seen: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Upstream {
    /// An upstream that answers each request by its head.
    pub(super) async fn new(script: impl Fn(&str) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, seen) =
            (listener.local_addr().unwrap(), Arc::<Mutex<Vec<String>>>::default());
        let (script, held) = (Arc::new(script), Arc::clone(&seen));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (script, seen) = (Arc::clone(&script), Arc::clone(&held));
                tokio::spawn(async move { converse(stream, &*script, &seen).await });
            }
        });
        Self { address, seen, task }
    }

    /// An upstream that always answers so.
    pub(super) async fn always(status: u16, body: &'static str) -> Self {
        Self::new(move |_| answer(status, body)).await
    }

    /// What it was asked.
    pub(super) fn seen(&self) -> Vec<String> {
        self.seen.lock().clone()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn converse(
    mut stream: TcpStream,
    script: &(dyn Fn(&str) -> Vec<Step> + Send + Sync),
    seen: &Mutex<Vec<String>>,
) {
    let mut read = Vec::new();
    while let Some(request) = request(&mut stream, &mut read).await {
        let steps = script(&request);
        seen.lock().push(request);
        for step in steps {
            match step {
                Step::Send(bytes) => {
                    if stream.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                Step::Wait(told) => told.notified().await,
                Step::Hang => std::future::pending().await,
                Step::Reset => {
                    #[allow(deprecated, reason = "no time of it is waited for")]
                    stream.set_linger(Some(Duration::ZERO)).unwrap();
                    return;
                }
                Step::Close => return,
            }
        }
    }
}

/// The next request, head and body; none once the other end has closed.
async fn request(stream: &mut TcpStream, read: &mut Vec<u8>) -> Option<String> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        if let Some(end) = complete(read) {
            let request = read.drain(..end).collect::<Vec<u8>>();
            return Some(String::from_utf8_lossy(&request).into_owned());
        }
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => read.extend_from_slice(&buffer[..count]),
        }
    }
}

/// Where the first request in these bytes ends, read strictly, as an engine would.
fn complete(bytes: &[u8]) -> Option<usize> {
    let find = |what: &[u8]| bytes.windows(what.len()).position(|window| window == what);
    let head_end = find(b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..head_end]).to_ascii_lowercase();
    if head.contains("\r\ntransfer-encoding: chunked") {
        return bytes[head_end..]
            .windows(5)
            .position(|window| window == b"0\r\n\r\n")
            .map(|at| head_end + at + 5);
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let end = head_end + length.map_or(0, |text| text.trim().parse().unwrap());
    (bytes.len() >= end).then_some(end)
}

/// A running proxy.
pub(super) struct World {
    pub(super) address: SocketAddr,
    pub(super) counters: Arc<Counters>,
    pub(super) assign: watch::Sender<Assignment>,
    pub(super) dir: tempfile::TempDir,
    stop: Trigger,
    running: JoinHandle<()>,
}

/// Everyone in the canary.
pub(super) fn everyone() -> Assignment {
    Assignment { share: Share::ALL, ..Assignment::default() }
}

impl World {
    /// A proxy before these, with these settings beside.
    pub(super) async fn new(
        stable: SocketAddr,
        canary: Option<SocketAddr>,
        settings: &[(&str, &str)],
    ) -> Self {
        let mut all = vec![
            ("proxy.listen".to_owned(), "127.0.0.1:0".to_owned()),
            ("proxy.stable".to_owned(), stable.to_string()),
            ("proxy.slice".to_owned(), "backend/rust/large".to_owned()),
            ("proxy.user_header".to_owned(), "x-user".to_owned()),
        ];
        all.extend(canary.map(|canary| ("proxy.canary".to_owned(), canary.to_string())));
        all.extend(settings.iter().map(|(key, text)| ((*key).into(), (*text).into())));
        let sources = Sources { flags: all, ..Sources::default() };
        let settings = Settings::load(KEYS, PREFIX, &sources).unwrap();
        let config = ProxyConfig::check(&settings).unwrap().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (assign, assignment) = watch::channel(Assignment::default());
        let proxy = Proxy::open(config, dir.path(), "a", assignment).await.unwrap();
        let (address, counters) = (proxy.address().unwrap(), proxy.counters());
        let (stop, shutdown) = Shutdown::manual();
        let running = tokio::spawn(proxy.run(shutdown));
        Self { address, counters, assign, dir, stop, running }
    }

    /// Tells it to stop and waits for its end.
    pub(super) async fn end(self) -> tempfile::TempDir {
        self.stop.begin();
        self.running.await.unwrap();
        self.dir
    }

    /// Waits until exactly so many requests of the arm have ended so, and no other.
    pub(super) async fn until(&self, arm: Arm, expected: &[(Outcome, u64)]) {
        let counted = || -> Vec<(Outcome, u64)> {
            let of = |outcome| (outcome, self.counters.requests(arm, outcome));
            Outcome::ALL.map(of).into_iter().filter(|(_, count)| *count > 0).collect()
        };
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while counted() != expected {
            assert!(tokio::time::Instant::now() < deadline, "{arm}: {:?}", counted());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// An answer as it came.
#[derive(Debug)]
pub(super) struct Got {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Got {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// Sends bytes on a connection of their own and reads to its end.
pub(super) async fn ask(address: SocketAddr, request: &[u8]) -> Got {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // A request that is refused may be answered before it was read.
    stream.write_all(request).await.ok();
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    // A connection that is cut says so, after what came.
    read.expect("the connection ends").ok();
    got(&bytes)
}

/// The answer in these bytes; status 0 where there is none.
pub(super) fn got(bytes: &[u8]) -> Got {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Got { status: 0, head: String::new(), body: bytes.to_vec() };
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Got { status, head, body: bytes[end + 4..].to_vec() }
}

/// Asks for a path as a user.
pub(super) async fn get(address: SocketAddr, path: &str, user: &str) -> Got {
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: lens\r\nx-user: {user}\r\nconnection: close\r\n\r\n");
    ask(address, request.as_bytes()).await
}
