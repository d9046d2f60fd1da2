//! `lens status`: an aggregator's health, series, alerts and agents, once.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args as ClapArgs;
use lens_service::exit::Exit;
use serde_json::Value;

use crate::alerts;
use crate::demo::snapshots;
use crate::terminal;

/// Longest the aggregator is waited for.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Whom to ask.
#[derive(ClapArgs, Debug)]
pub(crate) struct Args {
    /// The aggregator's HTTP address.
    #[arg(long, default_value = "http://127.0.0.1:3000", env = "LENS_URL")]
    url: String,
    /// File with a token of the role viewer, where the aggregator asks for one.
    #[arg(long, value_name = "FILE", env = "LENS_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Print the snapshot as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Asks, prints, and answers: 0 healthy, 1 not, 3 unreachable.
#[allow(clippy::print_stdout, clippy::print_stderr)]
pub(crate) fn run(args: &Args) -> Exit {
    let token = match args.token_file.as_ref().map(std::fs::read_to_string).transpose() {
        Ok(token) => token,
        Err(error) => {
            eprintln!("lens status: the token's file cannot be read: {error}");
            return Exit::Usage;
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("lens status: no runtime: {error}");
            return Exit::Internal;
        }
    };
    // A timer is made inside the runtime that drives it.
    let first = async { snapshots::first(&args.url, token.as_deref()).await };
    let asked = async { tokio::time::timeout(ANSWER_MAX, first).await };
    let asked = runtime.block_on(asked);
    let snapshot = match asked {
        Ok(Ok(snapshot)) => snapshot,
        Ok(Err(error)) => {
            eprintln!("lens status: {}: {error}: is an aggregator running there?", args.url);
            return Exit::Unreachable;
        }
        Err(_) => {
            let secs = ANSWER_MAX.as_secs();
            eprintln!("lens status: {} did not answer within {secs} s", args.url);
            return Exit::Unreachable;
        }
    };
    if args.json {
        println!("{snapshot}");
    } else {
        print(&snapshot);
    }
    let healthy = snapshot["health"]["status"] == "healthy";
    if healthy { Exit::Done } else { Exit::No }
}

/// What each broken tail rests on, one line a series.
fn broken(snapshot: &Value) -> Vec<String> {
    let rows = snapshot["rows"].as_array().into_iter().flatten();
    let line = |row: &Value| {
        let text = |name: &str| row[name].as_str().unwrap_or("–").to_owned();
        let decided = &row["evidence"]["decided"];
        format!(
            "{}/{}/{}: {}; since {}, {} disjoint windows in a row; {:.1} deviations where {:.1} are asked for",
            text("slice"),
            text("stage"),
            text("arm"),
            text("reason"),
            text("since"),
            row["consecutive_windows"],
            decided["z"].as_f64().unwrap_or(f64::INFINITY),
            decided["z_needed"].as_f64().unwrap_or(f64::NAN),
        )
    };
    rows.filter(|row| row["verdict"] == "violation").map(line).collect()
}

#[allow(clippy::print_stdout)]
fn print(snapshot: &Value) {
    let health = &snapshot["health"];
    let text = |value: &Value| value.as_str().unwrap_or("–").to_owned();
    println!("{}: {}", text(&health["status"]), text(&health["summary"]));
    for line in terminal::table(snapshot, terminal::wants_colour()) {
        println!("{line}");
    }
    for line in broken(snapshot) {
        println!("{line}");
    }
    for line in alerts::lines(&snapshot["alerts"]["open"]) {
        println!("{line}");
    }
    for guard in snapshot["guards"].as_array().into_iter().flatten() {
        let (name, state, message) = (&guard["guard"], &guard["state"], &guard["message"]);
        let since = guard["since"].as_str().map_or(String::new(), |at| format!(" since {at}"));
        println!("guard {}: {}{since}: {}", text(name), text(state), text(message));
    }
    for agent in snapshot["agents"].as_array().into_iter().flatten() {
        let state = if agent["connected"] == true { "connected" } else { "gone" };
        println!(
            "agent {}: {state}, {} samples, lag {}",
            text(&agent["name"]),
            terminal::count(agent["samples"].as_u64().unwrap_or(0)),
            terminal::latency(agent["lag_ms"].as_f64()),
        );
    }
}
