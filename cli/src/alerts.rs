//! `lens alerts`: list alerts, take them on, keep them quiet, declare them over, test a sink.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Subcommand};
use lens_service::exit::Exit;
use serde_json::{Value, json};

/// Longest the aggregator is waited for: a test waits for the sink in turn.
const ANSWER_MAX: Duration = Duration::from_secs(25);

/// What to do.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// List open alerts, sinks and the last deliveries.
    List(List),
    /// Take an alert on: the escalation chain stops.
    Ack(Act),
    /// Keep an alert quiet for a while.
    Silence(Silence),
    /// Declare an alert over that nothing will be heard of again.
    Resolve(Act),
    /// Send a test to a sink and say what came back.
    Test(Test),
}

/// Whom to ask and how to answer.
#[derive(ClapArgs, Debug)]
pub(crate) struct Ask {
    /// The aggregator's HTTP address.
    #[arg(long, default_value = "http://127.0.0.1:3000", env = "LENS_URL")]
    url: String,
    /// File with a token of the role operator, where the aggregator asks for one.
    #[arg(long, value_name = "FILE", env = "LENS_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Print the answer as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Which alerts.
#[derive(ClapArgs, Debug)]
pub(crate) struct List {
    /// Only those in this state: pending, firing, acknowledged, silenced or resolved.
    #[arg(long)]
    state: Option<String>,
    #[command(flatten)]
    ask: Ask,
}

/// Which alert, and who acts.
#[derive(ClapArgs, Debug)]
pub(crate) struct Act {
    /// The alert's id, as `lens alerts list` shows it.
    id: String,
    /// Who acts.
    #[arg(long, env = "USER", default_value = "operator")]
    by: String,
    /// Why.
    #[arg(long)]
    note: Option<String>,
    #[command(flatten)]
    ask: Ask,
}

/// Which alert, and for how long.
#[derive(ClapArgs, Debug)]
pub(crate) struct Silence {
    /// For how long, minutes.
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    #[command(flatten)]
    act: Act,
}

/// Which sink.
#[derive(ClapArgs, Debug)]
pub(crate) struct Test {
    /// The sink's name in the aggregator's configuration.
    sink: String,
    #[command(flatten)]
    ask: Ask,
}

/// Why there is no answer to show.
enum Failed {
    Unreachable(String),
    Refused(String),
}

/// Runs the command. 1 when the answer is no: a sink that did not take its test, an alert that is
/// not there.
#[allow(clippy::print_stdout, clippy::print_stderr)]
pub(crate) fn run(command: &Command) -> Exit {
    let (ask, path, body) = question(command);
    let token = match ask.token_file.as_ref().map(std::fs::read_to_string).transpose() {
        Ok(token) => token,
        Err(error) => {
            eprintln!("lens alerts: the token's file cannot be read: {error}");
            return Exit::Usage;
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("lens alerts: no runtime: {error}");
            return Exit::Internal;
        }
    };
    let answer = match runtime.block_on(fetch(&ask.url, &path, body, token)) {
        Ok(answer) => answer,
        Err(Failed::Unreachable(why)) => {
            eprintln!("lens alerts: {}: {why}: is an aggregator running there?", ask.url);
            return Exit::Unreachable;
        }
        Err(Failed::Refused(why)) => {
            eprintln!("lens alerts: {why}");
            return Exit::No;
        }
    };
    if ask.json {
        println!("{answer}");
    } else {
        show(command, &answer).iter().for_each(|line| println!("{line}"));
    }
    let taken = !matches!(command, Command::Test(_)) || answer["delivered"] == true;
    if taken { Exit::Done } else { Exit::No }
}

fn question(command: &Command) -> (&Ask, String, Option<Value>) {
    let act = |act: &Act, verb: &str| format!("/api/v1/alerts/{}/{verb}", segment(&act.id));
    let who = |act: &Act| json!({"by": act.by, "note": act.note});
    match command {
        Command::List(list) => {
            let query = list.state.as_ref().map(|state| format!("?state={}", segment(state)));
            (&list.ask, format!("/api/v1/alerts{}", query.unwrap_or_default()), None)
        }
        Command::Ack(of) => (&of.ask, act(of, "ack"), Some(who(of))),
        Command::Resolve(of) => (&of.ask, act(of, "resolve"), Some(who(of))),
        Command::Silence(silence) => {
            let mut body = who(&silence.act);
            body["minutes"] = silence.minutes.into();
            (&silence.act.ask, act(&silence.act, "silence"), Some(body))
        }
        Command::Test(test) => {
            (&test.ask, "/api/v1/alerts/test".into(), Some(json!({"sink": test.sink})))
        }
    }
}

/// A text as one part of an address.
fn segment(text: &str) -> String {
    let kept = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes()
        .map(|byte| if kept(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

async fn fetch(
    url: &str,
    path: &str,
    body: Option<Value>,
    token: Option<String>,
) -> Result<Value, Failed> {
    let address = format!("{}{path}", url.trim_end_matches('/'));
    let client = reqwest::Client::new();
    let request = match &body {
        Some(body) => client.post(&address).json(body),
        None => client.get(&address),
    };
    let request = match token {
        Some(token) => request.bearer_auth(token.trim()),
        None => request,
    };
    let unreachable = |error: reqwest::Error| Failed::Unreachable(error.without_url().to_string());
    let answer = request.timeout(ANSWER_MAX).send().await.map_err(unreachable)?;
    let good = answer.status().is_success();
    let body: Value = answer.json().await.map_err(unreachable)?;
    if good {
        return Ok(body);
    }
    Err(Failed::Refused(body["detail"].as_str().unwrap_or("refused without a reason").into()))
}

fn show(command: &Command, answer: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("–").to_owned();
    match command {
        Command::List(_) => listed(answer),
        Command::Test(_) => {
            let word = if answer["delivered"] == true { "delivered" } else { "not delivered" };
            vec![format!("{}: {word}: {}", text(&answer["sink"]), text(&answer["said"]))]
        }
        _ => lines(&json!([answer])),
    }
}

fn listed(answer: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("–").to_owned();
    let mut out = lines(&answer["alerts"]);
    if out.is_empty() {
        out.push("no alert is open".into());
    }
    for sink in answer["sinks"].as_array().into_iter().flatten() {
        let failing = match sink["failing_since"].as_str() {
            Some(since) => format!(", failing since {since}: {}", text(&sink["said"])),
            None => String::new(),
        };
        out.push(format!(
            "sink {} ({}): {} delivered, {} waiting, {} given up{failing}",
            text(&sink["name"]),
            text(&sink["kind"]),
            sink["delivered"],
            sink["queued"],
            sink["dead"],
        ));
    }
    if answer["durable"] == false {
        out.push("alerts.dir is not set: a restart forgets all of this".into());
    }
    out
}

/// Alerts, two lines each: what and since when, then why and what to do first.
pub(crate) fn lines(alerts: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("–").to_owned();
    let mut out = Vec::new();
    for alert in alerts.as_array().into_iter().flatten() {
        let unknown = if alert["reading"] == "unknown" { ", no data now" } else { "" };
        let by = alert["acknowledged_by"].as_str().map(|by| format!(" by {by}"));
        out.push(format!(
            "alert {} {} {}{}: {} since {}{unknown}",
            text(&alert["id"]),
            text(&alert["severity"]),
            text(&alert["state"]),
            by.unwrap_or_default(),
            text(&alert["key"]),
            text(&alert["opened"]),
        ));
        let first = text(&alert["recommended_actions"][0]);
        out.push(format!("      {}. {first}", text(&alert["summary"])));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_reads_as_what_since_when_why_and_what_to_do() {
        let alert = json!({"id": "9f", "severity": "critical", "state": "acknowledged",
            "acknowledged_by": "ann", "key": "slo_p95/a/b/c/stage_a/canary", "reading": "unknown",
            "opened": "2026-11-21T19:40:20Z", "summary": "p95 is 6 ms, limit 5 ms",
            "recommended_actions": ["One host is slow"]});
        let shown = lines(&json!([alert]));
        assert_eq!(
            shown,
            [
                "alert 9f critical acknowledged by ann: slo_p95/a/b/c/stage_a/canary since 2026-11-21T19:40:20Z, no data now",
                "      p95 is 6 ms, limit 5 ms. One host is slow",
            ]
        );
    }

    #[test]
    fn nothing_open_and_a_failing_sink_are_said() {
        let sink = json!({"name": "pager", "kind": "pagerduty", "delivered": 1, "queued": 2,
            "dead": 3, "failing_since": "2026-11-21T19:40:20Z", "said": "503"});
        let shown = listed(&json!({"alerts": [], "sinks": [sink], "durable": false}));
        assert_eq!(shown[0], "no alert is open");
        assert!(shown[1].contains("1 delivered, 2 waiting, 3 given up, failing since"));
        assert!(shown[2].contains("alerts.dir"));
    }

    #[test]
    fn an_id_is_one_part_of_the_address_whatever_it_holds() {
        assert_eq!(segment("9f3c"), "9f3c");
        assert_eq!(segment("a/b?c d"), "a%2Fb%3Fc%20d");
    }
}
