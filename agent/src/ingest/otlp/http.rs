//! OTLP over HTTP: protobuf and JSON, gzip or not.
//!
//! Bounds: `MESSAGE_BYTES_MAX` a body and as much again decompressed; `EXPORTS_MAX` at once, more are
//! told 503. Errors are a `google.rpc.Status` in the encoding of the request, as OTLP has it.

use std::io::Read;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use flate2::read::GzDecoder;
use lens_service::shutdown::Shutdown;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tracing::error;

use super::grpc::{metrics_response, trace_response};
use super::{Answer, Door, EXPORTS_MAX, MESSAGE_BYTES_MAX, MESSAGE_TIME_MAX};
use crate::ingest::refusal::Refusal;
use crate::ingest::sink::Busy;

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

/// When a sender that was told to come back may do so, seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

#[derive(Clone, Debug)]
struct Shared {
    door: Door,
    places: std::sync::Arc<Semaphore>,
}

/// Serves until told to stop.
pub async fn serve(listener: TcpListener, door: Door, stop: Shutdown) {
    let served = axum::serve(listener, router(door))
        .with_graceful_shutdown(async move { stop.wait().await })
        .await;
    if let Err(error) = served {
        error!(%error, "OTLP over HTTP has ended");
    }
}

fn router(door: Door) -> Router {
    let places = std::sync::Arc::new(Semaphore::new(EXPORTS_MAX));
    Router::new()
        .route("/v1/metrics", post(metrics))
        .route("/v1/traces", post(traces))
        .route("/v1/logs", post(logs))
        .fallback(async || (StatusCode::NOT_FOUND, "POST to /v1/metrics or /v1/traces\n"))
        .layer(DefaultBodyLimit::max(MESSAGE_BYTES_MAX))
        .with_state(Shared { door, places })
}

/// How a message and its answer are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Protobuf,
    Json,
}

/// A refusal of a whole message.
struct Fault {
    encoding: Encoding,
    status: StatusCode,
    what: String,
}

/// A `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        // INVALID_ARGUMENT, UNAVAILABLE, UNIMPLEMENTED.
        let code = match self.status {
            StatusCode::SERVICE_UNAVAILABLE => 14,
            StatusCode::NOT_IMPLEMENTED => 12,
            _ => 3,
        };
        let body = match self.encoding {
            Encoding::Protobuf => RpcStatus { code, message: self.what }.encode_to_vec(),
            Encoding::Json => {
                serde_json::json!({"code": code, "message": self.what}).to_string().into_bytes()
            }
        };
        let mut response = (self.status, [content_type(self.encoding)], body).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }
}

fn content_type(encoding: Encoding) -> (header::HeaderName, &'static str) {
    let text = if encoding == Encoding::Json { JSON } else { PROTOBUF };
    (header::CONTENT_TYPE, text)
}

async fn metrics(State(shared): State<Shared>, request: Request) -> Result<Response, Fault> {
    let export = |door: &Door, message: &ExportMetricsServiceRequest| door.metrics(message);
    handle(shared, request, export, metrics_response).await
}

async fn traces(State(shared): State<Shared>, request: Request) -> Result<Response, Fault> {
    let export = |door: &Door, message: &ExportTraceServiceRequest| door.spans(message);
    handle(shared, request, export, trace_response).await
}

async fn logs(State(shared): State<Shared>, headers: HeaderMap) -> Fault {
    shared.door.refuse(Refusal::Logs);
    let encoding = encoding_of(&headers).unwrap_or(Encoding::Json);
    Fault { encoding, status: StatusCode::NOT_IMPLEMENTED, what: Refusal::Logs.remedy().to_owned() }
}

