//! A log record: one delta that says everything about itself.
//!
//! The names of a connection's dictionary are written in full and the identity is the
//! certificate's, so that a record read back a week later by another worker still says whose it is.
//!
//! Layout, version 1, numbers as LEB128 varints unless a width is given:
//!
//! ```text
//! u8 version (1) · u8 kind (1 delta, 2 goodbye)
//! text trust domain · text agent · u128 incarnation · sequence · u64 received, Unix nanoseconds
//! kind 1: u64 start · duration · i64 clock offset · clock error
//!   instances: count, each text name, service, version, zone
//!   slices:    count, each text
//!   histograms: count, each instance · slice · u8 stage · u8 arm · length, block
//!   requests:   count, each instance · slice · u8 arm · ok · error
//!   gauges:     count, each instance · text name · f64 value
//! ```
//! A text is its length in one byte and UTF-8. Promise: any bytes give a record or a typed refusal,
//! and no count in them makes the reader allocate more than they could fill.

use lens_hist::block::{BlockRef, put_varint, take_varint};
use lens_model::limits::{BLOCK_BYTES_MAX, CONNECTION_INSTANCES_MAX, FRAME_SERIES_MAX};
use lens_model::{
    AgentName, Arm, Incarnation, InstanceName, Nanos, Sequence, Slice, SpiffeId, Stage,
    TrustDomain, UnixNanos,
};
use lens_wire::{ClockOffset, Instance, Label};
use thiserror::Error;

/// Largest record: a full frame with every name of it in full.
pub const RECORD_BYTES_MAX: usize = 4 << 20;

/// The version written.
const VERSION: u8 = 1;

const DELTA: u8 = 1;
const GOODBYE: u8 = 2;

/// Why bytes are no record.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RecordError {
    /// They end inside the record.
    #[error("the record ends early, in its {0}")]
    Truncated(&'static str),
    /// A version or kind this program does not know.
    #[error("{what} {got} is not known: a newer aggregator wrote it")]
    Unknown {
        /// `version` or `kind`.
        what: &'static str,
        /// What stands there.
        got: u8,
    },
    /// A field holds what it may not.
    #[error("the record's {0} is malformed")]
    Malformed(&'static str),
    /// There are more bytes than the record has.
    #[error("{0} bytes stand behind the record")]
    Trailing(usize),
    /// It is larger than [`RECORD_BYTES_MAX`].
    #[error("a record of {0} bytes is larger than {RECORD_BYTES_MAX}")]
    TooLarge(usize),
}

/// One histogram's delta.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// Index into the record's instances.
    pub instance: usize,
    /// Index into the record's slices.
    pub slice: usize,
    /// The stage of the query.
    pub stage: Stage,
    /// The arm of the rollout.
    pub arm: Arm,
    /// The counts, a checked block.
    pub block: Box<[u8]>,
}

/// One request counter's delta.
#[derive(Clone, Debug, PartialEq)]
pub struct Requests {
    /// Index into the record's instances.
    pub instance: usize,
    /// Index into the record's slices.
    pub slice: usize,
    /// The arm of the rollout.
    pub arm: Arm,
    /// Answered.
    pub ok: u64,
    /// Failed.
    pub error: u64,
}

/// One gauge's reading.
#[derive(Clone, Debug, PartialEq)]
pub struct Gauge {
    /// Index into the record's instances.
    pub instance: usize,
    /// Its name.
    pub name: Label,
    /// What it read; finite.
    pub value: f64,
}

/// What a delta says.
#[derive(Clone, Debug, PartialEq)]
pub struct Body {
    /// Start of the interval by the agent's clock.
    pub start: UnixNanos,
    /// Length of the interval.
    pub duration: Nanos,
    /// The agent's clock against the aggregator's when the delta was made.
    pub clock: ClockOffset,
    /// Who recorded.
    pub instances: Vec<Instance>,
    /// Which slices.
    pub slices: Vec<Slice>,
    /// Latencies.
    pub histograms: Vec<Histogram>,
    /// Request outcomes.
    pub requests: Vec<Requests>,
    /// Gauges.
    pub gauges: Vec<Gauge>,
}

