//! The whole query of each slice's canary against its baseline's, as the API shows it.

use lens_model::Slice;
use serde::Serialize;
use utoipa::ToSchema;

use crate::judge::Verdict;
use crate::judge::standing::Standing;

/// The canary's whole query against the baseline's, in one slice.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct E2eRegression {
    /// The slice.
    #[schema(value_type = String, example = "backend/rust/large")]
    pub slice: Slice,
    /// The verdict.
    pub verdict: Verdict,
    /// Largest p95 of the canary that is no violation, as a multiple of the baseline's.
    #[schema(example = 1.1)]
    pub limit: f64,
    /// Samples of the canary in the window it rests on; `null` without one.
    #[schema(example = 4_812)]
    pub samples: Option<u64>,
    /// Width of that window, seconds.
    #[schema(example = 80.0)]
    pub window_s: Option<f64>,
    /// Standard deviations it speaks against the rule.
    #[schema(example = 0.4)]
    pub z: Option<f64>,
    /// How many make a violation.
    #[schema(example = 4.8)]
    pub z_needed: Option<f64>,
    /// One sentence saying what it rests on.
    #[schema(
        example = "the canary's whole query is not shown to be slower than 1.1 times the baseline's"
    )]
    pub reason: String,
}

/// Every slice of which both arms were seen, in order.
pub fn regressions(judge: &Standing) -> Vec<E2eRegression> {
    let shown = |(slice, regression): (&Slice, &crate::judge::standing::Regression)| {
        let (verdict, limit) = (regression.verdict(), regression.margin());
        let finding = regression.finding().filter(|_| verdict != Verdict::InsufficientData);
        E2eRegression {
            slice: slice.clone(),
            verdict,
            limit,
            samples: finding.map(|found| found.samples),
            window_s: finding.map(|found| found.scale.secs()),
            z: finding.map(|found| found.z).filter(|z| z.is_finite()),
            z_needed: finding.map(|found| found.z_needed),
            reason: match verdict {
                Verdict::Violation => format!(
                    "p95 of the canary's whole query is more than {limit} times the baseline's"
                ),
                Verdict::Ok => format!(
                    "the canary's whole query is not shown to be slower than {limit} times the baseline's"
                ),
                _ => {
                    "no recent window in which both arms have 200 samples of the whole query".into()
                }
            },
        }
    };
    judge.regressions().map(shown).collect()
}
