//! The soak in its short form: a few agents for some seconds, everything merged and nobody refused.
//!
//! The long form: `cargo run --release -p lens-tests --bin lens-soak`.
#![allow(clippy::unwrap_used)]

mod soak;
mod world;

use std::time::Duration;

use soak::Orders;

#[tokio::test(flavor = "multi_thread")]
async fn twenty_agents_are_served_without_a_refusal_and_merged_to_the_sample() {
    let time = Duration::from_secs(6);
    let seed = lens_benches::load::fresh_seed();
    let soak = soak::soak(Orders { agents: 20, series: 48, samples: 20, time, seed }).await;
    assert_eq!(soak.refusals(), 0, "{:?}", soak.report.failures);
    assert_eq!(soak.report.batches_acknowledged, 20 * 6, "seed {seed}");
    assert!(soak.exact, "seed {seed}: sent and merged differ");
    assert!(soak.looks.len() >= 6 && soak.looks.iter().all(|look| look.resident > 1 << 20));
    assert!(soak.disk > 0 && soak.processor_s > 0.0);
    // How memory moves in so short a time says nothing; that it is read and held to a limit does.
    let rows = soak.rows();
    let growth = rows.iter().find(|row| row.name == "growth after warm-up").unwrap();
    assert!(growth.met.is_some() && growth.value.is_finite(), "{growth:?}");
}
