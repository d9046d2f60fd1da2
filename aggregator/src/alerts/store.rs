//! Alerts, deliveries and announcements on disk: one file, one transaction for all that one step
//! changes.
//!
//! Promise: a transition and its deliveries are durable together, before anything is sent. A value
//! that cannot be read back is left out and named in the log; it does not keep the rest from coming.
//! What a disk refuses waits in memory and is written with the next change or look; the file is
//! opened anew for it, because one whose sync failed is not believed. Bound: [`UNKEPT_MAX`] changes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lens_journal::DiskLock;
use lens_service::env::Env;
use parking_lot::Mutex;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, TableError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tracing::warn;

use crate::store::disk::WatchedDisk;

/// Name of the database in the directory.
const FILE: &str = "alerts.redb";

/// Memory the database keeps pages in.
const CACHE_BYTES: usize = 4 << 20;

/// Changes that wait for a disk that refuses; one step's more are not kept.
pub(super) const UNKEPT_MAX: usize = 65_536;

/// Why alerts cannot be kept.
#[derive(Debug, Error)]
#[error("{what}: {why}")]
pub struct StoreError {
    what: String,
    why: String,
}

impl StoreError {
    pub(super) fn new(what: impl Into<String>, why: impl std::fmt::Display) -> Self {
        Self { what: what.into(), why: why.to_string() }
    }
}

/// A kind of thing kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Shelf {
    /// Open alerts, by key.
    Alerts,
    /// Closed ones, by episode.
    Past,
    /// Deliveries, by number.
    Deliveries,
    /// Maintenance announced by people, by id.
    Maintenance,
    /// Bots' messages, by sink and key.
    Threads,
    /// Counters, under one key.
    Totals,
}

impl Shelf {
    const fn table(self) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
        TableDefinition::new(match self {
            Self::Alerts => "alerts",
            Self::Past => "past",
            Self::Deliveries => "deliveries",
            Self::Maintenance => "maintenance",
            Self::Threads => "threads",
            Self::Totals => "totals",
        })
    }
}

/// What one step changes.
#[derive(Debug, Default)]
pub(super) struct Batch(Vec<(Shelf, Vec<u8>, Option<Vec<u8>>)>);

impl Batch {
    /// Keeps a value under a key, in place of what was there.
    pub(super) fn put(&mut self, shelf: Shelf, key: impl AsRef<[u8]>, value: &impl Serialize) {
        match serde_json::to_vec(value) {
            Ok(json) => self.0.push((shelf, key.as_ref().to_vec(), Some(json))),
            Err(error) => warn!(%error, ?shelf, "not kept"),
        }
    }

    /// Forgets what is under a key.
    pub(super) fn forget(&mut self, shelf: Shelf, key: impl AsRef<[u8]>) {
        self.0.push((shelf, key.as_ref().to_vec(), None));
    }

    /// Whether it changes nothing.
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The file, or nothing where none is configured.
#[derive(Debug)]
pub(super) struct Store {
    place: Option<Place>,
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Place {
    disk: WatchedDisk,
    dir: PathBuf,
    /// Held, so that no second aggregator tells the same.
    _lock: Box<dyn DiskLock>,
}

#[derive(Debug, Default)]
struct Open {
    /// `None` where nothing is kept, and after a failure until it is opened again.
    database: Option<Database>,
    /// What was not written yet, by shelf and key.
    unkept: BTreeMap<(Shelf, Vec<u8>), Option<Vec<u8>>>,
}

impl Place {
    fn open(&self) -> Result<Database, StoreError> {
        let path = self.dir.join(FILE);
        let failed = |why: String| StoreError::new(path.display().to_string(), why);
        self.disk
            .forget_copy(&self.dir, FILE)
            .and_then(|()| self.disk.renew(&self.dir, FILE))
            .map_err(|error| failed(error.to_string()))?;
        lens_journal::database(&self.disk, &path, CACHE_BYTES)
            .map_err(|error| failed(error.to_string()))
    }
}

impl Store {
    /// Keeps nothing.
    pub(super) fn nothing() -> Self {
        Self { place: None, open: Mutex::default() }
    }

