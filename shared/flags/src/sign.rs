//! A document and why it may be believed: Ed25519 over its bytes, by the control key.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use lens_model::TrustDomain;
use thiserror::Error;

use crate::document::{Document, DocumentError, Scope};

/// Keeps a signature from meaning anything but a control document.
const CONTEXT: &[u8] = b"lens telemetry control document 1\0";

/// A document as it travels: its bytes, the key that signed them, the signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedDocument {
    /// The document's bytes.
    pub bytes: Vec<u8>,
    /// The public key it was signed with.
    pub key: [u8; 32],
    /// The signature.
    pub signature: [u8; 64],
}

/// Why a document is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// It was signed by another key than the one held.
    #[error("it was signed by another control key than the one this agent holds")]
    Key,
    /// The key's bytes are no key.
    #[error("its key is no Ed25519 key")]
    KeyForm,
    /// The signature is wrong.
    #[error("its signature is wrong: it was changed")]
    Signature,
    /// It is signed and not readable.
    #[error("it cannot be read: {0}")]
    Document(#[from] DocumentError),
    /// It is for others.
    #[error("it is for {found}, not for trust domain {own}")]
    Scope {
        /// Whom it is for.
        found: Scope,
        /// Who reads it.
        own: TrustDomain,
    },
}

fn message(bytes: &[u8]) -> Vec<u8> {
    [CONTEXT, bytes].concat()
}

impl SignedDocument {
    /// Signs a document.
    pub fn sign(document: &Document, key: &SigningKey) -> Self {
        let mut bytes = Vec::new();
        document.encode(&mut bytes);
        let signature = key.sign(&message(&bytes)).to_bytes();
        Self { bytes, key: key.verifying_key().to_bytes(), signature }
    }

    /// The document, if `key` signed it and `domain` is meant.
    ///
    /// # Errors
    /// [`VerifyError`].
    pub fn open(&self, key: &VerifyingKey, domain: &TrustDomain) -> Result<Document, VerifyError> {
        if *key.as_bytes() != self.key {
            return Err(VerifyError::Key);
        }
        let signature = Signature::from_bytes(&self.signature);
        key.verify_strict(&message(&self.bytes), &signature).map_err(|_| VerifyError::Signature)?;
        let document = Document::decode(&self.bytes)?;
        if document.scope.covers(domain) {
            Ok(document)
        } else {
            Err(VerifyError::Scope { found: document.scope, own: domain.clone() })
        }
    }

    /// The generation its bytes name, signed by whomever.
    pub fn generation(&self) -> Option<u64> {
        self.bytes.get(1..9)?.try_into().ok().map(u64::from_le_bytes)
    }

    /// The key it says it was signed with.
    ///
    /// # Errors
    /// [`VerifyError::KeyForm`].
    pub fn verifying_key(&self) -> Result<VerifyingKey, VerifyError> {
        VerifyingKey::from_bytes(&self.key).map_err(|_| VerifyError::KeyForm)
    }
}
