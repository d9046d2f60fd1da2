//! The tables of docs/verdicts-canary.md, recomputed: `cargo run --release -p lens-aggregator
//! --example canary_tables -- [TABLE] [RUNS]`, TABLE one of `aa`, `detect`, `errors`, `hosts`,
//! `ladder`, `rollouts`, `cost`, or `all`. Run k of every cell has seed k.
#![allow(clippy::print_stdout, clippy::expect_used, missing_docs, unreachable_pub, dead_code)]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]

mod world;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;

use lens_aggregator::canary::CanaryJudge;
use lens_aggregator::judge::decision::{Decision, SlotJudge};
use lens_aggregator::judge::slot::SlotWindows;
use lens_aggregator::judge::standing::Standing;
use lens_aggregator::state::Rules;
use lens_model::{Arm, Stage};
use serde_json::{Map, Value};
use world::{Outcome, SCENARIOS, Spread, World, base_latencies, run, run_with};

const BOTH: &[Arm] = &Arm::ALL;
const CANARY: &[Arm] = &[Arm::Canary];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let table = arguments.next().unwrap_or_else(|| "all".to_owned());
    let runs = arguments.next().and_then(|runs| runs.parse().ok()).unwrap_or(20);
    let base = base_latencies();
    let wanted = |name: &str| table == "all" || table == name;
    if wanted("detect") {
        detect(&base, runs);
    }
    if wanted("errors") {
        errors(&base, runs);
    }
    if wanted("hosts") {
        hosts(&base, runs);
    }
    if wanted("ladder") {
        ladder(&base, runs);
    }
    if wanted("rollouts") {
        rollouts(&base, runs);
    }
    if wanted("cost") {
        cost(&base);
    }
    if wanted("aa") {
        alike(&base, runs);
    }
}

/// Whole rollouts by the default plan, until they end or an hour and a half has passed.
fn rollouts(base: &[f64], runs: u64) {
    let mut world = World::new(SCENARIOS[3], Spread::InHost(0.05), 200.0);
    (world.hosts, world.windows) = (5, 1_080);
    let (mut back, mut complete) = (Vec::new(), 0);
    for seed in 1..=runs {
        let outcome = run(&world, base, seed);
        if outcome.at("rollback").is_some() {
            back.push(seed);
        }
        complete += u64::from(outcome.at("complete").is_some());
    }
    let (rolled, held) = (back.len() as u64, runs - complete - back.len() as u64);
    println!("\n## Whole rollouts of a canary like its baseline (seeds 1..={runs})");
    println!("completed {complete}, held {held}, rolled back {rolled}: seeds {back:?}");
}

fn outcomes(world: &World, base: &[f64], runs: u64) -> Vec<Outcome> {
    (1..=runs).map(|seed| run(world, base, seed)).collect()
}

fn times(outcomes: &[Outcome], word: &str) -> String {
    let mut found: Vec<f64> = outcomes.iter().filter_map(|outcome| outcome.at(word)).collect();
    found.sort_by(f64::total_cmp);
    let n = outcomes.len();
    let at = |share: f64| {
        let rank = (share * n as f64).ceil().max(1.0) as usize - 1;
        found.get(rank).map_or_else(|| ">".to_owned(), |at| format!("{at}"))
    };
    format!("{}/{n} | {} / {}", found.len(), at(0.5), at(0.9))
}

fn spread_name(spread: Spread) -> String {
    match spread {
        Spread::InHost(share) => format!("in-host {} %", share * 100.0),
        Spread::Split(hosts) => format!("{hosts} of 20 hosts"),
    }
}

fn detect(base: &[f64], runs: u64) {
    println!("\n## Slower canary: rolled back, median / p90 s (seeds 1..={runs})");
    println!(
        "| rps | spread | history s | canary | rolled back | median / p90 s |\n|---|---|---|---|---|---|"
    );
    for (rps, factors) in [(100.0, &[1.25, 1.5, 2.0][..]), (1_000.0, &[1.10, 1.25, 1.5])] {
        for history in [0, 24] {
            for &factor in factors {
                let mut world = World::new(SCENARIOS[0], Spread::InHost(0.05), rps);
                (world.factor, world.history_windows, world.windows) = (factor, history, 360);
                let outcomes = outcomes(&world, base, runs);
                let found = times(&outcomes, "rollback");
                println!("| {rps} | in-host 5 % | {} | x{factor} | {found} |", history * 5);
            }
        }
    }
}

fn errors(base: &[f64], runs: u64) {
    println!("\n## Failing canary: rolled back, median / p90 s (seeds 1..={runs})");
    println!("| rps | baseline | canary | rolled back | median / p90 s |\n|---|---|---|---|---|");
    for (rps, rates) in
        [(1_000.0, (0.001, 0.005)), (1_000.0, (0.001, 0.003)), (100.0, (0.001, 0.05))]
    {
        let mut world = World::new(SCENARIOS[0], Spread::InHost(0.05), rps);
        (world.errors, world.windows) = (rates, 360);
        let found = times(&outcomes(&world, base, runs), "rollback");
        println!("| {rps} | {} | {} | {found} |", rates.0, rates.1);
    }
}

