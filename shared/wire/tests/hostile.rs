//! What a faulty or hostile peer may send: every frame is taken whole or refused with a reason.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

mod common;

use common::{
    LIFE, NONE, OPEN, Rng, applied, capture, captured, delta, dict, exemplars, flags, hello, raw,
};
use lens_hist::PagedCounts;
use lens_model::{Sequence, UnixNanos};
use lens_wire::{
    Ack, Bye, FrameBuffer, FrameError, FromAgent, FromAggregator, Kind, PeerDictionary, Phase,
    Ping, Reason, Refuse, RefuseCode, Skipped, Welcome,
};
use proptest::prelude::*;

/// One frame of each kind.
fn every_frame() -> Vec<(Kind, Vec<u8>)> {
    let ping = Ping { nonce: 1, t1: UnixNanos(2) };
    let refuse =
        Refuse { code: RefuseCode::Storage, retry_after_millis: 9, text: Reason::lossy("full") };
    let mut frames = Vec::new();
    for kind in Kind::ALL {
        let mut out = Vec::new();
        match kind {
            Kind::Hello => hello().encode(&mut out),
            Kind::Welcome => {
                Welcome::new(&hello(), Sequence(3), UnixNanos(4)).encode(&mut out);
            }
            Kind::Refuse => refuse.encode(&mut out),
            Kind::Dict => dict().encode(LIFE, &mut out).unwrap(),
            Kind::Delta => out = delta(),
            Kind::Ack => Ack { acked: Sequence(1), received: Sequence(2) }.encode(LIFE, &mut out),
            Kind::Ping => ping.encode(LIFE, &mut out),
            Kind::Pong => ping.answer(UnixNanos(3), UnixNanos(4)).encode(LIFE, &mut out),
            Kind::Bye => Bye.encode(LIFE, &mut out),
            Kind::Flags => flags().encode(LIFE, &mut out),
            Kind::Applied => applied().encode(LIFE, &mut out),
            Kind::Exemplars => exemplars().encode(LIFE, &mut out),
            Kind::Capture => capture().encode(LIFE, &mut out),
            Kind::Captured => captured().encode(LIFE, &mut out),
        }
        frames.push((kind, out));
    }
    frames
}

/// Reads as both sides in both phases; uses whatever is accepted. Whether any accepted it.
fn read(bytes: &[u8]) -> bool {
    let mut accepted = false;
    for phase in [Phase::Opening, OPEN] {
        match FromAgent::parse(bytes, phase) {
            Ok(FromAgent::Delta(delta)) => {
                accepted = true;
                let mut window = PagedCounts::new();
                let count = delta.histograms().inspect(|(_, b)| b.merge_into(&mut window)).count();
                assert_eq!(count, delta.histograms_len());
                assert_eq!(window.total(), delta.samples());
                let _ = (delta.requests().count(), delta.gauges().count());
            }
            Ok(FromAgent::Dict(dict)) => {
                accepted = true;
                let applied = PeerDictionary::new().apply(dict);
                assert!(applied.is_ok() || !applied.unwrap_err().to_string().is_empty());
            }
            Ok(_) => accepted = true,
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        accepted |= FromAggregator::parse(bytes, phase).is_ok();
    }
    accepted
}

proptest! {
    #[test]
    fn any_bytes_are_a_frame_or_a_refusal(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        read(&bytes);
    }

    #[test]
    fn any_body_behind_a_right_checksum_is_a_frame_or_a_refusal(
        code in 0_u8..12,
        flags in prop_oneof![9 => Just(0_u8), 1 => any::<u8>()],
        body in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        read(&raw(code, flags, &body, LIFE));
        read(&raw(code, flags, &body, NONE));
    }

    #[test]
    fn any_stream_is_cut_into_frames_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..99)) {
        let (mut buffer, mut chunk) = (FrameBuffer::default(), &bytes[..]);
        while let Ok(Some(frame)) = buffer.next_frame(&mut chunk) {
            read(frame);
        }
    }
}

#[test]
fn a_frame_cut_anywhere_or_followed_by_anything_is_refused() {
    // WIRE-010, WIRE-013
    for (kind, frame) in every_frame() {
        assert!(read(&frame), "{kind} itself is accepted");
        for cut in 0..frame.len() {
            assert!(!read(&frame[..cut]), "{kind} cut at {cut}");
        }
        assert!(!read(&[&frame[..], &[0]].concat()), "{kind} with a byte too many");
    }
}

