//! What the proxy measured, counted into a segment of its own.
//!
//! Why a segment: the agent harvests it like that of any node, so there is one way through for all
//! counts, and these outlive a killed agent as those of a node do.
//! Promise: recording never fails a request. A slice past the bound, or one the segment has no room
//! for, is counted under [`rest`], and that is counted.
//! Bounds: `proxy.slices_max` slices, at most [`PROXY_SLICES_MAX`], and the rest.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lens_model::limits::{NAME_BYTES_MAX, PROXY_SLICES_MAX};
use lens_model::{Arm, Nanos, Slice, Stage};
use lens_segment::{Node, Recorder, RegisterError, Requests, Series};
use parking_lot::RwLock;
use serde_json::{Value, json};
use tracing::warn;

use super::outcome::Outcome;

/// What the proxy counted since the agent started, by arm and outcome.
#[derive(Debug, Default)]
pub struct Counters {
    requests: [[AtomicU64; Outcome::ALL.len()]; Arm::ALL.len()],
    /// Requests turned down before they had an arm.
    pub turned_down_total: AtomicU64,
    /// Requests of slices that had no place of their own.
    pub slices_left_out_total: AtomicU64,
    /// Client connections open now.
    pub connections: AtomicU64,
}

impl Counters {
    /// Requests of this arm that ended so.
    pub fn requests(&self, arm: Arm, outcome: Outcome) -> u64 {
        self.requests[usize::from(arm.code())][outcome.at()].load(Ordering::Relaxed)
    }

    fn add(&self, arm: Arm, outcome: Outcome) {
        self.requests[usize::from(arm.code())][outcome.at()].fetch_add(1, Ordering::Relaxed);
    }

    /// All of it, for `/status`.
    pub fn show(&self) -> Value {
        let arm = |arm| -> serde_json::Map<String, Value> {
            let of = |outcome: Outcome| self.requests(arm, outcome).into();
            Outcome::ALL.iter().map(|outcome| (outcome.as_str().into(), of(*outcome))).collect()
        };
        json!({
            "requests": {"baseline": arm(Arm::Baseline), "canary": arm(Arm::Canary)},
            "turned_down_total": self.turned_down_total.load(Ordering::Relaxed),
            "slices_left_out_total": self.slices_left_out_total.load(Ordering::Relaxed),
            "connections": self.connections.load(Ordering::Relaxed),
        })
    }

    /// All of it, as Prometheus text.
    pub fn expose(&self, out: &mut String) {
        let mut head = |kind: &str, name: &str, help: &str, lines: &[(String, u64)]| {
            out.push_str(&format!("# HELP lens_agent_proxy_{name} {help}\n"));
            out.push_str(&format!("# TYPE lens_agent_proxy_{name} {kind}\n"));
            for (labels, value) in lines {
                out.push_str(&format!("lens_agent_proxy_{name}{labels} {value}\n"));
            }
        };
        let of = |arm: Arm, outcome: Outcome| {
            let labels = format!("{{arm=\"{arm}\",outcome=\"{}\"}}", outcome.as_str());
            (labels, self.requests(arm, outcome))
        };
        let all = Arm::ALL.into_iter().flat_map(|arm| Outcome::ALL.map(|outcome| of(arm, outcome)));
        let all: Vec<_> = all.collect();
        head("counter", "requests_total", "Requests by arm and how they ended.", &all);
        let read = |counter: &AtomicU64| [(String::new(), counter.load(Ordering::Relaxed))];
        let help = "Requests turned down before they had an arm.";
        head("counter", "turned_down_total", help, &read(&self.turned_down_total));
        let help = "Requests of slices without a place of their own.";
        head("counter", "slices_left_out_total", help, &read(&self.slices_left_out_total));
        head("gauge", "connections", "Client connections open.", &read(&self.connections));
    }
}

/// The slice of everything that has none of its own.
fn rest() -> Slice {
    Slice::new("other", "other", "other").expect("three good names")
}

