//! The `lens-aggregator` program.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    lens_aggregator::program::main()
}
