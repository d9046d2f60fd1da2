//! Why a command was not obeyed: problem details with what stands in the way and where the rollout
//! stands.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::api::Problem;
use crate::canary::controller::{NO_ROLLOUT, Refused};
use crate::canary::live::Cannot;
use crate::judge::canary::Blocker;

/// A refusal.
#[derive(Serialize)]
pub(super) struct Refusal {
    #[serde(flatten)]
    problem: Problem,
    blockers: Vec<Blocker>,
    /// `current_percentage` and `stage`.
    #[serde(flatten)]
    standing: Map<String, Value>,
}

impl Refusal {
    /// What is answered to a command that was not obeyed.
    pub(super) fn of(cannot: Cannot, standing: Map<String, Value>) -> Self {
        let detail = cannot.to_string();
        let (problem, blockers) = match cannot {
            Cannot::Refused(Refused::Blocked(blockers)) => (Problem::conflict(detail), blockers),
            // The origin's answer to a progress from nowhere.
            Cannot::Refused(Refused::Phase(NO_ROLLOUT)) => {
                let status = StatusCode::BAD_REQUEST;
                let kind = "urn:lens:problem:no-rollout";
                (Problem::new(status, kind, "No rollout", detail), Vec::new())
            }
            Cannot::Refused(_) => (Problem::conflict(detail), Vec::new()),
            _ => (Problem::unavailable(detail), Vec::new()),
        };
        Self { problem: problem.with_success(), blockers, standing }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.problem.status);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let kind = HeaderValue::from_static("application/problem+json");
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, [(header::CONTENT_TYPE, kind)], body).into_response()
    }
}
