//! Alertmanager, `POST /api/v2/alerts`: an array of alerts, each its label set.
//!
//! It forgets an alert that is not sent again, so what fires is sent every `resend` with an end four
//! times as far off; one lost sending changes nothing, a dead aggregator ends its alerts by itself.
//! Labels are identity: an alert that becomes worse is another one there, and the old is ended.
//! A `generatorURL` that is no URL refuses the whole batch, so it is checked with the configuration.

use axum::http::header::AUTHORIZATION;
use lens_model::{Nanos, UnixNanos};
use serde_json::{Map, Value, json};

use super::{Context, Kind, Request, Secret, cut};
use crate::alerts::alert::Alert;
use crate::alerts::condition::Severity;
use crate::alerts::lifecycle;
use crate::alerts::notice::Notice;

/// How many times the resend interval an alert lives without being sent again.
const LIVES: u64 = 4;

/// Longest annotation, bytes.
const ANNOTATION_MAX: usize = 4_096;

pub(super) fn request(url: &str, token: Option<&Secret>, alerts: &[Value]) -> Request {
    let bearer = |token: &Secret| Secret::new(format!("Bearer {}", token.expose()));
    Request {
        url: Secret::new(format!("{url}/api/v2/alerts")),
        headers: token.map(|token| (AUTHORIZATION, bearer(token))).into_iter().collect(),
        body: super::json(&Value::from(alerts.to_vec())),
    }
}

/// What a notice tells: the alert as it now is, and the end of what it was told as before.
pub(super) fn told(notice: &Notice, kind: &Kind, context: &Context<'_>) -> Vec<Value> {
    let resend = match kind {
        Kind::Alertmanager { resend, .. } => *resend,
        _ => Nanos::from_secs(60),
    };
    let mut alerts = Vec::new();
    for held in &notice.alerts {
        match notice.kind {
            lifecycle::Kind::Resolved => {
                alerts.push(alert(
                    held,
                    held.severity,
                    held.resolved.unwrap_or(notice.at),
                    context,
                ));
            }
            _ => alerts.push(firing(held, resend, context)),
        }
        if let Some(before) = notice.before.filter(|before| *before != held.severity) {
            alerts.push(alert(held, before, notice.at, context));
        }
    }
    alerts
}

/// An alert that fires, for a while from now.
pub(super) fn firing(held: &Alert, resend: Nanos, context: &Context<'_>) -> Value {
    alert(held, held.severity, context.now.plus(Nanos(resend.0.saturating_mul(LIVES))), context)
}

fn alert(held: &Alert, severity: Severity, ends: UnixNanos, context: &Context<'_>) -> Value {
    let subject = &held.key.subject;
    let mut labels = Map::new();
    let mut label = |name: &str, value: String| labels.insert(name.into(), value.into());
    label("alertname", format!("lens_{}", held.key.rule));
    label("severity", severity.as_str().into());
    label("key", held.key.to_string());
    if let Some(slice) = &subject.slice {
        label("slice", slice.to_string());
    }
    if let Some(stage) = subject.stage {
        label("stage", stage.to_string());
    }
    if let Some(arm) = subject.arm {
        label("arm", arm.to_string());
    }
    if let Some(name) = &subject.name {
        label("name", name.clone());
    }
    let mut alert = json!({
        "labels": labels,
        "annotations": {
            "summary": cut(&held.summary, ANNOTATION_MAX),
            "description": cut(&held.actions.join("\n"), ANNOTATION_MAX),
        },
        "startsAt": lens_service::time::rfc3339(held.fired.unwrap_or(held.opened)),
        "endsAt": lens_service::time::rfc3339(ends),
    });
    if let Some(url) = context.dashboard {
        alert["generatorURL"] = url.into();
    }
    alert
}
