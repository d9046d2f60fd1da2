//! Results: a table for people, PASS or MISS for each target, one JSON line for the history.

use lens_benches::history::{self, Row};

use super::measure::Measured;
use super::{Options, Outcome};

/// What a result is held to. Ratios are ours to the peer's, so smaller is better everywhere.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    /// The value, in its unit, at most.
    Value(f64),
    /// The ratio to the peer at most.
    Ratio(f64),
}

/// The results of one bench.
pub(crate) struct Report {
    bench: &'static str,
    options: Options,
    rows: Vec<Row>,
    notes: Vec<String>,
}

impl Report {
    pub(crate) fn new(bench: &'static str, options: Options) -> Self {
        Self { bench, options, rows: Vec::new(), notes: Vec::new() }
    }

    /// Says something that belongs to how the results are to be read.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// A number without a peer.
    pub(crate) fn plain(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.add(name.into(), value, unit, None, None, None);
    }

    /// A number with a limit of its own.
    pub(crate) fn limited(
        &mut self,
        name: impl Into<String>,
        value: f64,
        unit: &'static str,
        target: Target,
    ) {
        self.add(name.into(), value, unit, None, None, Some(target));
    }

    /// A measured case beside its peer.
    pub(crate) fn beside(
        &mut self,
        name: impl Into<String>,
        measured: Measured,
        peer: &'static str,
        target: Option<Target>,
    ) {
        self.add(name.into(), measured.value, "ns", Some(peer), Some(measured.ratio), target);
    }

    /// Any number beside its peer.
    pub(crate) fn compared(
        &mut self,
        name: impl Into<String>,
        value: f64,
        unit: &'static str,
        (peer, ratio): (&'static str, f64),
        target: Option<Target>,
    ) {
        self.add(name.into(), value, unit, Some(peer), Some(ratio), target);
    }

    fn add(
        &mut self,
        name: String,
        value: f64,
        unit: &'static str,
        peer: Option<&'static str>,
        ratio: Option<f64>,
        target: Option<Target>,
    ) {
        let met = target.map(|target| match target {
            Target::Value(limit) => value <= limit,
            Target::Ratio(limit) => ratio.is_some_and(|ratio| ratio <= limit),
        });
        let target = target.map(|target| match target {
            Target::Value(limit) => format!("<= {limit} {unit}"),
            Target::Ratio(limit) => format!("<= {limit:.4} x"),
        });
        self.rows.push(Row { name, value, unit, peer, ratio, target, met });
    }

    /// Prints the table and, where asked, appends it to the history.
    #[allow(clippy::print_stdout)]
    pub(crate) fn finish(self) -> Outcome {
        println!("\n{} ({})", self.bench, if self.options.quick { "quick" } else { "full" });
        let width = self.rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
        for row in &self.rows {
            let ratio = match (row.ratio, row.peer) {
                (Some(ratio), Some(peer)) => format!("{ratio:>9.4} x {peer}"),
                _ => String::new(),
            };
            let verdict = match (row.met, &row.target) {
                (Some(true), Some(target)) => format!("PASS {target}"),
                (Some(false), Some(target)) => format!("MISS {target}"),
                _ => String::new(),
            };
            let line = format!(
                "{:<width$}  {:>12} {:<9} {ratio:<44} {verdict}",
                row.name,
                figures(row.value),
                row.unit,
            );
            println!("{}", line.trim_end());
        }
        for note in &self.notes {
            println!("  {note}");
        }
        let missed = self.rows.iter().filter(|row| row.met == Some(false)).count();
        let held = self.rows.iter().filter(|row| row.met.is_some()).count();
        println!("{}: {} of {held} targets met", self.bench, held - missed);
        if self.options.record {
            let path = history::append(self.bench, self.options.quick, None, &self.rows)?;
            println!("appended to {path}");
        }
        Ok(())
    }
}

/// A number with as many digits as mean something.
fn figures(value: f64) -> String {
    match value.abs() {
        ..10.0 => format!("{value:.3}"),
        10.0..1_000.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}
