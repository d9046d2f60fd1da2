//! The one who merges: takes records through the log into the store, then into memory, then tells.
//!
//! One turn: append a batch to the log; read the log from where the store stands; merge and commit
//! in one transaction; take the merged records over into the windows that API and page read; trim
//! the log; acknowledge. Nothing is acknowledged, and nothing shown, before it is durable.
//! Commits are grouped: one begins at once after a quiet time, otherwise `commit_interval` after
//! the beginning of the last, or as soon as a batch is full.
//! An error of log or store ends every connection with `storage`, closes the store and opens it
//! again until that works; memory is then what is durable, and agents resume from there. It never
//! acknowledges what failed, and never ends the process.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use lens_model::{Sequence, UnixNanos};
use lens_service::env::Env;
use lens_service::planted::Planted;
use lens_service::shutdown::Shutdown;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug_span, error, info, warn};

use crate::ingest::{Ingest, Submission};
use crate::log::{LogError, Partition, PartitionLog, Position, Record};
use crate::state::State;
use crate::steady::Steady;
use crate::store::{Committed, Hold, Place, Store, StoreError};

/// The partition of the embedded log.
const PARTITION: Partition = Partition(0);

/// Records of one commit.
const BATCH_RECORDS_MAX: usize = 1_024;

/// Bytes of one commit, about.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// Shortest and longest pause between two attempts to open a store that failed.
const REOPEN_MIN: Duration = Duration::from_millis(200);
const REOPEN_MAX: Duration = Duration::from_secs(5);

/// Pause between two looks at what is to be rolled up or removed.
const MAINTAIN_EVERY: Duration = Duration::from_secs(5);

/// Why a turn failed.
#[derive(Debug, Error)]
pub enum WorkError {
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The turn gave nothing back.
    #[error("a turn of the store's worker ended without a result")]
    Abandoned,
}

/// How a log is opened: again after each failure.
pub type OpenLog = Arc<dyn Fn() -> Result<Arc<dyn PartitionLog>, LogError> + Send + Sync>;

/// An open store and the log before it.
#[derive(Debug)]
pub struct Engine {
    store: Store,
    log: Arc<dyn PartitionLog>,
}

/// Merges until shutdown.
pub struct Worker {
    env: Env,
    state: Arc<State>,
    ingest: Arc<Ingest>,
    queue: mpsc::Receiver<Submission>,
    place: Arc<Place>,
    open_log: OpenLog,
    commit_interval: Duration,
    steady: Steady,
    engine: Option<Engine>,
}

impl Engine {
    /// Opens store and log, merges what the log has and the store has not, and gives memory what
    /// is durable.
    ///
    /// # Errors
    /// [`WorkError`].
    pub fn open(place: &Arc<Place>, open_log: &OpenLog, state: &State) -> Result<Self, WorkError> {
        let now = state.now();
        let store = Store::open(place, now)?;
        let log = open_log()?;
        let mut engine = Self { store, log };
        while engine.read(state, now, |_| {})?.is_some() {}
        let loaded = engine.store.load(now)?;
        state.restore(loaded, engine.store.history());
        Ok(engine)
    }

    /// One turn.
    fn turn(
        &mut self,
        state: &State,
        ingest: &Ingest,
        batch: &[Submission],
    ) -> Result<Vec<Committed>, WorkError> {
        let _span = debug_span!("commit", records = batch.len()).entered();
        let bytes: Vec<Vec<u8>> = batch.iter().map(|submission| submission.bytes.clone()).collect();
        if !bytes.is_empty() {
            self.log.append(PARTITION, &bytes)?;
        }
        let early = state.env.planted(Planted::TrimBeforeCommit);
        let mut done = Vec::new();
        while let Some(committed) = self.read(state, state.now(), |records| {
            if early {
                records.iter().for_each(|record| {
                    let life = (record.identity.agent.clone(), record.incarnation);
                    ingest.acknowledge(&life, record.sequence);
                });
            }
        })? {
            state.merged(&committed, &self.store);
            done.push(committed);
        }
        Ok(done)
    }

