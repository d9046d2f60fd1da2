//! The control state and its key on disk: two small files, each replaced whole.
//!
//! Why not the database: the state is one value of a few kilobytes that is replaced as a whole, and a
//! failed sync must not keep the next attempt from succeeding. A file written anew, synced and renamed
//! has no state that could be damaged.
//! Promise: after a crash at any instant the files hold what was kept last or what was being kept.
//! Refusal: a file that cannot be read is never taken for an absent one.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use lens_flags::{Control, SigningKey};
use lens_journal::{Disk, DiskLock};
use lens_service::env::Env;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::audit::head::public_key_pem;
use crate::audit::log::{read_whole, replace_whole};

/// Name of the private key, readable by its owner alone.
pub(super) const KEY_FILE: &str = "control-key.pem";

/// Name of the public key beside it, for agents that pin it.
pub(super) const PUBLIC_KEY_FILE: &str = "control-public-key.pem";

/// Name of the state.
pub(super) const STATE_FILE: &str = "control.json";

/// Largest state read, bytes: 100 rollbacks and 28 overrides of some 600 bytes each are far below.
const STATE_BYTES_MAX: u64 = 1 << 20;

/// Largest key read, bytes.
const KEY_BYTES_MAX: u64 = 4 << 10;

/// The form of the state.
const FORM: u32 = 1;

/// Why the control state cannot be kept.
#[derive(Debug, Error)]
#[error("{what}: {why}")]
pub struct KeepError {
    what: String,
    why: String,
}

impl KeepError {
    fn new(path: &Path, why: impl std::fmt::Display) -> Self {
        Self { what: path.display().to_string(), why: why.to_string() }
    }
}

/// What is kept.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept {
    form: u32,
    /// The last generation made durable; 0 before the first.
    pub(super) generation: u64,
    /// Everything decided.
    pub(super) control: Control,
}

/// Where it is kept, or nowhere.
#[derive(Debug)]
pub(super) struct Keeper(Option<Place>);

#[derive(Debug)]
struct Place {
    disk: Arc<dyn Disk>,
    state: PathBuf,
    /// Held, so that no second aggregator tells other things under the same generations.
    _lock: Box<dyn DiskLock>,
}

/// A key nobody has seen.
///
/// # Errors
/// The operating system's, without randomness.
fn fresh_key(env: &Env) -> io::Result<SigningKey> {
    let mut seed = Zeroizing::new([0; 32]);
    env.random.fill(&mut *seed)?;
    Ok(SigningKey::from_bytes(&seed))
}

fn read(disk: &dyn Disk, path: &Path, most: u64) -> Result<Option<Vec<u8>>, KeepError> {
    match read_whole(disk, path, most) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(KeepError::new(path, error)),
    }
}

/// The control key, made on the first start.
fn signing_key(env: &Env, dir: &Path) -> Result<SigningKey, KeepError> {
    let path = dir.join(KEY_FILE);
    let failed = |why: &dyn std::fmt::Display| KeepError::new(&path, why);
    if let Some(pem) = read(&*env.disk, &path, KEY_BYTES_MAX)?.map(Zeroizing::new) {
        let text = std::str::from_utf8(&pem).map_err(|error| failed(&error))?;
        let key = SigningKey::from_pkcs8_pem(text).map_err(|error| failed(&error))?;
        // What an earlier process left may be in memory alone, and must outlive what it signs.
        replace_whole(&*env.disk, &path, &pem).map_err(|error| failed(&error))?;
        return Ok(key);
    }
    let key = fresh_key(env).map_err(|error| failed(&error))?;
    let pem = key.to_pkcs8_pem(LineEnding::LF).map_err(|error| failed(&error))?;
    // Files of the disk are readable by their owner alone from the beginning.
    replace_whole(&*env.disk, &path, pem.as_bytes()).map_err(|error| failed(&error))?;
    Ok(key)
}

impl Keeper {
    /// Keeps nothing.
    pub(super) const fn nothing() -> Self {
        Self(None)
    }

    /// Opens what is kept in a directory, made if it is not there. Blocks.
    pub(super) fn open(env: &Env, dir: &Path) -> Result<(Self, SigningKey, Kept), KeepError> {
        let failed = |error: io::Error| KeepError::new(dir, error);
        env.disk.create_dir_all(dir).map_err(failed)?;
        let lock = env.disk.lock(dir).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => KeepError::new(dir, "another process uses it"),
            _ => failed(error),
        })?;
        let state = dir.join(STATE_FILE);
        let kept = match read(&*env.disk, &state, STATE_BYTES_MAX)? {
            None => Kept { form: FORM, generation: 0, control: Control::default() },
            Some(bytes) => parse(&state, &bytes)?,
        };
        let key = signing_key(env, dir)?;
        let public = dir.join(PUBLIC_KEY_FILE);
        let pem = public_key_pem(&key.verifying_key());
        replace_whole(&*env.disk, &public, pem.as_bytes())
            .map_err(|error| KeepError::new(&public, error))?;
        let place = Place { disk: Arc::clone(&env.disk), state, _lock: lock };
        Ok((Self(Some(place)), key, kept))
    }

    /// Makes a state durable in place of the one before. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// [`KeepError`]; what was kept before still is, or this one is.
    pub(super) fn keep(&mut self, generation: u64, control: &Control) -> Result<(), KeepError> {
        let Some(place) = &self.0 else { return Ok(()) };
        let failed = |why: &dyn std::fmt::Display| KeepError::new(&place.state, why);
        let kept = Kept { form: FORM, generation, control: control.clone() };
        let text = serde_json::to_vec(&kept).map_err(|error| failed(&error))?;
        replace_whole(&*place.disk, &place.state, &text).map_err(|error| failed(&error))
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Kept, KeepError> {
    let remedy = "restore it from a backup, or move it away to begin with every flag at its default \
        and the kill switch released";
    let failed = |why: String| KeepError::new(path, format!("{why}: {remedy}"));
    let kept: Kept = serde_json::from_slice(bytes).map_err(|error| failed(error.to_string()))?;
    if kept.form != FORM {
        return Err(failed(format!("its form is {}, this aggregator knows {FORM}", kept.form)));
    }
    Ok(kept)
}
