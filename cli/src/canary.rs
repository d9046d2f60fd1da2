//! `lens canary`: where the rollout stands, and what people do about it.

use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, Subcommand};
use lens_service::exit::Exit;
use serde_json::{Value, json};

use crate::ask::{Ask, Failed};

/// What to do.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Show where the rollout stands and what stands in the way.
    Status(Plain),
    /// Begin a rollout.
    Start(Start),
    /// Go to the next step now; 1 when evidence is missing.
    Progress(Plain),
    /// End the rollout.
    Abort(Why),
    /// Turn everything off, at once.
    Kill(Why),
    /// Agree to release the kill switch; 1 until a second person did.
    ReleaseKill(Release),
    /// List decisions.
    Decisions(Plain),
    /// Write a decision's windows and plan to a directory, for `lens replay`.
    Replay(Replay),
}

/// Nothing more than whom to ask.
#[derive(ClapArgs, Debug)]
pub(crate) struct Plain {
    #[command(flatten)]
    ask: Ask,
}

/// Which version.
#[derive(ClapArgs, Debug)]
pub(crate) struct Start {
    /// The version under test.
    #[arg(value_name = "VERSION")]
    release: String,
    /// What chooses its users; a fresh one when left out.
    #[arg(long)]
    salt: Option<String>,
    #[command(flatten)]
    ask: Ask,
}

/// Why.
#[derive(ClapArgs, Debug)]
pub(crate) struct Why {
    /// Why, in a sentence.
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    ask: Ask,
}

/// Who agrees.
#[derive(ClapArgs, Debug)]
pub(crate) struct Release {
    /// A person who agrees, where the aggregator knows no callers; twice for two people.
    #[arg(long = "approval", value_name = "NAME")]
    approvals: Vec<String>,
    #[command(flatten)]
    ask: Ask,
}

/// Which decision, and where to.
#[derive(ClapArgs, Debug)]
pub(crate) struct Replay {
    /// The decision's id.
    id: u64,
    /// Directory the files are written to, made if it is not there.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    #[command(flatten)]
    ask: Ask,
}

/// Runs the command: 0 done, 1 the answer is no, 3 unreachable, 4 not allowed.
#[allow(clippy::print_stdout, clippy::print_stderr)]
pub(crate) fn run(command: &Command) -> Exit {
    if let Command::Replay(replay) = command {
        return fetched(replay);
    }
    let (ask, path, body) = question(command);
    let answer = match ask.answer(path, body.as_ref()) {
        Ok(answer) => answer,
        Err(failed) => {
            refused(ask, &failed);
            return failed.exit();
        }
    };
    if ask.json {
        println!("{answer}");
    } else {
        show(command, &answer).iter().for_each(|line| println!("{line}"));
    }
    if answer["released"] == false { Exit::No } else { Exit::Done }
}

fn question(command: &Command) -> (&Ask, &'static str, Option<Value>) {
    let why = |why: &Why| why.reason.as_ref().map_or_else(|| json!({}), |r| json!({"reason": r}));
    match command {
        Command::Status(of) => (&of.ask, "/canary/status", None),
        Command::Decisions(of) => (&of.ask, "/canary/decisions", None),
        Command::Start(of) => {
            let mut body = json!({"version": of.release});
            if let Some(salt) = &of.salt {
                body["salt"] = salt.as_str().into();
            }
            (&of.ask, "/canary/start", Some(body))
        }
        Command::Progress(of) => (&of.ask, "/canary/progress", Some(json!({}))),
        Command::Abort(of) => (&of.ask, "/canary/abort", Some(why(of))),
        Command::Kill(of) => (&of.ask, "/canary/killswitch", Some(why(of))),
        Command::ReleaseKill(of) => {
            (&of.ask, "/canary/release-kill", Some(json!({"approvals": of.approvals})))
        }
        Command::Replay(of) => (&of.ask, "", None),
    }
}

#[allow(clippy::print_stdout, clippy::print_stderr)]
fn refused(ask: &Ask, failed: &Failed) {
    if let Failed::Refused { body, .. } = failed {
        if ask.json {
            println!("{body}");
            return;
        }
        let blockers = blockers(&body["blockers"]);
        if !blockers.is_empty() {
            eprintln!("lens canary: not now:");
            blockers.iter().for_each(|line| eprintln!("{line}"));
            return;
        }
    }
    eprintln!("lens canary: {failed}");
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("–").to_owned()
}

fn blockers(blockers: &Value) -> Vec<String> {
    let line =
        |blocker: &Value| format!("  {}: {}", text(&blocker["code"]), text(&blocker["message"]));
    blockers.as_array().into_iter().flatten().map(line).collect()
}

