//! What is exported: every metric there is, as families that each format writes in its own words.
//!
//! Windowed quantiles are summaries, which is what that type means: quantiles over a sliding
//! window, sum and count over the lifetime. (Linters refuse a gauge with a label `quantile`.)
//! The ends of their intervals are summaries of quantiles alone, so that the labels match.
//! Counters and histograms are those of the store: a restart does not set them back, so a scraper
//! sees no reset until the store itself is made anew, and then it sees the count fall. The store
//! does not hold when a series began, so no creation time is claimed.
//! Promise: a value that was not measured is absent, never 0. Base units: seconds, ratios.

use std::sync::atomic::Ordering;

use lens_hist::Counts;
use lens_model::UnixNanos;

use super::family::{Families as Text, Summary};
use super::native::Histogram;
use crate::judge::Verdict;
use crate::snapshot::{Row, Snapshot, Value};
use crate::state::State;
use crate::window::Selection;

/// Exemplars of one histogram, the newest: as many as Prometheus takes of one.
const EXEMPLARS_MAX: usize = 10;

/// The state's metrics; `subscribers` are the event stream's.
pub fn families(state: &State, snapshot: &Snapshot, subscribers: usize) -> Text {
    let mut text = Text::default();
    latencies(&mut text, state, snapshot);
    series(&mut text, snapshot);
    requests(&mut text, snapshot);
    nodes(&mut text, state);
    agents(&mut text, snapshot);
    alerts(&mut text, state, snapshot);
    guards(&mut text, state);
    super::canary::canary(&mut text, state);
    otlp(&mut text, state);
    itself(&mut text, state, snapshot, subscribers);
    if let Some(tally) = &state.remote_write {
        tally.export(&mut text, state.now().0);
    }
    text
}

fn labels<'a>(row: &'a Row, slice: &'a str) -> [(&'static str, &'a str); 3] {
    [("slice", slice), ("stage", row.stage.as_str()), ("arm", row.arm.as_str())]
}

/// Samples ever merged of each row, as histograms and their overflow.
fn lifetimes(state: &State, snapshot: &Snapshot) -> Vec<(Histogram, u64)> {
    let mut counts = Counts::new();
    let lifetime = |row: &Row| {
        counts.clear();
        let key = row.key();
        state.windows.read().lifetime(&Selection::series(&key), &mut counts);
        let slow = state.exemplars.read().newest(&key, UnixNanos(0), EXEMPLARS_MAX);
        let slow: Vec<_> = slow.iter().map(|held| held.exemplar).collect();
        (Histogram::of(&counts, &slow), counts.overflow())
    };
    snapshot.rows.iter().map(lifetime).collect()
}

fn latencies(text: &mut Text, state: &State, snapshot: &Snapshot) {
    type Pick = fn(&Value) -> Option<f64>;
    let lifetimes = lifetimes(state, snapshot);
    let help = "Latency quantiles over the summary window; sum and count since the store began.";
    text.family("lens_latency_seconds", "summary", help);
    for (row, (histogram, _)) in snapshot.rows.iter().zip(&lifetimes) {
        let lifetime = Some((histogram.sum, histogram.count));
        let quantiles = quantiles(row, |value| value.value_ms);
        text.summary(&labels(row, &row.slice.to_string()), Summary { quantiles, lifetime });
    }
    let ends: [(&str, &str, Pick); 2] = [
        (
            "lens_latency_low_seconds",
            "Lower end of the 95 % interval of each latency quantile.",
            |value| value.low_ms,
        ),
        (
            "lens_latency_high_seconds",
            "Upper end of the 95 % interval of each latency quantile.",
            |value| value.high_ms,
        ),
    ];
    for (name, help, pick) in ends {
        text.family(name, "summary", help);
        for row in &snapshot.rows {
            let summary = Summary { quantiles: quantiles(row, pick), lifetime: None };
            text.summary(&labels(row, &row.slice.to_string()), summary);
        }
    }
    let help = "Samples above 68.7 s, the largest latency with a bucket of its own.";
    text.family("lens_samples_overflow", "counter", help);
    for (row, (_, overflow)) in snapshot.rows.iter().zip(&lifetimes) {
        let slice = row.slice.to_string();
        text.sample("lens_samples_overflow_total", &labels(row, &slice), *overflow);
    }
    text.family("lens_duration_seconds", "histogram", "Latencies since the store began.");
    for (row, (histogram, _)) in snapshot.rows.iter().zip(lifetimes) {
        text.histogram(&labels(row, &row.slice.to_string()), histogram);
    }
}

