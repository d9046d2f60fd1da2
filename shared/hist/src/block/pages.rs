//! The pages shape: the touched pages of 64 counters, each in the coding that suits it.
//!
//! `byte pages | pages × (head | body)`. Head: the three low bits are the distance from the page
//! before, less one (7: a byte follows with the distance less eight); the five high bits are the
//! coding: 0..=19 a list of 1..=20 six-bit positions, repeats for counts above one; 20..=27 one to
//! eight bit planes of the 64 counts, lowest first, eight bytes each; 28 sixty-four varints.
//! 29..=31 are reserved and refused.

use super::BlockError;
use super::varint::{put_varint, take_varint, varint_len};
use crate::paged::{PAGE, PAGES, PagedCounts};
use crate::sparse::Sparse;

const LIST_MAX: usize = 20;
const PLANES_MAX: usize = 8;
const CODE_PLANES: u8 = 20;
const CODE_VARINTS: u8 = 28;

const _: () = assert!(LIST_MAX * 6 <= 128);
const GAP_ESCAPE: usize = 7;

/// `SPREAD[b]` holds bit i of b in its byte i: a plane's byte becomes eight counts in one look-up.
const SPREAD: [u64; 256] = {
    let mut table = [0_u64; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut bit = 0;
        while bit < 8 {
            if byte >> bit & 1 == 1 {
                table[byte] |= 1 << (8 * bit);
            }
            bit += 1;
        }
        byte += 1;
    }
    table
};

/// Bytes of a body by its code; 0 where the code does not say.
const BODY_BYTES: [u8; 32] = {
    let mut bytes = [0; 32];
    let mut code = 0;
    while code < CODE_VARINTS {
        bytes[code as usize] = if code < CODE_PLANES {
            ((code + 1) * 6).div_ceil(8)
        } else {
            (code - CODE_PLANES + 1) * 8
        };
        code += 1;
    }
    bytes
};

#[derive(Clone, Copy, Debug)]
pub(super) struct Pages<'a> {
    count: usize,
    bytes: &'a [u8],
}

