//! The chain on a disk: one record at a time, durable before anyone is told.
//!
//! Blocking; through the disk seam. Opening reads the last file, cuts off what a crash left of a
//! record nobody was told of, and writes the rest anew into a fresh file: what a failed `fsync`
//! left in the page cache is then durable too, or the opening fails. A head that vouches for more
//! than there is, or for something else, keeps the log shut: that is tampering, not an accident.
//! A failed `fsync` shuts the log until the next start; a full disk does not.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use lens_journal::{Disk, DiskFile, DiskLock};
pub use lens_journal::{read_whole, replace_whole};
use lens_model::UnixNanos;
use lens_model::limits::{AUDIT_QUESTION_MAX, AUDIT_RECORD_BYTES_MAX};
use thiserror::Error;

use super::head::{Head, HeadFault};
use super::record::{Entry, LineFault, Link, Record};
use super::verify::{Fault, Part, file_name, first_of, follow};

/// Largest size a file of the chain may be given, bytes.
pub const ROTATE_BYTES_MAX: u64 = 64 << 20;

/// Largest head file read, bytes.
const HEAD_BYTES_MAX: u64 = 4 << 10;

/// Why the chain cannot be opened or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LogError {
    /// The disk failed.
    #[error("{path}: {source}")]
    Disk {
        /// Which file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is there is not a whole chain.
    #[error("{0}: `lens audit verify` tells more; move the directory away to begin another chain")]
    Damaged(#[from] Fault),
    /// The head vouches for something else.
    #[error("{path}: {fault}")]
    Head {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        fault: HeadFault,
    },
    /// A write could not be made certain.
    #[error("an earlier record could not be made durable: nothing more is taken until a restart")]
    Shut,
}

fn disk_error(path: &Path) -> impl Fn(io::Error) -> LogError {
    let path = path.to_owned();
    move |source| LogError::Disk { path: path.clone(), source }
}

/// The chain, open for one more record.
#[derive(Debug)]
pub struct Log {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    file: Option<(PathBuf, Box<dyn DiskFile>)>,
    length: u64,
    link: Link,
    rotate_bytes: u64,
    shut: bool,
    _lock: Box<dyn DiskLock>,
}

/// Names of the chain's files, in order.
///
/// # Errors
/// The disk's.
pub fn files(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<String>> {
    let names = disk.list(dir)?.into_iter().filter_map(|name| name.into_string().ok());
    let mut files: Vec<String> = names.filter(|name| first_of(name).is_some()).collect();
    files.sort();
    Ok(files)
}

impl Log {
    /// Opens the chain in `dir`, made if it is not there; `head` is where the last head was
    /// written, held against `key`. Gives how many bytes of an unfinished record were cut off.
    ///
    /// # Errors
    /// [`LogError`]; nothing was changed unless the disk failed.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        head: &Path,
        key: &SigningKey,
        rotate_bytes: u64,
    ) -> Result<(Self, usize), LogError> {
        disk.create_dir_all(dir).map_err(disk_error(dir))?;
        let lock = disk.lock(dir).map_err(disk_error(dir))?;
        let signed = last_head(&*disk, head, key)?;
        let mut log = Self {
            disk,
            dir: dir.into(),
            file: None,
            length: 0,
            link: Link::default(),
            rotate_bytes,
            shut: false,
            _lock: lock,
        };
        let cut = log.take_up(signed)?;
        Ok((log, cut))
    }

    fn take_up(&mut self, signed: Option<Link>) -> Result<usize, LogError> {
        let mut names = files(&*self.disk, &self.dir).map_err(disk_error(&self.dir))?;
        let mut cut = 0;
        while let Some(name) = names.pop() {
            let path = self.dir.join(&name);
            let bytes = read_whole(&*self.disk, &path, self.file_bytes_max());
            let mut bytes = bytes.map_err(disk_error(&path))?;
            let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            cut += bytes.len() - whole;
            if whole > 0 {
                bytes.truncate(whole);
                return self.go_on(Part { name, bytes }, signed).map(|()| cut);
            }
            // Made for a record that was never whole.
            self.disk.remove(&path).map_err(disk_error(&path))?;
        }
        held_against(signed, Link::default(), reached(signed, Link::default()))?;
        Ok(cut)
    }

    /// Goes on behind the last file that holds a record.
    fn go_on(&mut self, part: Part, signed: Option<Link>) -> Result<(), LogError> {
        let mut link = beginning(&part)?;
        let mut at_head = reached(signed, link);
        follow(&part, &mut link, |after, _| {
            if signed.is_some_and(|signed| signed.n == after.n) {
                at_head = Some(*after);
            }
        })?;
        held_against(signed, link, at_head)?;
        let path = self.dir.join(&part.name);
        replace_whole(&*self.disk, &path, &part.bytes).map_err(disk_error(&path))?;
        let file = self.disk.open(&path).map_err(disk_error(&path))?;
        (self.length, self.link) = (part.bytes.len() as u64, link);
        self.file = Some((path, file));
        Ok(())
    }

    fn file_bytes_max(&self) -> u64 {
        self.rotate_bytes.max(ROTATE_BYTES_MAX) + AUDIT_RECORD_BYTES_MAX as u64
    }

    /// Where the chain stands.
    pub fn link(&self) -> Link {
        self.link
    }

    /// Appends a record; when this returns it is durable.
    ///
    /// # Errors
    /// [`LogError::Disk`] when it is not; [`LogError::Shut`] after a failed `fsync`.
    pub fn append(&mut self, entry: &Entry, missed: u64, now: UnixNanos) -> Result<Link, LogError> {
        if self.shut {
            return Err(LogError::Shut);
        }
        let (line, link) = self.link.next(entry, missed, now);
        if self.file.is_none() || self.length + line.len() as u64 > self.rotate_bytes {
            self.rotate(link.n)?;
        }
        let Some((path, file)) = &self.file else { return Err(LogError::Shut) };
        if let Err(error) = file.write_at(&line, self.length) {
            // What was written of it must not stand between this record and the next.
            self.shut = file.set_len(self.length).is_err();
            return Err(disk_error(path)(error));
        }
        let synced = file.sync().and_then(|()| match self.length {
            0 => self.disk.sync_dir(&self.dir),
            _ => Ok(()),
        });
        if let Err(error) = synced {
            self.shut = true;
            return Err(disk_error(path)(error));
        }
        (self.length, self.link) = (self.length + line.len() as u64, link);
        Ok(link)
    }

    fn rotate(&mut self, first: u64) -> Result<(), LogError> {
        let path = self.dir.join(file_name(first));
        // One that an earlier attempt left has no record in it.
        let file = match self.disk.create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let file = self.disk.open(&path).map_err(disk_error(&path))?;
                file.set_len(0).map_err(disk_error(&path))?;
                file
            }
            created => created.map_err(disk_error(&path))?,
        };
        self.file = Some((path, file));
        self.length = 0;
        Ok(())
    }

    /// Records from number `from` on, at most `most` of them.
    ///
    /// # Errors
    /// [`LogError::Disk`], [`LogError::Damaged`].
    pub fn read(&self, from: u64, most: usize) -> Result<Vec<Record>, LogError> {
        let names = files(&*self.disk, &self.dir).map_err(disk_error(&self.dir))?;
        let holds =
            names.iter().rposition(|name| first_of(name).is_some_and(|first| first <= from));
        let most = most.min(AUDIT_QUESTION_MAX);
        let mut found = Vec::new();
        for name in &names[holds.unwrap_or(0)..] {
            let path = self.dir.join(name);
            let bytes = read_whole(&*self.disk, &path, self.file_bytes_max());
            let bytes = bytes.map_err(disk_error(&path))?;
            if bytes.is_empty() {
                continue;
            }
            let part = Part { name: name.clone(), bytes };
            follow(&part, &mut beginning(&part)?, |_, record| {
                if record.n >= from && found.len() < most {
                    found.push(record);
                }
            })?;
            if found.len() >= most {
                break;
            }
        }
        Ok(found)
    }
}

