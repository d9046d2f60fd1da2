//! `lens alerts`: list alerts, take them on, keep them quiet, declare them over, test a sink.

use clap::{Args as ClapArgs, Subcommand};
use lens_service::exit::Exit;
use serde_json::{Value, json};

use crate::ask::{Ask, Failed, segment};

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

/// Runs the command. 1 when the answer is no: a sink that did not take its test, an alert that is
/// not there.
#[allow(clippy::print_stdout, clippy::print_stderr)]
pub(crate) fn run(command: &Command) -> Exit {
    let (ask, path, body) = question(command);
    let answer = match ask.answer(&path, body.as_ref()) {
        Ok(answer) => answer,
        Err(failed) => {
            eprintln!("lens alerts: {failed}");
            return match failed {
                // An alert or a sink that is not there: the answer is no.
                Failed::Refused { .. } => Exit::No,
                failed => failed.exit(),
            };
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
}
