//! Handshakes and dictionaries at their bounds and one past, and malformed ones.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

mod common;

use common::{LIFE, NONE, OPEN, hello, instance, key, label, raw};
use lens_model::limits::{CONNECTION_INSTANCES_MAX, CONNECTION_SERIES_MAX};
use lens_model::{Sequence, Stage, UnixNanos};
use lens_wire::limits::{EXTENSION_BYTES_MAX, FRAME_BYTES_MIN, LABELS_MAX};
use lens_wire::{
    AgentDictionary, Dict, DictionaryError, FrameError, FromAgent, FromAggregator, Kind,
    PeerDictionary, Phase, RefuseCode, Run, Welcome,
};

fn bad(kind: Kind, field: &'static str) -> FrameError {
    FrameError::Field { kind, field }
}

#[test]
fn welcomes_bounds_are_refused_outside_their_ranges() {
    // WIRE-034
    let welcome = Welcome::new(&hello(), Sequence(0), UnixNanos(0));
    let mut out = Vec::new();
    Welcome { frame_bytes_max: 1, frames_in_flight: 999, ..welcome }.encode(&mut out);
    let Ok(FromAggregator::Welcome(back)) = FromAggregator::parse(&out, Phase::Opening) else {
        panic!("refused");
    };
    assert_eq!((back.frame_bytes_max, back.frames_in_flight), (FRAME_BYTES_MIN as u32, 64));
    let body = &out[6..out.len() - 4];
    for (at, value, field) in [(18, 0, "frame bytes"), (22, 0, "frames in flight")] {
        let mut body = body.to_vec();
        body[at..at + 2].copy_from_slice(&[value; 2]);
        body[20] = if at == 18 { 0 } else { body[20] };
        let error = FromAggregator::parse(&raw(2, 0, &body, NONE), Phase::Opening);
        assert_eq!(error, Err(bad(Kind::Welcome, field)));
    }
}

#[test]
fn fields_of_a_later_minor_version_are_passed_over() {
    // WIRE-038
    let mut out = Vec::new();
    hello().encode(&mut out);
    let body = &out[6..out.len() - 6];
    for (length, taken) in
        [(0, true), (EXTENSION_BYTES_MAX, true), (EXTENSION_BYTES_MAX + 1, false)]
    {
        let extended = [body, &(length as u16).to_le_bytes(), &vec![9; length]].concat();
        match FromAgent::parse(&raw(1, 0, &extended, NONE), Phase::Opening) {
            Ok(FromAgent::Hello(back)) => assert!(taken && back == hello()),
            other => assert!(!taken, "{other:?}"),
        }
    }
}

#[test]
fn labels_out_of_order_twice_nameless_or_too_many_are_refused() {
    // WIRE-022, WIRE-031
    let mut out = Vec::new();
    let mut bare = hello();
    bare.labels = lens_wire::Labels::new();
    bare.encode(&mut out);
    let front = &out[6..out.len() - 7];
    let parse = |count: u8, labels: &[u8]| {
        let body = [front, &[count], labels, &[0, 0]].concat();
        FromAgent::parse(&raw(1, 0, &body, NONE), Phase::Opening).map(|_| ())
    };
    assert_eq!(parse(2, b"\x01a\x00\x01b\x00"), Ok(()));
    assert_eq!(parse(2, b"\x01b\x00\x01a\x00"), Err(bad(Kind::Hello, "label order")));
    assert_eq!(parse(2, b"\x01a\x00\x01a\x00"), Err(bad(Kind::Hello, "label order")));
    assert_eq!(parse(1, b"\x00\x00"), Err(bad(Kind::Hello, "label name")));
    assert_eq!(parse(1, b"\x01\n\x00"), Err(bad(Kind::Hello, "label name")));
    assert_eq!(parse(1, b"\x01\xFF\x00"), Err(bad(Kind::Hello, "label name")));
    let many: Vec<u8> = (b'a'..).take(LABELS_MAX + 1).flat_map(|name| [1, name, 0]).collect();
    assert_eq!(parse(16, &many[..48]), Ok(()));
    assert!(matches!(parse(17, &many), Err(FrameError::TooMany { declared: 17, .. })));
}

