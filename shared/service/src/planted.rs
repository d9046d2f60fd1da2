//! Planted bugs: mistakes that the code can be told to make, so that tests show they would be found.
//!
//! A green sweep of the simulator proves something only if the same sweep finds these. Each is one
//! wrong decision at the place where the right one is taken, asked for by
//! [`crate::env::Env::planted`]. Without the cargo feature `planted` the answer is a constant
//! `false` and the mistake is not in the program at all.

/// One mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Planted {
    /// Agent: a delta goes out before it is durable in the spool.
    SendBeforeSpooled,
    /// Agent: the spool forgets what was sent, not what was acknowledged.
    TrimBeforeAck,
    /// Agent: the life of the spool is the second in which it was made.
    WallClockIdentity,
    /// Agent: of an instance only its newest segment is read; those of dead processes are removed.
    CurrentSegmentOnly,
    /// Agent: the spool's check sums leave its record headers out.
    CrcOverPayloadOnly,
    /// Agent: a spool that was lost begins again in the life it had.
    SpoolNumberReused,
    /// Agent: a failed fsync is tried again, and believed when it then succeeds.
    FsyncRetried,
    /// Agent: the baseline moves although the spool did not take the delta.
    BaselineBeforeSpool,
    /// Agent: what a full spool does not take is dropped.
    DropWhenFull,
    /// Aggregator: a delta that comes again is merged again.
    NoDedup,
    /// Aggregator: a delta is acknowledged before it is durable.
    AckBeforeDurable,
    /// Aggregator: a delta is taken from whoever sends it, whatever name it carries.
    NoIdentityCheck,
    /// Aggregator: what was merged is forgotten after a while.
    DedupByTimeWindow,
    /// Aggregator: windows and watermark become durable one after the other.
    TwoTransactions,
    /// Aggregator: a delta older than the allowed lateness is acknowledged and not merged.
    LateDropped,
    /// Aggregator: a delta older than the roll-up is added to the fine windows alone.
    RollupMissesLate,
    /// Aggregator: the log's word is acknowledged, and it is trimmed before the store committed.
    TrimBeforeCommit,
    /// Aggregator: a delta is merged although the one before it never came.
    GapAccepted,
}

/// Mistakes switched on together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlantedSet {
    #[cfg(any(test, feature = "planted"))]
    bits: u64,
}

impl PlantedSet {
    /// No mistake.
    pub const NONE: Self = Self {
        #[cfg(any(test, feature = "planted"))]
        bits: 0,
    };

    /// Whether a mistake is in the set.
    #[cfg(any(test, feature = "planted"))]
    pub const fn contains(self, mistake: Planted) -> bool {
        self.bits >> mistake as u8 & 1 == 1
    }

    /// Whether a mistake is in the set: never, in this program.
    #[cfg(not(any(test, feature = "planted")))]
    pub const fn contains(self, _: Planted) -> bool {
        false
    }

    /// These mistakes.
    #[cfg(any(test, feature = "planted"))]
    pub fn of(mistakes: &[Planted]) -> Self {
        Self { bits: mistakes.iter().fold(0, |bits, mistake| bits | 1 << *mistake as u8) }
    }

    /// Those named in `LENS_PLANTED`, as in `NoDedup,TrimBeforeAck`.
    #[cfg(any(test, feature = "planted"))]
    pub fn from_environment() -> Self {
        Self::named(&std::env::var("LENS_PLANTED").unwrap_or_default())
    }

    /// None, in this program.
    #[cfg(not(any(test, feature = "planted")))]
    pub const fn from_environment() -> Self {
        Self::NONE
    }

    #[cfg(any(test, feature = "planted"))]
    fn named(names: &str) -> Self {
        let named =
            |mistake: &Planted| names.split(',').any(|name| name.trim() == format!("{mistake:?}"));
        Self::of(&Planted::ALL.iter().copied().filter(named).collect::<Vec<_>>())
    }
}

impl Planted {
    /// Every mistake.
    pub const ALL: [Self; 18] = [
        Self::SendBeforeSpooled,
        Self::TrimBeforeAck,
        Self::WallClockIdentity,
        Self::CurrentSegmentOnly,
        Self::CrcOverPayloadOnly,
        Self::SpoolNumberReused,
        Self::FsyncRetried,
        Self::BaselineBeforeSpool,
        Self::DropWhenFull,
        Self::NoDedup,
        Self::AckBeforeDurable,
        Self::NoIdentityCheck,
        Self::DedupByTimeWindow,
        Self::TwoTransactions,
        Self::LateDropped,
        Self::RollupMissesLate,
        Self::TrimBeforeCommit,
        Self::GapAccepted,
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_is_named_and_nothing_else() {
        let set = PlantedSet::named("NoDedup, TrimBeforeAck,Unknown");
        for mistake in Planted::ALL {
            let named = matches!(mistake, Planted::NoDedup | Planted::TrimBeforeAck);
            assert_eq!(set.contains(mistake), named, "{mistake:?}");
        }
        assert_eq!(PlantedSet::named(""), PlantedSet::NONE);
    }
}
