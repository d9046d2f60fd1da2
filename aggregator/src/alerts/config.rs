//! `[alerts]`, `[[alerts.sink]]`, `[[alerts.escalation]]`, `[[alerts.maintenance]]`: the keys, and
//! what they mean once checked.
//!
//! Promise: every problem is reported, none of them shows a secret. Secrets are read from files that
//! only their owner can read.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use axum::http::Uri;
use lens_model::{Nanos, UnixNanos};
use lens_service::config::{Key, Kind as Holds, Problem, Settings};

use super::condition::Severity;
use super::policy::{Maintenance, Policy, Step};
use super::sink::{Kind, Secret, Sink};

/// Largest secret file, bytes.
const SECRET_BYTES_MAX: u64 = 16 << 10;

/// Longest name of a sink or step, bytes.
const NAME_BYTES_MAX: usize = 64;

/// The keys of `[[alerts.sink]]`.
pub const SINK_KEYS: &[Key] = &[
    Key { path: "name", kind: Holds::Text, default: None, doc: "what it is shown as" },
    Key {
        path: "kind",
        kind: Holds::Text,
        default: None,
        doc: "pagerduty, slack, alertmanager, webhook or log",
    },
    Key {
        path: "url",
        kind: Holds::Text,
        default: None,
        doc: "where it listens; for pagerduty and slack the public service when unset",
    },
    Key {
        path: "secret_file",
        kind: Holds::Path,
        default: None,
        doc: "pagerduty: the routing key; slack: webhook address or bot token; webhook: one whsec_ \
              key a line, newest first; alertmanager: a bearer token, optional. Mode 600",
    },
    Key { path: "channel", kind: Holds::Text, default: None, doc: "a slack bot's channel" },
    Key {
        path: "severity_min",
        kind: Holds::Text,
        default: Some("warning"),
        doc: "least severity it hears of: warning, error or critical",
    },
    Key {
        path: "resend_s",
        kind: Holds::Integer { min: 1, max: 600 },
        default: Some("30"),
        doc: "alertmanager: time between two sendings of what fires, seconds",
    },
];

/// The keys of `[[alerts.escalation]]`.
pub const ESCALATION_KEYS: &[Key] = &[
    Key { path: "name", kind: Holds::Text, default: None, doc: "who that is, such as secondary" },
    Key {
        path: "after_s",
        kind: Holds::Integer { min: 0, max: 86_400 },
        default: Some("0"),
        doc: "how long an alert fires unacknowledged before they hear of it, seconds",
    },
    Key { path: "sinks", kind: Holds::List, default: None, doc: "the sinks that reach them" },
    Key {
        path: "severity_min",
        kind: Holds::Text,
        default: Some("critical"),
        doc: "least severity that comes this far",
    },
];

/// The keys of `[[alerts.maintenance]]`.
pub const MAINTENANCE_KEYS: &[Key] = &[
    Key { path: "from", kind: Holds::Text, default: None, doc: "from when, RFC 3339" },
    Key { path: "to", kind: Holds::Text, default: None, doc: "until when, RFC 3339" },
    Key {
        path: "covers",
        kind: Holds::Text,
        default: Some(""),
        doc: "the beginning of the keys or slices it covers; everything when empty",
    },
    Key { path: "reason", kind: Holds::Text, default: None, doc: "why" },
];

/// Alerting, configured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// Where alerts and deliveries are kept; in memory when `None`.
    pub dir: Option<PathBuf>,
    /// Where people see more.
    pub dashboard: Option<String>,
    /// Time between two evaluations.
    pub interval: Nanos,
    /// The lifecycle's waiting times and the escalation chain.
    pub policy: Policy,
    /// Announced maintenance.
    pub maintenance: Vec<Maintenance>,
    /// The sinks.
    pub sinks: Vec<Sink>,
    /// How long a delivery is tried.
    pub retry_for: Nanos,
    /// What the adapter's own rules compare with.
    pub limits: super::sense::Limits,
}

