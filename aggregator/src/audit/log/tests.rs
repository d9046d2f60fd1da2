use lens_journal::OsDisk;

use super::*;
use crate::audit::record::Decision;
use crate::audit::verify::verify;

const NOW: UnixNanos = UnixNanos(1_790_000_000_000_000_000);

fn key() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

fn entry(target: usize) -> Entry {
    Entry {
        principal: "alice".into(),
        credential: "token:1".into(),
        role: "admin".into(),
        verb: "agent.revoke".into(),
        target: format!("host-{target}"),
        arguments: b"{}".to_vec(),
        decision: Decision::Allowed,
    }
}

struct Place {
    dir: tempfile::TempDir,
    head: PathBuf,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let head = dir.path().join("head.json");
        Self { dir, head }
    }

    fn open(&self, rotate: u64) -> Result<(Log, usize), LogError> {
        Log::open(Arc::new(OsDisk), self.dir.path(), &self.head, &key(), rotate)
    }

    fn sign(&self, log: &Log) {
        let text = Head::sign(&log.link(), NOW, &key()).text();
        replace_whole(&OsDisk, &self.head, text.as_bytes()).unwrap();
    }

    fn parts(&self) -> Vec<Part> {
        let names = files(&OsDisk, self.dir.path()).unwrap();
        let read = |name: String| {
            let bytes = std::fs::read(self.dir.path().join(&name)).unwrap();
            Part { name, bytes }
        };
        names.into_iter().map(read).collect()
    }

    fn verified(&self) -> u64 {
        let head = std::fs::read_to_string(&self.head).unwrap();
        verify(&self.parts(), &head, Some(&key().verifying_key())).unwrap().records
    }
}

#[test]
fn the_chain_goes_on_over_files_and_restarts() {
    let place = Place::new();
    for life in 0..4 {
        let (mut log, cut) = place.open(2_000).unwrap();
        assert_eq!((log.link().n, cut), (life * 10, 0));
        for at in 0..10 {
            log.append(&entry(at), 0, NOW).unwrap();
        }
        place.sign(&log);
    }
    assert_eq!(place.verified(), 40);
    assert!(place.parts().len() > 5, "{}", place.parts().len());
    assert!(place.parts().iter().all(|part| part.bytes.len() <= 2_000));
    let (log, _) = place.open(2_000).unwrap();
    let read = log.read(17, 9).unwrap();
    let numbers: Vec<u64> = read.iter().map(|record| record.n).collect();
    assert_eq!(numbers, (17..26).collect::<Vec<_>>());
    assert!(log.read(41, 9).unwrap().is_empty());
}

#[test]
fn what_a_crash_left_of_a_record_is_cut_off_and_the_chain_goes_on() {
    let place = Place::new();
    let (mut log, _) = place.open(1 << 20).unwrap();
    for at in 0..3 {
        log.append(&entry(at), 0, NOW).unwrap();
    }
    place.sign(&log);
    let (half, _) = log.link().next(&entry(9), 0, NOW);
    drop(log);
    let path = place.dir.path().join(file_name(1));
    let whole = std::fs::read(&path).unwrap();
    for length in 0..half.len() {
        std::fs::write(&path, [&whole[..], &half[..length]].concat()).unwrap();
        let (log, cut) = place.open(1 << 20).unwrap();
        assert_eq!((log.link().n, cut), (3, length));
    }
    // A file that was made and never written to.
    std::fs::write(place.dir.path().join(file_name(4)), "").unwrap();
    let (mut log, _) = place.open(1 << 20).unwrap();
    log.append(&entry(4), 0, NOW).unwrap();
    place.sign(&log);
    drop(log);
    assert_eq!(place.verified(), 4);
}

