//! The HTTP side of search load: fetching queries, sending one, reading its answer.

use std::time::Duration;

use lens_model::{Arm, Slice, Stage};
use reqwest::{Client, RequestBuilder};
use serde::Deserialize;
use serde_json::json;

use crate::node::SampleQuery;

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    Status(u16),
    Timeout,
    Connect,
    Body,
    Other,
}

impl Failure {
    /// The name it is counted under.
    pub(super) fn kind(self) -> String {
        match self {
            Self::Status(status) => format!("http_{status}"),
            Self::Timeout => "timeout".into(),
            Self::Connect => "connect".into(),
            Self::Body => "body".into(),
            Self::Other => "other".into(),
        }
    }
}

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Self {
        match error.status() {
            Some(status) => Self::Status(status.as_u16()),
            None if error.is_timeout() => Self::Timeout,
            None if error.is_connect() => Self::Connect,
            None if error.is_body() || error.is_decode() => Self::Body,
            None => Self::Other,
        }
    }
}

/// The part of an answer that load looks at.
#[derive(Debug, Deserialize)]
pub(super) struct Answered {
    pub(super) slice: Slice,
    pub(super) arm: Arm,
    latency_ms: AnsweredLatency,
}

#[derive(Debug, Deserialize)]
struct AnsweredLatency {
    stage_a: Option<f64>,
    stage_b: Option<f64>,
    stage_c: Option<f64>,
    total: Option<f64>,
}

impl Answered {
    /// The stages that have a latency.
    pub(super) fn stages(&self) -> impl Iterator<Item = Stage> {
        let latency = &self.latency_ms;
        let ran = [latency.stage_a, latency.stage_b, latency.stage_c, latency.total];
        Stage::ALL.into_iter().zip(ran).filter(|(_, ms)| ms.is_some()).map(|(stage, _)| stage)
    }
}

/// A client that keeps its connections and goes through no proxy, whose latency would be counted.
pub(super) fn client(timeout: Duration, connections: usize) -> reqwest::Result<Client> {
    Client::builder()
        .timeout(timeout)
        .pool_max_idle_per_host(connections)
        .tcp_nodelay(true)
        .no_proxy()
        .build()
}

/// Queries sampled by the node itself.
pub(super) async fn queries(
    client: &Client,
    url: &str,
    count: usize,
    seed: u64,
) -> Result<Vec<SampleQuery>, String> {
    #[derive(Deserialize)]
    struct Sampled {
        queries: Vec<SampleQuery>,
    }
    let response = client
        .get(format!("{url}/queries"))
        .query(&[("n", count.to_string()), ("seed", seed.to_string())])
        .send()
        .await
        .and_then(reqwest::Response::error_for_status)
        .map_err(|e| with_causes(&e))?;
    let sampled: Sampled = response.json().await.map_err(|e| with_causes(&e))?;
    Ok(sampled.queries)
}

/// An error with what caused it; reqwest keeps the telling part below the top.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(below) = cause {
        text = format!("{text}: {below}");
        cause = below.source();
    }
    text
}

/// The request for one query.
pub(super) fn request(
    client: &Client,
    url: &str,
    query: &SampleQuery,
    user: u32,
) -> RequestBuilder {
    let body = json!({"q": query.q, "slice": query.slice, "user": format!("user-{user}")});
    client.post(format!("{url}/search")).json(&body)
}

/// Sends a request and reads its answer to the end.
pub(super) async fn answer(request: RequestBuilder) -> Result<Answered, Failure> {
    let response = request.send().await?.error_for_status()?;
    response.json().await.map_err(|error| match Failure::from(error) {
        Failure::Other => Failure::Body,
        known => known,
    })
}
