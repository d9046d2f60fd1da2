//! Recovery of a journal from whatever its directory holds.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lens_journal::testing::FaultyDisk;
use lens_journal::{Entry, Journal, Options};

const DIR: &str = "/journal";
const IDENTITY: u128 = 7;

/// Two records in two files, which the input is then laid over.
fn written() -> FaultyDisk {
    let disk = FaultyDisk::new(1);
    let (mut journal, _) = open(&disk).expect("an empty directory takes a journal");
    for payload in [&b"first"[..], b"second"] {
        journal.append_to_new(&[Entry { kind: 1, payload }]).expect("room");
    }
    disk
}

fn open(disk: &FaultyDisk) -> Option<(Journal, lens_journal::Recovery)> {
    let options = Options::new(1 << 20);
    Journal::open(Arc::new(disk.clone()), Path::new(DIR), options, IDENTITY).ok()
}

fn files(disk: &FaultyDisk) -> Vec<PathBuf> {
    use lens_journal::Disk;
    let names = disk.list(Path::new(DIR)).unwrap_or_default();
    let journal = names.iter().filter(|name| name.to_string_lossy().ends_with(".journal"));
    journal.map(|name| Path::new(DIR).join(name)).collect()
}

/// Lays the input over one of the files, from a place on that the input chooses, and opens.
///
/// Whatever is opened reads to its end, takes another record, and reads the same when opened again:
/// recovery is idempotent.
pub(crate) fn recovery(bytes: &[u8]) {
    let [which, at_low, at_high, over @ ..] = bytes else { return };
    let disk = written();
    let paths = files(&disk);
    let Some(path) = paths.get(usize::from(*which) % paths.len()) else { return };
    let mut contents = disk.contents(path).unwrap_or_default();
    let at = usize::from(u16::from_le_bytes([*at_low, *at_high])).min(contents.len());
    let end = (at + over.len()).min(contents.len());
    contents[at..end].copy_from_slice(&over[..end - at]);
    disk.put(path, &contents);

    let Some((mut journal, _)) = open(&disk) else { return };
    let before = records(&journal);
    let taken = journal.append(&[Entry { kind: 2, payload: b"third" }]).is_ok();
    drop(journal);
    let (journal, _) = open(&disk).expect("what opened once opens again");
    let after = records(&journal);
    assert!(after.starts_with(&before), "{before:?} then {after:?}");
    assert_eq!(after.len(), before.len() + usize::from(taken));
}

fn records(journal: &Journal) -> Vec<(u64, Vec<u8>)> {
    let mut reader = journal.reader();
    let mut records = Vec::new();
    let range = reader.range();
    let mut next = range.start;
    while next < range.end {
        let Ok(read) = reader.read(next, 1 << 20) else { break };
        let Some(last) = read.last() else { break };
        assert!(last.position >= next, "reading goes on");
        next = last.position + 1;
        records.extend(read.into_iter().map(|record| (record.position, record.payload)));
    }
    records
}
