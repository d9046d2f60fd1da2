//! Foreign telemetry in: OTLP and DogStatsD, so that a node that speaks either needs no new client.
//!
//! Each listener reads a message to plain values (`reading`), which go whole into a segment of the
//! agent's own (`sink`); from there on they are samples as any other. What is refused is counted by
//! reason (`refusal`) and, where the protocol has an answer, told with its remedy.
//! Promise: nothing is counted by guess – no unit, no slice, no temporality. What was answered OK
//! lies in memory that outlives the agent's process. Each listener is off unless it is set.
//! Cost of one-way protocols: DogStatsD has no answer; what is known of its losses is shown.

pub mod dogstatsd;
pub mod otlp;
pub mod reading;
pub mod rebucket;
pub mod refusal;
pub mod repeats;
pub mod rules;
pub mod settings;
pub mod sink;
pub mod tallies;
pub mod unit;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use lens_service::env::Env;
use lens_service::shutdown::{Shutdown, Trigger};
use serde_json::{Map, Value, json};
use thiserror::Error;
use tokio::task::JoinSet;
use tracing::{info, warn};

pub use reading::Reading;
pub use settings::{IngestConfig, Listening};

use dogstatsd::loss::Losses;
use otlp::{Answer, Door};
use repeats::Repeats;
use sink::Sink;
use tallies::{Listener, Tallies, head, line};

use crate::status::Status;

/// Longest the listeners may take to stop.
const STOP_MAX: Duration = Duration::from_secs(1);

/// What came in and what became of it.
#[derive(Debug)]
pub struct Ingested {
    env: Env,
    sink: Sink,
    tallies: Tallies,
    repeats: Repeats<Answer>,
    losses: Losses,
    listeners: Vec<Listener>,
    bound: OnceLock<Map<String, Value>>,
}

/// Why foreign telemetry cannot be taken.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IngestError {
    /// An address or path cannot be listened on.
    #[error("{key} {at}: {source}: stop what listens there, or choose another")]
    Listen {
        /// Its key.
        key: &'static str,
        /// What it held.
        at: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The agent's own segment cannot be made.
    #[error("segments.dir: {0}")]
    Segment(#[from] lens_segment::CreateError),
}

/// The listeners while they run.
#[derive(Debug)]
pub struct Ingest {
    tasks: JoinSet<()>,
    stop: Trigger,
    /// Where each listens, as it was bound.
    pub bound: Map<String, Value>,
}

impl Ingest {
    /// Opens every listener that is set and begins to take from it.
    ///
    /// # Errors
    /// [`IngestError`]: then nothing listens.
    pub async fn start(
        env: &Env,
        config: &IngestConfig,
        segments: &std::path::Path,
        status: &Arc<Status>,
    ) -> Result<Self, IngestError> {
        let (trigger, stop) = Shutdown::manual();
        let mut ingest = Self { tasks: JoinSet::new(), stop: trigger, bound: Map::new() };
        let listeners = config.listeners();
        if listeners.is_empty() {
            return Ok(ingest);
        }
        let ingested = Arc::new(Ingested {
            env: env.clone(),
            sink: Sink::create(segments, Arc::clone(status))?,
            tallies: Tallies::default(),
            repeats: Repeats::default(),
            losses: Losses::default(),
            listeners,
            bound: OnceLock::new(),
        });
        if let Some((at, listening)) = &config.otlp_grpc {
            let door = Door::new(Arc::clone(&ingested), listening);
            let listener = ingest.bind("ingest.otlp_grpc.listen", *at).await?;
            ingest.tasks.spawn(otlp::grpc::serve(listener, door, stop.clone()));
        }
        if let Some((at, listening)) = &config.otlp_http {
            let door = Door::new(Arc::clone(&ingested), listening);
            let listener = ingest.bind("ingest.otlp_http.listen", *at).await?;
            ingest.tasks.spawn(otlp::http::serve(listener, door, stop.clone()));
        }
        if let Some((sockets, listening)) = &config.dogstatsd {
            let open = dogstatsd::sockets::open(sockets, &mut ingest.bound)?;
            dogstatsd::spawn(&mut ingest.tasks, &ingested, open, sockets, listening, &stop);
        }
        let bound = json!(ingest.bound).to_string();
        info!(bound, "foreign telemetry is taken");
        // Started once: both are empty before.
        ingested.bound.set(ingest.bound.clone()).ok();
        status.ingested.set(ingested).ok();
        Ok(ingest)
    }

    async fn bind(
        &mut self,
        key: &'static str,
        at: std::net::SocketAddr,
    ) -> Result<tokio::net::TcpListener, IngestError> {
        let failed = |source| IngestError::Listen { key, at: at.to_string(), source };
        let listener = tokio::net::TcpListener::bind(at).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        if !bound.ip().is_loopback() {
            warn!(key, %bound, "not a loopback address: whoever reaches it can count, unasked");
        }
        let name = key.trim_start_matches("ingest.").trim_end_matches(".listen");
        self.bound.insert(name.to_owned(), json!(bound.to_string()));
        Ok(listener)
    }

    /// Stops every listener; what was answered is in the segment.
    pub async fn stop(mut self) {
        self.stop.begin();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_MAX, all).await.is_err() {
            warn!("a listener did not stop in time");
        }
    }
}

impl Ingested {
    /// As `/status` shows it.
    pub fn json(&self) -> Value {
        let listeners: Map<_, _> = self
            .listeners
            .iter()
            .map(|listener| (listener.label().to_owned(), self.tallies.of(*listener).json()))
            .collect();
        let series: Vec<_> = self.sink.shown_series().iter().map(sink::Shown::json).collect();
        let mut out = json!({
            "listening": self.bound.get(),
            "segment": self.sink.show(),
            "listeners": listeners,
            "series": series,
        });
        if self.listeners.contains(&Listener::Dogstatsd) {
            let received = self.tallies.of(Listener::Dogstatsd).exports();
            out["completeness"] = self.losses.json(received);
        }
        out
    }

    /// As `/metrics` shows it.
    pub fn exposition(&self) -> String {
        let mut out = self.tallies.exposition(&self.listeners);
        let help = "Samples taken in and not yet harvested.";
        head(&mut out, "samples_unharvested", help, "gauge");
        line(&mut out, &format!("samples_unharvested {}", self.sink.unharvested()));
        let series = self.sink.shown_series();
        for (name, help, of) in [
            (
                "low_resolution_samples",
                "Samples whose value is known to no better than 5 %.",
                (|shown| shown.coarse_samples as f64) as fn(&sink::Shown) -> f64,
            ),
            ("error_ratio_max", "Most a value may be off, as a share of itself.", |shown| {
                shown.error
            }),
        ] {
            head(&mut out, name, help, "gauge");
            for shown in &series {
                let key = &shown.key;
                let labels =
                    format!("slice=\"{}\",stage=\"{}\",arm=\"{}\"", key.slice, key.stage, key.arm);
                line(&mut out, &format!("{name}{{{labels}}} {}", of(shown)));
            }
        }
        if self.listeners.contains(&Listener::Dogstatsd) {
            let received = self.tallies.of(Listener::Dogstatsd).exports();
            self.losses.exposition(received, &mut out);
        }
        out
    }
}
