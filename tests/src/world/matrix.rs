//! The planted mistakes, and within how many seeds each must be found.

use lens_service::planted::{Planted, PlantedSet};

use super::plan::draw;
use super::run::{Options, Outcome, run};

/// Each mistake, and the seeds from 1 within which a world must fail by it: about twice what it
/// took when this was written, so that a change of the plan need not change the table.
pub const FOUND_WITHIN: &[(Planted, u64)] = &[
    (Planted::SendBeforeSpooled, 20),
    (Planted::TrimBeforeAck, 20),
    (Planted::WallClockIdentity, 80),
    (Planted::CurrentSegmentOnly, 10),
    (Planted::SpoolNumberReused, 40),
    (Planted::FsyncRetried, 20),
    (Planted::BaselineBeforeSpool, 10),
    (Planted::DropWhenFull, 20),
    (Planted::NoDedup, 10),
    (Planted::AckBeforeDurable, 10),
    (Planted::NoIdentityCheck, 10),
    (Planted::DedupByTimeWindow, 10),
    (Planted::TwoTransactions, 40),
    (Planted::LateDropped, 10),
    (Planted::RollupMissesLate, 20),
    (Planted::TrimBeforeCommit, 20),
    (Planted::GapAccepted, 20),
];

/// Mistakes that no fault of a world can show, and the test elsewhere that finds each.
pub const FOUND_ELSEWHERE: &[(Planted, &str)] =
    &[(Planted::CrcOverPayloadOnly, "lens-journal: a_flipped_bit_is_noticed_wherever_it_is")];

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
