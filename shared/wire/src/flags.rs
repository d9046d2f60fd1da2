//! FLAGS and APPLIED: what the control plane decided, and what became of it.
//!
//! A document travels as bytes that its control key signed: this crate neither reads nor believes
//! it. Minor version 1 on.

use lens_model::Incarnation;
use lens_model::limits::DOCUMENT_BYTES_MAX;

use crate::error::FrameError;
use crate::frame::put_frame;
use crate::kind::Kind;
use crate::read::Reader;

/// A signed document. (WIRE-142)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flags {
    /// The control key that signed it, Ed25519.
    pub key: [u8; 32],
    /// The signature.
    pub signature: [u8; 64],
    /// The document's bytes, at most [`DOCUMENT_BYTES_MAX`].
    pub document: Vec<u8>,
}

impl Flags {
    /// Appends the frame; a document longer than any is cut, and then no longer what was signed.
    pub fn encode(&self, incarnation: Incarnation, out: &mut Vec<u8>) {
        let document = &self.document[..self.document.len().min(DOCUMENT_BYTES_MAX)];
        put_frame(Kind::Flags, Some(incarnation), out, |out| {
            out.extend_from_slice(&self.key);
            out.extend_from_slice(&self.signature);
            #[allow(clippy::cast_possible_truncation)]
            out.extend_from_slice(&(document.len() as u16).to_le_bytes());
            out.extend_from_slice(document);
        });
    }

    pub(crate) fn read(mut r: Reader<'_>) -> Result<Self, FrameError> {
        let (key, signature) = (r.array("key")?, r.array("signature")?);
        let length = usize::from(r.u16("document")?);
        // WIRE-143
        if length > DOCUMENT_BYTES_MAX {
            return Err(r.bad("document"));
        }
        let document = r.bytes(length, "document")?.to_vec();
        r.finish()?;
        Ok(Self { key, signature, document })
    }
}

/// Why an agent did not take the last document, or took it with trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It took it.
    None,
    /// Another control key signed it than the one the agent holds.
    Key,
    /// The signature is wrong.
    Signature,
    /// It cannot be read.
    Document,
    /// It is for others.
    Scope,
    /// Its time was up.
    Expired,
    /// It is older than what the agent has.
    Older,
    /// It holds, but the agent could not make it durable.
    Storage,
    /// Something a later version names. (WIRE-145)
    Other(u8),
}

impl Trouble {
    /// The code on the wire.
    pub const fn code(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Key => 1,
            Self::Signature => 2,
            Self::Document => 3,
            Self::Scope => 4,
            Self::Expired => 5,
            Self::Older => 6,
            Self::Storage => 7,
            Self::Other(code) => code,
        }
    }

    /// The trouble with this code.
    pub const fn from_code(code: u8) -> Self {
        match code {
            0 => Self::None,
            1 => Self::Key,
            2 => Self::Signature,
            3 => Self::Document,
            4 => Self::Scope,
            5 => Self::Expired,
            6 => Self::Older,
            7 => Self::Storage,
            other => Self::Other(other),
        }
    }

    /// In a few words; `None` without trouble.
    pub const fn as_str(self) -> Option<&'static str> {
        Some(match self {
            Self::None => return None,
            Self::Key => "signed by another control key than the agent holds",
            Self::Signature => "signature wrong",
            Self::Document => "document cannot be read",
            Self::Scope => "for another trust domain",
            Self::Expired => "expired when it came",
            Self::Older => "older than what the agent has",
            Self::Storage => "in force, but not durable at the agent",
            Self::Other(_) => "a trouble this version has no name for",
        })
    }
}

/// What an agent has in force. (WIRE-145)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The generation in force; 0 before the first.
    pub generation: u64,
    /// Flag pages of nodes that carry it.
    pub pages: u32,
    /// Flag pages that could not be written.
    pub failed: u32,
    /// What was wrong with the last document.
    pub trouble: Trouble,
}

impl Applied {
    /// Nothing yet.
    pub const NOTHING: Self = Self { generation: 0, pages: 0, failed: 0, trouble: Trouble::None };

    /// Appends the frame.
    pub fn encode(&self, incarnation: Incarnation, out: &mut Vec<u8>) {
        put_frame(Kind::Applied, Some(incarnation), out, |out| {
            out.extend_from_slice(&self.generation.to_le_bytes());
            out.extend_from_slice(&self.pages.to_le_bytes());
            out.extend_from_slice(&self.failed.to_le_bytes());
            out.push(self.trouble.code());
        });
    }

    pub(crate) fn read(mut r: Reader<'_>) -> Result<Self, FrameError> {
        let applied = Self {
            generation: r.u64("generation")?,
            pages: r.u32("pages")?,
            failed: r.u32("failed")?,
            trouble: Trouble::from_code(r.u8("trouble")?),
        };
        r.finish()?;
        Ok(applied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_trouble_reads_back_from_its_code() {
        // WIRE-145
        for code in 0..=u8::MAX {
            let trouble = Trouble::from_code(code);
            assert_eq!(trouble.code(), code);
            assert_eq!(trouble.as_str().is_none(), code == 0);
        }
    }
}
