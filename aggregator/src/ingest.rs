//! What becomes of each frame an agent sends: merged once, whatever happens to the connection.
//!
//! A delta is named by (agent, incarnation, sequence). The [`Ledger`] holds the last sequence of
//! each incarnation under the same lock as the merge, so two connections of one agent cannot both
//! merge a delta, and a repeated one changes nothing. Each delta ends in exactly one of accepted,
//! duplicate, late or refused; a refused one ends its connection and will be sent again.
//! In this version "durable" means merged in memory: a restarted aggregator starts from nothing.
//! Refusal: no socket and no clock here; `now` is an argument.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use lens_model::limits::{EVENT_FUTURE_SECS_MAX, WINDOW_SLOTS_MAX};
use lens_model::{AgentName, Incarnation, Nanos, Sequence, SeriesKey, Slice, UnixNanos};
use lens_wire::{DeltaRef, Dict, DictionaryError, PeerDictionary};
use parking_lot::Mutex;
use thiserror::Error;

use crate::state::{Counters, State};
use crate::window::{Host, Merged, RequestCounts, SeriesHandle, Windows};

/// Incarnations remembered per agent; an agent makes a new one per start.
const INCARNATIONS_PER_AGENT_MAX: usize = 1_024;

/// How a delta ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Merged into an open slot.
    Accepted,
    /// Seen before; nothing changed.
    Duplicate,
    /// Merged, correcting a slot that had been sealed or older than the ring.
    Late,
}

/// Why a frame was refused; the connection ends with it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum IngestError {
    /// The delta after the last one is due first.
    #[error("delta {got} came where {due} is due")]
    Gap {
        /// What came.
        got: Sequence,
        /// What was due.
        due: Sequence,
    },
    /// Names are wrong or too many.
    #[error(transparent)]
    Dictionary(#[from] DictionaryError),
}

/// The last merged sequence of every known incarnation.
#[derive(Debug, Default)]
pub struct Ledger {
    agents: HashMap<AgentName, Lives>,
}

#[derive(Debug, Default)]
struct Lives {
    acked: HashMap<Incarnation, Sequence>,
    order: VecDeque<Incarnation>,
}

impl Ledger {
    /// The last merged sequence of an incarnation; 0 for one not seen before.
    pub fn acked(&self, agent: &AgentName, incarnation: Incarnation) -> Sequence {
        let lives = self.agents.get(agent);
        lives.and_then(|lives| lives.acked.get(&incarnation)).copied().unwrap_or_default()
    }

    fn advance(&mut self, agent: &AgentName, incarnation: Incarnation, to: Sequence) {
        let lives = self.agents.entry(agent.clone()).or_default();
        if lives.acked.insert(incarnation, to).is_none() {
            lives.order.push_back(incarnation);
            if lives.order.len() > INCARNATIONS_PER_AGENT_MAX
                && let Some(oldest) = lives.order.pop_front()
            {
                lives.acked.remove(&oldest);
            }
        }
    }
}

/// Takes frames of all agents into one state.
#[derive(Debug)]
pub struct Ingest {
    /// The state merged into.
    pub state: Arc<State>,
    ledger: Mutex<Ledger>,
    slices: Mutex<HashSet<Slice>>,
}

impl Ingest {
    /// An ingest with nothing merged yet.
    pub fn new(state: Arc<State>) -> Self {
        let slices = state.rules.slices_known.iter().cloned().collect();
        Self { state, ledger: Mutex::new(Ledger::default()), slices: Mutex::new(slices) }
    }

    /// Where an incarnation resumes: the last sequence merged of it.
    pub fn acked(&self, agent: &AgentName, incarnation: Incarnation) -> Sequence {
        self.ledger.lock().acked(agent, incarnation)
    }

    /// Whether a slice is known or may still be taken on.
    fn admits(&self, slice: &Slice) -> bool {
        let mut slices = self.slices.lock();
        if slices.contains(slice) {
            return true;
        }
        let automatic = slices.len() - self.state.rules.slices_known.len().min(slices.len());
        if automatic >= self.state.rules.slices_automatic_max {
            return false;
        }
        slices.insert(slice.clone());
        drop(slices);
        self.state.tell(
            "slice",
            slice.to_string(),
            format!("slice {slice} seen for the first time"),
        );
        true
    }
}

