//! The adapter: what this version judges and sees of itself, as conditions.
//!
//! The one file between the judge and alerting. A verdict that could not be reached reads unknown,
//! never clear. Rules on latency take the judge's word; how sure it is shows in the severity: one
//! window over the ratio is a warning, three disjoint ones in a row an error, because windows that
//! overlap repeat each other's evidence.

use std::collections::BTreeMap;
use std::sync::Arc;

use lens_hist::Counts;
use lens_model::{Nanos, SeriesKey, Slice, UnixNanos};
use serde_json::{Value, json};

use super::burn::{SLOW_MIN, Spent, TIERS, read};
use super::cause;
use super::condition::{Condition, Key, Reading, Rule, Severity, Subject};
use super::desk::{Desk, FAILURES_MIN};
use crate::judge::standing::{Stream, Test};
use crate::judge::{self, Verdict};
use crate::snapshot::{Agent, Requests, Row, Snapshot};
use crate::state::State;
use crate::window::{Host, Selection, SeriesState, Span};

/// Disjoint windows in a row that make a long tail an error.
const WINDOWS_MIN: u32 = 3;

/// Ratio beyond the threshold at which a lasting long tail is critical.
const FAR_BEYOND: f64 = 1.0;

/// Failed requests below which no rate is judged.
const ERRORS_MIN: u64 = 20;

/// Share of the canary's requests that may fail before it is worth a look, percent.
const CANARY_ERROR_PERCENT: f64 = 3.0;

/// Time between two looks at the budgets, whose shortest long window is an hour.
const BURN_EVERY: Nanos = Nanos::from_secs(60);

/// From this width on time is read by the hour.
const DAY: Nanos = Nanos::from_secs(86_400);

/// After this an agent that is gone was taken away as likely as it is lost: it reads unknown, and
/// its alert may be declared over.
const FORGOTTEN: Nanos = Nanos::from_secs(86_400);

/// What the adapter's own rules compare with.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Share of requests that may fail, percent.
    pub error_percent: f64,
    /// Lag an agent may have.
    pub lag: Nanos,
    /// Age the oldest frame of an agent's spool may have.
    pub spool_age: Nanos,
}

impl Default for Limits {
    fn default() -> Self {
        let (lag, spool_age) = (Nanos::from_secs(60), Nanos::from_secs(300));
        Self { error_percent: 5.0, lag, spool_age }
    }
}

/// Reads everything, and remembers what is not read every time.
#[derive(Debug, Default)]
pub struct Sense {
    burns: Vec<Condition>,
    burns_at: Option<UnixNanos>,
}

impl Sense {
    /// One reading of everything. Walks every series: off the threads that serve the network.
    pub fn read(&mut self, state: &State, desk: &Desk, snapshot: &Snapshot) -> Vec<Condition> {
        let series = state.windows.read().series();
        let mut conditions = Vec::new();
        for row in &snapshot.rows {
            let hosts = series.get(&row.key()).map_or(&[][..], |series| &series.hosts);
            conditions.push(tail(state, snapshot, row, hosts));
            conditions.extend(limits(state, snapshot, row, hosts));
        }
        conditions.extend(silent(snapshot, &series));
        let limits = &desk.config.limits;
        conditions.extend(snapshot.requests.iter().map(|requests| errors(requests, limits)));
        for agent in &snapshot.agents {
            conditions.extend(of_agent(agent, limits));
        }
        conditions.push(of_store(state));
        conditions.extend(of_desk(desk));
        conditions.extend(crate::guards::conditions(&state.guards));
        conditions.extend(crate::canary::alarms::conditions(state, snapshot.t));
        if self.burns_at.is_none_or(|at| snapshot.t.since(at) >= BURN_EVERY) {
            self.burns =
                snapshot.rows.iter().flat_map(|row| burn(state, snapshot.t, row)).collect();
            self.burns_at = Some(snapshot.t);
        }
        conditions.extend(self.burns.iter().cloned());
        conditions
    }
}

fn series_key(rule: Rule, row: &Row) -> Key {
    let subject = Subject {
        slice: Some(row.slice.clone()),
        stage: Some(row.stage),
        arm: Some(row.arm),
        name: None,
    };
    Key { rule, subject }
}

fn agents(hosts: &[Arc<Host>]) -> Vec<String> {
    let mut names: Vec<String> = hosts.iter().map(|host| host.agent.to_string()).collect();
    names.sort();
    names.dedup();
    names
}

