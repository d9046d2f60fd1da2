//! The bytes of one example of each kind of frame. A change here is a change of the wire: it
//! needs a new version, or a reason in docs/wire.md.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

mod common;

use common::{LIFE, OPEN, applied, capture, captured, delta, dict, exemplars, flags, hello};
use lens_model::{Sequence, UnixNanos};
use lens_wire::{
    ALPN, Ack, Bye, FromAgent, FromAggregator, Phase, Ping, Reason, Refuse, RefuseCode, Welcome,
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[track_caller]
fn check(bytes: &[u8], expected: &str) {
    let expected: String = expected.split_whitespace().collect();
    assert_eq!(hex(bytes), expected, "bytes of the wire changed");
}

fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out);
    out
}

#[test]
fn hello_keeps_its_bytes() {
    // WIRE-002, WIRE-010, WIRE-012, WIRE-020, WIRE-022, WIRE-030
    let bytes = encoded(|out| hello().encode(out));
    check(
        &bytes,
        "36000000010002000101ffeeddccbbaa998877665544332211002a00000000000000066e6f64652d
         3705302e312e3001047a6f6e650465752d31000036b95057",
    );
    assert!(matches!(FromAgent::parse(&bytes, Phase::Opening), Ok(FromAgent::Hello(_))));
    assert_eq!(ALPN, b"lens-telemetry/1"); // WIRE-001
}

#[test]
fn welcome_keeps_its_bytes() {
    // WIRE-033
    let welcome = Welcome::new(&hello(), Sequence(41), UnixNanos(1_763_755_200_123_456_789));
    let bytes = encoded(|out| welcome.encode(out));
    check(&bytes, "1a000000020002002900000000000000154d1b7e021e7a18000010004000000021c7cfc6");
    assert_eq!(FromAggregator::parse(&bytes, Phase::Opening), Ok(FromAggregator::Welcome(welcome)));
}

#[test]
fn refuse_keeps_its_bytes() {
    // WIRE-036
    let refuse = Refuse {
        code: RefuseCode::Capacity,
        retry_after_millis: 5_000,
        text: Reason::new("no room").unwrap(),
    };
    let bytes = encoded(|out| refuse.encode(out));
    check(&bytes, "0e0000000300040088130000076e6f20726f6f6d28df1759");
    assert_eq!(FromAggregator::parse(&bytes, OPEN), Ok(FromAggregator::Refuse(refuse)));
}

#[test]
fn dict_keeps_its_bytes() {
    // WIRE-040, WIRE-041
    let bytes = encoded(|out| dict().encode(LIFE, out).unwrap());
    check(
        &bytes,
        "6300000004000100066e6f64652d37046c656e7305312e342e32000200000001126261636b656e64
         2f727573742f6c61726765000301126261636b656e642f727573742f6c6172676501000001126261
         636b656e642f727573742f6c61726765010000057175657565c4bd8464",
    );
}

#[test]
fn delta_keeps_its_bytes() {
    // WIRE-014, WIRE-021, WIRE-023, WIRE-064, WIRE-066
    check(
        &delta(),
        "9600000005000080bf76021e7a18298094ebdc03b71790bf059303020006f40da4024380470200a1
         0602cf14000000000000405500000000000010000000000000000000000000000000505500000000
         000050550000000000005055c8010000000000000000000000000000000000000000000000010000
         00000000000100000000000000010000000000000001009003030100000000000000e03f5dc8bc1f",
    );
}

#[test]
fn control_frames_keep_their_bytes() {
    // WIRE-080, WIRE-085, WIRE-086, WIRE-089
    let ack = Ack { acked: Sequence(40), received: Sequence(41) };
    check(
        &encoded(|out| ack.encode(LIFE, out)),
        "1000000006002800000000000000290000000000000098a870f7",
    );
    let ping = Ping { nonce: 7, t1: UnixNanos(1_000) };
    check(
        &encoded(|out| ping.encode(LIFE, out)),
        "1000000007000700000000000000e803000000000000db4d7457",
    );
    let pong = ping.answer(UnixNanos(2_000), UnixNanos(3_000));
    assert_eq!((pong.nonce, pong.t1), (ping.nonce, ping.t1));
    check(
        &encoded(|out| pong.encode(LIFE, out)),
        "2000000008000700000000000000e803000000000000d007000000000000b80b00000000000040d4
         7d3d",
    );
    check(&encoded(|out| Bye.encode(LIFE, out)), "000000000900a8dbf0d5");
}

#[test]
fn flags_and_applied_keep_their_bytes() {
    // WIRE-142, WIRE-145
    let bytes = encoded(|out| flags().encode(LIFE, out));
    check(
        &bytes,
        "6c0000000a0003030303030303030303030303030303030303030303030303030303030303030505
         05050505050505050505050505050505050505050505050505050505050505050505050505050505
         050505050505050505050505050505050505050505050a006120646f63756d656e74b5ea870c",
    );
    assert_eq!(FromAggregator::parse(&bytes, OPEN), Ok(FromAggregator::Flags(flags())));
    let bytes = encoded(|out| applied().encode(LIFE, out));
    check(&bytes, "110000000b0007000000000000000200000001000000012fd17080");
    let Ok(FromAgent::Applied(read)) = FromAgent::parse(&bytes, OPEN) else { panic!("refused") };
    assert_eq!(read, applied());
}

#[test]
fn exemplars_keep_their_bytes() {
    // WIRE-151
    let bytes = encoded(|out| exemplars().encode(LIFE, out));
    check(
        &bytes,
        "480000000c00030201e803000000000000ac02ababababababababababababababababcdcdcdcdcdcd
         cdcd00e803000000000000ac02ababababababababababababababababcdcdcdcdcdcdcdcd9687b21e",
    );
    let Ok(FromAgent::Exemplars(read)) = FromAgent::parse(&bytes, OPEN) else { panic!("refused") };
    assert_eq!(read, exemplars());
}

#[test]
fn capture_and_captured_keep_their_bytes() {
    // WIRE-162, WIRE-163
    let bytes = encoded(|out| capture().encode(LIFE, out));
    check(
        &bytes,
        "2d0000000d000700000000000000e803000000000000d007000000000000126261636b656e642f72
         7573742f6c6172676502ff68c5a36e",
    );
    assert_eq!(FromAggregator::parse(&bytes, OPEN), Ok(FromAggregator::Capture(capture())));
    let bytes = encoded(|out| captured().encode(LIFE, out));
    check(
        &bytes,
        "380000000e00070000000000000003f40100000000000003010201e803000000000000640605aa03
         2300800a00e803000000000000640605aa032300800ade7d0fc3",
    );
    let Ok(FromAgent::Captured(read)) = FromAgent::parse(&bytes, OPEN) else { panic!("refused") };
    assert_eq!(read, captured());
}
