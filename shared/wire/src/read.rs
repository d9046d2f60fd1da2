//! Taking fields from the front of a body, and putting texts at the end of one.
//!
//! Promise: no read goes past the body; a field that is missing, cut or malformed is a
//! [`FrameError::Field`] with its name.

use lens_hist::block::take_varint;

use crate::error::FrameError;
use crate::kind::Kind;
use crate::text::Text;

/// What is left of a body.
pub(crate) struct Reader<'a> {
    pub(crate) kind: Kind,
    rest: &'a [u8],
}

macro_rules! fixed {
    ($($name:ident: $type:ty),*) => {$(
        /// A number of fixed width, least significant byte first. (WIRE-020)
        pub(crate) fn $name(&mut self, field: &'static str) -> Result<$type, FrameError> {
            let (bytes, rest) = self.rest.split_first_chunk().ok_or_else(|| self.bad(field))?;
            self.rest = rest;
            Ok(<$type>::from_le_bytes(*bytes))
        }
    )*};
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(kind: Kind, body: &'a [u8]) -> Self {
        Self { kind, rest: body }
    }

    fixed!(u8: u8, u16: u16, u32: u32, u64: u64, u128: u128);

    /// A number of variable width. (WIRE-021)
    pub(crate) fn varint(&mut self, field: &'static str) -> Result<u64, FrameError> {
        let (value, rest) = take_varint(self.rest).map_err(|_| self.bad(field))?;
        self.rest = rest;
        Ok(value)
    }

    /// A count of entries, bounded.
    pub(crate) fn count(&mut self, what: &'static str, max: usize) -> Result<usize, FrameError> {
        let declared = self.varint(what)?;
        usize::try_from(declared).ok().filter(|count| *count <= max).ok_or(FrameError::TooMany {
            kind: self.kind,
            what,
            declared,
            max,
        })
    }

    /// This many bytes, known beforehand.
    pub(crate) fn array<const N: usize>(
        &mut self,
        field: &'static str,
    ) -> Result<[u8; N], FrameError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or_else(|| self.bad(field))?;
        self.rest = rest;
        Ok(*bytes)
    }

    /// This many bytes.
    pub(crate) fn bytes(&mut self, n: usize, field: &'static str) -> Result<&'a [u8], FrameError> {
        let (bytes, rest) = self.rest.split_at_checked(n).ok_or_else(|| self.bad(field))?;
        self.rest = rest;
        Ok(bytes)
    }

    /// A text behind its length in one byte. (WIRE-022)
    pub(crate) fn str(&mut self, field: &'static str) -> Result<&'a str, FrameError> {
        let length = usize::from(self.u8(field)?);
        std::str::from_utf8(self.bytes(length, field)?).map_err(|_| self.bad(field))
    }

    /// A bounded text behind its length in one byte. (WIRE-022)
    pub(crate) fn text<const MAX: usize>(
        &mut self,
        field: &'static str,
    ) -> Result<Text<MAX>, FrameError> {
        Text::new(self.str(field)?).map_err(|_| self.bad(field))
    }

    /// A refusal over this field.
    pub(crate) const fn bad(&self, field: &'static str) -> FrameError {
        FrameError::Field { kind: self.kind, field }
    }

    /// What has not been read.
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Goes on at `rest`, a tail of what has not been read.
    pub(crate) const fn go_on(&mut self, rest: &'a [u8]) {
        self.rest = rest;
    }

    /// The body ends here. (WIRE-013)
    pub(crate) const fn finish(self) -> Result<(), FrameError> {
        match self.rest.len() {
            0 => Ok(()),
            extra => Err(FrameError::Trailing { extra }),
        }
    }
}

/// Appends a text of at most 255 bytes behind its length. (WIRE-022)
pub(crate) fn put_str(out: &mut Vec<u8>, text: &str) {
    debug_assert!(text.len() <= 255, "bounded by its type");
    #[allow(clippy::cast_possible_truncation)]
    out.push(text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}
