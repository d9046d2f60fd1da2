//! One line of DogStatsD: `name:value:value|type|@rate|#tag:value,tag|c:container|T123`.
//!
//! Promise: any bytes are a line or a reason. Fields that are not ours (container, timestamp,
//! cardinality, origin, and what comes after them) are skipped. A line takes no memory of its own.
//! Source: the public description of the DogStatsD datagram format.

use crate::ingest::reading::{Counts, Point, Source};
use crate::ingest::refusal::Refusal;
use crate::ingest::rules::{Rules, Tags};
use crate::ingest::unit::{Unit, Weight};

/// A line taken apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line<'a> {
    /// The metric's name.
    pub name: &'a str,
    /// Its values, colons between them.
    pub values: &'a str,
    /// Its type, such as `ms`.
    pub kind: &'a str,
    /// How many samples each value stands for.
    pub weight: Weight,
    /// Its tags, commas between them; empty without.
    pub tags: &'a str,
}

/// Takes a line apart.
///
/// # Errors
/// [`Refusal::Line`], [`Refusal::Type`] for events and service checks, or [`Refusal::Rate`].
pub fn parse(line: &[u8]) -> Result<Line<'_>, Refusal> {
    let line = std::str::from_utf8(line).map_err(|_| Refusal::Line)?;
    if line.starts_with("_e{") || line.starts_with("_sc|") {
        return Err(Refusal::Type);
    }
    let mut fields = line.split('|');
    let head = fields.next().unwrap_or_default();
    let (name, values) = head.split_once(':').ok_or(Refusal::Line)?;
    let kind = fields.next().ok_or(Refusal::Line)?;
    if name.is_empty() || values.is_empty() || kind.is_empty() {
        return Err(Refusal::Line);
    }
    let (mut weight, mut tags) = (Weight::ONE, "");
    for field in fields {
        if let Some(rate) = field.strip_prefix('@') {
            let rate = rate.parse().map_err(|_| Refusal::Rate)?;
            weight = Weight::of_rate(rate).ok_or(Refusal::Rate)?;
        } else if let Some(list) = field.strip_prefix('#') {
            tags = list;
        }
    }
    Ok(Line { name, values, kind, weight, tags })
}

impl<'a> Line<'a> {
    /// Its tags, as far as they are ours.
    pub fn tags(&self) -> Tags<'a> {
        let mut tags = Tags::default();
        for (key, value) in self.tags.split(',').filter_map(|tag| tag.split_once(':')) {
            tags.point(key, value);
        }
        tags
    }

    /// How many values it carries.
    pub fn len(&self) -> u64 {
        self.values.split(':').count() as u64
    }

    /// Whether it carries none: never, a line without is refused.
    pub const fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The latencies it carries. Of values some of which are refused the others are taken.
    ///
    /// `ms` says its unit itself, unless the listener knows better; `h` and `d` say none.
    ///
    /// # Errors
    /// Why none is taken.
    pub fn points(
        &self,
        rules: &Rules,
    ) -> Result<impl Iterator<Item = Result<Point, Refusal>> + use<'a>, Refusal> {
        let said = match self.kind {
            "ms" => "ms",
            "h" | "d" => "",
            _ => return Err(Refusal::Type),
        };
        let key = rules.series(self.name, &self.tags())?;
        let (unit, weight) = (rules.unit(self.name, said)?, self.weight);
        Ok(self.values.split(':').map(move |text| {
            let nanos = nanos(text, unit)?;
            let counts = Counts::One { nanos, weight };
            Ok(Point { key: key.clone(), counts, source: Source::Dogstatsd, slow: Vec::new() })
        }))
    }
}

fn nanos(text: &str, unit: Unit) -> Result<u64, Refusal> {
    let value: f64 = text.parse().map_err(|_| Refusal::Value)?;
    if !value.is_finite() {
        return Err(Refusal::Value);
    }
    unit.to_nanos(value).ok_or(Refusal::Value)
}

/// What a client says of its own losses: a counter of its telemetry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Packets it sent.
    Sent(u64),
    /// Packets it could not send.
    Dropped(u64),
    /// Something else about itself.
    Other,
}

