//! DELTA, written: a builder that never grows past what one frame may hold.
//!
//! Entries are added in ascending order of id; one that does not fit is refused and leaves the
//! frame as it was, so the caller finishes this frame and begins the next with it. Promise:
//! [`DeltaEncoder::finish`] cannot fail, and memory is kept from frame to frame.

use lens_hist::Sparse;
use lens_hist::block::{BlockRef, encode, put_varint, varint_len};
use lens_model::Incarnation;
use lens_model::limits::{CONNECTION_SERIES_MAX, FRAME_BYTES_MAX, FRAME_SERIES_MAX};

use crate::delta::{DeltaHead, zigzag};
use crate::dict::{GaugeId, RequestsId, SeriesId};
use crate::error::EncodeError;
use crate::frame::put_frame;
use crate::kind::Kind;
use crate::limits::{
    CONNECTION_GAUGES_MAX, CONNECTION_REQUESTS_MAX, DELTA_HEAD_BYTES_MAX, FRAME_BYTES_MIN,
    FRAME_GAUGES_MAX, FRAME_REQUESTS_MAX, HEAD_LEN, TAIL_LEN,
};

/// Samples one block can declare: its head is the total shifted by one bit.
const BLOCK_SAMPLES_MAX: u64 = u64::MAX >> 1;

/// Gathers one delta after another and writes each as a frame.
#[derive(Debug)]
pub struct DeltaEncoder {
    body_max: usize,
    samples: u64,
    histograms: Gathered,
    requests: Gathered,
    gauges: Gathered,
    block: Vec<u8>,
}

/// Entries of one kind, written out.
#[derive(Debug)]
struct Gathered {
    what: &'static str,
    count_max: usize,
    ids_max: usize,
    count: usize,
    next: u32,
    bytes: Vec<u8>,
}

impl Gathered {
    const fn new(what: &'static str, count_max: usize, ids_max: usize) -> Self {
        Self { what, count_max, ids_max, count: 0, next: 0, bytes: Vec::new() }
    }

    /// The gap to write in front of `id`, if it may come next.
    fn gap(&self, id: u32) -> Result<u64, EncodeError> {
        if self.count >= self.count_max {
            return Err(EncodeError::TooMany { what: self.what, max: self.count_max });
        }
        if usize::try_from(id).is_ok_and(|id| id >= self.ids_max) {
            return Err(EncodeError::Id { what: self.what, id });
        }
        let gap = id.checked_sub(self.next).ok_or(EncodeError::Order { what: self.what, id })?;
        Ok(u64::from(gap))
    }

    fn added(&mut self, id: u32) {
        self.count += 1;
        self.next = id + 1;
    }

    fn clear(&mut self) {
        (self.count, self.next) = (0, 0);
        self.bytes.clear();
    }

    fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.count as u64);
        out.extend_from_slice(&self.bytes);
    }

    fn encoded_len(&self) -> usize {
        varint_len(self.count as u64) + self.bytes.len()
    }
}

impl Default for DeltaEncoder {
    fn default() -> Self {
        Self::new(FRAME_BYTES_MAX)
    }
}

impl DeltaEncoder {
    /// An encoder of frames with bodies up to `body_max` bytes, as WELCOME gives it, within
    /// [`FRAME_BYTES_MIN`] and [`FRAME_BYTES_MAX`].
    pub fn new(body_max: usize) -> Self {
        Self {
            body_max: body_max.clamp(FRAME_BYTES_MIN, FRAME_BYTES_MAX), // WIRE-035
            samples: 0,
            histograms: Gathered::new("histograms", FRAME_SERIES_MAX, CONNECTION_SERIES_MAX),
            requests: Gathered::new("requests", FRAME_REQUESTS_MAX, CONNECTION_REQUESTS_MAX),
            gauges: Gathered::new("gauges", FRAME_GAUGES_MAX, CONNECTION_GAUGES_MAX),
            block: Vec::new(),
        }
    }

    /// Adds the counts of a series.
    ///
    /// # Errors
    /// [`EncodeError`]; the frame is as it was.
    pub fn histogram(&mut self, id: SeriesId, counts: &Sparse) -> Result<(), EncodeError> {
        if counts.total() > BLOCK_SAMPLES_MAX {
            return Err(EncodeError::Samples);
        }
        let mut block = std::mem::take(&mut self.block);
        block.clear();
        encode(counts, &mut block);
        let added = self.add_block(id, counts.total(), &block);
        self.block = block;
        added
    }

