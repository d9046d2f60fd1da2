//! Simulated worlds: a short form of `lens-world sweep` (docs/design/0004).
//!
//! Every failure prints its seed, the fewest faults that still make it fail, and the command that
//! shows it again.
#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use lens_service::planted::{Planted, PlantedSet};
use lens_tests::world::matrix::{self, FOUND_ELSEWHERE, FOUND_WITHIN};
use lens_tests::world::plan::{Plan, draw};
use lens_tests::world::report::{Totals, failure};
use lens_tests::world::run::{Options, run};
use lens_tests::world::shrink::shrink;

/// Worlds of the short sweep.
const SEEDS: u64 = 80;

/// Seeds beyond those that failed once. 400, 448: a failed sync of a directory brought a removed
/// spool file back with the power, and what had been merged of it counted again. 1497, 5392: a
/// database whose sync had failed was trusted by the next process. 11568: a spool file came back
/// without the snapshot it had begun with, and was written on. 717: a reserve whose name a failed sync
/// had lost was written to. 16144: the one whole snapshot went with its file while the next file was
/// empty.
const FAILED_ONCE: [u64; 7] = [400, 448, 717, 1_497, 5_392, 11_568, 16_144];

/// Worlds in which bits flip on disks, too.
const FLIP_SEEDS: u64 = 24;

/// Seeds beyond those that failed once. 119, 155: an agent that ended before it had asked what of a torn
/// spool was merged had a successor that did not know of it.
const FLIPS_FAILED_ONCE: [u64; 3] = [36, 119, 155];

/// Worlds at a time.
const THREADS: usize = 2;

/// Does work for each number below `count`, some at a time; gives everything that came of it.
fn spread<T: Send>(count: u64, work: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let next = AtomicU64::new(0);
    let take = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                return done;
            }
            done.push(work(at));
        }
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..THREADS).map(|_| scope.spawn(take)).collect();
        running.into_iter().flat_map(|thread| thread.join().expect("a thread of worlds")).collect()
    })
}

/// Lives these worlds and fails with what went wrong in any of them.
#[allow(clippy::print_stdout, reason = "sums that a reader of the test run wants")]
fn live(plans: &[Plan]) -> Totals {
    let failures = spread(plans.len() as u64, |at| {
        let plan = &plans[usize::try_from(at).unwrap()];
        let outcome = run(plan, &Options::default()).unwrap();
        let mut totals = Totals::default();
        totals.add(plan.seed, &outcome);
        let told = (!outcome.wrong.is_empty()).then(|| {
            let shrunk = shrink(plan, &Options::default(), outcome).unwrap();
            failure(plan, &shrunk)
        });
        (totals, told)
    });
    let mut totals = Totals::default();
    failures.iter().for_each(|(part, _)| totals.merge(part));
    println!("{}", totals.text());
    let told: Vec<&str> = failures.iter().filter_map(|(_, told)| told.as_deref()).collect();
    assert!(told.is_empty(), "{}", told.join("\n"));
    totals
}

#[test]
fn in_every_world_what_nodes_recorded_is_what_was_merged() {
    let plans: Vec<Plan> = (1..=SEEDS).chain(FAILED_ONCE).map(draw).collect();
    let totals = live(&plans);
    assert!(totals.claims > 0, "the rogue never reached the aggregator");
    assert!(totals.restarts > SEEDS, "too little is restarted for this to mean anything");
}

#[test]
fn where_bits_flip_on_disks_nothing_is_counted_twice_and_what_is_not_is_told() {
    let seeds = (1..=FLIP_SEEDS).chain(FLIPS_FAILED_ONCE);
    let plans: Vec<Plan> = seeds.map(|seed| draw(seed).with_flips()).collect();
    let totals = live(&plans);
    assert!(totals.faults.get("bit flip").is_some_and(|flips| *flips > FLIP_SEEDS), "{totals:?}");
}

#[test]
fn every_planted_mistake_is_found_within_its_seeds() {
    let missed = spread(FOUND_WITHIN.len() as u64, |at| {
        let (mistake, seeds) = FOUND_WITHIN[usize::try_from(at).unwrap()];
        let found = matrix::find(mistake, seeds).unwrap();
        match &found {
            Some(found) => {
                println!("{mistake:?} by seed {}: {:?}", found.seed, found.outcome.wrong.first())
            }
            None => println!("{mistake:?} not within {seeds} seeds"),
        }
        found.is_none().then_some(mistake)
    });
    let missed: Vec<Planted> = missed.into_iter().flatten().collect();
    assert!(missed.is_empty(), "not found: {missed:?}");
}

#[test]
fn every_mistake_there_is_has_its_number_of_seeds() {
    for mistake in Planted::ALL {
        let here = FOUND_WITHIN.iter().any(|(listed, _)| *listed == mistake);
        let elsewhere = FOUND_ELSEWHERE.iter().any(|(listed, _)| *listed == mistake);
        assert!(here != elsewhere, "{mistake:?}");
    }
    assert!(FOUND_WITHIN.len() >= 12);
}

#[test]
fn a_world_is_the_same_to_the_byte_in_one_process_and_in_another() {
    for seed in [3, 4] {
        let plan = draw(seed);
        let (first, again) =
            (run(&plan, &Options::default()).unwrap(), run(&plan, &Options::default()).unwrap());
        assert_eq!(first.trace, again.trace, "seed {seed}");
        assert_ne!(first.trace, run(&draw(seed + 2), &Options::default()).unwrap().trace);
        let other = Command::new(env!("CARGO_BIN_EXE_lens-world"))
            .args(["replay", "--seed", &seed.to_string()])
            .output()
            .unwrap();
        let told = String::from_utf8(other.stdout).unwrap();
        assert!(told.contains(&first.trace), "seed {seed}: {} is not in\n{told}", first.trace);
    }
}

#[test]
fn a_failing_world_is_shrunk_to_faults_without_any_of_which_it_would_not_fail() {
    let options =
        || Options { planted: PlantedSet::of(&[Planted::AckBeforeDurable]), ..Options::default() };
    let (mistake, seeds) =
        FOUND_WITHIN.iter().find(|(m, _)| *m == Planted::AckBeforeDurable).unwrap();
    let seed = matrix::find(*mistake, *seeds).unwrap().unwrap().seed;
    let plan = draw(seed);
    let failed = run(&plan, &options()).unwrap();
    let shrunk = shrink(&plan, &options(), failed).unwrap();
    assert!(!shrunk.outcome.wrong.is_empty());
    assert!(shrunk.plan.faults.len() <= plan.faults.len());
    for at in 0..shrunk.plan.faults.len() {
        let mut smaller = shrunk.plan.clone();
        smaller.faults.remove(at);
        assert!(run(&smaller, &options()).unwrap().wrong.is_empty(), "fault {at} is not needed");
    }
    let told = failure(&plan, &shrunk);
    assert!(told.contains(&format!("replay --seed {seed}")), "{told}");
}
