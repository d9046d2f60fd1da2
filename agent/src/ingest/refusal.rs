//! Why something that came in was not counted: a fixed set of reasons, each with its remedy.
//!
//! Promise: whatever is refused is in exactly one of these, so that what was counted and what was
//! refused add up to what came. Bounds: as many reasons as this list has.

use std::collections::BTreeMap;
use std::fmt;

macro_rules! refusals {
    ($($name:ident $text:literal $remedy:literal,)*) => {
        /// A reason for which something was not counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[allow(missing_docs, reason = "the remedy of each says what it is")]
        pub enum Refusal { $($name,)* }

        impl Refusal {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The reason as label, such as `cumulative`.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What would be right.
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$name => $remedy,)* }
            }
        }
    };
}

refusals! {
    Arm "arm" "lens.arm is baseline or canary",
    Body "body" "send what the content type says",
    Busy "busy" "send again later",
    Cumulative "cumulative" "set OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=delta",
    Encoding "encoding" "compress with gzip or not at all",
    Explicit "explicit_histogram" "set OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION=base2_exponential_bucket_histogram",
    GaugeName "gauge_name" "a gauge is lens.<name>, of a-z 0-9 _, and at most 64 of them",
    Inconsistent "inconsistent" "bucket counts add up to count, bounds ascend",
    Kind "kind" "histograms and lens.* gauges are taken, other kinds of metric are not",
    Line "line" "a line is name:value|type|@rate|#tag:value,tag:value",
    Logs "logs" "logs are not taken: send them elsewhere",
    Negative "negative" "a latency is not negative",
    NotOurs "not_ours" "give it a lens.stage attribute, or name it in the listener's stages or units",
    Rate "rate" "a sample rate is above 0.000001 and at most 1",
    Scale "scale" "an exponential histogram's scale is -10 to 20",
    SeriesFull "series_full" "use fewer slices: one agent takes in 256 series",
    SliceMissing "slice_missing" "set lens.repo_type, lens.language and lens.size, or the listener's labels",
    SliceName "slice_name" "a slice part is 1 to 48 of a-z 0-9 . _ + # -",
    SpanNotWanted "span_not_wanted" "the listener's spans setting is refuse",
    SpanTime "span_time" "a span ends after it starts",
    SpanUnweighted "span_unweighted" "the listener takes spans with a sampling threshold (ot=th) alone",
    Stage "stage" "lens.stage is stage_a, stage_b, stage_c or e2e",
    Temporality "temporality" "a histogram says that it is delta",
    Time "time" "a time is within 15 minutes of the agent's clock",
    TooLarge "too_large" "send less at once",
    TooMany "too_many_samples" "a data point has at most 268435456 samples",
    Truncated "truncated" "a datagram is at most 65535 bytes",
    Type "type" "ms, h and d are taken, other types are not",
    Unbounded "unbounded_bucket" "samples above the last bound need the point's max",
    Unit "unit" "the unit is s, ms, us or ns: set it on the metric or in the listener's units",
    Value "value" "a value is a number that is not negative",
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// What was refused of one message, by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refused(BTreeMap<Refusal, u64>);

impl Refused {
    /// Adds to a reason.
    pub fn add(&mut self, why: Refusal, count: u64) {
        if count > 0 {
            *self.0.entry(why).or_default() += count;
        }
    }

    /// How many in all.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Each reason with its number.
    pub fn iter(&self) -> impl Iterator<Item = (Refusal, u64)> {
        self.0.iter().map(|(why, count)| (*why, *count))
    }

    /// A sentence for the sender; empty when nothing was refused.
    pub fn sentence(&self) -> String {
        let each = self.iter().map(|(why, count)| format!("{count} {why} ({})", why.remedy()));
        let all = each.collect::<Vec<_>>().join("; ");
        if all.is_empty() { all } else { format!("not counted: {all}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_label_of_its_own_and_a_remedy() {
        let labels: std::collections::BTreeSet<_> =
            Refusal::ALL.iter().map(|why| why.label()).collect();
        assert_eq!(labels.len(), Refusal::ALL.len());
        assert!(Refusal::ALL.iter().all(|why| !why.remedy().is_empty()));
    }

    #[test]
    fn a_sentence_names_each_reason_with_its_number_and_remedy() {
        let mut refused = Refused::default();
        assert_eq!(refused.sentence(), "");
        refused.add(Refusal::Negative, 2);
        refused.add(Refusal::Kind, 0);
        assert_eq!(refused.sentence(), "not counted: 2 negative (a latency is not negative)");
    }
}
