//! A segment as an untrusted peer's file: refused at the door or put aside, never fatal.
#![cfg(not(loom))]
// Helpers are not in a `#[test]` function, where the house allows unwrap.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lens_model::{Nanos, Slice, Stage};
use lens_segment::{
    Harvest, HarvestError, Node, OpenError, Owners, Quarantine, ReadPolicy, Recorder,
    RecorderOptions, SegmentReader, scan,
};
use proptest::prelude::*;

const NODE: Node<'_> = Node { service: "lens", version: "1.4.2", instance: "node-7" };
const SECOND: Nanos = Nanos::from_secs(1);
const CHILD: &str = "LENS_SEGMENT_TEST_CHILD";

// Places in a segment of 2 shards and 2 series, from docs/segment.md.
const STATE: u64 = 512;
const SERIES_LEN: u64 = 516;
const SHARDS_USED: u64 = 528;
const SERIES_TABLE: u64 = 8_192;
const REQUESTS_TABLE: u64 = 12_288;
const BLOCKS: u64 = 45_056;

fn small() -> RecorderOptions {
    RecorderOptions { shards: 2, series_max: 2, ..RecorderOptions::default() }
}

fn slice() -> Slice {
    Slice::new("backend", "rust", "large").unwrap()
}

fn open(path: &Path) -> Result<SegmentReader, OpenError> {
    SegmentReader::open(path, &ReadPolicy::default())
}

/// A segment with ten records and one request, and a reader that has committed them.
fn world() -> (tempfile::TempDir, Recorder, SegmentReader, File) {
    let dir = tempfile::tempdir().unwrap();
    let node = Recorder::create_with(dir.path(), NODE, small()).unwrap();
    let series = node.series(slice(), Stage::A).unwrap();
    (0..10).for_each(|_| series.record(5));
    node.requests().ok();
    let mut reader = open(node.path()).unwrap();
    let mut out = Harvest::default();
    reader.harvest(SECOND, &mut out).unwrap();
    assert_eq!(out.records, 10);
    reader.commit();
    let file = OpenOptions::new().read(true).write(true).open(node.path()).unwrap();
    (dir, node, reader, file)
}

/// The same as a file that no recorder has mapped: threads of other tests announce their slots in
/// every living segment of the process, and a truncated one would kill its owner.
fn orphan() -> (tempfile::TempDir, SegmentReader, File) {
    let (dir, node, _, _) = world();
    let path = dir.path().join("node-7-orphan.lens");
    std::fs::copy(node.path(), &path).unwrap();
    let mut reader = open(&path).unwrap();
    reader.harvest(SECOND, &mut Harvest::default()).unwrap();
    reader.commit();
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    (dir, reader, file)
}

