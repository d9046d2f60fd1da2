//! The live page: one document with its first paint already in it, a sheet and a script.
//!
//! Everything is in the binary and comes from this origin, under a policy that lets nothing else
//! in, so the page works where there is no internet and cannot be made to load anything. The
//! document is rendered from the same [`Snapshot`] the event stream then sends each second; without
//! scripting it still shows the numbers of the moment it was asked for.
//! Bounds: sheet, script and icon together stay under 60 kB; the document is about 5 kB and 2 kB
//! more a series.

mod render;

use std::sync::Arc;

use axum::Router;
use axum::extract::State as Extract;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

pub use render::render;

use crate::snapshot::Snapshot;
use crate::state::State;

const CSS: &str = include_str!("assets/page.css");
const JS: &str = include_str!("assets/page.js");
const ICON: &str = include_str!("assets/favicon.svg");

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
        .route("/assets/page.css", get(|ask| asset(ask, "text/css; charset=utf-8", CSS)))
        .route("/assets/page.js", get(|ask| asset(ask, "text/javascript; charset=utf-8", JS)))
        .route("/favicon.svg", get(|ask| asset(ask, "image/svg+xml", ICON)))
        .route("/favicon.ico", get(|ask| asset(ask, "image/svg+xml", ICON)))
}

async fn page(Extract(state): Extract<Arc<State>>, ask: HeaderMap) -> Response {
    // Walks every series: off the threads that serve the network.
    let work = tokio::task::spawn_blocking(move || render(&Snapshot::take(&state, state.now())));
    match work.await {
        Ok(document) => answer(&ask, "text/html; charset=utf-8", document),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn asset(ask: HeaderMap, kind: &'static str, body: &'static str) -> Response {
    answer(&ask, kind, body)
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
