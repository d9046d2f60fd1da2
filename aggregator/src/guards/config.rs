//! `[guards]` and `[[guards.probe]]`: the keys, and what they mean once checked.
//!
//! Nothing guards unless it is named: no detector, no probe, and no switch that moves a lever.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use lens_model::Nanos;
use lens_service::config::{Key, Kind as Holds, Problem, Settings};

use super::cusum::Rule;
use super::probe::Probe;
use super::switch::{Act, Kind};
use crate::alerts::config::web;

/// Detectors configured at most.
pub const DETECTORS_MAX: usize = 64;

/// Longest name of a probe, and longest query, bytes.
const TEXT_BYTES_MAX: usize = 1_000;

/// Bounds of the usual detectors' gauges: mean, deviation, bound, readings in a row.
const USUAL: [(&str, Rule); 5] = [
    ("anchor_p_at_1", Rule { mean: 0.75, sd: 0.075, h: 3.0, sustained: 5 }),
    ("recall_at_50", Rule { mean: 0.85, sd: 0.043, h: 3.0, sustained: 5 }),
    ("ladder_positive_rate", Rule { mean: 0.75, sd: 0.1, h: 3.0, sustained: 3 }),
    ("lsif_coverage", Rule { mean: 0.95, sd: 0.02, h: 5.0, sustained: 3 }),
    ("tree_sitter_coverage", Rule { mean: 0.98, sd: 0.01, h: 5.0, sustained: 3 }),
];

/// The keys of `[guards]`.
pub const KEYS: [Key; 16] = [
    Key {
        path: "guards.dir",
        kind: Holds::Path,
        default: None,
        doc: "where sums and engaged switches are kept; guards beside store.dir when unset",
    },
    Key {
        path: "guards.detectors",
        kind: Holds::Labels,
        default: None,
        doc: "gauges watched for shifts: { recall_at_50 = \"mean=0.85 sd=0.043 h=3 sustained=5\" }; the usual five need no numbers",
    },
    Key {
        path: "guards.sample_s",
        kind: Holds::Integer { min: 1, max: 3_600 },
        default: Some("30"),
        doc: "time between two readings of a detector, seconds",
    },
    Key {
        path: "guards.again_s",
        kind: Holds::Integer { min: 1, max: 3_600 },
        default: Some("60"),
        doc: "time between two runs of a probe that fails or whose switch is engaged, seconds",
    },
    Key {
        path: "guards.rollback",
        kind: Holds::Switch,
        default: Some("false"),
        doc: "take a rollout back when a guard alarms after it began; otherwise it is only held",
    },
    Key {
        path: "guards.zero_results_emergency",
        kind: Holds::Text,
        default: Some("alert"),
        doc: "when a probe finds too little twice in a row: off, alert or kill",
    },
    Key {
        path: "guards.search_system_failure",
        kind: Holds::Text,
        default: Some("alert"),
        doc: "when two probes fail, each twice in a row: off, alert or kill",
    },
    Key {
        path: "guards.recover_success",
        kind: Holds::Float { min: 0.0, max: 1.0 },
        default: Some("0.9"),
        doc: "share of runs that must pass for search_system_failure to let go",
    },
    Key {
        path: "guards.recover_s",
        kind: Holds::Integer { min: 1, max: 86_400 },
        default: Some("1800"),
        doc: "how long they must, or a service must be well again, seconds",
    },
    Key {
        path: "guards.service_overload",
        kind: Holds::Text,
        default: Some("off"),
        doc: "when requests fail or take too long for too long: off, alert or kill",
    },
    Key {
        path: "guards.error_rate_percent",
        kind: Holds::Float { min: 0.0, max: 100.0 },
        default: Some("1.0"),
        doc: "share of a slice's requests that may fail, percent; of service_overload",
    },
    Key {
        path: "guards.error_rate_for_s",
        kind: Holds::Integer { min: 1, max: 86_400 },
        default: Some("300"),
        doc: "how long it is over that without a break, seconds",
    },
    Key {
        path: "guards.p99_ms",
        kind: Holds::Float { min: 0.001, max: 60_000.0 },
        default: Some("5000.0"),
        doc: "p99 the whole query may have, milliseconds; of service_overload",
    },
    Key {
        path: "guards.p99_for_s",
        kind: Holds::Integer { min: 1, max: 86_400 },
        default: Some("120"),
        doc: "how long it is surely over that without a break, seconds",
    },
    Key {
        path: "guards.samples_min",
        kind: Holds::Integer { min: 1, max: 1_000_000 },
        default: Some("100"),
        doc: "requests in the summary window below which service_overload knows nothing",
    },
    Key {
        path: "guards.probe",
        kind: Holds::Tables(PROBE_KEYS),
        default: None,
        doc: "queries that must be answered, one table a probe",
    },
];