/// One slice's series and request counters, of both arms.
pub(crate) struct Tracked([(Series, Requests); Arm::ALL.len()]);

impl std::fmt::Debug for Tracked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [(series, _), _] = &self.0;
        f.debug_tuple("Tracked").field(&series.key().slice).finish()
    }
}

/// Which slices have a place of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Slices {
    /// These and no others.
    Known(Vec<Slice>),
    /// The first so many that come, at most [`PROXY_SLICES_MAX`].
    First(usize),
}

/// The segment, and what of it is in use.
pub(crate) struct Ledger {
    recorder: Recorder,
    stage: Stage,
    slices_max: usize,
    slices: RwLock<HashMap<Slice, Arc<Tracked>>>,
    rest: RwLock<Option<Arc<Tracked>>>,
    counters: Arc<Counters>,
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger").field("path", &self.recorder.path()).finish_non_exhaustive()
    }
}

impl Ledger {
    /// A ledger in this segment, whose node records one stage.
    ///
    /// # Errors
    /// [`RegisterError`] when the segment has no room for the slices that are known.
    pub(crate) fn new(
        recorder: Recorder,
        stage: Stage,
        slices: &Slices,
        counters: Arc<Counters>,
    ) -> Result<Self, RegisterError> {
        let (known, slices_max) = match slices {
            Slices::Known(known) => (&known[..], known.len()),
            Slices::First(most) => (&[][..], *most),
        };
        debug_assert!(slices_max <= PROXY_SLICES_MAX);
        let ledger = Self {
            recorder,
            stage,
            slices_max,
            slices: RwLock::default(),
            rest: RwLock::default(),
            counters,
        };
        for slice in known {
            let tracked = Arc::new(ledger.register(slice)?);
            ledger.slices.write().insert(slice.clone(), tracked);
        }
        Ok(ledger)
    }

    /// Where requests of this slice are counted; `None` when the segment has no room for any.
    pub(crate) fn of(&self, slice: &Slice) -> Option<Arc<Tracked>> {
        if let Some(tracked) = self.slices.read().get(slice) {
            return Some(Arc::clone(tracked));
        }
        self.begin(slice).or_else(|| {
            self.counters.slices_left_out_total.fetch_add(1, Ordering::Relaxed);
            self.remainder()
        })
    }

    /// Gives a slice a place of its own, if there is one left.
    fn begin(&self, slice: &Slice) -> Option<Arc<Tracked>> {
        // Read first: past the bound nobody waits for another to have looked.
        if self.slices.read().len() >= self.slices_max {
            return None;
        }
        let mut slices = self.slices.write();
        if let Some(tracked) = slices.get(slice) {
            return Some(Arc::clone(tracked));
        }
        if slices.len() >= self.slices_max {
            return None;
        }
        let tracked = Arc::new(self.registered(slice)?);
        slices.insert(slice.clone(), Arc::clone(&tracked));
        Some(tracked)
    }

    fn remainder(&self) -> Option<Arc<Tracked>> {
        if let Some(tracked) = &*self.rest.read() {
            return Some(Arc::clone(tracked));
        }
        let mut held = self.rest.write();
        if held.is_none() {
            *held = Some(Arc::new(self.registered(&rest())?));
        }
        held.clone()
    }

    fn registered(&self, slice: &Slice) -> Option<Tracked> {
        self.register(slice)
            .inspect_err(|error| warn!(%slice, %error, "requests are counted elsewhere or nowhere"))
            .ok()
    }

    fn register(&self, slice: &Slice) -> Result<Tracked, RegisterError> {
        let of = |arm| {
            let series = self.recorder.series_in_arm(slice, self.stage, arm)?;
            Ok((series, self.recorder.requests_for(slice, arm)?))
        };
        Ok(Tracked([of(Arm::Baseline)?, of(Arm::Canary)?]))
    }

