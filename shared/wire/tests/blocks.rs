//! Blocks as docs/wire.md describes them, written here by hand.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

use lens_hist::Sparse;
use lens_hist::block::{BlockError, BlockRef, encode};
use lens_hist::layout::{OVERFLOW, SLOTS};
use lens_model::limits::BLOCK_BYTES_MAX;

#[track_caller]
fn holds(bytes: &[u8], counts: &[(u16, u64)]) {
    let (block, rest) = BlockRef::parse(bytes).unwrap();
    assert!(rest.is_empty());
    assert_eq!(block.to_sparse().entries(), counts);
    assert_eq!(block.total(), counts.iter().map(|count| count.1).sum::<u64>());
}

#[track_caller]
fn refused(bytes: &[u8], error: BlockError) {
    assert_eq!(BlockRef::parse(bytes).map(|_| ()), Err(error));
}

#[test]
fn spread_blocks_read_as_described() {
    // WIRE-110, WIRE-121, WIRE-122
    holds(&[0], &[]);
    holds(&[3 << 1, 5, 0], &[(5, 3)]);
    // n = 2, range = 10, w = 2: high values 0 and 2 are 1 0 0 1, low bits 00 and 10.
    let two = [2 << 1, 10, 10, 0b1001, 0b1000];
    holds(&two, &[(10, 1), (20, 1)]);
    let mut written = Vec::new();
    let mut counts = Sparse::new();
    counts.push(10, 1);
    counts.push(20, 1);
    encode(&counts, &mut written);
    assert_eq!(written, two);
}

#[test]
fn spread_blocks_refuse_what_is_out_of_bounds() {
    // WIRE-111, WIRE-120, WIRE-123
    holds(&[1 << 1, 0x80, 0x1E, 0], &[(3_840, 1)]);
    refused(&[1 << 1, 0x81, 0x1E, 0], BlockError::Index);
    refused(&[1 << 1, 0x80, 0x1E, 1], BlockError::Index);
    holds(&[0x80, 0x10, 7, 0], &[(7, 1_024)]);
    refused(&[0x82, 0x10, 7, 0], BlockError::Reserved);
    refused(&[2 << 1, 10, 10, 0b1_1001, 0], BlockError::Total { declared: 2, found: 3 });
    refused(&[2 << 1, 10, 10, 0b1_0001, 0], BlockError::Index);
    refused(&[2 << 1, 10, 10, 0b1001, 0b1100], BlockError::Index);
}

#[test]
fn page_blocks_read_as_described() {
    // WIRE-113, WIRE-131
    holds(&[1 << 1 | 1, 1, 0, 3], &[(3, 1)]);
    // Positions 3, 3 and 63, six bits each.
    holds(&[3 << 1 | 1, 1, 2 << 3, 0b1100_0011, 0xF0, 0b11], &[(3, 2), (63, 1)]);
    let planes = [&[4 << 1 | 1, 1, 21 << 3][..], &[0b001, 0, 0, 0, 0, 0, 0, 0]].concat();
    let planes = [&planes[..], &[0b001, 0, 0, 0, 0, 0, 0, 0]].concat();
    refused(&planes, BlockError::Total { declared: 4, found: 3 });
    let planes = [&[3 << 1 | 1][..], &planes[1..]].concat();
    holds(&planes, &[(0, 3)]);
    let varints = [&[0xD9, 0x04, 1, 28 << 3, 0, 0xAC, 0x02][..], &[0; 62]].concat();
    holds(&varints, &[(1, 300)]);
}

#[test]
fn page_blocks_refuse_what_is_out_of_bounds() {
    // WIRE-130, WIRE-132, WIRE-133
    holds(&[1 << 1 | 1, 1, 7, 1, 0], &[(512, 1)]);
    holds(&[1 << 1 | 1, 1, 7, 53, 0], &[(3_840, 1)]);
    refused(&[1 << 1 | 1, 1, 7, 53, 1], BlockError::Index);
    refused(&[1 << 1 | 1, 1, 7, 54, 0], BlockError::Index);
    for code in 29..32 {
        refused(&[1 << 1 | 1, 1, code << 3, 0], BlockError::Reserved);
    }
    refused(&[5 << 1 | 1, 1, 0, 3], BlockError::Total { declared: 5, found: 1 });
}

#[test]
fn the_largest_block_keeps_its_bound() {
    // WIRE-111, WIRE-112
    assert_eq!((OVERFLOW, BLOCK_BYTES_MAX), (3_840, 39_287));
    let mut worst = Sparse::new();
    (0..SLOTS).for_each(|index| worst.push(index, (u64::MAX >> 1) / 3_841));
    let mut bytes = Vec::new();
    encode(&worst, &mut bytes);
    assert!(bytes.len() <= BLOCK_BYTES_MAX);
    assert!(BlockRef::parse(&bytes).is_ok());
}
