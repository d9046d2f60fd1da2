//! What many worlds came to, added up, and how a failure is told.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};

use super::SECOND;
use super::network::Traffic;
use super::plan::Plan;
use super::run::Outcome;
use super::shrink::Shrunk;

/// Many worlds, added up.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Worlds lived.
    pub worlds: u64,
    /// Worlds lived twice, whose traces were equal.
    pub repeated: u64,
    /// Seeds that failed.
    pub failed: Vec<u64>,
    /// Samples recorded and found merged.
    pub samples: u64,
    /// Datagrams.
    pub traffic: Traffic,
    /// Faults, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Programs started again.
    pub restarts: u64,
    /// Claims of the rogue that reached the aggregator.
    pub claims: u64,
    /// Virtual time, nanoseconds.
    pub virtual_nanos: u64,
    /// Longest a world took to agree, virtual nanoseconds.
    pub converged_nanos_max: u64,
}

impl Totals {
    /// Adds a world.
    pub fn add(&mut self, seed: u64, outcome: &Outcome) {
        self.worlds += 1;
        if !outcome.wrong.is_empty() {
            self.failed.push(seed);
        }
        self.samples += outcome.samples;
        self.traffic.add(outcome.traffic);
        for (kind, count) in &outcome.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        self.restarts += outcome.restarts;
        self.claims += outcome.claims;
        self.virtual_nanos += outcome.lasted_nanos;
        self.converged_nanos_max = self.converged_nanos_max.max(outcome.converged_nanos);
    }

    /// Adds what another thread added up.
    pub fn merge(&mut self, other: &Self) {
        self.worlds += other.worlds;
        self.repeated += other.repeated;
        self.failed.extend_from_slice(&other.failed);
        self.samples += other.samples;
        self.traffic.add(other.traffic);
        for (kind, count) in &other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        self.restarts += other.restarts;
        self.claims += other.claims;
        self.virtual_nanos += other.virtual_nanos;
        self.converged_nanos_max = self.converged_nanos_max.max(other.converged_nanos_max);
    }

    /// As one object.
    pub fn json(&self) -> Value {
        json!({
            "worlds": self.worlds,
            "repeated": self.repeated,
            "failed": self.failed,
            "samples": self.samples,
            "datagrams": {
                "sent": self.traffic.sent,
                "lost": self.traffic.lost,
                "doubled": self.traffic.doubled,
                "spoiled": self.traffic.spoiled,
                "cut": self.traffic.cut,
            },
            "faults": self.faults,
            "restarts": self.restarts,
            "rogue_claims": self.claims,
            "virtual_secs": self.virtual_nanos / SECOND,
            "converged_millis_max": self.converged_nanos_max / 1_000_000,
        })
    }

    /// For people, a line each.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{} worlds of {} virtual seconds, {} lived twice with equal traces, {} failed\n\
             {} samples; {} restarts; {} claims of the rogue; longest to agree {:.1} s\n\
             {} datagrams: {} lost, {} doubled, {} spoiled, {} cut off\n",
            self.worlds,
            self.virtual_nanos / SECOND,
            self.repeated,
            self.failed.len(),
            self.samples,
            self.restarts,
            self.claims,
            seconds(self.converged_nanos_max),
            self.traffic.sent,
            self.traffic.lost,
            self.traffic.doubled,
            self.traffic.spoiled,
            self.traffic.cut,
        );
        for (kind, count) in &self.faults {
            // Writing to a string cannot fail.
            writeln!(text, "{count:>9} {kind}").ok();
        }
        text
    }
}

impl Traffic {
    fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.spoiled += other.spoiled;
        self.cut += other.cut;
    }
}

#[allow(clippy::cast_precision_loss)]
fn seconds(nanos: u64) -> f64 {
    nanos as f64 / SECOND as f64
}

/// How a world failed, with what, and how to see it again.
pub fn failure(whole: &Plan, shrunk: &Shrunk) -> String {
    let mut text = format!("seed {} fails:\n", whole.seed);
    for wrong in &shrunk.outcome.wrong {
        writeln!(text, "  {wrong}").ok();
    }
    let (left, all) = (shrunk.plan.faults.len(), whole.faults.len());
    writeln!(text, "with {left} of its {all} faults, after {} worlds:", shrunk.worlds).ok();
    for fault in &shrunk.plan.faults {
        writeln!(text, "  {fault}").ok();
    }
    let kept: Vec<String> = shrunk.kept(whole).iter().map(usize::to_string).collect();
    writeln!(
        text,
        "again: cargo run --release -p lens-tests --features world --bin lens-world -- \
         replay --seed {} --only '{}'{}{}",
        whole.seed,
        kept.join(","),
        if shrunk.plan.stalls_per_mille == 0 { " --no-stalls" } else { "" },
        if shrunk.plan.replaced.is_none() { " --no-replacement" } else { "" },
    )
    .ok();
    text
}
