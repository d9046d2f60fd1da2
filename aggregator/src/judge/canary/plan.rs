//! What a rollout is held to: steps, margins, error probabilities. Fixed when the rollout starts.
//!
//! Every default has its reason beside it. A plan read from a file may name any of the keys and no
//! other; a misspelt one is refused with the nearest that exists.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Steps one plan may have.
pub const STEPS_MAX: usize = 16;

/// Longest plan file, bytes.
pub const PLAN_BYTES_MAX: usize = 64 * 1024;

/// Why a plan is refused. Nothing of it is used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PlanError {
    /// It is not TOML, or a value has the wrong type.
    #[error("plan: {0}")]
    Syntax(String),
    /// A key that does not exist.
    #[error("plan: unknown key `{key}`{}", did_you_mean(.nearest.as_deref()))]
    UnknownKey {
        /// As written.
        key: String,
        /// The nearest that exists, if any is near.
        nearest: Option<String>,
    },
    /// A value out of its range.
    #[error("plan: {key} is {value}: {rule}")]
    Value {
        /// Which key.
        key: &'static str,
        /// What was given.
        value: String,
        /// What would be right.
        rule: &'static str,
    },
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

/// A rollout's plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Plan {
    /// Share of each step, percent, rising. What is shown at a step is held until the next.
    pub shares: Vec<f64>,
    /// Percent that keep the baseline through the last step, so that there is something to compare
    /// with until the end.
    pub hold_back: f64,
    /// Shortest stay at each step, seconds.
    pub dwell_s: Vec<u64>,
    /// Longest stay at a step, seconds: then it is held and an alert raised, never promoted.
    pub timeout_s: u64,
    /// Largest p95 ratio, canary over baseline, that each step may not be shown to keep, when every
    /// host carries both arms.
    pub margins: Vec<f64>,
    /// The same when arms live on hosts of their own, whose differences do not average out.
    pub margins_host_split: Vec<f64>,
    /// What p99 may be wider than p95's margin.
    pub margin_p99_extra: f64,
    /// Largest error-rate ratio of each step.
    pub error_ratios: Vec<f64>,
    /// Error rate of each step below which the ratio does not matter.
    pub error_rates: Vec<f64>,
    /// Chance that a rollout as good as its baseline is ever rolled back, at most.
    pub alpha: f64,
    /// Chance that a step is promoted though worse than its margin, at most.
    pub alpha_promotion: f64,
    /// Chance that one bad host is taken for a bad version, at most.
    pub alpha_host: f64,
    /// Quantile ratio that is no harm: buckets and clocks are not finer than this.
    pub margin_harm: f64,
    /// Error-rate ratio that is no harm.
    pub error_ratio_harm: f64,
    /// Error rate that is no harm whatever the baseline's is.
    pub error_rate_harm: f64,
    /// How much quality may fall without harm, on a scale of 0 to 1.
    pub quality_drop: f64,
    /// Windows at the beginning of each step whose canary is not judged, for cold caches, seconds.
    pub cold_start_s: u64,
    /// Dispersion of requests within a host when nothing better is known.
    pub phi_in_host: f64,
    /// Baseline history needed before arms on hosts of their own are judged, seconds.
    pub history_s: u64,
    /// Confidence at which host differences widen the margin of harm.
    pub host_confidence: f64,
    /// Confidence at which host differences narrow the margins of promotion.
    pub host_confidence_promotion: f64,
    /// Quantile ratio, host over the other hosts of its arm, from which a host is called slow.
    pub margin_host: f64,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            shares: vec![5.0, 25.0, 100.0],
            hold_back: 5.0,
            dwell_s: vec![300, 600, 600],
            timeout_s: 3_600,
            margins: vec![1.25, 1.15, 1.10],
            margins_host_split: vec![1.50, 1.25, 1.15],
            margin_p99_extra: 0.10,
            error_ratios: vec![3.0, 2.0, 1.5],
            error_rates: vec![0.005, 0.002, 0.001],
            alpha: 0.02,
            alpha_promotion: 0.05,
            alpha_host: 0.05,
            margin_harm: 1.05,
            error_ratio_harm: 1.25,
            error_rate_harm: 0.000_5,
            quality_drop: 0.005,
            cold_start_s: 0,
            phi_in_host: 1.25,
            history_s: 3_600,
            host_confidence: 0.90,
            host_confidence_promotion: 0.95,
            margin_host: 1.25,
        }
    }
}

