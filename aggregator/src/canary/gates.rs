//! Quality gauges of search nodes, held against their gates before a promotion.
//!
//! A gate that is configured is in force always: without a reading it blocks. The usual gates are in
//! force once a node reports their gauge. The worst node counts; a reading too old blocks, and says so;
//! one of a node that is gone for good is forgotten.

use std::collections::BTreeMap;
use std::str::FromStr;

use lens_model::{Nanos, UnixNanos};

use crate::judge::canary::{Blocker, BlockerCode};
use crate::window::Windows;

/// Age from which a reading says nothing of now.
const STALE: Nanos = Nanos::from_secs(60);

/// Age from which a node is taken as gone.
const GONE: Nanos = Nanos::from_secs(600);

/// Gates in force once a node reports the gauge.
const USUAL: [(&str, Gate); 4] = [
    ("span_coverage_percent", Gate { min: Some(98.0), max: None }),
    ("recall_at_50", Gate { min: Some(0.856), max: None }),
    ("ndcg_at_10", Gate { min: Some(0.743), max: None }),
    ("consistency_violations", Gate { min: None, max: Some(0.0) }),
];

/// Bounds of one gauge, both included.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Gate {
    /// Smallest good value.
    pub min: Option<f64>,
    /// Largest good value.
    pub max: Option<f64>,
}

impl FromStr for Gate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut gate = Self::default();
        for pair in text.split_whitespace() {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let number: Option<f64> = value.parse().ok().filter(|value: &f64| value.is_finite());
            match name {
                "min" => gate.min = number,
                "max" => gate.max = number,
                _ => return Err(format!("{pair:?} is no bound: use min=NUMBER, max=NUMBER")),
            }
            if number.is_none() {
                return Err(format!("{pair:?} holds no number: use such as min=0.98"));
            }
        }
        match (gate.min, gate.max) {
            (None, None) => Err("names no bound: use min=NUMBER, max=NUMBER".into()),
            (Some(min), Some(max)) if min > max => Err(format!("min {min} is above max {max}")),
            _ => Ok(gate),
        }
    }
}

impl Gate {
    fn broken_by(self, value: f64) -> bool {
        !value.is_finite()
            || self.min.is_some_and(|min| value < min)
            || self.max.is_some_and(|max| value > max)
    }

    fn words(self) -> String {
        let of = |word: &str, bound: Option<f64>| bound.map(|bound| format!("{word} {bound}"));
        let all: Vec<String> =
            [of("at least", self.min), of("at most", self.max)].into_iter().flatten().collect();
        all.join(" and ")
    }
}

/// What the gauges held stand in the way of, at `now`.
pub fn blockers(
    windows: &Windows,
    configured: &BTreeMap<String, Gate>,
    now: UnixNanos,
) -> Vec<Blocker> {
    let mut gates: BTreeMap<&str, (Gate, bool)> =
        USUAL.iter().map(|(name, gate)| (*name, (*gate, false))).collect();
    gates.extend(configured.iter().map(|(name, gate)| (name.as_str(), (*gate, true))));
    let mut readings: BTreeMap<&str, Vec<(String, f64, Nanos)>> = BTreeMap::new();
    for (host, name, value, at) in windows.gauges() {
        let age = now.since(at);
        if let Some((&name, _)) = gates.get_key_value(name)
            && age < GONE
        {
            let host = format!("{}/{}", host.agent, host.instance);
            readings.entry(name).or_default().push((host, value, age));
        }
    }
    let mut found = Vec::new();
    for (name, (gate, required)) in gates {
        match readings.get(name) {
            None if required => found.push(Blocker::new(
                BlockerCode::QualityMissing,
                format!("no search node reports the gauge {name}, which has a gate"),
            )),
            None => {}
            Some(readings) => found.extend(of_gauge(name, gate, readings)),
        }
    }
    found
}

fn of_gauge(name: &str, gate: Gate, readings: &[(String, f64, Nanos)]) -> Option<Blocker> {
    if let Some((host, value, _)) = readings.iter().find(|(_, value, _)| gate.broken_by(*value)) {
        let message = format!("{name} of {host} is {value}, outside its gate of {}", gate.words());
        return Some(Blocker::new(BlockerCode::QualityGate, message));
    }
    let (host, _, age) = readings.iter().find(|(_, _, age)| *age >= STALE)?;
    let message = format!("{name} of {host} was last reported {:.0} s ago", age.as_secs_f64());
    Some(Blocker::new(BlockerCode::QualityMissing, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::Host;
    use lens_model::{AgentName, InstanceName};

    fn at(secs: u64) -> UnixNanos {
        UnixNanos(secs * 1_000_000_000)
    }

    fn codes(gauges: &[(&str, &str, f64, u64)], configured: &[(&str, &str)]) -> Vec<BlockerCode> {
        let mut windows = Windows::new(Nanos::from_secs(5), Nanos::from_secs(60));
        for (host, name, value, secs) in gauges {
            let (agent, instance) =
                (AgentName::new("a").unwrap(), InstanceName::new(host).unwrap());
            let host = windows.host(&Host { agent, instance }).unwrap();
            windows.set_gauge(&host, name, *value, at(*secs)).unwrap();
        }
        let configured =
            configured.iter().map(|(n, g)| ((*n).into(), g.parse().unwrap())).collect();
        blockers(&windows, &configured, at(1_000)).into_iter().map(|b| b.code).collect()
    }

    #[test]
    fn a_gauge_nobody_reports_blocks_only_where_a_gate_is_configured() {
        assert_eq!(codes(&[], &[]), []);
        assert_eq!(codes(&[], &[("recall_at_50", "min=0.9")]), [BlockerCode::QualityMissing]);
    }

    #[test]
    fn the_worst_node_counts_and_its_bound_is_within_the_gate() {
        let good = ("1", "span_coverage_percent", 98.0, 999);
        assert_eq!(codes(&[good], &[]), []);
        let bad = ("2", "span_coverage_percent", 97.9, 999);
        assert_eq!(codes(&[good, bad], &[]), [BlockerCode::QualityGate]);
        let wider = [("span_coverage_percent", "min=97 max=99")];
        assert_eq!(codes(&[good, bad], &wider), []);
        assert_eq!(
            codes(&[("1", "x", f64::NAN, 999)], &[("x", "max=1")]),
            [BlockerCode::QualityGate]
        );
    }

    #[test]
    fn a_reading_that_is_too_old_blocks_and_one_of_a_node_long_gone_is_forgotten() {
        let reading = |secs| ("1", "ndcg_at_10", 0.9, secs);
        assert_eq!(codes(&[reading(941)], &[]), []);
        assert_eq!(codes(&[reading(940)], &[]), [BlockerCode::QualityMissing]);
        assert_eq!(codes(&[reading(400)], &[]), []);
    }

    #[test]
    fn a_gate_that_is_none_is_refused_with_what_would_be_right() {
        for bad in ["", "low", "min=", "min=a", "min=2 max=1", "min=NaN"] {
            let error = bad.parse::<Gate>().unwrap_err();
            assert!(error.contains("min"), "{bad}: {error}");
        }
    }
}
