//! The reference search node: answers real queries over real source files, and records itself.
//!
//! It stands for the service whose latency the rest of the system watches. Its stages do real
//! work: A searches an n-gram index, B a table of symbols, C reranks by feature vectors. No
//! latency is simulated; a regression repeats a stage's own work.
//!
//! Promise: what it recorded is counted a second time beside the recorder ([`Ledger`]), served at
//! `GET /recorded` and printed when the node stops, so that receivers can be checked exactly; with
//! `--ledger` it is kept in a file that tells it of a node that was killed ([`KeptLedger`]).
//! Bounds: see the constants of [`corpus`], [`index`] and [`http`].

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use thiserror::Error;

pub mod corpus;
mod engine;
mod events;
mod fold;
pub mod http;
pub mod index;
pub mod language;
mod ledger;
mod lexical;
mod options;
mod queries;
mod recording;
mod repository;
mod request;
mod rerank;
mod symbol_table;
pub mod symbols;
mod tokens;
mod walk;

pub use corpus::{Corpus, CorpusError, CorpusLimits};
pub use events::{Event, print_event};
pub use index::IndexError;
pub use ledger::{KeptLedger, Ledger, LedgerError, LedgerRequests, LedgerSeries};
pub use options::{NodeArgs, NodeOptions};
pub use queries::{QueryKind, SampleQuery};
pub use recording::RecordingError;
pub use request::{K_DEFAULT, K_MAX, Mode, QUERY_CHARS_MAX};

use engine::Slowdown;
use http::{About, Served};
use index::SearchIndex;
use recording::{Identity, Recording};

use crate::numbers::{fnv1a, nanos_of};

/// How long connections may take to finish once the node is told to stop.
pub const DRAIN_MAX: Duration = Duration::from_secs(8);

/// Why a node did not run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The corpus could not be indexed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The address could not be taken.
    #[error("cannot listen on {listen}: {source}; choose a free port, or 0 for any")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The segment could not be created.
    #[error("cannot record into {}: {source}; name a directory you may write to with --segment-dir", directory.display())]
    Recorder {
        /// The directory of the segment.
        directory: PathBuf,
        /// What the recorder said.
        source: RecordingError,
    },
    /// Serving failed.
    #[error("serving failed: {0}")]
    Serve(std::io::Error),
    /// The indexing thread ended by a fault.
    #[error("the indexing thread ended unexpectedly: {0}")]
    Worker(#[from] tokio::task::JoinError),
}

/// Runs a node until `shutdown` completes, writing its [`Event`]s to standard output.
///
/// # Errors
/// [`NodeError`] when the corpus, the address or the segment cannot be used.
pub async fn run(
    options: NodeOptions,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), NodeError> {
    run_with(options, |event| print_event(&event), shutdown).await
}

/// Runs a node until `shutdown` completes, handing its [`Event`]s to `on_event`.
///
/// The last event is the ledger, after every query has ended.
///
/// # Errors
/// [`NodeError`] when the corpus, the address or the segment cannot be used.
pub async fn run_with(
    options: NodeOptions,
    on_event: impl Fn(Event) + Clone + Send + 'static,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), NodeError> {
    let unlistenable = |source| NodeError::Listen { listen: options.listen, source };
    let listener = tokio::net::TcpListener::bind(options.listen).await.map_err(unlistenable)?;
    let listen = listener.local_addr().map_err(unlistenable)?;

    let began = Instant::now();
    let mut shutdown = Box::pin(shutdown);
    let stopping = Arc::new(AtomicBool::new(false));
    let building = {
        let (corpus, stopping, on_event) =
            (options.corpus.clone(), Arc::clone(&stopping), on_event.clone());
        let limits = CorpusLimits { files: options.files_max, bytes: options.bytes_max };
        tokio::task::spawn_blocking(move || {
            let corpus = Corpus::gather(&corpus, limits).map_err(IndexError::from)?;
            SearchIndex::build(corpus, |files, of| {
                on_event(Event::Indexing { files, of });
                !stopping.load(Ordering::Relaxed)
            })
        })
    };
    let index = tokio::select! {
        built = building => built??,
        () = &mut shutdown => {
            stopping.store(true, Ordering::Relaxed);
            return Ok(());
        }
    };

    let identity = Identity {
        version: &options.version,
        instance: options.instance.as_str(),
        arm: options.arm,
        by_assignment: options.by_assignment,
    };
    let slices: Vec<_> = index.slices.iter().map(|slice| slice.slice.clone()).collect();
    let ledger = options.ledger.as_deref();
    let recording = Recording::open(&options.segment_dir, ledger, identity, &slices)
        .map_err(|source| NodeError::Recorder { directory: options.segment_dir.clone(), source })?;
    let coverage = index.coverage();
    recording.gauge("lsif_coverage_percent", coverage.files);
    recording.gauge("span_coverage_percent", coverage.spans);
    let ready = Event::Ready {
        listen,
        files: index.files.len(),
        repos: index.repositories.len(),
        slices,
        indexing_ms: nanos_of(began.elapsed()) / 1_000_000,
    };
    let about = About {
        version: options.version,
        index_version: index_version(&index),
        instance: options.instance.to_string(),
        arm: options.arm,
    };
    let slowdown = Slowdown { regressions: options.regress, started: Instant::now() };
    let served = Arc::new(Served::new(index, recording, slowdown, about));
    on_event(ready);
    serve(listener, Arc::clone(&served), shutdown).await?;
    on_event(Event::Recorded(served.recording.ledger()));
    Ok(())
}

/// Serves until told to stop, then until queries have ended or [`DRAIN_MAX`] has passed.
async fn serve(
    listener: tokio::net::TcpListener,
    served: Arc<Served>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), NodeError> {
    let (told, stopped) = tokio::sync::oneshot::channel();
    let signal = async move {
        shutdown.await;
        if told.send(()).is_err() {
            tracing::debug!("serving had ended already");
        }
    };
    let serving =
        axum::serve(listener, http::router(Arc::clone(&served))).with_graceful_shutdown(signal);
    let drained = async {
        match stopped.await {
            Ok(()) => tokio::time::sleep(DRAIN_MAX).await,
            // The signal was dropped without firing: serving ended by itself and decides.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        done = serving => done.map_err(NodeError::Serve)?,
        () = drained => tracing::warn!("connections were still open after {DRAIN_MAX:?}"),
    }
    if tokio::time::timeout(DRAIN_MAX, served.idle()).await.is_err() {
        tracing::warn!("queries were still running after {DRAIN_MAX:?}");
    }
    Ok(())
}

/// A name for what is indexed: equal on two nodes exactly when they serve the same files.
fn index_version(index: &SearchIndex) -> String {
    let bytes = index.files.iter().flat_map(|file| {
        let size = file.text.len().to_le_bytes();
        file.path.bytes().chain(size)
    });
    format!("v1-{:016x}", fnv1a(bytes))
}
