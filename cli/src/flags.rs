//! `lens flags`: what every setting holds, and setting one.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Subcommand};
use lens_flags::{Path, Value as Setting};
use lens_service::exit::Exit;
use serde_json::{Value, json};

/// Longest the aggregator is waited for.
const ANSWER_MAX: Duration = Duration::from_secs(25);

/// What to do.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Show what every setting holds, or one.
    Get(Get),
    /// Make a setting hold a value; connected nodes are told at once.
    Set(Set),
}

/// Whom to ask and how to answer.
#[derive(ClapArgs, Debug)]
pub(crate) struct Ask {
    /// The aggregator's HTTP address.
    #[arg(long, default_value = "http://127.0.0.1:3000", env = "LENS_URL")]
    url: String,
    /// File with a token, of the role releaser for setting, where the aggregator asks for one.
    #[arg(long, value_name = "FILE", env = "LENS_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Print the answer as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Which setting.
#[derive(ClapArgs, Debug)]
pub(crate) struct Get {
    /// The setting, such as stageB.lruCaching; all of them when left out.
    path: Option<String>,
    #[command(flatten)]
    ask: Ask,
}

/// Which setting, and what it is to hold.
#[derive(ClapArgs, Debug)]
pub(crate) struct Set {
    /// The setting, such as stageB.lruCaching.
    path: String,
    /// The value; `default` takes an override back.
    value: String,
    /// Why; kept with the override.
    #[arg(long, default_value = "")]
    reason: String,
    /// Until when, RFC 3339; until it is set back when left out.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    #[command(flatten)]
    ask: Ask,
}

/// Why there is no answer to show.
enum Failed {
    Usage(String),
    Unreachable(String),
    Forbidden(String),
    Refused(String),
}

/// Runs the command: 0 done, 1 refused as it stands, 2 usage, 3 unreachable, 4 not the role.
#[allow(clippy::print_stdout, clippy::print_stderr)]
pub(crate) fn run(command: &Command) -> Exit {
    let ask = match command {
        Command::Get(get) => &get.ask,
        Command::Set(set) => &set.ask,
    };
    let (exit, why) = match answer(command, ask) {
        Ok(answer) if ask.json => {
            println!("{answer}");
            return Exit::Done;
        }
        Ok(answer) => {
            show(command, &answer).iter().for_each(|line| println!("{line}"));
            return Exit::Done;
        }
        Err(Failed::Usage(why)) => (Exit::Usage, why),
        Err(Failed::Unreachable(why)) => {
            (Exit::Unreachable, format!("{}: {why}: is an aggregator running there?", ask.url))
        }
        Err(Failed::Forbidden(why)) => (Exit::Refused, why),
        Err(Failed::Refused(why)) => (Exit::No, why),
    };
    eprintln!("lens flags: {why}");
    exit
}

fn answer(command: &Command, ask: &Ask) -> Result<Value, Failed> {
    let usage = |error: &dyn std::fmt::Display| Failed::Usage(error.to_string());
    let known = |path: &str| Path::parse(path).map_err(|error| usage(&error));
    let request = match command {
        Command::Get(get) => {
            get.path.as_deref().map(known).transpose()?;
            None
        }
        Command::Set(set) => {
            let path = known(&set.path)?;
            let value = match set.value.as_str() {
                "default" => Value::Null,
                text => json!(Setting::parse(path, text).map_err(|error| usage(&error))?),
            };
            let mut body = json!({"value": value, "reason": set.reason});
            if let Some(until) = &set.until {
                body["expires_at"] = until.as_str().into();
            }
            Some((path, body))
        }
    };
    let token = ask.token_file.as_ref().map(std::fs::read_to_string).transpose();
    let token = token.map_err(|error| usage(&error))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| usage(&error))?;
    runtime.block_on(fetch(&ask.url, request, token))
}

async fn fetch(
    url: &str,
    request: Option<(Path, Value)>,
    token: Option<String>,
) -> Result<Value, Failed> {
    let (client, url) = (reqwest::Client::new(), url.trim_end_matches('/'));
    let request = match request {
        None => client.get(format!("{url}/flags")),
        Some((path, body)) => client.put(format!("{url}/flags/{path}")).json(&body),
    };
    let request = match token {
        Some(token) => request.bearer_auth(token.trim()),
        None => request,
    };
    let unreachable = |error: reqwest::Error| Failed::Unreachable(error.without_url().to_string());
    let answer = request.timeout(ANSWER_MAX).send().await.map_err(unreachable)?;
    let status = answer.status();
    let body: Value = answer.json().await.map_err(unreachable)?;
    if status.is_success() {
        return Ok(body);
    }
    let why = body["detail"].as_str().unwrap_or("refused without a reason").to_owned();
    let forbidden = matches!(status.as_u16(), 401 | 403);
    Err(if forbidden { Failed::Forbidden(why) } else { Failed::Refused(why) })
}

fn show(command: &Command, answer: &Value) -> Vec<String> {
    match command {
        Command::Get(get) => listed(answer, get.path.as_deref()),
        Command::Set(_) => {
            let path = answer["path"].as_str().unwrap_or_default();
            vec![format!("{path} is {}, generation {}", answer["value"], answer["generation"])]
        }
    }
}

/// Each setting with what it holds and why, then what holds above all of them.
fn listed(answer: &Value, only: Option<&str>) -> Vec<String> {
    let mut out = Vec::new();
    for path in Path::all().map(Path::as_str).filter(|path| only.is_none_or(|only| only == *path)) {
        let value = path.split('.').fold(&answer["config"], |tree, name| &tree[name]);
        let held = &answer["overrides"][path];
        let why = held["reason"].as_str().map(|reason| {
            let until = held["expiresAt"].as_str().map(|end| format!(", until {end}"));
            let by = held["by"].as_str().unwrap_or_default();
            format!("  ({reason}, by {by}{})", until.unwrap_or_default())
        });
        out.push(format!("{path} = {value}{}", why.unwrap_or_default()));
    }
    for (name, word) in [("killed", "kill switch engaged"), ("emergency", "emergency")] {
        if let Some(reason) = answer[name]["reason"].as_str() {
            out.push(format!("{word}: {reason}: every flag reads off"));
        }
    }
    if let Some(why) = answer["undurable"].as_str() {
        out.push(format!("the last change is in force and not durable yet: {why}"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_shown_with_what_it_holds_and_why() {
        let answer = json!({
            "config": {"stageB": {"lruCaching": true}, "emergencyDisable": false},
            "overrides": {"stageB.lruCaching":
                {"reason": "tail", "by": "ann", "expiresAt": "2026-12-01T00:00:00Z"}},
            "killed": {"reason": "p99 tripled"},
        });
        let shown = listed(&answer, Some("stageB.lruCaching"));
        assert_eq!(
            shown,
            [
                "stageB.lruCaching = true  (tail, by ann, until 2026-12-01T00:00:00Z)",
                "kill switch engaged: p99 tripled: every flag reads off",
            ]
        );
        assert_eq!(listed(&answer, None).len(), Path::all().count() + 1);
    }
}
