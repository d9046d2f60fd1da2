//! Rollouts on disk: the book, the decisions, the windows they rest on. One file, one transaction for
//! all that one slot or one command changes.
//!
//! Promise: a decision, the state after it and the windows it rests on are durable together, before
//! anything is moved or told.

use std::path::Path;
use std::sync::Arc;

use lens_journal::DiskLock;
use lens_service::env::Env;
use redb::{Database, Durability, ReadableDatabase, TableDefinition, TableError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::judge::slot::Slot;
use crate::store::disk::WatchedDisk;

type Bytes = &'static [u8];

/// Single values, by name.
const SINGLES: TableDefinition<'static, Bytes, Bytes> = TableDefinition::new("singles");
/// Decisions as JSON, by number.
const DECISIONS: TableDefinition<'static, u64, Bytes> = TableDefinition::new("decisions");
/// Slots, by rollout and number.
const TAPE: TableDefinition<'static, (u64, i64), Bytes> = TableDefinition::new("tape");

/// Name of the database in the directory.
const FILE: &str = "canary.redb";

/// Memory the database keeps pages in.
const CACHE_BYTES: usize = 8 << 20;

/// Slots read at once.
const CHUNK: usize = 64;

/// Why rollouts cannot be kept.
#[derive(Debug, Error)]
#[error("{what}: {why}")]
pub struct StoreError {
    what: String,
    why: String,
}

impl StoreError {
    fn new(what: impl Into<String>, why: impl std::fmt::Display) -> Self {
        Self { what: what.into(), why: why.to_string() }
    }
}

/// One change.
#[derive(Debug)]
enum Change {
    Single(&'static str, Vec<u8>),
    Decision(u64, Vec<u8>),
    ForgetDecision(u64),
    Slot(u64, Slot, Vec<u8>),
    /// Slots of a rollout before one.
    ForgetSlots(u64, Slot),
}

/// What one step changes.
#[derive(Debug, Default)]
pub(super) struct Batch(Vec<Change>);

impl Batch {
    /// Keeps a value under a name.
    pub(super) fn put(&mut self, name: &'static str, value: &impl Serialize) {
        // What is given serialises: numbers, texts, and maps with keys of text.
        let json = serde_json::to_vec(value).unwrap_or_default();
        self.0.retain(|change| !matches!(change, Change::Single(held, _) if *held == name));
        self.0.push(Change::Single(name, json));
    }

    /// Changes there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Lets windows go.
    pub(super) fn let_slots_go(&mut self) {
        self.0.retain(|change| !matches!(change, Change::Slot(..)));
    }

    /// Keeps a decision.
    pub(super) fn decide(&mut self, number: u64, json: Vec<u8>) {
        self.0.push(Change::Decision(number, json));
    }

    /// Forgets a decision.
    pub(super) fn forget_decision(&mut self, number: u64) {
        self.0.push(Change::ForgetDecision(number));
    }

    /// Keeps a slot of a rollout.
    pub(super) fn tape(&mut self, rollout: u64, slot: Slot, bytes: Vec<u8>) {
        self.0.push(Change::Slot(rollout, slot, bytes));
    }

    /// Forgets slots of a rollout before one.
    pub(super) fn forget_slots(&mut self, rollout: u64, before: Slot) {
        self.0.push(Change::ForgetSlots(rollout, before));
    }
}

/// The file, or nothing where none is configured.
#[derive(Debug)]
pub(super) struct Store {
    database: Option<Database>,
    /// Held, so that no second aggregator moves the same canary.
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
        let what = || format!("canary.dir {}", dir.display());
        env.disk.create_dir_all(dir).map_err(|error| StoreError::new(what(), error))?;
        let lock = env.disk.lock(dir).map_err(|error| {
            let held = error.kind() == std::io::ErrorKind::WouldBlock;
            let why = if held { "another process uses it".into() } else { error.to_string() };
            StoreError::new(what(), why)
        })?;
        let disk = WatchedDisk::new(Arc::clone(&env.disk));
        let renewed = disk.forget_copy(dir, FILE).and_then(|()| disk.renew(dir, FILE));
        renewed.map_err(|error| StoreError::new(what(), error))?;
        let database = lens_journal::database(&disk, &dir.join(FILE), CACHE_BYTES)
            .map_err(|error| StoreError::new(what(), error))?;
        Ok(Self { database: Some(database), _lock: Some(lock) })
    }

    /// Whether what is kept survives a restart.
    pub(super) const fn durable(&self) -> bool {
        self.database.is_some()
    }

    /// A single value; `None` when there is none.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read: a rollout that is not understood is not overwritten.
    pub(super) fn single<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StoreError> {
        let what = || format!("canary: {name} cannot be read");
        let failed = |error: redb::Error| StoreError::new(what(), error);
        let Some(database) = &self.database else { return Ok(None) };
        let read = database.begin_read().map_err(|error| failed(error.into()))?;
        let table = match read.open_table(SINGLES) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(failed(error.into())),
        };
        let held = table.get(name.as_bytes()).map_err(|error| failed(error.into()))?;
        let Some(held) = held else { return Ok(None) };
        serde_json::from_slice(held.value())
            .map(Some)
            .map_err(|error| StoreError::new(what(), error))
    }

    /// Decisions as they were written, the newest first, at most so many, from before a number.
    ///
    /// # Errors
    /// [`StoreError`] when the file cannot be read.
    pub(super) fn decisions(&self, before: u64, most: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        let failed = |error: redb::Error| StoreError::new("decisions cannot be read", error);
        let Some(database) = &self.database else { return Ok(Vec::new()) };
        let found = || -> Result<Vec<Vec<u8>>, redb::Error> {
            let read = database.begin_read()?;
            let table = match read.open_table(DECISIONS) {
                Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                table => table?,
            };
            let newest = table.range(..before)?.rev().take(most);
            newest.map(|entry| Ok(entry?.1.value().to_vec())).collect()
        };
        found().map_err(failed)
    }

    /// Some slots of a rollout from one on, in order; fewer than asked for only at the end.
    ///
    /// # Errors
    /// [`StoreError`] when the file cannot be read.
    pub(super) fn slots(
        &self,
        rollout: u64,
        from: Slot,
    ) -> Result<Vec<(Slot, Vec<u8>)>, StoreError> {
        let failed = |error: redb::Error| StoreError::new("windows cannot be read", error);
        let Some(database) = &self.database else { return Ok(Vec::new()) };
        let found = || -> Result<Vec<(Slot, Vec<u8>)>, redb::Error> {
            let read = database.begin_read()?;
            let table = match read.open_table(TAPE) {
                Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                table => table?,
            };
            let range = table.range((rollout, from.0)..=(rollout, i64::MAX))?.take(CHUNK);
            range
                .map(|entry| {
                    let (key, value) = entry?;
                    Ok((Slot(key.value().1), value.value().to_vec()))
                })
                .collect()
        };
        found().map_err(failed)
    }

    /// Makes all of it durable, or none. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// [`StoreError`]; nothing of the batch is kept then.
    pub(super) fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        let Some(database) = &self.database else { return Ok(()) };
        write(database, batch).map_err(|error| StoreError::new("a rollout is not kept", error))
    }
}

fn write(database: &Database, batch: &Batch) -> Result<(), redb::Error> {
    let mut write = database.begin_write()?;
    write.set_durability(Durability::Immediate)?;
    {
        let mut singles = write.open_table(SINGLES)?;
        let mut decisions = write.open_table(DECISIONS)?;
        let mut tape = write.open_table(TAPE)?;
        for change in &batch.0 {
            match change {
                Change::Single(name, json) => {
                    singles.insert(name.as_bytes(), &json[..])?;
                }
                Change::Decision(number, json) => {
                    decisions.insert(number, &json[..])?;
                }
                Change::ForgetDecision(number) => {
                    decisions.remove(number)?;
                }
                Change::Slot(rollout, slot, bytes) => {
                    tape.insert((*rollout, slot.0), &bytes[..])?;
                }
                Change::ForgetSlots(rollout, before) => {
                    tape.retain_in((*rollout, i64::MIN)..(*rollout, before.0), |_, _| false)?;
                }
            }
        }
    }
    Ok(write.commit()?)
}
