//! Every crash point, every failed sync, every flipped byte of a small journal.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::testing::{Crash, FaultyDisk};

const DIR: &str = "/spool";
const CRASHES: [Crash; 5] =
    [Crash::Nothing, Crash::Everything, Crash::AnyPart, Crash::AnyPart, Crash::AnyPart];

fn options() -> Options {
    Options {
        segment_bytes: 8 << 10,
        bytes_max: 80 << 10,
        record_bytes_max: 4 << 10,
        ..Options::new(0)
    }
}

fn open_with(disk: &FaultyDisk, options: Options) -> Result<(Journal, Recovery), OpenError> {
    Journal::open(Arc::new(disk.clone()), Path::new(DIR), options, 7)
}

fn open(disk: &FaultyDisk) -> (Journal, Recovery) {
    open_with(disk, options()).unwrap()
}

fn all(journal: &Journal) -> BTreeMap<u64, Vec<u8>> {
    kinds(journal).into_iter().map(|(position, (_, payload))| (position, payload)).collect()
}

/// Kinds and payloads.
fn kinds(journal: &Journal) -> BTreeMap<u64, (u32, Vec<u8>)> {
    let mut reader = journal.reader();
    let (mut records, mut from) = (BTreeMap::new(), 0);
    loop {
        let more = reader.read(from, 700).unwrap();
        let Some(last) = more.last() else { return records };
        from = last.position + 1;
        let parts = |record: Record| (record.position, (record.kind, record.payload));
        records.extend(more.into_iter().map(parts));
    }
}

/// A payload nobody else has.
fn payload(seed: u64, bytes: usize) -> Vec<u8> {
    let mut payload = format!("{seed:08}").into_bytes();
    payload.resize(bytes.max(8), u8::try_from(seed % 251).unwrap());
    payload
}

/// What a test did: what it tried to append at each position, and what was acknowledged.
#[derive(Default)]
struct Done {
    /// By position, every payload an append was tried with.
    tried: BTreeMap<u64, Vec<Vec<u8>>>,
    acknowledged: BTreeMap<u64, Vec<u8>>,
    trimmed: u64,
    payloads: u64,
}

impl Done {
    fn append(&mut self, journal: &mut Journal, sizes: &[usize]) -> bool {
        let mut batch = Vec::new();
        for bytes in sizes {
            self.payloads += 1;
            batch.push(payload(self.payloads, *bytes));
        }
        let from = journal.level().next;
        for (position, payload) in (from..).zip(&batch) {
            self.tried.entry(position).or_default().push(payload.clone());
        }
        let entries: Vec<_> = batch.iter().map(|payload| Entry { kind: 1, payload }).collect();
        let Ok(positions) = journal.append(&entries) else { return false };
        assert_eq!(positions, from..from + sizes.len() as u64);
        self.acknowledged.extend(positions.zip(batch));
        true
    }

    fn trim(&mut self, journal: &mut Journal, before: u64) {
        self.trimmed = before;
        // What could not be removed is still there, which is no harm.
        drop(journal.trim(before));
    }

    /// A run that fills several files, with batches, trims and a file for a large batch.
    fn run(&mut self, journal: &mut Journal) {
        for round in 0..14_u64 {
            let sizes: &[usize] = match round % 4 {
                0 => &[100, 700, 20],
                1 => &[1_500],
                2 => &[8, 8],
                _ => &[2_000, 2_000, 3_000],
            };
            self.append(journal, sizes);
            if round % 5 == 4 {
                let before = self.acknowledged.keys().last().map_or(0, |last| last - 2);
                self.trim(journal, before);
            }
        }
    }

    /// Everything acknowledged and wanted is there; all else that is there was tried.
    fn check(&self, journal: &Journal, what: &str) {
        let found = all(journal);
        for (position, payload) in self.acknowledged.range(self.trimmed..) {
            assert_eq!(found.get(position), Some(payload), "{what}: position {position}");
        }
        for (position, payload) in &found {
            let tried = self.tried.get(position).is_some_and(|tried| tried.contains(payload));
            assert!(tried, "{what}: position {position} was never appended");
        }
        let level = journal.level();
        assert!(level.next > *self.acknowledged.keys().last().unwrap_or(&0), "{what}");
        assert!(level.bytes <= level.bytes_max, "{what}: {level:?}");
    }

