//! Records as the journal keeps them: a delta with its origins, a snapshot of baselines, a new life.
//!
//! Numbers are LEB128, texts have their length before them. Reading is total: any bytes give a value
//! or nothing, and no more is allocated than the bytes could hold.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use lens_hist::Counts;
use lens_hist::block::{self, BlockRef, put_varint, take_varint};
use lens_model::{
    Arm, Incarnation, InstanceName, Nanos, Sequence, SeriesKey, Slice, Stage, UnixNanos,
};
use lens_segment::{Baseline, BlockBaseline};
use lens_wire::{ClockOffset, Instance, Label};

use super::record::{GaugeValue, Harvested, HistogramDelta, HistogramOrigin, Record, RequestDelta};

/// What kind of journal record it is.
pub(super) const DELTA: u32 = 1;
pub(super) const SNAPSHOT: u32 = 2;
pub(super) const RENEWAL: u32 = 3;

/// Bytes of baselines after which a snapshot goes on in another record.
const SNAPSHOT_PART_BYTES: usize = 1 << 20;

/// Distinct names kept so that the same ones have the same address; past it all are forgotten.
const NAMES_MAX: usize = 65_536;

/// What a delta record says beside the delta.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DeltaHeadline {
    pub(super) incarnation: Incarnation,
    pub(super) sequence: Sequence,
    /// What was acknowledged when it was written.
    pub(super) acked: Sequence,
    /// Segments of which nothing need be known any more.
    pub(super) gone: Vec<u128>,
}

/// What a snapshot says beside the baselines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SnapshotHead {
    /// Whether it is the first record of the snapshot, and whether the last.
    pub(super) first: bool,
    pub(super) last: bool,
    /// What this spool marks segments with.
    pub(super) origin: u128,
    pub(super) incarnation: Incarnation,
    pub(super) sequence: Sequence,
    pub(super) acked: Sequence,
    /// The end of the last harvest; 0 when there was none.
    pub(super) harvested: UnixNanos,
}

/// Another life, and which of what is held it begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Renewal {
    pub(super) incarnation: Incarnation,
    /// Deltas numbered anew: the last ones before it.
    pub(super) held: u64,
    /// Places at which records are known to be lost, first position and the one after the last.
    pub(super) damages: Vec<(u64, u64)>,
}

/// The same names at the same addresses, so that the link knows them without comparing.
#[derive(Debug, Default)]
pub(super) struct Names {
    instances: HashMap<Instance, Arc<Instance>>,
    keys: HashMap<SeriesKey, Arc<SeriesKey>>,
}

impl Names {
    fn instance(&mut self, instance: Instance) -> Arc<Instance> {
        if self.instances.len() >= NAMES_MAX {
            self.instances.clear();
        }
        let held = self.instances.entry(instance);
        Arc::clone(held.or_insert_with_key(|instance| Arc::new(instance.clone())))
    }

    fn key(&mut self, key: SeriesKey) -> Arc<SeriesKey> {
        if self.keys.len() >= NAMES_MAX {
            self.keys.clear();
        }
        Arc::clone(self.keys.entry(key).or_insert_with_key(|key| Arc::new(key.clone())))
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

const fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

/// Things that are written once and then named by their place.
struct Table<T> {
    places: BTreeMap<T, u64>,
    bytes: Vec<u8>,
}

impl<T: Ord> Table<T> {
    const fn new() -> Self {
        Self { places: BTreeMap::new(), bytes: Vec::new() }
    }

    fn place(&mut self, thing: T, write: impl FnOnce(&mut Vec<u8>)) -> u64 {
        let next = self.places.len() as u64;
        *self.places.entry(thing).or_insert_with(|| {
            write(&mut self.bytes);
            next
        })
    }

    fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.places.len() as u64);
        out.extend_from_slice(&self.bytes);
    }
}

struct Tables<'a> {
    segments: Table<u128>,
    slices: Table<&'a Slice>,
}

impl<'a> Tables<'a> {
    fn segment(&mut self, segment: u128, instance: &Instance, out: &mut Vec<u8>) {
        let place = self.segments.place(segment, |bytes| {
            bytes.extend_from_slice(&segment.to_le_bytes());
            put_text(bytes, instance.name.as_str());
            for label in [&instance.service, &instance.version, &instance.zone] {
                put_text(bytes, label.as_str());
            }
        });
        put_varint(out, place);
    }

