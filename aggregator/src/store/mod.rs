//! The durable windows: merged counts, what was merged of whom, and how far the log was read.
//!
//! One embedded database (redb) in `[store] dir`. Everything a batch of log records changes – rows
//! of windows, the last sequence of each life, the log position, the agents' coverage – is written
//! in one transaction, so that after any crash either all of a delta counts or none of it does, and
//! the watermark says which. An agent is told of a delta only after that transaction is durable.
//! Dedup therefore has no limit of time: a life's watermark is kept for as long as the store is.
//! Bound: [`LIVES_MAX`] lives an agent, past which a new one is refused and no old one forgotten.
//! An error closes the store; whoever holds it opens it again and finds what is durable.
//! docs/design/0003 has the layout and what a crash at each point leaves.

mod catalog;
pub mod coverage;
pub(crate) mod disk;
mod error;
mod load;
mod merge;
mod read;
mod rollup;
mod tables;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lens_journal::{Disk, DiskLock};
use lens_model::{AgentName, Incarnation, Nanos, Sequence, Slice, UnixNanos};
use parking_lot::RwLock;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, WriteTransaction};

pub use catalog::Catalog;
pub use coverage::Coverage;
pub use error::StoreError;
pub use load::Loaded;
pub use merge::{Committed, KnownAgent, Merge};
pub use read::{History, Resolution, View};

use disk::WatchedDisk;
use lens_service::planted::PlantedSet;

/// Lives kept per agent. An agent makes one per spool, so this is one a minute for six weeks; past
/// it a new life is refused, because forgetting an old one could count it again.
pub const LIVES_MAX: u64 = 65_536;

/// Name of the database in the directory.
const FILE: &str = "windows.redb";

/// How the store keeps what it is given.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Where.
    pub dir: PathBuf,
    /// Bytes of pages it keeps in memory.
    pub cache_bytes: usize,
    /// How long each resolution is kept: 5 s, 1 min, 1 h.
    pub retention: [Nanos; 3],
    /// Age at which a slot is late.
    pub lateness: Nanos,
    /// Slices listed in the configuration.
    pub slices_known: Vec<Slice>,
    /// Slices taken on without being listed.
    pub slices_automatic_max: usize,
    /// Lives kept per agent: [`LIVES_MAX`], or fewer in a test of it.
    pub lives_max: u64,
}

impl Default for StoreConfig {
    fn default() -> Self {
        const DAY_SECS: u64 = 86_400;
        Self {
            dir: PathBuf::new(),
            cache_bytes: 64 << 20,
            retention: [1, 14, 400].map(|days| Nanos::from_secs(days * DAY_SECS)),
            lateness: Nanos::from_secs(60),
            slices_known: Vec::new(),
            slices_automatic_max: lens_model::limits::AUTOMATIC_SLICES_MAX,
            lives_max: LIVES_MAX,
        }
    }
}

/// Where a store stands: the directory, locked for as long as this lives.
#[derive(Debug)]
pub struct Place {
    config: StoreConfig,
    disk: WatchedDisk,
    planted: PlantedSet,
    _lock: Box<dyn DiskLock>,
}

/// An open store. One writer; readers through [`Store::history`].
#[derive(Debug)]
pub struct Store {
    place: Arc<Place>,
    db: Arc<Database>,
    catalog: Arc<RwLock<Catalog>>,
    /// Slots before this, seconds, are contained in the coarser rows and the lifetime counts.
    rolled_to: u64,
    /// Rows of each resolution are complete from here, seconds.
    floors: [u64; 3],
    /// The next position of the log to be read.
    position: u64,
}

/// Keeps a store's file open, and closes it when it is dropped as the last that does.
#[derive(Debug)]
pub struct Hold(Arc<Database>);

impl Hold {
    /// Whether neither the store nor a question that is answered from it has the file open.
    pub fn is_last(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl Place {
    /// Takes the directory, made if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Dir`] or [`StoreError::Locked`].
    pub fn take(
        disk: Arc<dyn Disk>,
        config: StoreConfig,
        planted: PlantedSet,
    ) -> Result<Arc<Self>, StoreError> {
        let dir = config.dir.clone();
        let unusable = |source| StoreError::Dir { dir: dir.clone(), source };
        disk.create_dir_all(&dir).map_err(unusable)?;
        let lock = match disk.lock(&dir) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(StoreError::Locked { dir });
            }
            locked => locked.map_err(unusable)?,
        };
        let disk = WatchedDisk::new(disk);
        disk.forget_copy(&dir, FILE).map_err(unusable)?;
        Ok(Arc::new(Self { config, disk, planted, _lock: lock }))
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.config.dir
    }

    /// The configuration.
    pub const fn config(&self) -> &StoreConfig {
        &self.config
    }
}

