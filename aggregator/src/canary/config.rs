//! `[canary]`: what rollouts are held to, checked.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use lens_service::config::{Key, Kind, Problem, Settings};

use super::gates::Gate;
use crate::judge::canary::Plan;

/// The keys of `[canary]`. Defaults are those of [`Plan`].
pub const KEYS: [Key; 14] = [
    Key {
        path: "canary.dir",
        kind: Kind::Path,
        default: None,
        doc: "where rollouts, decisions and their windows are kept; canary beside store.dir when unset",
    },
    Key {
        path: "canary.shares_percent",
        kind: Kind::List,
        default: None,
        doc: "share of requests of each step, percent, rising; 5, 25, 100 when unset",
    },
    Key {
        path: "canary.hold_back_percent",
        kind: Kind::Float { min: 0.0, max: 99.0 },
        default: Some("5.0"),
        doc: "kept at the baseline through the last step, to compare with, percent",
    },
    Key {
        path: "canary.dwell_s",
        kind: Kind::List,
        default: None,
        doc: "shortest stay at each step, seconds; 300, 600, 600 when unset, the last for further steps",
    },
    Key {
        path: "canary.timeout_s",
        kind: Kind::Integer { min: 10, max: 2_592_000 },
        default: Some("3600"),
        doc: "longest stay at a step before it is held for people and an alert raised, seconds",
    },
    Key {
        path: "canary.margins",
        kind: Kind::List,
        default: None,
        doc: "p95 ratio, canary over baseline, each step must be shown to stay under; 1.25, 1.15, 1.10",
    },
    Key {
        path: "canary.margins_host_split",
        kind: Kind::List,
        default: None,
        doc: "the same where arms have hosts of their own; 1.50, 1.25, 1.15 when unset",
    },
    Key {
        path: "canary.margin_p99_extra",
        kind: Kind::Float { min: 0.0, max: 1.0 },
        default: Some("0.1"),
        doc: "what p99's margin is wider than p95's",
    },
    Key {
        path: "canary.error_ratios",
        kind: Kind::List,
        default: None,
        doc: "error-rate ratio each step must be shown to stay under; 3.0, 2.0, 1.5 when unset",
    },
    Key {
        path: "canary.error_rates",
        kind: Kind::List,
        default: None,
        doc: "error rate below which the ratio does not matter; 0.005, 0.002, 0.001 when unset",
    },
    Key {
        path: "canary.alpha",
        kind: Kind::Float { min: 0.000_001, max: 0.499 },
        default: Some("0.02"),
        doc: "largest chance that a rollout as good as its baseline is ever rolled back",
    },
    Key {
        path: "canary.history_s",
        kind: Kind::Integer { min: 0, max: 3_600 },
        default: Some("3600"),
        doc: "baseline history needed where arms have hosts of their own, seconds",
    },
    Key {
        path: "canary.cold_start_s",
        kind: Kind::Integer { min: 0, max: 3_600 },
        default: Some("0"),
        doc: "beginning of each step that is not judged, for cold caches, seconds",
    },
    Key {
        path: "canary.gates",
        kind: Kind::Labels,
        default: None,
        doc: "gauges that must be reported and within bounds for promotion: { recall_at_50 = \"min=0.856\" }",
    },
];

/// What rollouts are held to.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Where they are kept; in memory only when `None`.
    pub dir: Option<PathBuf>,
    /// The plan of the next rollout.
    pub plan: Plan,
    /// Bounds of quality gauges, by name.
    pub gates: BTreeMap<String, Gate>,
}

impl Config {
    /// Checks what single keys cannot; adds every problem found.
    pub fn check(settings: &Settings, problems: &mut Vec<Problem>) -> Self {
        let mut say = |what: String| {
            problems.push(Problem { origin: "configuration".into(), what });
        };
        let plan = plan(settings, &mut say);
        let mut gates = BTreeMap::new();
        for (name, text) in settings.labels("canary.gates") {
            match text.parse::<Gate>() {
                Ok(gate) => {
                    gates.insert(name, gate);
                }
                Err(what) => say(format!("canary.gates {name:?}: {what}")),
            }
        }
        Self { dir: settings.path("canary.dir"), plan, gates }
    }
}

fn plan(settings: &Settings, say: &mut impl FnMut(String)) -> Plan {
    let usual = Plan::default();
    let plan = Plan {
        shares: list(settings, "canary.shares_percent", &usual.shares, say),
        hold_back: settings.float("canary.hold_back_percent"),
        dwell_s: list(settings, "canary.dwell_s", &usual.dwell_s, say),
        timeout_s: settings.integer("canary.timeout_s"),
        margins: list(settings, "canary.margins", &usual.margins, say),
        margins_host_split: list(
            settings,
            "canary.margins_host_split",
            &usual.margins_host_split,
            say,
        ),
        margin_p99_extra: settings.float("canary.margin_p99_extra"),
        error_ratios: list(settings, "canary.error_ratios", &usual.error_ratios, say),
        error_rates: list(settings, "canary.error_rates", &usual.error_rates, say),
        alpha: settings.float("canary.alpha"),
        history_s: settings.integer("canary.history_s"),
        cold_start_s: settings.integer("canary.cold_start_s"),
        ..usual
    };
    match plan.checked() {
        Ok(plan) => plan,
        Err(error) => {
            say(format!("canary: {error}"));
            Plan::default()
        }
    }
}

/// The numbers of a list; what the plan has when it is unset.
fn list<T: FromStr + Clone>(
    settings: &Settings,
    key: &str,
    usual: &[T],
    say: &mut impl FnMut(String),
) -> Vec<T> {
    let texts = settings.list(key);
    if texts.is_empty() {
        return usual.to_vec();
    }
    let number = |text: &String| {
        let parsed = text.trim().parse().ok();
        if parsed.is_none() {
            say(format!("{key}: {text:?} is no number it can hold: such as \"5\", \"25\""));
        }
        parsed
    };
    let numbers: Vec<T> = texts.iter().filter_map(number).collect();
    if numbers.len() == texts.len() { numbers } else { usual.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::checked;

    fn check(flags: &[(&str, &str)]) -> (Config, String) {
        checked(flags, Config::check)
    }

    #[test]
    fn what_is_unset_is_the_usual_plan_and_what_is_set_changes_it_alone() {
        let (config, text) = check(&[]);
        assert_eq!((config.plan, text), (Plan::default(), String::new()));
        let (config, text) = check(&[
            ("canary.shares_percent", "10,50"),
            ("canary.dwell_s", "20"),
            ("canary.gates", "recall_at_50=min=0.856"),
        ]);
        assert_eq!(text, "");
        assert_eq!((config.plan.shares, config.plan.dwell_s), (vec![10.0, 50.0], vec![20, 20]));
        assert_eq!(config.plan.alpha, Plan::default().alpha);
        assert!(config.gates.contains_key("recall_at_50"), "{:?}", config.gates);
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let (_, text) = check(&[
            ("canary.shares_percent", "25,5"),
            ("canary.dwell_s", "soon"),
            ("canary.gates", "recall_at_50=low"),
        ]);
        for part in ["shares", "canary.dwell_s", "recall_at_50"] {
            assert!(text.contains(part), "{part} missing in {text}");
        }
    }
}
