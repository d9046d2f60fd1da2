//! A process that records until it is killed: `recording_child SEGMENT_DIR ORACLE_FILE INSTANCE`.
#![forbid(unsafe_code)]

fn main() -> Result<(), String> {
    lens_tests::recording::run(std::env::args().skip(1))
}
