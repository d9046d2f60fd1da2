//! The signed head: how long the chain was at an instant, and its last hash.
//!
//! A hash chain finds what was changed or left out; it cannot find that its end is missing, nor
//! that all of it was written anew. The head can: it is signed at least once a minute and kept in a
//! second place. What follows the last signed head is chained and not yet vouched for.

use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePublicKey, EncodePublicKey};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use lens_model::UnixNanos;
use lens_service::time::{parse_rfc3339, rfc3339};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

use super::record::{Link, unhex};
use crate::auth::token::hex;

const CONTEXT: &[u8] = b"lens telemetry audit head 1\0";

/// Where the chain stood, signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Number of the last record.
    pub n: u64,
    /// Its hash, hex.
    pub hash: String,
    /// When it was signed.
    #[schema(format = DateTime, example = "2026-11-21T19:40:20Z")]
    pub time: String,
    /// The key it was signed with, Ed25519, hex.
    pub public_key: String,
    /// The signature, Ed25519, hex.
    pub signature: String,
}

/// Why a head vouches for nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HeadFault {
    /// The text is not exactly what was written.
    #[error("the head is not as it was written: {0}")]
    Form(String),
    /// It was signed by another key.
    #[error("the head was signed by {found}, not by the key it is held against, {wanted}")]
    Key {
        /// Whose it says it is.
        found: String,
        /// Whose it should be.
        wanted: String,
    },
    /// The signature is wrong.
    #[error("the head's signature is wrong: it was changed")]
    Signature,
}

fn message(link: &Link, time: UnixNanos) -> Vec<u8> {
    [CONTEXT, &link.n.to_le_bytes(), &link.hash, &time.0.to_le_bytes()].concat()
}

impl Head {
    /// Signs where the chain stands.
    pub fn sign(link: &Link, now: UnixNanos, key: &SigningKey) -> Self {
        Self {
            n: link.n,
            hash: hex(&link.hash),
            time: rfc3339(now),
            public_key: hex(key.verifying_key().as_bytes()),
            signature: hex(&key.sign(&message(link, now)).to_bytes()),
        }
    }

    /// Its file's text.
    pub fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }

    /// Reads a head and checks its signature, against this key if one is given and otherwise
    /// against its own, which then proves only that whoever had that key signed it.
    ///
    /// # Errors
    /// [`HeadFault`].
    pub fn verify(text: &str, key: Option<&VerifyingKey>) -> Result<(Self, Link), HeadFault> {
        let form = |what: &str| HeadFault::Form(what.into());
        let head: Self =
            serde_json::from_str(text).map_err(|error| HeadFault::Form(error.to_string()))?;
        if head.text() != text {
            return Err(form("spaces, order or spelling differ"));
        }
        let own = unhex(&head.public_key).ok_or_else(|| form("public_key"))?;
        let own = VerifyingKey::from_bytes(&own).map_err(|_| form("public_key"))?;
        if let Some(key) = key.filter(|key| **key != own) {
            let wanted = hex(key.as_bytes());
            return Err(HeadFault::Key { found: head.public_key, wanted });
        }
        let hash = unhex(&head.hash).ok_or_else(|| form("hash"))?;
        let time = parse_rfc3339(&head.time).filter(|time| rfc3339(*time) == head.time);
        let time = time.ok_or_else(|| form("time"))?;
        let halves = head.signature.split_at_checked(64).ok_or_else(|| form("signature"))?;
        let (r, s) = (unhex(halves.0), unhex(halves.1));
        let (r, s) = r.zip(s).ok_or_else(|| form("signature"))?;
        let link = Link { n: head.n, hash };
        let signature = Signature::from_components(r, s);
        own.verify_strict(&message(&link, time), &signature).map_err(|_| HeadFault::Signature)?;
        Ok((head, link))
    }
}

/// A public key as people keep it: PEM, or 64 hex digits.
pub fn public_key(text: &str) -> Option<VerifyingKey> {
    let text = text.trim();
    match unhex(text) {
        Some(bytes) => VerifyingKey::from_bytes(&bytes).ok(),
        None => VerifyingKey::from_public_key_pem(text).ok(),
    }
}

/// The public key as PEM.
pub fn public_key_pem(key: &VerifyingKey) -> String {
    key.to_public_key_pem(LineEnding::LF).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_byte_of_a_head_that_differs_is_found() {
        let key = SigningKey::from_bytes(&[3; 32]);
        let link = Link { n: 41, hash: [9; 32] };
        let text = Head::sign(&link, UnixNanos(1_790_000_000_123_456_789), &key).text();
        let public = key.verifying_key();
        assert_eq!(Head::verify(&text, Some(&public)).unwrap().1, link);
        assert_eq!(public_key(&public_key_pem(&public)), Some(public));
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let Ok(other) = String::from_utf8(bytes) else { continue };
                assert!(Head::verify(&other, None).is_err(), "byte {at} bit {bit}");
            }
        }
        let other = SigningKey::from_bytes(&[4; 32]).verifying_key();
        assert!(matches!(Head::verify(&text, Some(&other)), Err(HeadFault::Key { .. })));
    }
}