impl Store {
    /// Opens the store in a place, made if it is not there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(place: &Arc<Place>, now: UnixNanos) -> Result<Self, StoreError> {
        place.disk.renew(&place.config.dir, FILE)?;
        let path = place.config.dir.join(FILE);
        let db = lens_journal::database(&place.disk, &path, place.config.cache_bytes)?;
        prepare(&db, now)?;
        let mut catalog =
            Catalog::new(&place.config.slices_known, place.config.slices_automatic_max);
        catalog.load(&db)?;
        let (rolled_to, floors, position) = {
            let read = db.begin_read()?;
            let meta = read.open_table(tables::META)?;
            let number = |key| -> Result<u64, StoreError> {
                Ok(meta.get(key)?.ok_or(StoreError::Row("meta"))?.value())
            };
            let floors = tables::FLOORS;
            let floors = [number(floors[0])?, number(floors[1])?, number(floors[2])?];
            (number("rolled_to")?, floors, number("log_position")?)
        };
        let catalog = Arc::new(RwLock::new(catalog));
        let (place, db) = (Arc::clone(place), Arc::new(db));
        Ok(Self { place, db, catalog, rolled_to, floors, position })
    }

    /// What answers questions about the past, for as long as this store is open.
    pub fn history(&self) -> History {
        let lives_max = self.place.config.lives_max;
        History::new(Arc::clone(&self.db), Arc::clone(&self.catalog), lives_max)
    }

    /// What outlives it and tells when its file may be closed and opened again: two engines on one
    /// file would undo each other's work.
    pub fn hold(&self) -> Hold {
        Hold(Arc::clone(&self.db))
    }

    /// The next position of the log to be read.
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// The names in it.
    pub fn catalog(&self) -> &RwLock<Catalog> {
        &self.catalog
    }

    fn begin(&self) -> Result<WriteTransaction, StoreError> {
        let mut write = self.db.begin_write()?;
        // A crash must find the checksums of a commit already durable before it is chosen.
        write.set_two_phase_commit(true);
        // Reopening after a crash reads the allocator's state instead of every page.
        write.set_quick_repair(true);
        write.set_durability(Durability::Immediate)?;
        Ok(write)
    }
}

/// Makes the tables, and notes the format, where there are none.
fn prepare(db: &Database, now: UnixNanos) -> Result<(), StoreError> {
    {
        let read = db.begin_read()?;
        match read.open_table(tables::META) {
            Ok(meta) => {
                let found = meta.get("format")?.map_or(0, |format| format.value());
                if found != tables::FORMAT {
                    return Err(StoreError::Format { found, known: tables::FORMAT });
                }
                return Ok(());
            }
            Err(redb::TableError::TableDoesNotExist(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let mut write = db.begin_write()?;
    write.set_two_phase_commit(true);
    write.set_durability(Durability::Immediate)?;
    {
        let mut meta = write.open_table(tables::META)?;
        meta.insert("format", tables::FORMAT)?;
        meta.insert("log_position", 0)?;
        meta.insert("made_nanos", now.0)?;
        meta.insert("rolled_to", rollup::rolled_to_at(now))?;
        for floor in tables::FLOORS {
            meta.insert(floor, 0)?;
        }
        write.open_table(tables::HOSTS)?;
        write.open_table(tables::SERIES)?;
        write.open_table(tables::REQUESTS)?;
        write.open_table(tables::GAUGES)?;
        write.open_table(tables::READINGS)?;
        write.open_table(tables::TOTALS)?;
        write.open_table(tables::OUTCOME_TOTALS)?;
        write.open_table(tables::LIFETIME)?;
        write.open_table(tables::WATERMARKS)?;
        write.open_table(tables::AGENTS)?;
        for at in 0..3 {
            write.open_table(tables::WINDOWS[at])?;
            write.open_table(tables::OUTCOMES[at])?;
        }
    }
    Ok(write.commit()?)
}

/// The last sequence merged of a life, 0 for one not known; `None` for one past `lives_max`.
///
/// # Errors
/// [`StoreError`].
pub(crate) fn watermark(
    db: &Database,
    agent: &AgentName,
    life: Incarnation,
    lives_max: u64,
) -> Result<Option<Sequence>, StoreError> {
    let read = db.begin_read()?;
    let watermarks = read.open_table(tables::WATERMARKS)?;
    if let Some(row) = watermarks.get((agent.as_str(), life.0))? {
        return Ok(Some(Sequence(row.value().0)));
    }
    Ok((lives(&watermarks, agent, lives_max)? < lives_max).then_some(Sequence(0)))
}

/// Lives known of an agent, counted up to `max`.
///
/// # Errors
/// [`StoreError`].
fn lives(
    watermarks: &impl ReadableTable<(&'static str, u128), (u64, u64)>,
    agent: &AgentName,
    max: u64,
) -> Result<u64, StoreError> {
    let rows = watermarks.range((agent.as_str(), 0)..=(agent.as_str(), u128::MAX))?;
    Ok(rows.take(usize::try_from(max).unwrap_or(usize::MAX)).count() as u64)
}