/// Where the samples of a series id go.
#[derive(Debug)]
enum Place {
    /// Nowhere: its slice or host is one too many.
    LeftOut,
    /// Named, but no sample has come yet.
    Named(Arc<Host>, SeriesKey),
    /// Held by the windows.
    Held(SeriesHandle),
}

impl Place {
    /// Where to merge, found at the first sample and kept.
    fn handle(&mut self, windows: &mut Windows) -> Option<SeriesHandle> {
        match self {
            Self::LeftOut => None,
            Self::Held(handle) => Some(*handle),
            Self::Named(host, key) => {
                let handle = windows.handle(key, host).ok()?;
                *self = Self::Held(handle);
                Some(handle)
            }
        }
    }
}

/// One connection's names and counts.
#[derive(Debug)]
pub struct Stream {
    agent: AgentName,
    incarnation: Incarnation,
    dictionary: PeerDictionary,
    series: Vec<Place>,
    /// Per instance id: its host, or `None` when it is one too many.
    hosts: Vec<Option<Arc<Host>>>,
    refused: BTreeMap<&'static str, u64>,
}

impl Stream {
    /// A fresh connection of an agent in one life.
    pub fn new(agent: AgentName, incarnation: Incarnation) -> Self {
        Self {
            agent,
            incarnation,
            dictionary: PeerDictionary::new(),
            series: Vec::new(),
            hosts: Vec::new(),
            refused: BTreeMap::new(),
        }
    }

    /// Takes on names.
    ///
    /// # Errors
    /// [`IngestError::Dictionary`]; then none was taken on.
    pub fn dict(&mut self, ingest: &Ingest, dict: Dict) -> Result<(), IngestError> {
        let new = self.dictionary.apply(dict)?;
        for id in new.instances {
            if let Some(instance) = self.dictionary.instance(id.into()) {
                let host = Host { agent: self.agent.clone(), instance: instance.name.clone() };
                self.hosts.push(ingest.state.windows.write().host(&host).ok());
            }
        }
        for id in new.series {
            let entry = self.dictionary.series(id.into()).and_then(|series| {
                let host = self.hosts.get(usize::from(series.instance))?.as_ref()?;
                let admitted = ingest.admits(&series.key.slice);
                admitted.then(|| Place::Named(Arc::clone(host), series.key.clone()))
            });
            self.series.push(entry.unwrap_or(Place::LeftOut));
        }
        Ok(())
    }

    /// Whose connection it is.
    pub const fn agent(&self) -> &AgentName {
        &self.agent
    }

    /// Names of the instances this connection reports for.
    pub fn instances(&self) -> Vec<String> {
        self.hosts.iter().flatten().map(|host| host.instance.to_string()).collect()
    }

