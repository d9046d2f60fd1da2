//! Processes killed at random instants: what was recorded is what was merged.
//!
//! The long form: `cargo run --release -p lens-tests --bin lens-kill -- --kills 1000 --minutes 60`.
#![allow(clippy::unwrap_used)]

mod kill;
mod world;

use std::time::Duration;

use kill::{Campaign, Orders, Victim};

/// Repeats the order of kills of a run that failed.
const SEED_VARIABLE: &str = "LENS_KILL_SEED";

#[test]
fn tens_of_kills_at_random_instants_lose_nothing_and_count_nothing_twice() {
    let seed = std::env::var(SEED_VARIABLE).ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(lens_benches::load::fresh_seed);
    println!("{SEED_VARIABLE}={seed}");
    let victims = Victim::ALL.to_vec();
    let orders = Orders { victims, kills: 40, time: Duration::from_secs(40), seed };
    let report = Campaign::new(seed).run(orders, |line| println!("{line}"));
    println!("{}", serde_json::to_string(&report).unwrap());
    assert!(report.books.agree(), "{}", report.books);
    assert!(report.kills.len() == 5 && report.books.requests_recorded > 0, "{report:?}");
    assert!(report.in_flight_max > 0, "no kill found a record in flight: {report:?}");
}
