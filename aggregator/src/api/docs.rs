//! `/openapi.json` and `/docs`: the API describes itself.

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use bytes::Bytes;
use serde_json::Value;

use super::params::Params;
use super::{Api, Problem};

const STYLE: &str = include_str!("docs.css");

/// The description in both forms, made once.
#[derive(Clone, Debug)]
pub(super) struct Document {
    json: Bytes,
    html: Bytes,
}

impl Document {
    pub(super) fn new(document: &utoipa::openapi::OpenApi) -> Self {
        let value = serde_json::to_value(document).unwrap_or_default();
        Self { json: value.to_string().into(), html: page(&value).into() }
    }
}

/// This description, for programs
///
/// OpenAPI 3.1, covering every route.
#[utoipa::path(get, path = "/openapi.json", tag = "meta",
    responses(
        (status = 200, description = "The OpenAPI document", body = Object,
            example = json!({"openapi": "3.1.0", "info": {"title": "lens aggregator"}})),
        (status = 400, description = "A parameter was given", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn openapi(
    State(api): State<Api>,
    params: Params,
) -> Result<impl IntoResponse, Problem> {
    params.only(&[])?;
    Ok(([(header::CONTENT_TYPE, "application/json")], api.document.json))
}

/// This description, for people
///
/// One page without scripts.
#[utoipa::path(get, path = "/docs", tag = "meta",
    responses(
        (status = 200, description = "The page", body = String, content_type = "text/html",
            example = json!("<!doctype html>…")),
        (status = 400, description = "A parameter was given", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn docs(
    State(api): State<Api>,
    params: Params,
) -> Result<impl IntoResponse, Problem> {
    params.only(&[])?;
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"),
    ];
    Ok((headers, api.document.html))
}

fn page(document: &Value) -> String {
    let title = escape(text(&document["info"]["title"]));
    let mut html = format!(
        "<!doctype html><html lang=en><head><meta charset=utf-8>\
         <meta name=viewport content='width=device-width, initial-scale=1'>\
         <title>{title} API</title><style>{STYLE}</style></head><body><main><h1>{title} API</h1>\
         <p>{}</p><p><a href=openapi.json>openapi.json</a> · <a href=./>live page</a></p>",
        prose(&document["info"]["description"]),
    );
    for tag in document["tags"].as_array().into_iter().flatten() {
        let name = text(&tag["name"]);
        let mut section = String::new();
        for (path, item) in document["paths"].as_object().into_iter().flatten() {
            for (method, operation) in item.as_object().into_iter().flatten() {
                if operation["tags"][0] == *name {
                    section.push_str(&operation_html(path, method, operation));
                }
            }
        }
        if !section.is_empty() {
            html.push_str(&format!("<h2>{}</h2>{section}", prose(&tag["description"])));
        }
    }
    html.push_str("<h2>Schemas</h2>");
    for (name, schema) in document["components"]["schemas"].as_object().into_iter().flatten() {
        html.push_str(&schema_html(name, schema));
    }
    html.push_str("</main></body></html>");
    html
}

fn operation_html(path: &str, method: &str, operation: &Value) -> String {
    let mut html = format!(
        "<section><h3><b>{}</b> <code>{}</code> {}</h3><p>{}</p>",
        escape(&method.to_uppercase()),
        escape(path),
        prose(&operation["summary"]),
        prose(&operation["description"]),
    );
    let parameters = operation["parameters"].as_array().map_or(&[][..], Vec::as_slice);
    if !parameters.is_empty() {
        html.push_str("<table><tr><th>parameter<th>example<th>meaning</tr>");
        for parameter in parameters {
            html.push_str(&format!(
                "<tr><td><code>{}</code><td><code>{}</code><td>{}</tr>",
                escape(text(&parameter["name"])),
                escape(&shown(&parameter["example"])),
                prose(&parameter["description"]),
            ));
        }
        html.push_str("</table>");
    }
    html.push_str("<table><tr><th>status<th>type<th>meaning</tr>");
    for (status, response) in operation["responses"].as_object().into_iter().flatten() {
        let types = response["content"].as_object();
        let types = types
            .into_iter()
            .flatten()
            .map(|(name, content)| format!("{} {}", escape(name), schema_name(&content["schema"])));
        html.push_str(&format!(
            "<tr><td>{}<td>{}<td>{}</tr>",
            escape(status),
            types.collect::<Vec<_>>().join("<br>"),
            prose(&response["description"]),
        ));
    }
    html.push_str("</table></section>");
    html
}

fn schema_html(name: &str, schema: &Value) -> String {
    let mut html = format!(
        "<section id='{name}'><h3><code>{name}</code></h3><p>{}</p><table>",
        prose(&schema["description"]),
        name = escape(name),
    );
    for (field, inner) in schema["properties"].as_object().into_iter().flatten() {
        html.push_str(&format!(
            "<tr><td><code>{}</code><td>{}<td><code>{}</code><td>{}</tr>",
            escape(field),
            schema_name(inner),
            escape(&shown(&inner["example"])),
            prose(&inner["description"]),
        ));
    }
    for variant in schema["oneOf"].as_array().into_iter().flatten() {
        let value = shown(&variant["enum"][0]);
        let meaning = prose(&variant["description"]);
        html.push_str(&format!("<tr><td><code>{}</code><td>{meaning}</tr>", escape(&value)));
    }
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<String> = values.iter().map(|value| escape(&shown(value))).collect();
        html.push_str(&format!("<tr><td><code>{}</code></tr>", values.join(" | ")));
    }
    html.push_str("</table></section>");
    html
}

fn schema_name(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        let name = escape(name);
        return format!("<a href='#{name}'>{name}</a>");
    }
    if let Some(any) = schema["oneOf"].as_array() {
        return any.iter().map(schema_name).collect::<Vec<_>>().join(" or ");
    }
    match &schema["type"] {
        Value::String(kind) if kind == "array" => {
            format!("list of {}", schema_name(&schema["items"]))
        }
        Value::Array(kinds) => {
            kinds.iter().map(|kind| escape(text(kind))).collect::<Vec<_>>().join(" or ")
        }
        kind => escape(text(kind)),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Text with `` `code` `` marked as such.
fn prose(value: &Value) -> String {
    let mut html = String::new();
    for (at, part) in text(value).split('`').enumerate() {
        let part = escape(part);
        html.push_str(&if at % 2 == 1 { format!("<code>{part}</code>") } else { part });
    }
    html
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}
