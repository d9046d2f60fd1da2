use axum::body::Body;
use axum::http::Request;
use lens_hist::{Sparse, block};
use lens_model::{AgentName, Arm, InstanceName, Nanos, SeriesKey, Slice, Stage};
use tower::ServiceExt;

use super::*;
use crate::state::Rules;
use crate::window::{Host, Windows};

fn state(series: &[(&str, Stage, Arm)]) -> Arc<State> {
    let windows = Windows::new(Nanos::from_secs(5), Nanos::from_secs(60));
    let state = State::new(
        lens_service::env::Env::system(),
        Rules::default(),
        windows,
        lens_service::time::unix_now(),
    );
    let now = state.now();
    let mut bytes = Vec::new();
    block::encode(&(1..=500).map(|ms| ms * 1_000_000).collect::<Sparse>(), &mut bytes);
    let (samples, _) = block::BlockRef::parse(&bytes).unwrap();
    let host =
        Host { agent: AgentName::new("a1").unwrap(), instance: InstanceName::new("n1").unwrap() };
    for (language, stage, arm) in series {
        let slice = Slice::new("backend", language, "large").unwrap();
        let key = SeriesKey { slice, stage: *stage, arm: *arm };
        let mut windows = state.windows.write();
        let host = windows.host(&host).unwrap();
        let handle = windows.handle(&key, &host).unwrap();
        windows.merge(handle, now, &samples, now).unwrap();
    }
    Arc::new(state)
}

async fn get(state: &Arc<State>, path: &str, tag: Option<&str>) -> (Response, String) {
    let mut ask = Request::get(path);
    if let Some(tag) = tag {
        ask = ask.header(IF_NONE_MATCH, tag);
    }
    let app = router().with_state(Arc::clone(state));
    let answer = app.oneshot(ask.body(Body::empty()).unwrap()).await.unwrap();
    let (head, body) = answer.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    (Response::from_parts(head, Body::empty()), String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn the_first_paint_holds_every_series_without_scripting() {
    let series = [
        ("rust", Stage::A, Arm::Baseline),
        ("go", Stage::E2e, Arm::Canary),
        ("c++", Stage::C, Arm::Baseline),
    ];
    let state = state(&series);
    let snapshot = Snapshot::take(&state, state.now());
    let (answer, page) = get(&state, "/", None).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(snapshot.rows.len(), 3);
    for row in &snapshot.rows {
        let slice = row.slice.to_string();
        assert!(page.contains(&slice), "{slice} is missing");
    }
    assert!(page.contains("lang=\"en\""), "a reader must know how to pronounce it");
}

#[tokio::test]
async fn nothing_fed_is_shown_as_nothing_with_what_to_do() {
    let (_, page) = get(&state(&[]), "/", None).await;
    assert!(page.contains("lens demo") && page.contains("/api/v1/agents"));
    assert!(!page.contains(">healthy<") && !page.contains(">Healthy<"));
}

#[tokio::test]
async fn only_this_origin_may_be_loaded_and_what_is_unchanged_is_not_sent_again() {
    let state = state(&[]);
    let assets = ASSETS.iter().map(|(name, ..)| format!("/assets/{name}"));
    let others = ["/", "/favicon.svg", "/favicon.ico"].map(str::to_owned);
    for path in assets.chain(others) {
        let path = path.as_str();
        let (answer, body) = get(&state, path, None).await;
        let policy = answer.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && policy.contains("script-src 'self'"));
        assert!(!body.contains("https://") || path.starts_with("/favicon"), "{path} loads another");
        assert_eq!(answer.headers()[CACHE_CONTROL], "no-cache");
    }
    let (answer, _) = get(&state, "/assets/page.js", None).await;
    let tag = answer.headers()[ETAG].to_str().unwrap().to_owned();
    let (again, body) = get(&state, "/assets/page.js", Some(&tag)).await;
    assert_eq!((again.status(), body.as_str()), (StatusCode::NOT_MODIFIED, ""));
}

#[test]
fn sheet_scripts_and_icon_stay_small() {
    let bytes = ICON.len() + ASSETS.iter().map(|(.., body)| body.len()).sum::<usize>();
    assert!(bytes < 140_000, "{bytes} bytes");
}

#[test]
fn every_module_a_script_imports_is_served() {
    for (name, _, body) in ASSETS {
        for imported in body.split("from './").skip(1).chain(body.split("import('./").skip(1)) {
            let imported = imported.split('\'').next().unwrap();
            assert!(ASSETS.iter().any(|(held, ..)| *held == imported), "{name} needs {imported}");
        }
    }
}

#[tokio::test]
async fn an_asset_that_is_none_is_not_found() {
    let (answer, _) = get(&state(&[]), "/assets/no.js", None).await;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
}

#[test]
fn nobody_is_offered_what_would_be_refused() {
    let state = state(&[]);
    let as_role = |roles: &[&str]| {
        let roles: Vec<_> = roles.iter().map(|role| role.parse().unwrap()).collect();
        let principal = Principal { name: "ann".into(), credential: String::new(), roles };
        reader(&state, Some(&principal)).may
    };
    assert_eq!(as_role(&["viewer"]), [""; 0]);
    assert_eq!(as_role(&["operator"]), ["alert.acknowledge", "alert.silence", "capture.begin"]);
    assert_eq!(as_role(&["viewer", "breakglass"]), ["kill.engage"]);
    assert!(reader(&state, None).may.is_empty());
}
