//! Bytes on the wire for a series' delta, and what writing, reading and merging it costs.
//!
//! Batches of 64 lognormal series with 10, 100 and 1,000 samples each. Beside ours: the OTLP
//! request with exponential histograms of nearest error, HdrHistogram's V2 form at the same two
//! digits, and DDSketch's Java form at its default 1 %.

mod common;

use std::hint::black_box;
use std::time::Duration;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};
use lens_hist::{PagedCounts, Sparse};
use lens_model::limits::LATENCY_NANOS_MAX;
use lens_model::{Incarnation, InstanceName, Nanos, Sequence, UnixNanos};
use lens_wire::{
    AgentDictionary, ClockOffset, DeltaEncoder, DeltaHead, FromAgent, Instance, Label, Phase,
    SeriesId,
};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use prost::Message;
use sketches_ddsketch::{Config, DDSketch};

use common::measure::{Id, Suite, pin, prefer, processors, timed};
use common::otlp::{self, Exponential};
use common::report::{Report, Target};
use common::{Options, Outcome, data};

const LIFE: Incarnation = Incarnation(0x1234_5678);
const START: UnixNanos = UnixNanos(1_760_000_000_000_000_000);
const SECOND: Nanos = Nanos::from_secs(1);

/// Different batches of the same series, so that no branch is learned by heart.
const BATCHES: usize = 8;

/// Samples a series, and the most bytes ours may take.
const SIZES: [(usize, f64); 3] = [(10, 22.0), (100, 85.0), (1_000, 260.0)];

fn main() -> Outcome {
    let options = Options::read();
    let mut report = Report::new("wire", options);
    if !pin(processors().0) {
        report.note("the thread could not be pinned: expect more noise");
    }
    if !prefer() {
        report.note("no privilege to run before others: expect more noise");
    }
    for (samples, bytes_max) in SIZES {
        size(&mut report, options, samples, bytes_max)?;
    }
    report.note(format!(
        "names, sent once a connection: {:.0} bytes a series",
        dictionary_bytes()? as f64 / data::SERIES as f64
    ));
    report.note("OTLP and DDSketch carry sum, minimum and maximum; ours derives them");
    report.finish()
}

/// Bytes of the frames that name the 64 series.
fn dictionary_bytes() -> Outcome<usize> {
    let mut dictionary = AgentDictionary::new();
    let instance = Instance {
        name: InstanceName::new("n1")?,
        service: Label::new("lens")?,
        version: Label::new("1")?,
        zone: Label::new("")?,
    };
    let instance = dictionary.instance(&instance)?;
    for key in data::keys()? {
        dictionary.series(instance, &key)?;
    }
    let mut bytes = Vec::new();
    while let Some(dict) = dictionary.next_dict(1 << 20) {
        dict.encode(LIFE, &mut bytes)?;
    }
    Ok(bytes.len())
}

/// Every batch in the form each encoder starts from, and as its bytes.
struct Inputs {
    ours: Vec<Vec<Sparse>>,
    otlp: Vec<Vec<Exponential>>,
    hdr: Vec<Vec<Histogram<u64>>>,
    dd: Vec<Vec<DDSketch>>,
}

impl Inputs {
    #[allow(clippy::cast_precision_loss)]
    fn new(batches: &[Vec<Vec<u64>>]) -> Outcome<Self> {
        let hdr = |latencies: &Vec<u64>| -> Outcome<Histogram<u64>> {
            let mut histogram = empty_hdr()?;
            latencies.iter().try_for_each(|nanos| histogram.record(*nanos))?;
            Ok(histogram)
        };
        let dd = |latencies: &Vec<u64>| {
            let mut sketch = DDSketch::new(Config::defaults());
            latencies.iter().for_each(|nanos| sketch.add(*nanos as f64 / 1e9));
            sketch
        };
        Ok(Self {
            ours: batches.iter().map(|batch| data::sparse(batch)).collect(),
            otlp: batches
                .iter()
                .map(|batch| batch.iter().map(|series| Exponential::of(series)).collect())
                .collect(),
            hdr: batches
                .iter()
                .map(|batch| batch.iter().map(hdr).collect())
                .collect::<Outcome<_>>()?,
            dd: batches.iter().map(|batch| batch.iter().map(dd).collect()).collect(),
        })
    }
}

fn empty_hdr() -> Outcome<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, LATENCY_NANOS_MAX, 2)?)
}

fn head(sequence: u64) -> DeltaHead {
    let clock = ClockOffset { offset_nanos: 120_000, error_nanos: 40_000 };
    DeltaHead { sequence: Sequence(sequence), start: START, duration: SECOND, clock }
}

fn encode_ours(encoder: &mut DeltaEncoder, batch: &[Sparse], out: &mut Vec<u8>) -> Outcome {
    out.clear();
    for (id, counts) in (0..).zip(batch) {
        encoder.histogram(SeriesId(id), counts)?;
    }
    encoder.finish(&head(100_000), LIFE, out);
    Ok(())
}