    /// Adds a block that is encoded already, as a spool keeps it.
    ///
    /// # Errors
    /// [`EncodeError::Block`] or `Trailing` when `block` is not exactly one block, else as for
    /// [`DeltaEncoder::histogram`]; the frame is as it was.
    pub fn histogram_block(&mut self, id: SeriesId, block: &[u8]) -> Result<(), EncodeError> {
        let (parsed, rest) = BlockRef::parse(block).map_err(EncodeError::Block)?;
        if !rest.is_empty() {
            return Err(EncodeError::Trailing { extra: rest.len() });
        }
        self.add_block(id, parsed.total(), block)
    }

    fn add_block(&mut self, id: SeriesId, total: u64, block: &[u8]) -> Result<(), EncodeError> {
        let gap = self.histograms.gap(id.0)?;
        self.fits(varint_len(gap) + block.len())?;
        self.samples = self.samples.checked_add(total).ok_or(EncodeError::Samples)?;
        put_varint(&mut self.histograms.bytes, gap);
        self.histograms.bytes.extend_from_slice(block);
        self.histograms.added(id.0);
        Ok(())
    }

    /// Adds what a request counter counted.
    ///
    /// # Errors
    /// [`EncodeError`]; the frame is as it was.
    pub fn requests(&mut self, id: RequestsId, ok: u64, errors: u64) -> Result<(), EncodeError> {
        let gap = self.requests.gap(id.0)?;
        self.fits(varint_len(gap) + varint_len(ok) + varint_len(errors))?;
        for number in [gap, ok, errors] {
            put_varint(&mut self.requests.bytes, number);
        }
        self.requests.added(id.0);
        Ok(())
    }

    /// Adds a gauge's value.
    ///
    /// # Errors
    /// [`EncodeError::NotFinite`] for what is not a number, else [`EncodeError`]; the frame is as
    /// it was.
    pub fn gauge(&mut self, id: GaugeId, value: f64) -> Result<(), EncodeError> {
        let gap = self.gauges.gap(id.0)?;
        if !value.is_finite() {
            return Err(EncodeError::NotFinite { id: id.0 });
        }
        self.fits(varint_len(gap) + 8)?;
        put_varint(&mut self.gauges.bytes, gap);
        self.gauges.bytes.extend_from_slice(&value.to_le_bytes());
        self.gauges.added(id.0);
        Ok(())
    }

    /// Whether nothing was added since the last frame.
    pub const fn is_empty(&self) -> bool {
        self.histograms.count + self.requests.count + self.gauges.count == 0
    }

    /// Samples added since the last frame.
    pub const fn samples(&self) -> u64 {
        self.samples
    }

    /// Bytes of the whole frame that [`DeltaEncoder::finish`] would append.
    pub fn encoded_len(&self, head: &DeltaHead) -> usize {
        let numbers = [
            head.sequence.0,
            head.duration.0,
            zigzag(head.clock.offset_nanos),
            head.clock.error_nanos,
            self.samples,
        ];
        let sections = [&self.histograms, &self.requests, &self.gauges];
        let fixed = 8 + numbers.into_iter().map(varint_len).sum::<usize>();
        let body = fixed + sections.map(Gathered::encoded_len).iter().sum::<usize>();
        HEAD_LEN + body + TAIL_LEN
    }

    /// Appends the frame and begins the next one. A sequence of 0 numbers nothing and is refused
    /// by every reader; the caller counts from 1.
    pub fn finish(&mut self, head: &DeltaHead, incarnation: Incarnation, out: &mut Vec<u8>) {
        put_frame(Kind::Delta, Some(incarnation), out, |out| {
            head.put(self.samples, out);
            self.histograms.put(out);
            self.requests.put(out);
            self.gauges.put(out);
        });
        self.clear();
    }

    /// Forgets what was added since the last frame.
    pub fn clear(&mut self) {
        self.samples = 0;
        self.histograms.clear();
        self.requests.clear();
        self.gauges.clear();
    }

    fn fits(&self, more: usize) -> Result<(), EncodeError> {
        let sections = [&self.histograms, &self.requests, &self.gauges];
        let bytes: usize = sections.iter().map(|section| section.bytes.len()).sum();
        let needed = DELTA_HEAD_BYTES_MAX + bytes + more;
        if needed > self.body_max {
            return Err(EncodeError::Full { needed, max: self.body_max });
        }
        Ok(())
    }
}
