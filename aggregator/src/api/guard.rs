//! Stands in front of every route: who asks, whether they may, and whether it came from elsewhere.
//!
//! A route without a verb answers nobody. A token in an address is refused whatever it is worth:
//! addresses end up in logs, histories and referrers. What a cookie asks to be changed must come
//! from this very origin. Attempts to change something that are refused are in the audit record.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, MatchedPath, Request, State as Extract};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use lens_service::tls::Operator;

use super::problem::Problem;
use crate::audit::{Decision, Entry};
use crate::auth::gate::{Brought, Principal, Stranger};
use crate::auth::session::COOKIE;
use crate::auth::verb::{Verb, Who};
use crate::state::State;

/// Names of query parameters under which people put tokens.
const TOKEN_PARAMETERS: [&str; 6] =
    ["access_token", "api_key", "apikey", "authorization", "bearer", "token"];

/// Where a browser without a session is sent.
pub(super) const SIGN_IN: &str = "/auth/sign-in";

pub(super) async fn guard(
    Extract(state): Extract<Arc<State>>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    match admit(&state, &parts).await {
        Ok(principal) => {
            parts.extensions.insert(principal);
            next.run(Request::from_parts(parts, body)).await
        }
        Err(refusal) => refusal,
    }
}

async fn admit(state: &State, request: &Parts) -> Result<Principal, Response> {
    let path = request.uri.path();
    let route = request.extensions.get::<MatchedPath>().map_or(path, MatchedPath::as_str);
    let shaped = |problem: Problem| shape(route, problem);
    if holds_token(request.uri.query().unwrap_or_default()) {
        return Err(shaped(Problem::token_in_address()).into_response());
    }
    let Some(verb) = Verb::of(&request.method, route) else {
        let detail = format!("{} {route} has no verb: nobody may ask it", request.method);
        return Err(shaped(Problem::forbidden(detail)).into_response());
    };
    let headers = &request.headers;
    let cookie = cookie(headers);
    let brought = Brought {
        from: request.extensions.get::<ConnectInfo<SocketAddr>>().map(|from| from.0.ip()),
        bearer: bearer(headers),
        cookie,
        operator: request.extensions.get::<Operator>(),
    };
    if request.method != Method::GET && request.method != Method::HEAD {
        let by_cookie = brought.bearer.is_none() && cookie.is_some();
        if !same_origin(headers, by_cookie) {
            let detail = "the request comes from another site than this one".to_owned();
            return Err(shaped(Problem::forbidden(detail)).into_response());
        }
    }
    let who = known(state, brought);
    if verb.who() == Who::Anyone {
        let nobody = Principal { name: String::new(), credential: String::new(), roles: vec![] };
        return Ok(who.unwrap_or(nobody));
    }
    let refused = match who {
        Ok(principal) if verb.allows(&principal.roles) => return Ok(principal),
        Ok(principal) => {
            let has = principal.role_names();
            let detail = format!(
                "{} needs the role {}; this {} has {}",
                verb.as_str(),
                verb.needs(),
                principal.credential.split(':').next().unwrap_or_default(),
                if has.is_empty() { "none" } else { &has }
            );
            attempted(state, verb, path, Some(&principal)).await;
            Problem::forbidden(detail).into_response_as(shaped)
        }
        Err(stranger) => {
            attempted(state, verb, path, None).await;
            stranger_answer(verb, &stranger, request, shaped)
        }
    };
    Err(refused)
}

/// Who asks, unless they are kept out.
fn known(state: &State, brought: Brought<'_>) -> Result<Principal, Stranger> {
    let principal = state.security.gate.who(brought, state.now())?;
    let revoked = state.security.revocations.now();
    let out = brought.operator.is_some_and(|op| revoked.operator(&op.id.name, &op.serial));
    if out { Err(Stranger::Over("the certificate was revoked")) } else { Ok(principal) }
}

