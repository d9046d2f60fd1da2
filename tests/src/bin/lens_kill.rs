//! `lens-kill`: the long campaign of kills.
//!
//! It carries what it kills: the roles of `lens` and the recording process are this very program.
//! Exit codes: 0 nothing lost or double, 1 something was, 2 usage.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command's output is its purpose")]
#![allow(clippy::unwrap_used, reason = "the tests' own world, which panics where it cannot go on")]

#[path = "../../tests/kill/mod.rs"]
mod kill;
#[path = "../../tests/world/mod.rs"]
mod world;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use kill::{Campaign, Orders, Report, Victim};

/// Kill processes of lens at random instants, start them again, and hold what was recorded against
/// what was merged, every twenty kills.
#[derive(Debug, Parser)]
#[command(name = "lens-kill", version, about)]
struct Args {
    /// Kills, at most
    #[arg(long, value_name = "N", default_value_t = 300)]
    kills: u64,

    /// Who is killed, in turn [default: node, agent, aggregator, agent+node, aggregator+agent]
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = Victim::named)]
    only: Vec<Victim>,

    /// Minutes, at most
    #[arg(long, value_name = "M", default_value_t = 15)]
    minutes: u64,

    /// Seed of all choices [default: a new one, printed]
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    let mut args = std::env::args();
    match args.nth(1).as_deref() {
        Some("role") => return lens_cli::main(),
        Some("record") => return recorded(args),
        _ => {}
    }
    let Args { kills, only, minutes, seed } = Args::parse();
    let victims = if only.is_empty() { Victim::ALL.to_vec() } else { only };
    let seed = seed.unwrap_or_else(lens_benches::load::fresh_seed);
    println!("seed {seed}");
    let orders = Orders { victims, kills, time: Duration::from_secs(minutes * 60), seed };
    let report = Campaign::new(seed).run(orders, |line| println!("{line}"));
    print(&report);
    ExitCode::from(u8::from(!report.books.agree()))
}

fn recorded(args: std::env::Args) -> ExitCode {
    match lens_tests::recording::run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("recording: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print(report: &Report) {
    println!("{:<18} {:>6} {:>8} {:>12} {:>12}", "killed", "kills", "resumed", "p50 ms", "p99 ms");
    for (victim, kills) in &report.kills {
        let resume = report.resume.get(victim);
        let cell = |value: Option<f64>| value.map_or_else(|| "-".into(), |ms| format!("{ms:.0}"));
        println!(
            "{victim:<18} {kills:>6} {:>8} {:>12} {:>12}",
            resume.map_or(0, |resume| resume.count),
            cell(resume.and_then(|resume| resume.p50_ms)),
            cell(resume.and_then(|resume| resume.p99_ms)),
        );
    }
    println!(
        "{} kills and {} of starting processes in {:.0} s; {} recording processes, {} records in \
         flight at their ends, {} of them made",
        report.kills_total,
        report.kills_starting,
        report.elapsed_s,
        report.node_lives,
        report.in_flight_max,
        report.in_flight_made,
    );
    println!("{}", report.books);
    println!("{}", serde_json::to_string(report).unwrap());
}
