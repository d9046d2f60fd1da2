//! What the benches share: the data, the way of measuring, the table and the history.

// Each bench uses a part of this.
#![allow(dead_code)]

pub(crate) mod data;
pub(crate) mod measure;
pub(crate) mod otlp;
pub(crate) mod report;

use std::error::Error;

/// What a bench ends in: a broken set-up stops it, a missed target never does.
pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// How long to measure and whether to keep the results.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// A few seconds only: proves that the bench works, says little about speed.
    pub(crate) quick: bool,
    /// Append the results to the history.
    pub(crate) record: bool,
}

impl Options {
    /// From `--quick` and `--record`, or `LENS_BENCH_QUICK=1` and `LENS_BENCH_HISTORY=1`.
    pub(crate) fn read() -> Self {
        let given = |argument: &str, variable: &str| {
            std::env::args().any(|given| given == argument)
                || std::env::var(variable).is_ok_and(|value| value == "1")
        };
        Self {
            quick: given("--quick", "LENS_BENCH_QUICK"),
            record: given("--record", "LENS_BENCH_HISTORY"),
        }
    }

    /// `long`, or `short` in a quick run.
    pub(crate) fn pick<T>(self, long: T, short: T) -> T {
        if self.quick { short } else { long }
    }
}
