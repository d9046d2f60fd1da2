//! What agents are told: one document with everything a node needs.
//!
//! A fixed form of little-endian numbers and two texts, at most [`DOCUMENT_BYTES_MAX`] bytes.
//! Promise: decoding takes any bytes and gives a document whose every field is within its bounds,
//! or says which was not; a document has one spelling only.

use std::fmt;

use lens_model::limits::{DOCUMENT_BYTES_MAX, DOCUMENT_LIFE_MAX, NAME_BYTES_MAX};
use lens_model::{Flag, TrustDomain, UnixNanos};
use thiserror::Error;

use crate::assign::{Assignment, Share};

/// The first byte: the form of what follows.
const FORM: u8 = 1;

const PROGRESSIVE: u8 = 1;
const KILLED: u8 = 2;
const EMERGENCY: u8 = 4;

/// The highest bit of the flag word is the flag page's own kill switch and never told as a flag.
const RESERVED_BITS: u64 = 1 << 63;

/// Whom a document is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Whoever trusts the key.
    Fleet,
    /// The agents of one trust domain.
    TrustDomain(TrustDomain),
}

impl Scope {
    /// Whether an agent of this trust domain is meant.
    pub fn covers(&self, domain: &TrustDomain) -> bool {
        match self {
            Self::Fleet => true,
            Self::TrustDomain(own) => own == domain,
        }
    }

    fn as_str(&self) -> &str {
        match self {
            Self::Fleet => "",
            Self::TrustDomain(domain) => domain.as_str(),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fleet => f.write_str("fleet"),
            Self::TrustDomain(domain) => write!(f, "trust domain {domain}"),
        }
    }
}

/// One word of the control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Grows with every document; an agent never goes back.
    pub generation: u64,
    /// When it was made, by the aggregator's clock.
    pub issued_at: UnixNanos,
    /// When its canary ends unless a newer one came, by the aggregator's clock.
    pub expires_at: UnixNanos,
    /// Whom it is for.
    pub scope: Scope,
    /// Who is in the canary, and the kill switch.
    pub assignment: Assignment,
    /// The version that is rolled out; empty without a rollout.
    pub version: String,
    /// The flags that are on, by their bits.
    pub bits: u64,
    /// Whether every flag is off because of an emergency.
    pub emergency: bool,
}

