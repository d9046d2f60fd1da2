//! What becomes of each frame an agent sends: checked, written out in full and handed on once.
//!
//! A delta is named by (agent, incarnation, sequence). A [`Stream`] is one connection's names and
//! numbers: it refuses what leaves a number out, passes over what it had before, and makes a
//! self-contained [`Record`] of the rest. The worker behind the queue merges each record once,
//! whatever happens to connections, and [`Ingest`] tells connections how far their life is durable:
//! only that is ever acknowledged.
//! Bound: [`QUEUE_BYTES_MAX`] bytes and [`QUEUE_RECORDS_MAX`] records wait at once; a connection
//! that has more waits with them unread.
//! Refusal: no socket and no clock here; `now` is an argument.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use lens_model::{
    AgentName, Incarnation, InstanceName, Nanos, Sequence, SeriesKey, SpiffeId, UnixNanos,
};
use lens_service::planted::Planted;
use lens_wire::{DeltaRef, Dict, DictionaryError, Exemplars, PeerDictionary, SeriesId};
use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};

use crate::exemplars::{Exemplar, Held};
use crate::log::Record;
use crate::log::record::{Body, Gauge, Histogram, RECORD_BYTES_MAX, Requests};
use crate::state::{Counters, State};

/// Bytes of records on the way to the store.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;

/// Records on the way to the store.
pub const QUEUE_RECORDS_MAX: usize = 4_096;

/// What one permit of the queue's budget stands for, bytes.
const PERMIT_BYTES: usize = 1 << 10;

/// A life of an agent.
pub type Life = (AgentName, Incarnation);

/// What a connection made of a delta.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It is to be merged.
    New(Box<Record>),
    /// It came before; nothing changes.
    Duplicate,
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
    /// Written out in full it is larger than the log takes.
    #[error("written out in full the delta has {0} bytes, more than {RECORD_BYTES_MAX}")]
    TooLarge(usize),
    /// Nobody takes records any more.
    #[error("shutting down")]
    Closed,
}

/// How far a life is, as its connection is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The last delta that is durable.
    pub acked: Sequence,
    /// Why the connection has to end, if it has to.
    pub end: Option<String>,
}

/// A record on its way to the store.
#[derive(Debug)]
pub struct Submission {
    /// Whose it is.
    pub life: Life,
    /// Its number; 0 for a goodbye.
    pub sequence: Sequence,
    /// The record.
    pub bytes: Vec<u8>,
    /// Its part of the budget, given back when the record is durable or given up.
    _permit: OwnedSemaphorePermit,
    /// Its place among those on the way, left with it.
    _flight: Flight,
}

/// Records on the way to the store, by life.
#[derive(Debug, Default)]
struct Flights {
    of_life: Mutex<BTreeMap<Life, usize>>,
    landed: Notify,
}

/// One record on the way, until it is dropped.
#[derive(Debug)]
struct Flight {
    flights: Arc<Flights>,
    life: Life,
}

impl Flight {
    fn begin(flights: &Arc<Flights>, life: &Life) -> Self {
        *flights.of_life.lock().entry(life.clone()).or_default() += 1;
        Self { flights: Arc::clone(flights), life: life.clone() }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut of_life = self.flights.of_life.lock();
        if let Some(count) = of_life.get_mut(&self.life) {
            *count -= 1;
            if *count == 0 {
                of_life.remove(&self.life);
                self.flights.landed.notify_waiters();
            }
        }
    }
}

/// Takes records of all agents to one worker, and tells each agent's connection how far it came.
#[derive(Debug)]
pub struct Ingest {
    /// The state merged into.
    pub state: Arc<State>,
    queue: mpsc::Sender<Submission>,
    budget: Arc<Semaphore>,
    lives: Mutex<BTreeMap<Life, watch::Sender<Progress>>>,
    flights: Arc<Flights>,
}

impl Ingest {
    /// An ingest and the queue its records come out of.
    pub fn new(state: Arc<State>) -> (Arc<Self>, mpsc::Receiver<Submission>) {
        let (queue, records) = mpsc::channel(QUEUE_RECORDS_MAX);
        let budget = Arc::new(Semaphore::new(QUEUE_BYTES_MAX / PERMIT_BYTES));
        let (lives, flights) = (Mutex::default(), Arc::default());
        (Arc::new(Self { state, queue, budget, lives, flights }), records)
    }

    /// Follows a life from now on.
    pub fn follow(&self, life: &Life) -> watch::Receiver<Progress> {
        let mut lives = self.lives.lock();
        let sender = lives.entry(life.clone()).or_default();
        sender.send_modify(|progress| progress.end = None);
        sender.subscribe()
    }