/// One record.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Who sent it, by its certificate.
    pub identity: SpiffeId,
    /// The life its sequence belongs to.
    pub incarnation: Incarnation,
    /// Its number; of a goodbye, that of the last delta before it.
    pub sequence: Sequence,
    /// When it arrived, by the aggregator's clock.
    pub received: UnixNanos,
    /// What it says; `None` when the agent said goodbye.
    pub body: Option<Body>,
}

impl Body {
    /// The start of the interval by the aggregator's clock.
    pub const fn corrected_start(&self) -> UnixNanos {
        self.start.shifted(self.clock.offset_nanos)
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    // Names are at most 200 bytes by their types.
    out.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(&text.as_bytes()[..text.len().min(usize::from(u8::MAX))]);
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    put_varint(out, len as u64);
}

impl Record {
    /// The record's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, if self.body.is_some() { DELTA } else { GOODBYE }];
        put_text(&mut out, self.identity.trust_domain.as_str());
        put_text(&mut out, self.identity.agent.as_str());
        out.extend_from_slice(&self.incarnation.0.to_le_bytes());
        put_varint(&mut out, self.sequence.0);
        out.extend_from_slice(&self.received.0.to_le_bytes());
        if let Some(body) = &self.body {
            body.encode(&mut out);
        }
        out
    }

    /// Reads a record.
    ///
    /// # Errors
    /// [`RecordError`] for anything that is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(RecordError::TooLarge(bytes.len()));
        }
        let mut reader = Reader(bytes);
        let version = reader.u8("version")?;
        if version != VERSION {
            return Err(RecordError::Unknown { what: "version", got: version });
        }
        let kind = reader.u8("kind")?;
        let identity = SpiffeId {
            trust_domain: reader.parsed("trust domain", TrustDomain::new)?,
            agent: reader.parsed("agent", AgentName::new)?,
        };
        let incarnation = Incarnation(u128::from_le_bytes(reader.fixed("incarnation")?));
        let sequence = Sequence(reader.varint("sequence")?);
        let received = UnixNanos(u64::from_le_bytes(reader.fixed("received")?));
        let body = match kind {
            DELTA if sequence.0 > 0 => Some(Body::decode(&mut reader)?),
            DELTA => return Err(RecordError::Malformed("sequence")),
            GOODBYE => None,
            got => return Err(RecordError::Unknown { what: "kind", got }),
        };
        if !reader.0.is_empty() {
            return Err(RecordError::Trailing(reader.0.len()));
        }
        Ok(Self { identity, incarnation, sequence, received, body })
    }
}

