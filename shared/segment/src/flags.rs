//! The flag page, read side: what the control plane wants this node to do.
//!
//! Why words: every question is one relaxed load of one 64-bit word, so no answer is ever torn and
//! none waits. The agent writes each word with one aligned store.
//! Promise: before anything was written the defaults hold, and no request is a canary request.

use core::sync::atomic::{AtomicU64, Ordering};

use lens_model::Arm;

use crate::flag::Flag;
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
        Self { salt: (word >> 32) as u32, ppm: if ppm > 1_000_000 { 1_000_000 } else { ppm } }
    }

    /// The arm of `id`: its hash, scaled to parts per million, against the share.
    fn arm(self, id: &[u8]) -> Arm {
        let place = (u128::from(hash(self.salt, id)) * 1_000_000) >> 64;
        if place < u128::from(self.ppm) { Arm::Canary } else { Arm::Baseline }
    }
}

/// 64-bit FNV-1a over the salt (little endian) and the id, finished with the splitmix64 mixer.
///
/// Fixed for ever: nodes of every version and language must agree on who is in the canary.
fn hash(salt: u32, id: &[u8]) -> u64 {
    let bytes = salt.to_le_bytes().into_iter().chain(id.iter().copied());
    let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
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

    /// The arm of the request, user or session called `id`.
    ///
    /// The same id gets the same arm on every node; an id in the canary stays in it while the
    /// share grows. A share of 0, or an engaged kill switch, makes everyone baseline.
    pub fn arm(self, id: impl AsRef<[u8]>) -> Arm {
        if self.flags.killed() {
            return Arm::Baseline;
        }
        self.flags.share().arm(id.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(ppm: u32) -> Share {
        Share { salt: 7, ppm }
    }

    #[test]
    fn an_id_in_the_canary_stays_there_as_the_share_grows() {
        for id in 0..2_000_u32 {
            let id = id.to_string();
            let arms: Vec<Arm> =
                (0..=1_000_000).step_by(50_000).map(|ppm| share(ppm).arm(id.as_bytes())).collect();
            assert!(arms.is_sorted(), "{id}: {arms:?}");
            assert_eq!(arms.first(), Some(&Arm::Baseline));
            assert_eq!(arms.last(), Some(&Arm::Canary));
        }
    }

    #[test]
    fn the_share_is_met_on_average() {
        let members = 100_000_u32;
        let canary = (0..members)
            .filter(|id| share(50_000).arm(format!("user-{id}").as_bytes()) == Arm::Canary)
            .count();
        // 5 % of 100,000; six standard deviations are 414.
        assert!(canary.abs_diff(5_000) < 414, "{canary}");
    }

    #[test]
    fn the_hash_never_changes() {
        assert_eq!(hash(0, b"user-42"), GOLDEN[0]);
        assert_eq!(hash(0xdead_beef, b"user-42"), GOLDEN[1]);
    }

    /// Computed by an independent implementation of the same definition.
    const GOLDEN: [u64; 2] = [0x4a29_f311_7d89_d146, 0xd11b_d9fd_419e_7e34];

    #[test]
    fn bits_and_paths_are_distinct_and_the_kill_switch_is_none_of_them() {
        let all = Flag::ALL.iter().fold(0_u64, |seen, flag| {
            assert_eq!(seen & flag.bit(), 0, "{flag:?}");
            seen | flag.bit()
        });
        assert_eq!(all & KILL_BIT, 0);
        for (bit, flag) in Flag::ALL.iter().enumerate() {
            assert_eq!(flag.bit(), 1 << bit);
            assert!(Flag::ALL.iter().filter(|other| other.path() == flag.path()).count() == 1);
        }
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
