//! The kept corpora and seeded changes of them, run through every target.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use lens_fuzz::{TARGETS, Target};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Changed inputs a target is given in an ordinary test run.
const CHANGED_DEFAULT: u64 = 2_000;

/// Longest changed input, bytes.
const INPUT_BYTES_MAX: usize = 4_096;

/// Targets that cost a hundred times what the others do: threads and files each run, or a judge that
/// goes slot by slot over whatever time the input spans.
const SLOW: [&str; 2] = ["replay", "segment"];

fn corpus(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus")).join(target.name);
    let mut files: Vec<_> = std::fs::read_dir(&dir)
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn every_kept_input_is_taken_or_refused() {
    for target in TARGETS {
        let inputs = corpus(target);
        assert!(!inputs.is_empty(), "{} has no corpus", target.name);
        for (path, bytes) in inputs {
            println!("{}", path.display());
            (target.run)(&bytes);
        }
    }
}

/// `LENS_FUZZ_SEED` repeats a run, `LENS_FUZZ_CHANGED` makes it longer.
#[test]
fn every_changed_input_is_taken_or_refused() {
    let seed = variable("LENS_FUZZ_SEED").unwrap_or_else(rand::random);
    let changed = variable("LENS_FUZZ_CHANGED").unwrap_or(CHANGED_DEFAULT);
    println!("LENS_FUZZ_SEED={seed} LENS_FUZZ_CHANGED={changed}");
    for target in TARGETS {
        let inputs = corpus(target);
        let rounds = if SLOW.contains(&target.name) { changed / 20 } else { changed };
        for round in 0..rounds {
            let mut rng = StdRng::seed_from_u64(seed ^ round.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            let mut bytes = inputs[rng.random_range(0..inputs.len())].1.clone();
            change(&mut bytes, &inputs, &mut rng);
            println!("{} round {round}", target.name);
            (target.run)(&bytes);
        }
    }
}

fn change(bytes: &mut Vec<u8>, inputs: &[(PathBuf, Vec<u8>)], rng: &mut StdRng) {
    for _ in 0..rng.random_range(1..5) {
        let at = rng.random_range(0..=bytes.len());
        match rng.random_range(0..5) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
            1 if at < bytes.len() => bytes[at] = [0, 1, 0x7F, 0x80, 0xFF][rng.random_range(0..5)],
            2 => bytes.truncate(at),
            3 => bytes.insert(at, rng.random()),
            _ => {
                let other = &inputs[rng.random_range(0..inputs.len())].1;
                let from = rng.random_range(0..=other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
    bytes.truncate(INPUT_BYTES_MAX);
}
