//! The health of the whole: which slices are proven well, which are not, which cannot be told.
//!
//! A slice is healthy when at least one of its series has an `ok` tail verdict, none breaks a rule
//! and none is silent. A series whose samples moved to the other arm of its slice and stage is not
//! silent: that is what the end of a rollout looks like. A slice without a single decided verdict
//! is listed under `insufficient_data` and never counts as healthy.
//! Status: `critical` when an absolute limit is broken; `degraded` when a tail is too long, a canary's
//! whole query is slower than its baseline's by more than it may, a series is silent, or no slice is proven well; `healthy` otherwise.

use lens_model::{Arm, Slice, Stage};
use serde::Serialize;
use utoipa::ToSchema;

use super::Verdict;
use crate::snapshot::{E2eRegression, Incomplete, Row};

/// The three answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// At least one slice is proven well and none is known to be otherwise.
    Healthy,
    /// Something is wrong, or nothing is known.
    Degraded,
    /// A promise to users is broken.
    Critical,
}

/// Which rule is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ViolationKind {
    /// p99 over p95 is too large.
    Tail,
    /// An absolute limit is exceeded.
    Slo,
    /// The canary's whole query is slower than the baseline's by more than it may.
    E2eRegression,
}

/// One broken rule.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Violation {
    /// The slice.
    #[schema(value_type = String, example = "backend/rust/large")]
    pub slice: Slice,
    /// The stage.
    #[schema(value_type = String, example = "stage_b")]
    pub stage: Stage,
    /// The arm.
    #[schema(value_type = String, example = "canary")]
    pub arm: Arm,
    /// Which rule.
    pub kind: ViolationKind,
    /// One sentence saying how.
    #[schema(example = "p99 is 2.61 times p95, more than 2")]
    pub message: String,
}

/// The health of the whole.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Health {
    /// The answer.
    pub status: HealthStatus,
    /// Whether the answer is `healthy`.
    pub healthy: bool,
    /// Slices known or seen.
    pub total_slices: usize,
    /// Slices proven well.
    pub healthy_slices: usize,
    /// Slices about which nothing can be said yet.
    #[schema(value_type = Vec<String>)]
    pub insufficient_data: Vec<Slice>,
    /// Broken rules.
    pub violations: Vec<Violation>,
    /// Slices with a silent series.
    #[schema(value_type = Vec<String>)]
    pub stale: Vec<Slice>,
    /// Stretches within the summary window that an agent did not account for.
    pub incomplete: Vec<Incomplete>,
    /// One sentence for people.
    pub summary: String,
}

/// The health of these slices by these rows, which stand in order of slice.
pub fn health(slices: &[Slice], rows: &[Row], regressions: &[E2eRegression]) -> Health {
    let mut violations: Vec<Violation> = rows.iter().flat_map(violations).collect();
    let slower = regressions.iter().filter(|found| found.verdict == Verdict::Violation);
    violations.extend(slower.map(|found| Violation {
        slice: found.slice.clone(),
        stage: Stage::E2e,
        arm: Arm::Canary,
        kind: ViolationKind::E2eRegression,
        message: found.reason.clone(),
    }));
    let (mut stale, mut insufficient_data, mut healthy_slices) = (Vec::new(), Vec::new(), 0);
    for slice in slices {
        let begin = rows.partition_point(|row| row.slice < *slice);
        let count = rows[begin..].partition_point(|row| row.slice == *slice);
        let own = &rows[begin..begin + count];
        let is_silent = own.iter().any(|row| silent(row, own));
        let broken = violations.iter().any(|violation| violation.slice == *slice);
        let proven = own.iter().any(|row| row.verdict == Verdict::Ok);
        if is_silent {
            stale.push(slice.clone());
        } else if proven && !broken {
            healthy_slices += 1;
        } else if !broken {
            insufficient_data.push(slice.clone());
        }
    }
    let limit_broken = violations.iter().any(|violation| violation.kind == ViolationKind::Slo);
    let status = if limit_broken {
        HealthStatus::Critical
    } else if !violations.is_empty() || !stale.is_empty() || healthy_slices == 0 {
        HealthStatus::Degraded
    } else {
        HealthStatus::Healthy
    };
    let mut health = Health {
        status,
        healthy: status == HealthStatus::Healthy,
        total_slices: slices.len(),
        healthy_slices,
        insufficient_data,
        violations,
        stale,
        incomplete: Vec::new(),
        summary: String::new(),
    };
    health.summary = summary(&health, rows.is_empty());
    health
}

fn violations(row: &Row) -> Vec<Violation> {
    let violation = |kind, message| Violation {
        slice: row.slice.clone(),
        stage: row.stage,
        arm: row.arm,
        kind,
        message,
    };
    let mut found = Vec::new();
    if row.verdict == Verdict::Violation {
        found.push(violation(ViolationKind::Tail, row.reason.clone()));
    }
    for slo in row.slo.iter().filter(|slo| slo.state == Verdict::Violation) {
        let value = slo.value_ms.map_or("above range".to_owned(), |ms| format!("{ms:.3} ms"));
        let message = format!("{} is {value}, more than {} ms", slo.quantile, slo.limit_ms);
        found.push(violation(ViolationKind::Slo, message));
    }
    found
}

fn silent(row: &Row, same_slice: &[Row]) -> bool {
    let moved = || {
        let other_arm = |other: &&Row| other.stage == row.stage && other.arm != row.arm;
        same_slice.iter().filter(other_arm).any(|other| other.verdict != Verdict::Stale)
    };
    row.verdict == Verdict::Stale && !moved()
}

fn summary(health: &Health, unfed: bool) -> String {
    if unfed {
        return match health.total_slices {
            0 => "No samples were received yet, and no slices are configured.".into(),
            known => format!("No samples were received yet for any of {known} known slices."),
        };
    }
    let mut parts =
        vec![format!("{} of {} slices healthy", health.healthy_slices, health.total_slices)];
    let mut say = |count: usize, what: &str| {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    };
    say(health.violations.len(), "rules broken");
    say(health.stale.len(), "slices silent");
    say(health.insufficient_data.len(), "slices without enough samples");
    format!("{}.", parts.join(", "))
}