impl Config {
    /// Checks what the table alone cannot. Problems are appended; what has any is left out.
    pub fn check(settings: &Settings, problems: &mut Vec<Problem>) -> Self {
        let secs = |key| Nanos::from_secs(settings.integer(key));
        let dashboard = settings.text("alerts.dashboard_url").map(str::to_owned);
        if let Some(Err(what)) = dashboard.as_deref().map(web) {
            say(problems, format!("alerts.dashboard_url {what}"));
        }
        let mut sinks = Vec::new();
        let mut names = BTreeSet::new();
        for (place, table) in settings.tables("alerts.sink").iter().enumerate() {
            let at = format!("alerts.sink[{place}]");
            let sink = sink(table).and_then(|sink| {
                let fresh = names.insert(sink.name.clone());
                fresh.then_some(sink).ok_or_else(|| vec!["name stands twice".into()])
            });
            take(problems, &at, sink, &mut sinks);
        }
        let mut chain = Vec::new();
        for (place, table) in settings.tables("alerts.escalation").iter().enumerate() {
            take(problems, &format!("alerts.escalation[{place}]"), step(table, &names), &mut chain);
        }
        chain.sort_by_key(|step| step.after);
        let mut maintenance = Vec::new();
        for (place, table) in settings.tables("alerts.maintenance").iter().enumerate() {
            let at = format!("alerts.maintenance[{place}]");
            take(problems, &at, window(table, place), &mut maintenance);
        }
        let policy = Policy {
            pending: secs("alerts.pending_s"),
            pending_silent: secs("alerts.pending_silent_s"),
            clear: secs("alerts.clear_s"),
            hold: secs("alerts.hold_s"),
            reopen: secs("alerts.reopen_s"),
            chain,
        };
        Self {
            dir: settings.path("alerts.dir"),
            dashboard,
            interval: secs("alerts.interval_s"),
            policy,
            maintenance,
            sinks,
            retry_for: secs("alerts.retry_for_s"),
            limits: super::sense::Limits {
                error_percent: settings.float("alerts.error_rate_percent"),
                lag: secs("alerts.lag_s"),
                spool_age: secs("alerts.spool_age_s"),
            },
        }
    }
}

fn say(problems: &mut Vec<Problem>, what: String) {
    problems.push(Problem { origin: "configuration".into(), what });
}

fn take<T>(problems: &mut Vec<Problem>, at: &str, read: Result<T, Vec<String>>, into: &mut Vec<T>) {
    match read {
        Ok(item) => into.push(item),
        Err(wrong) => wrong.into_iter().for_each(|what| say(problems, format!("{at}: {what}"))),
    }
}

/// Reads one sink; everything wrong with it at once.
fn sink(table: &Settings) -> Result<Sink, Vec<String>> {
    let mut wrong = Vec::new();
    let name = table.text("name").unwrap_or_default().to_owned();
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.is_ascii() {
        wrong.push(format!("name is {name:?}: give it 1 to {NAME_BYTES_MAX} ASCII characters"));
    }
    let severity_min = severity(table, &mut wrong);
    let kind = match table.text("kind") {
        Some("pagerduty") => pagerduty(table, &mut wrong),
        Some("slack") => slack(table, &mut wrong),
        Some("alertmanager") => alertmanager(table, &mut wrong),
        Some("webhook") => webhook(table, &mut wrong),
        Some("log") => Some(Kind::Log),
        other => {
            let kinds = "use pagerduty, slack, alertmanager, webhook or log";
            wrong.push(format!("kind is {:?}: {kinds}", other.unwrap_or("")));
            None
        }
    };
    match kind {
        Some(kind) if wrong.is_empty() => Ok(Sink { name, kind, severity_min }),
        _ => Err(wrong),
    }
}

fn severity(table: &Settings, wrong: &mut Vec<String>) -> Severity {
    let text = table.text("severity_min").unwrap_or("warning");
    text.parse().unwrap_or_else(|()| {
        wrong.push(format!("severity_min is {text:?}: use warning, error or critical"));
        Severity::Warning
    })
}

fn pagerduty(table: &Settings, wrong: &mut Vec<String>) -> Option<Kind> {
    let url = address(table, Some("https://events.pagerduty.com"), true, wrong);
    let routing_key = one_line(table, wrong)?;
    if routing_key.len() != 32 || !routing_key.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        wrong.push("secret_file holds no routing key: it has 32 letters and digits".into());
    }
    Some(Kind::PagerDuty { url: url?, routing_key: Secret::new(routing_key) })
}

fn slack(table: &Settings, wrong: &mut Vec<String>) -> Option<Kind> {
    let url = address(table, Some("https://slack.com/api"), true, wrong);
    let secret = one_line(table, wrong)?;
    if secret.starts_with("xox") {
        let channel = table.text("channel").unwrap_or_default().to_owned();
        if channel.is_empty() {
            wrong.push("channel is not set, and a bot needs one".into());
        }
        return Some(Kind::SlackBot { url: url?, token: Secret::new(secret), channel });
    }
    if let Err(what) = private(&secret) {
        let wanted = "it holds a webhook's address or a token that begins with xox";
        // What it holds is a secret, even when it is a wrong one.
        let what = what.split(':').next_back().unwrap_or_default().to_owned();
        wrong.push(format!("secret_file: {wanted};{what}"));
    }
    Some(Kind::SlackWebhook { url: Secret::new(secret) })
}

