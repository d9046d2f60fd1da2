//! Every frame comes back from its own bytes, alone and out of any stream of chunks.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

mod common;

use std::collections::BTreeMap;

use common::{LIFE, OPEN, delta, dict, hello, instance, key, label, slice};
use lens_hist::layout::SLOTS;
use lens_hist::{PagedCounts, Sparse};
use lens_model::limits::{FRAME_BYTES_MAX, NAME_BYTES_MAX};
use lens_model::{AgentName, Arm, Incarnation, Nanos, Sequence, Stage, UnixNanos};
use lens_wire::limits::{FRAME_BYTES_MIN, LABELS_MAX};
use lens_wire::{
    Ack, AgentDictionary, Bye, ClockOffset, DeltaEncoder, DeltaHead, FrameBuffer, FrameError,
    FromAgent, FromAggregator, GaugeId, Hello, Label, Labels, PeerDictionary, Phase, Ping, Refuse,
    RefuseCode, RequestsId, SeriesId, Text, Welcome,
};
use proptest::prelude::*;

fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out);
    out
}

fn text<const MAX: usize>() -> impl Strategy<Value = Text<MAX>> {
    any::<String>().prop_map(|text| Text::lossy(&text))
}

fn labels() -> impl Strategy<Value = Labels> {
    let pairs = prop::collection::vec((text::<NAME_BYTES_MAX>(), text()), 0..=LABELS_MAX);
    pairs.prop_map(|pairs| {
        let mut labels = Labels::new();
        for (name, value) in pairs.into_iter().filter(|pair: &(Label, Label)| !pair.0.is_empty()) {
            labels.set(name, value).unwrap();
        }
        labels
    })
}

prop_compose! {
    fn any_hello()(
        minor in any::<u16>(),
        scheme in any::<u8>(),
        unit in any::<u8>(),
        life in any::<u128>(),
        resume in 1_u64..,
        agent in "[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}",
        software in text(),
        labels in labels(),
    ) -> Hello {
        let agent = AgentName::new(&agent).unwrap();
        let (incarnation, resume) = (Incarnation(life), Sequence(resume));
        Hello { minor, scheme, unit, incarnation, resume, agent, software, labels }
    }
}

prop_compose! {
    fn any_head()(
        sequence in 1_u64..,
        start in any::<u64>(),
        duration in any::<u64>(),
        offset_nanos in any::<i64>(),
        error_nanos in any::<u64>(),
    ) -> DeltaHead {
        DeltaHead {
            sequence: Sequence(sequence),
            start: UnixNanos(start),
            duration: Nanos(duration),
            clock: ClockOffset { offset_nanos, error_nanos },
        }
    }
}

fn sparse() -> impl Strategy<Value = Sparse> {
    let counts = prop::collection::btree_map(0..SLOTS, 1_u64..1 << 30, 0..60);
    counts.prop_map(|counts| {
        let mut sparse = Sparse::new();
        counts.into_iter().for_each(|(index, count)| sparse.push(index, count));
        sparse
    })
}

