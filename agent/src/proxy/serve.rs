//! The proxy's sockets, both sides: all of them are here.
//!
//! They are tokio's own and not of an `Env`: the proxy is off in a simulation, whose network is
//! QUIC's alone, and what it counts reaches the simulated part of the agent as any node's counts
//! do, through a segment.
//! Bounds: `proxy.connections_max` client connections, one more waits in the kernel's queue; a head
//! of [`PROXY_HEAD_BYTES_MAX`]; `proxy.client_timeout_ms` for a head to come, for a body to go on,
//! and for an answer to be taken. As many connections to each upstream as there are clients.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use lens_model::Arm;
use lens_model::limits::PROXY_HEAD_BYTES_MAX;
use lens_service::shutdown::Shutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::debug;

use super::body::Sent;
use super::config::ProxyConfig;
use super::forward::Forwarder;
use super::ledger::Counters;
use super::patience::{Patient, Stalls};

/// Longest open requests have to end once the agent is told to stop; the spool needs the rest of
/// the ten seconds.
const DRAIN_MAX: Duration = Duration::from_millis(1_500);

/// Pause after a connection could not be accepted: out of descriptors, spinning helps nobody.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

type Upstream = Client<HttpConnector, Sent>;

/// Connections to the upstreams, kept apart by arm.
#[derive(Debug)]
pub(crate) struct Upstreams([Upstream; Arm::ALL.len()]);

impl Upstreams {
    pub(crate) fn new(config: &ProxyConfig) -> Self {
        Self(std::array::from_fn(|_| upstream(config)))
    }

    /// Those of an arm.
    pub(crate) fn of(&self, arm: Arm) -> &Upstream {
        &self.0[usize::from(arm.code())]
    }
}

fn upstream(config: &ProxyConfig) -> Upstream {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(config.connect_timeout));
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(config.idle_timeout)
        .pool_max_idle_per_host(config.connections_max)
        .http1_max_buf_size(PROXY_HEAD_BYTES_MAX)
        .build(connector)
}

/// Opens the listener, naming the key and the remedy when it cannot.
///
/// # Errors
/// A sentence for the operator.
pub(crate) async fn listen(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| {
        format!("proxy.listen {address}: {error}: stop what listens there, or choose another port")
    })
}

/// Serves until shutdown, then lets open requests end for as long as there is time.
pub(crate) async fn serve(
    listener: TcpListener,
    forwarder: Arc<Forwarder>,
    counters: Arc<Counters>,
    shutdown: Shutdown,
) {
    let seats = Arc::new(Semaphore::new(forwarder.config.connections_max));
    let mut open = JoinSet::new();
    while let Some(accepted) = next(&listener, &seats, &shutdown).await {
        while open.try_join_next().is_some() {}
        let Ok((stream, from, seat)) = accepted else { continue };
        let (forwarder, shutdown) = (Arc::clone(&forwarder), shutdown.clone());
        let seated = Seat::take(seat, Arc::clone(&counters));
        open.spawn(async move {
            converse(stream, from, forwarder, shutdown).await;
            drop(seated);
        });
    }
    drop(listener);
    let ended = async { while open.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_MAX, ended).await.is_err() {
        debug!("connections of the proxy were cut");
        open.shutdown().await;
    }
}

type Accepted = Result<(TcpStream, IpAddr, tokio::sync::OwnedSemaphorePermit), ()>;

/// The next connection there is room for; `None` once the agent is told to stop.
async fn next(
    listener: &TcpListener,
    seats: &Arc<Semaphore>,
    shutdown: &Shutdown,
) -> Option<Accepted> {
    let accepted = async {
        // The semaphore is never closed.
        let seat = Arc::clone(seats).acquire_owned().await.ok()?;
        match listener.accept().await {
            Ok((stream, from)) => {
                // Without it small answers may wait for an acknowledgement; with an error they do.
                stream.set_nodelay(true).ok();
                Some(Ok((stream, from.ip(), seat)))
            }
            Err(error) => {
                debug!(%error, "not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                Some(Err(()))
            }
        }
    };
    tokio::select! {
        accepted = accepted => accepted,
        () = shutdown.wait() => None,
    }
}

/// A client's place, counted while it is taken.
struct Seat(Arc<Counters>, #[allow(dead_code, reason = "held")] tokio::sync::OwnedSemaphorePermit);

impl Seat {
    fn take(seat: tokio::sync::OwnedSemaphorePermit, counters: Arc<Counters>) -> Self {
        counters.connections.fetch_add(1, Ordering::Relaxed);
        Self(counters, seat)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn converse(stream: TcpStream, from: IpAddr, forwarder: Arc<Forwarder>, shutdown: Shutdown) {
    let patience = forwarder.config.client_timeout;
    // One client, one request at a time: what holds up its connection holds up that request.
    let stalls = Arc::new(Stalls::new());
    let service = service_fn(|request| {
        let (forwarder, stalls) = (Arc::clone(&forwarder), Arc::clone(&stalls));
        async move { Ok::<_, Infallible>(forwarder.answer(request, from, stalls).await) }
    });
    let stream = Patient::new(stream, patience, Arc::clone(&stalls));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .max_buf_size(PROXY_HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.wait() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%from, %error, "connection of a client ended");
    }
}
