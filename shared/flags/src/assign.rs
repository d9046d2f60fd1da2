//! Which arm a user belongs to.
//!
//! Unit of a share: ten-thousandths of everyone. Promise: deterministic, monotone in the share,
//! uniform; nobody is in the canary while the kill switch is engaged or the rollout not progressive.

use lens_model::{Arm, assign};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Parts per million in one ten-thousandth.
const PPM_EACH: u32 = assign::PPM / Share::ALL.0 as u32;

/// A share of everyone, in ten-thousandths: 0 to 10,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Share(u16);

/// Why a number is no share.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
#[error("{0} is no share: give a percentage from 0 to 100")]
pub struct PercentError(pub f64);

impl Share {
    /// Nobody.
    pub const NONE: Self = Self(0);
    /// Everyone.
    pub const ALL: Self = Self(10_000);

    /// A share in ten-thousandths; `None` above 10,000.
    pub const fn new(ten_thousandths: u16) -> Option<Self> {
        if ten_thousandths <= Self::ALL.0 { Some(Self(ten_thousandths)) } else { None }
    }

    /// The share nearest to a percentage.
    ///
    /// # Errors
    /// [`PercentError`] outside 0 to 100.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn percent(percent: f64) -> Result<Self, PercentError> {
        if !(0.0..=100.0).contains(&percent) {
            return Err(PercentError(percent));
        }
        // In 0..=10,000 by the check above.
        Ok(Self((percent * 100.0).round() as u16))
    }

    /// As a percentage.
    pub fn as_percent(self) -> f64 {
        f64::from(self.0) / 100.0
    }

    /// In ten-thousandths.
    pub const fn ten_thousandths(self) -> u16 {
        self.0
    }

    /// In parts per million, as flag pages have it.
    pub const fn ppm(self) -> u32 {
        self.0 as u32 * PPM_EACH
    }
}

impl From<Share> for u16 {
    fn from(share: Share) -> Self {
        share.0
    }
}

impl TryFrom<u16> for Share {
    type Error = PercentError;

    fn try_from(ten_thousandths: u16) -> Result<Self, PercentError> {
        Self::new(ten_thousandths).ok_or(PercentError(f64::from(ten_thousandths) / 100.0))
    }
}

/// Who is in the canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Decides which part of everyone the share is; another for each rollout, so that the same
    /// people are not always the canary.
    pub salt: u32,
    /// The share of everyone that is in the canary.
    pub share: Share,
    /// False means nobody is, whatever the share.
    pub progressive: bool,
    /// True means nobody is, whatever the share.
    pub killed: bool,
}

impl Default for Assignment {
    /// Nobody is in the canary.
    fn default() -> Self {
        Self { salt: 0, share: Share::NONE, progressive: true, killed: false }
    }
}

impl Assignment {
    /// The share that is really in the canary.
    pub const fn effective(&self) -> Share {
        if self.killed || !self.progressive { Share::NONE } else { self.share }
    }

    /// The arm of the user, session or request called `id`: the same on every node, in every
    /// language (docs/assignment.md).
    pub fn arm(&self, id: impl AsRef<[u8]>) -> Arm {
        assign::arm(self.salt, self.effective().ppm(), id.as_ref())
    }
}

