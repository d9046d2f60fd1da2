//! What is refused, and how.

use super::*;

async fn refused(uri: &str) -> (StatusCode, Value) {
    let (router, _) = served(state());
    let answer = get(&router, uri).await;
    assert_eq!(answer.content_type(), "application/problem+json", "{uri}: {}", answer.text);
    let json = answer.json();
    assert_eq!(json["status"], answer.status.as_u16());
    for field in ["type", "title", "detail"] {
        assert!(json[field].is_string(), "{uri}: {field}");
    }
    (answer.status, json)
}

#[tokio::test]
async fn an_unknown_parameter_is_refused_with_the_nearest_known_one() {
    let (status, json) = refused("/api/v1/quantiles?slcie=backend/rust/large").await;
    assert_eq!((status, &json["param"]), (StatusCode::BAD_REQUEST, &"slcie".into()));
    assert!(json["detail"].as_str().unwrap().contains("did you mean \"slice\"?"), "{json}");
    let (_, json) = refused("/api/v1/agents?verbose=1").await;
    assert!(json["detail"].as_str().unwrap().contains("takes none"), "{json}");
    let (_, json) = refused("/monitoring/dashboard?x=1").await;
    assert_eq!((&json["success"], &json["error"]), (&false.into(), &json["title"]));
}

#[tokio::test]
async fn a_wrong_value_is_refused_saying_what_would_be_right() {
    for (query, param, says) in [
        ("quantiles?slice=backend/rust", "slice", "three parts"),
        ("quantiles?stage=d", "stage", "use stage_a"),
        ("quantiles?arm=blue", "arm", "baseline or canary"),
        ("quantiles?from=yesterday", "from", "RFC 3339"),
        ("quantiles?from=-5m&to=-10m", "from", "not before"),
        ("quantiles?step=5", "", ""),
        ("quantiles?step=7s", "step", "use 10s"),
        ("quantiles?step=5s&from=-24h", "step", "or more"),
        ("quantiles?step=soon", "step", "no step"),
        ("quantiles?q=99", "q", "such as 0.99"),
        ("quantiles?slice=a/b/c&slice=a/b/d", "slice", "more than once"),
        ("histogram?format=xml", "format", "json, hdr, hlog, hgrm or otlp"),
        ("histogram?format=hdr&step=5s", "step", "leave step out"),
        ("tail?stage=total&arm=x", "arm", "baseline or canary"),
    ] {
        let uri = format!("/api/v1/{query}");
        if param.is_empty() {
            assert_eq!(get(&served(state()).0, &uri).await.status, StatusCode::OK, "{uri}");
            continue;
        }
        let (status, json) = refused(&uri).await;
        assert_eq!((status, &json["param"]), (StatusCode::BAD_REQUEST, &param.into()), "{json}");
        assert!(json["detail"].as_str().unwrap().contains(says), "{uri}: {json}");
    }
}

#[tokio::test]
async fn too_many_points_over_all_series_are_refused() {
    let state = state();
    for at in 0..30 {
        feed(&state, &key(&format!("l{at}"), Stage::A, Arm::Baseline), 5, [1]);
    }
    let (router, _) = served(state);
    let answer = get(&router, "/api/v1/quantiles?step=5s&from=-1h").await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.text.contains("use 10s or more"), "{}", answer.text);
    let answer = get(&router, "/api/v1/quantiles?step=10s&from=-1h").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
}

#[tokio::test]
async fn unknown_paths_wrong_methods_and_large_bodies_are_problems_too() {
    let (status, json) = refused("/api/v2/quantiles").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(json["detail"].as_str().unwrap().contains("/openapi.json"));
    let (router, _) = served(state());
    let post = |length: usize| {
        let builder = Request::builder().method(Method::POST).uri("/health");
        builder.header("content-length", length).body(Body::empty()).unwrap()
    };
    let answer = ask(&router, post(0)).await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(answer.content_type(), "application/problem+json");
    assert!(answer.headers["allow"].to_str().unwrap().contains("GET"), "{:?}", answer.headers);
    let large = ask(&router, post(lens_model::limits::HTTP_BODY_BYTES_MAX + 1)).await;
    assert_eq!(large.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(large.content_type(), "application/problem+json");
}
