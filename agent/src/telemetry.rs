//! The agent's own counters as instruments of its telemetry.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use crate::status::{Counters, Status};

type Pick = fn(&Counters) -> &AtomicU64;

/// Counters shown, by name.
const SHOWN: [(&str, Pick); 6] = [
    ("lens.agent.harvests", |c| &c.harvests_total),
    ("lens.agent.harvests.paused", |c| &c.harvests_paused_total),
    ("lens.agent.samples.harvested", |c| &c.samples_harvested_total),
    ("lens.agent.deltas.sent", |c| &c.deltas_sent_total),
    ("lens.agent.bytes.sent", |c| &c.bytes_sent_total),
    ("lens.agent.connects", |c| &c.connects_total),
];

/// Makes the counters of a status readable by the telemetry, if there is any.
pub(crate) fn observe(status: &Arc<Status>) {
    let meter = lens_service::telemetry::meter();
    for (name, pick) in SHOWN {
        let status: Weak<Status> = Arc::downgrade(status);
        meter
            .u64_observable_counter(name)
            .with_callback(move |reading| {
                if let Some(status) = status.upgrade() {
                    reading.observe(pick(&status.counters).load(Ordering::Relaxed), &[]);
                }
            })
            .build();
    }
}
