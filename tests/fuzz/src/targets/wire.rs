//! Frames, names and blocks.

use lens_hist::block::{self, BlockRef};
use lens_hist::{Counts, PagedCounts};
use lens_model::Incarnation;
use lens_model::limits::{BLOCK_BYTES_MAX, FRAME_BYTES_MAX};
use lens_wire::{DeltaRef, FrameBuffer, FromAgent, FromAggregator, Hello, PeerDictionary, Phase};

/// The life whose checksum the corpora carry.
const LIFE: Incarnation = Incarnation(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);

/// A stream of frames from an agent, cut in two places that the first byte chooses: however the
/// bytes arrive, the same frames come out, up to the first refusal.
pub(crate) fn frame(bytes: &[u8]) {
    let Some((cut, stream)) = bytes.split_first() else { return };
    let whole = frames(&[stream]);
    let at = usize::from(*cut) * stream.len() / 256;
    let (head, tail) = stream.split_at(at);
    assert_eq!(whole, frames(&[head, tail]), "cut at {at}");
}

/// What each frame was read as, by both sides, and how reading ended.
fn frames(chunks: &[&[u8]]) -> Vec<String> {
    let (mut buffer, mut told) = (FrameBuffer::default(), Vec::new());
    let mut names = PeerDictionary::new();
    for chunk in chunks {
        let mut rest = *chunk;
        loop {
            match buffer.next_frame(&mut rest) {
                Ok(Some(frame)) => {
                    assert!(frame.len() <= FRAME_BYTES_MAX + 64);
                    told.push(read(frame, &mut names));
                }
                Ok(None) => break,
                Err(error) => {
                    told.push(error.to_string());
                    return told;
                }
            }
        }
    }
    told
}

fn read(frame: &[u8], names: &mut PeerDictionary) -> String {
    for phase in [Phase::Opening, Phase::Open(LIFE)] {
        if let Ok(read) = FromAggregator::parse(frame, phase) {
            return format!("{read:?}");
        }
        match FromAgent::parse(frame, phase) {
            Ok(FromAgent::Dict(dict)) => return format!("{:?}", names.apply(dict).is_ok()),
            Ok(FromAgent::Delta(delta)) => return counted(&delta),
            Ok(read) => return format!("{read:?}"),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    "refused".into()
}

/// Merges every block both ways and gives the sum, which must be the one the delta names.
fn counted(delta: &DeltaRef<'_>) -> String {
    let (mut pages, mut dense) = (PagedCounts::new(), Counts::new());
    for (_, block) in delta.histograms() {
        block.merge_into(&mut pages);
        block.merge_into_dense(&mut dense);
    }
    assert_eq!(pages.total(), dense.total());
    assert_eq!(pages.total(), delta.samples());
    let others = delta.requests().count() + delta.gauges().count();
    format!("delta {:?} of {} and {others}", delta.head(), delta.samples())
}

/// The body of a DELTA, with whatever checksum makes it one.
pub(crate) fn delta(bytes: &[u8]) {
    if bytes.len() > FRAME_BYTES_MAX {
        return;
    }
    if let Ok(FromAgent::Delta(delta)) =
        FromAgent::parse(&sealed(5, bytes, LIFE), Phase::Open(LIFE))
    {
        counted(&delta);
    }
}

/// The body of a HELLO: what is taken says the same when it is written and read again.
pub(crate) fn hello(bytes: &[u8]) {
    if bytes.len() > FRAME_BYTES_MAX {
        return;
    }
    let parse = |frame: &[u8]| -> Option<Hello> {
        match FromAgent::parse(frame, Phase::Opening) {
            Ok(FromAgent::Hello(hello)) => Some(hello),
            _ => None,
        }
    };
    let Some(hello) = parse(&sealed(1, bytes, Incarnation(0))) else { return };
    let mut again = Vec::new();
    hello.encode(&mut again);
    assert_eq!(parse(&again).as_ref(), Some(&hello));
}

/// A frame of this type around a body: length, type, no flags, body, checksum.
fn sealed(kind: u8, body: &[u8], life: Incarnation) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut frame = length.to_le_bytes().to_vec();
    frame.extend([kind, 0]);
    frame.extend_from_slice(body);
    let [a, b, c, d, ..] = life.0.to_le_bytes();
    let sum = crc32c::crc32c_append(u32::from_le_bytes([a, b, c, d]), &frame);
    frame.extend(sum.to_le_bytes());
    frame
}

/// A block: what is taken has the total it names, and written again it counts the same.
pub(crate) fn block(bytes: &[u8]) {
    let Ok((read, rest)) = BlockRef::parse(bytes) else { return };
    assert!(bytes.len() - rest.len() <= BLOCK_BYTES_MAX);
    let mut pages = PagedCounts::new();
    read.merge_into(&mut pages);
    assert_eq!(pages.total(), read.total());
    let mut again = Vec::new();
    block::encode(&pages.to_sparse(), &mut again);
    let Ok((same, [])) = BlockRef::parse(&again) else { panic!("our own block is refused") };
    let mut counts = PagedCounts::new();
    same.merge_into(&mut counts);
    assert_eq!(counts.to_sparse(), pages.to_sparse());
}
