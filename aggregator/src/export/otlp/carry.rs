//! The sockets: one request to the receiver and what became of it, over gRPC or HTTP.

use std::fmt::Debug;
use std::io::Write;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, Method, header};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use lens_service::env::Env;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use prost::Message;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use super::answer::{self, Outcome};
use super::config::{Config, Protocol};
use crate::alerts::transport::{HttpClient, chain, client};

/// Most of an HTTP answer that is read, bytes.
const BODY_BYTES_MAX: usize = 64 << 10;

/// Sends requests.
pub trait Carry: Send + Sync + Debug {
    /// Sends one and says what became of it, without any secret in it.
    fn send<'a>(&'a self, request: &'a ExportMetricsServiceRequest) -> BoxFuture<'a, Outcome>;
}

/// The carrier that is configured. Nothing is connected yet.
///
/// # Errors
/// What the TLS library says, or why the endpoint is none.
pub fn carrier(env: &Env, config: &Config) -> Result<Box<dyn Carry>, String> {
    Ok(match config.protocol {
        Protocol::Grpc => Box::new(Grpc::new(config)?),
        Protocol::Http => Box::new(Http::new(env.clone(), config)?),
    })
}

fn headers(config: &Config) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in &config.headers {
        let mut value = HeaderValue::from_str(value.expose())
            .map_err(|_| format!("{name} holds what no header may"))?;
        value.set_sensitive(true);
        headers.append(name.clone(), value);
    }
    Ok(headers)
}

#[derive(Debug)]
struct Grpc {
    client: MetricsServiceClient<Channel>,
    metadata: MetadataMap,
}

impl Grpc {
    fn new(config: &Config) -> Result<Self, String> {
        let timeout = Duration::from(config.timeout);
        let agent = concat!("lens/", env!("CARGO_PKG_VERSION"));
        let mut endpoint = Endpoint::from_shared(config.endpoint.clone())
            .and_then(|endpoint| endpoint.user_agent(agent))
            .map_err(|error| chain(&error))?
            .timeout(timeout)
            .connect_timeout(timeout);
        if config.endpoint.starts_with("https:") {
            let tls = match &config.ca {
                Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
                None => ClientTlsConfig::new().with_native_roots(),
            };
            endpoint = endpoint.tls_config(tls).map_err(|error| chain(&error))?;
        }
        let mut client = MetricsServiceClient::new(endpoint.connect_lazy());
        if config.gzip {
            client = client
                .send_compressed(CompressionEncoding::Gzip)
                .accept_compressed(CompressionEncoding::Gzip);
        }
        Ok(Self { client, metadata: MetadataMap::from_headers(headers(config)?) })
    }
}

impl Carry for Grpc {
    fn send<'a>(&'a self, request: &'a ExportMetricsServiceRequest) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let mut asked = tonic::Request::new(request.clone());
            *asked.metadata_mut() = self.metadata.clone();
            match self.client.clone().export(asked).await {
                Ok(answer) => answer::response(answer.get_ref()),
                Err(status) => answer::status(&status),
            }
        })
    }
}

#[derive(Debug)]
struct Http {
    env: Env,
    client: HttpClient,
    url: String,
    headers: HeaderMap,
    gzip: bool,
    timeout: Duration,
}

impl Http {
    fn new(env: Env, config: &Config) -> Result<Self, String> {
        let mut headers = headers(config)?;
        let fixed = [
            (header::CONTENT_TYPE, "application/x-protobuf"),
            (header::USER_AGENT, concat!("lens/", env!("CARGO_PKG_VERSION"))),
        ];
        for (name, value) in fixed {
            headers.insert(name, HeaderValue::from_static(value));
        }
        if config.gzip {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        Ok(Self {
            env,
            client: client(config.ca.as_deref())?,
            url: config.endpoint.clone(),
            headers,
            gzip: config.gzip,
            timeout: config.timeout.into(),
        })
    }

    async fn post(&self, body: Vec<u8>) -> Result<Outcome, String> {
        let mut built = hyper::Request::builder()
            .method(Method::POST)
            .uri(&self.url)
            .body(Full::from(Bytes::from(body)))
            .map_err(|error| error.to_string())?;
        *built.headers_mut() = self.headers.clone();
        let response = self.client.request(built).await.map_err(|error| chain(&error))?;
        let (head, body) = response.into_parts();
        // What is too long or breaks off says nothing about whether it was taken: the status does.
        let body = Limited::new(body, BODY_BYTES_MAX).collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        let retry_after = head.headers.get(header::RETRY_AFTER).and_then(|v| v.to_str().ok());
        Ok(answer::http(head.status.as_u16(), retry_after, &body, self.env.now()))
    }
}

impl Carry for Http {
    fn send<'a>(&'a self, request: &'a ExportMetricsServiceRequest) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let body = request.encode_to_vec();
            let body = match self.gzip.then(|| gzip(&body)).transpose() {
                Ok(packed) => packed.unwrap_or(body),
                Err(error) => return Outcome::Refused { said: error.to_string() },
            };
            let later = |said| Outcome::Later { after: None, said };
            match tokio::time::timeout(self.timeout, self.post(body)).await {
                Ok(answer) => answer.unwrap_or_else(later),
                Err(_) => later(format!("no answer within {} s", self.timeout.as_secs())),
            }
        })
    }
}

fn gzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish()
}