const fn reading(verdict: Verdict) -> Reading {
    match verdict {
        Verdict::Ok => Reading::Clear,
        Verdict::Violation => Reading::Violated,
        Verdict::InsufficientData | Verdict::Stale => Reading::Unknown,
    }
}

fn causes(
    rule: Rule,
    state: &State,
    snapshot: &Snapshot,
    row: &Row,
    hosts: &[Arc<Host>],
) -> Vec<String> {
    let span = Span::last(state.rules.summary_window, snapshot.t);
    cause::actions(rule, row, hosts, &state.windows.read(), span, snapshot)
}

fn tail(state: &State, snapshot: &Snapshot, row: &Row, hosts: &[Arc<Host>]) -> Condition {
    let broken = row.verdict == Verdict::Violation;
    let windows_in_a_row = row.consecutive_windows;
    let far = row.ratio.is_none_or(|ratio| ratio - row.ratio_max > FAR_BEYOND);
    let severity = match windows_in_a_row {
        WINDOWS_MIN.. if far => Severity::Critical,
        WINDOWS_MIN.. => Severity::Error,
        _ => Severity::Warning,
    };
    Condition {
        key: series_key(Rule::Tail, row),
        state: reading(row.verdict),
        severity,
        summary: row.reason.clone(),
        evidence: json!({
            "ratio": row.ratio,
            "ratio_low": row.ratio_low,
            "ratio_high": row.ratio_high,
            "threshold": row.ratio_max,
            "judged_on": row.evidence,
            "samples": row.count,
            "window_s": snapshot.window_s,
            "disjoint_windows": windows_in_a_row,
            "p95_ms": row.p95.value_ms,
            "p99_ms": row.p99.value_ms,
        }),
        since: row.since,
        agents: agents(hosts),
        actions: if broken { causes(Rule::Tail, state, snapshot, row, hosts) } else { Vec::new() },
    }
}

fn limits(state: &State, snapshot: &Snapshot, row: &Row, hosts: &[Arc<Host>]) -> Vec<Condition> {
    let condition = |slo: &judge::Slo| {
        let rule = if slo.quantile == "p99" { Rule::SloP99 } else { Rule::SloP95 };
        let broken = slo.state == Verdict::Violation;
        let value = slo.value_ms.map_or("above range".into(), |ms| format!("{ms:.3} ms"));
        let summary = match &slo.reason {
            Some(reason) if !broken => reason.clone(),
            _ => format!("{} is {value}, limit {} ms", slo.quantile, slo.limit_ms),
        };
        Condition {
            key: series_key(rule, row),
            state: reading(slo.state),
            severity: Severity::Critical,
            summary,
            evidence: json!({
                "quantile": slo.quantile,
                "value_ms": slo.value_ms,
                "limit_ms": slo.limit_ms,
                "samples": row.count,
                "window_s": snapshot.window_s,
            }),
            since: None,
            agents: agents(hosts),
            actions: if broken { causes(rule, state, snapshot, row, hosts) } else { Vec::new() },
        }
    };
    row.slo.iter().map(condition).collect()
}

fn burn(state: &State, now: UnixNanos, row: &Row) -> Option<Condition> {
    let stream = Stream::new(&row.key(), &state.rules);
    let strictest = stream.limits().last()?;
    let Test::Limit { quantile, limit } = strictest.test else { return None };
    let (name, budget) = (strictest.name, 1.0 - quantile.ratio());
    let selection = Selection::series(&row.key());
    let mut widths: BTreeMap<Nanos, Result<Spent, String>> = BTreeMap::new();
    let mut spent = |width| {
        let read = || recorded(state, &selection, width, now).map(|c| Spent::over(&c, limit));
        widths.entry(width).or_insert_with(read).clone()
    };
    let mut read_tiers = Vec::new();
    let mut worst = (Reading::Clear, Severity::Warning);
    for tier in TIERS {
        let (long, short) = match (spent(tier.long), spent(tier.short)) {
            (Ok(long), Ok(short)) => (long, short),
            (Err(why), _) | (_, Err(why)) => {
                read_tiers.push(json!({"burn": tier.burn, "long_s": tier.long.as_secs_f64(),
                    "reason": why}));
                if worst.0 == Reading::Clear {
                    worst.0 = Reading::Unknown;
                }
                continue;
            }
        };
        let state = read(&tier, long, short, budget);
        read_tiers.push(json!({"burn": tier.burn, "long_s": tier.long.as_secs_f64(),
            "burned_long": long.burn(budget), "burned_short": short.burn(budget),
            "slow": long.slow, "total": long.total, "reading": state}));
        worst = match (worst.0, state) {
            (Reading::Violated, _) => worst,
            (_, Reading::Violated) => (state, tier.severity),
            (Reading::Unknown, _) | (_, Reading::Clear) => worst,
            (_, Reading::Unknown) => (state, worst.1),
        };
    }
    let limit_ms = limit.as_millis_f64();
    Some(Condition {
        key: series_key(Rule::Burn, row),
        state: worst.0,
        severity: worst.1,
        summary: format!(
            "requests over the {name} limit of {limit_ms} ms spend the budget too fast"
        ),
        evidence: json!({"budget": budget, "limit_ms": limit_ms, "tiers": read_tiers,
            "slow_min": SLOW_MIN}),
        since: None,
        agents: Vec::new(),
        actions: vec![format!(
            "See since when: GET /api/v1/quantiles?slice={}&stage={}&arm={}&from=-1h&step=1m",
            row.slice, row.stage, row.arm
        )],
    })
}