    /// Forgets a life that nobody follows any more.
    pub fn unfollow(&self, life: &Life) {
        let mut lives = self.lives.lock();
        if lives.get(life).is_some_and(|sender| sender.receiver_count() == 0) {
            lives.remove(life);
        }
        self.flights.landed.notify_waiters();
    }

    /// Waits until nothing of a life is on its way to the store any more and nobody but the caller
    /// follows it: what is durable then is all there will be of what came before. (WIRE-078)
    pub async fn settled(&self, life: &Life) {
        loop {
            let landed = self.flights.landed.notified();
            tokio::pin!(landed);
            // What lands from here on is noticed, also before it is waited for.
            landed.as_mut().enable();
            let alone = self.lives.lock().get(life).is_none_or(|s| s.receiver_count() <= 1);
            if alone && !self.flights.of_life.lock().contains_key(life) {
                return;
            }
            landed.await;
        }
    }

    /// Hands a record on, when there is room. Cancel safe: it is handed on or not.
    ///
    /// # Errors
    /// [`IngestError::TooLarge`], or [`IngestError::Closed`] when nobody takes records any more.
    pub async fn submit(&self, record: &Record) -> Result<(), IngestError> {
        let bytes = record.encode();
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(IngestError::TooLarge(bytes.len()));
        }
        let permits = u32::try_from(bytes.len().div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.budget).acquire_many_owned(permits).await;
        let permit = permit.map_err(|_| IngestError::Closed)?;
        let life = (record.identity.agent.clone(), record.incarnation);
        let flight = Flight::begin(&self.flights, &life);
        let sequence = if record.body.is_some() { record.sequence } else { Sequence(0) };
        let submission = Submission { life, sequence, bytes, _permit: permit, _flight: flight };
        self.queue.send(submission).await.map_err(|_| IngestError::Closed)
    }

    /// Tells a life how far it is durable.
    pub fn acknowledge(&self, life: &Life, acked: Sequence) {
        if let Some(sender) = self.lives.lock().get(life) {
            sender.send_if_modified(|progress| {
                let further = acked > progress.acked;
                progress.acked = progress.acked.max(acked);
                further
            });
        }
    }

    /// Ends the connection of a life, which then resumes from what is durable.
    pub fn resend(&self, life: &Life) {
        if let Some(sender) = self.lives.lock().get(life) {
            let text = "a delta was lost on its way to the store: send again what is not durable";
            sender.send_modify(|progress| progress.end = Some(text.into()));
        }
    }

    /// Ends every connection.
    pub fn fail(&self, reason: &str) {
        for sender in self.lives.lock().values() {
            sender.send_modify(|progress| progress.end = Some(reason.to_owned()));
        }
    }
}

/// One connection's names and numbers.
#[derive(Debug)]
pub struct Stream {
    identity: SpiffeId,
    incarnation: Incarnation,
    received: Sequence,
    dictionary: PeerDictionary,
    instances: Vec<String>,
}

impl Stream {
    /// A fresh connection of an agent in one life, of which everything up to `acked` is durable.
    pub fn new(identity: SpiffeId, incarnation: Incarnation, acked: Sequence) -> Self {
        Self {
            identity,
            incarnation,
            received: acked,
            dictionary: PeerDictionary::new(),
            instances: Vec::new(),
        }
    }

    /// Takes on names.
    ///
    /// # Errors
    /// [`IngestError::Dictionary`]; then none was taken on.
    pub fn dict(&mut self, dict: Dict) -> Result<(), IngestError> {
        let new = self.dictionary.apply(dict)?;
        for id in new.instances {
            let instance = self.dictionary.instance(id.into());
            self.instances.extend(instance.map(|instance| instance.name.to_string()));
        }
        Ok(())
    }

    /// Whose connection it is.
    pub const fn agent(&self) -> &AgentName {
        &self.identity.agent
    }

    /// The life it speaks for.
    pub fn life(&self) -> Life {
        (self.identity.agent.clone(), self.incarnation)
    }

    /// Everything up to this was received here or was durable before.
    pub const fn received(&self) -> Sequence {
        self.received
    }

    /// Names of the instances this connection reports for.
    pub fn instances(&self) -> Vec<String> {
        self.instances.clone()
    }

    /// Makes a record of a delta, or finds that it came before.
    ///
    /// # Errors
    /// [`IngestError`]; then nothing becomes of it.
    pub fn delta(
        &mut self,
        state: &State,
        delta: &DeltaRef<'_>,
        now: UnixNanos,
    ) -> Result<Outcome, IngestError> {
        self.dictionary.covers(delta)?;
        let (got, due) = (delta.head().sequence, self.received.next());
        if got < due && !state.env.planted(Planted::NoDedup) {
            Counters::add(&state.counters.deltas_duplicate_total, 1);
            return Ok(Outcome::Duplicate);
        }
        if got > due && !state.env.planted(Planted::GapAccepted) {
            return Err(IngestError::Gap { got, due });
        }
        self.received = self.received.max(got);
        Ok(Outcome::New(Box::new(self.record(Some(self.body(delta)), got, now))))
    }

