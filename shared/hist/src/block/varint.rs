//! LEB128 numbers, shared by blocks and frames: canonical, at most ten bytes.

use super::BlockError;

/// Appends a number, seven bits a byte, lowest first.
#[inline]
#[allow(clippy::cast_possible_truncation)]
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes [`put_varint`] takes for a number.
#[inline]
pub const fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Takes a number from the front of `bytes`.
///
/// # Errors
/// [`BlockError::Truncated`] when the bytes end first; [`BlockError::Varint`] when it does not
/// fit 64 bits or carries a needless last byte (each number has one encoding only).
#[inline]
pub fn take_varint(bytes: &[u8]) -> Result<(u64, &[u8]), BlockError> {
    if let Some((&byte, rest)) = bytes.split_first()
        && byte < 0x80
    {
        return Ok((u64::from(byte), rest));
    }
    take_long(bytes)
}

fn take_long(bytes: &[u8]) -> Result<(u64, &[u8]), BlockError> {
    let mut value = 0_u64;
    for (at, &byte) in bytes.iter().enumerate().take(10) {
        let bits = u64::from(byte & 0x7F);
        if at == 9 && bits > 1 {
            return Err(BlockError::Varint);
        }
        value |= bits << (7 * at);
        if byte < 0x80 {
            let canonical = at == 0 || byte != 0;
            return if canonical { Ok((value, &bytes[at + 1..])) } else { Err(BlockError::Varint) };
        }
    }
    Err(if bytes.len() >= 10 { BlockError::Varint } else { BlockError::Truncated })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_number_comes_back_and_takes_the_bytes_it_says(value in any::<u64>(), shift in 0..64) {
            let value = value >> shift;
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            prop_assert_eq!(bytes.len(), varint_len(value));
            bytes.push(7);
            prop_assert_eq!(take_varint(&bytes), Ok((value, &[7][..])));
        }
    }

    #[test]
    fn a_number_with_a_second_encoding_or_too_many_bits_is_refused() {
        assert_eq!(take_varint(&[0x80, 0x00]), Err(BlockError::Varint));
        assert_eq!(take_varint(&[0xFF; 10]), Err(BlockError::Varint));
        assert_eq!(take_varint(&[0xFF; 9]), Err(BlockError::Truncated));
        assert_eq!(take_varint(&[]), Err(BlockError::Truncated));
    }
}
