//! Counts in the forms of `/api/v1/histogram`.

use std::fmt::Write;
use std::io;

use base64::Engine;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};
use lens_hist::{Counts, Quantile, layout, samples_min};
use lens_model::Nanos;

use super::{HistogramAnswer, SpectrumPoint};
use crate::snapshot::Incomplete;
use crate::window::{Selection, Span};

/// Quantiles of the spectrum, and the power of ten its last one is away from 1.
const SPECTRUM_POINTS: u32 = 100;
const SPECTRUM_NINES: f64 = 5.0;

/// Lines of the percentile table for each halving of the distance to 100 %.
const HGRM_TICKS: u32 = 5;

const NANOS_PER_MILLI: f64 = 1e6;

pub(super) fn json(
    span: Span,
    resolution_s: f64,
    incomplete: Vec<Incomplete>,
    counts: &Counts,
) -> HistogramAnswer {
    let count = counts.total();
    let in_range = counts.slots().iter().enumerate().take(layout::COUNTERS);
    let buckets = in_range
        .filter(|(_, n)| **n > 0)
        .map(|(index, n)| (edge_ms(index), edge_ms(index + 1), *n))
        .collect();
    let ratios = spectrum();
    let estimates = counts.quantiles(&ratios);
    let missing = ratios.iter().find(|quantile| samples_min(**quantile) > count);
    let quantiles = ratios.iter().zip(&estimates).map(|(quantile, estimate)| SpectrumPoint {
        q: quantile.ratio(),
        value_ms: estimate.value.map(Nanos::as_millis_f64),
        low_ms: estimate.low.map(Nanos::as_millis_f64),
        high_ms: estimate.high.map(Nanos::as_millis_f64),
    });
    let overflow = counts.overflow();
    let quantiles_reason = match missing {
        Some(quantile) => Some(format!(
            "{count} samples; from {quantile} on, a 95 % interval needs {} and more",
            samples_min(*quantile)
        )),
        None if overflow > 0 => {
            Some("the last ones are above the largest measurable latency, 68.7 s".into())
        }
        None => None,
    };
    HistogramAnswer {
        from: span.from,
        to: span.to,
        resolution_s,
        incomplete,
        count,
        overflow,
        buckets,
        quantiles: quantiles.collect(),
        quantiles_reason,
    }
}

/// The lower edge of a counter, milliseconds; also the upper one of the counter before it.
fn edge_ms(index: usize) -> f64 {
    Nanos(layout::low(index)).as_millis_f64()
}

fn spectrum() -> Vec<Quantile> {
    let ratio = |step: u32| {
        1.0 - 10_f64.powf(-SPECTRUM_NINES * f64::from(step) / f64::from(SPECTRUM_POINTS))
    };
    (1..=SPECTRUM_POINTS).filter_map(|step| Quantile::new(ratio(step))).collect()
}

fn to_hdr(counts: &Counts) -> io::Result<Histogram<u64>> {
    counts.to_hdr().map_err(|error| io::Error::other(error.to_string()))
}

/// The compressed V2 form, which every implementation reads; not all of them read the plain one.
pub(super) fn hdr_base64(counts: &Counts) -> io::Result<String> {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new()
        .serialize(&to_hdr(counts)?, &mut bytes)
        .map_err(|error| io::Error::other(error.to_string()))?;
    Ok(base64::engine::general_purpose::STANDARD.encode(bytes))
}

/// The percentile table of HdrHistogram's `outputPercentileDistribution`, in milliseconds.
pub(super) fn hgrm(counts: &Counts) -> io::Result<String> {
    let histogram = to_hdr(counts)?;
    let mut text = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let mut seen = 0_u64;
    let line = |text: &mut String, value: f64, ratio: f64, seen: u64| {
        let written = if ratio < 1.0 {
            writeln!(text, "{value:12.3} {ratio:.12} {seen:10} {:14.2}", 1.0 / (1.0 - ratio))
        } else {
            writeln!(text, "{value:12.3} {ratio:.12} {seen:10}")
        };
        written.map_err(io::Error::other)
    };
    for step in histogram.iter_quantiles(HGRM_TICKS) {
        seen = seen.saturating_add(step.count_since_last_iteration());
        let value = step.value_iterated_to() as f64 / NANOS_PER_MILLI;
        line(&mut text, value, step.quantile_iterated_to(), seen)?;
    }
    let mean = if histogram.is_empty() { 0.0 } else { histogram.mean() / NANOS_PER_MILLI };
    let deviation = if histogram.is_empty() { 0.0 } else { histogram.stdev() / NANOS_PER_MILLI };
    let max = histogram.max() as f64 / NANOS_PER_MILLI;
    let total = histogram.len();
    writeln!(text, "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]")
        .and_then(|()| writeln!(text, "#[Max     = {max:12.3}, Total count    = {total:12}]"))
        .and_then(|()| writeln!(text, "#[Buckets = {:12}, SubBuckets     = {:12}]", 29, 256))
        .map_err(io::Error::other)?;
    Ok(text)
}

/// The selection as an interval log's tag: neither commas, spaces nor line ends occur in names.
pub(super) fn tag(selection: &Selection) -> String {
    let slice = selection.slice.as_ref().map_or("all".to_owned(), ToString::to_string);
    let stage = selection.stage.map_or("all", |stage| stage.as_str());
    let arm = selection.arm.map_or("all", |arm| arm.as_str());
    format!("{slice}/{stage}/{arm}")
}
