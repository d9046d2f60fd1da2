//! Simulated rollouts through the replay, at a size that runs with every change. The full tables
//! and their sizes are in docs/verdicts-canary.md; run k of a cell has seed k.
#![allow(clippy::unwrap_used)]
#![allow(missing_docs, unreachable_pub, dead_code, clippy::expect_used)]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]

#[path = "../examples/canary_tables/world.rs"]
mod world;

use lens_model::Arm;
use world::{Outcome, SCENARIOS, Spread, World, base_latencies, run};

fn outcomes(world: &World, runs: u64) -> Vec<Outcome> {
    let base = base_latencies();
    (1..=runs).map(|seed| run(world, &base, seed)).collect()
}

fn median(outcomes: &[Outcome], word: &str) -> f64 {
    let mut at: Vec<f64> = outcomes.iter().map(|o| o.at(word).unwrap_or(f64::INFINITY)).collect();
    at.sort_by(f64::total_cmp);
    at[at.len() / 2]
}

#[test]
fn canaries_like_their_baseline_are_rolled_back_no_more_often_than_promised() {
    let runs = 20;
    for scenario in [SCENARIOS[0], SCENARIOS[4], SCENARIOS[5]] {
        let mut world = World::new(scenario, Spread::InHost(0.05), 100.0);
        (world.windows, world.plan.dwell_s) = (60, vec![7_200]);
        let outcomes = outcomes(&world, runs);
        let back: Vec<usize> =
            (0..outcomes.len()).filter(|&at| outcomes[at].at("rollback").is_some()).collect();
        println!("{}: {} of seeds 1..={runs} rolled back", scenario.name, back.len());
        // 99.9 % of binomial(20, 0.02).
        assert!(back.len() <= 3, "{}: seeds (from 1) {back:?}", scenario.name);
    }
}

#[test]
fn slower_and_failing_canaries_are_rolled_back_in_time() {
    let of = |rps: f64, factor: f64, errors: (f64, f64)| {
        let mut world = World::new(SCENARIOS[0], Spread::InHost(0.05), rps);
        (world.factor, world.errors, world.windows) = (factor, errors, 120);
        let found = median(&outcomes(&world, 5), "rollback");
        println!("{rps} rps x{factor} {errors:?}: median {found} s, seeds 1..=5");
        found
    };
    assert!(of(100.0, 1.5, (0.001, 0.001)) <= 60.0);
    assert!(of(1_000.0, 1.5, (0.001, 0.001)) <= 35.0);
    assert!(of(1_000.0, 1.25, (0.001, 0.001)) <= 60.0);
    assert!(of(1_000.0, 1.0, (0.001, 0.005)) <= 120.0);
}

#[test]
fn one_slow_host_of_five_is_named_and_its_version_is_not_blamed() {
    const BOTH: &[Arm] = &Arm::ALL;
    const CANARY: &[Arm] = &[Arm::Canary];
    for arms in [BOTH, CANARY] {
        let mut world = World::new(SCENARIOS[0], Spread::InHost(0.05), 1_000.0);
        (world.hosts, world.windows, world.slow) = (5, 60, Some((2, arms, 3.0)));
        for (at, outcome) in outcomes(&world, 3).iter().enumerate() {
            let names: Vec<_> = outcome.hosts.iter().map(|host| host.0.as_str()).collect();
            println!("seed {}: {:?}", at + 1, outcome.hosts);
            assert!(names.contains(&"host-2"), "seed {}: {names:?}", at + 1);
            assert!(names.iter().all(|name| *name == "host-2"), "seed {}: {names:?}", at + 1);
            assert_eq!(outcome.at("rollback"), None, "seed {}", at + 1);
        }
    }
}
