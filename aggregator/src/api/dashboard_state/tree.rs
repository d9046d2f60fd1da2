//! The tree itself, field by field, with a reason for each field that is `null`.

use std::collections::BTreeMap;

use lens_hist::{Counts, Quantile};
use lens_model::{Arm, Nanos, Stage, UnixNanos};
use serde_json::{Map, Value as Json, json};

use crate::alerts::lifecycle::Kind;
use crate::judge::{HealthStatus, Verdict};
use crate::snapshot::{Row, Snapshot, Value};
use crate::state;
use crate::window::{Selection, Span};

const NO_GATES: &str = "the quality gates are not part of this version";

/// Alerts shown, the newest first.
const RECENT_MAX: usize = 10;

/// The tree under construction.
pub(super) struct Tree<'a> {
    state: &'a state::State,
    snapshot: &'a Snapshot,
    reasons: BTreeMap<String, String>,
}

impl<'a> Tree<'a> {
    pub(super) fn new(state: &'a state::State, snapshot: &'a Snapshot) -> Self {
        Self { state, snapshot, reasons: BTreeMap::new() }
    }

    pub(super) fn build(mut self) -> (Json, BTreeMap<String, String>) {
        let stage_a = self.stage_counts(Stage::A);
        let metrics = self.metrics(&stage_a);
        let health = self.health();
        let canary_error = metrics["canary"]["error_rate_percent"].clone();
        let canary_status = json!({
            "traffic_percentage": metrics["canary"]["traffic_percentage"],
            "stage": metrics["canary"]["progressive_rollout_stage"],
            "error_rate": self.same("canary_status.error_rate", canary_error,
                "metrics.canary.error_rate_percent"),
            "rollback_events": metrics["canary"]["rollback_events"],
        });
        let sla = self.sla(&stage_a, &metrics["quality"]["span_coverage_percent"]);
        let tree = json!({
            "metrics": metrics,
            "health": health,
            "canary_status": canary_status,
            "sla_compliance": sla,
            "recent_alerts": self.recent_alerts(),
        });
        (tree, self.reasons)
    }

    fn null(&mut self, path: impl Into<String>, reason: impl Into<String>) -> Json {
        self.reasons.insert(path.into(), reason.into());
        Json::Null
    }

    fn same(&mut self, path: &str, value: Json, other: &str) -> Json {
        if value.is_null() { self.null(path, format!("see {other}")) } else { value }
    }

    fn metrics(&mut self, stage_a: &Counts) -> Json {
        let seconds = self.measured_seconds();
        let throughput = self.throughput(seconds);
        let mut a = self.stage("stageA", stage_a);
        a.insert("throughput_rps".into(), throughput);
        let gauges_a = ["early_termination_rate", "native_scanner_enabled"];
        let gauges_b = ["lru_cache_hit_rate", "pattern_compile_time_ms", "lsif_coverage_percent"];
        let gauges_c = ["rerank_rate", "confidence_cutoff_rate", "semantic_gating_rate"];
        self.gauges(&mut a, "metrics.performance.stageA", &gauges_a);
        if let Some(enabled) = a["native_scanner_enabled"].as_f64() {
            a.insert("native_scanner_enabled".into(), (enabled > 0.0).into());
        }
        let counts = self.stage_counts(Stage::B);
        let mut b = self.stage("stageB", &counts);
        self.gauges(&mut b, "metrics.performance.stageB", &gauges_b);
        let counts = self.stage_counts(Stage::C);
        let mut c = self.stage("stageC", &counts);
        self.gauges(&mut c, "metrics.performance.stageC", &gauges_c);
        let mut quality = Map::new();
        let quality_gauges = [
            "span_coverage_percent",
            "lsif_coverage_percent",
            "semantic_gating_rate",
            "ndcg_at_10",
            "recall_at_50",
            "consistency_violations",
        ];
        self.gauges(&mut quality, "metrics.quality", &quality_gauges);
        json!({
            "performance": {"stageA": a, "stageB": b, "stageC": c},
            "quality": quality,
            "canary": self.canary(),
            "operational": self.operational(),
        })
    }

    fn stage_counts(&self, stage: Stage) -> Counts {
        let mut counts = Counts::new();
        let span = Span::last(self.state.rules.summary_window, self.snapshot.t);
        let selection = Selection { stage: Some(stage), ..Selection::default() };
        self.state.windows.read().sum(&selection, span, &mut counts);
        counts
    }