fn alertmanager(table: &Settings, wrong: &mut Vec<String>) -> Option<Kind> {
    let token = match table.path("secret_file") {
        Some(_) => Some(Secret::new(one_line(table, wrong)?)),
        None => None,
    };
    let url = address(table, None, false, wrong)?;
    Some(Kind::Alertmanager { url, token, resend: Nanos::from_secs(table.integer("resend_s")) })
}

fn webhook(table: &Settings, wrong: &mut Vec<String>) -> Option<Kind> {
    let url = address(table, None, false, wrong);
    let text = secret(table, wrong)?;
    let mut keys = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match line.parse() {
            Ok(key) => keys.push(key),
            Err(what) => wrong.push(format!("secret_file: {what}")),
        }
    }
    if keys.is_empty() && wrong.is_empty() {
        wrong.push("secret_file is empty: give it one whsec_ key a line".into());
    }
    Some(Kind::Webhook { url: url?, keys })
}

fn step(table: &Settings, sinks: &BTreeSet<String>) -> Result<Step, Vec<String>> {
    let mut wrong = Vec::new();
    let name = table.text("name").unwrap_or_default().to_owned();
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        wrong.push(format!("name is {name:?}: give it 1 to {NAME_BYTES_MAX} characters"));
    }
    let reached = table.list("sinks");
    if reached.is_empty() {
        wrong.push("sinks is empty: nobody would hear of it".into());
    }
    for sink in reached.iter().filter(|sink| !sinks.contains(*sink)) {
        wrong.push(format!("sinks names {sink:?}, which is no [[alerts.sink]]"));
    }
    let severity_min = severity(table, &mut wrong);
    let after = Nanos::from_secs(table.integer("after_s"));
    let step = Step { name, after, sinks: reached, severity_min };
    if wrong.is_empty() { Ok(step) } else { Err(wrong) }
}

fn window(table: &Settings, place: usize) -> Result<Maintenance, Vec<String>> {
    let mut wrong = Vec::new();
    let mut at = |key: &'static str| {
        let text = table.text(key).unwrap_or_default();
        lens_service::time::parse_rfc3339(text).unwrap_or_else(|| {
            wrong.push(format!("{key} is {text:?}: use RFC 3339, such as 2026-11-21T19:40:20Z"));
            UnixNanos(0)
        })
    };
    let (from, to) = (at("from"), at("to"));
    if wrong.is_empty() && from >= to {
        wrong.push("from is not before to".into());
    }
    let window = Maintenance {
        id: format!("config-{place}"),
        from,
        to,
        covers: table.text("covers").unwrap_or_default().into(),
        by: "configuration".into(),
        reason: table.text("reason").unwrap_or_default().into(),
    };
    if wrong.is_empty() { Ok(window) } else { Err(wrong) }
}

/// The configured address without a slash at its end. `secret` ones may go in clear to loopback only.
fn address(
    table: &Settings,
    default: Option<&str>,
    is_secret: bool,
    wrong: &mut Vec<String>,
) -> Option<String> {
    let Some(text) = table.text("url").or(default) else {
        wrong.push("url is not set".into());
        return None;
    };
    match if is_secret { private(text) } else { web(text) } {
        Ok(()) => Some(text.trim_end_matches('/').to_owned()),
        Err(what) => {
            wrong.push(format!("url {what}"));
            None
        }
    }
}

/// Whether it is an address of the web.
pub(crate) fn web(text: &str) -> Result<(), String> {
    let uri: Option<Uri> = text.parse().ok();
    let good = uri.is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|h| !h.is_empty())
    });
    if good {
        Ok(())
    } else {
        Err(format!("is {text:?}: use an address such as https://host/path"))
    }
}

/// Whether it is one over which a secret may go.
pub(crate) fn private(text: &str) -> Result<(), String> {
    web(text)?;
    let uri: Uri = text.parse().map_err(|_| String::new())?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let loopback = host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    if uri.scheme_str() == Some("https") || loopback {
        return Ok(());
    }
    Err("would send a secret in clear: use https".into())
}

fn one_line(table: &Settings, wrong: &mut Vec<String>) -> Option<String> {
    let text = secret(table, wrong)?.trim().to_owned();
    if text.is_empty() || text.contains(char::is_whitespace) {
        wrong.push("secret_file holds not exactly one word".into());
        return None;
    }
    Some(text)
}

fn secret(table: &Settings, wrong: &mut Vec<String>) -> Option<String> {
    let Some(path) = table.path("secret_file") else {
        wrong.push("secret_file is not set".into());
        return None;
    };
    read_secret(&path)
        .map_err(|what| wrong.push(format!("secret_file {}: {what}", path.display())))
        .ok()
}

