//! `/auth/sign-in`, `/auth/sign-out`: a browser exchanges a token for a session.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use lens_service::secret::Secret;

use super::{Api, Problem, guard};
use crate::auth::session::{COOKIE, SESSION_HOURS};

const POLICY: &str = "default-src 'none'; style-src 'self'; form-action 'self'; \
    base-uri 'none'; frame-ancestors 'none'";

/// Longest form taken, bytes: one token.
const FORM_BYTES_MAX: usize = 512;

const PAGE: &str = r#"<!doctype html><html lang="en"><meta charset="utf-8"><title>lens: sign in</title>
<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="/assets/page.css">
<main><h1>Sign in</h1><p>NOTE</p>
<form method="post" action="/auth/sign-in"><label>Token
<input name="token" type="password" autocomplete="off" required autofocus></label>
<button>Sign in</button></form>
<form method="post" action="/auth/sign-out"><button>Sign out</button></form></main></html>"#;

fn page(status: StatusCode, note: &str) -> Response {
    let headers = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (status, headers, Html(PAGE.replace("NOTE", note))).into_response()
}

/// The page to sign in on
///
/// A form for a token. What it is exchanged for is a cookie that no script can read and no other
/// site can use.
#[utoipa::path(get, path = "/auth/sign-in", tag = "auth",
    responses((status = 200, description = "The form", body = String, content_type = "text/html",
        example = json!("<!doctype html>…"))))]
pub(super) async fn sign_in_page() -> Response {
    page(StatusCode::OK, "<code>lens token create</code> makes one.")
}

/// Sign in
///
/// Takes the form's `token` and answers with the session's cookie, which is worth what the token
/// is worth at every moment, for twelve hours at most.
#[utoipa::path(post, path = "/auth/sign-in", tag = "auth",
    request_body(content = String, content_type = "application/x-www-form-urlencoded",
        description = "`token=…`"),
    responses(
        (status = 303, description = "Signed in: on to the page, with a cookie"),
        (status = 401, description = "The token is not good; the form again", body = String,
            content_type = "text/html"),
    ))]
pub(super) async fn sign_in(
    State(api): State<Api>,
    from: Option<Extension<ConnectInfo<SocketAddr>>>,
    scheme: Option<Extension<Secured>>,
    body: axum::body::Bytes,
) -> Response {
    let from = from.map(|from| from.0.0.ip());
    let token = form_token(&body);
    let token = token.as_ref().map_or(&[][..], Secret::expose);
    let token = std::str::from_utf8(token).unwrap_or_default();
    match api.state.security.gate.sign_in(&api.state.env, from, token) {
        Ok(cookie) => {
            let secure = if scheme.is_some() { "; Secure" } else { "" };
            let age = SESSION_HOURS * 3_600;
            let cookie = format!(
                "{COOKIE}={cookie}; Path=/; HttpOnly; SameSite=Strict; Max-Age={age}{secure}"
            );
            ([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response()
        }
        Err(stranger) => page(StatusCode::UNAUTHORIZED, &format!("Not signed in: {stranger}.")),
    }
}

/// Sign out
///
/// Ends the session and takes the cookie back.
#[utoipa::path(post, path = "/auth/sign-out", tag = "auth",
    responses((status = 303, description = "Signed out: back to the form")))]
pub(super) async fn sign_out(State(api): State<Api>, headers: HeaderMap) -> Response {
    if let Some(cookie) = guard::cookie(&headers) {
        api.state.security.gate.sign_out(cookie);
        api.state.security.epoch.next();
    }
    let gone = format!("{COOKIE}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0");
    ([(header::SET_COOKIE, gone)], Redirect::to(guard::SIGN_IN)).into_response()
}

/// That a request came over TLS.
#[derive(Clone, Copy, Debug)]
pub struct Secured;

/// The token of a form; a token needs no decoding, and what does is none.
fn form_token(body: &[u8]) -> Option<Secret> {
    let fields = body.get(..body.len().min(FORM_BYTES_MAX))?.split(|byte| *byte == b'&');
    let token = fields.into_iter().find_map(|field| field.strip_prefix(b"token="))?;
    Some(Secret::new(token.trim_ascii().to_vec()))
}

/// Which part of a request's body is JSON of this form; nothing at all is `{}`.
///
/// # Errors
/// 400, saying what is wrong.
pub(super) fn body<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let bytes = if bytes.trim_ascii().is_empty() { b"{}" } else { bytes };
    serde_json::from_slice(bytes).map_err(|error| Problem::bad_body(error.to_string()))
}
