//! One flipped bit in a record that was whole once, found by its check sum and turned back.
//!
//! CRC32C is linear: a single flipped bit changes the sum by a value that only depends on how far
//! from the end it stands, and no two places of a record of up to 2^31 bits share one. So the
//! difference between the sum that is stored and the one that is computed names the bit.
//! Refusal: only a record known to have been durable is tried, never the end of a journal, where
//! bytes may be those of a write that was torn; and only one bit. A record that lost more than that
//! is taken for a whole one with a chance of its bits over 2^32, 1 in 130,000 for 4 KiB, and then must
//! still be the one that is due and make sense to whoever reads it.

use std::io;

use super::format::{LENGTH_AT, RECORD_HEADER_BYTES, RecordHead};
use super::segment::{Checks, Found};
use crate::disk::DiskFile;

/// CRC32C's polynomial, lowest power first.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// Bytes of a header that the sum does not cover: the sum itself.
const SUM_BYTES: usize = 4;

/// A record with one bit turned back.
pub(super) struct Repaired {
    pub(super) found: Found,
    /// The byte that was wrong: where it stands in the file, and what it has to be.
    pub(super) byte: (u64, u8),
}

/// Which record it must be, and where it may end.
#[derive(Clone, Copy)]
pub(super) struct Due {
    pub(super) number: u64,
    pub(super) position: u64,
    pub(super) at: u64,
    pub(super) end: u64,
}

/// The record that is due at an offset, if a single bit of it is wrong.
pub(super) fn repair(
    file: &dyn DiskFile,
    due: Due,
    checks: &Checks,
) -> io::Result<Option<Repaired>> {
    let mut head = [0; RECORD_HEADER_BYTES];
    if due.end.saturating_sub(due.at) < head.len() as u64
        || file.read_at(&mut head, due.at)? < head.len()
    {
        return Ok(None);
    }
    let length = RecordHead::decode(&head).length;
    // A length that is wrong says nothing about where the record ends: each other one is tried.
    for flipped in std::iter::once(0).chain((0..u32::BITS).map(|bit| 1 << bit)) {
        let Some(mut bytes) = record(file, due, &head, length ^ flipped, checks)? else { continue };
        let wrong = if flipped == 0 {
            turn_back(&mut bytes)
        } else {
            let at = LENGTH_AT + (flipped.trailing_zeros() / 8) as usize;
            (difference(&bytes) == 0).then_some(at)
        };
        if let Some(repaired) = wrong.and_then(|wrong| accept(bytes, wrong, due, checks)) {
            return Ok(Some(repaired));
        }
    }
    Ok(None)
}

/// Header and payload of a record of this length, if there is room for it.
fn record(
    file: &dyn DiskFile,
    due: Due,
    head: &[u8; RECORD_HEADER_BYTES],
    length: u32,
    checks: &Checks,
) -> io::Result<Option<Vec<u8>>> {
    let room = due.end - due.at - RECORD_HEADER_BYTES as u64;
    if length as usize > checks.record_bytes_max || u64::from(length) > room {
        return Ok(None);
    }
    let mut bytes = head.to_vec();
    bytes[LENGTH_AT..LENGTH_AT + 4].copy_from_slice(&length.to_le_bytes());
    bytes.resize(RECORD_HEADER_BYTES + length as usize, 0);
    let begin = due.at + RECORD_HEADER_BYTES as u64;
    let read = file.read_at(&mut bytes[RECORD_HEADER_BYTES..], begin)?;
    Ok((read == length as usize).then_some(bytes))
}

/// The sum that is stored, less the one that is computed.
fn difference(bytes: &[u8]) -> u32 {
    let (stored, covered) = bytes.split_at(SUM_BYTES);
    let stored = stored.iter().rev().fold(0, |sum, byte| (sum << 8) | u32::from(*byte));
    stored ^ crc32c::crc32c(covered)
}

/// Turns back the one bit that is wrong and gives its byte; `None` when it is not one bit.
fn turn_back(bytes: &mut [u8]) -> Option<usize> {
    let difference = difference(bytes);
    let (at, bit) = if difference.is_power_of_two() {
        let bit = difference.trailing_zeros() as usize;
        (bit / 8, bit % 8)
    } else {
        let covered = (bytes.len() - SUM_BYTES) * 8;
        let mut sum = 1_u32;
        let from_end = (0..covered).find(|_| {
            sum = if sum & 1 == 1 { (sum >> 1) ^ POLYNOMIAL } else { sum >> 1 };
            sum == difference
        })?;
        (bytes.len() - 1 - from_end / 8, 7 - from_end % 8)
    };
    bytes[at] ^= 1 << bit;
    Some(at)
}

/// The record, if it is the one that is due.
fn accept(mut bytes: Vec<u8>, wrong: usize, due: Due, checks: &Checks) -> Option<Repaired> {
    let byte = (due.at + wrong as u64, bytes[wrong]);
    let payload = bytes.split_off(RECORD_HEADER_BYTES);
    let bytes = bytes.try_into().ok()?;
    let head = RecordHead::decode(&bytes);
    let own = head.number == due.number
        && head.identity == checks.identity
        && head.position == due.position
        && head.length as usize == payload.len()
        && RecordHead::holds(checks.covered, &bytes, &payload);
    let end = due.at + (RECORD_HEADER_BYTES + payload.len()) as u64;
    own.then_some(Repaired { found: Found { head, payload, end }, byte })
}
