//! `/api/v1/alerts`: what is open, what was, who was told, and what people do about it.
//!
//! A body may be absent, and no header is asked for: what is done in an emergency must not fail on
//! a form.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, Path, State};
use lens_model::{Nanos, UnixNanos};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::params::Params;
use super::sign_in::body;
use super::{Api, Problem};
use crate::alerts::lifecycle::{ActError, Action};
use crate::alerts::{self, show};
use crate::auth::{Principal, Verb};
use crate::snapshot::rfc3339;
use crate::state;

/// Deliveries shown.
const DELIVERIES_MAX: usize = 200;

/// Length of a silence or maintenance that names none, minutes.
const MINUTES_DEFAULT: u64 = 60;

/// Who acts when nobody says who.
const NOBODY: &str = "operator";

/// Alerts, deliveries, sinks, maintenance.
#[derive(Serialize, ToSchema)]
pub(super) struct AlertsAnswer {
    /// The instant it is as of.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    t: UnixNanos,
    /// Whether alerts and deliveries survive a restart.
    durable: bool,
    /// Alerts that are open, or resolved so lately that they may come back; the newest first.
    alerts: Vec<show::Alert>,
    /// Alerts that are history, the newest first.
    past: Vec<show::Alert>,
    /// Deliveries, the newest first.
    deliveries: Vec<show::Delivery>,
    /// The sinks.
    sinks: Vec<show::Sink>,
    /// Maintenance that has not ended.
    maintenance: Vec<Window>,
}

/// A maintenance window.
#[derive(Serialize, ToSchema)]
pub(super) struct Window {
    /// Its id.
    #[schema(example = "5f1c2a9b8d3e4706")]
    id: String,
    /// From when.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    from: UnixNanos,
    /// Until when.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    to: UnixNanos,
    /// The beginning of the keys or slices it covers; everything when empty.
    #[schema(example = "backend/rust")]
    covers: String,
    /// Who announced it.
    by: String,
    /// Why.
    #[schema(example = "reindexing")]
    reason: String,
}

impl From<alerts::Maintenance> for Window {
    fn from(window: alerts::Maintenance) -> Self {
        let alerts::Maintenance { id, from, to, covers, by, reason } = window;
        Self { id, from, to, covers, by, reason }
    }
}

/// Who acts, and why.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Act {
    /// Who, where everyone may act; `operator` when absent. A known caller acts under its own name.
    #[schema(example = "ann")]
    by: Option<String>,
    /// Why.
    #[schema(example = "looking at node-7")]
    note: Option<String>,
    /// Silence only: for how long, minutes; 60 when absent.
    #[schema(example = 60)]
    minutes: Option<u64>,
}

/// Which sink to test.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Test {
    /// Its name; may be absent when there is only one.
    #[schema(example = "pager")]
    sink: Option<String>,
}

/// Maintenance to announce.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Announce {
    /// From when, RFC 3339; now when absent.
    #[schema(example = "2026-11-21T22:00:00Z")]
    from: Option<String>,
    /// For how long, minutes; 60 when absent.
    #[schema(example = 90)]
    minutes: Option<u64>,
    /// The beginning of the keys or slices it covers; everything when absent.
    #[schema(example = "backend/rust")]
    covers: Option<String>,
    /// Who announces it; `operator` when absent.
    by: Option<String>,
    /// Why.
    reason: Option<String>,
}

impl Api {
    /// Who acts, for those who read it later: who they are known as, or where everyone may, who
    /// they say they are. What is done is recorded first, where there is a record.
    pub(super) async fn actor(
        &self,
        principal: &Principal,
        verb: Verb,
        target: &str,
        bytes: &[u8],
        said: Option<String>,
    ) -> Result<String, Problem> {
        if self.state.security.audit.is_on() {
            // Without a receipt the act does not follow.
            let _receipt = self.record(principal, verb, target, bytes).await?;
        }
        let open = self.state.security.gate.is_open();
        Ok(if open { said.unwrap_or_else(|| NOBODY.into()) } else { principal.name.clone() })
    }
}

fn minutes(given: Option<u64>) -> Nanos {
    Nanos::from_secs(given.unwrap_or(MINUTES_DEFAULT).saturating_mul(60))
}

