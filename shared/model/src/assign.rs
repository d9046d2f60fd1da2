//! Who is in the canary: the one definition of the hash that assigns users to arms.
//!
//! Fixed for ever: nodes, proxies and edges of every version and language must agree on who is in
//! the canary. docs/assignment.md has it in words, with vectors for other languages.
//! Promise: deterministic; an id in the canary stays there while the share grows; another salt
//! meets another part of everyone.

use crate::series::Arm;

/// A whole, in the unit that shares are compared in: parts per million.
pub const PPM: u32 = 1_000_000;

/// 64-bit FNV-1a over the salt (little endian) and the id, finished with the splitmix64 mixer.
pub fn hash(salt: u32, id: &[u8]) -> u64 {
    let bytes = salt.to_le_bytes().into_iter().chain(id.iter().copied());
    let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// Where `id` stands among everyone, in parts per million: 0 to 999,999.
pub fn place(salt: u32, id: &[u8]) -> u32 {
    let place = (u128::from(hash(salt, id)) * u128::from(PPM)) >> 64;
    // Below PPM, as the hash is below 2^64.
    u32::try_from(place).unwrap_or(PPM - 1)
}

/// The arm of `id` while `share_ppm` parts per million of everyone are in the canary.
pub fn arm(salt: u32, share_ppm: u32, id: &[u8]) -> Arm {
    if place(salt, id) < share_ppm { Arm::Canary } else { Arm::Baseline }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_never_changes() {
        assert_eq!(hash(0, b"user-42"), GOLDEN[0]);
        assert_eq!(hash(0xdead_beef, b"user-42"), GOLDEN[1]);
    }

    /// Computed by an independent implementation of the same definition.
    const GOLDEN: [u64; 2] = [0x4a29_f311_7d89_d146, 0xd11b_d9fd_419e_7e34];

    /// docs/assignment.md, whose numbers another implementation computed.
    #[test]
    fn the_document_for_other_languages_says_what_the_code_does() {
        let document = include_str!("../../../docs/assignment.md");
        let mut rows = 0;
        for row in document.lines().filter_map(|line| line.strip_prefix("| 0x")) {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let hex = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap();
            let id = match cells[1] {
                "(empty)" => String::new(),
                "`x`, a hundred times" => "x".repeat(100),
                quoted => quoted.trim_matches('`').to_owned(),
            };
            let salt = u32::try_from(hex(cells[0])).unwrap();
            assert_eq!(hash(salt, id.as_bytes()), hex(cells[2]), "{row}");
            assert_eq!(place(salt, id.as_bytes()).to_string(), cells[3].replace(',', ""), "{row}");
            rows += 1;
        }
        assert_eq!(rows, 9);
    }

    #[test]
    fn an_id_in_the_canary_stays_there_as_the_share_grows() {
        for id in 0..2_000_u32 {
            let id = id.to_string();
            let arms: Vec<Arm> =
                (0..=PPM).step_by(50_000).map(|ppm| arm(7, ppm, id.as_bytes())).collect();
            assert!(arms.is_sorted(), "{id}: {arms:?}");
            assert_eq!(arms.first(), Some(&Arm::Baseline));
            assert_eq!(arms.last(), Some(&Arm::Canary));
        }
    }
}
