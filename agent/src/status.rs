//! What the agent knows of itself, shared between harvest, link and admin.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lens_model::UnixNanos;
use lens_wire::ClockOffset;
use parking_lot::Mutex;
use serde::Serialize;

use crate::spool::Recovered;

/// Counters of the agent about itself, each exported as `lens_agent_<name>`.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct Counters {
    pub harvests_total: AtomicU64,
    pub harvests_paused_total: AtomicU64,
    pub harvest_nanos_last: AtomicU64,
    pub harvest_gap_nanos_max: AtomicU64,
    pub samples_harvested_total: AtomicU64,
    pub deltas_sent_total: AtomicU64,
    pub bytes_sent_total: AtomicU64,
    pub connects_total: AtomicU64,
    pub connect_failures_total: AtomicU64,
    pub exemplars_sent_total: AtomicU64,
    pub exemplars_dropped_total: AtomicU64,
    pub segments_removed_total: AtomicU64,
    pub segments_taken_over_total: AtomicU64,
}

impl Counters {
    /// Adds to a counter.
    pub fn add(counter: &AtomicU64, more: u64) {
        counter.fetch_add(more, Ordering::Relaxed);
    }
}

/// One segment as `/status` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct SegmentStatus {
    /// Its file.
    pub file: String,
    /// Who writes it.
    pub instance: String,
    /// What that runs.
    pub service: String,
    /// In which version.
    pub version: String,
    /// The process that writes it.
    pub pid: u32,
    /// Series harvested from it.
    pub series: usize,
    /// Samples harvested from it.
    pub samples: u64,
    /// `live`, `draining` or `quarantined`.
    pub state: &'static str,
    /// Why it is quarantined.
    pub reason: Option<String>,
}

/// The connection as `/status` shows it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LinkStatus {
    /// Whether a session stands.
    pub connected: bool,
    /// The aggregator it stands with, or was last tried with.
    pub endpoint: String,
    /// Why the last attempt or session ended.
    pub last_error: Option<String>,
    /// When the last acknowledgement came.
    pub last_ack: Option<UnixNanos>,
}

/// The certificate as `/status` shows it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CertificateStatus {
    /// When the one in force ends.
    pub expires: Option<UnixNanos>,
    /// Why the files as they are now are not taken up; the one in force stays.
    pub problem: Option<String>,
}

/// Everything the admin endpoints show.
#[derive(Debug)]
pub struct Status {
    /// When the agent started.
    pub started: UnixNanos,
    /// Its identity.
    pub identity: String,
    /// Why harvesting is paused, if it is.
    pub paused: Mutex<Option<String>>,
    /// The spool's files, as of the last harvest.
    pub disk: Mutex<lens_journal::Level>,
    /// What was found in the spool at the start.
    pub recovered: Recovered,
    /// What it counts about itself.
    pub counters: Counters,
    /// The segments it knows.
    pub segments: Mutex<Vec<SegmentStatus>>,
    /// Segments and scans refused, by reason.
    pub dropped: Mutex<BTreeMap<String, u64>>,
    /// The connection.
    pub link: Mutex<LinkStatus>,
    /// The certificate.
    pub certificate: Mutex<CertificateStatus>,
    /// Asks for the certificate to be taken up anew.
    pub reload: tokio::sync::Notify,
    /// The clocks.
    pub clock: Mutex<ClockOffset>,
    /// The last minutes in fine steps, where they are kept.
    pub hindsight: std::sync::OnceLock<std::sync::Arc<crate::hindsight::Hindsight>>,
    /// Foreign telemetry, where any is taken.
    pub ingested: std::sync::OnceLock<std::sync::Arc<crate::ingest::Ingested>>,
    /// What its proxy counts, where it is on.
    pub proxy: std::sync::OnceLock<std::sync::Arc<crate::proxy::Counters>>,
    /// Whether it is shutting down.
    pub draining: AtomicBool,
    /// Whether the first look for segments is done.
    pub scanned: AtomicBool,
}

impl Status {
    /// The status of a fresh agent.
    pub fn new(started: UnixNanos, identity: String, recovered: Recovered) -> Self {
        Self {
            started,
            identity,
            paused: Mutex::new(None),
            disk: Mutex::default(),
            recovered,
            counters: Counters::default(),
            segments: Mutex::new(Vec::new()),
            dropped: Mutex::new(BTreeMap::new()),
            link: Mutex::new(LinkStatus::default()),
            certificate: Mutex::new(CertificateStatus::default()),
            reload: tokio::sync::Notify::new(),
            clock: Mutex::new(ClockOffset::UNMEASURED),
            hindsight: std::sync::OnceLock::new(),
            ingested: std::sync::OnceLock::new(),
            proxy: std::sync::OnceLock::new(),
            draining: AtomicBool::new(false),
            scanned: AtomicBool::new(false),
        }
    }

    /// Counts something refused, by reason.
    pub fn drop_counted(&self, reason: &str) {
        *self.dropped.lock().entry(reason.to_owned()).or_default() += 1;
    }
}
