//! Slack: an incoming webhook, or a bot that changes what it wrote.
//!
//! Limits, each of which refuses the whole message: 50 blocks, 150 characters in a header, 3,000 in
//! a section, 2,000 in each of 10 fields, 75 on a button. A webhook's success is 200; a bot's is 200
//! *and* `"ok":true`. A webhook message can never be changed, so everything is a new message there.

use axum::http::header::AUTHORIZATION;
use lens_model::Nanos;
use serde_json::{Value, json};

use super::{Answer, Context, Outcome, Request, Secret, Thread, cut};
use crate::alerts::condition::Severity;
use crate::alerts::lifecycle::Kind;
use crate::alerts::notice::{Notice, subject};

const HEADER_MAX: usize = 150;
const SECTION_MAX: usize = 3_000;
const FIELD_MAX: usize = 2_000;

/// Alerts listed in one message; the rest is counted.
const LISTED_MAX: usize = 10;

/// What a bot may be told that says to come again.
const AGAIN: [&str; 6] = [
    "ratelimited",
    "rate_limited",
    "internal_error",
    "fatal_error",
    "service_unavailable",
    "request_timeout",
];

pub(super) fn webhook(url: &Secret, notice: &Notice, context: &Context<'_>) -> Request {
    let body = json!({"text": text(notice), "blocks": blocks(notice, context)});
    Request { url: url.clone(), headers: Vec::new(), body: super::json(&body) }
}

pub(super) fn bot(
    url: &str,
    token: &Secret,
    channel: &str,
    notice: &Notice,
    context: &Context<'_>,
) -> Request {
    let mut body = json!({
        "channel": channel,
        "text": text(notice),
        "blocks": blocks(notice, context),
    });
    let mut method = "chat.postMessage";
    if let Some(thread) = context.thread {
        body["channel"] = thread.channel.as_str().into();
        match notice.kind {
            // What is no news to anyone changes the message that stands there.
            Kind::Acknowledged | Kind::Resolved => {
                method = "chat.update";
                body["ts"] = thread.ts.as_str().into();
            }
            _ => {
                body["thread_ts"] = thread.ts.as_str().into();
                body["reply_broadcast"] = true.into();
            }
        }
    }
    if method == "chat.postMessage" {
        body["unfurl_links"] = false.into();
    }
    Request {
        url: Secret::new(format!("{url}/{method}")),
        headers: vec![(AUTHORIZATION, Secret::new(format!("Bearer {}", token.expose())))],
        body: super::json(&body),
    }
}

/// A bot's answer: the status says little, `ok` says it.
pub(super) fn bot_outcome(answer: &Answer) -> Outcome {
    let plain = super::by_status(answer, &[]);
    let Outcome::Delivered { .. } = plain else { return plain };
    let Ok(body) = serde_json::from_str::<Value>(&answer.body) else {
        return Outcome::Retry { after: None, said: format!("no JSON: {}", super::said(answer)) };
    };
    if body["ok"] == true {
        let text = |value: &Value| value.as_str().map(|text| cut(text, 64));
        let thread = match (text(&body["channel"]), text(&body["ts"])) {
            (Some(channel), Some(ts)) => Some(Thread { channel, ts }),
            _ => None,
        };
        return Outcome::Delivered { said: "ok".into(), thread };
    }
    let error = cut(body["error"].as_str().unwrap_or("ok is not true"), super::SAID_BYTES_MAX);
    if AGAIN.contains(&error.as_str()) {
        let after = answer.retry_after.or(Some(Nanos::from_secs(1)));
        return Outcome::Retry { after, said: error };
    }
    Outcome::Refused { said: error }
}

/// The message in one line, for notifications and readers of the screen.
fn text(notice: &Notice) -> String {
    cut(&escape(&format!("[{}] {}", notice.severity().as_str(), notice.headline())), SECTION_MAX)
}

fn blocks(notice: &Notice, context: &Context<'_>) -> Value {
    let mark = match (notice.kind, notice.severity()) {
        (Kind::Resolved, _) => ":white_check_mark:",
        (Kind::Acknowledged, _) => ":eyes:",
        (_, Severity::Critical) => ":rotating_light:",
        (_, Severity::Error) => ":red_circle:",
        (_, Severity::Warning) => ":warning:",
    };
    let head = cut(&format!("{mark} {}", notice.headline()), HEADER_MAX);
    let mut blocks = vec![json!({"type": "header",
        "text": {"type": "plain_text", "text": head, "emoji": true}})];
    if let [alert] = &notice.alerts[..] {
        blocks.push(section(&alert.summary));
        let mut fields = vec![
            field("Severity", alert.severity.as_str()),
            field("Since", &lens_service::time::rfc3339(alert.opened)),
            field("Key", &alert.key.to_string()),
        ];
        if let Some(ack) = &alert.ack {
            fields.push(field("Taken on by", &ack.by));
        }
        blocks.push(json!({"type": "section", "fields": fields}));
        if notice.kind != Kind::Resolved && !alert.actions.is_empty() {
            let actions: Vec<String> =
                alert.actions.iter().map(|action| format!("• {action}")).collect();
            blocks.push(section(&actions.join("\n")));
        }
    } else {
        let listed = notice.alerts.iter().take(LISTED_MAX);
        let mut lines: Vec<String> = listed
            .map(|alert| format!("• {} – {}", subject(alert), cut(&alert.summary, 200)))
            .collect();
        if notice.alerts.len() > LISTED_MAX {
            lines.push(format!("… and {} more", notice.alerts.len() - LISTED_MAX));
        }
        blocks.push(section(&lines.join("\n")));
    }
    if let Some(url) = context.dashboard {
        blocks.push(json!({"type": "actions", "elements": [{"type": "button", "url": url,
            "action_id": "lens_dashboard",
            "text": {"type": "plain_text", "text": "Open the dashboard"}}]}));
    }
    blocks.into()
}

fn section(text: &str) -> Value {
    json!({"type": "section", "text": {"type": "mrkdwn", "text": cut(&escape(text), SECTION_MAX)}})
}

fn field(name: &str, value: &str) -> Value {
    let text = cut(&format!("*{name}*\n{}", escape(value)), FIELD_MAX);
    json!({"type": "mrkdwn", "text": text})
}

/// The three characters Slack gives a meaning.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
