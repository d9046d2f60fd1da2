//! The live page: one document with its first paint already in it, a sheet and a script.
//!
//! Everything is in the binary and comes from this origin, under a policy that lets nothing else
//! in, so the page works where there is no internet and cannot be made to load anything. The
//! document is rendered from the same [`Snapshot`] the event stream then sends each second; without
//! scripting it still shows the numbers of the moment it was asked for.
//! What the reader may do is rendered into it, so that nobody is offered what would be refused.
//! Bounds: sheet, scripts and icon together stay under 140 kB; the document is about 15 kB and 2 kB
//! more a series.

mod render;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, Path, State as Extract};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

pub use render::{Reader, render};

use crate::auth::{Principal, Verb};
use crate::snapshot::Snapshot;
use crate::state::State;

const ICON: &str = include_str!("assets/favicon.svg");
const SHEET: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// What is served under `/assets/`, by name.
const ASSETS: [(&str, &str, &str); 19] = [
    ("address.js", SCRIPT, include_str!("assets/address.js")),
    ("agents.js", SCRIPT, include_str!("assets/agents.js")),
    ("alerts.js", SCRIPT, include_str!("assets/alerts.js")),
    ("ask.js", SCRIPT, include_str!("assets/ask.js")),
    ("canary.js", SCRIPT, include_str!("assets/canary.js")),
    ("captures.js", SCRIPT, include_str!("assets/captures.js")),
    ("dom.js", SCRIPT, include_str!("assets/dom.js")),
    ("download.js", SCRIPT, include_str!("assets/download.js")),
    ("evidence.js", SCRIPT, include_str!("assets/evidence.js")),
    ("format.js", SCRIPT, include_str!("assets/format.js")),
    ("guards.js", SCRIPT, include_str!("assets/guards.js")),
    ("heatmap.js", SCRIPT, include_str!("assets/heatmap.js")),
    ("lines.js", SCRIPT, include_str!("assets/lines.js")),
    ("page.js", SCRIPT, include_str!("assets/page.js")),
    ("plot.js", SCRIPT, include_str!("assets/plot.js")),
    ("rows.js", SCRIPT, include_str!("assets/rows.js")),
    ("slow.js", SCRIPT, include_str!("assets/slow.js")),
    ("spectrum.js", SCRIPT, include_str!("assets/spectrum.js")),
    ("page.css", SHEET, include_str!("assets/page.css")),
];

/// What the page can ask for that not everyone may.
const OFFERED: [Verb; 4] =
    [Verb::AlertAcknowledge, Verb::AlertSilence, Verb::CaptureBegin, Verb::KillEngage];

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

/// Serves the page at `/`, its assets under `/assets/`, and the icon at `/favicon.svg` and
/// `/favicon.ico`.
///
/// Every answer carries an `ETag` and `Cache-Control: no-cache`, so a browser asks each time and is
/// answered 304 while nothing changed: a new binary is never shown with an old script.
pub fn router() -> Router<Arc<State>> {
    Router::new()
        .route("/", get(page))
        .route("/assets/{name}", get(asset))
        .route("/favicon.svg", get(icon))
        .route("/favicon.ico", get(icon))
}

async fn page(
    Extract(state): Extract<Arc<State>>,
    principal: Option<Extension<Principal>>,
    ask: HeaderMap,
) -> Response {
    let reader = reader(&state, principal.as_deref());
    // Walks every series: off the threads that serve the network.
    let render = move || render(&Snapshot::take(&state, state.now()), &reader);
    match tokio::task::spawn_blocking(render).await {
        Ok(document) => answer(&ask, "text/html; charset=utf-8", document),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn reader(state: &State, principal: Option<&Principal>) -> Reader {
    let Some(principal) = principal else { return Reader::default() };
    let may = OFFERED.iter().filter(|verb| verb.allows(&principal.roles));
    Reader {
        name: principal.name.clone(),
        may: may.map(|verb| verb.as_str()).collect(),
        open: state.security.gate.is_open(),
    }
}

async fn asset(Path(name): Path<String>, ask: HeaderMap) -> Response {
    match ASSETS.iter().find(|(held, ..)| *held == name) {
        Some((_, kind, body)) => answer(&ask, kind, *body),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn icon(ask: HeaderMap) -> Response {
    answer(&ask, "image/svg+xml", ICON)
}

fn answer(ask: &HeaderMap, kind: &'static str, body: impl AsRef<str> + IntoResponse) -> Response {
    let tag = tag(body.as_ref());
    let headers: [(HeaderName, &str); 6] = [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "no-cache"),
        (ETAG, &tag),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    let known = ask.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut known = known.flat_map(|value| value.split(','));
    if known.any(|known| known.trim().trim_start_matches("W/") == tag || known.trim() == "*") {
        let mut response = (StatusCode::NOT_MODIFIED, headers).into_response();
        response.headers_mut().remove(CONTENT_TYPE);
        return response;
    }
    (headers, body).into_response()
}

/// A strong entity tag: 64-bit FNV-1a of the bytes, which needs to tell versions apart, not resist
/// anyone.
fn tag(body: &str) -> String {
    let hash = body.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("\"{hash:016x}\"")
}

#[cfg(test)]
mod tests;
