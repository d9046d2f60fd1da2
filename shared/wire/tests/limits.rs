//! Every bound of streams and deltas holds at its limit and refuses one past it.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

mod common;

use common::{LIFE, OPEN, head, raw};
use lens_hist::Sparse;
use lens_hist::layout::SLOTS;
use lens_model::limits::{CONNECTION_SERIES_MAX, FRAME_BYTES_MAX, FRAME_SERIES_MAX};
use lens_wire::limits::{FRAME_BYTES_MIN, FRAME_LEN_MAX};
use lens_wire::{
    DeltaEncoder, EncodeError, FrameBuffer, FrameError, FromAgent, GaugeId, Kind, RequestsId,
    SeriesId,
};

fn bad(kind: Kind, field: &'static str) -> FrameError {
    FrameError::Field { kind, field }
}

#[test]
fn a_body_is_refused_by_its_length_alone_one_past_the_bound() {
    // WIRE-011
    for (declared, taken) in [(FRAME_BYTES_MAX, true), (FRAME_BYTES_MAX + 1, false)] {
        let length = (declared as u32).to_le_bytes();
        let (mut buffer, mut chunk) = (FrameBuffer::default(), &length[..]);
        let found = buffer.next_frame(&mut chunk);
        assert_eq!(found.is_ok(), taken);
        let again = buffer.next_frame(&mut &[0_u8; 8][..]);
        assert_eq!(again.is_ok(), taken, "a refused stream stays refused");
    }
    let whole = raw(200, 0x80, &vec![7; FRAME_BYTES_MAX], LIFE);
    assert_eq!(whole.len(), FRAME_LEN_MAX);
    let mut buffer = FrameBuffer::default();
    for mut chunk in whole.chunks(1_000) {
        if let Some(frame) = buffer.next_frame(&mut chunk).unwrap() {
            assert_eq!(frame, whole);
            assert!(matches!(FromAgent::parse(frame, OPEN), Ok(FromAgent::Skipped(_))));
            return;
        }
    }
    panic!("the largest frame must come through");
}

#[test]
fn a_delta_holds_as_many_entries_as_its_bounds_say() {
    // WIRE-068
    let mut encoder = DeltaEncoder::default();
    let one: Sparse = [5_000].into_iter().collect();
    for id in 0..FRAME_SERIES_MAX as u32 {
        encoder.histogram(SeriesId(id), &one).unwrap();
        encoder.requests(RequestsId(id), 1, 0).unwrap();
        encoder.gauge(GaugeId(id), 1.0).unwrap();
    }
    let next = FRAME_SERIES_MAX as u32;
    let full = |what| Err(EncodeError::TooMany { what, max: FRAME_SERIES_MAX });
    assert_eq!(encoder.histogram(SeriesId(next), &one), full("histograms"));
    assert_eq!(encoder.requests(RequestsId(next), 1, 0), full("requests"));
    assert_eq!(encoder.gauge(GaugeId(next), 1.0), full("gauges"));
    let mut frame = Vec::new();
    encoder.finish(&head(), LIFE, &mut frame);
    let Ok(FromAgent::Delta(delta)) = FromAgent::parse(&frame, OPEN) else { panic!("refused") };
    assert_eq!(delta.histograms_len(), FRAME_SERIES_MAX);
    let mut body = body_head(0);
    body.extend([0x81, 0x20]); // 4,097
    let error = FromAgent::parse(&raw(5, 0, &body, LIFE), OPEN).unwrap_err();
    assert!(matches!(error, FrameError::TooMany { declared: 4_097, .. }), "{error}");
}

/// Start, sequence 1, and four numbers, the last one the declared samples.
fn body_head(samples: u8) -> Vec<u8> {
    [&[0; 8][..], &[1, 0, 0, 0, samples]].concat()
}