fn merge_ours(frame: &[u8], windows: &mut [PagedCounts]) -> Outcome {
    let FromAgent::Delta(delta) = FromAgent::parse(frame, Phase::Open(LIFE))? else {
        return Err("a delta came back as something else".into());
    };
    for (id, block) in delta.histograms() {
        if let Some(window) = windows.get_mut(usize::from(id)) {
            block.merge_into(window);
        }
    }
    Ok(())
}

fn encode_otlp(names: &[Vec<KeyValue>], batch: &[Exponential], out: &mut Vec<u8>) -> Outcome {
    out.clear();
    let request = otlp::request(names, batch, START.0, START.plus(SECOND).0);
    Ok(request.encode(out)?)
}

/// A histogram each behind its id and length, as ours would frame them.
fn encode_hdr(
    serializer: &mut V2Serializer,
    batch: &[Histogram<u64>],
    (one, out): (&mut Vec<u8>, &mut Vec<u8>),
) -> Outcome {
    out.clear();
    for (id, histogram) in (0_u16..).zip(batch) {
        one.clear();
        serializer.serialize(histogram, one)?;
        framed(id, one, out)?;
    }
    Ok(())
}

fn framed(id: u16, bytes: &[u8], out: &mut Vec<u8>) -> Outcome {
    out.extend_from_slice(&id.to_le_bytes());
    out.extend_from_slice(&u16::try_from(bytes.len())?.to_le_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

/// Id and bytes of each of [`framed`]'s entries.
fn entries(mut bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    std::iter::from_fn(move || {
        let (head, rest) = bytes.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_le_bytes([head[2], head[3]]));
        let (entry, rest) = rest.split_at_checked(length)?;
        bytes = rest;
        Some((usize::from(u16::from_le_bytes([head[0], head[1]])), entry))
    })
}

fn merge_hdr(
    deserializer: &mut Deserializer,
    bytes: &[u8],
    windows: &mut [Histogram<u64>],
) -> Outcome {
    for (id, mut entry) in entries(bytes) {
        let histogram: Histogram<u64> = deserializer.deserialize(&mut entry)?;
        windows[id].add(histogram)?;
    }
    Ok(())
}

fn encode_dd(batch: &[DDSketch], out: &mut Vec<u8>) -> Outcome {
    out.clear();
    for (id, sketch) in (0_u16..).zip(batch) {
        framed(id, &sketch.to_java_bytes(), out)?;
    }
    Ok(())
}

fn merge_dd(bytes: &[u8], windows: &mut [DDSketch]) -> Outcome {
    for (id, entry) in entries(bytes) {
        let sketch = DDSketch::from_java_bytes(entry).map_err(|error| error.to_string())?;
        windows[id].merge(&sketch).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// The bytes of every batch, by `encode`.
fn all_bytes<T>(
    batches: &[T],
    mut encode: impl FnMut(&T, &mut Vec<u8>) -> Outcome,
) -> Outcome<Vec<Vec<u8>>> {
    let one = |batch: &T| -> Outcome<Vec<u8>> {
        let mut out = Vec::new();
        encode(batch, &mut out)?;
        Ok(out)
    };
    batches.iter().map(one).collect()
}

/// Bytes a delta, averaged over all batches.
#[allow(clippy::cast_precision_loss)]
fn bytes_a_delta(frames: &[Vec<u8>]) -> f64 {
    let bytes: usize = frames.iter().map(Vec::len).sum();
    bytes as f64 / (frames.len() * data::SERIES) as f64
}

/// Adds a case that goes through `items` once a pass. A failure, which the checks before rule
/// out, shows as NaN.
fn over<'a, T>(
    suite: &mut Suite<'a>,
    peer: Option<Id>,
    items: &'a [T],
    mut each: impl FnMut(&'a T) -> Outcome + 'a,
) -> Id {
    suite.case(peer, items.len() * data::SERIES, move |passes| {
        let mut good = true;
        let took = timed(|| {
            for _ in 0..passes {
                items.iter().for_each(|item| good &= each(black_box(item)).is_ok());
            }
        });
        if good { took } else { f64::NAN }
    })
}

fn size(report: &mut Report, options: Options, samples: usize, bytes_max: f64) -> Outcome {
    let inputs = Inputs::new(&data::batches(BATCHES, samples)?)?;
    let names: Vec<Vec<KeyValue>> = data::keys()?.iter().map(otlp::attributes).collect();
    let mut encoder = DeltaEncoder::default();
    let ours = all_bytes(&inputs.ours, |batch, out| encode_ours(&mut encoder, batch, out))?;
    let otlp = all_bytes(&inputs.otlp, |batch, out| encode_otlp(&names, batch, out))?;
    let (mut serializer, mut one) = (V2Serializer::new(), Vec::new());
    let hdr =
        all_bytes(&inputs.hdr, |batch, out| encode_hdr(&mut serializer, batch, (&mut one, out)))?;
    let dd = all_bytes(&inputs.dd, encode_dd_of)?;
    check(&ours, &otlp, samples)?;

    let name = |what: &str| format!("N={samples}: {what}");
    let sizes = [&ours, &otlp, &hdr, &dd].map(|frames| bytes_a_delta(frames));
    let peer = |bytes: f64| ("OTLP", bytes / sizes[1]);
    let bytes = Some(Target::Value(bytes_max));
    report.compared(name("bytes a delta, ours"), sizes[0], "B", peer(sizes[0]), bytes);
    report.plain(name("bytes a delta, OTLP exponential 6"), sizes[1], "B");
    report.compared(name("bytes a delta, HDR V2"), sizes[2], "B", peer(sizes[2]), None);
    report.compared(name("bytes a delta, DDSketch 1 %"), sizes[3], "B", peer(sizes[3]), None);

    let (mut out, mut otlp_out) = (Vec::new(), Vec::new());
    let (mut hdr_out, mut dd_out) = (Vec::new(), Vec::new());
    let mut windows = vec![PagedCounts::new(); data::SERIES];
    let mut otlp_windows = otlp::Windows::default();
    let mut hdr_windows = vec![empty_hdr()?; data::SERIES];
    let mut dd_windows = vec![DDSketch::new(Config::defaults()); data::SERIES];
    let mut deserializer = Deserializer::new();
    let mut suite = Suite::new(Duration::from_micros(500));
    let s = &mut suite;
    let otlp_encode =
        over(s, None, &inputs.otlp, |batch| encode_otlp(&names, batch, &mut otlp_out));
    let otlp_merge = over(s, None, &otlp, |bytes| {
        otlp_windows.merge(&ExportMetricsServiceRequest::decode(&bytes[..])?);
        Ok(())
    });
    let encode = over(s, Some(otlp_encode), &inputs.ours, |batch| {
        encode_ours(&mut encoder, batch, &mut out)
    });
    let merge = over(s, Some(otlp_merge), &ours, |frame| merge_ours(frame, &mut windows));
    let hdr_encode = over(s, Some(otlp_encode), &inputs.hdr, |batch| {
        encode_hdr(&mut serializer, batch, (&mut one, &mut hdr_out))
    });
    let hdr_merge = over(s, Some(otlp_merge), &hdr, |bytes| {
        merge_hdr(&mut deserializer, bytes, &mut hdr_windows)
    });
    let dd_encode = over(s, Some(otlp_encode), &inputs.dd, |batch| encode_dd(batch, &mut dd_out));
    let dd_merge = over(s, Some(otlp_merge), &dd, |bytes| merge_dd(bytes, &mut dd_windows));
    let limit = options.pick(Duration::from_secs(16), Duration::from_millis(1_200));
    suite.run(options.pick(150, 8), limit);

    report.beside(name("encode, ours"), suite.measured(encode), "OTLP", None);
    report.plain(name("encode, OTLP exponential 6"), suite.measured(otlp_encode).value, "ns");
    report.beside(name("encode, HDR V2"), suite.measured(hdr_encode), "OTLP", None);
    report.beside(name("encode, DDSketch 1 %"), suite.measured(dd_encode), "OTLP", None);
    let target = Some(Target::Ratio(0.15));
    report.beside(name("decode and merge, ours"), suite.measured(merge), "OTLP", target);
    let value = suite.measured(otlp_merge).value;
    report.plain(name("decode and merge, OTLP exponential 6"), value, "ns");
    report.beside(name("decode and merge, HDR V2"), suite.measured(hdr_merge), "OTLP", None);
    report.beside(name("decode and merge, DDSketch 1 %"), suite.measured(dd_merge), "OTLP", None);
    Ok(())
}

// A function and not a closure: the batches are vectors here and slices there.
#[allow(clippy::ptr_arg)]
fn encode_dd_of(batch: &Vec<DDSketch>, out: &mut Vec<u8>) -> Outcome {
    encode_dd(batch, out)
}

/// Both sides merge what was put in, so that a fast answer is not a wrong one.
fn check(ours: &[Vec<u8>], otlp: &[Vec<u8>], samples: usize) -> Outcome {
    let expected = (ours.len() * data::SERIES * samples) as u64;
    let mut windows = vec![PagedCounts::new(); data::SERIES];
    ours.iter().try_for_each(|frame| merge_ours(frame, &mut windows))?;
    let merged: u64 = windows.iter().map(PagedCounts::total).sum();
    let mut theirs = otlp::Windows::default();
    for bytes in otlp {
        theirs.merge(&ExportMetricsServiceRequest::decode(&bytes[..])?);
    }
    if merged == expected && theirs.samples() == expected {
        Ok(())
    } else {
        Err(format!("{merged} and {} samples of {expected}", theirs.samples()).into())
    }
}
