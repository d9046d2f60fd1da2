//! An embedded database (redb) on a [`Disk`].

use std::io;
use std::path::Path;

use redb::{Builder, Database, DatabaseError, StorageBackend};

use crate::disk::{Disk, DiskFile};

/// A file of the disk as the database engine sees it.
#[derive(Debug)]
struct Backend(Box<dyn DiskFile>);

/// Opens the database in a file, made if it is not there, with its directory entry durable: also
/// that of a file which is there already, for whoever gave it its name may have been killed before
/// the directory was synced, and a power loss would bring another file back under it.
///
/// `cache_bytes` bounds what it keeps in memory. The directory must exist and be locked by the
/// caller ([`Disk::lock`]): the engine itself does not lock.
///
/// # Errors
/// The engine's: the file is another format's, damaged beyond repair, or cannot be read.
pub fn database(
    disk: &dyn Disk,
    path: &Path,
    cache_bytes: usize,
) -> Result<Database, DatabaseError> {
    let failed = |error: io::Error| DatabaseError::Storage(redb::StorageError::Io(error));
    let file = match disk.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => disk.create(path),
        opened => opened,
    };
    let file = file.map_err(failed)?;
    disk.sync_dir(path.parent().unwrap_or(Path::new("."))).map_err(failed)?;
    Builder::new().set_cache_size(cache_bytes).create_with_backend(Backend(file))
}

impl StorageBackend for Backend {
    fn len(&self) -> Result<u64, io::Error> {
        self.0.length()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        if self.0.read_at(out, offset)? < out.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.0.write_at(data, offset)
    }
}

#[cfg(test)]
mod tests {
    use redb::{Durability, ReadableDatabase, TableDefinition};

    use super::*;
    use crate::OsDisk;
    use crate::testing::{Crash, FaultyDisk};

    const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("t");

    /// A file renamed over the database and not yet synced by name, then committed to.
    #[test]
    fn what_is_committed_to_a_file_just_renamed_outlives_a_power_loss() {
        let disk = FaultyDisk::new(3);
        let (dir, path) = (Path::new("/d"), Path::new("/d/db"));
        disk.create_dir_all(dir).unwrap();
        drop(database(&disk, path, 1 << 20).unwrap());
        let bytes = disk.contents(path).unwrap();
        let copy = disk.create(Path::new("/d/db.new")).unwrap();
        copy.write_at(&bytes, 0).unwrap();
        copy.sync().unwrap();
        disk.rename(Path::new("/d/db.new"), path).unwrap();
        // Here a process is killed; the next one opens what it finds.
        {
            let db = database(&disk, path, 1 << 20).unwrap();
            let mut write = db.begin_write().unwrap();
            write.set_durability(Durability::Immediate).unwrap();
            write.open_table(TABLE).unwrap().insert(7, &b"seven"[..]).unwrap();
            write.commit().unwrap();
        }
        disk.crash(Crash::Nothing);
        let db = database(&disk, path, 1 << 20).unwrap();
        let read = db.begin_read().unwrap();
        let table = read.open_table(TABLE).unwrap();
        assert_eq!(table.get(7).unwrap().unwrap().value(), b"seven");
    }

    #[test]
    fn what_was_committed_is_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        {
            let db = database(&OsDisk, &path, 1 << 20).unwrap();
            let mut write = db.begin_write().unwrap();
            write.set_durability(Durability::Immediate).unwrap();
            write.open_table(TABLE).unwrap().insert(7, &b"seven"[..]).unwrap();
            write.commit().unwrap();
        }
        let db = database(&OsDisk, &path, 1 << 20).unwrap();
        let read = db.begin_read().unwrap();
        let table = read.open_table(TABLE).unwrap();
        assert_eq!(table.get(7).unwrap().unwrap().value(), b"seven");
    }
}