/// One page as it stands in the bytes.
#[derive(Clone, Copy)]
enum Body<'a> {
    List { samples: usize, bits: &'a [u8] },
    Planes(&'a [u8]),
    Varints(&'a [u8]),
}

/// Splits the page at the front of `bytes` off; `before` is the page before it plus one.
#[inline]
fn take_page(before: usize, bytes: &[u8]) -> Result<(usize, Body<'_>, &[u8]), BlockError> {
    let (&head, mut rest) = bytes.split_first().ok_or(BlockError::Truncated)?;
    let mut gap = usize::from(head & 7);
    if gap == GAP_ESCAPE {
        let (&more, after) = rest.split_first().ok_or(BlockError::Truncated)?;
        (gap, rest) = (GAP_ESCAPE + usize::from(more), after);
    }
    let page = before + gap;
    if page >= PAGES {
        return Err(BlockError::Index);
    }
    let code = head >> 3;
    // A look-up and no branch: which coding comes next is what a processor cannot predict.
    let length = match (BODY_BYTES[usize::from(code)], code) {
        (0, CODE_VARINTS) => varints_len(rest)?,
        (0, _) => return Err(BlockError::Reserved),
        (length, _) => usize::from(length),
    };
    let (body, rest) = rest.split_at_checked(length).ok_or(BlockError::Truncated)?;
    let body = match code {
        ..CODE_PLANES => Body::List { samples: usize::from(code) + 1, bits: body },
        CODE_PLANES..CODE_VARINTS => Body::Planes(body),
        _ => Body::Varints(body),
    };
    Ok((page, body, rest))
}

/// Length of a page's sixty-four varints.
fn varints_len(bytes: &[u8]) -> Result<usize, BlockError> {
    let mut rest = bytes;
    for _ in 0..PAGE {
        (_, rest) = take_varint(rest)?;
    }
    Ok(bytes.len() - rest.len())
}

fn plane(planes: &[u8], at: usize) -> u64 {
    let mut word = [0_u8; 8];
    word.copy_from_slice(&planes[at * 8..at * 8 + 8]);
    u64::from_le_bytes(word)
}

impl Body<'_> {
    #[inline]
    fn for_each(&self, mut each: impl FnMut(usize, u64)) {
        match *self {
            Body::List { samples, bits } => {
                // At most 20 positions of six bits.
                let mut bytes = [0_u8; 16];
                bytes.iter_mut().zip(bits).for_each(|(to, from)| *to = *from);
                let mut bits = u128::from_le_bytes(bytes);
                for _ in 0..samples {
                    #[allow(clippy::cast_possible_truncation)]
                    each((bits & 63) as usize, 1);
                    bits >>= 6;
                }
            }
            Body::Planes(planes) => {
                let count = planes.len() / 8;
                let mut any = (0..count).fold(0, |any, at| any | plane(planes, at));
                while any != 0 {
                    let position = any.trailing_zeros() as usize;
                    any &= any - 1;
                    let bit = |at| (plane(planes, at) >> position & 1) << at;
                    each(position, (0..count).map(bit).sum());
                }
            }
            Body::Varints(bytes) => {
                let mut rest = bytes;
                for position in 0..PAGE {
                    let Ok((count, after)) = take_varint(rest) else { return };
                    rest = after;
                    if count > 0 {
                        each(position, count);
                    }
                }
            }
        }
    }

    /// Adds the counts to a page of a window that has room for them.
    #[inline]
    fn merge_into(&self, page: &mut [u32; PAGE]) {
        match *self {
            Body::Planes(planes) => add_planes(planes, page),
            // There is room for the whole block: no count of it exceeds 32 bits.
            #[allow(clippy::cast_possible_truncation)]
            _ => self.for_each(|at, more| page[at] = page[at].wrapping_add(more as u32)),
        }
    }

    /// The page's sum, if no page-60 body counts beyond the overflow counter and it fits 64 bits.
    fn check(&self, page: usize) -> Result<u64, BlockError> {
        match *self {
            // Of a whole page's positions none lies beyond it.
            Body::List { samples, .. } if page < PAGES - 1 => return Ok(samples as u64),
            Body::Planes(planes) if page < PAGES - 1 => {
                let (planes, _) = planes.as_chunks::<8>();
                let ones = |plane: &[u8; 8]| u64::from(u64::from_le_bytes(*plane).count_ones());
                // Highest plane first: each step doubles what stands above.
                return Ok(planes.iter().rev().fold(0, |sum, plane| (sum << 1) + ones(plane)));
            }
            _ => {}
        }
        let positions = if page == PAGES - 1 { 1 } else { PAGE };
        let (mut sum, mut beyond) = (Some(0_u64), false);
        match *self {
            Body::Planes(planes) => {
                for at in 0..planes.len() / 8 {
                    let plane = plane(planes, at);
                    beyond |= positions < PAGE && plane >> positions != 0;
                    let more = u64::from(plane.count_ones()) << at;
                    sum = sum.and_then(|sum| sum.checked_add(more));
                }
            }
            _ => self.for_each(|position, count| {
                beyond |= position >= positions;
                sum = sum.and_then(|sum| sum.checked_add(count));
            }),
        }
        if beyond { Err(BlockError::Index) } else { sum.ok_or(BlockError::Varint) }
    }
}

/// Adds the counts that bit planes hold, eight at a time, one byte each: at most eight planes, so
/// none overflows.
#[inline]
fn add_planes(planes: &[u8], page: &mut [u32; PAGE]) {
    let mut lanes = [0_u64; PAGE / 8];
    let (planes, _) = planes.as_chunks::<8>();
    for (weight, plane) in planes.iter().enumerate() {
        for (lane, byte) in lanes.iter_mut().zip(plane) {
            *lane |= SPREAD[usize::from(*byte)] << weight;
        }
    }
    let bytes = lanes.map(u64::to_le_bytes);
    for (count, more) in page.iter_mut().zip(bytes.as_flattened()) {
        *count = count.wrapping_add(u32::from(*more));
    }
}

impl<'a> Pages<'a> {
    pub(super) fn parse(total: u64, bytes: &'a [u8]) -> Result<(Self, &'a [u8]), BlockError> {
        let (&count, body) = bytes.split_first().ok_or(BlockError::Truncated)?;
        let count = usize::from(count);
        let (mut rest, mut before, mut found) = (body, 0, 0_u64);
        for _ in 0..count {
            let (page, page_body, after) = take_page(before, rest)?;
            found = found.checked_add(page_body.check(page)?).ok_or(BlockError::Varint)?;
            (before, rest) = (page + 1, after);
        }
        if found != total {
            return Err(BlockError::Total { declared: total, found });
        }
        Ok((Self { count, bytes: &body[..body.len() - rest.len()] }, rest))
    }

    /// As [`Pages::parse`], for bytes whose content was checked before.
    pub(super) fn known(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), BlockError> {
        let (&count, body) = bytes.split_first().ok_or(BlockError::Truncated)?;
        let count = usize::from(count);
        let (mut rest, mut before) = (body, 0);
        for _ in 0..count {
            let (page, _, after) = take_page(before, rest)?;
            (before, rest) = (page + 1, after);
        }
        Ok((Self { count, bytes: &body[..body.len() - rest.len()] }, rest))
    }

    /// The pages, already checked by [`Pages::parse`].
    fn iter(&self) -> impl Iterator<Item = (usize, Body<'a>)> {
        let (mut rest, mut before) = (self.bytes, 0);
        (0..self.count).map_while(move |_| {
            let (page, body, after) = take_page(before, rest).ok()?;
            (before, rest) = (page + 1, after);
            Some((page, body))
        })
    }

    pub(super) fn for_each(&self, mut each: impl FnMut(usize, u64)) {
        for (page, body) in self.iter() {
            body.for_each(|position, count| each(page * PAGE + position, count));
        }
    }

    pub(super) fn merge_into(&self, window: &mut PagedCounts) {
        for (page, body) in self.iter() {
            body.merge_into(window.page_mut(page));
        }
    }
}

/// The entries of each touched page.
fn by_page(counts: &Sparse) -> impl Iterator<Item = &[(u16, u64)]> {
    counts.entries().chunk_by(|a, b| usize::from(a.0) / PAGE == usize::from(b.0) / PAGE)
}

/// The coding a page is written in, and the bytes of its body.
fn choose(entries: &[(u16, u64)]) -> (u8, usize) {
    let samples = entries.iter().fold(0_u64, |sum, entry| sum.saturating_add(entry.1));
    let max = entries.iter().map(|entry| entry.1).max().unwrap_or(1);
    let planes = 64 - max.leading_zeros() as usize;
    let list = usize::try_from(samples).ok().filter(|samples| *samples <= LIST_MAX);
    #[allow(clippy::cast_possible_truncation)]
    match list {
        Some(samples) if (samples * 6).div_ceil(8) <= planes * 8 => {
            (samples as u8 - 1, (samples * 6).div_ceil(8))
        }
        _ if planes <= PLANES_MAX => (CODE_PLANES + planes as u8 - 1, planes * 8),
        _ => {
            let bytes: usize = entries.iter().map(|entry| varint_len(entry.1)).sum();
            (CODE_VARINTS, bytes + PAGE - entries.len())
        }
    }
}

/// Appends everything behind the head.
pub(super) fn encode(counts: &Sparse, out: &mut Vec<u8>) {
    let count_at = out.len();
    out.push(0);
    let mut before = 0;
    for entries in by_page(counts) {
        let page = usize::from(entries[0].0) / PAGE;
        let gap = page - before;
        before = page + 1;
        out[count_at] += 1;
        let (code, length) = choose(entries);
        #[allow(clippy::cast_possible_truncation)]
        out.push(code << 3 | gap.min(GAP_ESCAPE) as u8);
        if gap >= GAP_ESCAPE {
            #[allow(clippy::cast_possible_truncation)]
            out.push((gap - GAP_ESCAPE) as u8);
        }
        match code {
            ..CODE_PLANES => put_list(entries, length, out),
            CODE_PLANES..CODE_VARINTS => put_planes(entries, length / 8, out),
            _ => put_varints(entries, out),
        }
    }
}

fn put_list(entries: &[(u16, u64)], length: usize, out: &mut Vec<u8>) {
    // At most 20 positions of six bits.
    let (mut bits, mut at) = (0_u128, 0);
    for &(index, count) in entries {
        let position = u128::from(index) % PAGE as u128;
        for _ in 0..count {
            bits |= position << at;
            at += 6;
        }
    }
    out.extend_from_slice(&bits.to_le_bytes()[..length]);
}

/// Bit `weight` of eight counts, one byte each, as the bits of one byte.
#[inline]
#[allow(clippy::cast_possible_truncation)]
const fn gather(lane: u64, weight: usize) -> u8 {
    // Moves the low bit of byte i to bit 56 + i; no two of the products meet.
    (((lane >> weight) & 0x0101_0101_0101_0101).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u8
}

fn put_planes(entries: &[(u16, u64)], count: usize, out: &mut Vec<u8>) {
    let mut bytes = [0_u8; PAGE];
    for &(index, samples) in entries {
        // At most eight planes: the count fits its byte.
        #[allow(clippy::cast_possible_truncation)]
        let samples = samples as u8;
        bytes[usize::from(index) % PAGE] = samples;
    }
    let (lanes, _) = bytes.as_chunks::<8>();
    for weight in 0..count {
        let mut plane = [0_u8; PAGE / 8];
        for (byte, lane) in plane.iter_mut().zip(lanes) {
            *byte = gather(u64::from_le_bytes(*lane), weight);
        }
        out.extend_from_slice(&plane);
    }
}

fn put_varints(entries: &[(u16, u64)], out: &mut Vec<u8>) {
    let mut entries = entries.iter().peekable();
    for position in 0..PAGE {
        let here = entries.next_if(|entry| usize::from(entry.0) % PAGE == position);
        put_varint(out, here.map_or(0, |entry| entry.1));
    }
}
