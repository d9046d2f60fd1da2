//! The state of everything at one instant, as tables, tiles, gauges and the event stream show it.
//!
//! One row a series, over the summary window that ends now. The page, `/health`, `/metrics` and
//! the API all read this one structure, so that no two of them can disagree.
//! Promise: pure given the state and the instant. The windows are locked once for the list of
//! series and once for each of them, microseconds each, so a reader of many never starves ingest.

mod agent;
mod incomplete;
mod regression;
mod row;

use std::sync::atomic::Ordering;

use lens_hist::Counts;
use lens_model::{Arm, Slice, UnixNanos};
use serde::Serialize;
use utoipa::ToSchema;

use crate::guards::GuardState;
use crate::judge::{self, Health};
use crate::state::State;
use crate::window::{RequestCounts, Span};

pub use agent::Agent;
pub use incomplete::{Gap, Incomplete, incomplete};
pub use regression::{E2eRegression, regressions};
pub use row::{Row, Value};

/// Request outcomes of one slice and arm.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Requests {
    /// The slice.
    #[schema(value_type = String, example = "backend/rust/large")]
    pub slice: Slice,
    /// The arm.
    #[schema(value_type = String, example = "canary")]
    pub arm: Arm,
    /// Answered within the window.
    pub ok: u64,
    /// Failed within the window.
    pub error: u64,
    /// Answered, ever.
    pub ok_total: u64,
    /// Failed, ever.
    pub error_total: u64,
}

/// Sums over everything.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Totals {
    /// Samples ever merged.
    pub samples: u64,
    /// Samples in the window.
    pub samples_window: u64,
    /// Samples a second, all series together; `null` while no series has a rate.
    pub rate_per_s: Option<f64>,
    /// Series held.
    pub series: usize,
    /// Slices known or seen.
    pub slices: usize,
    /// Requests answered within the window.
    pub requests_ok: u64,
    /// Requests failed within the window.
    pub requests_error: u64,
    /// Agents ever seen.
    pub agents: usize,
    /// Agents connected now.
    pub agents_connected: usize,
    /// Frames received.
    pub frames: u64,
    /// Deltas merged.
    pub deltas: u64,
    /// Largest lag of a connected agent, milliseconds; `null` with none connected.
    pub lag_ms: Option<f64>,
}

/// Everything at one instant.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Snapshot {
    /// The instant.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub t: UnixNanos,
    /// How long the aggregator runs, seconds.
    pub uptime_s: f64,
    /// Width of the summary window, seconds.
    #[schema(example = 300.0)]
    pub window_s: f64,
    /// The health of it all.
    pub health: Health,
    /// Slices known or seen, in order.
    #[schema(value_type = Vec<String>)]
    pub slices: Vec<Slice>,
    /// One row a series, in order of slice, stage and arm.
    pub rows: Vec<Row>,
    /// The whole query of each slice's canary against its baseline's, in order of slice.
    pub regressions: Vec<E2eRegression>,
    /// Request outcomes by slice and arm.
    pub requests: Vec<Requests>,
    /// Sums over everything.
    pub totals: Totals,
    /// The agents, by name.
    pub agents: Vec<Agent>,
    /// Alerts that are open, and whom they are told to.
    pub alerts: crate::alerts::show::Summary,
    /// What watches search itself and how it stands; empty where nothing is configured.
    pub guards: Vec<GuardState>,
    /// Stretches within the summary window that an agent did not account for.
    pub incomplete: Vec<Incomplete>,
}

impl Snapshot {
    /// The state as of `now`.
    pub fn take(state: &State, now: UnixNanos) -> Self {
        let rules = &state.rules;
        let window = Span::last(rules.summary_window, now);
        let series = state.windows.read().series();
        let mut counts = Counts::new();
        let rows: Vec<Row> =
            series.iter().map(|(key, held)| Row::new(state, key, held, now, &mut counts)).collect();
        let requests = requests(state, window);
        let agents: Vec<Agent> = {
            let agents = state.agents.read();
            agents.iter().map(|(name, agent)| Agent::new(name.as_str(), agent, now)).collect()
        };
        let mut slices = rules.slices_known.clone();
        slices.extend(rows.iter().map(|row| row.slice.clone()));
        slices.extend(requests.iter().map(|requests| requests.slice.clone()));
        slices.sort_unstable();
        slices.dedup();
        let incomplete = incomplete(state, window, now);
        let regressions = regressions(&state.judge.read());
        let health = judge::health(&slices, &rows, &regressions);
        let totals = totals(state, &slices, &rows, &requests, &agents);
        Self {
            t: now,
            uptime_s: now.since(state.started).as_secs_f64(),
            window_s: rules.summary_window.as_secs_f64(),
            health: Health { incomplete: incomplete.clone(), ..health },
            slices,
            rows,
            regressions,
            requests,
            totals,
            agents,
            alerts: state.alerts.summary(now),
            guards: state.guards.states(),
            incomplete,
        }
    }
}

fn requests(state: &State, window: Span) -> Vec<Requests> {
    let windows = state.windows.read();
    let row = |((slice, arm), total): ((Slice, Arm), RequestCounts)| {
        let RequestCounts { ok, error } = windows.requests(&slice, arm, window);
        Requests { slice, arm, ok, error, ok_total: total.ok, error_total: total.error }
    };
    windows.requests_total().into_iter().map(row).collect()
}

fn totals(
    state: &State,
    slices: &[Slice],
    rows: &[Row],
    requests: &[Requests],
    agents: &[Agent],
) -> Totals {
    let connected = || agents.iter().filter(|agent| agent.connected);
    let rated = rows.iter().any(|row| row.rate_per_s.is_some());
    Totals {
        samples: rows.iter().map(|row| row.merged_total).sum(),
        samples_window: rows.iter().map(|row| row.count).sum(),
        rate_per_s: rated.then(|| rows.iter().filter_map(|row| row.rate_per_s).sum()),
        series: rows.len(),
        slices: slices.len(),
        requests_ok: requests.iter().map(|requests| requests.ok).sum(),
        requests_error: requests.iter().map(|requests| requests.error).sum(),
        agents: agents.len(),
        agents_connected: connected().count(),
        frames: state.counters.frames_total.load(Ordering::Relaxed),
        deltas: state.counters.deltas_accepted_total.load(Ordering::Relaxed),
        lag_ms: connected().map(|agent| agent.lag_ms).max_by(f64::total_cmp),
    }
}

pub(crate) fn rfc3339<S: serde::Serializer>(at: &UnixNanos, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&lens_service::time::rfc3339(*at))
}

#[allow(clippy::ref_option)] // What a serialiser is handed.
pub(crate) fn some_rfc3339<S: serde::Serializer>(
    at: &Option<UnixNanos>,
    to: S,
) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => rfc3339(at, to),
        None => to.serialize_none(),
    }
}
