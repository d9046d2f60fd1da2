//! One record of the chain, and the line it is kept as.
//!
//! A line is `{"hash":"<64 hex>","record":{…}}` and a newline; the hash is BLAKE3 over the hash
//! before it and the exact bytes of `{…}`. Every byte of a line is either hashed, a hash, or fixed,
//! so no byte can differ unnoticed. Bound: [`AUDIT_RECORD_BYTES_MAX`] a line; texts are cut to fit.

use lens_model::UnixNanos;
use lens_model::limits::AUDIT_RECORD_BYTES_MAX;
use lens_service::time::rfc3339;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

use crate::auth::token::hex;

/// The hash before the first record.
pub const GENESIS: [u8; 32] = [0; 32];

const BEFORE_HASH: &[u8] = b"{\"hash\":\"";
const BEFORE_RECORD: &[u8] = b"\",\"record\":";
const AFTER_RECORD: &[u8] = b"}\n";
const HASH_DIGITS: usize = 64;

/// Longest principal, credential, role or verb, and longest target, characters.
const WORD_CHARS_MAX: usize = 128;
const TARGET_CHARS_MAX: usize = 256;

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// It may be done, and is done next.
    Allowed,
    /// It was not let in.
    Refused,
    /// It was done before it was written here: stopping does not wait for a disk.
    Done,
}

/// What someone asked, to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Who.
    pub principal: String,
    /// By which token or certificate.
    pub credential: String,
    /// Under which roles.
    pub role: String,
    /// What.
    pub verb: String,
    /// Of what.
    pub target: String,
    /// The arguments, kept as a digest.
    pub arguments: Vec<u8>,
    /// What became of it.
    pub decision: Decision,
}

/// One record of the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Its number, from 1, without gaps.
    pub n: u64,
    /// When, by the aggregator's clock.
    #[schema(format = DateTime, example = "2026-11-21T19:40:20Z")]
    pub time: String,
    /// Who asked.
    #[schema(example = "alice")]
    pub principal: String,
    /// Id of the token, or serial of the certificate, that said so.
    #[schema(example = "token:8f0c5a2e91d34b77")]
    pub credential: String,
    /// The roles it carried.
    #[schema(example = "admin")]
    pub role: String,
    /// What was asked.
    #[schema(example = "agent.revoke")]
    pub verb: String,
    /// Of what.
    #[schema(example = "host-7")]
    pub target: String,
    /// BLAKE3 of the request's arguments, hex.
    pub arguments: String,
    /// What became of it.
    pub decision: Decision,
    /// Refused attempts before this one that were counted and not recorded.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub suppressed: u64,
    /// The hash before it, hex.
    pub previous: String,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // The signature serde asks for.
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Why a line does not continue the chain.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LineFault {
    /// It is longer than any record.
    #[error("a line of more than {AUDIT_RECORD_BYTES_MAX} bytes")]
    Long,
    /// It is not a whole line of the right form.
    #[error("not a whole record")]
    Form,
    /// Its hash is not that of its bytes behind the one before.
    #[error("the hash does not fit: changed, or not what followed")]
    Hash,
    /// Its bytes hash rightly and are no record, or one of another place.
    #[error("out of place: {0}")]
    Content(String),
}

/// Where the chain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Number of the last record; 0 before the first.
    pub n: u64,
    /// Its hash.
    pub hash: [u8; 32],
}

impl Default for Link {
    fn default() -> Self {
        Self { n: 0, hash: GENESIS }
    }
}

fn cut(text: &str, chars: usize) -> String {
    text.chars().take(chars).collect()
}

fn chained(previous: &[u8; 32], record: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("lens telemetry 2026-11 audit record");
    hasher.update(previous).update(record);
    *hasher.finalize().as_bytes()
}

