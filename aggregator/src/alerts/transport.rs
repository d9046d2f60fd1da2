//! The one place in alerting that holds a socket: an HTTP POST and its answer.
//!
//! No redirects, no proxies, no more of an answer read than is kept; TLS against the system's
//! authorities.

use std::fmt::Debug;
use std::time::Duration;

use axum::http::{HeaderValue, Method, header};
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use lens_model::Nanos;
use rustls::RootCertStore;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::sink::{Answer, Request};

/// Longest an answer is waited for.
pub const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Most of an answer that is read, bytes.
const BODY_BYTES_MAX: usize = 64 << 10;

/// Sends requests.
pub trait Transport: Send + Sync + Debug {
    /// Sends one and gives the answer, or why there is none, without any secret in it.
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Answer, String>>;
}

/// What sends one request and gives the answer.
pub(crate) type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A client that trusts this authority (PEM), or those of the system; without any only `http` works.
///
/// # Errors
/// What the TLS library says.
pub(crate) fn client(authority: Option<&[u8]>) -> Result<HttpClient, String> {
    let mut roots = RootCertStore::empty();
    match authority {
        Some(pem) => {
            let given = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok);
            roots.add_parsable_certificates(given);
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let config = rustls::ClientConfig::builder_with_provider(default_provider().into())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().build();
    let mut builder = Client::builder(TokioExecutor::new());
    // A connection kept open is one that may have been closed at the other end.
    builder.pool_max_idle_per_host(0);
    Ok(builder.build(connector))
}

/// Sends them over this machine's network.
#[derive(Clone, Debug)]
pub struct Http {
    client: HttpClient,
}

impl Http {
    /// A client. Reads the system's certificate authorities; without any only `http` works.
    ///
    /// # Errors
    /// What the TLS library says.
    pub fn new() -> Result<Self, String> {
        Ok(Self { client: client(None)? })
    }

    async fn post(&self, request: Request) -> Result<Answer, String> {
        let mut built = hyper::Request::builder()
            .method(Method::POST)
            .uri(request.url.expose())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("lens/", env!("CARGO_PKG_VERSION")));
        for (name, value) in &request.headers {
            let mut value = HeaderValue::from_str(value.expose())
                .map_err(|_| format!("{name} holds what no header may"))?;
            value.set_sensitive(true);
            built = built.header(*name, value);
        }
        let built = built.body(Full::from(request.body)).map_err(|error| error.to_string())?;
        let response = self.client.request(built).await.map_err(|error| chain(&error))?;
        let (head, body) = response.into_parts();
        let retry_after = head.headers.get(header::RETRY_AFTER);
        let retry_after = retry_after.and_then(|value| value.to_str().ok()?.trim().parse().ok());
        // What is too long or breaks off says nothing about whether it was taken: the status does.
        let body = match Limited::new(body, BODY_BYTES_MAX).collect().await {
            Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
            Err(_) => String::new(),
        };
        let retry_after = retry_after.map(Nanos::from_secs);
        Ok(Answer { status: head.status.as_u16(), retry_after, body })
    }
}

impl Transport for Http {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Answer, String>> {
        Box::pin(async move {
            match tokio::time::timeout(ANSWER_MAX, self.post(request)).await {
                Ok(answer) => answer,
                Err(_) => Err(format!("no answer within {} s", ANSWER_MAX.as_secs())),
            }
        })
    }
}

/// Sends nothing: for a desk without sinks.
#[derive(Clone, Copy, Debug)]
pub struct Nowhere;

impl Transport for Nowhere {
    fn send(&self, _: Request) -> BoxFuture<'_, Result<Answer, String>> {
        Box::pin(std::future::ready(Err("nothing is sent from here".into())))
    }
}

/// The causes of an error in one line; none of this library's names the address.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
