//! What the nodes recorded, and what the aggregator answers, in a form that can be compared.

use std::collections::{BTreeMap, BTreeSet};

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

/// How what was merged differs from what was recorded.
#[derive(Clone, Debug, Default)]
pub struct Differences {
    /// A sentence for each; none when they are equal bucket by bucket.
    pub told: Vec<String>,
    /// Something was merged that was not recorded: no waiting makes it good.
    pub too_much: bool,
}

impl Differences {
    /// Nobody answers.
    pub fn unanswered() -> Self {
        Self { told: vec!["the aggregator does not answer".into()], too_much: false }
    }

    fn tell(&mut self, too_much: bool, what: String) {
        self.too_much |= too_much;
        self.told.push(what);
    }
}

impl Sums {
    /// Samples over all series.
    pub fn samples(&self) -> u64 {
        self.series.values().map(Counts::total).sum()
    }

    /// How `merged` differs from these recorded sums; of agents in `damaged` less may
    /// be merged, never more.
    pub fn differences(&self, merged: &Self, damaged: &BTreeSet<String>) -> Differences {
        let mut found = Differences::default();
        let empty = Counts::new();
        for (who, recorded) in &self.series {
            let answer = merged.series.get(who).unwrap_or(&empty);
            if recorded.slots() != answer.slots() {
                let more = |(merged, recorded): (&u64, &u64)| merged > recorded;
                let too_much = answer.slots().iter().zip(recorded.slots()).any(more);
                let (agent, instance, key) = who;
                if damaged.contains(agent) && !too_much {
                    continue;
                }
                let (recorded, answer) = (recorded.total(), answer.total());
                let what =
                    format!("{agent}/{instance} {key}: recorded {recorded}, merged {answer}");
                found.tell(too_much, what);
            }
        }
        for (who, answer) in &merged.series {
            if answer.total() > 0 && !self.series.contains_key(who) {
                let ((agent, instance, key), answer) = (who, answer.total());
                let what = format!("{agent}/{instance} {key}: recorded by nobody, merged {answer}");
                found.tell(true, what);
            }
        }
        // Requests are held together over all agents.
        if damaged.is_empty() {
            self.request_differences(merged, &mut found);
        }
        found
    }

    fn request_differences(&self, merged: &Self, found: &mut Differences) {
        let nothing = (0, 0);
        for (key, made) in &self.requests {
            let answer = merged.requests.get(key).unwrap_or(&nothing);
            let too_much = answer.0 > made.0 || answer.1 > made.1;
            if made != answer {
                let (slice, arm) = key;
                let what = format!("requests {slice} {arm}: made {made:?}, merged {answer:?}");
                found.tell(too_much, what);
            }
        }
        for (key, answer) in &merged.requests {
            if *answer != nothing && !self.requests.contains_key(key) {
                let (slice, arm) = key;
                found.tell(
                    true,
                    format!("requests {slice} {arm}: made by nobody, merged {answer:?}"),
                );
            }
        }
    }
}