proptest! {
    #[test]
    fn any_hello_comes_back(hello in any_hello()) {
        // WIRE-030, WIRE-031
        let bytes = encoded(|out| hello.encode(out));
        let Ok(FromAgent::Hello(back)) = FromAgent::parse(&bytes, Phase::Opening) else {
            panic!("refused");
        };
        prop_assert_eq!(back, hello);
    }

    #[test]
    fn any_welcome_comes_back(
        minor in any::<u16>(),
        acked in any::<u64>(),
        time in any::<u64>(),
        frame_bytes_max in FRAME_BYTES_MIN as u32..=FRAME_BYTES_MAX as u32,
        frames_in_flight in 1_u16..=64,
    ) {
        // WIRE-033
        let (acked, server_time) = (Sequence(acked), UnixNanos(time));
        let welcome = Welcome { minor, acked, server_time, frame_bytes_max, frames_in_flight };
        let bytes = encoded(|out| welcome.encode(out));
        let back = FromAggregator::parse(&bytes, Phase::Opening);
        prop_assert_eq!(back, Ok(FromAggregator::Welcome(welcome)));
    }

    #[test]
    fn any_refuse_comes_back(code in any::<u16>(), retry in any::<u32>(), text in text()) {
        // WIRE-036, WIRE-037
        let code = RefuseCode::from_code(code);
        prop_assert_eq!(RefuseCode::from_code(code.code()), code);
        let refuse = Refuse { code, retry_after_millis: retry, text };
        let bytes = encoded(|out| refuse.encode(out));
        for phase in [Phase::Opening, OPEN] {
            let back = FromAggregator::parse(&bytes, phase);
            prop_assert_eq!(back, Ok(FromAggregator::Refuse(refuse.clone())));
        }
    }

    #[test]
    fn any_control_frame_comes_back(a in any::<u64>(), b in any::<u64>(), c in any::<u64>()) {
        // WIRE-080, WIRE-085, WIRE-086
        let ack = Ack { acked: Sequence(a.min(b)), received: Sequence(a.max(b)) };
        let bytes = encoded(|out| ack.encode(LIFE, out));
        prop_assert_eq!(FromAggregator::parse(&bytes, OPEN), Ok(FromAggregator::Ack(ack)));
        let ping = Ping { nonce: a, t1: UnixNanos(b) };
        let bytes = encoded(|out| ping.encode(LIFE, out));
        let back = FromAgent::parse(&bytes, OPEN);
        prop_assert!(matches!(back, Ok(FromAgent::Ping(back)) if back == ping));
        let pong = ping.answer(UnixNanos(c), UnixNanos(a));
        let bytes = encoded(|out| pong.encode(LIFE, out));
        prop_assert_eq!(FromAggregator::parse(&bytes, OPEN), Ok(FromAggregator::Pong(pong)));
    }

    #[test]
    fn any_delta_comes_back(
        head in any_head(),
        life in any::<u128>(),
        histograms in prop::collection::btree_map(0_u32..65_536, sparse(), 0..20),
        requests in prop::collection::btree_map(0_u32..32_768, any::<(u64, u64)>(), 0..20),
        gauges in prop::collection::btree_map(0_u32..16_384, -1e300..1e300, 0..20),
    ) {
        // WIRE-062, WIRE-064, WIRE-066, WIRE-067
        let mut encoder = DeltaEncoder::default();
        for (id, counts) in &histograms {
            encoder.histogram(SeriesId(*id), counts).unwrap();
        }
        for (id, (ok, errors)) in &requests {
            encoder.requests(RequestsId(*id), *ok, *errors).unwrap();
        }
        for (id, value) in &gauges {
            encoder.gauge(GaugeId(*id), *value).unwrap();
        }
        let (samples, promised) = (encoder.samples(), encoder.encoded_len(&head));
        let mut bytes = Vec::new();
        encoder.finish(&head, Incarnation(life), &mut bytes);
        prop_assert!(encoder.is_empty());
        prop_assert_eq!(bytes.len(), promised);
        let frame = FromAgent::parse(&bytes, Phase::Open(Incarnation(life)));
        let Ok(FromAgent::Delta(delta)) = frame else { panic!("refused: {frame:?}") };
        prop_assert_eq!(delta.head(), &head);
        prop_assert_eq!(delta.samples(), samples);
        prop_assert_eq!(delta.histograms_len(), histograms.len());
        let back: BTreeMap<u32, Sparse> =
            delta.histograms().map(|(id, block)| (id.0, block.to_sparse())).collect();
        prop_assert_eq!(back, histograms);
        let back = delta.requests().map(|(id, ok, errors)| (id.0, (ok, errors)));
        prop_assert_eq!(back.collect::<BTreeMap<_, _>>(), requests);
        let back = delta.gauges().map(|(id, value)| (id.0, value));
        prop_assert_eq!(back.collect::<BTreeMap<_, _>>(), gauges);
    }

    #[test]
    fn names_keep_their_meaning_through_both_dictionaries(
        names in prop::collection::vec((0_usize..5, 0_usize..9, 0_usize..4, 0_usize..4), 1..80),
    ) {
        // WIRE-040, WIRE-041, WIRE-042
        let mut agent = AgentDictionary::new();
        let mut peer = PeerDictionary::new();
        let mut given = Vec::new();
        for (at, (node, language, stage, kind)) in names.into_iter().enumerate() {
            let of = agent.instance(&instance(&format!("node-{node}"))).unwrap();
            let name = format!("language{language}");
            let key = key(&name, Stage::ALL[stage]);
            given.push(match kind {
                0 => (of, agent.gauge(of, &label(&name)).unwrap().0, name, kind, key),
                1 => {
                    let id = agent.requests(of, &slice(&name), Arm::Baseline).unwrap();
                    (of, id.0, name, kind, key)
                }
                _ => (of, agent.series(of, &key).unwrap().0, name, 2, key),
            });
            if at % 7 == 0 {
                send(&mut agent, &mut peer);
            }
        }
        send(&mut agent, &mut peer);
        for (of, id, name, kind, key) in given {
            match kind {
                0 => prop_assert_eq!(peer.gauge(GaugeId(id)).unwrap().name.as_str(), name),
                1 => {
                    let requests = peer.requests(RequestsId(id)).unwrap();
                    prop_assert_eq!((&requests.slice, requests.instance), (&key.slice, of));
                }
                _ => {
                    let series = peer.series(SeriesId(id)).unwrap();
                    prop_assert_eq!((&series.key, series.instance), (&key, of));
                }
            }
            prop_assert!(peer.instance(of).is_some());
        }
    }

    #[test]
    fn a_stream_cut_into_any_chunks_gives_the_same_frames(
        sizes in prop::collection::vec(1_usize..200, 1..200),
    ) {
        let (stream, frames) = conversation();
        let mut buffer = FrameBuffer::default();
        let mut found = Vec::new();
        let (mut rest, mut sizes) = (&stream[..], sizes.iter().cycle());
        while !rest.is_empty() {
            let (mut chunk, after) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
            rest = after;
            while let Some(frame) = buffer.next_frame(&mut chunk).unwrap() {
                found.push(frame.to_vec());
            }
            assert!(chunk.is_empty());
        }
        prop_assert_eq!(found, frames);
        prop_assert_eq!(buffer.pending_bytes(), 0);
    }
}