pub(crate) fn read_secret(path: &Path) -> Result<String, String> {
    let meta = fs::metadata(path).map_err(|error| error.to_string())?;
    let mode = meta.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(format!("mode {mode:o} lets others read it: chmod 600 it"));
    }
    if meta.len() > SECRET_BYTES_MAX {
        return Err(format!("{} bytes, more than {SECRET_BYTES_MAX}", meta.len()));
    }
    fs::read_to_string(path).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::checked;

    fn check(flags: &[(&str, &str)]) -> (Config, String) {
        checked(flags, Config::check)
    }

    fn file(dir: &tempfile::TempDir, name: &str, text: &str, mode: u32) -> String {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path.display().to_string()
    }

    #[test]
    fn every_problem_of_every_sink_is_said_at_once_and_no_secret_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let open = file(&dir, "open", "e93facc04764012d7bfb002500d5d1a6", 0o644);
        let short = file(&dir, "short", "hush", 0o600);
        let (config, text) = check(&[
            ("alerts.dashboard_url", "lens.example"),
            ("alerts.sink.0.name", "pager"),
            ("alerts.sink.0.kind", "pagerduty"),
            ("alerts.sink.0.url", "http://events.example"),
            ("alerts.sink.0.secret_file", &open),
            ("alerts.sink.0.severity_min", "page"),
            ("alerts.sink.1.kind", "smoke"),
            ("alerts.sink.2.name", "hook"),
            ("alerts.sink.2.kind", "webhook"),
            ("alerts.sink.2.secret_file", &short),
            ("alerts.sink.3.name", "chat"),
            ("alerts.sink.3.kind", "slack"),
            ("alerts.sink.3.secret_file", &short),
            ("alerts.escalation.0.sinks", "nobody"),
            ("alerts.maintenance.0.from", "soon"),
        ]);
        assert!(config.sinks.is_empty());
        for part in [
            "alerts.dashboard_url is \"lens.example\"",
            "alerts.sink[0]: url would send a secret in clear",
            "alerts.sink[0]: secret_file",
            "mode 644 lets others read it",
            "alerts.sink[0]: severity_min is \"page\"",
            "alerts.sink[1]: name is \"\"",
            "alerts.sink[1]: kind is \"smoke\"",
            "alerts.sink[2]: url is not set",
            "alerts.sink[2]: secret_file: a line is no key",
            "alerts.sink[3]: secret_file: it holds a webhook's address or a token",
            "alerts.escalation[0]: sinks names \"nobody\"",
            "alerts.maintenance[0]: from is \"soon\"",
        ] {
            assert!(text.contains(part), "{part:?} missing in:\n{text}");
        }
        assert!(!text.contains("hush") && !text.contains("e93facc"), "{text}");
    }

    #[test]
    fn each_kind_of_sink_is_read_with_its_secret() {
        let dir = tempfile::tempdir().unwrap();
        let key = file(&dir, "key", "e93facc04764012d7bfb002500d5d1a6\n", 0o600);
        let hook = file(&dir, "hook", "https://hooks.slack.com/services/T/B/x\n", 0o600);
        let token = file(&dir, "token", "xoxb-1", 0o600);
        let keys = file(&dir, "keys", &"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n".repeat(2), 0o600);
        let (config, text) = check(&[
            ("alerts.sink.0.name", "pager"),
            ("alerts.sink.0.kind", "pagerduty"),
            ("alerts.sink.0.secret_file", &key),
            ("alerts.sink.0.severity_min", "critical"),
            ("alerts.sink.1.name", "chat"),
            ("alerts.sink.1.kind", "slack"),
            ("alerts.sink.1.secret_file", &hook),
            ("alerts.sink.2.name", "bot"),
            ("alerts.sink.2.kind", "slack"),
            ("alerts.sink.2.channel", "#alerts"),
            ("alerts.sink.2.secret_file", &token),
            ("alerts.sink.3.name", "am"),
            ("alerts.sink.3.kind", "alertmanager"),
            ("alerts.sink.3.url", "http://alertmanager:9093/"),
            ("alerts.sink.4.name", "hook"),
            ("alerts.sink.4.kind", "webhook"),
            ("alerts.sink.4.url", "http://127.0.0.1:1/x"),
            ("alerts.sink.4.secret_file", &keys),
            ("alerts.sink.5.name", "log"),
            ("alerts.sink.5.kind", "log"),
            ("alerts.escalation.0.name", "primary"),
            ("alerts.escalation.0.sinks", "pager"),
        ]);
        assert_eq!(text, "");
        let kinds: Vec<&str> = config.sinks.iter().map(|sink| sink.kind.as_str()).collect();
        assert_eq!(kinds, ["pagerduty", "slack", "slack", "alertmanager", "webhook", "log"]);
        let Kind::Alertmanager { url, .. } = &config.sinks[3].kind else { panic!() };
        assert_eq!(url, "http://alertmanager:9093");
        assert_eq!(config.policy.chain[0].severity_min, Severity::Critical);
    }
}