/// Where the chain stood before a file, by what its first record says.
fn beginning(part: &Part) -> Result<Link, Fault> {
    let first = first_of(&part.name).unwrap_or(1);
    let line = part.bytes.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default();
    let wrong =
        |fault: LineFault| Fault::Line { file: part.name.clone(), at: 0, behind: first - 1, fault };
    let link = Link::before(line).map_err(wrong)?;
    if link.n + 1 != first {
        return Err(Fault::File { file: part.name.clone(), expected: link.n + 1 });
    }
    Ok(link)
}

/// What stands in the place of the signed head, as far as it is known before a file is read.
fn reached(signed: Option<Link>, link: Link) -> Option<Link> {
    match signed {
        Some(signed) if signed.n == link.n => Some(link),
        Some(signed) if signed.n < link.n => Some(signed),
        _ => None,
    }
}

fn held_against(signed: Option<Link>, last: Link, at_head: Option<Link>) -> Result<(), LogError> {
    let Some(signed) = signed else { return Ok(()) };
    match at_head {
        None => Err(Fault::Truncated { last: last.n, signed: signed.n }.into()),
        Some(found) if found.hash != signed.hash => Err(Fault::Rewritten { n: signed.n }.into()),
        Some(_) => Ok(()),
    }
}

fn last_head(disk: &dyn Disk, path: &Path, key: &SigningKey) -> Result<Option<Link>, LogError> {
    let text = match read_whole(disk, path, HEAD_BYTES_MAX) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(disk_error(path))?,
    };
    let text = String::from_utf8_lossy(&text);
    let head = |fault| LogError::Head { path: path.into(), fault };
    Ok(Some(Head::verify(&text, Some(&key.verifying_key())).map_err(head)?.1))
}

#[cfg(test)]
mod tests;