/// Alerts
///
/// Open and past alerts, deliveries with attempts and what came back, sinks, maintenance.
/// `state` shows alerts in that state only.
#[utoipa::path(get, path = "/api/v1/alerts", tag = "alerts",
    params(("state" = Option<String>, Query, example = "firing",
        description = "`pending`, `firing`, `acknowledged`, `silenced` or `resolved`")),
    responses(
        (status = 200, description = "The alerts", body = AlertsAnswer),
        (status = 400, description = "A parameter is unknown or cannot be used", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn alerts(
    State(api): State<Api>,
    params: Params,
) -> Result<Json<AlertsAnswer>, Problem> {
    const STATES: [&str; 5] = ["pending", "firing", "acknowledged", "silenced", "resolved"];
    params.only(&["state"])?;
    let wanted = params.one("state")?.map(str::to_owned);
    if let Some(wanted) = wanted.as_deref().filter(|wanted| !STATES.contains(wanted)) {
        let wanted: String = wanted.chars().take(80).collect();
        let detail = format!("{wanted:?} is no state: use {}", STATES.join(", "));
        return Err(Problem::bad_parameter("state", detail));
    }
    api.work(move |state, _| Json(answer(state, wanted.as_deref()))).await
}

fn answer(state: &state::State, wanted: Option<&str>) -> AlertsAnswer {
    let (desk, now) = (&state.alerts, state.now());
    let shown = |alerts: Vec<alerts::Alert>| {
        let shown = alerts.iter().map(|alert| show::Alert::new(alert, now));
        shown.filter(|alert| wanted.is_none_or(|wanted| wanted == alert.state)).collect()
    };
    AlertsAnswer {
        t: now,
        durable: desk.durable(),
        alerts: shown(desk.open_alerts()),
        past: shown(desk.past_alerts()),
        deliveries: desk.deliveries(DELIVERIES_MAX),
        sinks: desk.summary(now).sinks,
        maintenance: desk.maintenance(now).into_iter().map(Window::from).collect(),
    }
}

async fn act(
    api: &Api,
    principal: &Principal,
    id: String,
    bytes: &Bytes,
    action: impl FnOnce(&Act) -> Action,
) -> Result<Json<show::Alert>, Problem> {
    let said: Act = body(bytes)?;
    let action = action(&said);
    let verb = match action {
        Action::Acknowledge => Verb::AlertAcknowledge,
        Action::Silence(_) | Action::Resolve => Verb::AlertSilence,
    };
    let by = api.actor(principal, verb, &id, bytes, said.by).await?;
    let note = said.note;
    let work = move |state: &state::State, _: &super::live::Live| {
        let now = state.now();
        let (alert, transition) =
            state.alerts.act(&id, &action, &by, note.as_deref(), now).map_err(refused)?;
        match transition {
            Some(transition) => alerts::tell(state, &transition),
            None => state.tell("alert", alert.key.to_string(), format!("{action:?} by {by}")),
        }
        Ok(Json(show::Alert::new(&alert, now)))
    };
    api.work(work).await?
}

fn refused(error: ActError) -> Problem {
    let detail = error.to_string();
    match error {
        ActError::Unknown(_) => Problem::no_such("alert", detail),
        ActError::Resolved(_) | ActError::Violated(_) => Problem::conflict(detail),
        _ => Problem::bad_body(detail),
    }
}

/// Take an alert on
///
/// The escalation chain stops climbing, and those who were told that it fires are told who has it.
/// Doing it again changes nothing.
#[utoipa::path(post, path = "/api/v1/alerts/{id}/ack", tag = "alerts",
    params(("id" = String, Path, description = "The alert's id", example = "9f3c1a5b7d2e4f60")),
    request_body(content = Option<Act>, description = "Who and why; may be absent"),
    responses(
        (status = 200, description = "The alert as it now stands", body = show::Alert),
        (status = 400, description = "The body cannot be used", body = Problem,
            content_type = "application/problem+json"),
        (status = 404, description = "No such alert", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "The alert is over", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn ack(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
    bytes: Bytes,
) -> Result<Json<show::Alert>, Problem> {
    act(&api, &principal, id, &bytes, |_| Action::Acknowledge).await
}

/// Keep an alert quiet
///
/// Nobody is told of it until the silence ends, except that it is over. What still fires then is
/// told then. A further silence replaces the one before.
#[utoipa::path(post, path = "/api/v1/alerts/{id}/silence", tag = "alerts",
    params(("id" = String, Path, description = "The alert's id", example = "9f3c1a5b7d2e4f60")),
    request_body(content = Option<Act>, description = "Who, why and for how long; may be absent"),
    responses(
        (status = 200, description = "The alert as it now stands", body = show::Alert),
        (status = 400, description = "The body cannot be used", body = Problem,
            content_type = "application/problem+json"),
        (status = 404, description = "No such alert", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "The alert is over", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn silence(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
    bytes: Bytes,
) -> Result<Json<show::Alert>, Problem> {
    act(&api, &principal, id, &bytes, |said| Action::Silence(minutes(said.minutes))).await
}

/// Declare an alert over
///
/// For what nothing will be heard of again, such as a retired slice. Refused while the rule reads
/// violated.
#[utoipa::path(post, path = "/api/v1/alerts/{id}/resolve", tag = "alerts",
    params(("id" = String, Path, description = "The alert's id", example = "9f3c1a5b7d2e4f60")),
    request_body(content = Option<Act>, description = "Who and why; may be absent"),
    responses(
        (status = 200, description = "The alert as it now stands", body = show::Alert),
        (status = 400, description = "The body cannot be used", body = Problem,
            content_type = "application/problem+json"),
        (status = 404, description = "No such alert", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "The rule still reads violated, or it is over", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn resolve(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
    bytes: Bytes,
) -> Result<Json<show::Alert>, Problem> {
    act(&api, &principal, id, &bytes, |_| Action::Resolve).await
}

/// Test a sink
///
/// Sends a notice that says it is a test, and gives what came back. Where it would stay open it is
/// resolved at once.
#[utoipa::path(post, path = "/api/v1/alerts/test", tag = "alerts",
    request_body(content = Option<Test>, description = "Which sink; may be absent with only one"),
    responses(
        (status = 200, description = "What came back", body = alerts::Tested),
        (status = 400, description = "The body cannot be used", body = Problem,
            content_type = "application/problem+json"),
        (status = 404, description = "No such sink", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn test(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
    bytes: Bytes,
) -> Result<Json<alerts::Tested>, Problem> {
    let said: Test = body(&bytes)?;
    let names: Vec<&str> =
        api.state.alerts.config.sinks.iter().map(|sink| sink.name.as_str()).collect();
    let name = match (said.sink, &names[..]) {
        (Some(name), _) => name,
        (None, [only]) => (*only).to_owned(),
        (None, _) => {
            let detail = format!("name one sink of {names:?}, as {{\"sink\":\"…\"}}");
            return Err(Problem::bad_body(detail));
        }
    };
    let shown: String = name.chars().take(80).collect();
    api.actor(&principal, Verb::AlertAcknowledge, &shown, &bytes, None).await?;
    let missing = || Problem::no_such("sink", format!("no sink {shown:?}; there are {names:?}"));
    alerts::test(&api.state, &name).await.map(Json).ok_or_else(missing)
}

/// Announce maintenance
///
/// While it lasts nobody is told of what it covers. What still fires when it ends is told then.
#[utoipa::path(post, path = "/api/v1/alerts/maintenance", tag = "alerts",
    request_body(content = Option<Announce>, description = "When, what and why; may be absent"),
    responses(
        (status = 200, description = "The window", body = Window),
        (status = 400, description = "The body cannot be used", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "As many windows as there may be", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn announce(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
    bytes: Bytes,
) -> Result<Json<Window>, Problem> {
    let said: Announce = body(&bytes)?;
    let now = api.state.now();
    let from = match &said.from {
        None => now,
        Some(text) => lens_service::time::parse_rfc3339(text).ok_or_else(|| {
            let text: String = text.chars().take(80).collect();
            Problem::bad_body(format!("from is {text:?}: use RFC 3339"))
        })?,
    };
    let by = api.actor(&principal, Verb::AlertSilence, "maintenance", &bytes, said.by).await?;
    let window = alerts::Maintenance {
        id: String::new(),
        from,
        to: from.plus(minutes(said.minutes)),
        covers: said.covers.unwrap_or_default(),
        by,
        reason: said.reason.unwrap_or_default(),
    };
    let work = move |state: &state::State, _: &super::live::Live| {
        state.alerts.announce(window, state.now())
    };
    api.work(work).await?.map(|window| Json(window.into())).map_err(|error| match error {
        alerts::desk::AnnounceError::Full => Problem::conflict(error.to_string()),
        _ => Problem::bad_body(error.to_string()),
    })
}

/// End maintenance
///
/// Ends a window announced here; configured ones end by themselves.
#[utoipa::path(delete, path = "/api/v1/alerts/maintenance/{id}", tag = "alerts",
    params(("id" = String, Path, description = "The window's id", example = "5f1c2a9b8d3e4706")),
    responses(
        (status = 204, description = "It has ended"),
        (status = 404, description = "No such window", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn end_maintenance(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
) -> Result<axum::http::StatusCode, Problem> {
    let shown: String = id.chars().take(80).collect();
    api.actor(&principal, Verb::AlertSilence, &shown, &[], None).await?;
    let ended = api.work(move |state, _| state.alerts.end_maintenance(&id, state.now())).await?;
    let missing = || Problem::no_such("maintenance", format!("no announced window {shown:?}"));
    ended.then_some(axum::http::StatusCode::NO_CONTENT).ok_or_else(missing)
}
