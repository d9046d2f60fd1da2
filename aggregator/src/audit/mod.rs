//! The audit record: who asked what, kept so that nothing of it can be changed unnoticed.
//!
//! A verb that changes something runs only with a [`Receipt`], and a receipt exists only once its
//! record is durable ([`Audit::record`]). Stopping everything is the exception: it acts first and is
//! recorded in the same breath ([`Audit::act_first`]). Attempts that were refused are recorded too,
//! a bounded number a minute; what is left out is counted in the next one. The chain's head is
//! signed once a minute and at the end ([`Audit::keep_signed`]) and written to a second place.

pub mod head;
pub mod log;
pub mod record;
pub mod verify;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use lens_service::env::Env;
use lens_service::shutdown::Shutdown;
use lens_service::tls::{self, TlsError};
use parking_lot::Mutex;
use thiserror::Error;
use tokio::time::Instant;
use tracing::{error, warn};

use head::Head;
use log::{Log, LogError};
pub use record::{Decision, Entry, Record};

/// Longest time between two signed heads.
const SIGN_INTERVAL: Duration = Duration::from_secs(30);

/// Refused attempts recorded in a minute; further ones are counted in the next record.
pub const ATTEMPTS_PER_MINUTE_MAX: u64 = 60;

/// Name of the public key beside the chain.
pub const PUBLIC_KEY_FILE: &str = "audit-public-key.pem";

/// Name of the signed head where no other place is configured.
pub const HEAD_FILE: &str = "head.json";

/// Where the chain is kept, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// Directory of the chain.
    pub dir: PathBuf,
    /// Where the signed head is written.
    pub head: PathBuf,
    /// The signing key, PEM; made on the first start.
    pub key: PathBuf,
    /// Size at which a file is followed by another, bytes.
    pub rotate_bytes: u64,
}

/// Why nothing was recorded, and the verb therefore not run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AuditError {
    /// There is no place to record in.
    #[error("audit.dir is not set, and nothing is changed that is not recorded: set it")]
    Off,
    /// The signing key is unusable.
    #[error(transparent)]
    Key(#[from] TlsError),
    /// The key's file holds no Ed25519 key.
    #[error("{path}: no Ed25519 private key in PKCS#8 PEM: {detail}")]
    KeyForm {
        /// Which file.
        path: PathBuf,
        /// What the parser said.
        detail: String,
    },
    /// The key could not be made.
    #[error("{path}: no key could be made: {source}")]
    KeyMade {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The chain could not be opened or written.
    #[error("audit record: {0}")]
    Log(#[from] LogError),
    /// The job that writes it was abandoned.
    #[error("audit record: the write was abandoned")]
    Abandoned,
}

/// That a record is durable. Only [`Audit`] makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the verb it was asked for may now run"]
pub struct Receipt {
    /// The record's number.
    n: u64,
}

impl Receipt {
    /// The record's number.
    pub const fn number(self) -> u64 {
        self.n
    }
}

#[derive(Debug)]
struct Attempts {
    since: Instant,
    recorded: u64,
    suppressed: u64,
}

struct Inner {
    env: Env,
    log: Mutex<Log>,
    key: SigningKey,
    head_path: PathBuf,
    head: Mutex<Option<Head>>,
    attempts: Mutex<Attempts>,
    failed: AtomicU64,
}

/// The audit record; cheap to clone.
#[derive(Clone, Default)]
pub struct Audit(Option<Arc<Inner>>);

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Audit(on)" } else { "Audit(off)" })
    }
}

/// Reads the signing key, or makes it.
fn signing_key(env: &Env, path: &Path) -> Result<SigningKey, AuditError> {
    if !path.exists() {
        let made = |source| AuditError::KeyMade { path: path.into(), source };
        let mut seed = zeroize::Zeroizing::new([0; 32]);
        env.random.fill(&mut *seed).map_err(made)?;
        let key = SigningKey::from_bytes(&seed);
        let pem = key.to_pkcs8_pem(LineEnding::LF).map_err(|e| made(io::Error::other(e)))?;
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            env.disk.create_dir_all(parent).map_err(made)?;
        }
        log::replace_whole(&*env.disk, path, pem.as_bytes()).map_err(made)?;
        return Ok(key);
    }
    let pem = tls::read_private(path)?;
    let form = |detail: String| AuditError::KeyForm { path: path.into(), detail };
    let text = std::str::from_utf8(pem.expose()).map_err(|error| form(error.to_string()))?;
    SigningKey::from_pkcs8_pem(text).map_err(|error| form(error.to_string()))
}

impl Audit {
    /// No record: every verb that needs one is refused.
    pub fn off() -> Self {
        Self(None)
    }