/// What was recorded in the time before now: from memory where that holds it, otherwise from the
/// store, in whole minutes, or hours where it is a day or more.
fn recorded(
    state: &State,
    selection: &Selection,
    width: Nanos,
    now: UnixNanos,
) -> Result<Counts, String> {
    let mut counts = Counts::new();
    let span = Span::last(width, now);
    {
        let windows = state.windows.read();
        if span.from >= windows.held_from(now) {
            windows.sum(selection, span, &mut counts);
            return Ok(counts);
        }
    }
    let history = state.history().ok_or("memory does not hold as much, and no store is open")?;
    let view = history.view().map_err(|error| error.to_string())?;
    let step = Nanos::from_secs(if width < DAY { 60 } else { 3_600 });
    let span = Span { from: UnixNanos(span.from.0 / step.0 * step.0), to: span.to };
    let resolution = view.resolution(span, Some(step));
    let whole = span.to.since(span.from);
    view.steps(selection, span, resolution, whole, |_, sum| counts.merge(sum))
        .map_err(|error| error.to_string())?;
    Ok(counts)
}

/// One condition a slice that was ever heard of: whether it is silent.
fn silent(snapshot: &Snapshot, series: &BTreeMap<SeriesKey, SeriesState>) -> Vec<Condition> {
    let condition = |slice: &Slice| {
        let own = || snapshot.rows.iter().filter(|row| row.slice == *slice);
        let state = if snapshot.health.stale.contains(slice) {
            Reading::Violated
        } else if own().any(|row| row.verdict == Verdict::Ok || row.verdict == Verdict::Violation) {
            Reading::Clear
        } else {
            Reading::Unknown
        };
        let stale: Vec<Value> = own()
            .filter(|row| row.verdict == Verdict::Stale)
            .map(|row| json!({"stage": row.stage, "arm": row.arm, "age_s": row.age_s}))
            .collect();
        let hosts: Vec<Arc<Host>> = series
            .iter()
            .filter(|(key, _)| key.slice == *slice)
            .flat_map(|(_, series)| series.hosts.iter().cloned())
            .collect();
        Condition {
            key: Key { rule: Rule::Silent, subject: Subject::slice(slice) },
            state,
            severity: Severity::Warning,
            summary: format!("{} series of the slice are silent", stale.len()),
            evidence: json!({"stale": stale}),
            since: None,
            agents: agents(&hosts),
            actions: cause::advice(Rule::Silent, ""),
        }
    };
    let mut slices: Vec<&Slice> = snapshot.rows.iter().map(|row| &row.slice).collect();
    slices.dedup();
    slices.into_iter().map(condition).collect()
}

#[allow(clippy::cast_precision_loss)]
fn errors(requests: &Requests, limits: &Limits) -> Condition {
    let total = requests.ok.saturating_add(requests.error);
    let percent = (total > 0).then(|| 100.0 * requests.error as f64 / total as f64);
    let canary = requests.arm == lens_model::Arm::Canary;
    let watched =
        if canary { CANARY_ERROR_PERCENT.min(limits.error_percent) } else { limits.error_percent };
    let state = match percent {
        None => Reading::Unknown,
        Some(percent) if percent <= watched => Reading::Clear,
        Some(_) if requests.error < ERRORS_MIN => Reading::Unknown,
        Some(_) => Reading::Violated,
    };
    let over = percent.is_some_and(|percent| percent > limits.error_percent);
    let subject = Subject {
        slice: Some(requests.slice.clone()),
        stage: None,
        arm: Some(requests.arm),
        name: None,
    };
    let shown =
        percent.map_or("no requests".into(), |percent| format!("{percent:.2} % of requests fail"));
    Condition {
        key: Key { rule: Rule::ErrorRate, subject },
        state,
        severity: if over { Severity::Critical } else { Severity::Warning },
        summary: format!("{shown}, limit {watched} %"),
        evidence: json!({"ok": requests.ok, "error": requests.error, "error_percent": percent,
            "limit_percent": watched}),
        since: None,
        agents: Vec::new(),
        actions: cause::advice(Rule::ErrorRate, ""),
    }
}

