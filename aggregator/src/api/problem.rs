//! What the API answers when it cannot answer: RFC 9457 problem details.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// A refusal or failure, saying what was wrong and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Problem {
    /// Which kind of problem, for programs.
    #[serde(rename = "type")]
    #[schema(example = "urn:lens:problem:unknown-parameter")]
    pub kind: &'static str,
    /// The kind in words.
    #[schema(example = "Unknown parameter")]
    pub title: &'static str,
    /// The HTTP status.
    #[schema(example = 400)]
    pub status: u16,
    /// This occurrence in words.
    #[schema(value_type = String, example = "unknown parameter \"slcie\": did you mean \"slice\"?")]
    pub detail: Box<str>,
    /// The query parameter it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "slcie")]
    pub param: Option<Box<str>>,
    /// `false` on the endpoints whose answers carry `success`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success: Option<bool>,
    /// The title again, on the endpoints whose answers carry `success`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'static str>,
    /// The detail again, on the endpoints whose answers carry `success`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub message: Option<Box<str>>,
}

impl Problem {
    pub(super) fn new(
        status: StatusCode,
        kind: &'static str,
        title: &'static str,
        detail: String,
    ) -> Self {
        Self {
            kind,
            title,
            status: status.as_u16(),
            detail: detail.into(),
            param: None,
            success: None,
            error: None,
            message: None,
        }
    }

    /// A parameter no one knows here.
    pub(super) fn unknown_parameter(param: &str, known: &[&str]) -> Self {
        let nearest = known
            .iter()
            .map(|name| (strsim::damerau_levenshtein(param, name), *name))
            .min()
            .filter(|(distance, name)| *distance <= name.len().max(3) / 2);
        let shown: String = param.chars().take(80).collect();
        let detail = match (nearest, known.is_empty()) {
            (Some((_, name)), _) => {
                format!("unknown parameter {shown:?}: did you mean {name:?}?")
            }
            (None, true) => format!("unknown parameter {shown:?}: this endpoint takes none"),
            (None, false) => {
                format!("unknown parameter {shown:?}: this endpoint takes {}", known.join(", "))
            }
        };
        let title = "Unknown parameter";
        Self {
            param: Some(shown.into()),
            ..Self::new(
                StatusCode::BAD_REQUEST,
                "urn:lens:problem:unknown-parameter",
                title,
                detail,
            )
        }
    }

    /// A parameter whose value cannot be used.
    pub(super) fn bad_parameter(param: &str, detail: impl Into<String>) -> Self {
        let title = "Parameter value refused";
        Self {
            param: Some(param.into()),
            ..Self::new(
                StatusCode::BAD_REQUEST,
                "urn:lens:problem:bad-parameter",
                title,
                detail.into(),
            )
        }
    }

    /// Something named in the path or body that is not there.
    pub(super) fn no_such(what: &str, detail: impl Into<String>) -> Self {
        let detail = format!("{what}: {}", detail.into());
        Self::new(StatusCode::NOT_FOUND, "urn:lens:problem:no-such", "Not there", detail)
    }

    /// A query string that is not one.
    pub(super) fn bad_query(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "urn:lens:problem:bad-query",
            "Query string refused",
            detail.into(),
        )
    }

    /// A path nothing answers.
    pub(super) fn not_found(path: &str) -> Self {
        let path: String = path.chars().take(200).collect();
        let detail = format!("nothing answers at {path:?}; GET /openapi.json lists every path");
        Self::new(StatusCode::NOT_FOUND, "urn:lens:problem:not-found", "No such path", detail)
    }

    /// A method the path does not answer to.
    pub(super) fn method_not_allowed(method: &str, path: &str) -> Self {
        let path: String = path.chars().take(200).collect();
        let detail = format!("{path:?} does not answer to {method}; the Allow header says to what");
        let status = StatusCode::METHOD_NOT_ALLOWED;
        Self::new(status, "urn:lens:problem:method-not-allowed", "Method not allowed", detail)
    }

    /// Too much at once, or shutting down.
    pub(super) fn unavailable(detail: impl Into<String>) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self::new(status, "urn:lens:problem:unavailable", "Not available now", detail.into())
    }

    /// A body larger than is read.
    pub(super) fn too_large(limit: usize) -> Self {
        let detail = format!("the request body is larger than {limit} bytes");
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "urn:lens:problem:too-large",
            "Body too large",
            detail,
        )
    }

    /// A fault of the aggregator's own.
    pub(super) fn internal(detail: impl Into<String>) -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self::new(status, "urn:lens:problem:internal", "Internal fault", detail.into())
    }

    /// With `success`, `error` and `message` beside, as `/monitoring` answers carry them.
    pub(super) fn with_success(mut self) -> Self {
        self.success = Some(false);
        self.error = Some(self.title);
        self.message = Some(self.detail.clone());
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let content_type = HeaderValue::from_static("application/problem+json");
        let mut response = (status, [(header::CONTENT_TYPE, content_type)], body).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