    fn slice(&mut self, slice: &'a Slice, out: &mut Vec<u8>) {
        let place = self.slices.place(slice, |bytes| put_text(bytes, &slice.to_string()));
        put_varint(out, place);
    }
}

/// Writes a delta.
pub(super) fn encode_delta(head: &DeltaHeadline, harvested: &Harvested) -> Vec<u8> {
    let record = &harvested.record;
    let mut tables = Tables { segments: Table::new(), slices: Table::new() };
    let mut body = Vec::new();
    put_varint(&mut body, record.histograms.len() as u64);
    for (delta, origin) in record.histograms.iter().zip(&harvested.histograms) {
        tables.segment(origin.segment, &delta.instance, &mut body);
        put_varint(&mut body, origin.series.into());
        tables.slice(&delta.key.slice, &mut body);
        body.extend_from_slice(&[delta.key.stage.code(), delta.key.arm.code()]);
        put_varint(&mut body, origin.shards.len() as u64);
        for (shard, block) in &origin.shards {
            put_varint(&mut body, (*shard).into());
            put_bytes(&mut body, if origin.shards.len() == 1 { &delta.block } else { block });
        }
    }
    put_varint(&mut body, record.requests.len() as u64);
    for (delta, (segment, index)) in record.requests.iter().zip(&harvested.requests) {
        tables.segment(*segment, &delta.instance, &mut body);
        put_varint(&mut body, (*index).into());
        tables.slice(&delta.slice, &mut body);
        body.push(delta.arm.code());
        put_varint(&mut body, delta.ok);
        put_varint(&mut body, delta.error);
    }
    put_varint(&mut body, record.gauges.len() as u64);
    for (reading, segment) in record.gauges.iter().zip(&harvested.gauges) {
        tables.segment(*segment, &reading.instance, &mut body);
        put_text(&mut body, reading.name.as_str());
        body.extend_from_slice(&reading.value.to_bits().to_le_bytes());
    }
    let mut out = head.incarnation.0.to_le_bytes().to_vec();
    let clock = record.clock;
    for number in [
        head.sequence.0,
        head.acked.0,
        record.start.0,
        record.duration.0,
        zigzag(clock.offset_nanos),
        clock.error_nanos,
        record.samples,
        head.gone.len() as u64,
    ] {
        put_varint(&mut out, number);
    }
    head.gone.iter().for_each(|segment| out.extend_from_slice(&segment.to_le_bytes()));
    tables.segments.put(&mut out);
    tables.slices.put(&mut out);
    out.extend_from_slice(&body);
    out
}

/// Bytes not read yet.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn number(&mut self) -> Option<u64> {
        let (number, rest) = take_varint(self.0).ok()?;
        self.0 = rest;
        Some(number)
    }

    fn small(&mut self) -> Option<u16> {
        u16::try_from(self.number()?).ok()
    }

    /// A number of things that take a byte each at least.
    fn count(&mut self) -> Option<usize> {
        let count = usize::try_from(self.number()?).ok()?;
        (count <= self.0.len()).then_some(count)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let bytes = self.count()?;
        self.take(bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    fn label(&mut self) -> Option<Label> {
        Label::new(self.text()?).ok()
    }

    fn wide(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }

    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }
}

/// The bytes of a block, which must be one and nothing more.
fn whole_block(bytes: &[u8]) -> Option<BlockRef<'_>> {
    let (block, rest) = BlockRef::parse(bytes).ok()?;
    rest.is_empty().then_some(block)
}

/// Reads a delta.
pub(super) fn decode_delta(
    payload: &[u8],
    names: &mut Names,
) -> Option<(DeltaHeadline, Harvested)> {
    let mut bytes = Bytes(payload);
    let incarnation = Incarnation(bytes.wide()?);
    let (sequence, acked) = (Sequence(bytes.number()?), Sequence(bytes.number()?));
    let (start, duration) = (UnixNanos(bytes.number()?), Nanos(bytes.number()?));
    let clock =
        ClockOffset { offset_nanos: unzigzag(bytes.number()?), error_nanos: bytes.number()? };
    let samples = bytes.number()?;
    let gone = (0..bytes.count()?).map(|_| bytes.wide()).collect::<Option<Vec<_>>>()?;
    let tables = read_tables(&mut bytes, names)?;
    let (histograms, requests, gauges) = (Vec::new(), Vec::new(), Vec::new());
    let record = Record { start, duration, clock, histograms, requests, gauges, samples };
    let (histograms, requests, gauges) = (Vec::new(), Vec::new(), Vec::new());
    let mut harvested = Harvested { record, histograms, requests, gauges };
    read_histograms(&mut bytes, &tables, names, &mut harvested)?;
    read_requests(&mut bytes, &tables, &mut harvested)?;
    read_gauges(&mut bytes, &tables, &mut harvested)?;
    bytes.0.is_empty().then_some((DeltaHeadline { incarnation, sequence, acked, gone }, harvested))
}

