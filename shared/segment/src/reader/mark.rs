//! The reader's mark: a segment says who has read from it.
//!
//! Why here: a reader that lost its own memory must not take what an earlier one shipped for new,
//! and only something that lives exactly as long as the counters can tell it. The mark lies in the
//! flag page, the agent's part of the file; no recorder looks at it.

use std::fs::File;
use std::io;

use rustix::fs::{Mode, OFlags, fstat, open};
use rustix::io::pwrite;

use super::SegmentReader;
use super::fault::Fault;
use super::open::read_exact;
use crate::layout::{FLAGS_OFFSET, flag_at};

const MARK_OFFSET: usize = FLAGS_OFFSET + flag_at::READER;

impl SegmentReader {
    /// Whose mark the segment bears; 0 when nobody has read it.
    ///
    /// # Errors
    /// What the system said.
    pub fn mark(&self) -> io::Result<u128> {
        let mut mark = [0; 16];
        read_exact(&self.file, &mut mark, MARK_OFFSET).map_err(|fault| match fault {
            Fault::Io(error) => error,
            Fault::Senseless(why) => io::Error::other(why),
        })?;
        Ok(u128::from_le_bytes(mark))
    }

    /// Sets the mark, before anything that was read is passed on.
    ///
    /// # Errors
    /// What the system said: the file may belong to a user whose files this one may only read;
    /// `Other` when the path names another file now.
    pub fn set_mark(&self, mark: u128) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = File::from(open(&self.path, flags, Mode::empty())?);
        let (ours, theirs) = (fstat(&self.file)?, fstat(&file)?);
        if (ours.st_ino, ours.st_dev) != (theirs.st_ino, theirs.st_dev) {
            return Err(io::Error::other("the path names another file now"));
        }
        let bytes = mark.to_le_bytes();
        if pwrite(&file, &bytes, MARK_OFFSET as u64)? < bytes.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(())
    }
}
