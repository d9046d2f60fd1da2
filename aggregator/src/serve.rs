//! The HTTP door's socket: plain on loopback, TLS with operators' certificates otherwise.
//!
//! Bounds: [`CONNECTIONS_MAX`] connections, one more waits in the kernel's queue; [`TLS_MAX`] for a
//! handshake and [`HEAD_MAX`] for a request's head, so that nobody holds a place by being slow.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::{ConnectInfo, Extension};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use lens_service::shutdown::Shutdown;
use lens_service::tls::{self, Operator};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use crate::api::Secured;

/// Connections served at once.
pub const CONNECTIONS_MAX: usize = 1_024;

/// Longest a TLS handshake may take.
const TLS_MAX: Duration = Duration::from_secs(5);

/// Longest the head of a request may take to arrive.
const HEAD_MAX: Duration = Duration::from_secs(10);

/// TLS as it is in force, replaced when certificates are renewed.
pub type Tls = Arc<ArcSwap<ServerConfig>>;

/// Serves until shutdown, then lets open requests end.
pub async fn serve(listener: TcpListener, tls: Option<Tls>, router: Router, shutdown: Shutdown) {
    let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut open = JoinSet::new();
    loop {
        let seat = tokio::select! {
            seat = Arc::clone(&seats).acquire_owned() => seat,
            () = shutdown.wait() => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.wait() => break,
            Some(_) = open.join_next() => continue,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or a peer gone at once: neither is helped by spinning.
                debug!(%error, "not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (tls, router, shutdown) = (tls.clone(), router.clone(), shutdown.clone());
        open.spawn(async move {
            take(stream, from, tls, router, shutdown).await;
            drop(seat);
        });
    }
    while open.join_next().await.is_some() {}
}

async fn take(
    stream: TcpStream,
    from: SocketAddr,
    tls: Option<Tls>,
    router: Router,
    shutdown: Shutdown,
) {
    let router = router.layer(Extension(ConnectInfo(from)));
    let Some(tls) = tls else { return converse(stream, router, shutdown).await };
    let acceptor = TlsAcceptor::from(tls.load_full());
    let stream = match tokio::time::timeout(TLS_MAX, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return debug!(%from, %error, "TLS handshake failed"),
        Err(_) => return debug!(%from, "TLS handshake took too long"),
    };
    let router = router.layer(Extension(Secured));
    let operator = stream.get_ref().1.peer_certificates().and_then(|chain| {
        let leaf = tls::leaf(chain).ok()?;
        Some(Operator { id: leaf.uri.parse().ok()?, serial: leaf.serial })
    });
    match operator {
        Some(operator) => converse(stream, router.layer(Extension(operator)), shutdown).await,
        None => converse(stream, router, shutdown).await,
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    shutdown: Shutdown,
) {
    let service = TowerToHyperService::new(router);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX);
    let connection = http.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.wait() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "HTTP connection ended");
    }
}
