//! What goes over the wire next: one connection's side of the protocol, without the connection.
//!
//! A [`Session`] begins with the aggregator's WELCOME and lives as long as its connection. It gives
//! frames to send and takes frames received; it holds no socket and reads no clock.
//! Promise: deltas go in sequence, each after the dictionary entries it needs; at most as many are
//! unacknowledged as the aggregator allows; what was not acknowledged is sent again by the next
//! session. Refusal: an acknowledgement of what was never sent ends the session.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use lens_flags::SignedDocument;
use lens_model::limits::{CONNECTION_SERIES_MAX, FRAME_SERIES_MAX};
use lens_model::{Incarnation, Sequence, SeriesKey, UnixNanos};
use lens_wire::{
    Ack, AgentDictionary, Applied, Capture, Captured, CapturedSlot, ClockOffset, DeltaEncoder,
    DeltaHead, DictionaryError, EncodeError, Exemplar, Exemplars, Flags, FrameError,
    FromAggregator, Instance, InstanceId, MINOR_CAPTURE, MINOR_EXEMPLARS, MINOR_FLAGS, Phase, Ping,
    Pong, Refuse, SeriesId, Welcome,
};
use thiserror::Error;

use crate::exemplars::SlowRequest;
use crate::hindsight::Giving;
use crate::spool::{Outbox, Record};

/// Clock measurements kept; the one with the least error counts.
const CLOCK_SAMPLES: usize = 8;

/// Bytes of steps in one CAPTURED: a delta that falls due waits for no more than this.
const CAPTURED_BYTES: usize = 32 << 10;

/// Bytes a step takes up beside its block, at most: id, start, duration.
const STEP_BYTES: usize = 5 + 8 + 10;

