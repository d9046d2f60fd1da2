//! `lens capture`: pull the last minutes in fine steps, list what was pulled, take it away as a file.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use lens_service::exit::Exit;
use serde_json::{Value, json};

use crate::ask::{Ask, Failed, segment};

/// Longest a capture is waited for: the aggregator gives agents 20 s.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(250);

/// What to do.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Pull the last minutes from every agent, and wait until they are here.
    Take(Take),
    /// List captures.
    List(List),
    /// Write a capture to a file.
    Get(Get),
}

/// What to pull.
#[derive(ClapArgs, Debug)]
pub(crate) struct Take {
    /// Only this slice, `repo_type/language/size`.
    #[arg(long)]
    slice: Option<String>,
    /// Only this stage: stage_a, stage_b, stage_c or e2e.
    #[arg(long)]
    stage: Option<String>,
    /// Only this arm: baseline or canary.
    #[arg(long)]
    arm: Option<String>,
    /// How much of the past, seconds.
    #[arg(long, default_value_t = 600)]
    last: u64,
    /// Why.
    #[arg(long)]
    reason: Option<String>,
    /// Who asks.
    #[arg(long, env = "USER", default_value = "operator")]
    by: String,
    #[command(flatten)]
    ask: Ask,
}

/// All of them.
#[derive(ClapArgs, Debug)]
pub(crate) struct List {
    #[command(flatten)]
    ask: Ask,
}

/// Which, and in which form.
#[derive(ClapArgs, Debug)]
pub(crate) struct Get {
    /// The capture's id, as `lens capture list` shows it.
    id: String,
    /// The file's form.
    #[arg(long, value_enum, default_value_t = Form::Hlog)]
    format: Form,
    /// Where to write it; lens-ID.FORMAT here when left out.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    ask: Ask,
}

/// A form of the counts.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Form {
    /// HdrHistogram interval log, which `lens replay` reads.
    Hlog,
    /// Parquet: a row for each bucket of each step, series and node.
    Parquet,
}

/// Runs the command. 1 when the answer is no: nothing was captured, or there is no such capture.
#[allow(clippy::print_stdout, clippy::print_stderr)]
pub(crate) fn run(command: &Command) -> Exit {
    let done = match command {
        Command::Take(take) => take.run(),
        Command::List(list) => list.run(),
        Command::Get(get) => get.run(),
    };
    done.unwrap_or_else(|failed| {
        eprintln!("lens capture: {failed}");
        match failed {
            Failed::Refused { status: 404 | 409, .. } => Exit::No,
            failed => failed.exit(),
        }
    })
}

impl Take {
    #[allow(clippy::print_stdout)]
    fn run(&self) -> Result<Exit, Failed> {
        let wanted = json!({
            "slice": self.slice, "stage": self.stage, "arm": self.arm,
            "last_s": self.last, "reason": self.reason, "by": self.by,
        });
        let begun = self.ask.answer("/api/v1/captures", Some(&wanted))?;
        let path = format!("/api/v1/captures/{}", begun["id"].as_str().unwrap_or_default());
        let until = Instant::now() + WAIT_MAX;
        let mut capture = begun;
        while capture["state"] == "collecting" && Instant::now() < until {
            std::thread::sleep(LOOK);
            capture = self.ask.answer(&path, None)?;
        }
        if self.ask.json {
            println!("{capture}");
        } else {
            lines(&capture).iter().for_each(|line| println!("{line}"));
        }
        let taken = capture["state"] == "done" && capture["steps"].as_u64() > Some(0);
        Ok(if taken { Exit::Done } else { Exit::No })
    }
}

impl List {
    #[allow(clippy::print_stdout)]
    fn run(&self) -> Result<Exit, Failed> {
        let answer = self.ask.answer("/api/v1/captures", None)?;
        if self.ask.json {
            println!("{answer}");
            return Ok(Exit::Done);
        }
        let all = answer["captures"].as_array().cloned().unwrap_or_default();
        if all.is_empty() {
            println!("nothing is captured yet: lens capture take");
        }
        all.iter().flat_map(lines).for_each(|line| println!("{line}"));
        Ok(Exit::Done)
    }
}

impl Get {
    #[allow(clippy::print_stdout, clippy::print_stderr)]
    fn run(&self) -> Result<Exit, Failed> {
        let format = match self.format {
            Form::Hlog => "hlog",
            Form::Parquet => "parquet",
        };
        let path = format!("/api/v1/captures/{}?format={format}", segment(&self.id));
        let bytes = self.ask.bytes(&path)?;
        let default = || PathBuf::from(format!("lens-{}.{format}", segment(&self.id)));
        let out = self.out.clone().unwrap_or_else(default);
        if let Err(error) = std::fs::write(&out, &bytes) {
            eprintln!("lens capture: {}: {error}", out.display());
            return Ok(Exit::Usage);
        }
        if self.ask.json {
            println!("{}", json!({"file": out, "bytes": bytes.len()}));
        } else {
            println!("{}: {} bytes", out.display(), bytes.len());
        }
        Ok(Exit::Done)
    }
}

/// A capture as lines: which, of what, by whom; then each agent that has something to say.
fn lines(capture: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("–").to_owned();
    let part = |name: &str| capture[name].as_str().unwrap_or("all").to_owned();
    let agents = capture["agents"].as_array().cloned().unwrap_or_default();
    let answered = agents.iter().filter(|agent| agent["state"] == "answered").count();
    let mut out = vec![
        format!(
            "capture {} {}: {} to {}, {} {} {}, by {}: {}",
            text(&capture["id"]),
            text(&capture["state"]),
            text(&capture["from"]),
            text(&capture["to"]),
            part("slice"),
            part("stage"),
            part("arm"),
            text(&capture["by"]),
            text(&capture["reason"]),
        ),
        format!(
            "      {} samples in {} steps of {} series, {answered} of {} agents answered, {} slow \
             requests by their traces",
            capture["samples"],
            capture["steps"],
            capture["series"],
            agents.len(),
            capture["exemplars"].as_array().map_or(0, Vec::len),
        ),
    ];
    if let Some(why) = capture["failure"].as_str() {
        out.push(format!("      failed: {why}"));
    }
    if capture["truncated"] == true {
        out.push("      cut at the bound on a capture's size: name a slice or less time".into());
    }
    for agent in agents.iter().filter(|agent| agent["state"] != "answered") {
        let state = text(&agent["state"]).replace('_', " ");
        out.push(format!("      agent {}: {state}", text(&agent["agent"])));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_reads_as_which_of_what_and_who_did_not_answer() {
        let capture = json!({"id": "18a4", "state": "done", "from": "a", "to": "b",
            "slice": "backend/rust/large", "stage": null, "arm": null, "by": "ann",
            "reason": "slow", "samples": 12, "steps": 3, "series": 2, "exemplars": [{}],
            "agents": [{"agent": "h1", "state": "answered"}, {"agent": "h2", "state": "too_late"}],
            "truncated": true, "failure": null});
        assert_eq!(
            lines(&capture),
            [
                "capture 18a4 done: a to b, backend/rust/large all all, by ann: slow",
                "      12 samples in 3 steps of 2 series, 1 of 2 agents answered, 1 slow requests \
                 by their traces",
                "      cut at the bound on a capture's size: name a slice or less time",
                "      agent h2: too late",
            ]
        );
    }
}
