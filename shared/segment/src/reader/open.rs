//! At the door: which files are taken for segments at all.

use std::fs::File;
use std::path::Path;

use lens_model::limits::{SEGMENT_EXEMPLARS_MAX, SEGMENT_SERIES_MAX, SEGMENT_SHARDS_MAX};
use rustix::fs::{FileType, Mode, OFlags, fstat, open as open_file};
use rustix::io::{Errno, pread};
use rustix::process::geteuid;

use super::diff::{Accumulator, Counters};
use super::fault::{Fault, OpenError, Quarantine};
use super::{SegmentInfo, SegmentReader};
use crate::bytes::get_u32;
use crate::header::{Header, Live, STATE_BUILDING, STATE_CLOSED};
use crate::layout::{Geometry, HEADER_BYTES, at};

/// Whose segments are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Owners {
    /// The reader's own effective user's.
    #[default]
    Own,
    /// Those of the listed users.
    Listed(Vec<u32>),
    /// Anyone's: only where the directory itself keeps strangers out.
    Any,
}

/// What a reader accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadPolicy {
    /// Whose segments are read. Default: the reader's own user's.
    pub owners: Owners,
    /// Longest segment file, bytes. Default: the largest layout, 252.8 MB, of which a segment
    /// occupies only what its registered series need.
    pub bytes_max: u64,
}

impl Default for ReadPolicy {
    fn default() -> Self {
        let largest = Geometry::new(SEGMENT_SHARDS_MAX, SEGMENT_SERIES_MAX);
        let bytes_max = largest.map_or(0, |geometry| geometry.total_bytes() as u64);
        Self { owners: Owners::Own, bytes_max }
    }
}

pub(super) fn open(path: &Path, policy: &ReadPolicy) -> Result<SegmentReader, OpenError> {
    let file = open_checked(path, policy)?;
    let failed = |fault| match fault {
        Fault::Io(source) => OpenError::Io { path: path.to_owned(), doing: "read it", source },
        Fault::Senseless(_) => {
            OpenError::Size { path: path.to_owned(), bytes: 0, expected: HEADER_BYTES as u64 }
        }
    };
    let bytes = length(&file, path)?;
    let mut page = [0; HEADER_BYTES];
    read_exact(&file, &mut page, 0).map_err(|fault| match failed(fault) {
        OpenError::Size { path, expected, .. } => OpenError::Size { path, bytes, expected },
        other => other,
    })?;
    let header = Header::decode(&page)
        .map_err(|fault| OpenError::Header { path: path.to_owned(), fault })?;
    let geometry = header.geometry;
    let expected = geometry.total_bytes() as u64;
    if bytes != expected {
        return Err(OpenError::Size { path: path.to_owned(), bytes, expected });
    }
    let state = get_u32(&page, at::STATE);
    if state == STATE_BUILDING || state > STATE_CLOSED {
        return Err(OpenError::Building { path: path.to_owned() });
    }
    let info = SegmentInfo {
        service: header.service,
        version: header.version,
        instance: header.instance,
        incarnation: header.incarnation,
        arm: header.arm,
        pid: header.pid,
        start_ticks: header.start_ticks,
        boot_id: header.boot_id,
        created: header.created,
        shards: geometry.shards(),
        series_max: geometry.series_max(),
        bytes,
    };
    Ok(SegmentReader {
        file,
        path: path.to_owned(),
        geometry,
        info,
        live: Live { state, ..Live::default() },
        catalogue: Vec::new(),
        requests: Vec::new(),
        gauges: Vec::new(),
        blocks: Vec::new(),
        pending: Vec::new(),
        requests_committed: Vec::new(),
        requests_pending: Vec::new(),
        exemplars_taken: [0; SEGMENT_EXEMPLARS_MAX],
        quarantined: None,
        pool: Vec::new(),
        second: Counters::boxed(),
        accumulator: Accumulator::boxed(),
        tables: [Vec::new(), Vec::new()],
    })
}

/// Opens without following a link or waiting for a pipe's writer, then judges the descriptor, so
/// that what was checked is what is read.
fn open_checked(path: &Path, policy: &ReadPolicy) -> Result<File, OpenError> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let owned = || path.to_owned();
    let file = match open_file(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::LOOP) => return Err(OpenError::Symlink { path: owned() }),
        Err(Errno::NXIO) => return Err(OpenError::NotRegular { path: owned() }),
        Err(errno) => {
            return Err(OpenError::Io { path: owned(), doing: "open it", source: errno.into() });
        }
    };
    let stat = stat(&file, path)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(OpenError::NotRegular { path: owned() });
    }
    let links = stat.st_nlink;
    if links != 1 {
        return Err(OpenError::Links { path: owned(), links });
    }
    let uid = stat.st_uid;
    let welcome = match &policy.owners {
        Owners::Own => uid == geteuid().as_raw(),
        Owners::Listed(listed) => listed.contains(&uid),
        Owners::Any => true,
    };
    if !welcome {
        return Err(OpenError::Owner { path: owned(), uid });
    }
    let mode = stat.st_mode & 0o7777;
    if mode & 0o022 != 0 {
        return Err(OpenError::Writable { path: owned(), mode });
    }
    let bytes = length(&file, path)?;
    if bytes > policy.bytes_max {
        return Err(OpenError::TooLarge { path: owned(), bytes, bytes_max: policy.bytes_max });
    }
    Ok(file)
}

fn stat(file: &File, path: &Path) -> Result<rustix::fs::Stat, OpenError> {
    fstat(file).map_err(|errno| OpenError::Io {
        path: path.to_owned(),
        doing: "stat it",
        source: errno.into(),
    })
}

fn length(file: &File, path: &Path) -> Result<u64, OpenError> {
    Ok(u64::try_from(stat(file, path)?.st_size).unwrap_or(0))
}

/// Fills `buffer` from `offset`; a file that ends before is truncated.
pub(super) fn read_exact(file: &File, buffer: &mut [u8], offset: usize) -> Result<(), Fault> {
    let mut done = 0;
    while done < buffer.len() {
        match pread(file, &mut buffer[done..], (offset + done) as u64) {
            Ok(0) => return Err(Quarantine::Truncated.into()),
            Ok(read) => done += read,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Fault::Io(errno.into())),
        }
    }
    Ok(())
}