    /// Samples left out so far, by reason.
    pub const fn refused(&self) -> &BTreeMap<&'static str, u64> {
        &self.refused
    }

    /// Merges a delta, or finds that it was merged before.
    ///
    /// # Errors
    /// [`IngestError`]; then nothing of it was merged.
    pub fn delta(
        &mut self,
        ingest: &Ingest,
        delta: &DeltaRef<'_>,
        now: UnixNanos,
    ) -> Result<Outcome, IngestError> {
        self.dictionary.covers(delta)?;
        let head = delta.head();
        let counters = &ingest.state.counters;
        let mut ledger = ingest.ledger.lock();
        let acked = ledger.acked(&self.agent, self.incarnation);
        if head.sequence <= acked {
            Counters::add(&counters.deltas_duplicate_total, 1);
            return Ok(Outcome::Duplicate);
        }
        if head.sequence != acked.next() {
            return Err(IngestError::Gap { got: head.sequence, due: acked.next() });
        }
        let late = self.merge(ingest, delta, now);
        ledger.advance(&self.agent, self.incarnation, head.sequence);
        drop(ledger);
        Counters::add(&counters.deltas_accepted_total, 1);
        Counters::add(&counters.deltas_late_total, u64::from(late));
        Ok(if late { Outcome::Late } else { Outcome::Accepted })
    }

    fn merge(&mut self, ingest: &Ingest, delta: &DeltaRef<'_>, now: UnixNanos) -> bool {
        let event = self.event_time(delta, now);
        let (mut late, mut merged) = (false, 0);
        let mut windows = ingest.state.windows.write();
        for (id, block) in delta.histograms() {
            let place = self.series.get_mut(usize::from(id));
            let handle = place.and_then(|place| place.handle(&mut windows));
            let how = handle.map(|handle| windows.merge(handle, event, &block, now));
            match how {
                Some(Ok(how)) => {
                    late |= how != Merged::InTime;
                    merged += block.total();
                }
                Some(Err(_)) | None => {
                    *self
                        .refused
                        .entry("samples of slices, hosts or series past the cap")
                        .or_default() += block.total();
                }
            }
        }
        let mut left_out = 0;
        for (id, ok, error) in delta.requests() {
            let taken = self.dictionary.requests(id).and_then(|requests| {
                let host = self.hosts.get(usize::from(requests.instance))?.as_ref()?;
                let (slice, arm, counts) =
                    (&requests.slice, requests.arm, RequestCounts { ok, error });
                windows.merge_requests(slice, arm, host, event, counts, now).ok()
            });
            left_out += u64::from(taken.is_none());
        }
        for (id, value) in delta.gauges() {
            let taken = self.dictionary.gauge(id).and_then(|gauge| {
                let host = self.hosts.get(usize::from(gauge.instance))?.as_ref()?;
                windows.set_gauge(host, gauge.name.as_str(), value, event).ok()
            });
            left_out += u64::from(taken.is_none());
        }
        if left_out > 0 {
            *self.refused.entry("requests or gauges past the cap").or_default() += left_out;
        }
        Counters::add(&ingest.state.counters.samples_merged_total, merged);
        late
    }

    /// The middle of the delta's interval by the aggregator's clock.
    ///
    /// One that lies further ahead of `now` than clocks may differ is taken as now, and counted:
    /// refusing it would hold up everything behind it for as long as the agent's clock is wrong.
    fn event_time(&mut self, delta: &DeltaRef<'_>, now: UnixNanos) -> UnixNanos {
        let head = delta.head();
        let middle = head.corrected_start().plus(Nanos(head.duration.0 / 2));
        if middle.since(now) > Nanos::from_secs(EVENT_FUTURE_SECS_MAX) {
            *self.refused.entry("times ahead of the clock, taken as now").or_default() += 1;
            return now;
        }
        middle
    }
}

