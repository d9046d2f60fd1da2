//! `lens-world`: lives simulated worlds by the thousand, or one again by its seed.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use lens_service::planted::{Planted, PlantedSet};
use lens_tests::world::matrix;
use lens_tests::world::plan::{Plan, draw};
use lens_tests::world::report::{Totals, failure};
use lens_tests::world::run::{Options, run};
use lens_tests::world::shrink::shrink;
use lens_tests::world::trace::Trace;
use serde_json::json;

/// Failures shrunk and told before a sweep gives up.
const FAILURES_TOLD_MAX: usize = 5;

/// Of so many worlds, one is lived twice and its traces compared.
const REPEATED_EACH: u64 = 20;

/// lens-world: simulated worlds of agents and an aggregator, and what goes wrong in them.
#[derive(Parser, Debug)]
#[command(name = "lens-world", version, about)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Lives the worlds of many seeds and then hunts for each planted mistake.
    Sweep {
        /// Worlds at most.
        #[arg(long, default_value_t = 1_000)]
        seeds: u64,
        /// The first seed.
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// Minutes at most, the hunt not counted.
        #[arg(long, default_value_t = 10)]
        minutes: u64,
        /// Worlds at a time.
        #[arg(long, default_value_t = 2)]
        threads: u64,
        /// Seeds tried for each planted mistake; 0 leaves the hunt out.
        #[arg(long, default_value_t = 200)]
        planted_seeds: u64,
    },
    /// Lives one world and tells of it.
    Replay {
        /// Its seed.
        #[arg(long)]
        seed: u64,
        /// Only these of its faults, by number from 0, separated by commas.
        #[arg(long)]
        only: Option<String>,
        /// No sync stalls.
        #[arg(long)]
        no_stalls: bool,
        /// No host is replaced.
        #[arg(long)]
        no_replacement: bool,
        /// A mistake to plant, by its name.
        #[arg(long)]
        planted: Option<String>,
        /// With bits of spools flipped as well.
        #[arg(long)]
        flips: bool,
        /// Print every datagram and disk change.
        #[arg(long)]
        events: bool,
        /// Print what the programs log, by RUST_LOG.
        #[arg(long)]
        log: bool,
    },
    /// Plants a mistake, or `all` of them one by one, and counts the seeds until it is found.
    Planted {
        /// Its name, or `all`.
        name: String,
        /// Seeds tried.
        #[arg(long, default_value_t = 200)]
        seeds: u64,
    },
}

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Sweep { seeds, from, minutes, threads, planted_seeds } => {
            sweep(seeds, from, Duration::from_secs(minutes * 60), threads, planted_seeds)
        }
        Command::Replay { seed, only, no_stalls, no_replacement, planted, flips, events, log } => {
            let mut plan = if flips { draw(seed).with_flips() } else { draw(seed) };
            if log {
                lens_service::log::start();
            }
            if no_stalls {
                plan.stalls_per_mille = 0;
            }
            if no_replacement {
                plan.replaced = None;
            }
            keep(&mut plan, only.as_deref());
            mistakes(planted.as_deref().unwrap_or("")).and_then(|set| replay(&plan, &set, events))
        }
        Command::Planted { name, seeds } => {
            mistakes(&name).and_then(|which| Ok(hunt(&which, seeds)?.1))
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("lens-world: {error}");
            ExitCode::from(2)
        }
    }
}

fn keep(plan: &mut Plan, only: Option<&str>) {
    let Some(only) = only else { return };
    let kept: Vec<usize> = only.split(',').filter_map(|at| at.trim().parse().ok()).collect();
    let faults = std::mem::take(&mut plan.faults).into_iter().enumerate();
    plan.faults = faults.filter(|(at, _)| kept.contains(at)).map(|(_, fault)| fault).collect();
}

/// Every mistake a world can show.
fn hunted() -> Vec<Planted> {
    matrix::FOUND_WITHIN.iter().map(|(mistake, _)| *mistake).collect()
}