/// The salt that belongs to a text, such as a rollout's name.
#[allow(clippy::cast_possible_truncation)]
pub fn salt_of(text: &str) -> u32 {
    assign::hash(0, text.as_bytes()) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(salt: u32, percent: f64) -> Assignment {
        Assignment { salt, share: Share::percent(percent).unwrap(), ..Assignment::default() }
    }

    #[test]
    fn the_same_user_gets_the_same_arm_twice() {
        let assignment = at(9, 25.0);
        for id in 0..1_000 {
            let id = format!("user{id}");
            assert_eq!(assignment.arm(&id), assignment.arm(&id));
        }
    }

    #[test]
    fn a_user_in_the_canary_stays_there_while_the_share_grows() {
        for id in 0..500 {
            let id = format!("user{id}");
            let arms: Vec<Arm> = (0..=100).map(|p| at(3, f64::from(p)).arm(&id)).collect();
            assert!(arms.is_sorted(), "{id}");
            assert_eq!((arms[0], arms[100]), (Arm::Baseline, Arm::Canary));
        }
    }

    #[test]
    fn a_million_users_are_spread_as_the_share_says() {
        for percent in [5.0, 25.0] {
            let assignment = at(77, percent);
            let canary = (0..1_000_000_u32)
                .filter(|id| assignment.arm(format!("user-{id}")) == Arm::Canary)
                .count();
            // Six standard deviations of a binomial.
            let share = percent / 100.0;
            let off = (canary as f64 - 1e6 * share).abs();
            assert!(off < 6.0 * (1e6 * share * (1.0 - share)).sqrt(), "{canary} at {percent} %");
        }
    }

    /// The places of a million ids, in a hundred equal parts: chi-squared with 99 degrees.
    #[test]
    fn places_are_uniform() {
        let mut parts = [0_u32; 100];
        for id in 0..1_000_000_u32 {
            parts[assign::place(5, format!("u{id}").as_bytes()) as usize / 10_000] += 1;
        }
        let chi: f64 = parts.iter().map(|n| (f64::from(*n) - 1e4).powi(2) / 1e4).sum();
        // Beyond 173.4 in one of a hundred thousand.
        assert!((45.0..173.4).contains(&chi), "{chi}");
    }

    #[test]
    fn single_letters_are_no_more_often_in_the_canary_than_others() {
        let letters: Vec<String> = ('a'..='z').map(String::from).collect();
        let mut all = 0;
        for salt in 0..1_000 {
            let assignment = at(salt, 5.0);
            all += letters.iter().filter(|id| assignment.arm(id) == Arm::Canary).count();
        }
        // 5 % of 26,000 is 1,300; six standard deviations are 211.
        assert!(all.abs_diff(1_300) < 211, "{all}");
        // And for each letter: 50 of 1,000, six standard deviations are 41.
        for id in &letters {
            let own = (0..1_000).filter(|salt| at(*salt, 5.0).arm(id) == Arm::Canary).count();
            assert!(own.abs_diff(50) < 42, "{id}: {own}");
        }
    }

    #[test]
    fn another_salt_meets_other_people() {
        let both = (0..100_000_u32)
            .filter(|id| {
                let id = format!("user-{id}");
                at(1, 5.0).arm(&id) == Arm::Canary && at(2, 5.0).arm(&id) == Arm::Canary
            })
            .count();
        // Independent: 250 of 100,000; six standard deviations are 95.
        assert!(both.abs_diff(250) < 95, "{both}");
    }

    #[test]
    fn nobody_is_in_the_canary_when_killed_or_not_progressive_or_at_no_share() {
        let all = at(1, 100.0);
        for (assignment, expected) in [
            (all, Arm::Canary),
            (Assignment { killed: true, ..all }, Arm::Baseline),
            (Assignment { progressive: false, ..all }, Arm::Baseline),
            (Assignment::default(), Arm::Baseline),
        ] {
            for id in ["", "a", "user-42", "anonymous"] {
                assert_eq!(assignment.arm(id), expected, "{assignment:?}");
            }
        }
    }

    #[test]
    fn a_share_is_a_percentage_from_0_to_100() {
        assert_eq!(Share::percent(5.0).unwrap().ppm(), 50_000);
        assert_eq!(Share::percent(0.01).unwrap().ten_thousandths(), 1);
        assert_eq!(Share::percent(100.0).unwrap(), Share::ALL);
        for bad in [-0.01, 100.01, f64::NAN, f64::INFINITY] {
            assert!(Share::percent(bad).is_err(), "{bad}");
        }
        assert_eq!((Share::new(10_000), Share::new(10_001)), (Some(Share::ALL), None));
        assert!(serde_json::from_str::<Share>("10001").is_err());
    }
}