    /// Takes slow requests, their clocks corrected; how many were left out, by reason.
    ///
    /// # Errors
    /// [`IngestError::Dictionary`] for a series that has no name; then none was taken.
    pub fn exemplars(
        &self,
        state: &State,
        frame: &Exemplars,
        now: UnixNanos,
    ) -> Result<BTreeMap<&'static str, u64>, IngestError> {
        let unknown = |id| DictionaryError::Unknown { what: "series", id };
        let mut found = Vec::with_capacity(frame.entries.len());
        for entry in &frame.entries {
            let (key, instance) = self.name(entry.series).ok_or(unknown(entry.series.0))?;
            let at = entry.at.shifted(frame.offset_nanos);
            let exemplar = Exemplar { trace: entry.trace, latency: Nanos(entry.nanos), at };
            let agent = self.identity.agent.clone();
            found.push((key, Held { exemplar, came: now, agent, instance }));
        }
        let mut left_out = BTreeMap::new();
        let mut exemplars = state.exemplars.write();
        for (key, held) in found {
            if let Err(why) = exemplars.take(&key, held, now) {
                *left_out.entry(why.as_str()).or_default() += 1;
            }
        }
        Ok(left_out)
    }

    /// What a series' id of this connection means: its key and the search node.
    pub fn name(&self, id: SeriesId) -> Option<(SeriesKey, InstanceName)> {
        let series = self.dictionary.series(id)?;
        Some((series.key.clone(), self.dictionary.instance(series.instance)?.name.clone()))
    }

    /// The record of a goodbye.
    pub fn goodbye(&self, now: UnixNanos) -> Record {
        self.record(None, self.received, now)
    }

    fn record(&self, body: Option<Body>, sequence: Sequence, received: UnixNanos) -> Record {
        let (identity, incarnation) = (self.identity.clone(), self.incarnation);
        Record { identity, incarnation, sequence, received, body }
    }

    /// The delta with its names in full. Ids are known: [`PeerDictionary::covers`] said so.
    fn body(&self, delta: &DeltaRef<'_>) -> Body {
        let head = delta.head();
        let mut names = Names::default();
        let mut body = Body {
            start: head.start,
            duration: head.duration,
            clock: head.clock,
            instances: Vec::new(),
            slices: Vec::new(),
            histograms: Vec::new(),
            requests: Vec::new(),
            gauges: Vec::new(),
        };
        let mut bytes = Vec::new();
        for (id, block) in delta.histograms() {
            let Some(series) = self.dictionary.series(id) else { continue };
            bytes.clear();
            lens_hist::block::encode(&block.to_sparse(), &mut bytes);
            body.histograms.push(Histogram {
                instance: names.instance(series.instance),
                slice: names.slice(&series.key.slice),
                stage: series.key.stage,
                arm: series.key.arm,
                block: bytes.as_slice().into(),
            });
        }
        for (id, ok, error) in delta.requests() {
            let Some(requests) = self.dictionary.requests(id) else { continue };
            let (instance, slice) =
                (names.instance(requests.instance), names.slice(&requests.slice));
            body.requests.push(Requests { instance, slice, arm: requests.arm, ok, error });
        }
        for (id, value) in delta.gauges() {
            let Some(gauge) = self.dictionary.gauge(id) else { continue };
            let instance = names.instance(gauge.instance);
            body.gauges.push(Gauge { instance, name: gauge.name.clone(), value });
        }
        let known = names.instances.iter().filter_map(|id| self.dictionary.instance(*id));
        body.instances = known.cloned().collect();
        body.slices = names.slices.into_iter().cloned().collect();
        body
    }
}

/// The names one record uses, each once.
#[derive(Default)]
struct Names<'a> {
    instances: Vec<lens_wire::InstanceId>,
    instance_at: HashMap<usize, usize>,
    slices: Vec<&'a lens_model::Slice>,
    slice_at: HashMap<&'a lens_model::Slice, usize>,
}

impl<'a> Names<'a> {
    fn instance(&mut self, id: lens_wire::InstanceId) -> usize {
        *self.instance_at.entry(usize::from(id)).or_insert_with(|| {
            self.instances.push(id);
            self.instances.len() - 1
        })
    }

