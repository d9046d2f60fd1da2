//! The flag page, read side: what the control plane wants this node to do.
//!
//! Why words: every question is one relaxed load of one 64-bit word, so no answer is ever torn and
//! none waits. The agent writes each word with one aligned store.
//! Promise: before anything was written the defaults hold, and no request is a canary request.

use core::sync::atomic::{AtomicU64, Ordering};

use lens_model::{Arm, Flag, assign};

use crate::layout::{FLAGS_OFFSET, flag_at};
use crate::region::Region;

/// The kill switch is the highest bit of the flag word.
pub(crate) const KILL_BIT: u64 = 1 << 63;

/// The flag word a new segment starts with.
pub(crate) fn default_bits() -> u64 {
    Flag::ALL.iter().filter(|flag| flag.default_value()).fold(0, |bits, flag| bits | flag.bit())
}

/// The node's view of its flag page.
#[derive(Clone, Copy)]
pub struct Flags<'a> {
    region: &'a Region,
}

impl<'a> Flags<'a> {
    pub(crate) fn new(region: &'a Region) -> Self {
        Self { region }
    }

    #[inline]
    fn word(self, at: usize) -> &'a AtomicU64 {
        self.region.u64(FLAGS_OFFSET + at)
    }

    /// Whether `flag` is on. Always false while the kill switch is engaged. One relaxed load.
    #[inline]
    pub fn enabled(self, flag: Flag) -> bool {
        // Relaxed: one word is the whole answer; an older one is an earlier answer.
        let bits = self.word(flag_at::BITS).load(Ordering::Relaxed);
        bits & (flag.bit() | KILL_BIT) == flag.bit()
    }

    /// Whether the kill switch is engaged: every flag reads off and every request is baseline.
    #[inline]
    pub fn killed(self) -> bool {
        self.word(flag_at::BITS).load(Ordering::Relaxed) & KILL_BIT != 0
    }

    /// The generation of the control plane's last word, 0 before the first. Written after the
    /// words it describes.
    pub fn generation(self) -> u64 {
        // Acquire; pairs with the agent's Release store of the generation, which it makes last.
        self.word(flag_at::GENERATION).load(Ordering::Acquire)
    }

    /// The share of requests that belong to the canary, parts per million, 0 to 1,000,000.
    pub fn canary_ppm(self) -> u32 {
        self.share().ppm
    }

    pub(crate) fn share(self) -> Share {
        Share::from_word(self.word(flag_at::CANARY).load(Ordering::Relaxed))
    }
}

/// Who is in the canary: a share, and the salt that decides which part of everyone it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    /// Mixed into every hash, so that two rollouts do not always meet the same users first.
    pub(crate) salt: u32,
    /// Parts per million, at most 1,000,000.
    pub(crate) ppm: u32,
}

impl Share {
    /// Both travel in one word, so that no reader ever pairs one rollout's salt with another's
    /// share: the salt in the high half, the share in the low one.
    #[allow(clippy::cast_possible_truncation)]
    pub(crate) const fn from_word(word: u64) -> Self {
        let ppm = word as u32;
        Self { salt: (word >> 32) as u32, ppm: if ppm > assign::PPM { assign::PPM } else { ppm } }
    }
}

/// Assigns requests to arms.
#[derive(Clone, Copy)]
pub struct Canary<'a> {
    flags: Flags<'a>,
}

impl<'a> Canary<'a> {
    pub(crate) fn new(flags: Flags<'a>) -> Self {
        Self { flags }
    }

    /// The salt and the share, parts per million, that arms are assigned by, kill switch aside.
    /// One relaxed load, so that they belong together.
    pub fn salt_and_share(self) -> (u32, u32) {
        let share = self.flags.share();
        (share.salt, share.ppm)
    }

    /// The arm of the request, user or session called `id`.
    ///
    /// The same id gets the same arm on every node; an id in the canary stays in it while the
    /// share grows. A share of 0, or an engaged kill switch, makes everyone baseline.
    pub fn arm(self, id: impl AsRef<[u8]>) -> Arm {
        if self.flags.killed() {
            return Arm::Baseline;
        }
        let share = self.flags.share();
        assign::arm(share.salt, share.ppm, id.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kill_switch_is_no_flags_bit() {
        assert!(Flag::ALL.iter().all(|flag| flag.bit() & KILL_BIT == 0));
    }

    #[test]
    fn the_kill_switch_turns_everything_off() {
        let region = Region::heap(FLAGS_OFFSET + 4_096);
        let flags = Flags::new(&region);
        region.u64(FLAGS_OFFSET + flag_at::BITS).store(default_bits(), Ordering::Relaxed);
        region.u64(FLAGS_OFFSET + flag_at::CANARY).store(1_000_000 | 9 << 32, Ordering::Relaxed);
        assert!(flags.enabled(Flag::QualityGating) && !flags.enabled(Flag::StageBLruCaching));
        assert_eq!(flags.share(), Share { salt: 9, ppm: 1_000_000 });
        assert_eq!(Canary::new(flags).arm("user-42"), Arm::Canary);
        region.u64(FLAGS_OFFSET + flag_at::BITS).fetch_or(KILL_BIT, Ordering::Relaxed);
        assert!(flags.killed() && !flags.enabled(Flag::QualityGating));
        assert_eq!(Canary::new(flags).arm("user-42"), Arm::Baseline);
    }
}