#[test]
fn a_body_cut_anywhere_or_too_long_is_refused_behind_a_right_checksum() {
    // WIRE-013, WIRE-030, WIRE-033, WIRE-036, WIRE-040
    for (kind, frame) in every_frame() {
        let life = if kind.code() <= 3 { NONE } else { LIFE };
        let body = &frame[6..frame.len() - 4];
        for cut in 0..body.len() {
            assert!(!read(&raw(kind.code(), 0, &body[..cut], life)), "{kind} body cut at {cut}");
        }
        let longer = [body, &[0]].concat();
        assert!(!read(&raw(kind.code(), 0, &longer, life)), "{kind} body with a byte too many");
    }
}

#[test]
fn a_frame_with_any_one_bit_wrong_is_refused() {
    // WIRE-012, WIRE-015, WIRE-100
    for (kind, frame) in every_frame() {
        for bit in 0..frame.len() * 8 {
            let mut damaged = frame.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(!read(&damaged), "{kind} with bit {bit} wrong");
        }
    }
}

#[test]
fn a_delta_damaged_behind_a_right_checksum_never_changes_its_total_silently() {
    // WIRE-062, WIRE-063, WIRE-065, WIRE-110
    let frame = delta();
    let body = &frame[6..frame.len() - 4];
    for bit in 0..body.len() * 8 {
        let mut damaged = body.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        read(&raw(5, 0, &damaged, LIFE)); // asserts that what is merged is what was declared
    }
}

#[test]
fn damaged_frames_with_right_checksums_are_frames_or_refusals() {
    let seed = std::env::var("LENS_SEED").map_or(0x5EED_0001, |seed| seed.parse().unwrap());
    println!("LENS_SEED={seed}");
    let (mut rng, frames) = (Rng(seed), every_frame());
    for _ in 0..30_000 {
        let (kind, frame) = &frames[rng.below(frames.len())];
        let mut body = frame[6..frame.len() - 4].to_vec();
        for _ in 0..=rng.below(4) {
            let at = rng.below(body.len() + 1);
            match rng.below(5) {
                0 if at < body.len() => body[at] ^= 1 << rng.below(8),
                1 if at < body.len() => body[at] = [0, 1, 0x7F, 0x80, 0xFF][rng.below(5)],
                2 => body.truncate(at),
                3 => body.insert(at, rng.next() as u8),
                _ => {
                    let piece = body[at..].to_vec();
                    body.extend(piece.iter().take(rng.below(40)));
                }
            }
        }
        let life = if kind.code() <= 3 { NONE } else { LIFE };
        read(&raw(kind.code(), 0, &body, life));
    }
}

#[test]
fn what_is_unknown_is_skipped_only_when_its_sender_allows_it() {
    // WIRE-016, WIRE-017
    let skipped = |code, flags| Skipped { code, flags, body_bytes: 3 };
    for (code, flags) in [(200, 0x80), (0, 0x81), (7, 0xC0)] {
        let frame = raw(code, flags, b"new", LIFE);
        let Ok(FromAgent::Skipped(found)) = FromAgent::parse(&frame, OPEN) else {
            panic!("type {code} flags {flags:#x} must be skipped");
        };
        assert_eq!(found, skipped(code, flags));
        assert_eq!(
            FromAggregator::parse(&frame, OPEN),
            Ok(FromAggregator::Skipped(skipped(code, flags)))
        );
    }
    let unknown = FromAgent::parse(&raw(200, 0, b"new", LIFE), OPEN).unwrap_err();
    assert_eq!(unknown, FrameError::UnknownKind { code: 200 });
    let flagged = FromAgent::parse(&raw(7, 0x40, b"new", LIFE), OPEN).unwrap_err();
    assert_eq!(flagged, FrameError::UnknownFlags { kind: Kind::Ping, flags: 0x40 });
    // WIRE-015: not even what is skipped may be damaged.
    let mut damaged = raw(200, 0x80, b"new", LIFE);
    damaged[7] ^= 1;
    assert_eq!(FromAgent::parse(&damaged, OPEN).unwrap_err(), FrameError::Checksum);
}

#[test]
fn counts_and_names_are_never_skipped() {
    // WIRE-018
    for kind in [Kind::Dict, Kind::Delta] {
        for flags in [0x80, 0x81, 0x01] {
            let error = FromAgent::parse(&raw(kind.code(), flags, &[], LIFE), OPEN).unwrap_err();
            assert_eq!(error, FrameError::UnknownFlags { kind, flags });
        }
    }
}

