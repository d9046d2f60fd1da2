//! Who is let in to what, as a client sees it.

use axum::http::header;

use super::*;
use crate::audit::log::replace_whole;
use crate::audit::{Audit, Places};
use crate::auth::gate::Gate;
use crate::auth::role::roles;
use crate::auth::token::{Token, Tokens};
use crate::security::{Revocations, Security};
use lens_journal::OsDisk;

struct Doors {
    router: Router,
    state: Arc<State>,
    dir: tempfile::TempDir,
}

const ROLES: [&str; 7] =
    ["viewer", "operator", "releaser", "breakglass", "approver:sre", "auditor", "admin"];

/// The token of a role.
fn token(role: &str) -> String {
    let at = ROLES.iter().position(|known| *known == role).unwrap();
    let random = [u8::try_from(at).unwrap() + 1; 40];
    let now = UnixNanos(1_000);
    let (_, text) = Token::make(&random, role, roles([role]).unwrap(), now, 1).unwrap();
    String::from_utf8(text.expose().to_vec()).unwrap()
}

fn doors() -> Doors {
    let dir = tempfile::tempdir().unwrap();
    let env = lens_service::env::Env::system();
    let mut tokens = Tokens::default();
    for (at, role) in ROLES.iter().enumerate() {
        let random = [u8::try_from(at).unwrap() + 1; 40];
        let made = Token::make(&random, role, roles([*role]).unwrap(), env.now(), 1).unwrap();
        tokens.add(made.0).unwrap();
    }
    let file = dir.path().join("tokens");
    replace_whole(&OsDisk, &file, tokens.text().as_bytes()).unwrap();
    let places = Places {
        dir: dir.path().join("audit"),
        head: dir.path().join("head.json"),
        key: dir.path().join("audit.key"),
        rotate_bytes: 1 << 20,
    };
    let security = Security {
        gate: Gate::tokens(&file).unwrap(),
        audit: Audit::open(&env, &places).unwrap(),
        revocations: Revocations::new(Some(dir.path().join("revoked"))),
        ..Security::default()
    };
    let (router, state) = served(state().secured(security));
    Doors { router, state, dir }
}

impl Doors {
    async fn ask(&self, method: Method, uri: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        ask(&self.router, request.body(Body::from(body.to_owned())).unwrap()).await
    }

    async fn with(&self, role: &str, method: Method, uri: &str) -> Answer {
        let bearer = format!("Bearer {}", token(role));
        self.ask(method, uri, &[("authorization", &bearer)], "").await
    }

    async fn records(&self) -> Vec<Value> {
        let answer = self.with("auditor", Method::GET, "/api/v1/audit?limit=1000").await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        answer.json()["records"].as_array().unwrap().clone()
    }
}

#[tokio::test]
async fn without_a_token_only_what_anyone_may_ask_is_answered() {
    let doors = doors();
    for open in ["/livez", "/readyz", "/health", "/openapi.json", "/docs", "/auth/sign-in"] {
        let status = doors.ask(Method::GET, open, &[], "").await.status;
        assert_ne!(status, StatusCode::UNAUTHORIZED, "{open}");
    }
    for shut in ["/metrics", "/", "/api/v1/agents", "/api/v1/events", "/api/v1/audit"] {
        let answer = doors.ask(Method::GET, shut, &[], "").await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{shut}");
        assert_eq!(answer.content_type(), "application/problem+json");
        assert!(answer.headers[header::WWW_AUTHENTICATE].to_str().unwrap().starts_with("Bearer"));
        assert!(answer.json()["detail"].as_str().unwrap().contains("needs the role"));
    }
    let answer = doors.ask(Method::GET, "/monitoring/dashboard", &[], "").await;
    assert_eq!((&answer.json()["success"], answer.status.as_u16()), (&false.into(), 401));
}

#[tokio::test]
async fn every_route_there_is_has_a_verb_and_every_role_gets_exactly_its_own() {
    let doors = doors();
    let document = get(&doors.router, "/openapi.json").await.json();
    let mut asked = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let verb = crate::auth::Verb::of(&method, path);
            let verb = verb.unwrap_or_else(|| panic!("{method} {path} has no verb"));
            if path == "/api/v1/events" || verb == crate::auth::Verb::SignIn {
                continue;
            }
            let uri = path.replace("{name}", "host-7");
            for role in ROLES {
                let answer = doors.with(role, method.clone(), &uri).await;
                let may = verb.allows(&roles([role]).unwrap());
                let refused = answer.status == StatusCode::FORBIDDEN;
                assert_eq!(refused, !may, "{role} {method} {uri}: {}", answer.text);
                if refused {
                    let detail = answer.json()["detail"].to_string();
                    assert!(detail.contains(&verb.needs()) && detail.contains(role), "{detail}");
                }
                asked += 1;
            }
        }
    }
    assert!(asked > 100, "{asked}");
}

#[tokio::test]
async fn a_token_in_an_address_is_refused_whatever_it_is_worth() {
    let doors = doors();
    let good = token("viewer");
    for query in [format!("access_token={good}"), format!("token={good}"), format!("q={good}")] {
        let bearer = format!("Bearer {good}");
        let uri = format!("/api/v1/quantiles?{query}");
        for headers in [&[][..], &[("authorization", bearer.as_str())]] {
            let answer = doors.ask(Method::GET, &uri, headers, "").await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.text);
            assert!(answer.text.contains("revoke this one"), "{}", answer.text);
            assert!(!answer.text.contains(&good));
        }
    }
}