/// Why bytes are no document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// Longer than any document.
    #[error("it has {0} bytes, more than {DOCUMENT_BYTES_MAX}")]
    TooLong(usize),
    /// It ends within a field.
    #[error("it ends within its {0}")]
    Truncated(&'static str),
    /// Bytes behind its last field.
    #[error("{0} bytes follow its last field")]
    Trailing(usize),
    /// A form this code does not know.
    #[error("its form is {0}, this code knows {FORM}")]
    Form(u8),
    /// A field outside its bounds.
    #[error("its {0} is outside its bounds")]
    Field(&'static str),
}

impl Document {
    /// Appends its one spelling.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(FORM);
        for number in [self.generation, self.issued_at.0, self.expires_at.0, self.bits] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.assignment.salt.to_le_bytes());
        out.extend_from_slice(&self.assignment.share.ten_thousandths().to_le_bytes());
        let mark = |on: bool, mark: u8| if on { mark } else { 0 };
        out.push(
            mark(self.assignment.progressive, PROGRESSIVE)
                | mark(self.assignment.killed, KILLED)
                | mark(self.emergency, EMERGENCY),
        );
        for text in [self.scope.as_str(), &self.version] {
            // 64 bytes at most: scopes by their type, versions by `Control`.
            out.push(u8::try_from(text.len()).unwrap_or(0));
            out.extend_from_slice(text.as_bytes());
        }
    }

    /// Reads the one document that `bytes` are.
    ///
    /// # Errors
    /// [`DocumentError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DocumentError> {
        if bytes.len() > DOCUMENT_BYTES_MAX {
            return Err(DocumentError::TooLong(bytes.len()));
        }
        let mut rest = Rest(bytes);
        match rest.bytes::<1>("form")?[0] {
            FORM => {}
            other => return Err(DocumentError::Form(other)),
        }
        let generation = rest.u64("generation")?;
        let issued_at = UnixNanos(rest.u64("issued_at")?);
        let expires_at = UnixNanos(rest.u64("expires_at")?);
        let bits = rest.u64("bits")?;
        let salt = u32::from_le_bytes(rest.bytes("salt")?);
        let share = u16::from_le_bytes(rest.bytes("share")?);
        let share = Share::new(share).ok_or(DocumentError::Field("share"))?;
        let marks = rest.bytes::<1>("marks")?[0];
        let scope = scope(rest.text("scope")?)?;
        let version = rest.text("version")?.to_owned();
        if !rest.0.is_empty() {
            return Err(DocumentError::Trailing(rest.0.len()));
        }
        let on = |mark: u8| marks & mark != 0;
        let assignment =
            Assignment { salt, share, progressive: on(PROGRESSIVE), killed: on(KILLED) };
        let emergency = on(EMERGENCY);
        let document =
            Self { generation, issued_at, expires_at, scope, assignment, version, bits, emergency };
        document.check(marks)?;
        Ok(document)
    }

    fn check(&self, marks: u8) -> Result<(), DocumentError> {
        let bad = |field| Err(DocumentError::Field(field));
        if self.generation == 0 {
            return bad("generation");
        }
        let life = self.expires_at.0.checked_sub(self.issued_at.0);
        if !life.is_some_and(|life| (1..=DOCUMENT_LIFE_MAX.0).contains(&life)) {
            return bad("expires_at");
        }
        if marks & !(PROGRESSIVE | KILLED | EMERGENCY) != 0 {
            return bad("marks");
        }
        if self.bits & RESERVED_BITS != 0 {
            return bad("bits");
        }
        let version = self.version.as_bytes();
        if version.len() > NAME_BYTES_MAX || !version.iter().all(u8::is_ascii_graphic) {
            return bad("version");
        }
        Ok(())
    }

    /// Whether its time is up.
    pub fn is_expired(&self, now: UnixNanos) -> bool {
        now >= self.expires_at
    }

    /// Who is in the canary at `now`: nobody once its time is up, because then nobody watches it.
    /// Flags and kill switch have no such end.
    pub fn assignment_at(&self, now: UnixNanos) -> Assignment {
        let share = if self.is_expired(now) { Share::NONE } else { self.assignment.share };
        Assignment { share, ..self.assignment }
    }

    /// Whether a flag is on.
    pub const fn flag(&self, flag: Flag) -> bool {
        !self.assignment.killed && self.bits & flag.bit() != 0
    }
}

fn scope(text: &str) -> Result<Scope, DocumentError> {
    if text.is_empty() {
        return Ok(Scope::Fleet);
    }
    match TrustDomain::new(text) {
        // Some names have more than one spelling; a document has one.
        Ok(domain) if domain.as_str() == text => Ok(Scope::TrustDomain(domain)),
        _ => Err(DocumentError::Field("scope")),
    }
}

