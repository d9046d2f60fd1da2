//! Fixed-offset fields in a byte buffer, native byte order: bounds are those of our own constants.

/// Copies `N` bytes at `offset`. The offsets are constants below the buffer's length.
pub(crate) fn take<const N: usize>(buffer: &[u8], offset: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&buffer[offset..offset + N]);
    out
}

pub(crate) fn get_u16(buffer: &[u8], offset: usize) -> u16 {
    u16::from_ne_bytes(take(buffer, offset))
}

pub(crate) fn get_u32(buffer: &[u8], offset: usize) -> u32 {
    u32::from_ne_bytes(take(buffer, offset))
}

pub(crate) fn get_u64(buffer: &[u8], offset: usize) -> u64 {
    u64::from_ne_bytes(take(buffer, offset))
}

pub(crate) fn get_u128(buffer: &[u8], offset: usize) -> u128 {
    u128::from_ne_bytes(take(buffer, offset))
}

pub(crate) fn put(buffer: &mut [u8], offset: usize, bytes: &[u8]) {
    buffer[offset..offset + bytes.len()].copy_from_slice(bytes);
}

/// A length byte and the text. The text is at most 255 bytes and fits its field: checked by callers.
pub(crate) fn put_text(buffer: &mut [u8], offset: usize, text: &str) {
    buffer[offset] = u8::try_from(text.len()).expect("names are checked to be short");
    put(buffer, offset + 1, text.as_bytes());
}

/// Text of a length byte and at most `max` bytes, or none when longer or not UTF-8.
pub(crate) fn get_text(buffer: &[u8], offset: usize, max: usize) -> Option<&str> {
    let length = usize::from(buffer[offset]);
    if length > max {
        return None;
    }
    core::str::from_utf8(&buffer[offset + 1..offset + 1 + length]).ok()
}

/// 64-bit FNV-1a: tells a half-written or shifted entry from a whole one. Not a secret.
pub(crate) fn check_of(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
