//! A deliberate slowdown of one stage, to see whether it is noticed.
//!
//! Text form: `stage_b=3@canary:after=10s`: three times as slow, in the canary arm only, from ten
//! seconds after the start. The arm and the onset may be left out.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use lens_model::{Arm, Stage};

use crate::arguments::{self, ArgumentError};

/// Largest factor; beyond it a query would outlast any timeout.
const FACTOR_MAX: f64 = 1_000.0;

const EXAMPLE: &str = "STAGE=FACTOR[@ARM][:after=DURATION], such as stage_b=3@canary:after=10s";

/// One stage made slower by a factor, in one arm or in both, from some time on.
#[derive(Clone, Debug, PartialEq)]
pub struct Regression {
    /// The stage that becomes slower.
    pub stage: Stage,
    /// How many times as long it takes, 1 to 1,000.
    pub factor: f64,
    /// The arm it happens in; both when absent.
    pub arm: Option<Arm>,
    /// How long after the start it sets in.
    pub after: Duration,
}

impl Regression {
    /// Whether it acts on this stage and arm at this time since the start.
    pub fn applies(&self, stage: Stage, arm: Arm, since_start: Duration) -> bool {
        self.stage == stage && self.arm.is_none_or(|only| only == arm) && since_start >= self.after
    }

    /// The factor all of `regressions` together put on a stage: their product, 1 for none.
    pub fn factor_of(list: &[Self], stage: Stage, arm: Arm, since_start: Duration) -> f64 {
        list.iter()
            .filter(|regression| regression.applies(stage, arm, since_start))
            .map(|regression| regression.factor)
            .product()
    }
}

impl FromStr for Regression {
    type Err = ArgumentError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = |problem: String| ArgumentError::new("regression", text, problem, EXAMPLE);
        let (head, options) = match text.split_once(':') {
            Some((head, options)) => (head, Some(options)),
            None => (text, None),
        };
        let (stage, rest) =
            head.split_once('=').ok_or_else(|| refuse("the factor is missing".into()))?;
        let (factor, arm) = match rest.split_once('@') {
            Some((factor, arm)) => (factor, Some(arm)),
            None => (rest, None),
        };
        let stage: Stage = stage.trim().parse().map_err(|e| refuse(format!("{e}")))?;
        if stage == Stage::E2e {
            return Err(refuse("e2e is the sum of the stages; slow one of them down".into()));
        }
        let factor = arguments::number_within("factor", factor, 1.0, FACTOR_MAX, EXAMPLE)
            .map_err(|e| refuse(format!("the factor is refused: {}", e.problem)))?;
        let arm =
            arm.map(|arm| arm.trim().parse().map_err(|e| refuse(format!("{e}")))).transpose()?;
        let after = match options.map(|options| (options, options.trim().strip_prefix("after="))) {
            None => Duration::ZERO,
            Some((_, Some(after))) => {
                arguments::duration(after).map_err(|e| refuse(format!("after: {}", e.problem)))?
            }
            Some((options, None)) => {
                return Err(refuse(format!("the option {options:?} is unknown, only after= is")));
            }
        };
        Ok(Self { stage, factor, arm, after })
    }
}

impl fmt::Display for Regression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.stage, self.factor)?;
        if let Some(arm) = self.arm {
            write!(f, "@{arm}")?;
        }
        if !self.after.is_zero() {
            write!(f, ":after={}ms", self.after.as_secs_f64() * 1e3)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_regression_reads_with_and_without_its_options() {
        let full: Regression = "stage_b=3@canary:after=10s".parse().unwrap();
        assert_eq!(full.stage, Stage::B);
        assert_eq!((full.factor, full.arm), (3.0, Some(Arm::Canary)));
        assert_eq!(full.after, Duration::from_secs(10));
        assert_eq!(full.to_string().parse::<Regression>().unwrap(), full);
        let plain: Regression = "stage_a=1.5".parse().unwrap();
        assert_eq!((plain.arm, plain.after), (None, Duration::ZERO));
    }

    #[test]
    fn a_refused_regression_says_which_part_is_wrong() {
        for (text, part) in [
            ("stage_b", "factor is missing"),
            ("stage_x=3", "stage_x"),
            ("stage_b=fast", "not a number"),
            ("stage_b=0.5", "between 1"),
            ("stage_b=NaN", "between 1"),
            ("stage_b=3@green", "green"),
            ("stage_b=3:before=1s", "before"),
            ("stage_b=3:after=1", "unit is missing"),
            ("e2e=3", "sum of the stages"),
        ] {
            let error = text.parse::<Regression>().unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("stage_b=3@canary"), "{text}: {error}");
        }
    }

    #[test]
    fn a_regression_acts_only_on_its_stage_its_arm_and_from_its_onset() {
        let list = ["stage_b=3@canary:after=10s".parse().unwrap(), "b=2".parse().unwrap()];
        let factor =
            |stage, arm, secs| Regression::factor_of(&list, stage, arm, Duration::from_secs(secs));
        assert_eq!(factor(Stage::B, Arm::Canary, 9), 2.0);
        assert_eq!(factor(Stage::B, Arm::Canary, 10), 6.0);
        assert_eq!(factor(Stage::B, Arm::Baseline, 10), 2.0);
        assert_eq!(factor(Stage::A, Arm::Canary, 10), 1.0);
    }
}
