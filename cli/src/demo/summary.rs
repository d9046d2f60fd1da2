//! The demo's end: what was recorded held against what was merged, and what was seen.

use std::collections::BTreeMap;
use std::time::Duration;

use lens_benches::Regression;
use lens_benches::load::search::SearchReport;
use lens_benches::node::Ledger;
use serde_json::{Value, json};

use super::canary::Ending;
use super::lives::Restart;
use crate::terminal;

/// What the summary is made from.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    /// The aggregator's last snapshot.
    pub snapshot: &'a Value,
    /// What each node says it recorded, by its own count.
    pub ledgers: &'a [Ledger],
    /// What the load was.
    pub load: &'a SearchReport,
    /// Files each node indexed.
    pub corpus_files: u64,
    /// How long queries ran.
    pub duration: Duration,
    /// Stages made slower.
    pub regress: &'a [Regression],
    /// Processes that were killed and started again.
    pub restarts: &'a [Restart],
    /// What nodes that were killed left behind and does not fit together, in sentences.
    pub doubts: &'a [String],
    /// What came of the rollout.
    pub canary: &'a Ending,
    /// Alerts, as the aggregator tells them.
    pub alerts: &'a [Value],
}

/// The summary of a demo.
#[derive(Debug)]
pub(crate) struct Summary {
    /// Whether every series was merged exactly as recorded.
    pub reconciled: bool,
    json: Value,
    text: String,
}

type Key = (String, String, String);

fn key(row: &Value) -> Key {
    let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
    (text("slice"), text("stage"), text("arm"))
}

impl Summary {
    /// Holds recorded against merged, series by series; a series known to one side only counts as
    /// zero on the other.
    pub(crate) fn new(facts: &Facts<'_>) -> Self {
        let mut series: BTreeMap<Key, (u64, u64)> = BTreeMap::new();
        for recorded in facts.ledgers.iter().flat_map(|ledger| &ledger.series) {
            let key =
                (recorded.slice.to_string(), recorded.stage.to_string(), recorded.arm.to_string());
            series.entry(key).or_default().0 += recorded.recorded;
        }
        let rows = facts.snapshot["rows"].as_array().map_or(&[][..], Vec::as_slice);
        for row in rows {
            series.entry(key(row)).or_default().1 += row["merged_total"].as_u64().unwrap_or(0);
        }
        let unequal = series.values().filter(|(recorded, merged)| recorded != merged).count();
        let (recorded, merged) =
            series.values().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        let reconciled = unequal == 0 && recorded > 0 && facts.doubts.is_empty();
        let shown = |((slice, stage, arm), (recorded, merged)): (&Key, &(u64, u64))| {
            let wanted = (slice.clone(), stage.clone(), arm.clone());
            let row = rows.iter().find(|row| key(row) == wanted).unwrap_or(&Value::Null);
            json!({
                "slice": slice, "stage": stage, "arm": arm,
                "recorded": recorded, "merged": merged,
                "p50_ms": row["p50"]["value_ms"], "p95_ms": row["p95"]["value_ms"],
                "p99_ms": row["p99"]["value_ms"], "p99_9_ms": row["p99_9"]["value_ms"],
                "ratio": row["ratio"], "verdict": row["verdict"],
            })
        };
        let series: Vec<Value> = series.iter().map(shown).collect();
        let duration_s = seconds(facts.duration);
        let json = json!({
            "reconciled": reconciled,
            "recorded_total": recorded,
            "merged_total": merged,
            "series": series,
            "corpus_files": facts.corpus_files,
            "queries": facts.load.sent,
            "errors": facts.load.failed + facts.load.unsent,
            "duration_s": duration_s,
            "canary": facts.canary.json(),
            "alerts": facts.alerts,
            "restarts": facts.restarts.iter().map(restart_json).collect::<Vec<_>>(),
            "doubts": facts.doubts,
        });
        let mut lines = terminal::table(facts.snapshot, false);
        lines.push(String::new());
        lines.push(format!(
            "{} files, {} queries in {duration_s:.0} s, {} failed, {} not sent; p99 from intended start {}",
            terminal::count(facts.corpus_files),
            terminal::count(facts.load.sent),
            terminal::count(facts.load.failed),
            terminal::count(facts.load.unsent),
            terminal::latency(facts.load.from_intended.p99_ms),
        ));
        for regression in facts.regress {
            lines.push(format!("made slower: {regression}"));
        }
        lines.push(facts.canary.text());
        lines.extend(facts.alerts.iter().map(alert_text));
        lines.extend(facts.restarts.iter().map(restart_text));
        lines.extend(facts.doubts.iter().cloned());
        lines.push(if reconciled {
            let count = terminal::count(recorded);
            format!("reconciled: {count} samples recorded, the same merged, in {} series", series.len())
        } else {
            let (recorded, merged) = (terminal::count(recorded), terminal::count(merged));
            format!("NOT reconciled: {recorded} samples recorded, {merged} merged; {unequal} series differ")
        });
        Self { reconciled, json, text: lines.join("\n") }
    }

    /// The summary as one JSON object.
    pub(crate) const fn json(&self) -> &Value {
        &self.json
    }

    /// The summary for people.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

pub(super) fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e3).round() / 1e3
}

fn alert_text(alert: &Value) -> String {
    let text = |name: &str| alert[name].as_str().unwrap_or_default();
    let place = ["slice", "stage", "arm", "name"].map(text);
    let place: Vec<&str> = place.into_iter().filter(|part| !part.is_empty()).collect();
    format!(
        "alert: {}, {}, {}: {}",
        text("severity"),
        text("state"),
        place.join(" "),
        text("title")
    )
}

fn restart_json(restart: &Restart) -> Value {
    json!({
        "process": restart.process,
        "after_s": seconds(restart.after),
        "back_after_s": restart.back_after.map(seconds),
        "on_the_way_max": restart.on_the_way.map(|(most, _)| most),
        "on_the_way_recorded": restart.on_the_way.map(|(_, found)| found),
    })
}

fn restart_text(restart: &Restart) -> String {
    let mut text = format!("killed: {} at {:.1} s", restart.process, seconds(restart.after));
    match restart.back_after {
        Some(back_after) => text.push_str(&format!(", back after {:.1} s", seconds(back_after))),
        None => text.push_str(", not back before the end"),
    }
    if let Some((most, found)) = restart.on_the_way {
        text.push_str(&format!(
            "; of at most {most} samples on the way {found} were in its memory, and count"
        ));
    }
    text
}
