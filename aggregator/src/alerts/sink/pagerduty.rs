//! PagerDuty Events API v2: `POST /v2/enqueue`, one event an alert, its key as `dedup_key`.
//!
//! Limits: 512 KB a body, 1,024 characters of summary, 255 of `dedup_key`. 202 means accepted.

use serde_json::{Map, Value, json};

use super::{Context, Request, Secret, cut};
use crate::alerts::alert::Alert;
use crate::alerts::condition::Severity;
use crate::alerts::lifecycle::Kind;
use crate::alerts::notice::{Notice, subject};

/// Longest `payload.summary`.
const SUMMARY_MAX: usize = 1_024;

/// Longest `dedup_key`; a key is at most 180 bytes, so this only guards.
const DEDUP_MAX: usize = 255;

pub(super) fn request(
    url: &str,
    routing_key: &Secret,
    notice: &Notice,
    context: &Context<'_>,
) -> Request {
    let alert = &notice.alerts[0];
    let action = match notice.kind {
        Kind::Acknowledged => "acknowledge",
        Kind::Resolved => "resolve",
        Kind::Fired | Kind::Raised | Kind::Reopened | Kind::Escalated => "trigger",
    };
    let mut event = json!({
        "routing_key": routing_key.expose(),
        "event_action": action,
        "dedup_key": cut(&alert.key.to_string(), DEDUP_MAX),
    });
    if action == "trigger" {
        event["client"] = "lens".into();
        if let Some(url) = context.dashboard {
            event["client_url"] = url.into();
            event["links"] = json!([{"href": url, "text": "lens dashboard"}]);
        }
        event["payload"] = payload(notice, alert);
    }
    Request {
        url: Secret::new(format!("{url}/v2/enqueue")),
        headers: Vec::new(),
        body: super::json(&event),
    }
}

fn payload(notice: &Notice, alert: &Alert) -> Value {
    let severity = match alert.severity {
        Severity::Warning => "warning",
        Severity::Error => "error",
        Severity::Critical => "critical",
    };
    let source = alert.agents.first().map_or("lens-aggregator", String::as_str);
    let mut payload = Map::new();
    let summary = format!("{}. {}", notice.headline(), alert.summary);
    payload.insert("summary".into(), cut(&summary, SUMMARY_MAX).into());
    payload.insert("source".into(), source.into());
    payload.insert("severity".into(), severity.into());
    payload.insert("timestamp".into(), lens_service::time::rfc3339(notice.at).into());
    if let Some(stage) = alert.key.subject.stage {
        payload.insert("component".into(), stage.to_string().into());
    }
    let group =
        alert.key.subject.slice.as_ref().map_or_else(|| subject(alert), ToString::to_string);
    payload.insert("group".into(), group.into());
    payload.insert("class".into(), alert.key.rule.as_str().into());
    payload.insert(
        "custom_details".into(),
        json!({
            "evidence": alert.evidence,
            "recommended_actions": alert.actions,
            "opened": lens_service::time::rfc3339(alert.opened),
            "id": alert.key.id(),
        }),
    );
    payload.into()
}
