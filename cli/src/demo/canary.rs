//! The demo's rollout: begun through the API as people begin one, followed there, told in the end.
//!
//! Nothing here decides. What a step must show is in [`SETTINGS`], wider than in production so that
//! the few queries of a demo can show it; the chances of error are those of production.
//! Promise: an aggregator that is killed meanwhile is asked again; a rollout that did not end by
//! itself is `held`, with everything that stood in its way. Bounds: one question a second, alerts
//! as many as the aggregator holds.

use std::time::{Duration, SystemTime};

use lens_benches::Regression;
use lens_model::{Arm, UnixNanos};
use lens_service::time::parse_rfc3339;
use serde_json::{Value, json};
use tokio::sync::watch;

/// What the aggregator's `[canary]` is given: shorter stays and wider margins, the same alpha.
pub(super) const SETTINGS: [(&str, &str); 6] = [
    ("canary.dwell_s", "10"),
    ("canary.margins", "1.5"),
    ("canary.margin_p99_extra", "0.5"),
    ("canary.error_rates", "0.02"),
    // At 95 % of all queries a demo's baseline would be too few to compare with.
    ("canary.hold_back_percent", "25.0"),
    ("canary.history_s", "0"),
];

/// The same in a sentence.
pub(super) const PLAN: &str = "canary: 5, 25, 100 % of users by evidence (25 % are held back until \
    it is complete); each step lasts 10 s or more and must show p95 under 1.5 times, p99 under 2 \
    times the baseline's and fewer than 2 % errors, at the usual error probabilities; all of it \
    takes about a thousand canary queries a step: more than --for 90s has, see --for, --rate";

/// The version under test.
const VERSION: &str = "1.5.0-rc.1";

/// Longest an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Pause between two questions, and before a failed start is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// How often a start is tried.
const STARTS_MAX: usize = 5;

/// One aggregator's API.
#[derive(Clone, Debug)]
pub(super) struct Api {
    client: reqwest::Client,
    url: String,
}

impl Api {
    /// The API at `url`.
    ///
    /// # Errors
    /// A sentence: no client.
    pub(super) fn new(url: &str) -> Result<Self, String> {
        let client = reqwest::Client::builder().timeout(ANSWER_MAX).no_proxy().build();
        let client = client.map_err(|error| error.to_string())?;
        Ok(Self { client, url: url.to_owned() })
    }

    async fn get(&self, path: &str) -> Result<Value, String> {
        let sent = self.client.get(format!("{}{path}", self.url)).send().await;
        let answer = sent.and_then(reqwest::Response::error_for_status);
        let answer = answer.map_err(|error| error.to_string())?;
        answer.json().await.map_err(|error| error.to_string())
    }

