//! Exit codes, the same for every program, and the type a program's main returns.

use std::process::ExitCode;

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: the answer is no (a gate failed, something is not ready or unhealthy, totals differ).
    No,
    /// 2: usage or configuration.
    Usage,
    /// 3: a service could not be reached.
    Unreachable,
    /// 4: refused, for want of authorisation.
    Refused,
    /// 70: a fault of ours.
    Internal,
}

impl Exit {
    /// The number.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::No => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::Refused => 4,
            Self::Internal => 70,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