    fn stage(&mut self, name: &str, counts: &Counts) -> Map<String, Json> {
        let mut map = Map::new();
        for (label, quantile) in
            [("p50", Quantile::P50), ("p95", Quantile::P95), ("p99", Quantile::P99)]
        {
            let value = Value::new(quantile, &counts.quantile(quantile));
            let field = format!("{label}_latency_ms");
            let json = match (value.value_ms, value.reason) {
                (Some(ms), _) => ms.into(),
                (None, reason) => {
                    let path = format!("metrics.performance.{name}.{field}");
                    self.null(path, reason.unwrap_or_default())
                }
            };
            map.insert(field, json);
        }
        map
    }

    /// The part of the summary window the aggregator was there for.
    fn measured_seconds(&self) -> f64 {
        self.snapshot.window_s.min(self.snapshot.uptime_s)
    }

    fn throughput(&mut self, seconds: f64) -> Json {
        let path = "metrics.performance.stageA.throughput_rps";
        let totals = &self.snapshot.totals;
        if self.snapshot.requests.is_empty() {
            return self.null(path, "no search node reports request counts");
        }
        if seconds < 1.0 {
            return self.null(path, "running for less than a second");
        }
        (totals.requests_ok.saturating_add(totals.requests_error) as f64 / seconds).into()
    }

    /// The newest readings of each gauge: the mean over nodes, or the sum for counts of events.
    fn gauges(&mut self, map: &mut Map<String, Json>, path: &str, names: &[&str]) {
        for &name in names {
            let readings: Vec<(f64, UnixNanos)> = {
                let windows = self.state.windows.read();
                let own = windows.gauges().filter(|gauge| gauge.1 == name && gauge.2.is_finite());
                own.map(|(_, _, value, at)| (value, at)).collect()
            };
            let newest = readings.iter().map(|(_, at)| *at).max();
            let horizon = self.snapshot.t.minus(self.state.rules.summary_window);
            let fresh: Vec<f64> =
                readings.iter().filter(|(_, at)| *at >= horizon).map(|(value, _)| *value).collect();
            let sum: f64 = fresh.iter().sum();
            let value = match (fresh.len(), newest) {
                (0, None) => {
                    let reason = format!("no search node reports the gauge {name}");
                    self.null(format!("{path}.{name}"), reason)
                }
                (0, Some(newest)) => {
                    let age = self.snapshot.t.since(newest).as_secs_f64();
                    let reason = format!("the gauge {name} was last read {age:.0} s ago");
                    self.null(format!("{path}.{name}"), reason)
                }
                (_, _) if name == "consistency_violations" => sum.into(),
                (nodes, _) => (sum / nodes as f64).into(),
            };
            map.insert(name.into(), value);
        }
    }

    fn canary(&mut self) -> Json {
        let own = || self.snapshot.requests.iter().filter(|requests| requests.arm == Arm::Canary);
        let errors: u64 = own().map(|requests| requests.error).sum();
        let all: u64 = own().map(|requests| requests.error.saturating_add(requests.ok)).sum();
        let error_rate = if all == 0 {
            let path = "metrics.canary.error_rate_percent";
            self.null(path, "no requests of the canary arm in the window")
        } else {
            (100.0 * errors as f64 / all as f64).into()
        };
        let routed = self.state.canary.stand().routed.map_or(0.0, |routed| routed.share);
        self.state.canary.look(|book, _| {
            json!({
                "traffic_percentage": routed,
                "error_rate_percent": error_rate,
                "rollback_events": book.rollbacks,
                "kill_switch_activations": book.kills,
                "progressive_rollout_stage": book.stage(),
            })
        })
    }

    /// Counts since alerts were first kept. An incident is an episode of severity critical; what
    /// reached a step of the escalation chain went on call.
    fn operational(&mut self) -> Json {
        let totals = self.state.alerts.totals();
        let escalations = totals.transitions.get(&Kind::Escalated).copied().unwrap_or(0);
        let uptime = "metrics.operational.uptime_percent";
        json!({
            "alerts_fired": totals.fired.values().sum::<u64>(),
            "alert_categories": totals.fired,
            "on_call_escalations": escalations,
            "incident_count": totals.incidents,
            "uptime_percent": self.null(uptime, "availability is not measured"),
        })
    }

