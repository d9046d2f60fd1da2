//! Alerts, deliveries and announcements on disk: one file, one transaction for all that one step
//! changes.
//!
//! Promise: a transition and its deliveries are durable together, before anything is sent. A value
//! that cannot be read back is left out and named in the log; it does not keep the rest from coming.

use std::path::Path;
use std::sync::Arc;

use lens_journal::DiskLock;
use lens_service::env::Env;
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The file, or nothing where none is configured.
#[derive(Debug)]
pub(super) struct Store {
    database: Option<Database>,
    /// Held, so that no second aggregator tells the same.
    _lock: Option<Box<dyn DiskLock>>,
}

impl Store {
    /// Keeps nothing.
    pub(super) fn nothing() -> Self {
        Self { database: None, _lock: None }
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
        disk.forget_copy(dir, FILE).and_then(|()| disk.renew(dir, FILE)).map_err(failed)?;
        let path = dir.join(FILE);
        let database = lens_journal::database(&disk, &path, CACHE_BYTES)
            .map_err(|error| StoreError::new(path.display().to_string(), error))?;
        Ok(Self { database: Some(database), _lock: Some(lock) })
    }

    /// Whether what is kept survives a restart.
    pub(super) fn durable(&self) -> bool {
        self.database.is_some()
    }

    /// Everything of a kind, in order of key.
    ///
    /// # Errors
    /// [`StoreError`] when the file cannot be read.
    pub(super) fn load<T: DeserializeOwned>(&self, shelf: Shelf) -> Result<Vec<T>, StoreError> {
        let failed = |why: String| StoreError::new(format!("{shelf:?} cannot be read"), why);
        let Some(database) = &self.database else { return Ok(Vec::new()) };
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

    /// Makes all of it durable, or none. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// [`StoreError`]; nothing of the batch is kept then.
    pub(super) fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        let Some(database) = &self.database else { return Ok(()) };
        if batch.is_empty() {
            return Ok(());
        }
        write(database, batch).map_err(|error| StoreError::new("alerts are not kept", error))
    }
}

fn write(database: &Database, batch: &Batch) -> Result<(), redb::Error> {
    let mut write = database.begin_write()?;
    write.set_durability(Durability::Immediate)?;
    for (shelf, key, value) in &batch.0 {
        let mut table = write.open_table(shelf.table())?;
        match value {
            Some(value) => table.insert(&key[..], &value[..])?,
            None => table.remove(&key[..])?,
        };
    }
    Ok(write.commit()?)
}
