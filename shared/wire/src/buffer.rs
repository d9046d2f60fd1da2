//! Cutting a stream of bytes into frames, however the bytes happen to arrive.
//!
//! A frame that lies whole in the bytes at hand is given as they stand, without a copy; one that
//! arrives in pieces is gathered, each byte copied once into place. A body longer than the bound
//! is refused as soon as its length is known. Bound: one frame, and [`KEPT_BYTES_MAX`] in between.

use lens_model::limits::FRAME_BYTES_MAX;

use crate::error::FrameError;
use crate::frame::frame_len;

/// Memory kept from one gathered frame to the next, bytes: most frames fit, few are larger.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// Gathers frames from a stream.
#[derive(Debug)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
    body_max: usize,
    given: bool,
}

impl Default for FrameBuffer {
    fn default() -> Self {
        Self::new(FRAME_BYTES_MAX)
    }
}

impl FrameBuffer {
    /// A buffer that refuses bodies above `body_max` bytes, at most [`FRAME_BYTES_MAX`].
    pub fn new(body_max: usize) -> Self {
        Self { bytes: Vec::new(), body_max: body_max.min(FRAME_BYTES_MAX), given: false }
    }

    /// The next whole frame, moving the start of `chunk` past what was taken of it.
    ///
    /// Call until it gives `None`: then `chunk` is empty and more bytes are needed.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] when the next frame declares a body above the bound. The stream is
    /// unusable from there on, and every further call says so. (WIRE-011)
    pub fn next_frame<'a, 'c: 'a>(
        &'a mut self,
        chunk: &mut &'c [u8],
    ) -> Result<Option<&'a [u8]>, FrameError> {
        if self.given {
            self.given = false;
            self.bytes.clear();
            self.bytes.shrink_to(KEPT_BYTES_MAX);
        }
        if self.bytes.is_empty()
            && let Ok(Some(length)) = frame_len(chunk, self.body_max)
            && let Some((frame, rest)) = chunk.split_at_checked(length)
        {
            *chunk = rest;
            return Ok(Some(frame));
        }
        // A refused length is kept here, so that the stream stays refused.
        self.gather(4, chunk);
        let Some(length) = frame_len(&self.bytes, self.body_max)? else {
            return Ok(None);
        };
        self.gather(length, chunk);
        if self.bytes.len() < length {
            return Ok(None);
        }
        self.given = true;
        Ok(Some(&self.bytes))
    }

    /// Bytes of an unfinished frame; a stream that ends while there are some was cut.
    pub fn pending_bytes(&self) -> usize {
        if self.given { 0 } else { self.bytes.len() }
    }

    /// Takes from `chunk` what is missing to `length` bytes, as far as it reaches.
    fn gather(&mut self, length: usize, chunk: &mut &[u8]) {
        let missing = length.saturating_sub(self.bytes.len()).min(chunk.len());
        let (taken, rest) = chunk.split_at(missing);
        self.bytes.extend_from_slice(taken);
        *chunk = rest;
    }
}
