//! The OpenAPI document against the router, both ways.

use std::collections::BTreeSet;

use super::*;

/// Whether a route is a part of the page, which only the page itself asks for.
fn page_part(path: &str) -> bool {
    path.starts_with("/assets/") || path.starts_with("/favicon.")
}

/// The paths the router holds, read from its debug form.
fn routed(router: &Router) -> BTreeSet<String> {
    let debug = format!("{router:?}");
    let quoted = debug.split('"').skip(1).step_by(2);
    let paths = quoted.filter(|text| text.starts_with('/') && !text.contains("axum_fallback"));
    paths.map(str::to_owned).collect()
}

async fn document() -> (Router, Value) {
    let (router, _) = served(state());
    let document = get(&router, "/openapi.json").await.json();
    (router, document)
}

#[tokio::test]
async fn every_route_is_described_and_every_description_has_its_route() {
    let (router, document) = document().await;
    let described: BTreeSet<String> =
        document["paths"].as_object().unwrap().keys().cloned().collect();
    let mut routes = routed(&router);
    assert!(routes.len() >= 13, "{routes:?}");
    routes.retain(|path| !page_part(path));
    assert_eq!(described, routes);
    for path in described.iter().filter(|path| *path != "/api/v1/events") {
        let status = get(&router, path).await.status;
        assert_ne!(status, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn every_operation_parameter_response_and_field_says_what_it_is() {
    let (_, document) = document().await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    for (path, item) in document["paths"].as_object().unwrap() {
        for operation in item.as_object().unwrap().values() {
            assert!(!operation["summary"].as_str().unwrap().is_empty(), "{path}");
            assert!(!operation["description"].as_str().unwrap().is_empty(), "{path}");
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                assert!(parameter["description"].is_string(), "{path}: {parameter}");
                assert!(!parameter["example"].is_null(), "{path}: {parameter}");
            }
            for response in operation["responses"].as_object().unwrap().values() {
                assert!(!response["description"].as_str().unwrap().is_empty(), "{path}");
            }
        }
    }
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for name in ["Problem", "HistogramAnswer", "Snapshot", "Row", "Agent"] {
        assert!(schemas.contains_key(name), "{name}");
    }
    for (name, schema) in schemas {
        assert!(schema["description"].is_string(), "{name}");
        for (field, inner) in schema["properties"].as_object().into_iter().flatten() {
            assert!(inner["description"].is_string(), "{name}.{field}: {inner}");
        }
    }
}

#[tokio::test]
async fn every_reference_of_the_document_leads_somewhere() {
    let (_, document) = document().await;
    let text = document.to_string();
    for part in text.split("\"$ref\":\"#").skip(1) {
        let pointer = part.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
}

#[tokio::test]
async fn the_page_of_the_description_has_no_script_and_names_every_path() {
    let (router, document) = document().await;
    let page = get(&router, "/docs").await;
    assert!(page.content_type().starts_with("text/html"));
    assert!(!page.text.contains("<script"));
    for path in document["paths"].as_object().unwrap().keys() {
        assert!(page.text.contains(&format!("<code>{path}</code>")), "{path}");
    }
}