fn send(agent: &mut AgentDictionary, peer: &mut PeerDictionary) {
    while let Some(dict) = agent.next_dict(FRAME_BYTES_MIN) {
        let bytes = encoded(|out| dict.encode(LIFE, out).unwrap());
        assert_eq!(bytes.len(), dict.body_len() + 10);
        let Ok(FromAgent::Dict(back)) = FromAgent::parse(&bytes, OPEN) else { panic!("refused") };
        assert_eq!(back, dict);
        peer.apply(back).unwrap();
    }
}

/// A stream of frames, and the frames by themselves.
fn conversation() -> (Vec<u8>, Vec<Vec<u8>>) {
    let frames = vec![
        encoded(|out| hello().encode(out)),
        encoded(|out| dict().encode(LIFE, out).unwrap()),
        delta(),
        encoded(|out| Ping { nonce: 1, t1: UnixNanos(2) }.encode(LIFE, out)),
        delta(),
        encoded(|out| Bye.encode(LIFE, out)),
    ];
    (frames.concat(), frames)
}

#[test]
fn a_stream_cut_in_two_anywhere_gives_the_same_frames() {
    let (stream, frames) = conversation();
    for cut in 0..=stream.len() {
        let (mut buffer, mut found) = (FrameBuffer::default(), Vec::new());
        let (front, back) = stream.split_at(cut);
        for mut chunk in [front, back] {
            while let Some(frame) = buffer.next_frame(&mut chunk).unwrap() {
                found.push(frame.to_vec());
            }
        }
        assert_eq!(found, frames, "cut at {cut}");
    }
}

#[test]
fn a_delta_merges_to_what_was_recorded_and_names_only_what_is_defined() {
    // WIRE-046, WIRE-063
    let bytes = delta();
    let Ok(FromAgent::Delta(delta)) = FromAgent::parse(&bytes, OPEN) else { panic!("refused") };
    let mut window = PagedCounts::new();
    delta.histograms().for_each(|(_, block)| block.merge_into(&mut window));
    assert_eq!((window.total(), delta.samples()), (403, 403));
    let mut peer = PeerDictionary::new();
    assert!(peer.covers(&delta).is_err());
    let mut short = dict();
    short.gauges.entries.clear();
    peer.apply(short).unwrap();
    assert!(peer.covers(&delta).is_err());
    let mut gauges = lens_wire::Dict::default();
    gauges.gauges = dict().gauges;
    let new = peer.apply(gauges).unwrap();
    assert_eq!((new.gauges, new.series), (0..1, 2..2));
    assert_eq!(peer.covers(&delta), Ok(()));
}

#[test]
fn the_start_of_a_delta_is_moved_by_its_own_clock_offset() {
    // WIRE-088
    let head = common::head();
    assert_eq!(head.corrected_start(), UnixNanos(head.start.0 - 1_500));
}

#[test]
fn both_sides_agree_on_the_lower_minor_version_and_on_the_scheme() {
    // WIRE-002, WIRE-003, WIRE-004
    let mut hello = hello();
    hello.minor = 7;
    assert_eq!(hello.common_minor(), lens_wire::MINOR);
    assert_eq!(Welcome::new(&hello, Sequence(0), UnixNanos(0)).minor, lens_wire::MINOR);
    assert_eq!(hello.refusal(), None);
    hello.scheme = 2;
    assert_eq!(hello.refusal(), Some(RefuseCode::Scheme));
    (hello.scheme, hello.unit) = (1, 2);
    assert_eq!(hello.refusal(), Some(RefuseCode::Scheme));
}

#[test]
fn a_frame_of_another_life_is_not_taken_for_one_of_this() {
    // WIRE-014, WIRE-015
    let other = Phase::Open(Incarnation(LIFE.0 ^ 1));
    assert_eq!(FromAgent::parse(&delta(), other).unwrap_err(), FrameError::Checksum);
}