impl Plan {
    /// Reads a plan from TOML. Lists shorter than `shares` repeat their last value.
    ///
    /// # Errors
    /// Any [`PlanError`], naming the key and what would be right.
    pub fn parse(text: &str) -> Result<Self, PlanError> {
        if text.len() > PLAN_BYTES_MAX {
            let value = format!("{} bytes", text.len());
            return Err(PlanError::Value { key: "file", value, rule: "use at most 65536 bytes" });
        }
        let table: toml::Table =
            text.parse().map_err(|e: toml::de::Error| PlanError::Syntax(e.to_string()))?;
        refuse_unknown(&table)?;
        let plan: Self = table.try_into().map_err(|e| PlanError::Syntax(e.to_string()))?;
        plan.checked()
    }

    /// The plan with every list as long as `shares`, if every value is in range.
    ///
    /// # Errors
    /// [`PlanError::Value`] for the first that is not.
    pub fn checked(mut self) -> Result<Self, PlanError> {
        let steps = self.shares.len();
        let refuse = |key, value: String, rule| Err(PlanError::Value { key, value, rule });
        if !(1..=STEPS_MAX).contains(&steps) {
            return refuse("shares", format!("{steps} steps"), "use 1 to 16");
        }
        let rising = self.shares.windows(2).all(|pair| pair[0] < pair[1]);
        let in_range = self.shares.iter().all(|share| *share > 0.0 && *share <= 100.0);
        if !rising || !in_range {
            let rule = "use rising percentages above 0 and up to 100";
            return refuse("shares", format!("{:?}", self.shares), rule);
        }
        self.check_numbers()?;
        fill("dwell_s", &mut self.dwell_s, steps, |_| true)?;
        fill("margins", &mut self.margins, steps, |m| *m > 1.0 && *m <= 10.0)?;
        fill("margins_host_split", &mut self.margins_host_split, steps, |m| {
            *m > 1.0 && *m <= 10.0
        })?;
        fill("error_ratios", &mut self.error_ratios, steps, |r| *r >= 1.0 && *r <= 100.0)?;
        fill("error_rates", &mut self.error_rates, steps, |r| *r > 0.0 && *r < 1.0)?;
        Ok(self)
    }

    fn check_numbers(&self) -> Result<(), PlanError> {
        const PROBABILITY: &str = "use a number above 0 and below 0.5";
        const RATIO: &str = "use a number from 1 to 10";
        const CONFIDENCE: &str = "use a number from 0.5 to 0.999";
        const RATE: &str = "use a number above 0 and below 1";
        let probability = |x: f64| x > 0.0 && x < 0.5;
        let ratio = |x: f64| (1.0..=10.0).contains(&x);
        let confidence = |x: f64| (0.5..=0.999).contains(&x);
        let rate = |x: f64| x > 0.0 && x < 1.0;
        let checks = [
            ("alpha", self.alpha, probability(self.alpha), PROBABILITY),
            (
                "alpha_promotion",
                self.alpha_promotion,
                probability(self.alpha_promotion),
                PROBABILITY,
            ),
            ("alpha_host", self.alpha_host, probability(self.alpha_host), PROBABILITY),
            ("margin_harm", self.margin_harm, ratio(self.margin_harm), RATIO),
            ("margin_host", self.margin_host, ratio(self.margin_host), RATIO),
            ("error_ratio_harm", self.error_ratio_harm, ratio(self.error_ratio_harm), RATIO),
            ("error_rate_harm", self.error_rate_harm, rate(self.error_rate_harm), RATE),
            ("quality_drop", self.quality_drop, rate(self.quality_drop), RATE),
            (
                "margin_p99_extra",
                self.margin_p99_extra,
                (0.0..=1.0).contains(&self.margin_p99_extra),
                "use a number from 0 to 1",
            ),
            (
                "phi_in_host",
                self.phi_in_host,
                (1.0..=1_000.0).contains(&self.phi_in_host),
                "use a number from 1 to 1000",
            ),
            ("host_confidence", self.host_confidence, confidence(self.host_confidence), CONFIDENCE),
            (
                "host_confidence_promotion",
                self.host_confidence_promotion,
                confidence(self.host_confidence_promotion),
                CONFIDENCE,
            ),
            (
                "hold_back",
                self.hold_back,
                (0.0..100.0).contains(&self.hold_back),
                "use a percentage from 0 to below 100",
            ),
        ];
        for (key, value, good, rule) in checks {
            if !good {
                return Err(PlanError::Value { key, value: value.to_string(), rule });
            }
        }
        Ok(())
    }

