//! The control key believed and the last document, on disk: two small files, each replaced whole.
//!
//! The key is taken on at first sight, from an aggregator that mutual TLS vouched for, and pinned;
//! a configured key is believed alone, and nothing is pinned. Whoever removes the pin lets another
//! key be believed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lens_flags::{SignedDocument, VerifyingKey};
use lens_journal::{Disk, read_whole, replace_whole};
use lens_model::limits::DOCUMENT_BYTES_MAX;
use lens_service::env::Env;

/// Name of the pinned key: 64 hex digits.
pub(super) const KEY_FILE: &str = "control-key";

/// Name of the last document, with its key and signature.
pub(super) const DOCUMENT_FILE: &str = "control-document";

/// Largest key file read, bytes.
const KEY_BYTES_MAX: u64 = 256;

#[derive(Debug)]
pub(super) struct Keeper {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    configured: Option<VerifyingKey>,
}

/// Bytes as hex digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from(b"0123456789abcdef"[usize::from(value & 15)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

/// A public control key as people write it: 64 hex digits.
pub(crate) fn control_key(text: &str) -> Option<VerifyingKey> {
    let text = text.trim();
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut key = [0; 32];
    for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    VerifyingKey::from_bytes(&key).ok()
}

impl Keeper {
    pub(super) fn new(env: &Env, dir: &Path, configured: Option<VerifyingKey>) -> Self {
        Self { disk: Arc::clone(&env.disk), dir: dir.to_owned(), configured }
    }

    pub(super) const fn is_configured(&self) -> bool {
        self.configured.is_some()
    }

    /// What to do when another key signed.
    pub(super) fn remedy(&self) -> String {
        let what = "it was signed by another control key than the one this agent holds";
        if self.is_configured() {
            return format!("{what}: control.key names that one");
        }
        let path = self.dir.join(KEY_FILE);
        format!("{what}: if the new one is right, remove {} (docs/flags.md)", path.display())
    }

    fn read(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>, String> {
        let path = self.dir.join(name);
        match read_whole(&*self.disk, &path, most) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("{}: {error}", path.display())),
        }
    }

    /// The key to believe: the configured one, or the one pinned.
    pub(super) fn key(&self) -> Result<Option<VerifyingKey>, String> {
        if self.is_configured() {
            return Ok(self.configured);
        }
        let Some(bytes) = self.read(KEY_FILE, KEY_BYTES_MAX)? else { return Ok(None) };
        let key = std::str::from_utf8(&bytes).ok().and_then(control_key);
        // Never taken for an absent one: that would let any key in.
        let path = self.dir.join(KEY_FILE);
        let bad = || format!("{}: no control key of 64 hex digits: remove it", path.display());
        key.map(Some).ok_or_else(bad)
    }

    /// The document that was kept, not yet verified.
    pub(super) fn document(&self) -> Result<Option<SignedDocument>, String> {
        let most = (96 + DOCUMENT_BYTES_MAX) as u64;
        let Some(bytes) = self.read(DOCUMENT_FILE, most)? else { return Ok(None) };
        let parts = bytes.split_first_chunk().and_then(|(key, rest)| {
            let (signature, document) = rest.split_first_chunk()?;
            Some(SignedDocument { bytes: document.to_vec(), key: *key, signature: *signature })
        });
        parts.map(Some).ok_or_else(|| format!("{DOCUMENT_FILE}: cut short"))
    }

    /// Makes key and document durable, the key first: a document without it is not believed.
    pub(super) fn keep(&self, key: &VerifyingKey, signed: &SignedDocument) -> Result<(), String> {
        let put = |name: &str, bytes: &[u8]| {
            let path = self.dir.join(name);
            replace_whole(&*self.disk, &path, bytes)
                .map_err(|error| format!("{}: {error}", path.display()))
        };
        let made = self.disk.create_dir_all(&self.dir);
        made.map_err(|error| format!("{}: {error}", self.dir.display()))?;
        if !self.is_configured() {
            put(KEY_FILE, format!("{}\n", hex(key.as_bytes())).as_bytes())?;
        }
        put(DOCUMENT_FILE, &[&signed.key[..], &signed.signature, &signed.bytes].concat())
    }
}