fn stranger_answer(
    verb: Verb,
    stranger: &Stranger,
    request: &Parts,
    shaped: impl Fn(Problem) -> Problem,
) -> Response {
    if verb == Verb::PageRead && wants_page(&request.headers) {
        return Redirect::to(SIGN_IN).into_response();
    }
    let detail = format!("{stranger}; {} needs the role {}", verb.as_str(), verb.needs());
    if let Stranger::Locked(wait) = stranger {
        let mut response = shaped(Problem::too_many(detail)).into_response();
        let wait = HeaderValue::from(wait.as_secs().max(1));
        response.headers_mut().insert(header::RETRY_AFTER, wait);
        return response;
    }
    let mut response = shaped(Problem::unauthorized(detail)).into_response();
    let challenge = HeaderValue::from_static("Bearer realm=\"lens\"");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}

async fn attempted(state: &State, verb: Verb, path: &str, principal: Option<&Principal>) {
    if !verb.changes() && verb != Verb::AuditRead {
        return;
    }
    let entry = Entry {
        principal: principal.map_or("unknown".into(), |principal| principal.name.clone()),
        credential: principal.map_or(String::new(), |principal| principal.credential.clone()),
        role: principal.map_or(String::new(), Principal::role_names),
        verb: verb.as_str().into(),
        target: path.into(),
        arguments: Vec::new(),
        decision: Decision::Refused,
    };
    state.security.audit.attempt(entry).await;
}

/// The origin's endpoints answer with `success`, `error` and `message` beside.
fn shape(route: &str, problem: Problem) -> Problem {
    let theirs = ["/canary/", "/compat/", "/flags", "/monitoring/", "/validation/"];
    if theirs.iter().any(|lead| route.starts_with(lead)) { problem.with_success() } else { problem }
}

fn holds_token(query: &str) -> bool {
    query.split('&').any(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = name.to_ascii_lowercase();
        TOKEN_PARAMETERS.contains(&name.as_str())
            || value.starts_with(crate::auth::token::PREFIX) && value.len() > 60
    })
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

pub(super) fn cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    cookies.flat_map(|value| value.split(';')).find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == COOKIE).then_some(value)
    })
}

fn wants_page(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

/// Whether what a browser says of where a request came from allows a change. Programs say nothing
/// and bring a token; a browser always says something, so silence beside a cookie is not believed.
fn same_origin(headers: &HeaderMap, by_cookie: bool) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = text("sec-fetch-site") {
        return site == "same-origin";
    }
    match (text("origin"), text("host")) {
        (Some(origin), Some(host)) => origin.split_once("://").is_some_and(|(_, at)| at == host),
        (Some(_), None) => false,
        (None, _) => !by_cookie,
    }
}

impl Problem {
    fn into_response_as(self, shaped: impl Fn(Self) -> Self) -> Response {
        shaped(self).into_response()
    }

    /// Nobody known asks.
    pub(super) fn unauthorized(detail: impl Into<String>) -> Self {
        let status = StatusCode::UNAUTHORIZED;
        Self::new(status, "urn:lens:problem:unauthorized", "Not signed in", detail.into())
    }

    /// Whoever asks may not.
    pub(super) fn forbidden(detail: impl Into<String>) -> Self {
        let status = StatusCode::FORBIDDEN;
        Self::new(status, "urn:lens:problem:forbidden", "Not allowed", detail.into())
    }

    /// Too much that proves nothing.
    pub(super) fn too_many(detail: impl Into<String>) -> Self {
        let status = StatusCode::TOO_MANY_REQUESTS;
        Self::new(status, "urn:lens:problem:too-many", "Too many wrong tokens", detail.into())
    }

    /// Something is not as the request needs it.
    pub(super) fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "urn:lens:problem:conflict", "Not possible", detail.into())
    }

    /// A body that cannot be used.
    pub(super) fn bad_body(detail: impl Into<String>) -> Self {
        let status = StatusCode::BAD_REQUEST;
        Self::new(status, "urn:lens:problem:bad-body", "Request body refused", detail.into())
    }

    fn token_in_address() -> Self {
        let detail = "a token in an address ends up in logs and histories: send it as \
            `Authorization: Bearer …`, and revoke this one, it has been shown";
        Self::new(
            StatusCode::BAD_REQUEST,
            "urn:lens:problem:token-in-address",
            "Token in the address",
            detail.into(),
        )
    }
}