impl Body {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.start.0.to_le_bytes());
        put_varint(out, self.duration.0);
        out.extend_from_slice(&self.clock.offset_nanos.to_le_bytes());
        put_varint(out, self.clock.error_nanos);
        put_len(out, self.instances.len());
        for instance in &self.instances {
            put_text(out, instance.name.as_str());
            put_text(out, instance.service.as_str());
            put_text(out, instance.version.as_str());
            put_text(out, instance.zone.as_str());
        }
        put_len(out, self.slices.len());
        self.slices.iter().for_each(|slice| put_text(out, &slice.to_string()));
        put_len(out, self.histograms.len());
        for histogram in &self.histograms {
            put_len(out, histogram.instance);
            put_len(out, histogram.slice);
            out.extend_from_slice(&[histogram.stage as u8, histogram.arm as u8]);
            put_len(out, histogram.block.len());
            out.extend_from_slice(&histogram.block);
        }
        put_len(out, self.requests.len());
        for requests in &self.requests {
            put_len(out, requests.instance);
            put_len(out, requests.slice);
            out.push(requests.arm as u8);
            put_varint(out, requests.ok);
            put_varint(out, requests.error);
        }
        put_len(out, self.gauges.len());
        for gauge in &self.gauges {
            put_len(out, gauge.instance);
            put_text(out, gauge.name.as_str());
            out.extend_from_slice(&gauge.value.to_le_bytes());
        }
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, RecordError> {
        let start = UnixNanos(u64::from_le_bytes(r.fixed("start")?));
        let duration = Nanos(r.varint("duration")?);
        let offset_nanos = i64::from_le_bytes(r.fixed("clock offset")?);
        let clock = ClockOffset { offset_nanos, error_nanos: r.varint("clock error")? };
        let instances = r.list("instances", CONNECTION_INSTANCES_MAX, |r| {
            Ok(Instance {
                name: r.parsed("instance", InstanceName::new)?,
                service: r.parsed("service", Label::new)?,
                version: r.parsed("version", Label::new)?,
                zone: r.parsed("zone", Label::new)?,
            })
        })?;
        let slices = r.list("slices", 2 * FRAME_SERIES_MAX, |r| r.parsed("slice", str::parse))?;
        let (hosts, names) = (instances.len(), slices.len());
        let histograms = r.list("histograms", FRAME_SERIES_MAX, |r| {
            let (instance, slice) = (r.index("instance", hosts)?, r.index("slice", names)?);
            let (stage, arm) = (r.stage()?, r.arm()?);
            let block = r.block()?;
            Ok(Histogram { instance, slice, stage, arm, block })
        })?;
        let requests = r.list("requests", FRAME_SERIES_MAX, |r| {
            let (instance, slice) = (r.index("instance", hosts)?, r.index("slice", names)?);
            let arm = r.arm()?;
            let (ok, error) = (r.varint("requests")?, r.varint("requests")?);
            Ok(Requests { instance, slice, arm, ok, error })
        })?;
        let gauges = r.list("gauges", FRAME_SERIES_MAX, |r| {
            let instance = r.index("instance", hosts)?;
            let name = r.parsed("gauge", Label::new)?;
            let value = f64::from_le_bytes(r.fixed("gauge")?);
            if !value.is_finite() {
                return Err(RecordError::Malformed("gauge"));
            }
            Ok(Gauge { instance, name, value })
        })?;
        Ok(Self { start, duration, clock, instances, slices, histograms, requests, gauges })
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, what: &'static str, length: usize) -> Result<&'a [u8], RecordError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(RecordError::Truncated(what))?;
        self.0 = rest;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], RecordError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(RecordError::Truncated(what))?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u8(&mut self, what: &'static str) -> Result<u8, RecordError> {
        Ok(self.fixed::<1>(what)?[0])
    }

    fn varint(&mut self, what: &'static str) -> Result<u64, RecordError> {
        let (value, rest) = take_varint(self.0).map_err(|_| RecordError::Malformed(what))?;
        self.0 = rest;
        Ok(value)
    }

    fn index(&mut self, what: &'static str, below: usize) -> Result<usize, RecordError> {
        let index = usize::try_from(self.varint(what)?).ok().filter(|index| *index < below);
        index.ok_or(RecordError::Malformed(what))
    }

    fn parsed<T, E>(
        &mut self,
        what: &'static str,
        parse: impl Fn(&'a str) -> Result<T, E>,
    ) -> Result<T, RecordError> {
        let length = usize::from(self.u8(what)?);
        let text = std::str::from_utf8(self.bytes(what, length)?);
        parse(text.map_err(|_| RecordError::Malformed(what))?)
            .map_err(|_| RecordError::Malformed(what))
    }

    fn stage(&mut self) -> Result<Stage, RecordError> {
        let code = self.u8("stage")?;
        let found = Stage::ALL.into_iter().find(|stage| *stage as u8 == code);
        found.ok_or(RecordError::Malformed("stage"))
    }

    fn arm(&mut self) -> Result<Arm, RecordError> {
        let code = self.u8("arm")?;
        let found = Arm::ALL.into_iter().find(|arm| *arm as u8 == code);
        found.ok_or(RecordError::Malformed("arm"))
    }

    fn block(&mut self) -> Result<Box<[u8]>, RecordError> {
        let length = self.index("block", BLOCK_BYTES_MAX + 1)?;
        let bytes = self.bytes("block", length)?;
        match BlockRef::parse(bytes) {
            Ok((_, [])) => Ok(bytes.into()),
            _ => Err(RecordError::Malformed("block")),
        }
    }

    fn list<T>(
        &mut self,
        what: &'static str,
        max: usize,
        mut each: impl FnMut(&mut Self) -> Result<T, RecordError>,
    ) -> Result<Vec<T>, RecordError> {
        let count = self.index(what, max + 1)?;
        // An entry takes at least a byte: what is reserved was paid for.
        let mut list = Vec::with_capacity(count.min(self.0.len()));
        for _ in 0..count {
            list.push(each(self)?);
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lens_hist::{Sparse, block};
    use proptest::prelude::*;

    fn record() -> Record {
        let mut bytes = Vec::new();
        block::encode(&[5_u64, 6, 7_000_000].into_iter().collect::<Sparse>(), &mut bytes);
        let instance = Instance {
            name: InstanceName::new("n1").unwrap(),
            service: Label::new("lens").unwrap(),
            version: Label::new("1.4.2").unwrap(),
            zone: Label::new("").unwrap(),
        };
        Record {
            identity: "spiffe://lens.test/agent/a1".parse().unwrap(),
            incarnation: Incarnation(7),
            sequence: Sequence(3),
            received: UnixNanos(1_000),
            body: Some(Body {
                start: UnixNanos(900),
                duration: Nanos(50),
                clock: ClockOffset { offset_nanos: -4, error_nanos: u64::MAX },
                instances: vec![instance],
                slices: vec!["backend/rust/large".parse().unwrap()],
                histograms: vec![Histogram {
                    instance: 0,
                    slice: 0,
                    stage: Stage::E2e,
                    arm: Arm::Canary,
                    block: bytes.into(),
                }],
                requests: vec![Requests {
                    instance: 0,
                    slice: 0,
                    arm: Arm::Baseline,
                    ok: 9,
                    error: 1,
                }],
                gauges: vec![Gauge { instance: 0, name: Label::new("g").unwrap(), value: 0.5 }],
            }),
        }
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let delta = record();
        assert_eq!(Record::decode(&delta.encode()), Ok(delta.clone()));
        let goodbye = Record { body: None, ..delta };
        assert_eq!(Record::decode(&goodbye.encode()), Ok(goodbye));
    }

    #[test]
    fn a_record_cut_short_anywhere_or_with_bytes_behind_it_is_refused() {
        let bytes = record().encode();
        for end in 0..bytes.len() {
            assert!(Record::decode(&bytes[..end]).is_err(), "{end}");
        }
        let mut longer = bytes;
        longer.push(0);
        assert_eq!(Record::decode(&longer), Err(RecordError::Trailing(1)));
    }

    #[test]
    fn an_unknown_version_or_kind_is_refused_by_name() {
        let mut bytes = record().encode();
        bytes[1] = 9;
        let unknown = |what, got| Err(RecordError::Unknown { what, got });
        assert_eq!(Record::decode(&bytes), unknown("kind", 9));
        bytes[0] = 2;
        assert_eq!(Record::decode(&bytes), unknown("version", 2));
    }

    #[test]
    fn a_record_is_refused_one_byte_past_its_largest_size() {
        let bytes = vec![VERSION; RECORD_BYTES_MAX + 1];
        let refused = Record::decode(&bytes);
        assert_eq!(refused, Err(RecordError::TooLarge(RECORD_BYTES_MAX + 1)));
        assert!(!matches!(Record::decode(&bytes[1..]), Err(RecordError::TooLarge(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_record_or_a_refusal(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            drop(Record::decode(&bytes));
        }

        #[test]
        fn a_changed_byte_never_panics(at in 0_usize..300, to in any::<u8>()) {
            let mut bytes = record().encode();
            let at = at % bytes.len();
            bytes[at] = to;
            if let Ok(read) = Record::decode(&bytes) {
                prop_assert_eq!(Record::decode(&read.encode()), Ok(read));
            }
        }
    }
}
