//! A process that records until it is killed: `recording_child SEGMENT_DIR PROGRESS_FILE`.
//!
//! The progress file holds two numbers: how many samples it was about to have recorded, and how
//! many it has; killed in between, either may be true.
#![forbid(unsafe_code)]

use std::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt;

use lens_model::{Slice, Stage};
use lens_segment::{Node, Recorder};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let mut next = || args.next().ok_or("usage: recording_child SEGMENT_DIR PROGRESS_FILE");
    let (dir, progress) = (next()?, File::create(next()?)?);
    let node =
        Recorder::create(dir, Node { service: "lens", version: "1.4.2", instance: "node-1" })?;
    let series = node.series(Slice::new("backend", "rust", "small")?, Stage::A)?;
    for count in 1..u64::MAX {
        progress.write_all_at(&count.to_le_bytes(), 0)?;
        // 1 µs to 1 s, spread over the octaves.
        series.record((1_000 + count.wrapping_mul(0x9E37_79B9) % 1_000) << (count % 20));
        progress.write_all_at(&count.to_le_bytes(), 8)?;
    }
    Ok(())
}