fn quantiles(row: &Row, pick: impl Fn(&Value) -> Option<f64>) -> Vec<(f64, f64)> {
    let values = [(0.5, &row.p50), (0.95, &row.p95), (0.99, &row.p99), (0.999, &row.p99_9)];
    let some = |(quantile, value)| pick(value).map(|ms| (quantile, ms / 1e3));
    values.into_iter().filter_map(some).collect()
}

#[allow(clippy::cast_precision_loss)]
fn seconds(nanos: u128) -> f64 {
    nanos as f64 / 1e9
}

fn series(text: &mut Text, snapshot: &Snapshot) {
    text.family("lens_samples", "counter", "Samples merged since start.");
    each(text, snapshot, "lens_samples_total", |row| Some(row.merged_total as f64));
    text.family("lens_window_samples", "gauge", "Samples in the summary window.");
    each(text, snapshot, "lens_window_samples", |row| Some(row.count as f64));
    text.family("lens_tail_ratio", "gauge", "p99 over p95 in the summary window.");
    each(text, snapshot, "lens_tail_ratio", |row| row.ratio);
    let help = "Lower end of the 95 % interval of p99 over p95.";
    text.family("lens_tail_ratio_low", "gauge", help);
    each(text, snapshot, "lens_tail_ratio_low", |row| row.ratio_low);
    let help = "Upper end of the 95 % interval of p99 over p95.";
    text.family("lens_tail_ratio_high", "gauge", help);
    each(text, snapshot, "lens_tail_ratio_high", |row| row.ratio_high);
    let help = "Samples of a series that count as one, by its overdispersion.";
    text.family("lens_tail_overdispersion", "gauge", help);
    each(text, snapshot, "lens_tail_overdispersion", |row| row.evidence.decided.map(|d| d.phi));
    text.family("lens_series_age_seconds", "gauge", "Time since samples were last recorded.");
    each(text, snapshot, "lens_series_age_seconds", |row| Some(row.age_s));
    text.family("lens_verdict", "gauge", "1 for the tail verdict that holds, 0 for the others.");
    for row in &snapshot.rows {
        let slice = row.slice.to_string();
        let [a, b, c] = labels(row, &slice);
        for verdict in Verdict::ALL {
            let holds = u8::from(verdict == row.verdict);
            text.sample("lens_verdict", &[a, b, c, ("verdict", verdict.as_str())], holds);
        }
    }
    text.family("lens_slo_limit_seconds", "gauge", "Absolute limit of a stage's percentile.");
    for row in &snapshot.rows {
        let slice = row.slice.to_string();
        let [a, b, c] = labels(row, &slice);
        for slo in &row.slo {
            let of = ("percentile", slo.quantile);
            text.sample("lens_slo_limit_seconds", &[a, b, c, of], slo.limit_ms / 1e3);
        }
    }
    let help = "1 while a stage's limit is kept, 0 while it is broken; absent without an answer.";
    text.family("lens_slo_kept", "gauge", help);
    for row in &snapshot.rows {
        let slice = row.slice.to_string();
        let [a, b, c] = labels(row, &slice);
        for slo in &row.slo {
            let kept = match slo.state {
                Verdict::Ok => true,
                Verdict::Violation => false,
                _ => continue,
            };
            text.sample("lens_slo_kept", &[a, b, c, ("percentile", slo.quantile)], kept);
        }
    }
}

fn each(text: &mut Text, snapshot: &Snapshot, name: &str, value: impl Fn(&Row) -> Option<f64>) {
    for row in &snapshot.rows {
        if let Some(value) = value(row) {
            let slice = row.slice.to_string();
            text.sample(name, &labels(row, &slice), value);
        }
    }
}

fn requests(text: &mut Text, snapshot: &Snapshot) {
    text.family("lens_requests", "counter", "Requests since start, by outcome.");
    for requests in &snapshot.requests {
        let slice = requests.slice.to_string();
        let (slice, arm) = (("slice", slice.as_str()), ("arm", requests.arm.as_str()));
        for (outcome, count) in [("ok", requests.ok_total), ("error", requests.error_total)] {
            text.sample("lens_requests_total", &[slice, arm, ("outcome", outcome)], count);
        }
    }
}