/// Why a session ended.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ShipError {
    /// A frame received cannot be read.
    #[error("the aggregator sent a frame that cannot be read: {0}")]
    Frame(#[from] FrameError),
    /// The aggregator refuses, with its reason.
    #[error("the aggregator refuses: {} ({})", .0.text, .0.code.as_str())]
    Refused(Refuse),
    /// It acknowledged a delta that was never sent.
    #[error("the aggregator acknowledged delta {acked}, but only {sent} were sent")]
    AckBeyond {
        /// What it acknowledged.
        acked: Sequence,
        /// What was sent.
        sent: Sequence,
    },
    /// A record does not fit the connection.
    #[error("a delta cannot be written: {0}")]
    Encode(#[from] EncodeError),
    /// There are more names than a connection holds.
    #[error("the connection's dictionary is full: {0}")]
    Dictionary(#[from] DictionaryError),
    /// A frame came that has no place here.
    #[error("the aggregator sent a frame out of place")]
    OutOfPlace,
}

/// The agent's clock against the aggregator's: the best of the last few measurements.
#[derive(Debug, Default)]
pub struct Clock {
    samples: Vec<ClockOffset>,
}

impl Clock {
    /// Takes a measurement.
    pub fn measure(&mut self, offset: ClockOffset) {
        if self.samples.len() == CLOCK_SAMPLES {
            self.samples.remove(0);
        }
        self.samples.push(offset);
    }

    /// The measurement with the least error of those kept.
    pub fn offset(&self) -> ClockOffset {
        let best = self.samples.iter().min_by_key(|sample| sample.error_nanos);
        best.copied().unwrap_or(ClockOffset::UNMEASURED)
    }
}

/// One connection's side of the protocol after the handshake.
#[derive(Debug)]
pub struct Session {
    incarnation: Incarnation,
    dictionary: AgentDictionary,
    encoder: DeltaEncoder,
    known: HashMap<(usize, usize), Known>,
    body_max: usize,
    in_flight_max: u64,
    sent: Sequence,
    acked: Sequence,
    nonce: u64,
    speaks_flags: bool,
    speaks_exemplars: bool,
    speaks_capture: bool,
}

/// A series this session has named. The names are held so that their addresses stay theirs: a
/// harvester gives every record of a series the same two, and finding an address is ten times
/// cheaper than comparing the names behind it.
#[derive(Debug)]
struct Known {
    _names: (Arc<Instance>, Arc<SeriesKey>),
    id: SeriesId,
}

/// What a received frame asks of the caller.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// Deltas up to here are durable with the aggregator: forget them.
    Acked(Sequence),
    /// The clocks were measured.
    Clock(ClockOffset),
    /// The control plane spoke.
    Flags(SignedDocument),
    /// What is held of the last minutes is asked for.
    Capture(Capture),
    /// Nothing.
    Nothing,
}

impl Session {
    /// The session that `welcome` opens: it resumes after what the aggregator has.
    pub fn new(incarnation: Incarnation, welcome: &Welcome) -> Self {
        let body_max = usize::try_from(welcome.frame_bytes_max).unwrap_or(usize::MAX);
        Self {
            incarnation,
            dictionary: AgentDictionary::new(),
            encoder: DeltaEncoder::new(body_max),
            known: HashMap::new(),
            body_max,
            in_flight_max: u64::from(welcome.frames_in_flight),
            sent: welcome.acked,
            acked: welcome.acked,
            nonce: 0,
            speaks_flags: welcome.minor >= MINOR_FLAGS,
            speaks_exemplars: welcome.minor >= MINOR_EXEMPLARS,
            speaks_capture: welcome.minor >= MINOR_CAPTURE,
        }
    }

    /// The delta that may go next; `None` while as many are on their way as the aggregator allows.
    pub fn due(&self) -> Option<Sequence> {
        (self.sent.0 - self.acked.0 < self.in_flight_max).then(|| self.sent.next())
    }

    /// Appends to `out` the frames that may go now; false when there is nothing to send.
    ///
    /// One delta a call, so that the caller can send before it encodes the next.
    ///
    /// # Errors
    /// [`ShipError::Encode`] and [`ShipError::Dictionary`]: a record does not fit the connection.
    pub fn next(
        &mut self,
        outbox: &dyn Outbox,
        clock: ClockOffset,
        out: &mut Vec<u8>,
    ) -> Result<bool, ShipError> {
        let Some(sequence) = self.due() else { return Ok(false) };
        let Some(record) = outbox.get(sequence) else { return Ok(false) };
        self.encode(&record, sequence, clock, out)?;
        self.sent = sequence;
        Ok(true)
    }

    /// Deltas sent and not acknowledged.
    pub const fn in_flight(&self) -> u64 {
        self.sent.0 - self.acked.0
    }

    /// What of the control plane's word is in force, to send; nothing to an older aggregator.
    pub fn applied(&self, applied: &Applied, out: &mut Vec<u8>) {
        // WIRE-141
        if self.speaks_flags {
            applied.encode(self.incarnation, out);
        }
    }

    /// Whether the aggregator takes exemplars. (WIRE-150)
    pub const fn speaks_exemplars(&self) -> bool {
        self.speaks_exemplars
    }

    /// Slow requests to send, their names first.
    ///
    /// # Errors
    /// [`ShipError::Encode`] and [`ShipError::Dictionary`]: a name does not fit the connection.
    pub fn exemplars(
        &mut self,
        slow: &VecDeque<SlowRequest>,
        clock: ClockOffset,
        out: &mut Vec<u8>,
    ) -> Result<(), ShipError> {
        let mut entries = Vec::with_capacity(slow.len());
        for request in slow {
            let series = self.series(&request.instance, &request.key)?;
            let SlowRequest { at, nanos, trace, .. } = *request;
            entries.push(Exemplar { series, at, nanos, trace });
        }
        self.names(out)?;
        Exemplars { offset_nanos: clock.offset_nanos, entries }.encode(self.incarnation, out);
        Ok(())
    }

    /// The next frame of what a capture is given, its names first; whether it is the last. (WIRE-161)
    ///
    /// # Errors
    /// [`ShipError::Encode`] and [`ShipError::Dictionary`]: a name does not fit the connection.
    pub fn captured(
        &mut self,
        giving: &mut Giving,
        clock: ClockOffset,
        out: &mut Vec<u8>,
    ) -> Result<bool, ShipError> {
        let (mut entries, mut bytes) = (Vec::new(), 0);
        while let Some(kept) = giving.left.front()
            && entries.len() < FRAME_SERIES_MAX
            && (entries.is_empty() || bytes + kept.block.len() + STEP_BYTES <= CAPTURED_BYTES)
        {
            let series = self.series(&kept.instance, &kept.key)?;
            bytes += kept.block.len() + STEP_BYTES;
            let (start, duration) = (kept.start, kept.duration);
            entries.push(CapturedSlot { series, start, duration, block: (*kept.block).into() });
            giving.left.pop_front();
        }
        self.names(out)?;
        let (id, last) = (giving.id, giving.left.is_empty());
        let (held_from, left_out) = (giving.held_from, giving.left_out);
        let offset_nanos = clock.offset_nanos;
        Captured { id, offset_nanos, held_from, left_out, last, entries }
            .encode(self.incarnation, out);
        Ok(last)
    }

    /// Names that are still to be sent.
    fn names(&mut self, out: &mut Vec<u8>) -> Result<(), ShipError> {
        while let Some(dict) = self.dictionary.next_dict(self.body_max) {
            dict.encode(self.incarnation, out)?;
        }
        Ok(())
    }

    /// A ping to send at `now`.
    pub fn ping(&mut self, now: UnixNanos, out: &mut Vec<u8>) {
        self.nonce += 1;
        Ping { nonce: self.nonce, t1: now }.encode(self.incarnation, out);
    }

    /// Takes one whole frame received at `now`.
    ///
    /// # Errors
    /// [`ShipError`]: the session is over, for the reason it gives.
    pub fn receive(&mut self, frame: &[u8], now: UnixNanos) -> Result<Received, ShipError> {
        match FromAggregator::parse(frame, Phase::Open(self.incarnation))? {
            FromAggregator::Ack(Ack { acked, .. }) => {
                if acked > self.sent {
                    return Err(ShipError::AckBeyond { acked, sent: self.sent });
                }
                self.acked = self.acked.max(acked);
                Ok(Received::Acked(self.acked))
            }
            FromAggregator::Pong(pong) => Ok(self.pong(&pong, now)),
            FromAggregator::Refuse(refuse) => Err(ShipError::Refused(refuse)),
            FromAggregator::Skipped(_) => Ok(Received::Nothing),
            // WIRE-140
            FromAggregator::Flags(flags) if self.speaks_flags => {
                let Flags { key, signature, document: bytes } = flags;
                Ok(Received::Flags(SignedDocument { bytes, key, signature }))
            }
            // WIRE-160
            FromAggregator::Capture(asked) if self.speaks_capture => Ok(Received::Capture(asked)),
            FromAggregator::Welcome(_) | FromAggregator::Flags(_) | FromAggregator::Capture(_) => {
                Err(ShipError::OutOfPlace)
            }
        }
    }

    fn pong(&self, pong: &Pong, now: UnixNanos) -> Received {
        if pong.nonce != self.nonce {
            return Received::Nothing;
        }
        pong.offset(now).map_or(Received::Nothing, Received::Clock)
    }

    fn encode(
        &mut self,
        record: &Record,
        sequence: Sequence,
        clock: ClockOffset,
        out: &mut Vec<u8>,
    ) -> Result<(), ShipError> {
        self.encoder.clear();
        let mut histograms = Vec::with_capacity(record.histograms.len());
        for delta in &record.histograms {
            histograms.push((self.series(&delta.instance, &delta.key)?, &delta.block));
        }
        // Ids ascend in a frame; records list series by segment, ids by first use.
        histograms.sort_unstable_by_key(|entry| entry.0);
        for (id, block) in histograms {
            self.encoder.histogram_block(id, block)?;
        }
        let mut requests = Vec::with_capacity(record.requests.len());
        for delta in &record.requests {
            let instance = self.instance(&delta.instance)?;
            let id = self.dictionary.requests(instance, &delta.slice, delta.arm)?;
            requests.push((id, delta.ok, delta.error));
        }
        requests.sort_unstable_by_key(|entry| entry.0);
        for (id, ok, error) in requests {
            self.encoder.requests(id, ok, error)?;
        }
        let mut gauges = Vec::with_capacity(record.gauges.len());
        for reading in &record.gauges {
            let instance = self.instance(&reading.instance)?;
            gauges.push((self.dictionary.gauge(instance, &reading.name)?, reading.value));
        }
        gauges.sort_unstable_by_key(|entry| entry.0);
        for (id, value) in gauges {
            self.encoder.gauge(id, value)?;
        }
        self.names(out)?;
        let clock = if record.clock.is_measured() { record.clock } else { clock };
        let head = DeltaHead { sequence, start: record.start, duration: record.duration, clock };
        self.encoder.finish(&head, self.incarnation, out);
        Ok(())
    }

    fn series(
        &mut self,
        instance: &Arc<Instance>,
        key: &Arc<SeriesKey>,
    ) -> Result<SeriesId, ShipError> {
        let place = (Arc::as_ptr(instance).addr(), Arc::as_ptr(key).addr());
        if let Some(known) = self.known.get(&place) {
            return Ok(known.id);
        }
        let of = self.instance(instance)?;
        let id = self.dictionary.series(of, key)?;
        // As many as the dictionary holds; a harvester that made its names anew would fill it up.
        if self.known.len() < CONNECTION_SERIES_MAX {
            let names = (Arc::clone(instance), Arc::clone(key));
            self.known.insert(place, Known { _names: names, id });
        }
        Ok(id)
    }

    fn instance(&mut self, instance: &Arc<Instance>) -> Result<InstanceId, ShipError> {
        Ok(self.dictionary.instance(instance)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::{HistogramDelta, Level, SpoolError};
    use lens_hist::{Sparse, block};
    use lens_model::{Arm, InstanceName, Nanos, Slice, Stage};
    use lens_wire::{FrameBuffer, FromAgent, Hello, Label, PeerDictionary};

    const LIFE: Incarnation = Incarnation(77);

    fn record(at: u64, values: &[u64]) -> Record {
        let mut bytes = Vec::new();
        block::encode(&values.iter().copied().collect::<Sparse>(), &mut bytes);
        let instance = Instance {
            name: InstanceName::new("n1").unwrap(),
            service: Label::new("lens").unwrap(),
            version: Label::new("1").unwrap(),
            zone: Label::new("").unwrap(),
        };
        let slice = Slice::new("backend", "rust", "large").unwrap();
        let key = SeriesKey { slice, stage: Stage::A, arm: Arm::Baseline };
        Record {
            start: UnixNanos(at),
            duration: Nanos(1),
            clock: ClockOffset::UNMEASURED,
            histograms: vec![HistogramDelta {
                instance: Arc::new(instance),
                key: Arc::new(key),
                block: bytes.into(),
            }],
            requests: vec![],
            gauges: vec![],
            samples: values.len() as u64,
        }
    }

    fn session(acked: u64, in_flight: u16) -> Session {
        let hello = Hello::new("a1".parse().unwrap(), LIFE, Label::new("1").unwrap());
        let mut welcome = Welcome::new(&hello, Sequence(acked), UnixNanos(0));
        welcome.frames_in_flight = in_flight;
        Session::new(LIFE, &welcome)
    }

    /// Records at hand, numbered from 1.
    #[derive(Debug)]
    struct AtHand(Vec<Arc<Record>>);

    impl Outbox for AtHand {
        fn incarnation(&self) -> Incarnation {
            LIFE
        }

        fn get(&self, sequence: Sequence) -> Option<Arc<Record>> {
            let at = usize::try_from(sequence.0).unwrap().checked_sub(1)?;
            self.0.get(at).cloned()
        }

        fn load(&self, _: Sequence) -> Result<(), SpoolError> {
            Ok(())
        }

        fn acknowledge(&self, _: Sequence) {}

        fn renew(&self, _: Incarnation) -> Result<(), SpoolError> {
            Ok(())
        }

        fn level(&self) -> Level {
            Level::default()
        }
    }

    fn spool(count: u64) -> AtHand {
        AtHand((1..=count).map(|n| Arc::new(record(n, &[n, n + 1]))).collect())
    }

    /// What an aggregator would make of the bytes: the deltas' numbers and samples.
    fn received(bytes: &[u8]) -> Vec<(u64, u64)> {
        let (mut buffer, mut chunk) = (FrameBuffer::default(), bytes);
        let mut dictionary = PeerDictionary::new();
        let mut deltas = Vec::new();
        while let Some(frame) = buffer.next_frame(&mut chunk).unwrap() {
            match FromAgent::parse(frame, Phase::Open(LIFE)).unwrap() {
                FromAgent::Dict(dict) => {
                    dictionary.apply(dict).unwrap();
                }
                FromAgent::Delta(delta) => {
                    dictionary.covers(&delta).unwrap();
                    let samples = delta.histograms().map(|(_, block)| block.total()).sum();
                    deltas.push((delta.head().sequence.0, samples));
                }
                other => panic!("{other:?}"),
            }
        }
        deltas
    }

    fn ack(acked: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        Ack { acked: Sequence(acked), received: Sequence(acked) }.encode(LIFE, &mut bytes);
        bytes
    }

    #[test]
    fn deltas_go_in_order_each_after_its_names_and_within_the_window() {
        let (spool, mut session) = (spool(5), session(0, 3));
        let mut out = Vec::new();
        while session.next(&spool, ClockOffset::UNMEASURED, &mut out).unwrap() {}
        assert_eq!(received(&out), [(1, 2), (2, 2), (3, 2)]);
        assert_eq!(session.in_flight(), 3);
        let got = session.receive(&ack(2), UnixNanos(9)).unwrap();
        assert_eq!(got, Received::Acked(Sequence(2)));
        assert_eq!(session.in_flight(), 1);
    }

    #[test]
    fn a_new_session_resumes_after_what_the_aggregator_has() {
        let (spool, mut session) = (spool(5), session(3, 10));
        let mut out = Vec::new();
        while session.next(&spool, ClockOffset::UNMEASURED, &mut out).unwrap() {}
        assert_eq!(received(&out), [(4, 2), (5, 2)]);
    }

    #[test]
    fn an_acknowledgement_of_what_was_never_sent_ends_the_session() {
        let mut session = session(0, 3);
        let error = session.receive(&ack(1), UnixNanos(9)).unwrap_err();
        assert!(matches!(error, ShipError::AckBeyond { acked: Sequence(1), sent: Sequence(0) }));
    }

    #[test]
    fn the_best_of_the_last_clock_measurements_counts() {
        let mut clock = Clock::default();
        assert_eq!(clock.offset(), ClockOffset::UNMEASURED);
        let sample = |offset_nanos, error_nanos| ClockOffset { offset_nanos, error_nanos };
        clock.measure(sample(5, 10));
        clock.measure(sample(7, 3));
        clock.measure(sample(9, 20));
        assert_eq!(clock.offset(), sample(7, 3));
        (0..8).for_each(|_| clock.measure(sample(11, 30)));
        assert_eq!(clock.offset(), sample(11, 30), "an old measurement is forgotten");
    }
}