struct ReadTables {
    segments: Vec<(u128, Arc<Instance>)>,
    slices: Vec<Slice>,
}

impl ReadTables {
    fn segment(&self, bytes: &mut Bytes<'_>) -> Option<&(u128, Arc<Instance>)> {
        self.segments.get(usize::try_from(bytes.number()?).ok()?)
    }

    fn slice(&self, bytes: &mut Bytes<'_>) -> Option<&Slice> {
        self.slices.get(usize::try_from(bytes.number()?).ok()?)
    }
}

fn read_tables(bytes: &mut Bytes<'_>, names: &mut Names) -> Option<ReadTables> {
    let mut tables = ReadTables { segments: Vec::new(), slices: Vec::new() };
    for _ in 0..bytes.count()? {
        let segment = bytes.wide()?;
        let instance = Instance {
            name: InstanceName::new(bytes.text()?).ok()?,
            service: bytes.label()?,
            version: bytes.label()?,
            zone: bytes.label()?,
        };
        tables.segments.push((segment, names.instance(instance)));
    }
    for _ in 0..bytes.count()? {
        tables.slices.push(bytes.text()?.parse().ok()?);
    }
    Some(tables)
}

fn read_histograms(
    bytes: &mut Bytes<'_>,
    tables: &ReadTables,
    names: &mut Names,
    out: &mut Harvested,
) -> Option<()> {
    for _ in 0..bytes.count()? {
        let (segment, instance) = tables.segment(bytes)?.clone();
        let series = bytes.small()?;
        let slice = tables.slice(bytes)?.clone();
        let stage = Stage::from_code(bytes.byte()?)?;
        let arm = Arm::from_code(bytes.byte()?)?;
        let mut shards = Vec::new();
        for _ in 0..bytes.count()? {
            let shard = bytes.small()?;
            let block = bytes.bytes()?;
            whole_block(block)?;
            shards.push((shard, Box::from(block)));
        }
        let block = sum(&mut shards)?;
        let key = names.key(SeriesKey { slice, stage, arm });
        out.record.histograms.push(HistogramDelta { instance, key, block });
        out.histograms.push(HistogramOrigin { segment, series, shards });
    }
    Some(())
}

/// The block of all shards together; that of a single shard moves.
fn sum(shards: &mut [(u16, Box<[u8]>)]) -> Option<Box<[u8]>> {
    if let [(_, block)] = shards {
        return Some(std::mem::take(block));
    }
    let mut counts = Counts::new();
    for (_, block) in shards.iter() {
        whole_block(block)?.merge_into_dense(&mut counts);
    }
    let mut out = Vec::new();
    block::encode(&counts.to_sparse(), &mut out);
    Some(out.into())
}

fn read_requests(bytes: &mut Bytes<'_>, tables: &ReadTables, out: &mut Harvested) -> Option<()> {
    for _ in 0..bytes.count()? {
        let (segment, instance) = tables.segment(bytes)?.clone();
        let index = bytes.small()?;
        let slice = tables.slice(bytes)?.clone();
        let arm = Arm::from_code(bytes.byte()?)?;
        let (ok, error) = (bytes.number()?, bytes.number()?);
        out.record.requests.push(RequestDelta { instance, slice, arm, ok, error });
        out.requests.push((segment, index));
    }
    Some(())
}

fn read_gauges(bytes: &mut Bytes<'_>, tables: &ReadTables, out: &mut Harvested) -> Option<()> {
    for _ in 0..bytes.count()? {
        let (segment, instance) = tables.segment(bytes)?.clone();
        let name = bytes.label()?;
        let value = f64::from_bits(u64::from_le_bytes(bytes.array()?));
        out.record.gauges.push(GaugeValue { instance, name, value });
        out.gauges.push(segment);
    }
    Some(())
}