/// The keys of `[[guards.probe]]`.
const PROBE_KEYS: &[Key] = &[
    Key { path: "name", kind: Holds::Text, default: None, doc: "what it is shown as" },
    Key {
        path: "url",
        kind: Holds::Text,
        default: None,
        doc: "where a node answers, such as http://node:8080/search; asked by POST",
    },
    Key { path: "query", kind: Holds::Text, default: None, doc: "what is asked, sent as ?q=" },
    Key {
        path: "body",
        kind: Holds::Text,
        default: None,
        doc: "JSON sent instead, for nodes that take their query so",
    },
    Key {
        path: "results",
        kind: Holds::Text,
        default: None,
        doc: "JSON pointer to the list, or number, of results; /results or /hits when unset",
    },
    Key {
        path: "results_min",
        kind: Holds::Integer { min: 0, max: 1_000_000 },
        default: Some("1"),
        doc: "fewest results of an answer; 0 when it only must not fail",
    },
    Key {
        path: "every_s",
        kind: Holds::Integer { min: 1, max: 86_400 },
        default: Some("3600"),
        doc: "time between two runs, seconds",
    },
    Key {
        path: "timeout_ms",
        kind: Holds::Integer { min: 1, max: 60_000 },
        default: Some("5000"),
        doc: "longest an answer is waited for, milliseconds",
    },
    Key {
        path: "retries",
        kind: Holds::Integer { min: 0, max: 10 },
        default: Some("2"),
        doc: "further attempts before a run has failed",
    },
];

/// Guards, configured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// Where what must outlive a restart is kept; nowhere when `None`.
    pub dir: Option<PathBuf>,
    /// Gauges watched for shifts.
    pub detectors: BTreeMap<String, Rule>,
    /// Time between two readings.
    pub sample: Nanos,
    /// The probes.
    pub probes: Vec<Probe>,
    /// Time between two runs of a failing probe.
    pub again: Nanos,
    /// Whether an alarm takes a rollout back.
    pub rollback: bool,
    /// What each switch does.
    pub acts: BTreeMap<Kind, Act>,
    /// Share of runs that must pass for search to have recovered.
    pub recover_success: f64,
    /// How long.
    pub recover: Nanos,
    /// When a service is overloaded.
    pub overload: Overload,
}

/// When a service is overloaded.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Overload {
    /// Share of requests that may fail, percent.
    pub error_percent: f64,
    /// How long it must be over that.
    pub error_for: Nanos,
    /// p99 of the whole query, milliseconds.
    pub p99_ms: f64,
    /// How long it must be over that.
    pub p99_for: Nanos,
    /// Requests below which nothing is known.
    pub samples_min: u64,
}

impl Config {
    /// What a switch does; one about probes is off without any.
    pub fn act(&self, kind: Kind) -> Act {
        let needs_probes = kind != Kind::ServiceOverload;
        match self.acts.get(&kind) {
            Some(act) if !(needs_probes && self.probes.is_empty()) => *act,
            _ => Act::Off,
        }
    }