fn hosts(base: &[f64], runs: u64) {
    println!("\n## One slow host of five (seeds 1..={runs})");
    println!(
        "| rps | share | arms | host | named | median / p90 s | other hosts named | version rolled back |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (rps, share) in [(100.0, 0.05), (1_000.0, 0.05), (1_000.0, 0.25)] {
        for (arms, name) in [(BOTH, "both"), (CANARY, "canary")] {
            for factor in [1.5, 2.0, 4.0] {
                let mut world = World::new(SCENARIOS[0], Spread::InHost(share), rps);
                (world.hosts, world.windows) = (5, 360);
                world.slow = Some((2, arms, factor));
                let outcomes = outcomes(&world, base, runs);
                let mut first: Vec<f64> = outcomes
                    .iter()
                    .filter_map(|o| o.hosts.iter().find(|host| host.0 == "host-2").map(|h| h.2))
                    .collect();
                first.sort_by(f64::total_cmp);
                let other = outcomes.iter().filter(|o| o.hosts.iter().any(|h| h.0 != "host-2"));
                let back = outcomes.iter().filter(|o| o.at("rollback").is_some()).count();
                let at = |share: f64| {
                    let rank = (share * runs as f64).ceil() as usize - 1;
                    first.get(rank).map_or_else(|| ">".to_owned(), f64::to_string)
                };
                println!(
                    "| {rps} | {share} | {name} | x{factor} | {}/{runs} | {} / {} | {} | {back} |",
                    first.len(),
                    at(0.5),
                    at(0.9),
                    other.count(),
                );
            }
        }
    }
}

fn ladder(base: &[f64], runs: u64) {
    println!("\n## Whole rollouts in S4, in-host 5 % throughout (seeds 1..={runs})");
    println!("| rps | canary | completed | median / p90 s | rolled back | median / p90 s |");
    println!("|---|---|---|---|---|---|");
    for rps in [100.0, 1_000.0] {
        for factor in [1.0, 1.10, 1.25] {
            let mut world = World::new(SCENARIOS[5], Spread::InHost(0.05), rps);
            (world.factor, world.windows) = (factor, 1_200);
            let outcomes = outcomes(&world, base, runs);
            let (done, back) = (times(&outcomes, "complete"), times(&outcomes, "rollback"));
            println!("| {rps} | x{factor} | {done} | {back} |");
        }
    }
}

fn alike(base: &[f64], runs: u64) {
    println!("\n## Canary like its baseline, an hour of looking (seeds 1..={runs})");
    println!("| rps | spread | scenario | rolled back | hosts named in | carries_harm in |");
    println!("|---|---|---|---|---|---|");
    for rps in [100.0, 1_000.0] {
        for spread in [Spread::Split(1), Spread::Split(5), Spread::InHost(0.05)] {
            for scenario in SCENARIOS {
                let mut world = World::new(scenario, spread, rps);
                world.history_windows = if spread == Spread::InHost(0.05) { 24 } else { 720 };
                // The ladder is longer than the hour: no run ends early by completing.
                world.plan.dwell_s = vec![7_200];
                world.plan.timeout_s = 7_200;
                let outcomes = outcomes(&world, base, runs);
                let back = outcomes.iter().filter(|o| o.at("rollback").is_some()).count();
                let named = |word: &str| {
                    outcomes.iter().filter(|o| o.hosts.iter().any(|h| h.1 == word)).count()
                };
                println!(
                    "| {rps} | {} | {} | {back}/{runs} | {} | {} |",
                    spread_name(spread),
                    scenario.name,
                    named("slow"),
                    named("carries_harm")
                );
            }
        }
    }
}

/// A judge whose time is taken.
struct Timed {
    judge: Box<dyn SlotJudge>,
    nanos: Rc<Cell<u128>>,
}

impl SlotJudge for Timed {
    fn slot(&mut self, windows: &SlotWindows, decisions: &mut Vec<Decision>) {
        let begun = Instant::now();
        self.judge.slot(windows, decisions);
        self.nanos.set(self.nanos.get() + begun.elapsed().as_nanos());
    }

    fn summarise(&self, summary: &mut Map<String, Value>) {
        self.judge.summarise(summary);
    }
}

fn cost(base: &[f64]) {
    println!("\n## Cost of a tick: 12 slices x 4 stages x 2 arms, mean of 240 windows");
    println!("| hosts | requests a second | standing ms | canary ms |\n|---|---|---|---|");
    for (hosts, rps) in [(1, 1_000.0), (5, 1_000.0), (20, 1_000.0)] {
        let mut world = World::new(SCENARIOS[0], Spread::InHost(0.05), rps / 12.0);
        (world.hosts, world.slices, world.stages) = (hosts, 12, &Stage::ALL);
        (world.windows, world.history_windows) = (216, 24);
        let (standing, canary) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let judge = CanaryJudge::new(world.plan.clone()).expect("the plan is in range");
        let judges: Vec<Box<dyn SlotJudge>> = vec![
            Box::new(Timed {
                judge: Box::new(Standing::new(&Rules::default())),
                nanos: Rc::clone(&standing),
            }),
            Box::new(Timed { judge: Box::new(judge), nanos: Rc::clone(&canary) }),
        ];
        run_with(&world, base, 1, judges);
        let ms = |nanos: &Cell<u128>| nanos.get() as f64 / 240.0 / 1e6;
        println!("| {hosts} | {rps} | {:.2} | {:.2} |", ms(&standing), ms(&canary));
    }
}