fn of_agent(agent: &Agent, limits: &Limits) -> Vec<Condition> {
    let condition = |rule, state, severity, summary, evidence| Condition {
        key: Key { rule, subject: Subject::named(&agent.name) },
        state,
        severity,
        summary,
        evidence,
        since: None,
        agents: vec![agent.name.clone()],
        actions: cause::advice(rule, &agent.name),
    };
    let lost = match agent.connected {
        true => Reading::Clear,
        false if agent.age_s > FORGOTTEN.as_secs_f64() => Reading::Unknown,
        false => Reading::Violated,
    };
    let evidence = json!({"last_frame_age_s": agent.age_s, "address": agent.address,
        "instances": agent.instances});
    let gone = format!("not connected; its last frame came {:.0} s ago", agent.age_s);
    let mut conditions = vec![condition(Rule::AgentLost, lost, Severity::Error, gone, evidence)];
    conditions[0].agents.clear();
    let over = |seconds: f64, limit: Nanos| match agent.connected {
        true if seconds > limit.as_secs_f64() => Reading::Violated,
        true => Reading::Clear,
        false => Reading::Unknown,
    };
    let lag_s = agent.lag_ms / 1e3;
    conditions.push(condition(
        Rule::AgentLagging,
        over(lag_s, limits.lag),
        Severity::Warning,
        format!("its deltas arrive {lag_s:.1} s late, limit {}", cause::secs(limits.lag)),
        json!({"lag_s": lag_s, "clock_offset_ms": agent.clock_offset_ms}),
    ));
    if let Some(age) = agent.spool_age_s {
        conditions.push(condition(
            Rule::SpoolAge,
            over(age, limits.spool_age),
            Severity::Warning,
            format!(
                "its oldest frame waits for {age:.0} s, limit {}",
                cause::secs(limits.spool_age)
            ),
            json!({"spool_age_s": age}),
        ));
    }
    conditions
}

/// Whether what agents send is kept.
fn of_store(state: &State) -> Condition {
    let fault = state.faulted();
    let reading = if fault.is_some() { Reading::Violated } else { Reading::Clear };
    let summary = fault.unwrap_or_else(|| "what agents send is kept".into());
    Condition {
        key: Key { rule: Rule::Store, subject: Subject::named("windows") },
        state: reading,
        severity: Severity::Critical,
        evidence: json!({"why": summary}),
        summary,
        since: None,
        agents: Vec::new(),
        actions: cause::advice(Rule::Store, "windows"),
    }
}

/// What alerting sees of itself.
pub(super) fn of_desk(desk: &Desk) -> Vec<Condition> {
    let mut conditions = Vec::new();
    let mut push = |rule, name: &str, state, summary: String, evidence, since| {
        conditions.push(Condition {
            key: Key { rule, subject: Subject::named(name) },
            state,
            severity: Severity::Error,
            summary,
            evidence,
            since,
            agents: Vec::new(),
            actions: cause::advice(rule, name),
        });
    };
    if desk.durable() {
        let trouble = desk.trouble();
        let since = trouble.as_ref().map(|(since, _)| *since);
        let state = if since.is_some() { Reading::Violated } else { Reading::Clear };
        let why = trouble.map_or_else(|| "alerts are kept".into(), |(_, why)| why);
        push(Rule::Store, "alerts", state, why.clone(), json!({"why": why}), since);
    }
    for (name, health) in desk.healths() {
        let state = match (health.failing_since, health.said.is_some()) {
            (None, true) => Reading::Clear,
            (None, false) => Reading::Unknown,
            (Some(_), _) if health.failures >= FAILURES_MIN || health.refused => Reading::Violated,
            (Some(_), _) => Reading::Unknown,
        };
        let said = health.said.clone().unwrap_or_default();
        let evidence = json!({"failures": health.failures, "dead": health.dead, "said": said});
        let summary = format!("takes no notifications: {said}");
        push(Rule::Sink, &name, state, summary, evidence, health.failing_since);
    }
    conditions
}