    /// Counts a request that ended.
    pub(crate) fn count(&self, place: Option<&Tracked>, arm: Arm, outcome: Outcome, took: Nanos) {
        self.counters.add(arm, outcome);
        let (Some(good), Some(Tracked(arms))) = (outcome.verdict(), place) else { return };
        let (series, requests) = &arms[usize::from(arm.code())];
        if outcome.is_timed() {
            series.record(took.0);
        }
        if good {
            requests.ok();
        } else {
            requests.error();
        }
    }

    /// Counts a request turned down before it had an arm.
    pub(crate) fn turned_down(&self) {
        self.counters.turned_down_total.fetch_add(1, Ordering::Relaxed);
    }
}

/// The instance the proxy of this agent records as: no node's name, and the same after a restart.
pub(crate) fn instance(agent: &str) -> String {
    let mut name = format!("proxy-{agent}");
    // Agents' names are of the same bytes and may be as long.
    name.truncate(NAME_BYTES_MAX);
    name
}

/// How the proxy's segment describes who records.
pub(crate) fn node(instance: &str) -> Node<'_> {
    Node { service: "lens-proxy", version: env!("CARGO_PKG_VERSION"), instance }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(dir: &std::path::Path, slices: &Slices) -> Ledger {
        let recorder = Recorder::create(dir, node("proxy-a")).unwrap();
        Ledger::new(recorder, Stage::E2e, slices, Arc::default()).unwrap()
    }

    fn named(language: usize) -> Slice {
        Slice::new("backend", &format!("l{language}"), "small").unwrap()
    }

    fn count(ledger: &Ledger, slice: &Slice, outcome: Outcome) {
        ledger.count(ledger.of(slice).as_deref(), Arm::Canary, outcome, Nanos(1_000));
    }

    fn totals(ledger: &Ledger) -> Vec<(String, u64)> {
        let totals = ledger.recorder.recorded_totals().into_iter();
        totals.filter(|(_, n)| *n > 0).map(|(key, n)| (key.to_string(), n)).collect()
    }

    #[test]
    fn at_the_bound_a_slice_has_its_own_place_and_one_past_it_has_not() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = ledger(dir.path(), &Slices::First(PROXY_SLICES_MAX));
        for language in 0..=PROXY_SLICES_MAX {
            count(&ledger, &named(language), Outcome::Ok);
        }
        count(&ledger, &named(0), Outcome::Ok);
        let totals = totals(&ledger);
        assert_eq!(totals.len(), PROXY_SLICES_MAX + 1);
        assert_eq!(totals[0], ("backend/l0/small/e2e/canary".into(), 2));
        assert_eq!(totals.last().unwrap(), &("other/other/other/e2e/canary".into(), 1));
        assert_eq!(ledger.counters.slices_left_out_total.load(Ordering::Relaxed), 1);
        assert_eq!(ledger.counters.requests(Arm::Canary, Outcome::Ok), 64);
    }

    #[test]
    fn where_slices_are_named_no_other_takes_a_place() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = ledger(dir.path(), &Slices::Known(vec![named(1)]));
        count(&ledger, &named(2), Outcome::Ok);
        count(&ledger, &named(1), Outcome::Ok);
        let names: Vec<_> = totals(&ledger).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["backend/l1/small/e2e/canary", "other/other/other/e2e/canary"]);
    }

    #[test]
    fn only_what_an_arm_did_is_timed_and_a_failed_connection_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = ledger(dir.path(), &Slices::First(1));
        for outcome in Outcome::ALL {
            count(&ledger, &named(0), outcome);
        }
        assert_eq!(totals(&ledger), [("backend/l0/small/e2e/canary".into(), 5)]);
        assert!(Outcome::ALL.iter().all(|o| ledger.counters.requests(Arm::Canary, *o) == 1));
        let mut text = String::new();
        ledger.counters.expose(&mut text);
        let line = "lens_agent_proxy_requests_total{arm=\"canary\",outcome=\"client_gone\"} 1\n";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn the_longest_agent_name_still_gives_an_instance() {
        let agent = "a".repeat(NAME_BYTES_MAX);
        let instance = instance(&agent);
        assert!(lens_model::InstanceName::new(&instance).is_ok(), "{instance}");
    }
}
