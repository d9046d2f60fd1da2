//! `lens` under the name the whole-system tests start it by.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    lens_cli::main()
}
