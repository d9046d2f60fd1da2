//! What there is to export at one instant, cut into requests.

use std::collections::VecDeque;

use lens_hist::Counts;
use lens_model::UnixNanos;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;

use super::buckets::Buckets;
use super::ledger::{Ledger, Mark};
use super::points::{Draft, Family, Interval, Origin, REQUEST_BYTES_MAX, attributes};
use crate::judge::Verdict;
use crate::snapshot::{Row, Snapshot, Value};
use crate::state::State;
use crate::window::Selection;

/// Exemplars of one point: those that came since the last one, so that each is sent once.
const EXEMPLARS_MAX: usize = 10;

/// One request, and what settles it.
#[derive(Debug)]
pub(super) struct Chunk {
    /// The message.
    pub request: ExportMetricsServiceRequest,
    /// Data points in it.
    pub points: u64,
    /// What is settled once it was taken, or is not to be sent again.
    pub marks: Vec<Mark>,
}

/// Everything as of `now`, in requests that receivers take. The windows are locked once a series.
pub(super) fn gather(
    state: &State,
    ledger: &mut Ledger,
    buckets: &Buckets,
    origin: &Origin,
    now: UnixNanos,
) -> VecDeque<Chunk> {
    let snapshot = Snapshot::take(state, now);
    let mut chunks = VecDeque::new();
    let (mut draft, mut marks) = (Draft::default(), Vec::new());
    let collected = ledger.collect(now);
    let mut counts = Counts::new();
    for row in &snapshot.rows {
        let mut own = Draft::default();
        let key = row.key();
        let attributes = attributes(&key);
        counts.clear();
        state.windows.read().lifetime(&Selection::series(&key), &mut counts);
        let mut mark = None;
        if let Some((start, opened)) = ledger.open(&key, &mut counts, now) {
            let interval = Interval { start, end: ledger.end(&key, now) };
            let slow = state.exemplars.read().newest(&key, collected, EXEMPLARS_MAX);
            own.histogram(&attributes, interval, &counts, buckets, &slow);
            mark = opened;
        }
        gauges(&mut own, &attributes, row, now);
        if draft.bytes() + own.bytes() > REQUEST_BYTES_MAX {
            close(&mut chunks, &mut draft, &mut marks, origin);
        }
        draft.take(own);
        marks.extend(mark);
    }
    close(&mut chunks, &mut draft, &mut marks, origin);
    chunks
}

fn close(chunks: &mut VecDeque<Chunk>, draft: &mut Draft, marks: &mut Vec<Mark>, origin: &Origin) {
    if draft.is_empty() {
        return;
    }
    let draft = std::mem::take(draft);
    let points = draft.len() as u64;
    chunks.push_back(Chunk { request: draft.finish(origin), points, marks: std::mem::take(marks) });
}

/// Quantiles, ratio and verdicts of a series over the summary window.
fn gauges(draft: &mut Draft, attributes: &[KeyValue], row: &Row, now: UnixNanos) {
    type Pick = fn(&Value) -> Option<f64>;
    let ends: [(Family, Pick); 3] = [
        (Family::Quantile, |value| value.value_ms),
        (Family::QuantileLow, |value| value.low_ms),
        (Family::QuantileHigh, |value| value.high_ms),
    ];
    let quantiles =
        [("0.5", &row.p50), ("0.95", &row.p95), ("0.99", &row.p99), ("0.999", &row.p99_9)];
    for (family, pick) in ends {
        for (name, value) in quantiles {
            if let Some(ms) = pick(value) {
                draft.gauge(family, attributes, &[("lens.quantile", name)], now, ms / 1e3);
            }
        }
    }
    let ratios = [
        (Family::Ratio, row.ratio),
        (Family::RatioLow, row.ratio_low),
        (Family::RatioHigh, row.ratio_high),
        (Family::Age, Some(row.age_s)),
    ];
    for (family, value) in ratios {
        if let Some(value) = value {
            draft.gauge(family, attributes, &[], now, value);
        }
    }
    for verdict in Verdict::ALL {
        let name = ("lens.verdict", verdict.as_str());
        let holds = |held: Verdict| f64::from(u8::from(held == verdict));
        draft.gauge(Family::Verdict, attributes, &[name], now, holds(row.verdict));
        for slo in &row.slo {
            let of = ("lens.percentile", slo.quantile);
            draft.gauge(Family::SloVerdict, attributes, &[of, name], now, holds(slo.state));
        }
    }
}
