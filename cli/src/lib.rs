//! `lens`: the operator's command. It carries every role as a library and starts each as a
//! process of its own, so that one build gives all that `lens demo` runs.
#![forbid(unsafe_code)]

mod alerts;
mod ask;
mod audit;
mod canary;
mod capture;
mod certs;
mod demo;
mod flags;
mod manual;
mod replay;
mod role;
mod status;
mod terminal;
mod token;
mod top;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use lens_service::exit::Exit;

/// The operator's command of lens telemetry.
///
/// Exit codes: 0 done, 1 the answer is no, 2 usage or configuration, 3 a service could not be
/// reached, 4 refused, 70 internal fault.
#[derive(Parser, Debug)]
#[command(name = "lens", version, about, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run everything on this machine: search nodes, agents, aggregator, real queries.
    Demo(demo::Args),
    /// Show an aggregator's health, series and agents.
    Status(status::Args),
    /// Watch an aggregator: series, spectrum, verdicts, alerts, agents.
    Top(top::Args),
    /// Alerts: list them, take them on, keep them quiet, test their sinks.
    #[command(subcommand)]
    Alerts(alerts::Command),
    /// The rollout: where it stands, begin, go on, end, kill.
    #[command(subcommand)]
    Canary(canary::Command),
    /// Captures: the last minutes in fine steps, pulled from every agent.
    #[command(subcommand)]
    Capture(capture::Command),
    /// Flags: what every setting holds, and setting one.
    #[command(subcommand)]
    Flags(flags::Command),
    /// Judge recorded latencies on their own clock.
    Replay(replay::Args),
    /// Make a certificate authority and issue certificates from it.
    #[command(subcommand)]
    Certs(certs::Command),
    /// Make, list and take back tokens of the HTTP API.
    #[command(subcommand)]
    Token(token::Command),
    /// Check an aggregator's audit record.
    #[command(subcommand)]
    Audit(audit::Command),
    /// Print the completions of a shell.
    Completions(manual::Completions),
    /// Print or write manual pages.
    Man(manual::Man),
    /// Run one role in this process, as `lens demo` starts it.
    #[command(subcommand, hide = true)]
    Role(role::Role),
}

/// Plays recorded latencies, CSV, JSON lines or an HdrHistogram interval log, through the judge's
/// default rules, and appends what it decides.
///
/// # Errors
/// The first line that cannot be taken, and why.
pub fn replay(input: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    replay::replay(input, out)
}

/// Parses the process's arguments and runs what they ask for.
pub fn main() -> ExitCode {
    let exit: Exit = match Cli::parse().command {
        Command::Demo(args) => demo::run(args),
        Command::Status(args) => status::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Completions(args) => manual::completions(&args, Cli::command()),
        Command::Man(args) => manual::man(&args, Cli::command()),
        Command::Alerts(command) => alerts::run(&command),
        Command::Canary(command) => canary::run(&command),
        Command::Capture(command) => capture::run(&command),
        Command::Flags(command) => flags::run(&command),
        Command::Replay(args) => replay::run(&args),
        Command::Certs(command) => certs::run(&command),
        Command::Token(command) => token::run(&command),
        Command::Audit(command) => audit::run(&command),
        Command::Role(role) => role::run(role),
    };
    exit.into()
}
