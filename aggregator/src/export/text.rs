//! The metrics as text: OpenMetrics 1.0 or Prometheus 0.0.4.
//!
//! Neither knows exponential buckets, so histograms come with their classic ladder. Exemplars are
//! in OpenMetrics alone, each on its bucket.

use std::fmt::{Arguments, Display, Write};

use super::family::{Families, Family, Kind, Metric, Number, Summary, Value, canonical};
use super::native::{CLASSIC, Histogram};
use crate::exemplars::Exemplar;

/// The two dialects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// OpenMetrics 1.0.0.
    OpenMetrics,
    /// Prometheus text 0.0.4.
    Prometheus,
}

/// The sheet as text.
pub fn render(families: &Families, dialect: Dialect) -> String {
    let mut text = Text { out: String::new(), dialect };
    families.all().iter().for_each(|family| text.family(family));
    if dialect == Dialect::OpenMetrics {
        text.out.push_str("# EOF\n");
    }
    text.out
}

struct Text {
    out: String,
    dialect: Dialect,
}

impl Text {
    fn family(&mut self, family: &Family) {
        let open = self.dialect == Dialect::OpenMetrics;
        let name = if open { family.name.clone() } else { family.sample_name() };
        let (kind, help) = (family.kind.as_str(), escape(&family.help, open));
        self.put(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        for metric in &family.metrics {
            self.metric(family, metric);
        }
    }

    fn metric(&mut self, family: &Family, metric: &Metric) {
        match &metric.value {
            Value::Number(number) => self.sample(&family.sample_name(), metric, None, *number),
            Value::Summary(summary) => self.summary(&family.name, metric, summary),
            Value::Histogram(histogram) => self.histogram(&family.name, metric, histogram),
        }
        debug_assert_eq!(
            matches!(metric.value, Value::Number(_)),
            matches!(family.kind, Kind::Counter | Kind::Gauge)
        );
    }

    fn summary(&mut self, name: &str, metric: &Metric, summary: &Summary) {
        for (quantile, value) in &summary.quantiles {
            let of = canonical(*quantile);
            self.sample(name, metric, Some(("quantile", &of)), *value);
        }
        if let Some((sum, count)) = summary.lifetime {
            self.sample(&format!("{name}_sum"), metric, None, sum);
            self.sample(&format!("{name}_count"), metric, None, count);
        }
    }

    fn histogram(&mut self, name: &str, metric: &Metric, histogram: &Histogram) {
        let bucket = format!("{name}_bucket");
        let ladder = CLASSIC.iter().copied().zip(histogram.classic);
        let ladder = ladder.chain([(f64::INFINITY, histogram.count)]);
        for (at, (bound, count)) in ladder.enumerate() {
            self.start(&bucket, metric, Some(("le", &canonical(bound))), count);
            if let (Dialect::OpenMetrics, Some(exemplar)) = (self.dialect, histogram.exemplar(at)) {
                self.exemplar(exemplar);
            }
            self.out.push('\n');
        }
        self.sample(&format!("{name}_sum"), metric, None, histogram.sum);
        self.sample(&format!("{name}_count"), metric, None, histogram.count);
    }

    fn exemplar(&mut self, exemplar: &Exemplar) {
        let (trace, seconds) = (exemplar.trace.id_hex(), exemplar.seconds());
        let at = UnixSeconds(exemplar.at.0);
        self.put(format_args!(" # {{trace_id=\"{trace}\"}} {seconds} {at}"));
    }

    fn sample(
        &mut self,
        name: &str,
        metric: &Metric,
        more: Option<(&'static str, &str)>,
        value: impl Into<Number>,
    ) {
        self.start(name, metric, more, value);
        self.out.push('\n');
    }

    /// A sample without the end of its line.
    fn start(
        &mut self,
        name: &str,
        metric: &Metric,
        more: Option<(&'static str, &str)>,
        value: impl Into<Number>,
    ) {
        self.out.push_str(name);
        let own = metric.labels.iter().map(|(name, value)| (*name, value.as_str()));
        let mut before = '{';
        for (label, value) in own.chain(more) {
            self.put(format_args!("{before}{label}=\"{}\"", escape(value, true)));
            before = ',';
        }
        if before == ',' {
            self.out.push('}');
        }
        self.put(format_args!(" {}", Written(value.into())));
    }

    fn put(&mut self, what: Arguments<'_>) {
        // Writing to a String cannot fail.
        self.out.write_fmt(what).unwrap_or_default();
    }
}

fn escape(text: &str, quotes: bool) -> String {
    let text = text.replace('\\', "\\\\").replace('\n', "\\n");
    if quotes { text.replace('"', "\\\"") } else { text }
}

/// A number as both dialects write it.
struct Written(Number);

impl Display for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Number::Whole(count) => count.fmt(f),
            Number::Real(value) if value.is_infinite() => {
                f.write_str(if value > 0.0 { "+Inf" } else { "-Inf" })
            }
            Number::Real(value) => value.fmt(f),
        }
    }
}

