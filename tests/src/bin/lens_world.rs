//! `lens-world`: runs simulated worlds by the thousand, or one again by its seed.
#![forbid(unsafe_code)]

use lens_tests::world::plan::draw;
use lens_tests::world::run::{Options, run};

fn main() {
    let seed: u64 = std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(1);
    let mut plan = draw(seed);
    if std::env::args().nth(2).is_some() {
        plan.faults.clear();
    }
    let began = std::time::Instant::now();
    let out = run(&plan, &Options::default());
    println!("{out:#?} {:?}", began.elapsed());
}