    /// Opens the record, and signs its head. Blocking; for the program's start.
    ///
    /// # Errors
    /// [`AuditError`] names the file at fault.
    pub fn open(env: &Env, places: &Places) -> Result<Self, AuditError> {
        let key = signing_key(env, &places.key)?;
        let disk = Arc::clone(&env.disk);
        let (log, cut) = Log::open(disk, &places.dir, &places.head, &key, places.rotate_bytes)?;
        if cut > 0 {
            warn!(cut, "audit record: the rest of a record that was never confirmed is cut off");
        }
        let public = head::public_key_pem(&key.verifying_key());
        let path = places.dir.join(PUBLIC_KEY_FILE);
        log::replace_whole(&*env.disk, &path, public.as_bytes())
            .map_err(|source| LogError::Disk { path, source })?;
        let inner = Inner {
            env: env.clone(),
            log: Mutex::new(log),
            key,
            head_path: places.head.clone(),
            head: Mutex::new(None),
            attempts: Mutex::new(Attempts { since: Instant::now(), recorded: 0, suppressed: 0 }),
            failed: AtomicU64::new(0),
        };
        inner.sign()?;
        Ok(Self(Some(Arc::new(inner))))
    }

    /// Whether there is a record.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Records; the verb may run once there is a receipt. A caller that stops waiting may leave a
    /// record of a verb that then did not run, never the other way round.
    ///
    /// # Errors
    /// [`AuditError`]; the verb must then not run.
    pub async fn record(&self, entry: Entry) -> Result<Receipt, AuditError> {
        let inner = Arc::clone(self.0.as_ref().ok_or(AuditError::Off)?);
        inner.append(entry, 0).await
    }

    /// Acts, then records that it was done: for stopping, which must not wait for a disk. What the
    /// act gives is given back whatever becomes of the record; a record that fails is an alarm.
    pub async fn act_first<T>(
        &self,
        mut entry: Entry,
        act: impl Future<Output = T>,
    ) -> (T, Result<Receipt, AuditError>) {
        let done = act.await;
        entry.decision = Decision::Done;
        let recorded = self.record(entry).await;
        if let Err(error) = &recorded {
            error!(%error, "done, and not in the audit record");
        }
        (done, recorded)
    }

    /// Records an attempt that was refused, unless a minute's worth of them was recorded already.
    pub async fn attempt(&self, mut entry: Entry) {
        let Some(inner) = self.0.as_ref().map(Arc::clone) else { return };
        entry.decision = Decision::Refused;
        let suppressed = {
            let mut attempts = inner.attempts.lock();
            if attempts.since.elapsed() >= Duration::from_secs(60) {
                attempts.since = Instant::now();
                attempts.recorded = 0;
            }
            if attempts.recorded >= ATTEMPTS_PER_MINUTE_MAX {
                attempts.suppressed += 1;
                return;
            }
            attempts.recorded += 1;
            std::mem::take(&mut attempts.suppressed)
        };
        if let Err(error) = inner.append(entry, suppressed).await {
            error!(%error, "a refused attempt is not in the audit record");
        }
    }

    /// Records from number `from` on, and the head last signed.
    ///
    /// # Errors
    /// [`AuditError`].
    pub async fn read(
        &self,
        from: u64,
        most: usize,
    ) -> Result<(Vec<Record>, Option<Head>), AuditError> {
        let inner = Arc::clone(self.0.as_ref().ok_or(AuditError::Off)?);
        let env = inner.env.clone();
        let job = move || (inner.log.lock().read(from, most), inner.head.lock().clone());
        let (records, head) = env.blocking(job).await.map_err(|_| AuditError::Abandoned)?;
        Ok((records?, head))
    }

    /// Records that could not be made durable.
    pub fn failed_total(&self) -> u64 {
        self.0.as_ref().map_or(0, |inner| inner.failed.load(Ordering::Relaxed))
    }

    /// Signs the head again and again until shutdown, and once more then.
    pub async fn keep_signed(self, shutdown: Shutdown) {
        loop {
            tokio::select! { biased; () = shutdown.wait() => {}, () = tokio::time::sleep(SIGN_INTERVAL) => {} }
            self.sign().await;
            if shutdown.is_draining() {
                return;
            }
        }
    }

    /// Signs the head now.
    pub async fn sign(&self) {
        let Some(inner) = self.0.as_ref().map(Arc::clone) else { return };
        let env = inner.env.clone();
        match env.blocking(move || inner.sign()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => error!(%error, "the audit record's head is not signed"),
            Err(error) => error!(%error, "the audit record's head is not signed"),
        }
    }
}

impl Inner {
    async fn append(self: Arc<Self>, entry: Entry, missed: u64) -> Result<Receipt, AuditError> {
        let (env, inner) = (self.env.clone(), Arc::clone(&self));
        let job = move || {
            let mut log = inner.log.lock();
            let now = inner.env.now();
            log.append(&entry, missed, now)
        };
        let appended = match env.blocking(job).await {
            Ok(Ok(link)) => return Ok(Receipt { n: link.n }),
            Ok(Err(error)) => error.into(),
            Err(_) => AuditError::Abandoned,
        };
        self.failed.fetch_add(1, Ordering::Relaxed);
        Err(appended)
    }

    fn sign(&self) -> Result<(), LogError> {
        // Held while writing, so that an older head never takes the place of a newer one.
        let mut last = self.head.lock();
        let link = self.log.lock().link();
        let head = Head::sign(&link, self.env.now(), &self.key);
        log::replace_whole(&*self.env.disk, &self.head_path, head.text().as_bytes())
            .map_err(|source| LogError::Disk { path: self.head_path.clone(), source })?;
        *last = Some(head);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