fn nodes(text: &mut Text, state: &State) {
    let windows = state.windows.read();
    text.family("lens_node_reading", "gauge", "Newest reading of each gauge of each search node.");
    for (host, name, value, _) in windows.gauges() {
        let labels =
            [("agent", host.agent.as_str()), ("instance", host.instance.as_str()), ("gauge", name)];
        text.sample("lens_node_reading", &labels, value);
    }
    let help = "When each gauge of each search node was read, Unix time.";
    text.family("lens_node_reading_timestamp_seconds", "gauge", help);
    for (host, name, _, at) in windows.gauges() {
        let labels =
            [("agent", host.agent.as_str()), ("instance", host.instance.as_str()), ("gauge", name)];
        text.sample("lens_node_reading_timestamp_seconds", &labels, seconds(u128::from(at.0)));
    }
}

fn agents(text: &mut Text, snapshot: &Snapshot) {
    type Pick = fn(&crate::snapshot::Agent) -> f64;
    let gauges: [(&str, &str, Pick); 4] = [
        ("lens_agent_connected", "Whether the agent is connected.", |agent| {
            f64::from(u8::from(agent.connected))
        }),
        ("lens_agent_lag_seconds", "End of the last delta's interval to its merge.", |agent| {
            agent.lag_ms / 1e3
        }),
        ("lens_agent_age_seconds", "Time since the agent's last frame.", |agent| agent.age_s),
        ("lens_agent_clock_offset_seconds", "Aggregator clock minus agent clock.", |agent| {
            agent.clock_offset_ms / 1e3
        }),
    ];
    for (name, help, pick) in gauges {
        text.family(name, "gauge", help);
        for agent in &snapshot.agents {
            text.sample(name, &[("agent", &agent.name)], pick(agent));
        }
    }
    text.family("lens_agent_info", "gauge", "The agent's version, as it says; 1.");
    for agent in &snapshot.agents {
        let labels = [("agent", agent.name.as_str()), ("version", agent.version.as_str())];
        text.sample("lens_agent_info", &labels, 1);
    }
    text.family("lens_agent_rejected", "counter", "Deltas and frames refused, by reason.");
    for agent in &snapshot.agents {
        for (reason, count) in &agent.rejected {
            let labels = [("agent", agent.name.as_str()), ("reason", reason.as_str())];
            text.sample("lens_agent_rejected_total", &labels, count);
        }
    }
}

fn guards(text: &mut Text, state: &State) {
    let help = "1 for the state that a guard is in, 0 for the others.";
    text.family("lens_guard_state", "gauge", help);
    for guard in state.guards.states() {
        for standing in crate::guards::Standing::ALL {
            let labels = [("guard", guard.guard.as_str()), ("state", standing.as_str())];
            text.sample("lens_guard_state", &labels, u8::from(standing == guard.state));
        }
    }
}

fn alerts(text: &mut Text, state: &State, snapshot: &Snapshot) {
    text.family("lens_alerts", "gauge", "Alerts that fire or wait to, by state.");
    let states = [("firing", snapshot.alerts.firing), ("pending", snapshot.alerts.pending)];
    for (name, count) in states {
        text.sample("lens_alerts", &[("state", name)], count);
    }
    text.family("lens_alert_transitions", "counter", "Transitions told, by kind.");
    for (kind, count) in state.alerts.totals().transitions {
        text.sample("lens_alert_transitions_total", &[("kind", kind.as_str())], count);
    }
    let sinks = &snapshot.alerts.sinks;
    text.family("lens_alert_deliveries", "counter", "Notices settled and attempts to repeat.");
    for sink in sinks {
        let outcomes =
            [("delivered", sink.delivered), ("retried", sink.retried), ("dead", sink.dead)];
        for (outcome, count) in outcomes {
            let labels = [("sink", sink.name.as_str()), ("outcome", outcome)];
            text.sample("lens_alert_deliveries_total", &labels, count);
        }
    }
    text.family("lens_alert_queue", "gauge", "Notices waiting, by sink.");
    for sink in sinks {
        text.sample("lens_alert_queue", &[("sink", &sink.name)], sink.queued);
    }
    text.family("lens_alert_sink_failing", "gauge", "1 while a sink takes nothing.");
    for sink in sinks {
        let failing = u8::from(sink.failing_since.is_some());
        text.sample("lens_alert_sink_failing", &[("sink", &sink.name)], failing);
    }
}