/// Writes a snapshot as one record or several.
pub(super) fn encode_snapshot<'a>(
    head: &SnapshotHead,
    baselines: impl Iterator<Item = &'a Baseline>,
) -> Vec<Vec<u8>> {
    let mut parts = vec![Vec::new()];
    let mut entry = Vec::new();
    for baseline in baselines {
        let segment = baseline.incarnation.to_le_bytes();
        entry.push(0);
        entry.extend_from_slice(&segment);
        put_varint(&mut entry, baseline.requests.len() as u64);
        for counter in baseline.requests.as_flattened() {
            put_varint(&mut entry, *counter);
        }
        for block in &baseline.blocks {
            entry.push(1);
            entry.extend_from_slice(&segment);
            for number in [block.series, block.shard] {
                put_varint(&mut entry, number.into());
            }
            put_varint(&mut entry, block.counters.len() as u64);
            for (slot, count) in &block.counters {
                put_varint(&mut entry, (*slot).into());
                put_varint(&mut entry, (*count).into());
            }
            flush(&mut parts, &mut entry);
        }
        flush(&mut parts, &mut entry);
    }
    let last = parts.len() - 1;
    let with_head = |(at, part): (usize, Vec<u8>)| {
        let mut out = vec![u8::from(at == 0) | u8::from(at == last) << 1];
        out.extend_from_slice(&head.origin.to_le_bytes());
        out.extend_from_slice(&head.incarnation.0.to_le_bytes());
        for number in [head.sequence.0, head.acked.0, head.harvested.0] {
            put_varint(&mut out, number);
        }
        out.extend_from_slice(&part);
        out
    };
    parts.into_iter().enumerate().map(with_head).collect()
}

fn flush(parts: &mut Vec<Vec<u8>>, entry: &mut Vec<u8>) {
    if let Some(part) = parts.last_mut().filter(|part| part.len() < SNAPSHOT_PART_BYTES) {
        part.append(entry);
    } else {
        parts.push(std::mem::take(entry));
    }
}

/// Reads one record of a snapshot: what it says, and baselines or parts of them.
pub(super) fn decode_snapshot(payload: &[u8]) -> Option<(SnapshotHead, Vec<Baseline>)> {
    let mut bytes = Bytes(payload);
    let flags = bytes.byte().filter(|flags| *flags < 4)?;
    let head = SnapshotHead {
        first: flags & 1 == 1,
        last: flags & 2 == 2,
        origin: bytes.wide()?,
        incarnation: Incarnation(bytes.wide()?),
        sequence: Sequence(bytes.number()?),
        acked: Sequence(bytes.number()?),
        harvested: UnixNanos(bytes.number()?),
    };
    let mut baselines = Vec::new();
    while !bytes.0.is_empty() {
        let kind = bytes.byte()?;
        let mut baseline = Baseline { incarnation: bytes.wide()?, ..Baseline::default() };
        match kind {
            0 => {
                for _ in 0..bytes.count()? {
                    baseline.requests.push([bytes.number()?, bytes.number()?]);
                }
            }
            1 => baseline.blocks.push(read_block(&mut bytes)?),
            _ => return None,
        }
        baselines.push(baseline);
    }
    Some((head, baselines))
}

fn read_block(bytes: &mut Bytes<'_>) -> Option<BlockBaseline> {
    let (series, shard) = (bytes.small()?, bytes.small()?);
    let mut counters = Vec::new();
    for _ in 0..bytes.count()? {
        counters.push((bytes.small()?, u32::try_from(bytes.number()?).ok()?));
    }
    Some(BlockBaseline { series, shard, counters })
}

/// Writes a renewal.
pub(super) fn encode_renewal(renewal: &Renewal) -> Vec<u8> {
    let mut out = renewal.incarnation.0.to_le_bytes().to_vec();
    put_varint(&mut out, renewal.held);
    put_varint(&mut out, renewal.damages.len() as u64);
    for (from, to) in &renewal.damages {
        put_varint(&mut out, *from);
        put_varint(&mut out, *to);
    }
    out
}

/// Reads a renewal.
pub(super) fn decode_renewal(payload: &[u8]) -> Option<Renewal> {
    let mut bytes = Bytes(payload);
    let (incarnation, held) = (Incarnation(bytes.wide()?), bytes.number()?);
    let damages = (0..bytes.count()?).map(|_| Some((bytes.number()?, bytes.number()?)));
    let damages = damages.collect::<Option<Vec<_>>>()?;
    bytes.0.is_empty().then_some(Renewal { incarnation, held, damages })
}