    /// Whether anything guards.
    pub fn is_on(&self) -> bool {
        !self.detectors.is_empty()
            || Kind::ALL.iter().any(|kind| self.act(*kind) != Act::Off)
            || !self.probes.is_empty()
    }

    /// Checks what the table alone cannot; adds every problem found.
    pub fn check(settings: &Settings, problems: &mut Vec<Problem>) -> Self {
        let mut say = |what: String| {
            problems.push(Problem { origin: "configuration".into(), what });
        };
        let secs = |key| Nanos::from_secs(settings.integer(key));
        let mut acts = BTreeMap::new();
        for kind in Kind::ALL {
            let key = match kind {
                Kind::ZeroResultsEmergency => "guards.zero_results_emergency",
                Kind::SearchSystemFailure => "guards.search_system_failure",
                Kind::ServiceOverload => "guards.service_overload",
            };
            let text = settings.text(key).unwrap_or("off");
            match text.parse::<Act>() {
                Ok(act) => drop(acts.insert(kind, act)),
                Err(()) => say(format!("{key} is {text:?}: use off, alert or kill")),
            }
        }
        Self {
            dir: settings.path("guards.dir"),
            detectors: detectors(settings, &mut say),
            sample: secs("guards.sample_s"),
            probes: probes(settings, &mut say),
            again: secs("guards.again_s"),
            rollback: settings.switch("guards.rollback"),
            acts,
            recover_success: settings.float("guards.recover_success"),
            recover: secs("guards.recover_s"),
            overload: Overload {
                error_percent: settings.float("guards.error_rate_percent"),
                error_for: secs("guards.error_rate_for_s"),
                p99_ms: settings.float("guards.p99_ms"),
                p99_for: secs("guards.p99_for_s"),
                samples_min: settings.integer("guards.samples_min"),
            },
        }
    }
}

fn detectors(settings: &Settings, say: &mut impl FnMut(String)) -> BTreeMap<String, Rule> {
    let mut detectors = BTreeMap::new();
    for (name, text) in settings.labels("guards.detectors") {
        match rule(&name, &text) {
            Ok(rule) => drop(detectors.insert(name, rule)),
            Err(what) => say(format!("guards.detectors {name:?}: {what}")),
        }
    }
    if detectors.len() > DETECTORS_MAX {
        say(format!("guards.detectors has {}, at most {DETECTORS_MAX} may be", detectors.len()));
    }
    detectors
}

/// The rule of one detector: the usual one's numbers, changed by `name=value` pairs.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn rule(name: &str, text: &str) -> Result<Rule, String> {
    let usual = USUAL.iter().find(|(usual, _)| *usual == name).map(|(_, rule)| *rule);
    let unset = Rule { mean: f64::NAN, sd: f64::NAN, h: 5.0, sustained: 3 };
    let mut rule = usual.unwrap_or(unset);
    for pair in text.split_whitespace() {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let number = |min: f64, max: f64| {
            let value: Option<f64> = value.parse().ok();
            let within = value.filter(|value| (min..=max).contains(value));
            within.ok_or_else(|| format!("{pair:?}: {name} must be a number from {min} to {max}"))
        };
        match name {
            "mean" => rule.mean = number(-1e12, 1e12)?,
            "sd" => rule.sd = number(1e-9, 1e12)?,
            "h" => rule.h = number(0.5, 100.0)?,
            "sustained" => rule.sustained = number(1.0, 1_000.0)? as u32,
            _ => return Err(format!("{pair:?} is none of mean=, sd=, h=, sustained=")),
        }
    }
    if rule.mean.is_finite() && rule.sd.is_finite() {
        Ok(rule)
    } else {
        Err("its mean and sd while all is well must be given: \"mean=0.9 sd=0.02\"".into())
    }
}