    fn slice(&mut self, slice: &'a lens_model::Slice) -> usize {
        *self.slice_at.entry(slice).or_insert_with(|| {
            self.slices.push(slice);
            self.slices.len() - 1
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Rules;
    use crate::window::Windows;
    use lens_hist::Sparse;
    use lens_model::{Arm, InstanceName, Nanos, SeriesKey, Slice, Stage};
    use lens_wire::{
        AgentDictionary, ClockOffset, DeltaEncoder, DeltaHead, FrameBuffer, FromAgent, Instance,
        Label, Phase,
    };

    const LIFE: Incarnation = Incarnation(9);
    const NOW: UnixNanos = UnixNanos(1_000_000_000_000);

    fn state() -> Arc<State> {
        let windows = Windows::new(Nanos::from_secs(5), Nanos::from_secs(60));
        let env = lens_service::env::Env::system();
        Arc::new(State::new(env, Rules::default(), windows, NOW))
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

    fn feed(stream: &mut Stream, bytes: &[u8]) -> Result<Outcome, IngestError> {
        let (mut buffer, mut chunk) = (FrameBuffer::default(), bytes);
        let (state, mut last) = (state(), Ok(Outcome::Duplicate));
        while let Some(frame) = buffer.next_frame(&mut chunk).unwrap() {
            match FromAgent::parse(frame, Phase::Open(LIFE)).unwrap() {
                FromAgent::Dict(dict) => stream.dict(dict)?,
                FromAgent::Delta(delta) => last = stream.delta(&state, &delta, NOW),
                other => panic!("{other:?}"),
            }
        }
        last
    }

    fn stream(acked: u64) -> Stream {
        let identity = "spiffe://lens.test/agent/a1".parse().unwrap();
        Stream::new(identity, LIFE, Sequence(acked))
    }

    #[test]
    fn a_delta_becomes_a_record_that_says_everything_about_itself() {
        let (mut stream, mut names) = (stream(0), AgentDictionary::new());
        let bytes = frames(&mut names, 1, 7, &["rust", "go"], &[5, 6]);
        let Ok(Outcome::New(record)) = feed(&mut stream, &bytes) else { panic!("no record") };
        let read = Record::decode(&record.encode()).unwrap();
        assert_eq!(read, *record);
        assert_eq!(read.identity.to_string(), "spiffe://lens.test/agent/a1");
        assert_eq!((read.incarnation, read.sequence, read.received), (LIFE, Sequence(1), NOW));
        let body = read.body.unwrap();
        assert_eq!(body.clock.offset_nanos, 7);
        assert_eq!(body.instances[0].name.as_str(), "n1");
        let slices = body.histograms.iter().map(|h| body.slices[h.slice].to_string());
        assert_eq!(slices.collect::<Vec<_>>(), ["backend/rust/large", "backend/go/large"]);
    }

    #[test]
    fn what_is_durable_or_was_received_here_becomes_no_record_again() {
        let (mut stream, mut names) = (stream(1), AgentDictionary::new());
        let mut feed = |sequence| {
            let bytes = frames(&mut names, sequence, 0, &["rust"], &[5]);
            feed(&mut stream, &bytes)
        };
        assert_eq!(feed(1), Ok(Outcome::Duplicate));
        assert!(matches!(feed(2), Ok(Outcome::New(_))));
        assert_eq!(feed(2), Ok(Outcome::Duplicate));
    }

    #[test]
    fn a_delta_out_of_turn_is_refused() {
        let (mut stream, mut names) = (stream(0), AgentDictionary::new());
        let three = frames(&mut names, 3, 0, &["rust"], &[5]);
        let error = feed(&mut stream, &three).unwrap_err();
        assert_eq!(error, IngestError::Gap { got: Sequence(3), due: Sequence(1) });
    }

    #[tokio::test]
    async fn a_record_waits_when_the_queue_is_full_and_goes_on_when_there_is_room() {
        let (ingest, mut queue) = Ingest::new(state());
        let record = stream(0).goodbye(NOW);
        for _ in 0..QUEUE_RECORDS_MAX {
            ingest.submit(&record).await.unwrap();
        }
        let one_more = ingest.submit(&record);
        tokio::pin!(one_more);
        let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(one_more.as_mut().poll(cx)));
        assert!(polled.await.is_pending(), "one past the bound waits");
        queue.recv().await.unwrap();
        one_more.await.unwrap();
    }

    #[test]
    fn a_life_hears_how_far_it_is_durable_until_nobody_follows_it() {
        let (ingest, _queue) = Ingest::new(state());
        let life = stream(0).life();
        let followed = ingest.follow(&life);
        ingest.acknowledge(&life, Sequence(4));
        ingest.acknowledge(&life, Sequence(3));
        assert_eq!(*followed.borrow(), Progress { acked: Sequence(4), end: None });
        ingest.resend(&life);
        assert!(followed.borrow().end.is_some());
        ingest.unfollow(&life);
        assert_eq!(ingest.lives.lock().len(), 1);
        drop(followed);
        ingest.unfollow(&life);
        assert_eq!(ingest.lives.lock().len(), 0);
    }
}