const _: () = {
    // An agent that restarts every slot of the ring is still told apart from its earlier lives.
    assert!(INCARNATIONS_PER_AGENT_MAX > WINDOW_SLOTS_MAX);
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Rules;
    use crate::window::{Selection, Span};
    use lens_hist::{Counts, Sparse};
    use lens_model::{Arm, InstanceName, Stage};
    use lens_wire::{
        AgentDictionary, ClockOffset, DeltaEncoder, DeltaHead, FrameBuffer, FromAgent, Instance,
        Label, Phase,
    };

    const LIFE: Incarnation = Incarnation(9);
    const NOW: UnixNanos = UnixNanos(1_000_000_000_000);

    fn ingest(slices_automatic_max: usize) -> Ingest {
        let rules = Rules { slices_automatic_max, ..Rules::default() };
        let windows = Windows::new(Nanos::from_secs(5), Nanos::from_secs(60));
        Ingest::new(Arc::new(State::new(lens_service::env::Env::system(), rules, windows, NOW)))
    }

    /// The frames of one delta: `slices` series of `values` each.
    fn frames(
        names: &mut AgentDictionary,
        sequence: u64,
        offset: i64,
        slices: &[&str],
        values: &[u64],
    ) -> Vec<u8> {
        let label = |text| Label::new(text).unwrap();
        let instance = Instance {
            name: InstanceName::new("n1").unwrap(),
            service: label("lens"),
            version: label("1"),
            zone: label(""),
        };
        let instance = names.instance(&instance).unwrap();
        let mut encoder = DeltaEncoder::default();
        for slice in slices {
            let slice = Slice::new("backend", slice, "large").unwrap();
            let key = SeriesKey { slice, stage: Stage::A, arm: Arm::Baseline };
            let id = names.series(instance, &key).unwrap();
            encoder.histogram(id, &values.iter().copied().collect::<Sparse>()).unwrap();
        }
        let mut bytes = Vec::new();
        while let Some(dict) = names.next_dict(1 << 20) {
            dict.encode(LIFE, &mut bytes).unwrap();
        }
        let clock = ClockOffset { offset_nanos: offset, error_nanos: 1 };
        let (start, duration) = (NOW.minus(Nanos::from_secs(1)), Nanos::from_secs(1));
        let head = DeltaHead { sequence: Sequence(sequence), start, duration, clock };
        encoder.finish(&head, LIFE, &mut bytes);
        bytes
    }

    fn feed(ingest: &Ingest, stream: &mut Stream, bytes: &[u8]) -> Result<Outcome, IngestError> {
        let (mut buffer, mut chunk) = (FrameBuffer::default(), bytes);
        let mut last = Ok(Outcome::Accepted);
        while let Some(frame) = buffer.next_frame(&mut chunk).unwrap() {
            match FromAgent::parse(frame, Phase::Open(LIFE)).unwrap() {
                FromAgent::Dict(dict) => stream.dict(ingest, dict)?,
                FromAgent::Delta(delta) => last = stream.delta(ingest, &delta, NOW),
                other => panic!("{other:?}"),
            }
        }
        last
    }

    fn merged(ingest: &Ingest) -> u64 {
        let mut counts = Counts::new();
        ingest.state.windows.read().sum(&Selection::default(), Span::ALL, &mut counts);
        counts.total()
    }

    fn stream() -> Stream {
        Stream::new(AgentName::new("a1").unwrap(), LIFE)
    }

    #[test]
    fn a_repeated_delta_changes_nothing_on_the_same_or_another_connection() {
        let ingest = ingest(10);
        let (mut first, mut names) = (stream(), AgentDictionary::new());
        let one = frames(&mut names, 1, 0, &["rust"], &[5, 6]);
        assert_eq!(feed(&ingest, &mut first, &one), Ok(Outcome::Accepted));
        let again = frames(&mut names, 1, 0, &["rust"], &[5, 6]);
        assert_eq!(feed(&ingest, &mut first, &again), Ok(Outcome::Duplicate));
        let (mut second, mut names) = (stream(), AgentDictionary::new());
        let again = frames(&mut names, 1, 0, &["rust"], &[5, 6]);
        assert_eq!(feed(&ingest, &mut second, &again), Ok(Outcome::Duplicate));
        assert_eq!(merged(&ingest), 2);
        assert_eq!(ingest.acked(&AgentName::new("a1").unwrap(), LIFE), Sequence(1));
    }

    #[test]
    fn a_delta_out_of_turn_is_refused_and_merges_nothing() {
        let ingest = ingest(10);
        let (mut stream, mut names) = (stream(), AgentDictionary::new());
        let three = frames(&mut names, 3, 0, &["rust"], &[5]);
        let error = feed(&ingest, &mut stream, &three).unwrap_err();
        assert_eq!(error, IngestError::Gap { got: Sequence(3), due: Sequence(1) });
        assert_eq!(merged(&ingest), 0);
    }

    #[test]
    fn slices_past_the_cap_are_left_out_and_counted_while_others_are_merged() {
        let ingest = ingest(2);
        let (mut stream, mut names) = (stream(), AgentDictionary::new());
        let bytes = frames(&mut names, 1, 0, &["rust", "go", "c"], &[5, 6]);
        assert_eq!(feed(&ingest, &mut stream, &bytes), Ok(Outcome::Accepted));
        assert_eq!(merged(&ingest), 4);
        assert_eq!(stream.refused()["samples of slices, hosts or series past the cap"], 2);
    }

    #[test]
    fn the_measured_clock_offset_decides_the_slot_and_a_wild_clock_is_taken_as_now() {
        let ingest = ingest(10);
        let (mut stream, mut names) = (stream(), AgentDictionary::new());
        let minute = 60_000_000_000_i64;
        let late = frames(&mut names, 1, -2 * minute, &["rust"], &[5]);
        assert_eq!(feed(&ingest, &mut stream, &late), Ok(Outcome::Late));
        let wild = frames(&mut names, 2, 60 * minute, &["rust"], &[5]);
        assert_eq!(feed(&ingest, &mut stream, &wild), Ok(Outcome::Accepted));
        let mut recent = Counts::new();
        let span = Span::last(Nanos::from_secs(10), NOW);
        ingest.state.windows.read().sum(&Selection::default(), span, &mut recent);
        assert_eq!((recent.total(), merged(&ingest)), (1, 2));
    }
}