fn probes(settings: &Settings, say: &mut impl FnMut(String)) -> Vec<Probe> {
    let (mut probes, mut names) = (Vec::new(), BTreeSet::new());
    for (place, table) in settings.tables("guards.probe").iter().enumerate() {
        let mut wrong = |what: String| say(format!("guards.probe[{place}]: {what}"));
        let text = |key| table.text(key).map(str::to_owned);
        let name = text("name").unwrap_or_default();
        let query = text("query").unwrap_or_default();
        let shown = name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
        if name.is_empty() || name.len() > 64 || !shown {
            wrong(format!("name is {name:?}: give it 1 to 64 visible ASCII characters, no /"));
        }
        if !names.insert(name.clone()) {
            wrong("name stands twice".into());
        }
        let url = text("url").unwrap_or_default();
        if let Err(what) = web(&url) {
            wrong(format!("url {what}"));
        }
        let body = text("body");
        if body.as_ref().is_some_and(|b| serde_json::from_str::<serde_json::Value>(b).is_err()) {
            wrong("body is no JSON".into());
        }
        if body.is_none() && query.is_empty() || query.len() > TEXT_BYTES_MAX {
            wrong(format!("query must have 1 to {TEXT_BYTES_MAX} bytes, or body be given"));
        }
        let results = text("results");
        if results.as_ref().is_some_and(|pointer| !pointer.starts_with('/')) {
            wrong("results is no JSON pointer: such as /hits".into());
        }
        probes.push(Probe {
            name,
            url,
            query,
            body,
            results,
            results_min: table.integer("results_min"),
            every: Nanos::from_secs(table.integer("every_s")),
            timeout: Nanos::from_millis(table.integer("timeout_ms")),
            retries: u32::try_from(table.integer("retries")).unwrap_or(0),
        });
    }
    probes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::checked;

    fn check(flags: &[(&str, &str)]) -> (Config, String) {
        checked(flags, Config::check)
    }

    #[test]
    fn nothing_guards_unless_it_is_named() {
        let (config, text) = check(&[]);
        assert_eq!(text, "");
        assert!(!config.is_on() && !config.rollback);
        assert!(Kind::ALL.iter().all(|kind| config.act(*kind) == Act::Off));
    }

    #[test]
    fn a_probe_alone_tells_people_and_moves_no_lever() {
        let url = "http://127.0.0.1:1/search";
        let (config, text) = check(&[
            ("guards.probe.0.name", "class"),
            ("guards.probe.0.url", url),
            ("guards.probe.0.query", "class"),
        ]);
        assert_eq!(text, "");
        assert_eq!(config.act(Kind::ZeroResultsEmergency), Act::Alert);
        assert_eq!(config.act(Kind::ServiceOverload), Act::Off);
        assert_eq!((config.probes[0].retries, config.probes[0].results_min), (2, 1));
    }

    #[test]
    fn the_usual_detectors_need_no_numbers_and_others_a_mean_and_a_deviation() {
        let (config, text) = check(&[("guards.detectors", "recall_at_50=h=8,own=mean=0.5 sd=0.1")]);
        assert_eq!(text, "");
        let recall = config.detectors["recall_at_50"];
        assert_eq!((recall.mean, recall.h, recall.sustained), (0.85, 8.0, 5));
        assert_eq!(config.detectors["own"].sd, 0.1);
        for bad in ["own=h=5", "own=mean=1 sd=0", "own=mean=1 sd=1 k=2", "own=mean=NaN sd=1"] {
            let (_, text) = check(&[("guards.detectors", bad)]);
            assert!(text.contains("guards.detectors \"own\""), "{bad}: {text}");
        }
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let (_, text) = check(&[
            ("guards.zero_results_emergency", "explode"),
            ("guards.probe.0.name", "a/b"),
            ("guards.probe.0.url", "node:8080"),
            ("guards.probe.0.body", "{"),
            ("guards.probe.0.results", "hits"),
        ]);
        for part in ["off, alert or kill", "name is", "url is", "no JSON\n", "JSON pointer"] {
            assert!(text.contains(part), "{part} missing in {text}");
        }
    }
}