#[test]
fn each_kind_is_accepted_from_its_own_side_and_phase_only() {
    // WIRE-005, WIRE-006, WIRE-019
    for (kind, frame) in every_frame() {
        for phase in [Phase::Opening, OPEN] {
            let opening = phase == Phase::Opening;
            let due = match kind {
                Kind::Hello | Kind::Welcome => opening,
                Kind::Refuse => true,
                _ => !opening,
            };
            let (agent, aggregator) =
                (FromAgent::parse(&frame, phase), FromAggregator::parse(&frame, phase));
            assert_eq!(agent.is_ok(), due && kind.is_from_agent(), "{kind} {phase:?}");
            assert_eq!(aggregator.is_ok(), due && !kind.is_from_agent(), "{kind} {phase:?}");
            for error in [agent.err(), aggregator.err()].into_iter().flatten() {
                assert_eq!(error, FrameError::OutOfPlace { kind });
                assert_eq!(error.refuse_code(), RefuseCode::Protocol); // WIRE-103
            }
        }
    }
}

#[test]
fn refusals_say_whether_they_pass() {
    // WIRE-037, WIRE-105
    for code in 0..20 {
        let passing = matches!(code, 0 | 4 | 6 | 8..);
        assert_eq!(RefuseCode::from_code(code).is_passing(), passing, "{code}");
    }
}

#[test]
fn a_document_is_taken_up_to_its_bound_and_refused_before_it_is_read_beyond() {
    // WIRE-142, WIRE-143
    let most = lens_model::limits::DOCUMENT_BYTES_MAX;
    for (length, taken) in [(0, true), (most, true), (most + 1, false), (65_535, false)] {
        let mut body = vec![7; 96];
        body.extend((length as u16).to_le_bytes());
        body.extend(vec![9; length]);
        let frame = raw(10, 0, &body, LIFE);
        let read = FromAggregator::parse(&frame, OPEN);
        assert_eq!(read.is_ok(), taken, "{length}");
        if !taken {
            let error = FrameError::Field { kind: Kind::Flags, field: "document" };
            assert_eq!(read.unwrap_err(), error);
        }
    }
}

#[test]
fn exemplars_without_a_trace_or_too_many_of_them_are_refused() {
    // WIRE-152, WIRE-153
    let field = |body: &[u8]| {
        let frame = raw(Kind::Exemplars.code(), 0, body, LIFE);
        FromAgent::parse(&frame, OPEN).unwrap_err()
    };
    let mut body = vec![0, 1, 0];
    body.extend([0; 8]);
    body.push(5);
    body.extend([0; 24]);
    let kind = Kind::Exemplars;
    assert_eq!(field(&body), FrameError::Field { kind, field: "trace" });
    let max = lens_model::limits::AGENT_EXEMPLARS_MAX;
    let many = [&[0][..], &[(max + 1) as u8 | 0x80, ((max + 1) >> 7) as u8]].concat();
    let declared = max as u64 + 1;
    assert_eq!(field(&many), FrameError::TooMany { kind, what: "exemplars", declared, max });
    let mut entry = exemplars();
    entry.entries = vec![entry.entries[0]; max + 1];
    let mut out = Vec::new();
    entry.encode(LIFE, &mut out);
    let Ok(FromAgent::Exemplars(read)) = FromAgent::parse(&out, OPEN) else { panic!("refused") };
    assert_eq!(read.entries.len(), max, "no more is written than may be");
}

#[test]
fn captured_steps_that_are_too_many_or_hold_no_block_are_refused() {
    // WIRE-164, WIRE-065
    let kind = Kind::Captured;
    let refused = |body: &[u8]| {
        let frame = raw(kind.code(), 0, body, LIFE);
        FromAgent::parse(&frame, OPEN).unwrap_err()
    };
    let head = [&[7, 0, 0, 0, 0, 0, 0, 0, 0][..], &[0; 8], &[0, 1]].concat();
    let max = lens_model::limits::FRAME_SERIES_MAX;
    let many = (max + 1) as u64;
    let count = [many as u8 | 0x80, (many >> 7) as u8];
    let declared = many;
    let body = [&head[..], &count].concat();
    assert_eq!(refused(&body), FrameError::TooMany { kind, what: "steps", declared, max });
    let body = [&head[..], &[1, 0], &[0; 8], &[5, 0xff, 0xff]].concat();
    assert!(matches!(refused(&body), FrameError::Block { series: 0, .. }));
    let mut body = head;
    body[18] = 2;
    assert_eq!(refused(&body), FrameError::Field { kind, field: "last" });
}
