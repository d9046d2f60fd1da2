//! Sinks: where notices go. Each is two pure functions: a notice into a request, an answer into what
//! became of it. Sockets, queues and clocks are elsewhere.
//!
//! Promise: every text and list is cut to the receiver's limit before it is sent, because one field
//! too long is refused for the whole message. A secret is in the request and nowhere else.

mod alertmanager;
mod pagerduty;
mod slack;
#[cfg(test)]
pub(super) mod tests;
mod webhook;

use std::fmt;

use axum::http::HeaderName;
use lens_model::{Nanos, UnixNanos};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::alert::Alert;
use super::condition::Severity;
use super::notice::Notice;

pub use webhook::SigningKey;

/// Most of an answer that is kept for people, bytes.
pub const SAID_BYTES_MAX: usize = 300;

/// Longest a receiver may ask to be left alone for: it is asked again at the latest then.
pub const RETRY_AFTER_MAX: Nanos = Nanos::from_secs(600);

/// A text that is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text from being shown.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Which protocol, with what it needs.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// PagerDuty Events API v2.
    PagerDuty {
        /// Such as `https://events.pagerduty.com`.
        url: String,
        /// The integration key.
        routing_key: Secret,
    },
    /// A Slack incoming webhook, whose address is its secret.
    SlackWebhook {
        /// The address.
        url: Secret,
    },
    /// A Slack bot, which can change what it wrote.
    SlackBot {
        /// Such as `https://slack.com/api`.
        url: String,
        /// The token, `xoxb-…`.
        token: Secret,
        /// The channel's id or name.
        channel: String,
    },
    /// Alertmanager, API v2.
    Alertmanager {
        /// Such as `http://alertmanager:9093`.
        url: String,
        /// Sent as a bearer token if there is one.
        token: Option<Secret>,
        /// Time between two sendings of what fires.
        resend: Nanos,
    },
    /// JSON, signed as in Standard Webhooks.
    Webhook {
        /// The address.
        url: String,
        /// The keys, the newest first; each signs, so that a receiver may still hold the old one.
        keys: Vec<SigningKey>,
    },
    /// The aggregator's own log.
    Log,
}

/// One configured sink.
#[derive(Clone, Debug, PartialEq)]
pub struct Sink {
    /// Its name, by which it is shown.
    pub name: String,
    /// How it is spoken to.
    pub kind: Kind,
    /// Least severity it hears of.
    pub severity_min: Severity,
}

/// One HTTP POST.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Where to; may be a secret.
    pub url: Secret,
    /// Headers; the content type is JSON when none is among them.
    pub headers: Vec<(HeaderName, Secret)>,
    /// The body, exactly as signed.
    pub body: Vec<u8>,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// `Retry-After`, if it was a number of seconds.
    pub retry_after: Option<Nanos>,
    /// The beginning of the body.
    pub body: String,
}

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Taken. PagerDuty's 202 means accepted, not that anyone was paged.
    Delivered {
        /// What it said.
        said: String,
        /// Where a bot's message stands, to change it later.
        thread: Option<Thread>,
    },
    /// Not now.
    Retry {
        /// Not before this has passed, if it said.
        after: Option<Nanos>,
        /// What it said.
        said: String,
    },
    /// Never: sending the same again would be refused again.
    Refused {
        /// What it said.
        said: String,
    },
}

/// A bot's message about one alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thread {
    /// The channel's id.
    pub channel: String,
    /// The message's.
    pub ts: String,
}

/// What a request is made of beside the notice.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Where people see more.
    pub dashboard: Option<&'a str>,
    /// The bot's message about the notice's one alert.
    pub thread: Option<&'a Thread>,
    /// The instant.
    pub now: UnixNanos,
}

impl Kind {
    /// The name used in the configuration and in metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::PagerDuty { .. } => "pagerduty",
            Self::SlackWebhook { .. } | Self::SlackBot { .. } => "slack",
            Self::Alertmanager { .. } => "alertmanager",
            Self::Webhook { .. } => "webhook",
            Self::Log => "log",
        }
    }

    /// Whether several alerts go in one message: for what people read.
    pub const fn groups(&self) -> bool {
        matches!(self, Self::SlackWebhook { .. } | Self::SlackBot { .. } | Self::Log)
    }

    /// Least time between two messages, by the receiver's limits: 120 events a minute, 1 a second.
    pub const fn gap(&self) -> Nanos {
        match self {
            Self::PagerDuty { .. } => Nanos::from_millis(500),
            Self::SlackWebhook { .. } | Self::SlackBot { .. } => Nanos::from_millis(1_000),
            _ => Nanos(0),
        }
    }

    /// The request that tells a notice; `None` for the log.
    pub fn request(&self, notice: &Notice, context: &Context<'_>) -> Option<Request> {
        Some(match self {
            Self::PagerDuty { url, routing_key } => {
                pagerduty::request(url, routing_key, notice, context)
            }
            Self::SlackWebhook { url } => slack::webhook(url, notice, context),
            Self::SlackBot { url, token, channel } => {
                slack::bot(url, token, channel, notice, context)
            }
            Self::Alertmanager { url, token, .. } => alertmanager::request(
                url,
                token.as_ref(),
                &alertmanager::told(notice, self, context),
            ),
            Self::Webhook { url, keys } => webhook::request(url, keys, notice, context),
            Self::Log => return None,
        })
    }

    /// The request that tells Alertmanager again of everything that fires; `None` for other sinks
    /// and when nothing does.
    pub fn again<'a>(
        &self,
        firing: impl Iterator<Item = &'a Alert>,
        context: &Context<'_>,
    ) -> Option<Request> {
        let Self::Alertmanager { url, token, resend } = self else { return None };
        let alerts: Vec<Value> =
            firing.map(|alert| alertmanager::firing(alert, *resend, context)).collect();
        (!alerts.is_empty()).then(|| alertmanager::request(url, token.as_ref(), &alerts))
    }

    /// What an answer means.
    pub fn outcome(&self, answer: &Answer) -> Outcome {
        match self {
            Self::SlackBot { .. } => slack::bot_outcome(answer),
            Self::SlackWebhook { .. } | Self::PagerDuty { .. } => by_status(answer, &[]),
            // A receiver that says 410 wants no more of it; 408 and 425 ask to come again.
            Self::Webhook { .. } | Self::Alertmanager { .. } | Self::Log => {
                by_status(answer, &[408, 425])
            }
        }
    }
}

/// 2xx is taken, 429 and 5xx come again, everything else – redirects included – is refused.
fn by_status(answer: &Answer, again: &[u16]) -> Outcome {
    let said = said(answer);
    match answer.status {
        200..=299 => Outcome::Delivered { said, thread: None },
        429 | 500..=599 => retry(answer, said),
        status if again.contains(&status) => retry(answer, said),
        _ => Outcome::Refused { said },
    }
}

fn retry(answer: &Answer, said: String) -> Outcome {
    Outcome::Retry { after: answer.retry_after.map(|after| after.min(RETRY_AFTER_MAX)), said }
}

fn said(answer: &Answer) -> String {
    let body = cut(answer.body.trim(), SAID_BYTES_MAX);
    if body.is_empty() { answer.status.to_string() } else { format!("{} {body}", answer.status) }
}

/// A text cut to at most so many bytes, at a character, an ellipsis in place of the rest.
pub(super) fn cut(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let mut end = bytes_max.saturating_sub('…'.len_utf8());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

fn json(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}