fn show(command: &Command, answer: &Value) -> Vec<String> {
    match command {
        Command::Status(_) => status(&answer["canary_deployment"]),
        Command::Decisions(_) => decisions(&answer["decisions"]),
        Command::Start(_) => {
            let (version, salt) = (text(&answer["version"]), text(&answer["salt"]));
            vec![format!("{}: {version}, salt {salt}", text(&answer["message"]))]
        }
        _ => {
            let trouble = answer["trouble"].as_array().into_iter().flatten();
            let mut out = vec![text(&answer["message"])];
            out.extend(trouble.map(|trouble| format!("  but: {}", text(trouble))));
            out
        }
    }
}

fn status(canary: &Value) -> Vec<String> {
    let mut out = vec![format!(
        "{}: {} % step, {} % routed, version {}, generation {}",
        text(&canary["phase"]),
        canary["trafficPercentage"],
        canary["share_percent"],
        text(&canary["version"]),
        canary["generation"],
    )];
    if canary["phase"] != "idle" {
        out.push(format!("  since {}: {}", text(&canary["since"]), text(&canary["reason"])));
    }
    if let Some(left) = canary["dwell_remaining_s"].as_f64() {
        let next = text(&canary["nextStage"]);
        out.push(format!("  next {next}, in {left:.0} s at the earliest"));
    }
    let evidence = &canary["evidence"];
    if let (Some(harm), Some(shown)) =
        (evidence["harm"]["ln_e"].as_f64(), evidence["promotion"]["ln_e"].as_f64())
    {
        out.push(format!(
            "  ln E of harm {harm:.2} of {:.2}, of not being worse {shown:.2} of {:.2}",
            evidence["harm"]["bound"].as_f64().unwrap_or(f64::NAN),
            evidence["promotion"]["bound"].as_f64().unwrap_or(f64::NAN),
        ));
    }
    let found = blockers(&canary["blockers"]);
    if !found.is_empty() {
        out.push("in the way:".into());
        out.extend(found);
    }
    for back in canary["rollbackHistory"].as_array().into_iter().flatten() {
        out.push(format!(
            "taken back {} at {} %: {}: {}",
            text(&back["timestamp"]),
            back["metrics"]["previousTrafficPercentage"],
            text(&back["flagName"]),
            text(&back["reason"]),
        ));
    }
    out
}

fn decisions(decisions: &Value) -> Vec<String> {
    let line = |kept: &Value| {
        format!(
            "{} {} {} of {}: {}",
            kept["id"],
            text(&kept["t"]),
            text(&kept["word"]),
            text(&kept["version"]),
            text(&kept["decision"]["reason"]),
        )
    };
    let out: Vec<String> = decisions.as_array().into_iter().flatten().map(line).collect();
    if out.is_empty() { vec!["nothing was decided yet".into()] } else { out }
}

/// Writes what a replay needs, and says how to run it.
#[allow(clippy::print_stdout, clippy::print_stderr)]
fn fetched(replay: &Replay) -> Exit {
    let of = |part: &str| format!("/canary/decisions/{}/{part}", replay.id);
    let parts = [("windows.jsonl", of("replay")), ("plan.toml", of("plan"))];
    for (name, path) in parts {
        let text = match replay.ask.text(&path, None) {
            Ok(text) => text,
            Err(failed) => {
                refused(&replay.ask, &failed);
                return failed.exit();
            }
        };
        if let Err(error) = write(&replay.dir, name, &text) {
            eprintln!("lens canary replay: {}: {error}", replay.dir.join(name).display());
            return Exit::Usage;
        }
    }
    let at = |name: &str| replay.dir.join(name).display().to_string();
    let (windows, plan) = (at("windows.jsonl"), at("plan.toml"));
    if replay.ask.json {
        println!("{}", json!({"windows": windows, "plan": plan}));
    } else {
        println!("lens replay {windows} --canary --plan {plan}");
    }
    Exit::Done
}

fn write(dir: &Path, name: &str, text: &str) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    std::fs::write(dir.join(name), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_where_it_stands_what_is_in_the_way_and_what_was_taken_back() {
        let shown = status(&json!({
            "phase": "step", "trafficPercentage": 25.0, "share_percent": 25.0, "version": "1.5.0",
            "generation": 7, "since": "2026-11-26T01:00:00Z", "reason": "shown", "nextStage": "100%",
            "dwell_remaining_s": 12.4,
            "evidence": {"harm": {"ln_e": 0.5, "bound": 3.91}, "promotion": {"ln_e": 1.0, "bound": 3.0}},
            "blockers": [{"code": "dwell", "message": "this step has lasted 1 s of 13 s"}],
            "rollbackHistory": [{"timestamp": "t", "flagName": "canary_kill_switch", "reason": "r",
                "metrics": {"previousTrafficPercentage": 5.0}}],
        }));
        assert_eq!(shown[0], "step: 25.0 % step, 25.0 % routed, version 1.5.0, generation 7");
        assert_eq!(shown[2], "  next 100%, in 12 s at the earliest");
        assert!(shown.contains(&"  dwell: this step has lasted 1 s of 13 s".to_owned()));
        assert_eq!(shown.last().unwrap(), "taken back t at 5.0 %: canary_kill_switch: r");
    }
}