#[test]
fn a_delta_keeps_within_the_bound_that_welcome_gave() {
    // WIRE-035
    let mut worst = Sparse::new();
    (0..SLOTS).for_each(|index| worst.push(index, (u64::MAX >> 1) / 3_841));
    let mut encoder = DeltaEncoder::new(FRAME_BYTES_MIN);
    encoder.histogram(SeriesId(0), &worst).unwrap();
    encoder.histogram(SeriesId(1), &worst).unwrap();
    let before = encoder.encoded_len(&head());
    let error = encoder.histogram(SeriesId(2), &worst).unwrap_err();
    assert!(matches!(error, EncodeError::Full { max: FRAME_BYTES_MIN, .. }), "{error}");
    assert_eq!(encoder.encoded_len(&head()), before, "a refused entry leaves no trace");
    let mut frame = Vec::new();
    encoder.finish(&head(), LIFE, &mut frame);
    assert!(frame.len() <= FRAME_BYTES_MIN + 10);
    assert!(matches!(FromAgent::parse(&frame, OPEN), Ok(FromAgent::Delta(_))));
    // Three of them are more samples than 64 bits hold.
    let mut encoder = DeltaEncoder::default();
    encoder.histogram(SeriesId(1), &worst).unwrap();
    encoder.histogram(SeriesId(2), &worst).unwrap();
    assert_eq!(encoder.histogram(SeriesId(3), &worst), Err(EncodeError::Samples));
}

#[test]
fn ids_ascend_and_stay_within_the_dictionarys_bound() {
    // WIRE-064
    let one: Sparse = [5_000].into_iter().collect();
    let mut encoder = DeltaEncoder::default();
    let last = CONNECTION_SERIES_MAX as u32 - 1;
    let beyond = encoder.histogram(SeriesId(last + 1), &one);
    assert_eq!(beyond, Err(EncodeError::Id { what: "histograms", id: last + 1 }));
    encoder.histogram(SeriesId(last), &one).unwrap();
    let again = encoder.histogram(SeriesId(last), &one);
    assert_eq!(again, Err(EncodeError::Order { what: "histograms", id: last }));
    for (gap, taken) in [(&[0xFF_u8, 0xFF, 0x03][..], true), (&[0x80, 0x80, 0x04], false)] {
        // One histogram with this id and an empty block; no requests, no gauges.
        let body = [&body_head(0)[..], &[1], gap, &[0, 0, 0]].concat();
        let found = FromAgent::parse(&raw(5, 0, &body, LIFE), OPEN).map(|_| ());
        assert_eq!(found, if taken { Ok(()) } else { Err(bad(Kind::Delta, "id")) });
    }
    let body = [&body_head(0)[..], &[2, 0, 0], &[0xFF; 9], &[1, 0, 0, 0]].concat();
    assert_eq!(
        FromAgent::parse(&raw(5, 0, &body, LIFE), OPEN).unwrap_err(),
        bad(Kind::Delta, "id")
    );
}

#[test]
fn a_delta_without_a_number_or_with_a_wrong_total_is_refused() {
    // WIRE-060, WIRE-062
    let mut body = body_head(0);
    body[8] = 0;
    let error = FromAgent::parse(&raw(5, 0, &body, LIFE), OPEN).unwrap_err();
    assert_eq!(error, bad(Kind::Delta, "sequence"));
    let body = [&body_head(3)[..], &[0, 0, 0]].concat();
    let error = FromAgent::parse(&raw(5, 0, &body, LIFE), OPEN).unwrap_err();
    assert_eq!(error, FrameError::Totals { declared: 3, found: 0 });
}

#[test]
fn a_gauge_that_is_not_a_number_is_refused_on_both_sides() {
    // WIRE-067
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let refused = DeltaEncoder::default().gauge(GaugeId(4), value);
        assert_eq!(refused, Err(EncodeError::NotFinite { id: 4 }));
        let body = [&body_head(0)[..], &[0, 0, 1, 0], &value.to_le_bytes()].concat();
        let error = FromAgent::parse(&raw(5, 0, &body, LIFE), OPEN).unwrap_err();
        assert_eq!(error, bad(Kind::Delta, "gauge"));
    }
}

#[test]
fn an_encoded_block_is_taken_only_when_it_is_one_and_nothing_else() {
    // WIRE-065
    let mut block = Vec::new();
    lens_hist::block::encode(&[5_000, 9_000].into_iter().collect(), &mut block);
    let mut encoder = DeltaEncoder::default();
    encoder.histogram_block(SeriesId(0), &block).unwrap();
    assert_eq!(encoder.samples(), 2);
    block.push(0);
    let trailing = encoder.histogram_block(SeriesId(1), &block);
    assert_eq!(trailing, Err(EncodeError::Trailing { extra: 1 }));
    assert!(matches!(encoder.histogram_block(SeriesId(1), &[4]), Err(EncodeError::Block(_))));
    encoder.clear();
    assert!(encoder.is_empty());
}
