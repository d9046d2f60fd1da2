//! A segment whose owner is hostile: changed while it is read.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use lens_model::{Nanos, Slice, Stage};
use lens_segment::{Harvest, Node, ReadPolicy, Recorder, RecorderOptions, SegmentReader};

const NODE: Node<'_> = Node { service: "lens", version: "1", instance: "n" };

/// Edits of one input: place and byte.
fn edits(bytes: &[u8]) -> impl Iterator<Item = (u64, u8)> + '_ {
    bytes
        .chunks_exact(4)
        .map(|edit| (u64::from(u32::from_le_bytes([edit[0], edit[1], edit[2], 0])), edit[3]))
}

/// A copy of a good segment is changed byte by byte by a second thread while the first opens and
/// harvests it: each harvest is counted or refused, never more than the file could hold.
///
/// The first half of the input is laid over the file before it is opened, the rest meanwhile.
pub(crate) fn mutating(bytes: &[u8]) {
    let Ok(dir) = tempfile::tempdir() else { return };
    let options = RecorderOptions { shards: 2, series_max: 2, ..RecorderOptions::default() };
    let Ok(node) = Recorder::create_with(dir.path(), NODE, options) else { return };
    if let Ok(slice) = Slice::new("backend", "rust", "large")
        && let Ok(series) = node.series(&slice, Stage::A)
    {
        (0..10).for_each(|_| series.record(5));
    }
    // A copy: its owner is not mapped to what is broken here.
    let path = dir.path().join("n-copy.lens");
    if std::fs::copy(node.path(), &path).is_err() {
        return;
    }
    let Ok(file) = OpenOptions::new().read(true).write(true).open(&path) else { return };
    let Ok(length) = file.metadata().map(|meta| meta.len()) else { return };
    let (before, meanwhile) = bytes.split_at(bytes.len() / 2);
    let apply = |(at, byte): (u64, u8)| {
        if file.write_at(&[byte], at % length).is_err() {
            // A full disk makes a duller test, not a wrong one.
        }
    };
    edits(before).for_each(apply);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                edits(meanwhile).for_each(apply);
                std::thread::yield_now();
            }
        });
        read(&path);
        done.store(true, Ordering::Relaxed);
    });
}

fn read(path: &std::path::Path) {
    let mut reader = match SegmentReader::open(path, &ReadPolicy::default()) {
        Ok(reader) => reader,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let mut out = Harvest::default();
    for _ in 0..3 {
        match reader.harvest(Nanos::from_secs(1), &mut out) {
            Ok(()) => {
                let counted: u64 = out.series.iter().map(|delta| delta.counts.total()).sum();
                assert_eq!(counted, out.records);
                reader.commit();
            }
            Err(error) => {
                assert!(out.is_empty() && !error.to_string().is_empty());
            }
        }
    }
}