fn quarantine(reader: &mut SegmentReader) -> Quarantine {
    let mut out = Harvest::default();
    let error = reader.harvest(SECOND, &mut out).unwrap_err();
    assert!(out.is_empty() && out.gauges.is_empty());
    let again = reader.harvest(SECOND, &mut out).unwrap_err();
    match (error, again) {
        (HarvestError::Quarantined { why, path }, HarvestError::Quarantined { why: same, .. }) => {
            assert_eq!((why, Some(why)), (same, reader.quarantined()));
            assert_eq!(path, reader.path());
            why
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_symlink_is_refused() {
    let (dir, node, _, _) = world();
    let link = dir.path().join("link.lens");
    symlink(node.path(), &link).unwrap();
    let error = open(&link).unwrap_err();
    assert!(matches!(error, OpenError::Symlink { .. }), "{error}");
    assert!(error.to_string().contains("link.lens"));
}

#[test]
fn a_hard_link_a_directory_a_pipe_and_nothing_are_refused_without_waiting() {
    let (dir, node, _, _) = world();
    std::fs::hard_link(node.path(), dir.path().join("second.lens")).unwrap();
    assert!(matches!(open(node.path()), Err(OpenError::Links { links: 2, .. })));
    assert!(matches!(open(dir.path()), Err(OpenError::NotRegular { .. })));
    let pipe = dir.path().join("pipe.lens");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    assert!(matches!(open(&pipe), Err(OpenError::NotRegular { .. })));
    assert!(matches!(open(&dir.path().join("none.lens")), Err(OpenError::Io { .. })));
}

#[test]
fn a_file_that_others_may_write_or_that_is_a_strangers_is_refused() {
    let (_dir, node, _, _) = world();
    let policy = ReadPolicy { owners: Owners::Listed(vec![4_242]), ..ReadPolicy::default() };
    let error = SegmentReader::open(node.path(), &policy).unwrap_err();
    assert!(matches!(error, OpenError::Owner { .. }), "{error}");
    let anyone = ReadPolicy { owners: Owners::Any, ..ReadPolicy::default() };
    SegmentReader::open(node.path(), &anyone).unwrap();
    let mode = std::fs::metadata(node.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    for mode in [0o660, 0o642] {
        std::fs::set_permissions(node.path(), Permissions::from_mode(mode)).unwrap();
        assert!(matches!(open(node.path()), Err(OpenError::Writable { .. })));
    }
}

#[test]
fn a_file_of_another_size_is_refused() {
    let (_dir, reader, file) = orphan();
    let path = reader.path();
    let bytes = file.metadata().unwrap().len();
    let policy = ReadPolicy { bytes_max: bytes - 1, ..ReadPolicy::default() };
    assert!(matches!(SegmentReader::open(path, &policy), Err(OpenError::TooLarge { .. })));
    for wrong in [bytes + 1, bytes - 1, 4_096, 4_095, 0] {
        file.set_len(wrong).unwrap();
        assert!(matches!(open(path), Err(OpenError::Size { bytes, .. }) if bytes == wrong));
    }
}

#[test]
fn a_truncated_segment_is_quarantined_not_fatal() {
    let (_dir, mut reader, file) = orphan();
    file.set_len(BLOCKS + 100).unwrap();
    assert_eq!(quarantine(&mut reader), Quarantine::Truncated);
}

#[test]
fn a_hole_punched_segment_is_quarantined() {
    let (_dir, mut reader, file) = orphan();
    let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&file, flags, BLOCKS, 3 * 15_424).unwrap();
    assert!(matches!(quarantine(&mut reader), Quarantine::Backward { series: 0, .. }));
}

#[test]
fn a_counter_that_goes_back_is_quarantined_and_one_that_wraps_is_not() {
    let (_dir, node, mut reader, file) = world();
    // Which shard this thread has depends on the other tests: write both.
    let counters = [BLOCKS + 20, BLOCKS + 15_424 + 20];
    let seed = |value: u32| {
        counters.iter().for_each(|at| file.write_all_at(&value.to_ne_bytes(), *at).unwrap());
    };
    file.write_all_at(&3_u64.to_ne_bytes(), SHARDS_USED).unwrap();
    let mut out = Harvest::default();
    for value in [1 << 30, 2 << 30, 3 << 30, u32::MAX - 2] {
        seed(value);
        reader.harvest(SECOND, &mut out).unwrap();
        reader.commit();
    }
    let series = node.series(slice(), Stage::A).unwrap();
    (0..7).for_each(|_| series.record(5));
    reader.harvest(SECOND, &mut out).unwrap();
    assert_eq!(out.records, 7, "wrapped, and still exact");
    reader.commit();
    seed(0);
    assert!(matches!(quarantine(&mut reader), Quarantine::Backward { .. }));
}

#[test]
fn more_counts_than_the_time_allows_are_quarantined() {
    let (_dir, mut reader, file) = orphan();
    for at in 0..3_800_u64 {
        file.write_all_at(&(1_u32 << 30).to_ne_bytes(), BLOCKS + at * 4).unwrap();
    }
    file.write_all_at(&3_u64.to_ne_bytes(), SHARDS_USED).unwrap();
    assert!(matches!(quarantine(&mut reader), Quarantine::Implausible { .. }));
}

#[test]
fn absurd_or_falling_request_counters_are_quarantined() {
    for (value, backward) in [(0_u64, true), (1 << 62, false), (u64::MAX, true)] {
        let (_dir, mut reader, file) = orphan();
        file.write_all_at(&value.to_ne_bytes(), REQUESTS_TABLE).unwrap();
        let why = quarantine(&mut reader);
        assert_eq!(matches!(why, Quarantine::RequestsBackward { index: 0 }), backward, "{why}");
    }
}

#[test]
fn a_live_line_that_makes_no_sense_is_quarantined() {
    let cases: [(u64, u32); 6] = [
        (STATE, 0),
        (STATE, 3),
        (SERIES_LEN, 0),
        (SERIES_LEN, 3),
        (SHARDS_USED, 0),
        (SHARDS_USED, 7),
    ];
    for (at, value) in cases {
        let (_dir, mut reader, file) = orphan();
        file.write_all_at(&value.to_ne_bytes(), at).unwrap();
        let why = quarantine(&mut reader);
        let matched = match at {
            STATE => matches!(why, Quarantine::State { .. }),
            SERIES_LEN => matches!(why, Quarantine::Length { .. }),
            _ => matches!(why, Quarantine::Shards { .. }),
        };
        assert!(matched, "{at} {value}: {why}");
    }
}

#[test]
fn a_published_entry_that_is_garbage_or_a_repetition_is_quarantined() {
    let (_dir, mut reader, file) = orphan();
    file.write_all_at(&2_u32.to_ne_bytes(), SERIES_LEN).unwrap();
    assert!(matches!(quarantine(&mut reader), Quarantine::Entry { index: 1, .. }));
    let (_dir, mut reader, file) = orphan();
    let mut entry = [0; 192];
    file.read_exact_at(&mut entry, SERIES_TABLE).unwrap();
    file.write_all_at(&entry, SERIES_TABLE + 192).unwrap();
    file.write_all_at(&2_u32.to_ne_bytes(), SERIES_LEN).unwrap();
    assert!(matches!(quarantine(&mut reader), Quarantine::Repeated { index: 1, .. }));
}

#[test]
fn a_closed_segment_is_drained_once_more_and_removed() {
    let (dir, node, mut reader, _) = world();
    let path = node.path().to_owned();
    let series = node.series(slice(), Stage::A).unwrap();
    drop(node);
    series.record(6);
    assert!(reader.owner_alive().unwrap(), "a handle can still record");
    let error = open(&path).unwrap().remove().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    drop(series);
    assert!(!reader.owner_alive().unwrap());
    let mut out = Harvest::default();
    reader.harvest(SECOND, &mut out).unwrap();
    assert!(out.closed && out.records == 1);
    reader.commit();
    reader.remove().unwrap();
    assert!(scan(dir.path()).unwrap().paths.is_empty());
}

#[test]
fn a_path_that_names_another_file_now_is_not_removed() {
    let (_dir, node, reader, _) = world();
    let path = node.path().to_owned();
    drop(node);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, b"someone else's").unwrap();
    assert!(reader.remove().is_err());
    assert!(path.exists());
}

/// Runs one of the `child_*` functions below in a process of its own.
fn child(task: &str, dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_child_does_its_task", "--nocapture"])
        .env(CHILD, format!("{task}:{}", dir.display()))
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_child_does_its_task() {
    let Ok(task) = std::env::var(CHILD) else {
        return;
    };
    let (task, dir) = task.split_once(':').unwrap();
    let node = Recorder::create_with(dir, NODE, small()).unwrap();
    let series = node.series(slice(), Stage::A).unwrap();
    let told = File::create(Path::new(dir).join("told")).unwrap();
    let mut count = 0_u64;
    while task == "record" || count < 1 {
        series.record(count % 1_000);
        count += 1;
        // Acknowledged only after it was recorded.
        told.write_all_at(&count.to_ne_bytes(), 0).unwrap();
    }
}

fn wait_for(what: impl Fn() -> bool) {
    let start = Instant::now();
    while !what() {
        assert!(start.elapsed() < Duration::from_secs(20), "waited too long");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn killed_recorder_never_blocks_a_harvest() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = child("record", dir.path());
    let told = || {
        let mut bytes = [0; 8];
        let told = File::open(dir.path().join("told")).ok();
        told.and_then(|told| told.read_exact_at(&mut bytes, 0).ok())
            .map_or(0, |()| u64::from_ne_bytes(bytes))
    };
    wait_for(|| told() > 1_000);
    let paths: Vec<PathBuf> = scan(dir.path()).unwrap().paths;
    let mut reader = open(&paths[0]).unwrap();
    let (mut out, mut total) = (Harvest::default(), 0);
    for _ in 0..20 {
        reader.harvest(Nanos::from_secs(60), &mut out).unwrap();
        total += out.records;
        reader.commit();
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(reader.owner_alive().unwrap());
    assert_ne!(reader.info().pid, std::process::id());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!reader.owner_alive().unwrap());
    reader.harvest(Nanos::from_secs(60), &mut out).unwrap();
    total += out.records;
    reader.commit();
    assert!(!out.closed, "it had no time to say so");
    let acknowledged = told();
    assert!((acknowledged..=acknowledged + 1).contains(&total), "{total} of {acknowledged}");
    reader.remove().unwrap();
}

#[test]
fn any_short_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.lens");
    for bytes in [&b""[..], b"LENSSEG1", &[0xff; 4_096], &[0; 8_192]] {
        std::fs::write(&path, bytes).unwrap();
        assert!(open(&path).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Mutated valid segments: any outcome but a panic; no success invents absurd counts.
    #[test]
    fn mutated_segments_never_panic_the_reader(
        mutations in prop::collection::vec(
            (prop_oneof![0_u64..4_096, 500_u64..540, 8_192_u64..45_056, 45_056_u64..106_000], any::<u64>(), 1_usize..9),
            1..8,
        ),
        later in any::<bool>(),
    ) {
        let (_dir, mut reader, file) = orphan();
        let path = reader.path().to_owned();
        for (at, value, length) in mutations {
            file.write_all_at(&value.to_ne_bytes()[..length], at).unwrap();
        }
        let mut out = Harvest::default();
        if !later {
            match open(&path) {
                Ok(fresh) => reader = fresh,
                Err(error) => prop_assert!(error.to_string().contains("node-7")),
            }
        }
        if reader.harvest(SECOND, &mut out).is_ok() {
            prop_assert!(out.records <= 4 * 2 * 2_000_000_000);
            reader.commit();
            reader.harvest(SECOND, &mut out).unwrap();
            prop_assert!(out.is_empty());
        }
    }

    /// A header page of any bytes behind a good magic.
    #[test]
    fn arbitrary_headers_never_panic_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.lens");
        let mut page = b"LENSSEG1".to_vec();
        page.extend(bytes);
        page.resize(8_192, 0);
        std::fs::write(&path, page).unwrap();
        prop_assert!(open(&path).is_err());
    }
}
