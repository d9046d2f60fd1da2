//! The flag page, write side: the agent's word to one node.
//!
//! Why `pwrite` and no mapping: a node that truncates its file must not be able to kill the agent.
//! Each word is one aligned write of eight bytes. A salt and a share never mix: before a salt
//! changes, the share is set to none. What stops something is written first, the generation last.
//! Promise: a node never reads a canary that neither the last word nor the one before gave.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use lens_model::assign::PPM;
use rustix::fs::{Mode, OFlags, fstat, open};
use rustix::io::{pread, pwrite};

use super::SegmentReader;
use crate::flags::KILL_BIT;
use crate::layout::{FLAGS_BYTES, FLAGS_OFFSET, flag_at};
use crate::protocol::words_were_written;

/// What a flag page says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlagWords {
    /// The control plane's generation.
    pub generation: u64,
    /// The flags that are on, by [`lens_model::Flag::bit`].
    pub bits: u64,
    /// Whether the kill switch is engaged.
    pub killed: bool,
    /// Decides which users are in the canary.
    pub salt: u32,
    /// How many are, parts per million; at most 1,000,000 is written.
    pub share_ppm: u32,
}

impl FlagWords {
    fn bits_word(&self) -> u64 {
        if self.killed { self.bits | KILL_BIT } else { self.bits & !KILL_BIT }
    }

    fn canary_word(&self) -> u64 {
        u64::from(self.salt) << 32 | u64::from(self.share_ppm.min(PPM))
    }
}

/// The flag page of one segment.
///
/// Holds no descriptor: it opens the file for each write and makes sure that it is the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlagPage {
    path: PathBuf,
    inode: (u64, u64),
}

/// One word in memory of its own alignment, so that a kernel that copies by words copies it whole.
#[repr(align(8))]
struct Word([u8; 8]);

impl SegmentReader {
    /// The segment's flag page, for writing.
    ///
    /// # Errors
    /// What the system said.
    pub fn flag_page(&self) -> io::Result<FlagPage> {
        let own = fstat(&self.file)?;
        Ok(FlagPage { path: self.path.clone(), inode: (own.st_dev, own.st_ino) })
    }
}

impl FlagPage {
    /// The segment's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn open(&self) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = File::from(open(&self.path, flags, Mode::empty())?);
        let found = fstat(&file)?;
        if (found.st_dev, found.st_ino) != self.inode {
            return Err(io::Error::other("the path names another file now"));
        }
        // Writing past the end would make the file longer.
        let end = (FLAGS_OFFSET + FLAGS_BYTES) as u64;
        if u64::try_from(found.st_size).unwrap_or(0) < end {
            return Err(io::Error::other("the file has been cut short"));
        }
        Ok(file)
    }

    /// What the page says now.
    ///
    /// # Errors
    /// What the system said, `Other` when the path names another file now or it has been cut short.
    pub fn read(&self) -> io::Result<FlagWords> {
        words(&self.open()?)
    }

    /// Makes the page say this.
    ///
    /// # Errors
    /// As [`FlagPage::read`]; part of it may be written then.
    pub fn write(&self, words: &FlagWords) -> io::Result<()> {
        let file = self.open()?;
        let before = self::words(&file)?;
        if words.killed {
            put(&file, flag_at::BITS, words.bits_word())?;
            put_canary(&file, &before, words)?;
        } else {
            // A kill switch that is released shows a canary only once it is the new one.
            put_canary(&file, &before, words)?;
            put(&file, flag_at::BITS, words.bits_word())?;
        }
        words_were_written();
        put(&file, flag_at::GENERATION, words.generation)
    }
}

fn put_canary(file: &File, before: &FlagWords, words: &FlagWords) -> io::Result<()> {
    if before.salt != words.salt && before.share_ppm > 0 {
        put(file, flag_at::CANARY, FlagWords { share_ppm: 0, ..*before }.canary_word())?;
        put(file, flag_at::CANARY, FlagWords { share_ppm: 0, ..*words }.canary_word())?;
    }
    put(file, flag_at::CANARY, words.canary_word())
}

fn put(file: &File, at: usize, word: u64) -> io::Result<()> {
    let word = Word(word.to_ne_bytes());
    if pwrite(file, &word.0, (FLAGS_OFFSET + at) as u64)? < word.0.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    Ok(())
}

fn get(file: &File, at: usize) -> io::Result<u64> {
    let mut word = Word([0; 8]);
    if pread(file, &mut word.0, (FLAGS_OFFSET + at) as u64)? < word.0.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(u64::from_ne_bytes(word.0))
}

#[allow(clippy::cast_possible_truncation)]
fn words(file: &File) -> io::Result<FlagWords> {
    let (bits, canary) = (get(file, flag_at::BITS)?, get(file, flag_at::CANARY)?);
    Ok(FlagWords {
        generation: get(file, flag_at::GENERATION)?,
        bits: bits & !KILL_BIT,
        killed: bits & KILL_BIT != 0,
        salt: (canary >> 32) as u32,
        share_ppm: canary as u32,
    })
}