async fn handle<M: Message + Default + DeserializeOwned, R: Message + Serialize>(
    shared: Shared,
    request: Request,
    export: impl FnOnce(&Door, &M) -> Result<Answer, Busy>,
    response: impl FnOnce(Answer) -> R,
) -> Result<Response, Fault> {
    let (door, headers) = (&shared.door, request.headers().clone());
    let refuse = |encoding, status, why: Refusal, what: String| {
        door.refuse(why);
        Fault { encoding, status, what: format!("{what}: {}", why.remedy()) }
    };
    let Some(encoding) = encoding_of(&headers) else {
        let what = format!("a content type other than {PROTOBUF} and {JSON}");
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(refuse(Encoding::Json, status, Refusal::Body, what));
    };
    // Taken before the body is read: so many bodies are in memory and no more.
    let Ok(_place) = shared.places.try_acquire() else {
        let (status, what) = (StatusCode::SERVICE_UNAVAILABLE, "too many exports at once");
        return Err(refuse(encoding, status, Refusal::Busy, what.to_owned()));
    };
    let whole = axum::body::to_bytes(request.into_body(), MESSAGE_BYTES_MAX);
    let limited = tokio::time::timeout(MESSAGE_TIME_MAX, whole).await.map_err(|_| {
        let what = format!("a body that took more than {} s", MESSAGE_TIME_MAX.as_secs());
        refuse(encoding, StatusCode::REQUEST_TIMEOUT, Refusal::Body, what)
    })?;
    let body = limited.map_err(|error| {
        let what = format!("a body above {MESSAGE_BYTES_MAX} bytes ({error})");
        refuse(encoding, StatusCode::PAYLOAD_TOO_LARGE, Refusal::TooLarge, what)
    })?;
    let body = inflate(&headers, body)
        .map_err(|(status, why, what)| refuse(encoding, status, why, what))?;
    let message = decode::<M>(encoding, &body)
        .map_err(|what| refuse(encoding, StatusCode::BAD_REQUEST, Refusal::Body, what))?;
    let answer = export(door, &message).map_err(|busy| Fault {
        encoding,
        status: StatusCode::SERVICE_UNAVAILABLE,
        what: busy.to_string(),
    })?;
    let message = response(answer);
    let body = match encoding {
        Encoding::Protobuf => message.encode_to_vec(),
        Encoding::Json => serde_json::to_vec(&message).unwrap_or_default(),
    };
    Ok(([content_type(encoding)], body).into_response())
}

fn encoding_of(headers: &HeaderMap) -> Option<Encoding> {
    let text = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let kind = text.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case(PROTOBUF) {
        Some(Encoding::Protobuf)
    } else if kind.eq_ignore_ascii_case(JSON) {
        Some(Encoding::Json)
    } else {
        None
    }
}

fn inflate(headers: &HeaderMap, body: Bytes) -> Result<Bytes, (StatusCode, Refusal, String)> {
    let coding =
        headers.get(header::CONTENT_ENCODING).map(|value| value.as_bytes().to_ascii_lowercase());
    match coding.as_deref() {
        None | Some(b"identity" | b"") => Ok(body),
        Some(b"gzip") => {
            let mut out = Vec::new();
            let limit = MESSAGE_BYTES_MAX as u64 + 1;
            let read = GzDecoder::new(&body[..]).take(limit).read_to_end(&mut out);
            match read {
                Err(error) => {
                    Err((StatusCode::BAD_REQUEST, Refusal::Body, format!("not gzip ({error})")))
                }
                Ok(_) if out.len() > MESSAGE_BYTES_MAX => {
                    let what = format!("more than {MESSAGE_BYTES_MAX} bytes decompressed");
                    Err((StatusCode::PAYLOAD_TOO_LARGE, Refusal::TooLarge, what))
                }
                Ok(_) => Ok(out.into()),
            }
        }
        Some(_) => {
            let what = "a content encoding other than gzip".to_owned();
            Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, Refusal::Encoding, what))
        }
    }
}

fn decode<M: Message + Default + DeserializeOwned>(
    encoding: Encoding,
    body: &[u8],
) -> Result<M, String> {
    match encoding {
        Encoding::Protobuf => M::decode(body).map_err(|error| format!("no message ({error})")),
        Encoding::Json => {
            serde_json::from_slice(body).map_err(|error| format!("no message ({error})"))
        }
    }
}