/// Nanoseconds since the epoch as seconds, to the millisecond.
struct UnixSeconds(u64);

impl Display for UnixSeconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let millis = self.0 / 1_000_000;
        write!(f, "{}.{:03}", millis / 1_000, millis % 1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lens_hist::Counts;
    use lens_model::{Nanos, UnixNanos};

    fn one() -> Families {
        let mut counts = Counts::new();
        [400_000, 4_000_000, 20_000_000_000].iter().for_each(|nanos| counts.record(*nanos));
        let exemplar = Exemplar {
            trace: lens_model::Trace::new(*b"0123456789abcdef", [0; 8]).unwrap(),
            latency: Nanos::from_millis(4),
            at: UnixNanos(1_700_000_000_250_999_999),
        };
        let mut families = Families::default();
        families.family("lens_duration_seconds", "histogram", "How long it took.");
        let labels = [("slice", "backend/\"c\"/large")];
        families.histogram(&labels, Histogram::of(&counts, &[exemplar]));
        families
    }

    #[test]
    fn an_exemplar_stands_on_its_bucket_in_openmetrics_and_nowhere_in_plain_text() {
        let open = render(&one(), Dialect::OpenMetrics);
        let line = "lens_duration_seconds_bucket{slice=\"backend/\\\"c\\\"/large\",le=\"0.005\"} 2 \
            # {trace_id=\"30313233343536373839616263646566\"} 0.004 1700000000.250\n";
        assert!(open.contains(line), "{open}");
        assert_eq!(open.matches("trace_id").count(), 1);
        assert!(open.ends_with("_count{slice=\"backend/\\\"c\\\"/large\"} 3\n# EOF\n"), "{open}");
        let plain = render(&one(), Dialect::Prometheus);
        assert!(!plain.contains("trace_id"));
        assert!(
            plain.contains("le=\"10.0\"} 2\n") && plain.contains("le=\"+Inf\"} 3\n"),
            "{plain}"
        );
    }

    #[test]
    fn a_counter_is_declared_with_its_suffix_in_plain_text_and_without_in_openmetrics() {
        let mut families = Families::default();
        families.family("lens_x", "counter", "Back\\slash \"quoted\"\nand more.");
        families.sample("lens_x_total", &[], u64::MAX);
        let plain = render(&families, Dialect::Prometheus);
        let help = "# HELP lens_x_total Back\\\\slash \"quoted\"\\nand more.\n";
        assert_eq!(
            plain,
            format!("{help}# TYPE lens_x_total counter\nlens_x_total {}\n", u64::MAX)
        );
        let open = render(&families, Dialect::OpenMetrics);
        assert!(
            open.starts_with("# HELP lens_x Back\\\\slash \\\"quoted\\\"\\nand more.\n"),
            "{open}"
        );
    }
}