    fn recent_alerts(&self) -> Json {
        let (open, past) = (self.state.alerts.open_alerts(), self.state.alerts.past_alerts());
        let mut alerts: Vec<_> =
            open.into_iter().chain(past).filter(|alert| alert.fired.is_some()).collect();
        alerts.sort_by_key(|alert| std::cmp::Reverse(alert.fired));
        let text = |at: Option<UnixNanos>| at.map(lens_service::time::rfc3339);
        let shown = alerts.iter().take(RECENT_MAX).map(|alert| {
            let evidence = |names: [&str; 3]| {
                let found = names.iter().map(|name| &alert.evidence[*name]);
                found.into_iter().find(|value| !value.is_null()).cloned()
            };
            json!({
                "id": alert.key.id(),
                "timestamp": text(alert.fired),
                "metric": alert.key.to_string(),
                "value": evidence(["value_ms", "ratio", "error_percent"]),
                "threshold": evidence(["limit_ms", "threshold", "limit_percent"]),
                "severity": alert.severity,
                "message": alert.summary,
                "resolved": alert.resolved.is_some(),
            })
        });
        shown.collect::<Vec<_>>().into()
    }

    /// The worse of what the rules say now and what fires: a limit of latency that is broken is
    /// critical before anyone was told of it.
    fn health(&mut self) -> Json {
        let alerts = &self.snapshot.alerts;
        let status = match self.snapshot.health.status {
            _ if alerts.critical > 0 => "critical",
            HealthStatus::Critical => "critical",
            _ if alerts.firing > 0 => "degraded",
            HealthStatus::Degraded => "degraded",
            HealthStatus::Healthy => "healthy",
        };
        json!({
            "status": status,
            "active_alerts": alerts.firing,
            "critical_alerts": alerts.critical,
            "uptime_percent": self.null("health.uptime_percent", "availability is not measured"),
        })
    }

    fn sla(&mut self, stage_a: &Counts, span_coverage: &Json) -> Json {
        let limit = self.state.rules.slo_a_p95;
        let rows = || self.snapshot.rows.iter().filter(|row| row.stage == Stage::A);
        let tail = tail_of(rows());
        let p95 = stage_a.quantile(Quantile::P95).value;
        let p95_ok = match p95 {
            _ if tail.0 == Verdict::Stale => self.no_sla("stage_a_p95_compliant", &tail.1),
            Some(p95) => within(p95, limit),
            None => self.no_sla("stage_a_p95_compliant", "too few samples of stage A for p95"),
        };
        let tail_ok = match tail.0 {
            Verdict::Ok => true.into(),
            Verdict::Violation => false.into(),
            Verdict::InsufficientData | Verdict::Stale => {
                self.no_sla("tail_latency_compliant", &tail.1)
            }
        };
        let span_ok = match span_coverage.as_f64() {
            Some(percent) => (percent >= 98.0).into(),
            None => {
                self.no_sla("span_coverage_compliant", "see metrics.quality.span_coverage_percent")
            }
        };
        let gates = self.no_sla("quality_gates_passing", NO_GATES);
        json!({
            "stage_a_p95_compliant": p95_ok,
            "tail_latency_compliant": tail_ok,
            "span_coverage_compliant": span_ok,
            "quality_gates_passing": gates,
        })
    }

    fn no_sla(&mut self, field: &str, reason: &str) -> Json {
        self.null(format!("sla_compliance.{field}"), reason)
    }
}

/// The tail of a stage over all its series: broken where one is; kept where one is and none is
/// broken; silent only when all are.
fn tail_of<'a>(rows: impl Iterator<Item = &'a Row>) -> (Verdict, String) {
    let rank = |verdict: Verdict| match verdict {
        Verdict::Violation => 0,
        Verdict::Ok => 1,
        Verdict::InsufficientData => 2,
        Verdict::Stale => 3,
    };
    rows.min_by_key(|row| rank(row.verdict)).map_or_else(
        || (Verdict::InsufficientData, "no samples were ever received".into()),
        |row| (row.verdict, row.reason.clone()),
    )
}

fn within(value: Nanos, limit: Nanos) -> Json {
    (value <= limit).into()
}
