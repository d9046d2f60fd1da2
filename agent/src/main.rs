//! The `lens-agent` program.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    lens_agent::program::main()
}
