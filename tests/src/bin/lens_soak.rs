//! `lens-soak`: 200 agents on one aggregator for twenty minutes.
//!
//! It carries the aggregator it starts: the role is this very program.
//! Exit codes: 0 nobody refused and everything merged, 1 not so, 2 usage.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command's output is its purpose")]
#![allow(clippy::unwrap_used, reason = "the tests' own world, which panics where it cannot go on")]

#[path = "../../tests/soak/mod.rs"]
mod soak;
#[path = "../../tests/world/mod.rs"]
mod world;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use soak::{Orders, Soak};

/// Ships from many simulated agents to one aggregator with its durable store, over loopback, and
/// prints latency, memory and disk.
#[derive(Debug, Parser)]
#[command(name = "lens-soak", version, about)]
struct Args {
    /// Agents
    #[arg(long, value_name = "N", default_value_t = 200)]
    agents: usize,

    /// Series of each agent, shipped once a second
    #[arg(long, value_name = "N", default_value_t = 48)]
    series: usize,

    /// Samples of each series in a delta
    #[arg(long, value_name = "N", default_value_t = 100)]
    samples: usize,

    /// How long
    #[arg(long = "for", value_name = "DURATION", default_value = "20m",
        value_parser = lens_benches::arguments::duration)]
    time: Duration,

    /// Seed of all choices [default: a new one, printed]
    #[arg(long)]
    seed: Option<u64>,

    /// Append the results to benches/history/soak.jsonl
    #[arg(long)]
    record: bool,

    /// What must be known to read the results, kept with them
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("role") {
        return lens_cli::main();
    }
    let args = Args::parse();
    let seed = args.seed.unwrap_or_else(lens_benches::load::fresh_seed);
    println!("seed {seed}");
    let Args { agents, series, samples, time, .. } = args;
    let orders = Orders { agents, series, samples, time, seed };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let soak = runtime.block_on(soak::soak(orders));
    print(&soak);
    if args.record {
        let quick = orders.time < Duration::from_secs(600);
        let note = args.note.as_deref();
        match lens_benches::history::append("soak", quick, note, &soak.rows()) {
            Ok(path) => println!("appended to {path}"),
            Err(error) => eprintln!("lens-soak: the history cannot be written: {error}"),
        }
    }
    ExitCode::from(u8::from(soak.refusals() > 0 || !soak.exact))
}

fn print(soak: &Soak) {
    println!("{:>8}  {:>12}", "after s", "resident MiB");
    for look in soak.looks.iter().step_by((soak.looks.len() / 20).max(1)) {
        println!("{:>8.0}  {:>12}", look.after.as_secs_f64(), look.resident >> 20);
    }
    for (reason, agents) in &soak.report.failures {
        println!("failed {agents}: {reason}");
    }
    for row in soak.rows() {
        let verdict = match (row.met, &row.target) {
            (Some(true), Some(target)) => format!("PASS {target}"),
            (Some(false), Some(target)) => format!("MISS {target}"),
            _ => String::new(),
        };
        println!("{:<34} {:>14.3} {:<8} {verdict}", row.name, row.value, row.unit);
    }
}
