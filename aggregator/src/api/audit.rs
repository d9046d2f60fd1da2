//! `/api/v1/audit`.

use axum::Json;
use axum::extract::State;
use lens_model::limits::AUDIT_QUESTION_MAX;
use serde::Serialize;
use utoipa::ToSchema;

use super::params::Params;
use super::{Api, Problem};
use crate::audit::head::Head;
use crate::audit::{AuditError, Record};

/// Records returned when the question names no number.
const LIMIT_DEFAULT: usize = 100;

/// A part of the audit record.
#[derive(Serialize, ToSchema)]
pub(super) struct AuditAnswer {
    /// The records, oldest first.
    records: Vec<Record>,
    /// Where to go on; `null` at the end.
    next: Option<u64>,
    /// The head last signed.
    head: Head,
}

/// The audit record
///
/// Who asked what, hash-chained; `lens audit verify` checks the files themselves. Role: auditor.
#[utoipa::path(get, path = "/api/v1/audit", tag = "control", 
    params(
        ("from" = Option<u64>, Query, description = "Number of the first record wanted, from 1",
            example = 1),
        ("limit" = Option<u64>, Query, description = "How many, 1 to 1,000; 100 when left out",
            example = 100),
    ),
    responses(
        (status = 200, description = "The records", body = AuditAnswer),
        (status = 400, description = "A parameter is wrong", body = Problem,
            content_type = "application/problem+json"),
        (status = 403, description = "Not the role", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "There is no record", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn audit(
    State(api): State<Api>,
    params: Params,
) -> Result<Json<AuditAnswer>, Problem> {
    params.only(&["from", "limit"])?;
    let number = |name: &str, default: u64, most: u64| match params.one(name)? {
        None => Ok(default),
        Some(text) => {
            let number = text.parse().ok().filter(|number| (1..=most).contains(number));
            let says = format!("{text:?} is not a whole number from 1 to {most}");
            number.ok_or_else(|| Problem::bad_parameter(name, says))
        }
    };
    let from = number("from", 1, u64::MAX)?;
    let limit = number("limit", LIMIT_DEFAULT as u64, AUDIT_QUESTION_MAX as u64)?;
    let limit = usize::try_from(limit).unwrap_or(LIMIT_DEFAULT);
    let read = api.state.security.audit.read(from, limit).await;
    let (records, head) = read.map_err(|error| match error {
        AuditError::Off => Problem::conflict(error.to_string()),
        error => Problem::internal(error.to_string()),
    })?;
    let head = head.ok_or_else(|| Problem::unavailable("the head is not signed yet"))?;
    let full = records.len() == limit;
    let next = records.last().filter(|_| full).map(|record| record.n + 1);
    Ok(Json(AuditAnswer { records, next, head }))
}
