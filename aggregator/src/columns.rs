//! Counts as a column of a heat map: rows of an eighth of an octave.

use lens_hist::{Counts, Quantile, layout};
use lens_model::{Nanos, UnixNanos};
use serde::Serialize;
use utoipa::ToSchema;

use crate::snapshot::rfc3339;

/// Counters of the layout in one row of a heat map: an octave has 128, so 8 rows an octave.
const COUNTERS_PER_ROW: usize = 16;

/// One step of a heat map.
#[derive(Serialize, ToSchema)]
pub(crate) struct Column {
    /// Start of the step.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub(crate) t: UnixNanos,
    /// Samples in it.
    #[schema(example = 431)]
    count: u64,
    /// 99th percentile, milliseconds; `null` below its sample floor of 368.
    #[schema(example = 8.71)]
    p99_ms: Option<f64>,
    /// Samples above the last row.
    #[schema(example = 0)]
    overflow: u64,
    /// The rows that hold samples: index of the row and count.
    #[schema(value_type = Vec<Vec<u64>>, example = json!([[171, 40], [172, 12]]))]
    buckets: Vec<(usize, u64)>,
}

/// Edges of the rows, milliseconds.
pub(crate) fn edges_ms() -> Vec<f64> {
    (0..=layout::COUNTERS / COUNTERS_PER_ROW)
        .map(|row| Nanos(layout::low(row * COUNTERS_PER_ROW)).as_millis_f64())
        .collect()
}

/// One column.
pub(crate) fn column(t: UnixNanos, counts: &Counts) -> Column {
    let p99 = counts.quantile(Quantile::P99);
    let rows = counts.slots()[..layout::COUNTERS].chunks(COUNTERS_PER_ROW);
    let rows = rows.map(|row| row.iter().fold(0_u64, |sum, n| sum.saturating_add(*n)));
    Column {
        t,
        count: p99.samples,
        p99_ms: p99.value.map(Nanos::as_millis_f64),
        overflow: counts.overflow(),
        buckets: rows.enumerate().filter(|(_, n)| *n > 0).collect(),
    }
}