#[tokio::test]
async fn guesses_are_listened_to_ten_times_a_minute() {
    let doors = doors();
    let guess = format!("Bearer lens_{}_{}", "0".repeat(16), "0".repeat(64));
    for _ in 0..crate::auth::failures::FAILURES_MAX {
        let answer = doors.ask(Method::GET, "/metrics", &[("authorization", &guess)], "").await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    }
    let answer = doors.with("viewer", Method::GET, "/metrics").await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(answer.headers.contains_key(header::RETRY_AFTER));
}

#[tokio::test]
async fn revoking_is_recorded_first_takes_effect_and_can_be_taken_back() {
    let doors = doors();
    let host = AgentName::new("host-7").unwrap();
    let answer = doors.with("admin", Method::POST, "/api/v1/agents/host-7/revoke").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    assert_eq!(answer.json()["audit"], 1);
    assert!(doors.state.security.revocations.now().agent(&host, "1"));
    let kept = std::fs::read_to_string(doors.dir.path().join("revoked")).unwrap();
    assert_eq!(kept, "agent host-7\n");
    let answer = doors.with("admin", Method::POST, "/api/v1/agents/host-7/restore").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    assert!(!doors.state.security.revocations.now().agent(&host, "1"));
    let records = doors.records().await;
    let verbs: Vec<&str> = records.iter().map(|r| r["verb"].as_str().unwrap()).collect();
    assert_eq!(verbs, ["agent.revoke", "agent.restore"]);
    assert_eq!(records[0]["principal"], "admin");
    assert!(records[0]["credential"].as_str().unwrap().starts_with("token:0707"));
}

#[tokio::test]
async fn without_an_audit_record_nothing_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    let security = Security {
        revocations: Revocations::new(Some(dir.path().join("revoked"))),
        ..Security::default()
    };
    let (router, state) = served(state().secured(security));
    let request = Request::builder().method(Method::POST).uri("/api/v1/agents/host-7/revoke");
    let answer = ask(&router, request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status, StatusCode::CONFLICT, "{}", answer.text);
    assert!(answer.text.contains("audit.dir"), "{}", answer.text);
    let host = AgentName::new("host-7").unwrap();
    assert!(!state.security.revocations.now().agent(&host, "1"));
    assert!(!dir.path().join("revoked").exists());
}

#[tokio::test]
async fn an_attempt_to_change_something_is_recorded_and_a_look_is_not() {
    let doors = doors();
    doors.with("viewer", Method::POST, "/api/v1/agents/host-7/revoke").await;
    doors.ask(Method::POST, "/api/v1/tokens/reload", &[], "").await;
    doors.with("viewer", Method::GET, "/metrics").await;
    doors.ask(Method::GET, "/metrics", &[], "").await;
    let records = doors.records().await;
    let told: Vec<(&str, &str, &str)> = records
        .iter()
        .map(|r| ["principal", "verb", "decision"].map(|field| r[field].as_str().unwrap()))
        .map(|[who, verb, decision]| (who, verb, decision))
        .collect();
    assert_eq!(
        told,
        [("viewer", "agent.revoke", "refused"), ("unknown", "tokens.reload", "refused")]
    );
}

#[tokio::test]
async fn a_browser_signs_in_and_only_its_own_page_can_use_the_session() {
    let doors = doors();
    let page = doors.ask(Method::GET, "/", &[("accept", "text/html")], "").await;
    assert_eq!(page.status, StatusCode::SEE_OTHER);
    assert_eq!(page.headers[header::LOCATION], "/auth/sign-in");
    let form = format!("token={}", token("admin"));
    let own = ("sec-fetch-site", "same-origin");
    let elsewhere =
        doors.ask(Method::POST, "/auth/sign-in", &[("sec-fetch-site", "cross-site")], &form).await;
    assert_eq!(elsewhere.status, StatusCode::FORBIDDEN);
    let bad = doors.ask(Method::POST, "/auth/sign-in", &[own], "token=lens_no").await;
    assert_eq!(bad.status, StatusCode::UNAUTHORIZED);
    let signed = doors.ask(Method::POST, "/auth/sign-in", &[own], &form).await;
    assert_eq!(signed.status, StatusCode::SEE_OTHER);
    let cookie = signed.headers[header::SET_COOKIE].to_str().unwrap();
    for part in ["HttpOnly", "SameSite=Strict", "Max-Age=43200", "Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let cookie = ("cookie", cookie.split(';').next().unwrap());
    let page = doors.ask(Method::GET, "/", &[("accept", "text/html"), cookie], "").await;
    assert_eq!(page.status, StatusCode::OK);
    let revoke = "/api/v1/agents/host-7/revoke";
    for from in [
        &[cookie][..],
        &[cookie, ("sec-fetch-site", "cross-site")],
        &[cookie, ("sec-fetch-site", "same-site")],
        &[cookie, ("origin", "https://evil.test"), ("host", "lens.test")],
    ] {
        let answer = doors.ask(Method::POST, revoke, from, "").await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{from:?}: {}", answer.text);
    }
    let answer = doors.ask(Method::POST, revoke, &[cookie, own], "").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    doors.ask(Method::POST, "/auth/sign-out", &[cookie, own], "").await;
    let answer = doors.ask(Method::GET, "/metrics", &[cookie], "").await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn bodies_are_taken_strictly_and_may_be_left_out() {
    let doors = doors();
    let bearer = format!("Bearer {}", token("admin"));
    let uri = "/api/v1/agents/host-7/revoke";
    let said =
        async |body: &str| doors.ask(Method::POST, uri, &[("authorization", &bearer)], body).await;
    for good in ["", "  ", "{}", r#"{"reason": "stolen"}"#] {
        assert_eq!(said(good).await.status, StatusCode::OK, "{good:?}");
    }
    for bad in ["{", r#"{"raeson": "stolen"}"#, "[1]"] {
        let answer = said(bad).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{bad:?}");
    }
    assert_eq!(doors.records().await.len(), 4, "what was not understood was not recorded");
}
