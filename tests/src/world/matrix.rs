//! The planted mistakes, and within how many seeds each must be found.

use lens_service::planted::{Planted, PlantedSet};

use super::plan::draw;
use super::run::{Options, Outcome, run};

/// Each mistake, and the seeds from 1 within which a world must fail by it.
pub const FOUND_WITHIN: &[(Planted, u64)] = &[];

/// Where a mistake was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The seed.
    pub seed: u64,
    /// How its world failed.
    pub outcome: Outcome,
}

/// Plants a mistake and lives the worlds of seeds from 1 until one fails.
///
/// # Errors
/// As [`run`].
pub fn find(mistake: Planted, seeds: u64) -> Result<Option<Found>, String> {
    for seed in 1..=seeds {
        let planted = PlantedSet::of(&[mistake]);
        let outcome = run(&draw(seed), &Options { planted, ..Options::default() })?;
        if !outcome.wrong.is_empty() {
            return Ok(Some(Found { seed, outcome }));
        }
    }
    Ok(None)
}