    /// Merges the next records of the log; `None` when there are no more.
    fn read(
        &mut self,
        state: &State,
        now: UnixNanos,
        seen: impl Fn(&[Record]),
    ) -> Result<Option<Committed>, WorkError> {
        let from = self.store.position();
        let entries = self.log.read(PARTITION, Position(from), BATCH_RECORDS_MAX)?;
        let Some(last) = entries.iter().map(|(position, _)| *position).max() else {
            return Ok(None);
        };
        let decode = |(position, bytes): &(Position, Vec<u8>)| match Record::decode(bytes) {
            Ok(record) => Some(record),
            Err(error) => {
                // Its life has a hole now: the agent sends it again, from there.
                warn!(position = position.0, %error, "a record of the log is passed over");
                None
            }
        };
        let records: Vec<Record> = entries.iter().filter_map(decode).collect();
        if state.env.planted(Planted::TrimBeforeCommit) {
            self.log.trim(PARTITION, last)?;
        }
        seen(&records);
        let committed = self.store.commit(records, last.0 + 1, now)?;
        self.log.trim(PARTITION, last)?;
        Ok(Some(committed))
    }
}

impl Engine {
    /// The store.
    pub const fn store(&self) -> &Store {
        &self.store
    }
}

impl Worker {
    /// Takes the place of the store and opens it.
    ///
    /// # Errors
    /// [`WorkError`] when it cannot be opened now: a beginning is no time to wait for a disk.
    pub async fn start(
        ingest: Arc<Ingest>,
        queue: mpsc::Receiver<Submission>,
        place: Arc<Place>,
        open_log: OpenLog,
        commit_interval: Duration,
    ) -> Result<Self, WorkError> {
        let state = Arc::clone(&ingest.state);
        let env = state.env.clone();
        let mut worker = Self {
            env,
            state,
            ingest,
            queue,
            place,
            open_log,
            commit_interval,
            steady: Steady::default(),
            engine: None,
        };
        worker.open().await?;
        Ok(worker)
    }

    async fn open(&mut self) -> Result<(), WorkError> {
        let (place, open_log) = (Arc::clone(&self.place), Arc::clone(&self.open_log));
        let state = Arc::clone(&self.state);
        let opened = self.env.blocking(move || Engine::open(&place, &open_log, &state)).await;
        self.engine = Some(opened.map_err(|_| WorkError::Abandoned)??);
        Ok(())
    }

    /// Merges until shutdown and an empty queue.
    pub async fn run(mut self, shutdown: Shutdown) {
        let mut maintain = tokio::time::interval(MAINTAIN_EVERY);
        maintain.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut began: Option<Instant> = None;
        loop {
            if self.engine.is_none() && !self.reopen(&shutdown).await {
                return;
            }
            // The rare first, so that load starves neither shutdown nor maintenance.
            let first = tokio::select! {
                biased;
                () = shutdown.wait() => {
                    self.queue.close();
                    self.queue.recv().await
                }
                _ = maintain.tick() => {
                    self.maintain().await;
                    continue;
                }
                first = self.queue.recv() => first,
            };
            let Some(first) = first else { return };
            let batch = self.gather(first, began).await;
            began = Some(Instant::now());
            self.turn(batch).await;
        }
    }

    /// The batch that begins with a record: what comes until it is full or time for a commit.
    async fn gather(&mut self, first: Submission, began: Option<Instant>) -> Vec<Submission> {
        let mut bytes = first.bytes.len();
        let mut batch = vec![first];
        let due = began.map_or_else(Instant::now, |began| began + self.commit_interval);
        while batch.len() < BATCH_RECORDS_MAX && bytes < BATCH_BYTES_MAX {
            // What is there is taken even when the commit is due.
            let next = tokio::select! {
                biased;
                next = self.queue.recv() => next,
                () = tokio::time::sleep_until(due) => None,
            };
            let Some(next) = next else { break };
            bytes += next.bytes.len();
            batch.push(next);
        }
        batch
    }