    /// Goes on after a restart, with what survived taken for acknowledged, as it then is.
    fn adopt(&mut self, journal: &Journal) {
        self.acknowledged.extend(all(journal));
    }
}

#[test]
fn what_was_appended_is_read_in_order_and_survives_reopening() {
    let disk = FaultyDisk::new(0);
    let mut done = Done::default();
    let (mut journal, recovery) = open(&disk);
    assert!(recovery.created);
    done.run(&mut journal);
    done.check(&journal, "as written");
    drop(journal);
    let (journal, recovery) = open(&disk);
    assert_eq!((recovery.created, recovery.identity, recovery.torn_bytes), (false, 7, 0));
    assert!(recovery.is_whole());
    done.check(&journal, "reopened");
    let (files, first) = (journal.level().files, journal.level().first);
    assert!(files > 2 && first > 1, "{:?}", journal.level());
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_else_appears_wherever_the_power_fails() {
    let whole = {
        let disk = FaultyDisk::new(0);
        let (mut journal, _) = open(&disk);
        Done::default().run(&mut journal);
        disk.operations()
    };
    for (seed, crash) in (0..).zip(CRASHES) {
        for at in 1..=whole + 1 {
            let what = format!("crash {crash:?} seed {seed} before operation {at}");
            let disk = FaultyDisk::new(seed * 1_000 + at);
            disk.power_off_before(at);
            let mut done = Done::default();
            if let Ok((mut journal, _)) = open_with(&disk, options()) {
                done.run(&mut journal);
            }
            disk.crash(crash);
            let (mut journal, recovery) = open(&disk);
            assert!(recovery.is_whole(), "{what}: {recovery:?}");
            done.check(&journal, &what);
            // What survived is durable from here on, and is gone on with.
            done.adopt(&journal);
            done.append(&mut journal, &[300, 40]);
            disk.crash(crash);
            let (journal, recovery) = open(&disk);
            assert!(recovery.is_whole(), "{what}, again: {recovery:?}");
            done.check(&journal, &what);
        }
    }
}

#[test]
fn a_recovery_that_is_cut_short_is_recovered_from() {
    let whole = 70;
    for at in 1..=whole {
        for cut in 1..12 {
            let disk = FaultyDisk::new(at * 100 + cut);
            disk.power_off_before(at);
            let mut done = Done::default();
            if let Ok((mut journal, _)) = open_with(&disk, options()) {
                done.run(&mut journal);
            }
            disk.crash(Crash::AnyPart);
            disk.power_off_before(cut);
            if let Ok((journal, _)) = open_with(&disk, options()) {
                done.check(&journal, "recovered");
                done.adopt(&journal);
            }
            disk.crash(Crash::AnyPart);
            let (journal, recovery) = open(&disk);
            assert!(recovery.is_whole(), "crash {at}, cut {cut}: {recovery:?}");
            done.check(&journal, &format!("crash {at}, cut {cut}"));
        }
    }
}

/// Lets one sync of a run fail, kills or crashes, and reopens; false when something is wrong.
fn survives_failed_sync(nth: u64, options: &Options, crash: Crash) -> bool {
    let disk = FaultyDisk::new(nth);
    let mut done = Done::default();
    let (mut journal, _) = open_with(&disk, options.clone()).unwrap();
    disk.fail_sync(nth);
    done.run(&mut journal);
    disk.crash(crash);
    let Ok((journal, recovery)) = open_with(&disk, options.clone()) else { return false };
    let found = all(&journal);
    let wanted = || done.acknowledged.range(done.trimmed..);
    recovery.is_whole() && wanted().all(|(at, payload)| found.get(at) == Some(payload))
}

#[test]
fn a_failed_sync_is_never_believed() {
    let mut planted = options();
    planted.mistakes.sync_retried = true;
    let mut found = false;
    for nth in 1..30 {
        for crash in CRASHES {
            assert!(survives_failed_sync(nth, &options(), crash), "sync {nth}, {crash:?}");
            found |= !survives_failed_sync(nth, &planted, crash);
        }
    }
    assert!(found, "retrying a sync and believing it went unnoticed");
}

#[test]
fn a_batch_whose_sync_failed_gives_way_to_what_was_written_in_its_place() {
    let disk = FaultyDisk::new(3);
    let (mut journal, _) = open(&disk);
    journal.append(&[Entry { kind: 1, payload: b"one" }]).unwrap();
    disk.fail_sync(1);
    let lost =
        journal.append(&[Entry { kind: 1, payload: b"two" }, Entry { kind: 1, payload: b"3" }]);
    assert!(matches!(lost, Err(AppendError::Io { .. })));
    assert_eq!(journal.append(&[Entry { kind: 1, payload: b"TWO" }]).unwrap(), 2..3);
    assert_eq!(journal.level().abandoned_total, 1);
    disk.kill();
    let (journal, recovery) = open(&disk);
    assert!(recovery.is_whole());
    let wanted = BTreeMap::from([(1, b"one".to_vec()), (2, b"TWO".to_vec())]);
    assert_eq!(all(&journal), wanted);
}

/// Flips bits of every byte; returns how often wrong records were read as right ones.
fn flips_unnoticed(options: &Options) -> u64 {
    let disk = FaultyDisk::new(0);
    let mut done = Done::default();
    let (mut journal, _) = open_with(&disk, options.clone()).unwrap();
    [&[60, 9][..], &[2_000], &[2_000, 10], &[30], &[50, 8], &[90]]
        .iter()
        .for_each(|sizes| assert!(done.append(&mut journal, sizes)));
    let wanted = kinds(&journal);
    let batch = *done.acknowledged.keys().last().unwrap();
    drop(journal);
    let dir = Path::new(DIR);
    let names: Vec<_> = disk.list(dir).unwrap();
    let mut wrong = 0;
    for name in names.iter().filter(|name| parse_name(name).is_some()) {
        let path = dir.join(name);
        let before = disk.contents(&path).unwrap();
        for at in 0..before.len() {
            // A flip behind the records is a torn end: all of it is one case.
            if at > 600 && before[at..].iter().take(64).all(|byte| *byte == 0) && at % 97 != 0 {
                continue;
            }
            let copy = FaultyDisk::new(1);
            for other in &names {
                copy.put(&dir.join(other), &disk.contents(&dir.join(other)).unwrap());
            }
            assert!(copy.flip(&path, at as u64, 1 << (at % 8)));
            let Ok((journal, recovery)) = open_with(&copy, options.clone()) else {
                wrong += 1;
                continue;
            };
            let found = kinds(&journal);
            let same = found.iter().all(|(at, record)| wanted.get(at) == Some(record));
            let lost: Vec<u64> =
                wanted.keys().copied().filter(|at| !found.contains_key(at)).collect();
            // Of the last batch alone nobody can tell whether it was ever acknowledged.
            let told = !recovery.is_whole() || lost.iter().all(|at| *at >= batch);
            wrong += u64::from(!same || !told);
        }
    }
    wrong
}

#[test]
fn a_flipped_bit_is_noticed_wherever_it_is() {
    assert_eq!(flips_unnoticed(&options()), 0);
    let mut planted = options();
    planted.mistakes.crc_over_payload_only = true;
    assert!(flips_unnoticed(&planted) > 0, "a sum over the payload alone went unnoticed");
}

#[test]
fn one_bit_of_a_record_that_was_whole_once_is_mended_wherever_it_is() {
    let disk = FaultyDisk::new(0);
    let mut done = Done::default();
    let (mut journal, _) = open(&disk);
    [&[60, 9][..], &[300], &[1], &[40]]
        .iter()
        .for_each(|sizes| assert!(done.append(&mut journal, sizes)));
    let wanted = kinds(&journal);
    drop(journal);
    let path = Path::new(DIR).join(file_name(1));
    let before = disk.contents(&path).unwrap();
    let last = FILE_HEADER_BYTES + 5 * 64 + 60 + 9 + 300 + 1 - 64;
    for bit in FILE_HEADER_BYTES * 8..last * 8 {
        disk.put(&path, &before);
        assert!(disk.flip(&path, (bit / 8) as u64, 1 << (bit % 8)));
        let (journal, recovery) = open(&disk);
        assert_eq!((recovery.damages_total, recovery.repaired), (0, 1), "bit {bit}");
        assert_eq!(kinds(&journal), wanted, "bit {bit}");
        drop(journal);
        assert_eq!(disk.contents(&path), Some(before.clone()), "bit {bit}");
    }
}

#[test]
fn a_bit_of_the_last_batch_is_taken_for_a_torn_write_and_not_mended() {
    let disk = FaultyDisk::new(0);
    let (mut journal, _) = open(&disk);
    journal.append(&[Entry { kind: 2, payload: &payload(1, 100) }]).unwrap();
    drop(journal);
    let path = Path::new(DIR).join(file_name(1));
    assert!(disk.flip(&path, (FILE_HEADER_BYTES + 80) as u64, 4));
    let (journal, recovery) = open(&disk);
    assert_eq!((recovery.repaired, recovery.damages_total), (0, 0));
    assert!(recovery.torn_bytes > 0 || recovery.created, "{recovery:?}");
    assert_eq!(all(&journal).len(), 0);
}

#[test]
fn what_comes_after_damage_is_still_read_and_numbers_go_on() {
    let disk = FaultyDisk::new(0);
    let (mut journal, _) = open(&disk);
    for n in 1..=5_u64 {
        journal.append(&[Entry { kind: 2, payload: &payload(n, 100) }]).unwrap();
    }
    drop(journal);
    let path = Path::new(DIR).join(file_name(1));
    for byte in [80, 81] {
        assert!(disk.flip(&path, (FILE_HEADER_BYTES + 164 + byte) as u64, 4));
    }
    let (mut journal, recovery) = open(&disk);
    assert_eq!((recovery.damages, recovery.repaired), (vec![Damage { from: 2, to: 3 }], 0));
    assert_eq!(all(&journal).keys().copied().collect::<Vec<_>>(), [1, 3, 4, 5]);
    assert_eq!(journal.append(&[Entry { kind: 2, payload: b"six" }]).unwrap(), 6..7);
    // What is no longer wanted is no loss.
    journal.trim(4).unwrap();
    journal.append(&[Entry { kind: 2, payload: b"seven" }]).unwrap();
    drop(journal);
    assert!(open(&disk).1.is_whole());
}

#[test]
fn a_full_disk_refuses_and_takes_again_once_something_is_trimmed() {
    let disk = FaultyDisk::new(0);
    let (mut journal, _) = open(&disk);
    let mut done = Done::default();
    assert!(done.append(&mut journal, &[3_000]));
    assert!(journal.level().reserve);
    // Not a byte beyond what is reserved.
    disk.set_capacity(disk.used());
    while done.append(&mut journal, &[3_000]) {}
    let level = journal.level();
    assert!(!level.reserve && level.files == 2, "{level:?}");
    let full = journal.append(&[Entry { kind: 1, payload: &[1; 3_000] }]);
    assert!(matches!(full, Err(AppendError::DiskFull)), "{full:?}");
    // For ever, as long as what is written is no longer wanted some time later.
    for _ in 0..20 {
        let next = journal.level().next;
        done.trim(&mut journal, next);
        assert!(done.append(&mut journal, &[3_000]), "{:?}", journal.level());
    }
    disk.crash(Crash::Nothing);
    let (journal, recovery) = open(&disk);
    assert!(recovery.is_whole());
    done.check(&journal, "after a full disk");
}

#[test]
fn the_bound_on_bytes_holds_at_the_limit_and_one_past_it() {
    let disk = FaultyDisk::new(0);
    let (mut journal, _) = open(&disk);
    let mut done = Done::default();
    while done.append(&mut journal, &[3_900]) {
        done.check(&journal, "filling");
    }
    assert!(disk.used() <= options().bytes_max);
    let refused = journal.append(&[Entry { kind: 1, payload: &[1; 3_900] }]);
    assert!(matches!(refused, Err(AppendError::Full { .. })), "{refused:?}");
    let fits = options().record_bytes_max;
    let next = journal.level().next;
    journal.trim(next).unwrap();
    journal.append(&[Entry { kind: 1, payload: &vec![1; fits] }]).unwrap();
    let over = journal.append(&[Entry { kind: 1, payload: &vec![1; fits + 1] }]);
    assert!(matches!(over, Err(AppendError::Size { .. })));
    assert!(matches!(journal.append(&[]), Err(AppendError::Size { bytes: 0, .. })));
}

#[test]
fn a_second_process_is_kept_out() {
    let disk = FaultyDisk::new(0);
    let (journal, _) = open(&disk);
    assert!(matches!(open_with(&disk, options()), Err(OpenError::Locked { .. })));
    drop(journal);
    open(&disk);
}

#[test]
fn any_bytes_at_all_are_recovered_from() {
    for seed in 0..300_u64 {
        let disk = FaultyDisk::new(seed);
        let (mut journal, _) = open(&disk);
        Done::default().run(&mut journal);
        drop(journal);
        let dir = Path::new(DIR);
        // Pieces of real files in wrong places, cut, doubled, under other names.
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            usize::try_from(random % below.max(1) as u64).unwrap()
        };
        let names = disk.list(dir).unwrap();
        for _ in 0..4 {
            let (from, to) = (&names[next(names.len())], &names[next(names.len())]);
            let source = disk.contents(&dir.join(from)).unwrap();
            let mut target = disk.contents(&dir.join(to)).unwrap();
            let (at, cut) = (next(target.len()), next(source.len()));
            target.truncate(at);
            target.extend_from_slice(&source[cut..]);
            disk.put(&dir.join(to), &target);
        }
        let Ok((mut journal, _)) = open_with(&disk, options()) else { continue };
        let next = journal.level().next;
        drop(journal.trim(next));
        let mut done = Done::default();
        done.append(&mut journal, &[100]);
        drop(journal);
        let (journal, _) = open(&disk);
        let found = all(&journal);
        for (position, payload) in &done.acknowledged {
            assert_eq!(found.get(position), Some(payload), "seed {seed}");
        }
    }
}

