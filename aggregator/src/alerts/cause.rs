//! What the measurements say of a cause: one host slower than the others, one arm, one stage.
//!
//! Promise: pure given the windows. Nothing is named that was not measured; where nothing stands
//! out, the actions say where to look, and do not guess.

use std::sync::Arc;

use lens_hist::{Counts, Quantile};
use lens_model::{Arm, Nanos, SeriesKey, Stage};

use super::condition::Rule;
use crate::judge::Verdict;
use crate::snapshot::{Row, Snapshot};
use crate::window::{Host, Selection, Span, Windows};

/// How many times the others' p95 a host's must be to stand out.
const STANDS_OUT: f64 = 1.5;

/// Hosts compared at most.
const HOSTS_MAX: usize = 64;

/// What to do about a slow series, the measured cause first where there is one.
pub(super) fn actions(
    rule: Rule,
    row: &Row,
    hosts: &[Arc<Host>],
    windows: &Windows,
    span: Span,
    snapshot: &Snapshot,
) -> Vec<String> {
    let key = row.key();
    let mut actions: Vec<String> =
        [slow_host(&key, hosts, windows, span), slow_arm(row, snapshot), slow_stage(row, snapshot)]
            .into_iter()
            .flatten()
            .collect();
    let ask = format!("slice={}&stage={}&arm={}", row.slice, row.stage, row.arm);
    actions.push(match rule {
        Rule::Tail => format!(
            "Compare p50, p95 and p99 over time, GET /api/v1/quantiles?{ask}: a p95 that stands \
             still means outliers, one that rises means load or a change"
        ),
        _ => format!(
            "See since when it is slow, GET /api/v1/quantiles?{ask}&from=-1h&step=1m, and what \
             was deployed then"
        ),
    });
    actions
}

/// The host whose p95 stands out from that of the others together.
fn slow_host(
    key: &SeriesKey,
    hosts: &[Arc<Host>],
    windows: &Windows,
    span: Span,
) -> Option<String> {
    if !(2..=HOSTS_MAX).contains(&hosts.len()) {
        return None;
    }
    let all: Vec<(&Host, Counts)> = hosts
        .iter()
        .map(|host| {
            let selection = Selection { host: Some(Host::clone(host)), ..Selection::series(key) };
            let mut counts = Counts::new();
            windows.sum(&selection, span, &mut counts);
            (&**host, counts)
        })
        .collect();
    let p95 = |counts: &Counts| counts.quantile(Quantile::P95).value;
    let (at, worst) = all
        .iter()
        .enumerate()
        .filter_map(|(at, (_, counts))| Some((at, p95(counts)?)))
        .max_by_key(|(_, value)| *value)?;
    let mut others = Counts::new();
    all.iter().enumerate().filter(|(n, _)| *n != at).for_each(|(_, (_, c))| others.merge(c));
    let others = p95(&others)?;
    let host = all[at].0;
    (worst.0 as f64 >= STANDS_OUT * others.0 as f64).then(|| {
        let (worst, others) = (worst.as_millis_f64(), others.as_millis_f64());
        let name = format!("{} (agent {})", host.instance, host.agent);
        format!(
            "One host is slow, {name}: p95 {worst:.2} ms, {others:.2} ms elsewhere. Take it out of \
             rotation, then look at its load and neighbours"
        )
    })
}

/// Whether the other arm of the same slice and stage keeps the rule.
fn slow_arm(row: &Row, snapshot: &Snapshot) -> Option<String> {
    let other = snapshot.rows.iter().find(|other| {
        other.slice == row.slice && other.stage == row.stage && other.arm != row.arm
    })?;
    let fine = other.verdict == Verdict::Ok && other.slo_ok != Some(false);
    (row.arm == Arm::Canary && fine).then(|| {
        "Only the canary is slow, the baseline keeps the rule: hold or abort the rollout".into()
    })
}

/// The stage of the same slice and arm that takes most of a slow query.
fn slow_stage(row: &Row, snapshot: &Snapshot) -> Option<String> {
    if row.stage != Stage::E2e {
        return None;
    }
    let stages = snapshot.rows.iter().filter(|other| {
        other.slice == row.slice && other.arm == row.arm && other.stage != Stage::E2e
    });
    let (stage, p99) = stages
        .filter_map(|other| Some((other.stage, other.p99.value_ms?)))
        .max_by(|a, b| a.1.total_cmp(&b.1))?;
    Some(format!("{stage} takes most of it: its p99 is {p99:.2} ms"))
}

/// What to do about something that is no series.
pub(crate) fn advice(rule: Rule, name: &str) -> Vec<String> {
    let texts: &[&str] = match rule {
        Rule::ErrorRate => &[
            "See which search nodes fail in their own logs; failed requests are counted by slice and arm at /api/v1/slices",
            "If only the canary fails, abort the rollout",
        ],
        Rule::Silent => &[
            "Check that search nodes of this slice run and take queries",
            "If the slice was retired, resolve the alert: lens alerts resolve ID",
        ],
        Rule::AgentLost => &[
            "On its host: is lens-agent running, and what does its /status say of the connection?",
            "What its nodes recorded meanwhile waits in segments and spool; nothing is lost",
        ],
        Rule::AgentLagging | Rule::SpoolAge => &[
            "Compare its clock offset and its spool in /api/v1/agents and the agent's /status",
            "A lag of all agents at once is the aggregator's or the network's",
        ],
        Rule::Store => &[
            "Free space or repair the disk; GET /readyz and the aggregator's log name the file",
            "store/windows: agents keep what they have until it is taken; store/alerts: a restart may repeat notifications",
        ],
        Rule::Canary => &[
            "See what it rests on: lens canary status, lens canary decisions",
            "rolled_back: users are on the baseline again; held: fix what stands in the way, or abort; killed: two people release it",
        ],
        Rule::Guard => &[
            "See the numbers behind it: GET /api/v1/guards",
            "probe: put its query to the node by hand; cusum: see what changed when the gauge did; switch: what it did stands in the audit record",
        ],
        Rule::Sink => &["See what came back under deliveries of GET /api/v1/alerts"],
        _ => &[],
    };
    let mut actions: Vec<String> = texts.iter().map(|text| (*text).into()).collect();
    if rule == Rule::Sink {
        actions.push(format!("After a change try it: lens alerts test {name}"));
    }
    actions
}

/// A duration in whole seconds, for sentences.
pub(super) fn secs(nanos: Nanos) -> String {
    format!("{:.0} s", nanos.as_secs_f64())
}
