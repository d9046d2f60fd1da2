//! ACK, PING, PONG and BYE: what is durable, what time it is, and the end.

use lens_model::{Incarnation, Sequence, UnixNanos};

use crate::error::FrameError;
use crate::frame::put_frame;
use crate::kind::Kind;
use crate::read::Reader;

/// How far the aggregator's clock is ahead of the agent's, and how far off that may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockOffset {
    /// Aggregator's clock minus agent's clock, nanoseconds.
    pub offset_nanos: i64,
    /// The true offset is within this of the measured one, nanoseconds; `u64::MAX` before any
    /// measurement.
    pub error_nanos: u64,
}

impl ClockOffset {
    /// Nothing was measured yet: no offset, unbounded error.
    pub const UNMEASURED: Self = Self { offset_nanos: 0, error_nanos: u64::MAX };

    /// Whether this was measured at all.
    pub const fn is_measured(self) -> bool {
        self.error_nanos != u64::MAX
    }
}

/// Durable and received up to here. (WIRE-080)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Every delta up to this one is durable; the agent may forget them.
    pub acked: Sequence,
    /// Every delta up to this one was received on this connection or is durable.
    pub received: Sequence,
}

impl Ack {
    /// Appends the frame; `received` is written as at least `acked`.
    pub fn encode(&self, incarnation: Incarnation, out: &mut Vec<u8>) {
        put_frame(Kind::Ack, Some(incarnation), out, |out| {
            out.extend_from_slice(&self.acked.0.to_le_bytes());
            out.extend_from_slice(&self.received.max(self.acked).0.to_le_bytes());
        });
    }

    pub(crate) fn read(mut r: Reader<'_>) -> Result<Self, FrameError> {
        let acked = Sequence(r.u64("acked")?);
        let received = Sequence(r.u64("received")?);
        // WIRE-081
        if received < acked {
            return Err(r.bad("received"));
        }
        r.finish()?;
        Ok(Self { acked, received })
    }
}

/// What time is it? (WIRE-085)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ping {
    /// Tells this ping from others; the answer repeats it.
    pub nonce: u64,
    /// The agent's clock as it sent this.
    pub t1: UnixNanos,
}

impl Ping {
    /// Appends the frame.
    pub fn encode(&self, incarnation: Incarnation, out: &mut Vec<u8>) {
        put_frame(Kind::Ping, Some(incarnation), out, |out| {
            out.extend_from_slice(&self.nonce.to_le_bytes());
            out.extend_from_slice(&self.t1.0.to_le_bytes());
        });
    }

    pub(crate) fn read(mut r: Reader<'_>) -> Result<Self, FrameError> {
        let ping = Self { nonce: r.u64("nonce")?, t1: UnixNanos(r.u64("t1")?) };
        r.finish()?;
        Ok(ping)
    }

    /// The answer to this ping. (WIRE-086)
    pub const fn answer(&self, received_at: UnixNanos, sent_at: UnixNanos) -> Pong {
        Pong { nonce: self.nonce, t1: self.t1, t2: received_at, t3: sent_at }
    }
}

/// This late. (WIRE-086)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pong {
    /// The ping's nonce.
    pub nonce: u64,
    /// The agent's clock as it sent the ping.
    pub t1: UnixNanos,
    /// The aggregator's clock as it received the ping.
    pub t2: UnixNanos,
    /// The aggregator's clock as it sent this.
    pub t3: UnixNanos,
}

impl Pong {
    /// Appends the frame.
    pub fn encode(&self, incarnation: Incarnation, out: &mut Vec<u8>) {
        put_frame(Kind::Pong, Some(incarnation), out, |out| {
            for number in [self.nonce, self.t1.0, self.t2.0, self.t3.0] {
                out.extend_from_slice(&number.to_le_bytes());
            }
        });
    }

    pub(crate) fn read(mut r: Reader<'_>) -> Result<Self, FrameError> {
        let (nonce, t1) = (r.u64("nonce")?, UnixNanos(r.u64("t1")?));
        let (t2, t3) = (UnixNanos(r.u64("t2")?), UnixNanos(r.u64("t3")?));
        r.finish()?;
        Ok(Self { nonce, t1, t2, t3 })
    }

    /// The clock offset this exchange shows when the pong arrived at `t4` by the agent's clock.
    ///
    /// `((t2 − t1) + (t3 − t4)) / 2`, off by at most half the time on the way,
    /// `((t4 − t1) − (t3 − t2)) / 2`, rounded up. `None` when either clock went backwards in
    /// between or the aggregator claims to have held the ping longer than it was away. (WIRE-087)
    pub fn offset(&self, t4: UnixNanos) -> Option<ClockOffset> {
        let [t1, t2, t3, t4] = [self.t1, self.t2, self.t3, t4].map(|time| i128::from(time.0));
        let on_the_way = (t4 - t1) - (t3 - t2);
        if t4 < t1 || t3 < t2 || on_the_way < 0 {
            return None;
        }
        let offset = ((t2 - t1) + (t3 - t4)).div_euclid(2);
        let error_nanos = u64::try_from((on_the_way + 1) / 2 + 1).ok()?;
        Some(ClockOffset { offset_nanos: i64::try_from(offset).ok()?, error_nanos })
    }
}

/// Nothing more will come on this connection; what was sent awaits its ACK. (WIRE-089)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bye;

impl Bye {
    /// Appends the frame.
    pub fn encode(self, incarnation: Incarnation, out: &mut Vec<u8>) {
        put_frame(Kind::Bye, Some(incarnation), out, |_| ());
    }

    pub(crate) fn read(r: Reader<'_>) -> Result<Self, FrameError> {
        r.finish()?;
        Ok(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(times: [u64; 4]) -> Option<ClockOffset> {
        let [t1, t2, t3, t4] = times.map(UnixNanos);
        Pong { nonce: 0, t1, t2, t3 }.offset(t4)
    }

    #[test]
    fn the_true_offset_is_within_the_stated_error_however_uneven_the_way() {
        // WIRE-087
        for (there, back) in [(0, 0), (1, 0), (0, 1), (500, 500), (1_000, 1), (3, 9_999)] {
            for truth in [-2_000_000_000_i64, -7, 0, 8, 5_000_000_000] {
                let t1 = 10_000_000_000_u64;
                let t2 = (t1 + there).saturating_add_signed(truth);
                let t3 = t2 + 123;
                let t4 = t1 + there + 123 + back;
                let measured = offset([t1, t2, t3, t4]).unwrap();
                assert!(measured.offset_nanos.abs_diff(truth) <= measured.error_nanos);
                assert!(measured.error_nanos <= (there + back) / 2 + 2);
            }
        }
    }

    #[test]
    fn clocks_that_ran_backwards_or_claim_the_impossible_measure_nothing() {
        // WIRE-087
        assert_eq!(offset([100, 50, 60, 99]), None);
        assert_eq!(offset([100, 60, 50, 200]), None);
        assert_eq!(offset([100, 50, 60, 105]), None);
        assert_eq!(offset([0, u64::MAX, u64::MAX, 0]), None);
        assert!(offset([100, 50, 60, 110]).unwrap().is_measured());
        assert!(!ClockOffset::UNMEASURED.is_measured());
    }
}