    async fn turn(&mut self, batch: Vec<Submission>) {
        let Some(mut engine) = self.engine.take() else { return };
        let hold = engine.store.hold();
        let (state, ingest) = (Arc::clone(&self.state), Arc::clone(&self.ingest));
        let job = move || {
            let done = engine.turn(&state, &ingest, &batch);
            (engine, batch, done)
        };
        match self.env.blocking(job).await {
            Ok((engine, batch, Ok(done))) => {
                self.engine = Some(engine);
                tell(&self.ingest, &batch, &done);
            }
            Ok((engine, _, Err(error))) => self.close(Some(engine), hold, &error).await,
            Err(_) => self.close(None, hold, &WorkError::Abandoned).await,
        }
    }

    async fn maintain(&mut self) {
        let Some(now) = self.steady.at(Instant::now(), self.state.now()) else { return };
        let Some(mut engine) = self.engine.take() else { return };
        let hold = engine.store.hold();
        let job = move || {
            let done = engine.store.maintain(now);
            (engine, done)
        };
        match self.env.blocking(job).await {
            Ok((engine, Ok(_))) => self.engine = Some(engine),
            Ok((engine, Err(error))) => self.close(Some(engine), hold, &error.into()).await,
            Err(_) => self.close(None, hold, &WorkError::Abandoned).await,
        }
    }

    fn fault(&self, reason: &str) {
        error!(reason, "the store is closed and will be opened again");
        self.state.fault(Some(reason.to_owned()));
        self.ingest.fail(reason);
    }

    /// Closes a store that failed, and waits until nobody reads in it any more. `engine` is `None`
    /// when the turn took it along.
    async fn close(&self, engine: Option<Engine>, hold: Hold, error: &WorkError) {
        self.fault(&error.to_string());
        drop(engine);
        while !hold.is_last() {
            tokio::time::sleep(REOPEN_MIN).await;
        }
    }

    /// Opens the store until that works. False at shutdown.
    async fn reopen(&mut self, shutdown: &Shutdown) -> bool {
        let mut pause = REOPEN_MIN;
        loop {
            self.give_up();
            tokio::select! {
                biased;
                () = shutdown.wait() => return false,
                () = tokio::time::sleep(pause) => {}
            }
            match self.open().await {
                Ok(()) => {
                    self.give_up();
                    info!("the store is open again");
                    self.state.fault(None);
                    return true;
                }
                Err(error) => {
                    warn!(%error, "the store cannot be opened yet");
                    self.state.fault(Some(error.to_string()));
                    pause = (pause * 2).min(REOPEN_MAX);
                }
            }
        }
    }

    /// What waits was never acknowledged: it is sent again.
    fn give_up(&mut self) {
        while let Ok(submission) = self.queue.try_recv() {
            self.ingest.resend(&submission.life);
        }
    }
}

/// Tells connections what is durable, and those whose records did not come through to send them
/// again.
fn tell(ingest: &Ingest, batch: &[Submission], done: &[Committed]) {
    for (life, acked) in done.iter().flat_map(|committed| &committed.watermarks) {
        ingest.acknowledge(life, *acked);
    }
    for life in done.iter().flat_map(|committed| &committed.gaps) {
        ingest.resend(life);
    }
    let durable = |submission: &Submission| {
        let seen = done.iter().filter_map(|c| c.watermarks.get(&submission.life));
        seen.max().is_some_and(|acked| *acked >= submission.sequence)
    };
    for lost in batch.iter().filter(|s| s.sequence > Sequence(0) && !durable(s)) {
        ingest.resend(&lost.life);
    }
}
