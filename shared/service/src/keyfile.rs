//! Reading what others must not be able to read: private keys, token files.
//!
//! The file is opened without following a link at its end, and what was opened – not what the name
//! points to a moment later – is held against the rules: a regular file, of this process's user,
//! that nobody else can read or write.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use thiserror::Error;

use crate::secret::Secret;

/// Why a private file is not read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PrivateFileError {
    /// It cannot be read, is a link, or too large.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no regular file.
    #[error("{path}: not a regular file; give the file itself, not a link to it")]
    Kind {
        /// Which file.
        path: PathBuf,
    },
    /// Others can read or write it.
    #[error("{path}: mode {mode:o} lets others read or change it: chmod 600 it")]
    Mode {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is another user's.
    #[error(
        "{path}: belongs to user {owner}, not to user {own}: chown it to the user that runs this"
    )]
    Owner {
        /// Which file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who runs this.
        own: u32,
    },
}

/// Reads a private file of at most `most` bytes.
///
/// # Errors
/// [`PrivateFileError`] names the file and the remedy.
pub fn read_private(path: &Path, most: u64) -> Result<Secret, PrivateFileError> {
    let failed = |source: io::Error| PrivateFileError::File { path: path.into(), source };
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let mut file = match opened {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            return Err(PrivateFileError::Kind { path: path.into() });
        }
        opened => opened.map_err(failed)?,
    };
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() {
        return Err(PrivateFileError::Kind { path: path.into() });
    }
    let (mode, owner, own) = (meta.mode() & 0o777, meta.uid(), rustix::process::geteuid().as_raw());
    if mode & 0o077 != 0 {
        return Err(PrivateFileError::Mode { path: path.into(), mode });
    }
    if owner != own {
        return Err(PrivateFileError::Owner { path: path.into(), owner, own });
    }
    if meta.len() > most {
        let what = format!("{} bytes, more than {most}", meta.len());
        return Err(failed(io::Error::other(what)));
    }
    // Room for all of it at once: a vector that grows leaves copies behind.
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0) + 1);
    (&mut file).take(most).read_to_end(&mut bytes).map_err(failed)?;
    Ok(Secret::new(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    fn file(mode: u32) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(&path, "secret").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (dir, path)
    }

    #[test]
    fn a_file_of_ones_own_that_nobody_else_can_read_is_read() {
        for mode in [0o600, 0o400, 0o700] {
            let (_dir, path) = file(mode);
            assert_eq!(read_private(&path, 6).ok().unwrap().expose(), b"secret");
        }
    }

    #[test]
    fn any_bit_for_group_or_others_refuses_it_with_the_remedy() {
        for bit in [0o040, 0o020, 0o010, 0o004, 0o002, 0o001] {
            let (_dir, path) = file(0o600 | bit);
            let error = read_private(&path, 64).err().unwrap().to_string();
            assert!(error.contains("chmod 600"), "{error}");
        }
    }

    #[test]
    fn links_directories_and_large_files_are_refused() {
        let (dir, path) = file(0o600);
        let link = dir.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(matches!(read_private(&link, 64), Err(PrivateFileError::Kind { .. })));
        assert!(matches!(read_private(dir.path(), 64), Err(PrivateFileError::Kind { .. })));
        assert!(matches!(read_private(&path, 5), Err(PrivateFileError::File { .. })));
    }

    #[test]
    fn another_users_file_is_refused() {
        let (_dir, path) = file(0o600);
        // Only root can give a file away; as anyone else the rule cannot be shown here.
        if rustix::process::geteuid().is_root() {
            chown(&path, Some(12_345), None).unwrap();
            let error = read_private(&path, 64).err().unwrap().to_string();
            assert!(error.contains("12345") && error.contains("chown"), "{error}");
        }
    }
}