/// What is left to read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn bytes<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DocumentError> {
        let (found, rest) = self.0.split_first_chunk().ok_or(DocumentError::Truncated(field))?;
        self.0 = rest;
        Ok(*found)
    }

    fn u64(&mut self, field: &'static str) -> Result<u64, DocumentError> {
        self.bytes(field).map(u64::from_le_bytes)
    }

    fn text(&mut self, field: &'static str) -> Result<&'a str, DocumentError> {
        let length = usize::from(self.bytes::<1>(field)?[0]);
        let (text, rest) =
            self.0.split_at_checked(length).ok_or(DocumentError::Truncated(field))?;
        self.0 = rest;
        std::str::from_utf8(text).map_err(|_| DocumentError::Field(field))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn document() -> Document {
        Document {
            generation: 7,
            issued_at: UnixNanos(1_000),
            expires_at: UnixNanos(2_000),
            scope: Scope::TrustDomain(TrustDomain::new("lens.test").unwrap()),
            assignment: Assignment {
                salt: 0xdead_beef,
                share: Share::percent(25.0).unwrap(),
                progressive: true,
                killed: false,
            },
            version: "2.0.0".into(),
            bits: Flag::StageBEnabled.bit(),
            emergency: false,
        }
    }

    fn spelled(document: &Document) -> Vec<u8> {
        let mut out = Vec::new();
        document.encode(&mut out);
        out
    }

    #[test]
    fn a_document_keeps_its_bytes_and_reads_back_from_them() {
        let bytes = spelled(&document());
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = [
            "01",
            "0700000000000000",
            "e803000000000000",
            "d007000000000000",
            "2000000000000000",
            "efbeadde",
            "c409",
            "01",
            "096c656e732e74657374",
            "05322e302e30",
        ];
        assert_eq!(hex, expected.concat());
        assert_eq!(Document::decode(&bytes), Ok(document()));
    }

    #[test]
    fn every_cut_and_every_addition_is_refused() {
        let bytes = spelled(&document());
        for length in 0..bytes.len() {
            let error = Document::decode(&bytes[..length]).unwrap_err();
            assert!(matches!(error, DocumentError::Truncated(_)), "{length}: {error}");
        }
        let more = [&bytes[..], b"x"].concat();
        assert_eq!(Document::decode(&more), Err(DocumentError::Trailing(1)));
        let long = vec![1; DOCUMENT_BYTES_MAX + 1];
        assert_eq!(Document::decode(&long), Err(DocumentError::TooLong(long.len())));
    }

    #[test]
    fn every_field_is_bounded_at_its_bound() {
        let refused = |change: &dyn Fn(&mut Document)| {
            let mut document = document();
            change(&mut document);
            Document::decode(&spelled(&document)).err()
        };
        let field = |name| Some(DocumentError::Field(name));
        let life = DOCUMENT_LIFE_MAX.0;
        assert_eq!(refused(&|d| d.generation = 0), field("generation"));
        assert_eq!(refused(&|d| d.expires_at = d.issued_at), field("expires_at"));
        assert_eq!(refused(&|d| d.expires_at = UnixNanos(d.issued_at.0 + life)), None);
        assert_eq!(refused(&|d| d.expires_at = UnixNanos(1_001 + life)), field("expires_at"));
        assert_eq!(refused(&|d| d.bits = 1 << 62), None);
        assert_eq!(refused(&|d| d.bits = 1 << 63), field("bits"));
        assert_eq!(refused(&|d| d.version = "x".repeat(64)), None);
        assert_eq!(refused(&|d| d.version = "x".repeat(65)), field("version"));
        assert_eq!(refused(&|d| d.version = "a b".into()), field("version"));
        assert_eq!(refused(&|d| d.scope = Scope::Fleet), None);
        let mut raw = spelled(&document());
        raw[37..39].copy_from_slice(&10_001_u16.to_le_bytes());
        assert_eq!(Document::decode(&raw), Err(DocumentError::Field("share")));
        let mut raw = spelled(&document());
        raw[39] = 8;
        assert_eq!(Document::decode(&raw), Err(DocumentError::Field("marks")));
        raw[0] = 2;
        assert_eq!(Document::decode(&raw), Err(DocumentError::Form(2)));
    }

    #[test]
    fn an_expired_document_has_no_canary_and_keeps_its_flags() {
        let document = document();
        let at = |nanos| document.assignment_at(UnixNanos(nanos)).effective();
        assert_eq!(at(1_999).as_percent(), 25.0);
        assert_eq!(at(2_000), Share::NONE);
        assert!(document.flag(Flag::StageBEnabled));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_document_of_one_spelling_or_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            at in 0_usize..60, byte in any::<u8>(),
        ) {
            let mut near = spelled(&document());
            let length = near.len();
            near[at % length] = byte;
            for bytes in [bytes, near] {
                if let Ok(document) = Document::decode(&bytes) {
                    prop_assert_eq!(spelled(&document), bytes);
                }
            }
        }
    }
}
