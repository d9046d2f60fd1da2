//! The aggregator's own counters as instruments of its telemetry.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use crate::state::{Counters, State};

type Pick = fn(&Counters) -> &AtomicU64;

/// Counters shown, by name.
const SHOWN: [(&str, Pick); 7] = [
    ("lens.aggregator.frames", |c| &c.frames_total),
    ("lens.aggregator.bytes", |c| &c.bytes_total),
    ("lens.aggregator.deltas.accepted", |c| &c.deltas_accepted_total),
    ("lens.aggregator.deltas.duplicate", |c| &c.deltas_duplicate_total),
    ("lens.aggregator.deltas.refused", |c| &c.deltas_refused_total),
    ("lens.aggregator.samples.merged", |c| &c.samples_merged_total),
    ("lens.aggregator.connections", |c| &c.connections_total),
];

/// Makes the counters of a state readable by the telemetry, if there is any.
pub(crate) fn observe(state: &Arc<State>) {
    let meter = lens_service::telemetry::meter();
    for (name, pick) in SHOWN {
        let state: Weak<State> = Arc::downgrade(state);
        meter
            .u64_observable_counter(name)
            .with_callback(move |reading| {
                if let Some(state) = state.upgrade() {
                    reading.observe(pick(&state.counters).load(Ordering::Relaxed), &[]);
                }
            })
            .build();
    }
}