#[test]
fn a_log_shorter_or_other_than_its_signed_head_stays_shut() {
    let place = Place::new();
    let (mut log, _) = place.open(1 << 20).unwrap();
    for at in 0..3 {
        log.append(&entry(at), 0, NOW).unwrap();
    }
    place.sign(&log);
    drop(log);
    let path = place.dir.path().join(file_name(1));
    let whole = std::fs::read(&path).unwrap();
    for length in 0..whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert!(matches!(place.open(1 << 20), Err(LogError::Damaged(_))), "cut to {length}");
        std::fs::write(&path, &whole).unwrap();
    }
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(place.open(1 << 20), Err(LogError::Damaged(Fault::Truncated { .. }))));
    std::fs::write(&path, &whole).unwrap();
    let other = SigningKey::from_bytes(&[2; 32]);
    let opened = Log::open(Arc::new(OsDisk), place.dir.path(), &place.head, &other, 1 << 20);
    assert!(matches!(opened, Err(LogError::Head { .. })));
    place.open(1 << 20).unwrap();
}

#[test]
fn one_process_at_a_time_has_the_log() {
    let place = Place::new();
    let _log = place.open(1 << 20).unwrap();
    assert!(matches!(place.open(1 << 20), Err(LogError::Disk { .. })));
}

/// A disk whose files fail when told to.
#[derive(Debug, Default)]
struct Failing {
    write: Arc<std::sync::atomic::AtomicBool>,
    sync: Arc<std::sync::atomic::AtomicBool>,
}

#[derive(Debug)]
struct FailingFile {
    file: Box<dyn DiskFile>,
    write: Arc<std::sync::atomic::AtomicBool>,
    sync: Arc<std::sync::atomic::AtomicBool>,
}

impl Failing {
    fn wrap(&self, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(FailingFile { file, write: Arc::clone(&self.write), sync: Arc::clone(&self.sync) })
    }
}

impl Disk for Failing {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        OsDisk.create_dir_all(dir)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.wrap(OsDisk.create(path)?))
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.wrap(OsDisk.open(path)?))
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<std::ffi::OsString>> {
        OsDisk.list(dir)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        OsDisk.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        OsDisk.sync_dir(dir)
    }
    fn lock(&self, dir: &Path) -> io::Result<Box<dyn DiskLock>> {
        OsDisk.lock(dir)
    }
}

impl DiskFile for FailingFile {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.file.read_at(buffer, at)
    }
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        if self.write.load(std::sync::atomic::Ordering::Relaxed) {
            self.file.write_at(&bytes[..bytes.len() / 2], at)?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.write_at(bytes, at)
    }
    fn allocate(&self, length: u64) -> io::Result<()> {
        self.file.allocate(length)
    }
    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }
    fn sync(&self) -> io::Result<()> {
        if self.sync.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(io::Error::other("EIO"));
        }
        self.file.sync()
    }
}

#[test]
fn a_full_disk_refuses_records_until_there_is_room_and_leaves_no_trace_of_them() {
    use std::sync::atomic::Ordering::Relaxed;
    let (place, disk) = (Place::new(), Arc::new(Failing::default()));
    let open = || Log::open(disk.clone(), place.dir.path(), &place.head, &key(), 1 << 20);
    let (mut log, _) = open().unwrap();
    for full in [false, true, true, false, true, false] {
        disk.write.store(full, Relaxed);
        assert_eq!(log.append(&entry(1), 0, NOW).is_err(), full);
    }
    assert_eq!(log.link().n, 3);
    place.sign(&log);
    assert_eq!(place.verified(), 3);
}

#[test]
fn after_a_failed_fsync_nothing_is_taken_until_the_log_is_opened_anew() {
    use std::sync::atomic::Ordering::Relaxed;
    let (place, disk) = (Place::new(), Arc::new(Failing::default()));
    let open = || Log::open(disk.clone(), place.dir.path(), &place.head, &key(), 1 << 20);
    let (mut log, _) = open().unwrap();
    log.append(&entry(1), 0, NOW).unwrap();
    disk.sync.store(true, Relaxed);
    assert!(matches!(log.append(&entry(2), 0, NOW), Err(LogError::Disk { .. })));
    disk.sync.store(false, Relaxed);
    assert!(matches!(log.append(&entry(2), 0, NOW), Err(LogError::Shut)));
    drop(log);
    let (mut log, _) = open().unwrap();
    log.append(&entry(3), 0, NOW).unwrap();
    place.sign(&log);
    drop(log);
    assert!(place.verified() >= 2);
}