/// A full disk, a sync that fails while a file becomes the reserve or the reserve a file, and then
/// the power: what was acknowledged and is wanted is there.
#[test]
fn a_reserve_whose_name_may_not_last_holds_nothing_that_was_acknowledged() {
    let mut used = 0;
    for (seed, nth) in (0..40).flat_map(|seed| (1..20).map(move |nth| (seed, nth))) {
        for crash in CRASHES {
            let disk = FaultyDisk::new(seed * 31 + nth);
            let (mut journal, _) = open(&disk);
            let mut acknowledged = BTreeMap::new();
            let mut append = |journal: &mut Journal, number: u64| {
                let bytes = payload(number, 3_000);
                let entry = Entry { kind: 1, payload: &bytes };
                if let Ok(positions) = journal.append(&[entry]) {
                    acknowledged.insert(positions.start, bytes);
                }
            };
            // Two records a file: three files and the reserve.
            (1..=5).for_each(|number| append(&mut journal, number));
            disk.fail_sync(nth);
            let mut trimmed = 1;
            for round in 0..4 {
                trimmed = journal.level().next - 2;
                drop(journal.trim(trimmed));
                // Whatever was freed is taken by someone else.
                disk.set_capacity(disk.used());
                let before = journal.level().files;
                (0..3).for_each(|number| append(&mut journal, 100 + round * 10 + number));
                used += u64::from(journal.level().files > before);
            }
            drop(journal);
            disk.crash(crash);
            disk.set_capacity(u64::MAX);
            let (journal, found) = open(&disk);
            let there = all(&journal);
            for (position, bytes) in acknowledged.range(trimmed..) {
                assert_eq!(
                    there.get(position),
                    Some(bytes),
                    "seed {seed}, sync {nth} fails, {crash:?}: record {position}, {found:?}"
                );
            }
        }
    }
    assert!(used > 0, "the reserve was never needed");
}
