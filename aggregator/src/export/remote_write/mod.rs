//! Remote write: everything `/metrics` has, pushed to a Prometheus, Mimir or the like at an
//! interval, for networks in which nobody can come and scrape. Protocol 1.0.
//!
//! [`message`] writes a sheet down as requests; [`queue`] holds them in order, bounded; [`run`]
//! collects and sends. What a receiver cannot take now is sent again, in order, later and later;
//! what it refuses is dropped and counted. When the queue is full nothing more is collected and
//! that is counted: counters are cumulative, so only resolution is lost, not samples.
//! Refusal: the queue is in memory alone. After a restart sending goes on with the next collection.

mod config;
mod message;
mod queue;
mod run;

use std::sync::atomic::{AtomicU64, Ordering};

use super::family::Families;

pub use config::Config;
pub use message::{Batch, batches};
pub use queue::{Full, Queue};
pub use run::run;

/// What remote write counts about itself.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct Tally {
    pub samples_sent_total: AtomicU64,
    pub samples_dropped_total: AtomicU64,
    pub requests_sent_total: AtomicU64,
    pub requests_retried_total: AtomicU64,
    pub requests_dropped_total: AtomicU64,
    pub collections_skipped_total: AtomicU64,
    pub queue_bytes: AtomicU64,
    pub queue_requests: AtomicU64,
    /// When the oldest of the queue was collected, Unix nanoseconds; 0 when it is empty.
    pub oldest: AtomicU64,
}

impl Tally {
    fn add(counter: &AtomicU64, more: u64) {
        counter.fetch_add(more, Ordering::Relaxed);
    }

    /// Notes how full the queue is.
    fn holds(&self, queue: &Queue) {
        self.queue_bytes.store(queue.bytes() as u64, Ordering::Relaxed);
        self.queue_requests.store(queue.len() as u64, Ordering::Relaxed);
        let oldest = queue.front().map_or(0, |batch| batch.collected.0);
        self.oldest.store(oldest, Ordering::Relaxed);
    }

    /// Writes it down for export; `now` in Unix nanoseconds.
    pub fn export(&self, sheet: &mut Families, now: u64) {
        let held = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let name = "lens_remote_write_samples";
        sheet.family(name, "counter", "Samples of remote write settled, by outcome.");
        for (outcome, counter) in
            [("sent", &self.samples_sent_total), ("dropped", &self.samples_dropped_total)]
        {
            sheet.sample(&format!("{name}_total"), &[("outcome", outcome)], held(counter));
        }
        let name = "lens_remote_write_requests";
        sheet.family(name, "counter", "Requests of remote write by outcome, retries each time.");
        for (outcome, counter) in [
            ("sent", &self.requests_sent_total),
            ("retried", &self.requests_retried_total),
            ("dropped", &self.requests_dropped_total),
        ] {
            sheet.sample(&format!("{name}_total"), &[("outcome", outcome)], held(counter));
        }
        let name = "lens_remote_write_collections_skipped";
        sheet.family(name, "counter", "Times nothing was collected because the queue was full.");
        let skipped = held(&self.collections_skipped_total);
        sheet.sample(&format!("{name}_total"), &[], skipped);
        sheet.family("lens_remote_write_queue_bytes", "gauge", "Bytes that wait to be sent.");
        sheet.sample("lens_remote_write_queue_bytes", &[], held(&self.queue_bytes));
        sheet.family("lens_remote_write_queue_requests", "gauge", "Requests that wait to be sent.");
        sheet.sample("lens_remote_write_queue_requests", &[], held(&self.queue_requests));
        let name = "lens_remote_write_delay_seconds";
        sheet.family(name, "gauge", "How long the oldest waits that is not sent yet; 0 for none.");
        let waits = match held(&self.oldest) {
            0 => 0,
            oldest => now.saturating_sub(oldest),
        };
        #[allow(clippy::cast_precision_loss)]
        sheet.sample(name, &[], waits as f64 / 1e9);
    }
}