#[test]
fn an_ack_that_received_less_than_is_durable_is_refused() {
    // WIRE-081
    let body = [2_u64.to_le_bytes(), 1_u64.to_le_bytes()].concat();
    let error = FromAggregator::parse(&raw(6, 0, &body, LIFE), OPEN);
    assert_eq!(error, Err(bad(Kind::Ack, "received")));
}

#[test]
fn a_dictionary_is_full_at_its_bound_and_every_name_still_arrives() {
    // WIRE-043, WIRE-044
    let (mut agent, mut peer) = (AgentDictionary::new(), PeerDictionary::new());
    for at in 0..CONNECTION_INSTANCES_MAX {
        agent.instance(&instance(&format!("node-{at}"))).unwrap();
    }
    let full = |what, max| DictionaryError::Full { what, max };
    assert_eq!(
        agent.instance(&instance("one-more")),
        Err(full("instances", CONNECTION_INSTANCES_MAX))
    );
    let of = agent.instance(&instance("node-0")).unwrap();
    for at in 0..CONNECTION_SERIES_MAX {
        agent.series(of, &key(&format!("l{at}"), Stage::A)).unwrap();
    }
    let refused = agent.series(of, &key("more", Stage::A));
    assert_eq!(refused, Err(full("series", CONNECTION_SERIES_MAX)));
    assert_eq!(full("series", 1).refuse_code(), RefuseCode::Capacity); // WIRE-103
    let mut frames = 0;
    while let Some(dict) = agent.next_dict(FRAME_BYTES_MIN) {
        let mut out = Vec::new();
        dict.encode(LIFE, &mut out).unwrap();
        assert!(out.len() <= FRAME_BYTES_MIN + 10);
        let Ok(FromAgent::Dict(dict)) = FromAgent::parse(&out, OPEN) else { panic!("refused") };
        peer.apply(dict).unwrap();
        frames += 1;
    }
    assert!(frames > 10);
    assert_eq!(peer.series_len(), CONNECTION_SERIES_MAX);
    let body = [0x81, 0x08]; // 1,025 instances
    let error = FromAgent::parse(&raw(4, 0, &body, LIFE), OPEN).unwrap_err();
    assert!(matches!(error, FrameError::TooMany { declared: 1_025, .. }), "{error}");
}

#[test]
fn a_dictionary_with_a_gap_a_second_meaning_or_an_unknown_instance_is_refused_whole() {
    // WIRE-041, WIRE-042, WIRE-047
    let mut peer = PeerDictionary::new();
    let instances = |first| Dict {
        instances: Run { first, entries: vec![instance("a"), instance("b")] },
        ..Dict::default()
    };
    let what = "instances";
    let gap = peer.apply(instances(1));
    assert_eq!(gap, Err(DictionaryError::Gap { what, id: 1, expected: 0 }));
    peer.apply(instances(0)).unwrap();
    let again = peer.apply(instances(1));
    assert_eq!(again, Err(DictionaryError::Redefined { what, id: 1, expected: 2 }));
    let mut both = instances(2);
    both.gauges = Run {
        first: 0,
        entries: vec![lens_wire::Gauge { instance: lens_wire::InstanceId(9), name: label("g") }],
    };
    assert_eq!(peer.apply(both), Err(DictionaryError::Unknown { what, id: 9 }));
    assert!(peer.instance(lens_wire::InstanceId(2)).is_none(), "nothing of it was taken on");
}

#[test]
fn a_slice_in_capitals_is_refused() {
    // WIRE-045
    for (slice, taken) in [("a/b/c", true), ("a/B/c", false), ("a/b", false), ("a/b/c/d", false)] {
        let mut body = vec![1, 0, 1, b'n', 0, 0, 0, 1, 0, 0, 0, 0, slice.len() as u8];
        body.extend(slice.bytes());
        body.extend([0, 0]);
        let found = FromAgent::parse(&raw(4, 0, &body, LIFE), OPEN).map(|_| ());
        assert_eq!(found, if taken { Ok(()) } else { Err(bad(Kind::Dict, "slice")) }, "{slice}");
    }
}