/// Reads a line of a client's telemetry; `None` for any other.
pub fn told(line: &Line<'_>) -> Option<Told> {
    let name = line.name.strip_prefix("datadog.dogstatsd.client.")?;
    let count = line.values.parse::<u64>().unwrap_or(0);
    Some(match name {
        "packets_sent" => Told::Sent(count),
        "packets_dropped" => Told::Dropped(count),
        _ => Told::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        let mut rules = Rules {
            repo_type: Some("backend".into()),
            language: Some("rust".into()),
            size: Some("small".into()),
            ..Rules::default()
        };
        rules.units.insert("lens.stage_b".into(), Unit::Micros);
        rules
    }

    /// Nanoseconds and weight of each value, or why it is refused.
    type Taken = Vec<Result<(u64, u64), Refusal>>;

    fn taken(line: &str) -> Result<Taken, Refusal> {
        let line = parse(line.as_bytes())?;
        let points = line.points(&rules())?;
        Ok(points.map(|point| point.map(|p| (nanos_of(&p), p.counts.ceiling()))).collect())
    }

    fn nanos_of(point: &Point) -> u64 {
        match point.counts {
            Counts::One { nanos, .. } => nanos,
            Counts::Many(_) => panic!("a line carries single values"),
        }
    }

    #[test]
    fn values_rates_tags_and_extensions_are_read() {
        let line = "lens.stage_a:1.5:2|ms|@0.25|#env:x,lens.arm:canary|c:abc|T1656581400|card:low";
        assert_eq!(taken(line), Ok(vec![Ok((1_500_000, 4)), Ok((2_000_000, 4))]));
        let parsed = parse(line.as_bytes()).unwrap();
        let key = rules().series(parsed.name, &parsed.tags()).unwrap();
        assert_eq!((key.arm.as_str(), parsed.len()), ("canary", 2));
    }

    #[test]
    fn histograms_and_distributions_need_a_unit_and_a_configured_one_wins() {
        assert_eq!(taken("lens.stage_a:1|h"), Err(Refusal::Unit));
        assert_eq!(taken("lens.stage_a:1|d"), Err(Refusal::Unit));
        assert_eq!(taken("lens.stage_b:7|d"), Ok(vec![Ok((7_000, 1))]));
        assert_eq!(taken("lens.stage_b:7|ms"), Ok(vec![Ok((7_000, 1))]));
    }

    #[test]
    fn what_is_no_line_is_refused_by_reason() {
        for (line, why) in [
            ("", Refusal::Line),
            ("a", Refusal::Line),
            ("a:1", Refusal::Line),
            (":1|ms", Refusal::Line),
            ("a:|ms", Refusal::Line),
            ("a:1|", Refusal::Line),
            ("_e{1,1}:a|b", Refusal::Type),
            ("_sc|a|0", Refusal::Type),
            ("lens.stage_a:1|c", Refusal::Type),
            ("lens.stage_a:1|ms|@0", Refusal::Rate),
            ("lens.stage_a:1|ms|@x", Refusal::Rate),
            ("other:1|ms", Refusal::NotOurs),
        ] {
            assert_eq!(taken(line), Err(why), "{line}");
        }
        assert_eq!(parse(b"\xFF:1|ms"), Err(Refusal::Line));
    }

    #[test]
    fn a_bad_value_among_good_ones_is_refused_alone() {
        let expected = vec![Ok((1_000_000, 1)), Err(Refusal::Value), Ok((2_000_000, 1))];
        for bad in ["x", "-1", "nan", "inf", ""] {
            assert_eq!(taken(&format!("lens.stage_a:1:{bad}:2|ms")), Ok(expected.clone()), "{bad}");
        }
    }

    #[test]
    fn a_clients_word_about_itself_is_no_metric() {
        let of = |line: &'static str| told(&parse(line.as_bytes()).unwrap());
        assert_eq!(of("datadog.dogstatsd.client.packets_dropped:3|c"), Some(Told::Dropped(3)));
        assert_eq!(of("datadog.dogstatsd.client.packets_sent:9|c"), Some(Told::Sent(9)));
        assert_eq!(of("datadog.dogstatsd.client.bytes_sent:9|c"), Some(Told::Other));
        assert_eq!(of("lens.stage_a:3|ms"), None);
    }
}