    /// Steps there are.
    pub fn steps(&self) -> usize {
        self.shares.len()
    }

    /// The share of a step, percent, what is held back taken off.
    pub fn share(&self, step: usize) -> f64 {
        let share = self.shares.get(step).copied().unwrap_or(0.0);
        share.min(100.0 - self.hold_back)
    }
}

fn refuse_unknown(table: &toml::Table) -> Result<(), PlanError> {
    let known =
        toml::Table::try_from(Plan::default()).map_err(|e| PlanError::Syntax(e.to_string()))?;
    match table.keys().find(|key| !known.contains_key(*key)) {
        None => Ok(()),
        Some(key) => {
            let nearest = lens_service::config::nearest(key, known.keys().map(String::as_str));
            Err(PlanError::UnknownKey { key: key.clone(), nearest: nearest.map(str::to_owned) })
        }
    }
}

/// Makes a list as long as there are steps by repeating its last value.
fn fill<T: Copy + std::fmt::Debug>(
    key: &'static str,
    list: &mut Vec<T>,
    steps: usize,
    good: impl Fn(&T) -> bool,
) -> Result<(), PlanError> {
    let Some(&last) = list.last() else {
        let rule = "give a value for each step, or one for all";
        return Err(PlanError::Value { key, value: "empty".to_owned(), rule });
    };
    if !list.iter().all(good) {
        let rule = "a value is out of range";
        return Err(PlanError::Value { key, value: format!("{list:?}"), rule });
    }
    list.resize(steps, last);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_names_what_it_changes_and_keeps_the_rest() {
        let plan = Plan::parse("shares = [10, 50]\ndwell_s = [60]\nalpha = 0.01").unwrap();
        assert_eq!((plan.shares, plan.dwell_s, plan.alpha), (vec![10.0, 50.0], vec![60, 60], 0.01));
        assert_eq!(plan.margins, vec![1.25, 1.15]);
        assert_eq!(Plan::parse("").unwrap(), Plan::default());
    }

    #[test]
    fn a_misspelt_key_is_refused_with_the_nearest() {
        let error = Plan::parse("share = [5]").unwrap_err().to_string();
        assert_eq!(error, "plan: unknown key `share`; did you mean `shares`?");
        let error = Plan::parse("zzz = 1").unwrap_err().to_string();
        assert_eq!(error, "plan: unknown key `zzz`");
    }

    #[test]
    fn values_out_of_range_are_refused_and_say_what_would_be_right() {
        for bad in [
            "shares = []",
            "shares = [25, 5]",
            "shares = [0]",
            "shares = [101]",
            "alpha = 0",
            "alpha = 0.5",
            "margins = [1.0]",
            "margins = []",
            "hold_back = 100",
            "phi_in_host = 0.9",
            "dwell_s = [-1]",
            "alpha = \"low\"",
            "alpha = ",
        ] {
            assert!(Plan::parse(bad).is_err(), "{bad}");
        }
        let shares =
            |n: usize| Plan { shares: (1..=n).map(|s| s as f64).collect(), ..Plan::default() };
        assert!(shares(STEPS_MAX).checked().is_ok());
        assert!(shares(STEPS_MAX + 1).checked().is_err());
        assert!(Plan::parse(&" ".repeat(PLAN_BYTES_MAX)).is_ok());
        assert!(Plan::parse(&" ".repeat(PLAN_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn the_last_step_leaves_what_is_held_back() {
        let plan = Plan::default();
        assert_eq!((plan.share(0), plan.share(2), plan.share(9)), (5.0, 95.0, 0.0));
    }
}
