//! Small files that are read and replaced whole.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk::Disk;

/// Reads a whole file of at most `most` bytes.
///
/// # Errors
/// The disk's; `Other` when it is longer.
pub fn read_whole(disk: &dyn Disk, path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = disk.open(path)?;
    let length = file.length()?;
    if length > most {
        return Err(io::Error::other(format!("{length} bytes, more than {most}")));
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// Puts a whole file in place of what was there, in one step, durable when it returns.
///
/// # Errors
/// The disk's; what was there then still is, or this is: after a name could not be made durable.
pub fn replace_whole(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    match disk.remove(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk.create(&fresh)?;
    file.write_at(bytes, 0)?;
    file.sync()?;
    disk.rename(&fresh, path)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    disk.sync_dir(parent.unwrap_or(Path::new(".")))
}
