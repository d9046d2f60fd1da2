//! What the nodes recorded, and what the aggregator answers, in a form that can be compared.

use std::collections::BTreeMap;

use lens_hist::Counts;
use lens_model::{Arm, SeriesKey, Slice};

/// A series of one search node as one agent reports it: agent, instance, series.
pub type Recorded = (String, String, SeriesKey);

/// Request outcomes: answered, failed.
pub type Outcomes = (u64, u64);

/// Everything counted, by whom.
#[derive(Clone, Debug, Default)]
pub struct Sums {
    /// Bucket counts per series and node.
    pub series: BTreeMap<Recorded, Counts>,
    /// Request outcomes per slice and arm.
    pub requests: BTreeMap<(Slice, Arm), Outcomes>,
}

impl Sums {
    /// Samples over all series.
    pub fn samples(&self) -> u64 {
        self.series.values().map(Counts::total).sum()
    }

    /// How `merged` differs from these recorded sums, a sentence for each difference; none when
    /// they are equal bucket by bucket.
    pub fn differences(&self, merged: &Self) -> Vec<String> {
        let mut told = Vec::new();
        let empty = Counts::new();
        for (who, recorded) in &self.series {
            let answer = merged.series.get(who).unwrap_or(&empty);
            if recorded.slots() != answer.slots() {
                let (agent, instance, key) = who;
                let (recorded, answer) = (recorded.total(), answer.total());
                told.push(format!(
                    "{agent}/{instance} {key}: recorded {recorded}, merged {answer}"
                ));
            }
        }
        for ((agent, instance, key), answer) in &merged.series {
            let who = (agent.clone(), instance.clone(), key.clone());
            if answer.total() > 0 && !self.series.contains_key(&who) {
                let answer = answer.total();
                told.push(format!("{agent}/{instance} {key}: recorded by nobody, merged {answer}"));
            }
        }
        let nothing = (0, 0);
        for (key, recorded) in &self.requests {
            let answer = merged.requests.get(key).unwrap_or(&nothing);
            if recorded != answer {
                let (slice, arm) = key;
                told.push(format!("requests {slice} {arm}: made {recorded:?}, merged {answer:?}"));
            }
        }
        for ((slice, arm), answer) in &merged.requests {
            if *answer != nothing && !self.requests.contains_key(&(slice.clone(), *arm)) {
                told.push(format!("requests {slice} {arm}: made by nobody, merged {answer:?}"));
            }
        }
        told
    }
}
