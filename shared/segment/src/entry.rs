//! Catalogue entries as bytes: series, request counters, gauges.
//!
//! Promise: decoding any bytes gives an entry or a refusal, never a panic; a decoded name has been
//! through the same check as one given to the recorder.

use lens_model::limits::{NAME_BYTES_MAX, SLICE_PART_BYTES_MAX};
use lens_model::{Arm, SeriesKey, Slice, Stage};

use crate::bytes::{check_of, get_text, get_u64, put, put_text};
use crate::layout::{GAUGE_ENTRY_BYTES, REQUESTS_ENTRY_BYTES, SERIES_ENTRY_BYTES};

/// What is wrong with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryFault {
    /// The stored check value is not that of the bytes.
    #[error("its check value does not match its bytes")]
    Check,
    /// A name is not allowed.
    #[error("a name in it is not allowed")]
    Name,
    /// A stage or arm code is unknown.
    #[error("its stage or arm code is unknown")]
    Code,
}

/// Offsets of a request entry's counters.
pub(crate) const REQUESTS_OK: usize = 0;
/// See [`REQUESTS_OK`].
pub(crate) const REQUESTS_ERROR: usize = 8;
/// Where a request entry's constant part begins.
const REQUESTS_HEAD: usize = 16;
/// Offset of a gauge's value: the bits of an `f64`, NaN until first set.
pub(crate) const GAUGE_VALUE: usize = 0;
/// Where a gauge entry's constant part begins.
const GAUGE_HEAD: usize = 8;

fn put_slice(buffer: &mut [u8], offset: usize, slice: &Slice) {
    let parts = [slice.repo_type(), slice.language(), slice.size()];
    for (number, part) in parts.into_iter().enumerate() {
        buffer[offset + number] = u8::try_from(part.len()).expect("slice parts are short");
        put(buffer, offset + 8 + number * SLICE_PART_BYTES_MAX, part.as_bytes());
    }
}

fn get_slice(buffer: &[u8], offset: usize) -> Result<Slice, EntryFault> {
    let mut parts = [""; 3];
    for (number, part) in parts.iter_mut().enumerate() {
        let length = usize::from(buffer[offset + number]);
        if length > SLICE_PART_BYTES_MAX {
            return Err(EntryFault::Name);
        }
        let begin = offset + 8 + number * SLICE_PART_BYTES_MAX;
        *part =
            core::str::from_utf8(&buffer[begin..begin + length]).map_err(|_| EntryFault::Name)?;
    }
    let [repo_type, language, size] = parts;
    Slice::new(repo_type, language, size).map_err(|_| EntryFault::Name)
}

fn seal(buffer: &mut [u8], head: usize) {
    let end = buffer.len() - 8;
    let check = check_of(&buffer[head..end]);
    put(buffer, end, &check.to_ne_bytes());
}

fn sealed(buffer: &[u8], head: usize) -> Result<(), EntryFault> {
    let end = buffer.len() - 8;
    if check_of(&buffer[head..end]) == get_u64(buffer, end) {
        Ok(())
    } else {
        Err(EntryFault::Check)
    }
}

pub(crate) fn encode_series(key: &SeriesKey) -> [u8; SERIES_ENTRY_BYTES] {
    let mut out = [0; SERIES_ENTRY_BYTES];
    put_slice(&mut out, 0, &key.slice);
    out[3] = key.stage.code();
    out[4] = key.arm.code();
    seal(&mut out, 0);
    out
}

pub(crate) fn decode_series(bytes: &[u8; SERIES_ENTRY_BYTES]) -> Result<SeriesKey, EntryFault> {
    sealed(bytes, 0)?;
    Ok(SeriesKey {
        slice: get_slice(bytes, 0)?,
        stage: Stage::from_code(bytes[3]).ok_or(EntryFault::Code)?,
        arm: Arm::from_code(bytes[4]).ok_or(EntryFault::Code)?,
    })
}

pub(crate) fn encode_requests(slice: &Slice, arm: Arm) -> [u8; REQUESTS_ENTRY_BYTES] {
    let mut out = [0; REQUESTS_ENTRY_BYTES];
    put_slice(&mut out, REQUESTS_HEAD, slice);
    out[REQUESTS_HEAD + 4] = arm.code();
    seal(&mut out, REQUESTS_HEAD);
    out
}