    /// Begins the rollout.
    ///
    /// # Errors
    /// A sentence: the last refusal of several.
    pub(super) async fn start(&self) -> Result<(), String> {
        let mut failed = String::new();
        for _ in 0..STARTS_MAX {
            let request = self.client.post(format!("{}/canary/start", self.url));
            match request.json(&json!({"version": VERSION})).send().await {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                Ok(answer) => {
                    let status = answer.status();
                    failed = format!("{status}: {}", answer.text().await.unwrap_or_default());
                }
                Err(error) => failed = error.to_string(),
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(format!("the canary could not be started: {failed}"))
    }

    /// Where the rollout stands.
    pub(super) async fn standing(&self) -> Result<Value, String> {
        Ok(self.get("/canary/status").await?["canary_deployment"].take())
    }

    /// Follows where the rollout stands, also over an aggregator's death.
    pub(super) async fn follow(self, to: watch::Sender<Value>) {
        loop {
            if let Ok(standing) = self.standing().await {
                to.send_replace(standing);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The last decision of that kind.
    async fn decision(&self, word: &str) -> Result<Value, String> {
        let mut answer = self.get("/canary/decisions").await?;
        let decisions = answer["decisions"].as_array_mut().map(std::mem::take);
        let found = decisions.into_iter().flatten().find(|decision| decision["word"] == word);
        found.ok_or_else(|| format!("no decision {word} is kept"))
    }

    /// Every alert the aggregator holds, those open first.
    pub(super) async fn alerts(&self) -> Result<Vec<Value>, String> {
        let answer = self.get("/api/v1/alerts").await?;
        let lists = [&answer["alerts"], &answer["past"]];
        let all = lists.into_iter().filter_map(Value::as_array).flatten();
        const SHOWN: [&str; 11] = [
            "rule", "slice", "stage", "arm", "name", "title", "state", "severity", "opened",
            "fired", "resolved",
        ];
        let shown = |alert: &Value| SHOWN.map(|field| (field.to_owned(), alert[field].clone()));
        Ok(all.map(|alert| Value::Object(shown(alert).into_iter().collect())).collect())
    }
}

/// How the rollout ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ending {
    /// `completed`, `rolled_back` or `held`.
    pub(super) outcome: &'static str,
    /// Why, in a sentence.
    pub(super) reason: String,
    /// From the onset of the harm that was asked for to the rollback.
    pub(super) detected_after: Option<Duration>,
    /// Whole queries of the canary that were compared.
    pub(super) samples: Option<u64>,
}

impl Ending {
    /// What came of a rollout that stood as `last` when queries ended, and stands as `now`.
    pub(super) async fn of(api: &Api, last: &Value, onset: Option<SystemTime>) -> Self {
        let now = api.standing().await.unwrap_or(Value::Null);
        let (word, outcome) = match now["phase"].as_str().or(last["phase"].as_str()) {
            Some("complete") => ("complete", "completed"),
            Some("rolled_back") => ("rollback", "rolled_back"),
            _ => return Self::held(last),
        };
        let decision = match api.decision(word).await {
            Ok(decision) => decision,
            Err(_) => json!({"decision": {"reason": now["reason"]}}),
        };
        let onset = onset.filter(|_| word == "rollback");
        Self {
            outcome,
            reason: decision["decision"]["reason"].as_str().unwrap_or_default().to_owned(),
            detected_after: onset.and_then(|onset| since(onset, decision["t"].as_str()?)),
            samples: samples(&decision["decision"]["evidence"]),
        }
    }

    fn held(last: &Value) -> Self {
        let blockers = last["blockers"].as_array().map_or(&[][..], Vec::as_slice);
        let ways: Vec<&str> = blockers.iter().filter_map(|b| b["message"].as_str()).collect();
        let way = match (last.is_null(), ways.is_empty()) {
            (true, _) => "the aggregator did not say where it stands".to_owned(),
            (_, true) => "nothing stood in its way but the end of the queries".to_owned(),
            _ => format!("still missing: {}", ways.join("; ")),
        };
        let step = last["trafficPercentage"].as_f64().unwrap_or(0.0);
        let reason = format!("at the step of {step} %; {way}");
        Self { outcome: "held", reason, detected_after: None, samples: samples(&last["evidence"]) }
    }

    /// For the summary.
    pub(super) fn json(&self) -> Value {
        json!({
            "outcome": self.outcome,
            "reason": self.reason,
            "detected_after_s": self.detected_after.map(super::summary::seconds),
            "samples": self.samples,
        })
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = format!("canary: {}; {}", self.outcome.replace('_', " "), self.reason);
        if let Some(after) = self.detected_after {
            text.push_str(&format!("; {:.1} s after its onset", after.as_secs_f64()));
        }
        if let Some(samples) = self.samples {
            let samples = crate::terminal::count(samples);
            text.push_str(&format!("; {samples} whole queries of the canary compared"));
        }
        text
    }
}

/// Whole queries of the canary that the evidence rests on.
fn samples(evidence: &Value) -> Option<u64> {
    let mut arms = evidence["arms"].as_array()?.iter();
    arms.find(|arm| arm["stage"] == "e2e" && arm["arm"] == "canary")?["samples"].as_u64()
}

fn since(onset: SystemTime, at: &str) -> Option<Duration> {
    let UnixNanos(at) = parse_rfc3339(at)?;
    let at = SystemTime::UNIX_EPOCH + Duration::from_nanos(at);
    at.duration_since(onset).ok()
}

/// When harm that was asked for began: the first query, or later where the regression says so.
pub(super) fn onset(
    regress: &[Regression],
    nodes_ready: SystemTime,
    first_query: SystemTime,
) -> Option<SystemTime> {
    let of_canary = |one: &&Regression| one.arm.is_none_or(|arm| arm == Arm::Canary);
    let starts = regress.iter().filter(of_canary).map(|one| nodes_ready + one.after);
    starts.min().map(|start| start.max(first_query))
}

/// Where it stands, for the line above the table.
pub(super) fn line(standing: &Value) -> String {
    let phase = standing["phase"].as_str().unwrap_or("–").replace('_', " ");
    let mut line = format!("canary {phase}");
    if phase == "step" {
        let share = standing["share_percent"].as_f64().unwrap_or(0.0);
        line = format!("canary at {} %, {share:.0} % routed", standing["trafficPercentage"]);
        let evidence = &standing["evidence"];
        for (name, what) in [("harm", "harm"), ("promotion", "not worse")] {
            let number = |field: &str| evidence[name][field].as_f64();
            if let (Some(ln_e), Some(bound)) = (number("ln_e"), number("bound")) {
                line.push_str(&format!(", {what} {ln_e:.1} of {bound:.1}"));
            }
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollout_that_did_not_end_is_held_with_all_that_stood_in_its_way() {
        let standing = json!({"phase": "step", "trafficPercentage": 5.0,
            "blockers": [{"code": "not_shown", "message": "p99 is not shown"},
                {"code": "dwell", "message": "this step has lasted 5 s of 10 s"}],
            "evidence": {"arms": [{"stage": "e2e", "arm": "baseline", "samples": 90},
                {"stage": "e2e", "arm": "canary", "samples": 7}]}});
        let held = Ending::held(&standing);
        assert_eq!((held.outcome, held.samples, held.detected_after), ("held", Some(7), None));
        for part in ["step of 5 %", "p99 is not shown", "5 s of 10 s"] {
            assert!(held.reason.contains(part), "{}", held.reason);
        }
        assert!(Ending::held(&Value::Null).reason.contains("did not say"));
    }

    #[test]
    fn harm_begins_with_the_first_query_or_when_the_regression_says() {
        let ready = SystemTime::UNIX_EPOCH;
        let first = ready + Duration::from_secs(3);
        let of = |texts: &[&str]| {
            let regress: Vec<Regression> = texts.iter().map(|text| text.parse().unwrap()).collect();
            onset(&regress, ready, first)
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&["stage_b=3@baseline"]), None);
        assert_eq!(of(&["stage_b=3@canary"]), Some(first));
        let later = of(&["stage_b=3@canary:after=10s", "stage_a=2:after=20s"]);
        assert_eq!(later, Some(ready + Duration::from_secs(10)));
    }
}
