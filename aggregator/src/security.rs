//! What keeps strangers out of one aggregator: its door, its record, its list of the revoked, and
//! what is wrong with any of them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lens_model::AgentName;
use lens_service::env::Env;
use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::watch;

use crate::audit::log::{read_whole, replace_whole};
use crate::audit::{Audit, Receipt};
use crate::auth::gate::Gate;
use crate::auth::revoked::{self, Revoked, RevokedError};

/// Largest revocation file read, bytes: names and serials of a line are under 80.
const REVOKED_BYTES_MAX: u64 = 2 << 20;

/// Everything of one aggregator that decides who may what.
#[derive(Debug, Default)]
pub struct Security {
    /// The door of the HTTP API.
    pub gate: Gate,
    /// The audit record.
    pub audit: Audit,
    /// Who is kept out.
    pub revocations: Revocations,
    /// What could not be taken up, by what it is; shown in `/readyz` and `/metrics`.
    pub troubles: Troubles,
    /// Moves on whenever someone may have lost a right; streams then end and are asked for again.
    pub epoch: Epoch,
}

/// Things that went wrong and still are: the old ones stay in force meanwhile.
#[derive(Debug, Default)]
pub struct Troubles(Mutex<BTreeMap<&'static str, String>>);

impl Troubles {
    /// Notes what became of an attempt to take something up; gives it back.
    pub fn note<T, E: std::fmt::Display>(
        &self,
        what: &'static str,
        done: Result<T, E>,
    ) -> Result<T, E> {
        let mut held = self.0.lock();
        match &done {
            Ok(_) => drop(held.remove(what)),
            Err(error) => drop(held.insert(what, error.to_string())),
        }
        done
    }

    /// All of them.
    pub fn all(&self) -> BTreeMap<&'static str, String> {
        self.0.lock().clone()
    }
}

/// A number that moves on.
#[derive(Debug)]
pub struct Epoch(watch::Sender<u64>);

impl Default for Epoch {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl Epoch {
    /// Moves on.
    pub fn next(&self) {
        self.0.send_modify(|epoch| *epoch += 1);
    }

    /// Resolves once it has moved on from now.
    pub fn over(&self) -> impl Future<Output = ()> + use<> {
        let mut epoch = self.0.subscribe();
        async move { drop(epoch.changed().await) }
    }
}

/// Why the list of the revoked was not taken up or changed; what was in force still is.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RevocationError {
    /// No file is configured.
    #[error("identity.revoked is not set: name a file that outlives this process")]
    Unset,
    /// The file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file says something that cannot be obeyed.
    #[error("{path}: {error}")]
    Form {
        /// Which file.
        path: PathBuf,
        /// What.
        error: RevokedError,
    },
    /// The job was abandoned.
    #[error("the change was abandoned")]
    Abandoned,
}

/// Who is kept out, in a file and in force.
#[derive(Debug)]
pub struct Revocations {
    file: Option<PathBuf>,
    now: watch::Sender<Arc<Revoked>>,
    editing: tokio::sync::Mutex<()>,
}

impl Default for Revocations {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Revocations {
    /// Those of this file, once they are loaded; nobody's without one.
    pub fn new(file: Option<PathBuf>) -> Self {
        let now = watch::Sender::new(Arc::default());
        Self { file, now, editing: tokio::sync::Mutex::default() }
    }

    /// Who is kept out now.
    pub fn now(&self) -> Arc<Revoked> {
        Arc::clone(&self.now.borrow())
    }

    /// Tells of every change.
    pub fn changes(&self) -> watch::Receiver<Arc<Revoked>> {
        self.now.subscribe()
    }

    /// Whether there is a file to edit.
    pub fn is_set(&self) -> bool {
        self.file.is_some()
    }

    /// Reads the file. Blocking. One that is not there yet keeps nobody out.
    ///
    /// # Errors
    /// [`RevocationError`]; what was in force still is.
    pub fn load(&self, env: &Env) -> Result<(), RevocationError> {
        let Some(path) = &self.file else { return Ok(()) };
        let revoked = parsed(path, &text(env, path)?)?;
        self.take(revoked);
        Ok(())
    }

    fn take(&self, revoked: Revoked) {
        self.now.send_if_modified(|held| {
            let changed = **held != revoked;
            if changed {
                *held = Arc::new(revoked);
            }
            changed
        });
    }

    /// Keeps an agent out, or lets it in again; durable, and in force, when this returns.
    ///
    /// # Errors
    /// [`RevocationError`]; nothing is then changed.
    pub async fn set(
        &self,
        env: &Env,
        agent: &AgentName,
        out: bool,
        _recorded: Receipt,
    ) -> Result<(), RevocationError> {
        let _one_at_a_time = self.editing.lock().await;
        let path = self.file.clone().ok_or(RevocationError::Unset)?;
        let (agent, machine) = (agent.clone(), env.clone());
        let job = move || {
            let before = text(&machine, &path)?;
            let after = match out {
                true => revoked::with_agent(&before, &agent),
                false => revoked::without_agent(&before, &agent),
            };
            let revoked = parsed(&path, &after)?;
            replace_whole(&*machine.disk, &path, after.as_bytes())
                .map_err(|source| RevocationError::File { path, source })?;
            Ok(revoked)
        };
        let revoked = env.blocking(job).await.map_err(|_| RevocationError::Abandoned)??;
        self.take(revoked);
        Ok(())
    }
}

fn text(env: &Env, path: &Path) -> Result<String, RevocationError> {
    match read_whole(&*env.disk, path, REVOKED_BYTES_MAX) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(RevocationError::File { path: path.into(), source }),
    }
}

fn parsed(path: &Path, text: &str) -> Result<Revoked, RevocationError> {
    Revoked::parse(text).map_err(|error| RevocationError::Form { path: path.into(), error })
}