/// Mistakes by name; `all` is every one.
fn mistakes(names: &str) -> Result<Vec<Planted>, String> {
    if names == "all" {
        return Ok(hunted());
    }
    let named = |name: &str| {
        let found = Planted::ALL.into_iter().find(|mistake| format!("{mistake:?}") == name);
        found
            .ok_or_else(|| format!("{name:?} is no planted mistake: use one of {:?}", Planted::ALL))
    };
    names.split(',').filter(|name| !name.is_empty()).map(named).collect()
}

fn replay(plan: &Plan, mistakes: &[Planted], events: bool) -> Result<bool, String> {
    let trace = if events { Trace::keeping() } else { Trace::default() };
    let options = Options { planted: PlantedSet::of(mistakes), trace: trace.clone() };
    println!("{} agents, nodes on {:?}, healed at {}", plan.agents, plan.nodes, plan.heal_at);
    for (at, fault) in plan.faults.iter().enumerate() {
        println!("{at:>3} {fault}");
    }
    let began = Instant::now();
    let outcome = run(plan, &options)?;
    trace.lines().iter().for_each(|line| println!("{line}"));
    println!("{outcome:#?}");
    println!("{} ms", began.elapsed().as_millis());
    Ok(outcome.wrong.is_empty())
}

fn hunt(mistakes: &[Planted], seeds: u64) -> Result<(serde_json::Value, bool), String> {
    let (mut table, mut all) = (serde_json::Map::new(), true);
    for mistake in mistakes {
        let name = format!("{mistake:?}");
        let found = matrix::find(*mistake, seeds)?;
        match &found {
            Some(found) => {
                let how = found.outcome.wrong.first().map_or("", String::as_str);
                println!("{name:<22} found by seed {:>4}: {how}", found.seed);
            }
            None => println!("{name:<22} NOT found within {seeds} seeds"),
        }
        all &= found.is_some();
        table.insert(name, json!(found.map(|found| found.seed)));
    }
    Ok((table.into(), all))
}

fn sweep(
    seeds: u64,
    from: u64,
    longest: Duration,
    threads: u64,
    planted_seeds: u64,
) -> Result<bool, String> {
    let began = Instant::now();
    let next = AtomicU64::new(from);
    let told = Mutex::new(0_usize);
    let work = || -> Result<Totals, String> {
        let mut totals = Totals::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let enough = told.lock().is_ok_and(|told| *told >= FAILURES_TOLD_MAX);
            if seed - from >= seeds || began.elapsed() > longest || enough {
                return Ok(totals);
            }
            live(seed, &mut totals, &told)?;
        }
    };
    let parts: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        running.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
    });
    let mut totals = Totals::default();
    for part in parts {
        totals.merge(&part.map_err(|_| "a world's thread panicked".to_owned())??);
    }
    let took = began.elapsed();
    print!("{}", totals.text());
    let (table, all) =
        if planted_seeds > 0 { hunt(&hunted(), planted_seeds)? } else { (json!({}), true) };
    let mut summary = totals.json();
    summary["from"] = from.into();
    summary["secs"] = took.as_secs().into();
    summary["planted"] = table;
    println!("{summary}");
    Ok(totals.failed.is_empty() && all)
}

fn live(seed: u64, totals: &mut Totals, told: &Mutex<usize>) -> Result<(), String> {
    let (plan, options) = (draw(seed), Options::default());
    let outcome = run(&plan, &options)?;
    totals.add(seed, &outcome);
    if seed.is_multiple_of(REPEATED_EACH) {
        let again = run(&plan, &options.afresh())?;
        if again.trace == outcome.trace {
            totals.repeated += 1;
        } else {
            println!("seed {seed} gave two traces: {} {}", outcome.trace, again.trace);
            totals.failed.push(seed);
        }
    }
    if outcome.wrong.is_empty() {
        return Ok(());
    }
    let shrunk = shrink(&plan, &options, outcome)?;
    let mut told = told.lock().map_err(|error| error.to_string())?;
    *told += 1;
    println!("{}", failure(&plan, &shrunk));
    Ok(())
}