/// What the export to an OTLP receiver counts; nothing where it is off.
fn otlp(text: &mut Text, state: &State) {
    if !state.otlp.on.load(Ordering::Relaxed) {
        return;
    }
    for (name, count, help) in state.otlp.shown() {
        let name = format!("lens_otlp_{name}");
        text.family(&name, "counter", help);
        text.sample(&format!("{name}_total"), &[], count);
    }
    let name = "lens_otlp_last_taken_age_seconds";
    text.family(name, "gauge", "Time since the receiver last took a request.");
    match state.otlp.last_taken_nanos.load(Ordering::Relaxed) {
        0 => {}
        at => text.sample(name, &[], state.now().since(UnixNanos(at)).as_secs_f64()),
    }
}

fn itself(text: &mut Text, state: &State, snapshot: &Snapshot, subscribers: usize) {
    let c = &state.counters;
    let counters = [
        ("frames", &c.frames_total, "Frames received."),
        ("bytes", &c.bytes_total, "Bytes received."),
        ("deltas_accepted", &c.deltas_accepted_total, "Deltas merged."),
        ("deltas_duplicate", &c.deltas_duplicate_total, "Deltas that came again."),
        ("deltas_late", &c.deltas_late_total, "Deltas merged into a sealed window."),
        ("deltas_refused", &c.deltas_refused_total, "Deltas refused."),
        ("samples_merged", &c.samples_merged_total, "Samples merged."),
        ("connections", &c.connections_total, "Connections taken."),
        ("connections_refused", &c.connections_refused_total, "Connections refused."),
        ("handshakes_failed", &c.handshakes_failed_total, "Handshakes that failed."),
        ("retries", &c.retries_total, "Addresses asked to prove themselves first."),
        ("connections_aged", &c.connections_aged_total, "Connections ended for their age."),
        ("connections_revoked", &c.connections_revoked_total, "Connections ended or kept out."),
    ];
    for (name, counter, help) in counters {
        let name = format!("lens_aggregator_{name}");
        text.family(&name, "counter", help);
        text.sample(&format!("{name}_total"), &[], counter.load(Ordering::Relaxed));
    }
    text.family("lens_aggregator_info", "gauge", "This aggregator's version; 1.");
    text.sample("lens_aggregator_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    let totals = &snapshot.totals;
    let gauges = [
        ("uptime_seconds", "Time since start.", Some(snapshot.uptime_s)),
        ("window_seconds", "Width of the summary window.", Some(snapshot.window_s)),
        ("series", "Series held.", Some(totals.series as f64)),
        ("slices", "Slices known or seen.", Some(totals.slices as f64)),
        ("agents_connected", "Agents connected.", Some(totals.agents_connected as f64)),
        ("event_subscribers", "Readers of the event stream.", Some(subscribers as f64)),
        ("lag_seconds", "Largest lag of a connected agent.", totals.lag_ms.map(|ms| ms / 1e3)),
    ];
    security(text, state, snapshot);
    for (name, help, value) in gauges {
        let name = format!("lens_aggregator_{name}");
        text.family(&name, "gauge", help);
        if let Some(value) = value {
            text.sample(&name, &[], value);
        }
    }
}

/// Certificates' ends, and what could not be taken up.
fn security(text: &mut Text, state: &State, snapshot: &Snapshot) {
    let left = |end: u64| (end as f64 - state.now().0 as f64) / 1e9;
    let name = "lens_aggregator_certificate_seconds_left";
    text.family(name, "gauge", "Time until this aggregator's certificate ends.");
    match state.certificate_expires.load(Ordering::Relaxed) {
        0 => {}
        end => text.sample(name, &[], left(end)),
    }
    let name = "lens_agent_certificate_seconds_left";
    text.family(name, "gauge", "Time until the certificate ends that an agent last came with.");
    for agent in &snapshot.agents {
        if let Some(end) = agent.certificate_expires {
            text.sample(name, &[("agent", &agent.name)], left(end.0));
        }
    }
    let name = "lens_aggregator_problem";
    text.family(name, "gauge", "1 for what could not be taken up; what was in force still is.");
    for what in state.security.troubles.all().keys() {
        text.sample(name, &[("what", what)], 1);
    }
    let name = "lens_aggregator_audit_failed";
    text.family(name, "counter", "Audit records that could not be made durable.");
    text.sample(&format!("{name}_total"), &[], state.security.audit.failed_total());
}