    /// Opens the store in a directory, made if it is not there. Blocks.
    ///
    /// # Errors
    /// [`StoreError`]: another process has the directory, or the file cannot be used.
    pub(super) fn open(env: &Env, dir: &Path) -> Result<Self, StoreError> {
        let shown = dir.display();
        let failed = |error: std::io::Error| StoreError::new(format!("alerts.dir {shown}"), error);
        env.disk.create_dir_all(dir).map_err(failed)?;
        let lock = env.disk.lock(dir).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => {
                StoreError::new(format!("alerts.dir {shown}"), "another process uses it")
            }
            _ => failed(error),
        })?;
        let disk = WatchedDisk::new(Arc::clone(&env.disk));
        let place = Place { disk, dir: dir.to_owned(), _lock: lock };
        let open = Open { database: Some(place.open()?), unkept: BTreeMap::new() };
        Ok(Self { place: Some(place), open: Mutex::new(open) })
    }

    /// Whether what is kept survives a restart.
    pub(super) fn durable(&self) -> bool {
        self.place.is_some()
    }

    /// Everything of a kind, in order of key.
    ///
    /// # Errors
    /// [`StoreError`] when the file cannot be read.
    pub(super) fn load<T: DeserializeOwned>(&self, shelf: Shelf) -> Result<Vec<T>, StoreError> {
        let failed = |why: String| StoreError::new(format!("{shelf:?} cannot be read"), why);
        let open = self.open.lock();
        let Some(database) = &open.database else { return Ok(Vec::new()) };
        let read = database.begin_read().map_err(|error| failed(error.to_string()))?;
        let table = match read.open_table(shelf.table()) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            Err(error) => return Err(failed(error.to_string())),
        };
        let mut values = Vec::new();
        for entry in table.iter().map_err(|error| failed(error.to_string()))? {
            let (_, value) = entry.map_err(|error| failed(error.to_string()))?;
            match serde_json::from_slice(value.value()) {
                Ok(value) => values.push(value),
                Err(error) => warn!(%error, ?shelf, "a kept value is left out"),
            }
        }
        Ok(values)
    }

    /// Makes all of it durable together with what was refused before, or none. Blocks for as long as
    /// the disk takes.
    ///
    /// # Errors
    /// [`StoreError`]; the batch then waits for the next call.
    pub(super) fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        let Some(place) = &self.place else { return Ok(()) };
        let mut open = self.open.lock();
        if open.unkept.len() + batch.0.len() > UNKEPT_MAX {
            let why = format!("{UNKEPT_MAX} changes wait for the disk already");
            return Err(StoreError::new("alerts are not kept", why));
        }
        for (shelf, key, value) in &batch.0 {
            open.unkept.insert((*shelf, key.clone()), value.clone());
        }
        if open.unkept.is_empty() {
            return Ok(());
        }
        let database = match open.database.take() {
            Some(database) => database,
            None => place.open()?,
        };
        // Whether a commit that failed is durable is not known: the file is opened anew.
        write(&database, &open.unkept)
            .map_err(|error| StoreError::new("alerts are not kept", error))?;
        open.unkept.clear();
        open.database = Some(database);
        Ok(())
    }
}

fn write(
    database: &Database,
    changes: &BTreeMap<(Shelf, Vec<u8>), Option<Vec<u8>>>,
) -> Result<(), redb::Error> {
    let mut write = database.begin_write()?;
    write.set_durability(Durability::Immediate)?;
    for ((shelf, key), value) in changes {
        let mut table = write.open_table(shelf.table())?;
        match value {
            Some(value) => table.insert(&key[..], &value[..])?,
            None => table.remove(&key[..])?,
        };
    }
    Ok(write.commit()?)
}
