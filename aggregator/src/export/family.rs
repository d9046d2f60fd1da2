//! Metrics as values: families, their metrics, and the sheet they are written down on.
//!
//! Whoever exports writes a [`Families`] once; every format reads it. A counter's family is named
//! without `_total`, as in OpenMetrics; formats that want it there add it.
//! Promise: metrics keep the order they came in, families too.

use super::native::Histogram;

/// What a family's numbers mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, or begins again at 0.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Quantiles over a sliding window, sum and count over the lifetime.
    Summary,
    /// A distribution.
    Histogram,
}

impl Kind {
    /// The name in both dialects of text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Summary => "summary",
            Self::Histogram => "histogram",
        }
    }

    fn of(name: &str) -> Self {
        let all = [Self::Counter, Self::Summary, Self::Histogram];
        all.into_iter().find(|kind| kind.as_str() == name).unwrap_or(Self::Gauge)
    }
}

/// One number, exact when it is a whole one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// A count.
    Whole(u64),
    /// Anything else.
    Real(f64),
}

impl Number {
    /// As the formats hold it that know no whole numbers; exact up to 2^53.
    #[allow(clippy::cast_precision_loss)]
    pub const fn real(self) -> f64 {
        match self {
            Self::Whole(count) => count as f64,
            Self::Real(value) => value,
        }
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl From<u64> for Number {
    fn from(count: u64) -> Self {
        Self::Whole(count)
    }
}

impl From<&u64> for Number {
    fn from(count: &u64) -> Self {
        Self::Whole(*count)
    }
}

impl From<usize> for Number {
    fn from(count: usize) -> Self {
        Self::Whole(count as u64)
    }
}

impl From<u8> for Number {
    fn from(count: u8) -> Self {
        Self::Whole(count.into())
    }
}

impl From<i32> for Number {
    fn from(value: i32) -> Self {
        Self::Real(value.into())
    }
}

impl From<bool> for Number {
    fn from(holds: bool) -> Self {
        Self::Whole(holds.into())
    }
}

/// Quantiles, and what the lifetime came to where that is told with them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// Value by quantile; one that was not measured is not there.
    pub quantiles: Vec<(f64, f64)>,
    /// Sum and count since the store began.
    pub lifetime: Option<(f64, u64)>,
}

/// What one set of labels has.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of a counter or gauge.
    Number(Number),
    /// Of a summary.
    Summary(Summary),
    /// Of a histogram.
    Histogram(Box<Histogram>),
}

/// One metric of a family.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// Its labels, by which it differs from the others.
    pub labels: Vec<(&'static str, String)>,
    /// What it has.
    pub value: Value,
}

/// All metrics of one name.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// Its name; without `_total` for a counter.
    pub name: String,
    /// What its numbers mean.
    pub kind: Kind,
    /// One sentence for people.
    pub help: String,
    /// The metrics.
    pub metrics: Vec<Metric>,
}

impl Family {
    /// The name its samples carry where the format says no more: a counter's ends in `_total`.
    pub fn sample_name(&self) -> String {
        match self.kind {
            Kind::Counter => format!("{}_total", self.name),
            _ => self.name.clone(),
        }
    }
}

/// The sheet families are written down on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Families {
    all: Vec<Family>,
}

impl Families {
    /// Begins a family. A counter's `name` stands without `_total`; an unknown `kind` is a gauge.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.all.push(Family {
            name: name.into(),
            kind: Kind::of(kind),
            help: help.into(),
            metrics: Vec::new(),
        });
    }

    /// A number of the family just begun. `name` is the sample's, for whoever reads the code.
    pub fn sample(
        &mut self,
        name: &str,
        labels: &[(&'static str, &str)],
        value: impl Into<Number>,
    ) {
        debug_assert_eq!(self.all.last().map(Family::sample_name).as_deref(), Some(name));
        self.put(labels, Value::Number(value.into()));
    }

    /// Quantiles of the family just begun.
    pub fn summary(&mut self, labels: &[(&'static str, &str)], summary: Summary) {
        self.put(labels, Value::Summary(summary));
    }

    /// A distribution of the family just begun.
    pub fn histogram(&mut self, labels: &[(&'static str, &str)], histogram: Histogram) {
        self.put(labels, Value::Histogram(Box::new(histogram)));
    }

    /// The families in order.
    pub fn all(&self) -> &[Family] {
        &self.all
    }

    fn put(&mut self, labels: &[(&'static str, &str)], value: Value) {
        let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        if let Some(family) = self.all.last_mut() {
            family.metrics.push(Metric { labels, value });
        }
    }
}

/// A bound or quantile as every format names it, so that the same series has the same labels
/// whichever way it came: always with a decimal point.
pub fn canonical(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.into();
    }
    format!("{value:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_has_a_decimal_point_and_infinity_a_sign() {
        let all = [1.0, 0.0005, 0.3, 10.0, f64::INFINITY].map(canonical);
        assert_eq!(all, ["1.0", "0.0005", "0.3", "10.0", "+Inf"]);
    }

    #[test]
    fn only_a_counters_samples_carry_a_suffix() {
        let mut sheet = Families::default();
        for kind in ["counter", "gauge", "summary", "histogram"] {
            sheet.family("lens_x", kind, "x");
        }
        let names: Vec<_> = sheet.all().iter().map(Family::sample_name).collect();
        assert_eq!(names, ["lens_x_total", "lens_x", "lens_x", "lens_x"]);
        let kinds: Vec<_> = sheet.all().iter().map(|family| family.kind.as_str()).collect();
        assert_eq!(kinds, ["counter", "gauge", "summary", "histogram"]);
    }
}
