//! A capture as heat maps, one a series, in steps as fine as a screen shows.

use std::collections::BTreeMap;

use lens_model::{Arm, Nanos, SeriesKey, Slice, Stage, UnixNanos};
use serde::Serialize;

use super::grid::on_grid;
use super::{Name, Step};
use crate::columns::{Column, column, edges_ms};

/// Series shown, those with the most samples.
const SERIES_MAX: usize = 32;

/// Columns of one map.
const COLUMNS_MAX: u64 = 600;

/// Finest column.
const COLUMN_MIN: Nanos = Nanos::from_millis(100);

/// All maps.
#[derive(Serialize)]
pub(super) struct Heat {
    /// Width of a column, seconds.
    step_s: f64,
    /// Edges of the rows, ms.
    edges_ms: Vec<f64>,
    /// Maps, most samples first.
    series: Vec<Map>,
    /// Series left out.
    series_left_out: usize,
}

#[derive(Serialize)]
struct Map {
    slice: Slice,
    stage: Stage,
    arm: Arm,
    count: u64,
    columns: Vec<Column>,
}

/// Width of a column that shows a time in no more columns than fit.
fn width(span: Nanos) -> Nanos {
    let least = span.0.div_ceil(COLUMNS_MAX).max(1);
    Nanos(least.div_ceil(COLUMN_MIN.0).max(1) * COLUMN_MIN.0)
}

/// The maps of a capture's steps.
pub(super) fn heat(names: &[Name], steps: &[Step], from: UnixNanos, to: UnixNanos) -> Heat {
    // What agents held may be much less than was asked for: the columns are as fine as that allows.
    let first = steps.iter().map(|step| step.start).min().unwrap_or(from);
    let width = width(to.since(from.max(first)));
    let mut of: BTreeMap<&SeriesKey, Map> = BTreeMap::new();
    on_grid(names, steps, width, |t, key, counts| {
        let map = of.entry(key).or_insert_with(|| Map {
            slice: key.slice.clone(),
            stage: key.stage,
            arm: key.arm,
            count: 0,
            columns: Vec::new(),
        });
        map.count += counts.total();
        map.columns.push(column(t, counts));
    });
    let mut series: Vec<Map> = of.into_values().collect();
    series.sort_by_key(|map| std::cmp::Reverse(map.count));
    let series_left_out = series.len().saturating_sub(SERIES_MAX);
    series.truncate(SERIES_MAX);
    Heat { step_s: width.as_secs_f64(), edges_ms: edges_ms(), series, series_left_out }
}
