//! `lens-load`: the load harness and the reference search node.
//!
//! Exit codes: 0 done, 1 the run ended with failed or unsent requests, 2 usage, 3 a service could
//! not be reached, 70 internal fault.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command's output is its purpose")]

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Parser, Subcommand};
use lens_benches::Quantiles;
use lens_benches::load::agents::{self, AgentsError, AgentsReport};
use lens_benches::load::agents_args::AgentsArgs;
use lens_benches::load::commands::{RecordArgs, SearchArgs};
use lens_benches::load::record::{self, RecordReport};
use lens_benches::load::search::{self, SearchError, SearchReport};
use lens_benches::node::{self, NodeArgs};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const UNREACHABLE: u8 = 3;
const INTERNAL: u8 = 70;

/// Open-loop load for lens, and the reference search node.
#[derive(Debug, Parser)]
#[command(name = "lens-load", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the reference search node until interrupted
    Node(NodeArgs),
    /// Record synthetic latencies as a node would, and print exactly what was recorded
    Record(RecordArgs),
    /// Send real queries to search nodes
    Search(SearchArgs),
    /// Ship synthetic latencies to an aggregator as many agents would
    Agents(AgentsArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(INTERNAL, &format!("cannot start the runtime: {error}")),
    };
    runtime.block_on(async {
        match cli.command {
            Command::Node(args) => match node::run(args.into_options(), interrupted()).await {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(USAGE, &error.to_string()),
            },
            Command::Record(args) => record_command(args).await,
            Command::Search(args) => search_command(args).await,
            Command::Agents(args) => agents_command(args).await,
        }
    })
}

/// Completes on the first SIGINT or SIGTERM; a second one ends the process at once.
async fn interrupted() {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        #[expect(clippy::exit, reason = "a second signal asks to end at once")]
        std::process::exit(i32::from(INTERNAL));
    });
}

async fn record_command(args: RecordArgs) -> ExitCode {
    let json = args.json;
    let load = args.into_load();
    let stop = Arc::new(AtomicBool::new(false));
    let stopper = Arc::clone(&stop);
    tokio::spawn(async move {
        interrupted().await;
        stopper.store(true, Ordering::Relaxed);
    });
    match tokio::task::spawn_blocking(move || record::run(&load, &stop)).await {
        Ok(Ok(report)) => {
            if json {
                print_json(&report)
            } else {
                print_record(&report)
            }
            ExitCode::SUCCESS
        }
        Ok(Err(error)) => fail(USAGE, &error.to_string()),
        Err(error) => fail(INTERNAL, &error.to_string()),
    }
}

async fn search_command(args: SearchArgs) -> ExitCode {
    let json = args.json;
    match search::run(args.into_load(), interrupted()).await {
        Ok(report) => {
            if json {
                print_json(&report)
            } else {
                print_search(&report)
            }
            ExitCode::from(if report.failed + report.unsent > 0 { FAILED } else { 0 })
        }
        Err(error @ SearchError::Unreachable { .. }) => fail(UNREACHABLE, &error.to_string()),
        Err(error) => fail(USAGE, &error.to_string()),
    }
}

async fn agents_command(args: AgentsArgs) -> ExitCode {
    let json = args.json;
    let done = match args.into_load() {
        Ok(load) => agents::run(load, interrupted()).await,
        Err(error) => Err(error),
    };
    match done {
        Ok(report) => {
            if json {
                print_json(&report)
            } else {
                print_agents(&report)
            }
            ExitCode::from(if report.is_complete() { 0 } else { FAILED })
        }
        Err(error @ AgentsError::Unreachable { .. }) => fail(UNREACHABLE, &error.to_string()),
        Err(error) => fail(USAGE, &error.to_string()),
    }
}

fn fail(code: u8, message: &str) -> ExitCode {
    eprintln!("lens-load: {message}");
    ExitCode::from(code)
}

fn print_json(report: &impl Serialize) {
    match serde_json::to_string(report) {
        Ok(line) => println!("{line}"),
        Err(error) => eprintln!("lens-load: the report cannot be written: {error}"),
    }
}

fn quantiles_line(quantiles: &Quantiles) -> String {
    let cell = |ms: Option<f64>| ms.map_or_else(|| "-".into(), |ms| format!("{ms:.3}"));
    format!(
        "{:>10} {:>11} {:>11} {:>11} {:>11}",
        quantiles.count,
        cell(quantiles.p50_ms),
        cell(quantiles.p95_ms),
        cell(quantiles.p99_ms),
        cell(quantiles.p99_9_ms)
    )
}

fn print_head(first: &str) {
    println!(
        "{first:<52} {:>10} {:>11} {:>11} {:>11} {:>11}",
        "count", "p50 ms", "p95 ms", "p99 ms", "p99.9 ms"
    );
}

fn print_record(report: &RecordReport) {
    println!(
        "seed {}  instance {}  requests {}  recorded {}  in {:.3} s{}",
        report.seed,
        report.instance,
        report.requests_total,
        report.recorded_total,
        report.elapsed_s,
        if report.stopped_early { "  (stopped early)" } else { "" }
    );
    print_head("series");
    for series in &report.series {
        println!("{:<52} {}", series.key.to_string(), quantiles_line(&series.quantiles));
    }
    for requests in &report.requests {
        println!(
            "requests {}/{}: {} ok, {} failed",
            requests.slice, requests.arm, requests.ok, requests.error
        );
    }
}

fn print_search(report: &SearchReport) {
    println!(
        "seed {}  queries {}  offered {}  sent {}  unsent {}  ok {}  failed {}  in {:.3} s{}",
        report.seed,
        report.queries,
        report.offered,
        report.sent,
        report.unsent,
        report.ok,
        report.failed,
        report.elapsed_s,
        if report.stopped_early { "  (stopped early)" } else { "" }
    );
    for (kind, count) in &report.errors {
        println!("failed {kind}: {count}");
    }
    print_head("latency");
    println!("{:<52} {}", "from the intended start", quantiles_line(&report.from_intended));
    println!("{:<52} {}", "from the actual send", quantiles_line(&report.from_send));
    for target in &report.targets {
        println!(
            "target {}: {} sent, {} ok, {} failed",
            target.url, target.sent, target.ok, target.failed
        );
    }
    for stage in &report.stages {
        println!("ran {}/{}/{}: {}", stage.slice, stage.stage, stage.arm, stage.count);
    }
}

fn print_agents(report: &AgentsReport) {
    println!(
        "seed {}  agents {} of {}  batches offered {}  sent {}  unsent {}  acknowledged {}  in {:.3} s{}",
        report.seed,
        report.connected,
        report.agents,
        report.batches_offered,
        report.batches_sent,
        report.batches_unsent,
        report.batches_acknowledged,
        report.elapsed_s,
        if report.stopped_early { "  (stopped early)" } else { "" }
    );
    println!(
        "samples sent {}  acknowledged {}  in {} series  bytes {}",
        report.samples_sent,
        report.samples_acknowledged,
        report.series.len(),
        report.bytes_sent
    );
    for (reason, agents) in &report.failures {
        println!("failed {agents}: {reason}");
    }
    print_head("latency to the acknowledgement");
    println!("{:<52} {}", "from the intended time", quantiles_line(&report.from_intended));
    println!("{:<52} {}", "from the actual send", quantiles_line(&report.from_send));
}
