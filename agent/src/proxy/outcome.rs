//! How a forwarded request ended, and what that says about the arm it went to.
//!
//! Why: an arm is blamed for what it did and for nothing else. A query it rightly turned down is an
//! answer; an answer that never came, or came in part, is an error, whatever its first line said;
//! what the client or this proxy ended says nothing about the arm and is counted apart.
//! Promise: every request that was given an arm ends in exactly one [`Outcome`].

use http::StatusCode;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered whole, with a status below 400.
    Ok,
    /// Answered whole, and the query was at fault: a 4xx, or a 5xx that bears the mark of one.
    ClientError,
    /// Answered whole with a 5xx.
    ServerError,
    /// No connection to the upstream.
    ConnectFailed,
    /// The upstream kept us waiting for longer than `proxy.timeout_ms`.
    TimedOut,
    /// The upstream broke off, or what it sent is no HTTP.
    Aborted,
    /// The client went away, or did not send its own request.
    ClientGone,
    /// Turned down here, before or while it was forwarded: too large a body, for one.
    Refused,
}

impl Outcome {
    /// Every outcome, in the order of [`Outcome::at`].
    pub const ALL: [Self; 8] = [
        Self::Ok,
        Self::ClientError,
        Self::ServerError,
        Self::ConnectFailed,
        Self::TimedOut,
        Self::Aborted,
        Self::ClientGone,
        Self::Refused,
    ];

    /// What an answer that came whole amounts to. `marked` says that it bears the mark of a bad
    /// query.
    pub fn of_answer(status: StatusCode, marked: bool) -> Self {
        match status.as_u16() {
            ..400 => Self::Ok,
            400..500 => Self::ClientError,
            _ if marked => Self::ClientError,
            _ => Self::ServerError,
        }
    }

    /// Its place in [`Outcome::ALL`].
    pub const fn at(self) -> usize {
        self as usize
    }

    /// The name in metrics and `/status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ClientError => "client_error",
            Self::ServerError => "server_error",
            Self::ConnectFailed => "connect_failed",
            Self::TimedOut => "timed_out",
            Self::Aborted => "aborted",
            Self::ClientGone => "client_gone",
            Self::Refused => "refused",
        }
    }

    /// What the arm is told to have done: `Some(true)` answered, `Some(false)` failed, `None` when
    /// it says nothing about the arm.
    pub const fn verdict(self) -> Option<bool> {
        match self {
            Self::Ok | Self::ClientError => Some(true),
            Self::ServerError | Self::ConnectFailed | Self::TimedOut | Self::Aborted => Some(false),
            Self::ClientGone | Self::Refused => None,
        }
    }

    /// Whether its time is a latency of the arm. A connection that failed served nothing: refusals
    /// within microseconds would make an arm that is down look fast.
    pub const fn is_timed(self) -> bool {
        self.verdict().is_some() && !matches!(self, Self::ConnectFailed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, marked: bool) -> Outcome {
        Outcome::of_answer(StatusCode::from_u16(status).unwrap(), marked)
    }

    #[test]
    fn a_bad_query_is_no_error_of_the_server_and_a_5xx_is() {
        for status in [200, 204, 206, 301, 304, 399] {
            assert_eq!(of(status, false), Outcome::Ok, "{status}");
            assert_eq!(of(status, true), Outcome::Ok, "{status}");
        }
        for status in [400, 404, 413, 429, 499] {
            assert_eq!(of(status, false), Outcome::ClientError, "{status}");
        }
        for status in [500, 502, 503, 599, 600, 999] {
            assert_eq!(of(status, false), Outcome::ServerError, "{status}");
            assert_eq!(of(status, true), Outcome::ClientError, "{status}");
        }
    }

    #[test]
    fn a_client_that_hangs_up_neither_praises_nor_blames_an_arm() {
        let verdicts: Vec<_> = Outcome::ALL.iter().map(|outcome| outcome.verdict()).collect();
        let (good, bad) = (Some(true), Some(false));
        assert_eq!(verdicts, [good, good, bad, bad, bad, bad, None, None]);
        for (at, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome.at(), at);
        }
        assert!(Outcome::TimedOut.is_timed() && !Outcome::ConnectFailed.is_timed());
        assert!(!Outcome::ClientGone.is_timed());
    }
}