pub(crate) fn decode_requests(
    bytes: &[u8; REQUESTS_ENTRY_BYTES],
) -> Result<(Slice, Arm), EntryFault> {
    sealed(bytes, REQUESTS_HEAD)?;
    let arm = Arm::from_code(bytes[REQUESTS_HEAD + 4]).ok_or(EntryFault::Code)?;
    Ok((get_slice(bytes, REQUESTS_HEAD)?, arm))
}

/// Whether `name` may name a gauge: 1 to [`NAME_BYTES_MAX`] of `a-z 0-9 _`, a letter first, as
/// every exporter accepts it.
pub(crate) fn gauge_name_is_good(name: &str) -> bool {
    name.len() <= NAME_BYTES_MAX
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

pub(crate) fn encode_gauge(name: &str) -> [u8; GAUGE_ENTRY_BYTES] {
    let mut out = [0; GAUGE_ENTRY_BYTES];
    put(&mut out, GAUGE_VALUE, &f64::NAN.to_bits().to_ne_bytes());
    put_text(&mut out, GAUGE_HEAD, name);
    seal(&mut out, GAUGE_HEAD);
    out
}

pub(crate) fn decode_gauge(bytes: &[u8; GAUGE_ENTRY_BYTES]) -> Result<Box<str>, EntryFault> {
    sealed(bytes, GAUGE_HEAD)?;
    let name = get_text(bytes, GAUGE_HEAD, NAME_BYTES_MAX).ok_or(EntryFault::Name)?;
    if gauge_name_is_good(name) { Ok(name.into()) } else { Err(EntryFault::Name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SeriesKey {
        let slice = Slice::new("backend", "c++", &"l".repeat(SLICE_PART_BYTES_MAX)).unwrap();
        SeriesKey { slice, stage: Stage::C, arm: Arm::Canary }
    }

    #[test]
    fn entries_read_back_from_their_own_bytes() {
        assert_eq!(decode_series(&encode_series(&key())), Ok(key()));
        let slice = key().slice;
        let requests = encode_requests(&slice, Arm::Canary);
        assert_eq!(decode_requests(&requests), Ok((slice, Arm::Canary)));
        let name = "g".repeat(NAME_BYTES_MAX);
        assert_eq!(decode_gauge(&encode_gauge(&name)).as_deref(), Ok(name.as_str()));
    }

    #[test]
    fn counters_of_an_entry_may_change_and_its_names_may_not() {
        let mut bytes = encode_requests(&key().slice, Arm::Baseline);
        bytes[REQUESTS_OK] = 9;
        bytes[REQUESTS_ERROR] = 9;
        assert!(decode_requests(&bytes).is_ok());
        for at in REQUESTS_HEAD..REQUESTS_ENTRY_BYTES {
            let mut broken = bytes;
            broken[at] ^= 0x20;
            assert_eq!(decode_requests(&broken), Err(EntryFault::Check), "byte {at}");
        }
    }

    #[test]
    fn a_sealed_entry_with_a_foreign_name_or_code_is_refused() {
        let mut bytes = encode_series(&key());
        bytes[8] = b'/';
        seal(&mut bytes, 0);
        assert_eq!(decode_series(&bytes), Err(EntryFault::Name));
        let mut bytes = encode_series(&key());
        bytes[0] = 200;
        seal(&mut bytes, 0);
        assert_eq!(decode_series(&bytes), Err(EntryFault::Name));
        let mut bytes = encode_series(&key());
        bytes[3] = 9;
        seal(&mut bytes, 0);
        assert_eq!(decode_series(&bytes), Err(EntryFault::Code));
        assert_eq!(decode_series(&[0; SERIES_ENTRY_BYTES]), Err(EntryFault::Check));
    }

    #[test]
    fn gauge_names_are_what_exporters_accept() {
        for good in ["a", "span_coverage_percent", "p99_9"] {
            assert!(gauge_name_is_good(good), "{good}");
        }
        for bad in ["", "9a", "_a", "a-b", "A", "a b", &"g".repeat(NAME_BYTES_MAX + 1)] {
            assert!(!gauge_name_is_good(bad), "{bad}");
        }
    }
}
