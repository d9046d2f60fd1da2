//! What the agent writes is what the node reads.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, Ordering};

use lens_model::{Arm, Flag};
use lens_segment::{FlagWords, Node, ReadPolicy, Recorder, SegmentReader};

fn node() -> (tempfile::TempDir, Recorder, SegmentReader) {
    let dir = tempfile::tempdir().unwrap();
    let node = Node { service: "lens", version: "1.4.2", instance: "node-7" };
    let node = Recorder::create(dir.path(), node).unwrap();
    let reader = SegmentReader::open(node.path(), &ReadPolicy::default()).unwrap();
    (dir, node, reader)
}

const SOME: FlagWords =
    FlagWords { generation: 9, bits: 1 << 5, killed: false, salt: 77, share_ppm: 1_000_000 };

#[test]
fn a_node_reads_what_the_agent_wrote() {
    let (_dir, node, reader) = node();
    let page = reader.flag_page().unwrap();
    assert_eq!(page.read().unwrap().generation, 0);
    page.write(&SOME).unwrap();
    assert_eq!(page.read().unwrap(), SOME);
    assert_eq!((node.flags().generation(), node.flags().canary_ppm()), (9, 1_000_000));
    assert!(
        node.flags().enabled(Flag::StageBEnabled) && !node.flags().enabled(Flag::QualityGating)
    );
    assert_eq!(node.canary().arm("user-42"), Arm::Canary);
    page.write(&FlagWords { generation: 10, killed: true, ..SOME }).unwrap();
    assert!(node.flags().killed() && !node.flags().enabled(Flag::StageBEnabled));
    assert_eq!(node.canary().arm("user-42"), Arm::Baseline);
    page.write(&FlagWords { generation: 11, ..SOME }).unwrap();
    assert_eq!(node.canary().arm("user-42"), Arm::Canary);
}

#[test]
fn the_readers_mark_and_the_flags_leave_each_other_alone() {
    let (_dir, node, reader) = node();
    reader.set_mark(u128::MAX).unwrap();
    reader.flag_page().unwrap().write(&SOME).unwrap();
    assert_eq!(reader.mark().unwrap(), u128::MAX);
    reader.set_mark(7).unwrap();
    assert_eq!(node.flags().generation(), 9);
}

#[test]
fn no_node_ever_meets_one_rollouts_salt_with_another_rollouts_share() {
    let (_dir, node, reader) = node();
    let page = reader.flag_page().unwrap();
    // Everyone under either salt alone; "x" is in the canary of neither.
    let ends = [(0x0101_0101_u32, 0x0001_0203_u32), (0xfefe_fefe, 0x000e_0d0c)];
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..20_000_u64 {
                let (salt, share_ppm) = ends[usize::try_from(n % 2).unwrap()];
                page.write(&FlagWords { generation: n + 1, salt, share_ppm, ..SOME }).unwrap();
            }
            done.store(true, Ordering::Release);
        });
        let mut seen = 0_u64;
        while !done.load(Ordering::Acquire) {
            let found = node.canary().salt_and_share();
            let whole = found.1 == 0 || ends.contains(&found);
            assert!(whole, "{found:x?} after {seen} looks");
            seen += 1;
        }
        assert!(seen > 1_000, "only {seen} looks");
    });
    assert_eq!(node.flags().generation(), 20_000);
}

#[test]
fn a_file_that_was_replaced_or_cut_short_is_not_written() {
    let (dir, node, reader) = node();
    let page = reader.flag_page().unwrap();
    let length = std::fs::metadata(node.path()).unwrap().len();
    let file = std::fs::OpenOptions::new().write(true).open(node.path()).unwrap();
    file.set_len(4_096).unwrap();
    assert!(page.write(&SOME).unwrap_err().to_string().contains("cut short"));
    assert_eq!(file.metadata().unwrap().len(), 4_096, "not made longer");
    file.set_len(length).unwrap();
    let other = dir.path().join("other");
    std::fs::write(&other, vec![0; 16_384]).unwrap();
    std::fs::rename(&other, node.path()).unwrap();
    assert!(page.write(&SOME).unwrap_err().to_string().contains("another file"));
    std::fs::remove_file(node.path()).unwrap();
    assert_eq!(page.write(&SOME).unwrap_err().kind(), std::io::ErrorKind::NotFound);
}