impl Link {
    /// The line of the next record, and where the chain stands behind it.
    pub fn next(&self, entry: &Entry, suppressed: u64, now: UnixNanos) -> (Vec<u8>, Self) {
        let record = Record {
            n: self.n + 1,
            time: rfc3339(now),
            principal: cut(&entry.principal, WORD_CHARS_MAX),
            credential: cut(&entry.credential, WORD_CHARS_MAX),
            role: cut(&entry.role, WORD_CHARS_MAX),
            verb: cut(&entry.verb, WORD_CHARS_MAX),
            target: cut(&entry.target, TARGET_CHARS_MAX),
            arguments: hex(blake3::hash(&entry.arguments).as_bytes()),
            decision: entry.decision,
            suppressed,
            previous: hex(&self.hash),
        };
        let json = serde_json::to_vec(&record).unwrap_or_default();
        let hash = chained(&self.hash, &json);
        let digits = hex(&hash);
        let line = [BEFORE_HASH, digits.as_bytes(), BEFORE_RECORD, &json, AFTER_RECORD].concat();
        (line, Self { n: record.n, hash })
    }

    /// Reads the line, newline included, that must come next.
    ///
    /// # Errors
    /// [`LineFault`]; the chain then ends here.
    pub fn follow(&mut self, line: &[u8]) -> Result<Record, LineFault> {
        let (digits, json) = parts(line)?;
        let hash = chained(&self.hash, json);
        if hex(&hash).as_bytes() != digits {
            return Err(LineFault::Hash);
        }
        let record: Record =
            serde_json::from_slice(json).map_err(|error| LineFault::Content(error.to_string()))?;
        if record.n != self.n + 1 || record.previous != hex(&self.hash) {
            return Err(LineFault::Content(format!("number {} behind {}", record.n, self.n)));
        }
        *self = Self { n: record.n, hash };
        Ok(record)
    }

    /// Where the chain stood before this line, by what it says itself.
    ///
    /// # Errors
    /// [`LineFault`] when it is no record.
    pub fn before(line: &[u8]) -> Result<Self, LineFault> {
        let (_, json) = parts(line)?;
        let content = |text: String| LineFault::Content(text);
        let record: Record =
            serde_json::from_slice(json).map_err(|error| content(error.to_string()))?;
        let hash = unhex(&record.previous).ok_or_else(|| content("no hash before it".into()))?;
        let n = record.n.checked_sub(1).ok_or_else(|| content("number 0".into()))?;
        Ok(Self { n, hash })
    }
}

fn parts(line: &[u8]) -> Result<(&[u8], &[u8]), LineFault> {
    if line.len() > AUDIT_RECORD_BYTES_MAX {
        return Err(LineFault::Long);
    }
    let rest = line.strip_prefix(BEFORE_HASH).ok_or(LineFault::Form)?;
    let (digits, rest) = rest.split_at_checked(HASH_DIGITS).ok_or(LineFault::Form)?;
    let rest = rest.strip_prefix(BEFORE_RECORD).ok_or(LineFault::Form)?;
    Ok((digits, rest.strip_suffix(AFTER_RECORD).ok_or(LineFault::Form)?))
}

/// 32 bytes from lower-case hex.
pub(crate) fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let good = |b: u8| b.is_ascii_digit() || matches!(b, b'a'..=b'f');
    if text.len() != HASH_DIGITS || !text.bytes().all(good) {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(at * 2..at * 2 + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_record_stays_within_its_bound_and_reads_back() {
        let long = "\u{1F980}\"".repeat(10_000);
        let entry = Entry {
            principal: long.clone(),
            credential: "\u{1}".repeat(9_000),
            role: long.clone(),
            verb: "agent.revoke".into(),
            target: long,
            arguments: vec![0; 1 << 20],
            decision: Decision::Refused,
        };
        let (line, after) = Link::default().next(&entry, u64::MAX, UnixNanos(u64::MAX / 2));
        assert!(line.len() <= AUDIT_RECORD_BYTES_MAX, "{}", line.len());
        let mut link = Link::default();
        assert_eq!(link.follow(&line).unwrap().suppressed, u64::MAX);
        assert_eq!(link, after);
        assert_eq!(Link::before(&line).unwrap(), Link::default());
        let long = [&line[..line.len() - 1], &vec![b' '; AUDIT_RECORD_BYTES_MAX]].concat();
        assert_eq!(Link::default().follow(&long), Err(LineFault::Long));
    }
}
