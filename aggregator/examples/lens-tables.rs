//! Tables of false alarms and of time to detection, of `docs/verdicts.md`, by simulation.
//!
//! `cargo run --release -p lens-aggregator --example lens-tables -- [RUNS] [HOURS] [SEED]`, by
//! default 100 runs of 24 hours from seed 1. Prints one line a cell as it is done.

#[path = "../tests/simulated/mod.rs"]
mod simulated;

use simulated::{Load, Stream, table};

#[allow(clippy::print_stdout)]
fn main() {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<u64>());
    let mut next = |default: u64| numbers.next().and_then(Result::ok).unwrap_or(default);
    let (runs, hours, seed) = (next(100), next(24), next(1));
    println!("runs {runs}, hours {hours}, seed {seed}");
    println!("| load | rps | true ratio | alarms | median s | p90 s |");
    println!("|---|---|---|---|---|---|");
    let show = |stream: Stream, runs: u64, onset: f64| {
        let (alarms, delays) = table(&stream, runs, seed, onset);
        let at = |share: f64| {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let rank = (share * runs as f64).ceil() as usize;
            rank.checked_sub(1)
                .and_then(|rank| delays.get(rank))
                .map_or("–".to_owned(), |delay| format!("{delay:.0}"))
        };
        let (load, rps) = (stream.load, stream.rps);
        let ratio = match stream.change {
            Some((at, then)) => format!("{} → {then} at {at} s", stream.ratio),
            None => stream.ratio.to_string(),
        };
        println!("| {load:?} | {rps} | {ratio} | {alarms}/{runs} | {} | {} |", at(0.5), at(0.9));
    };
    let of = |load, rps, ratio, change, secs| Stream { rps, ratio, change, load, secs };
    // Time to detection, from the first sample and from a change after half an hour.
    for (rps, ratio) in [(100, 2.5), (100, 3.0), (1_000, 2.2), (1_000, 2.5), (10_000, 2.5)] {
        show(of(Load::Independent, rps, ratio, None, 3_600), runs, 0.0);
        let changes = of(Load::Independent, rps, 1.6, Some((1_800, ratio)), 5_400);
        show(changes, runs, 1_800.0);
    }
    // False alarms.
    let loads =
        [Load::Independent, Load::Swings(0.15, 120.0), Load::Bursts(0.5, 60.0), Load::Clusters(5)];
    for rps in [100, 1_000, 10_000] {
        for load in loads {
            for ratio in [1.8, 2.0] {
                let runs = if rps == 10_000 { runs.div_ceil(5) } else { runs };
                show(of(load, rps, ratio, None, hours * 3_600), runs, 0.0);
            }
        }
    }
}
