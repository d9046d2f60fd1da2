//! The header page as bytes, both ways.
//!
//! Promise: decoding takes any 4,096 bytes and gives a header whose every number has been compared
//! with our own constants, or says which field was wrong. Nothing of the file is followed before.

use lens_hist::layout::SLOTS;
use lens_model::limits::{NAME_BYTES_MAX, SEGMENT_GAUGES_MAX, SEGMENT_REQUESTS_MAX};
use lens_model::{Arm, InstanceName, UnixNanos};

use crate::bytes::{get_text, get_u16, get_u32, get_u64, get_u128, put, put_text};
use crate::layout::{
    BLOCK_STRIDE, BYTE_ORDER, FLAGS_OFFSET, Geometry, HEADER_BYTES, LAYOUT_MAJOR, LAYOUT_MINOR,
    MAGIC, SERIES_OFFSET, at,
};

/// A segment being filled in; no reader is meant to see one.
pub(crate) const STATE_BUILDING: u32 = 0;
/// A segment in use.
pub(crate) const STATE_READY: u32 = 1;
/// A segment nobody can record into any more.
pub(crate) const STATE_CLOSED: u32 = 2;

/// What is wrong with a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderFault {
    /// The file does not begin like a segment.
    #[error("it does not begin with the segment magic")]
    Magic,
    /// Another byte order wrote it.
    #[error("it was written in another byte order")]
    ByteOrder,
    /// A layout this reader does not know.
    #[error("its layout is major {major}, this reader knows {LAYOUT_MAJOR}")]
    Layout {
        /// The layout's major number.
        major: u16,
    },
    /// A size, limit or offset is not the one that follows from shards and series.
    #[error("its {field} is {value}, which this layout does not allow")]
    Number {
        /// Which field.
        field: &'static str,
        /// What it held.
        value: u64,
    },
    /// A name is not allowed.
    #[error("its {field} name is not allowed")]
    Name {
        /// Which field.
        field: &'static str,
    },
    /// The incarnation at the end is not the one at the beginning.
    #[error("its two incarnation fields differ")]
    Incarnation,
}

/// The constant part of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) geometry: Geometry,
    pub(crate) arm: Arm,
    pub(crate) incarnation: u128,
    pub(crate) boot_id: u128,
    pub(crate) pid: u32,
    pub(crate) start_ticks: u64,
    pub(crate) created: UnixNanos,
    pub(crate) service: Box<str>,
    pub(crate) version: Box<str>,
    pub(crate) instance: InstanceName,
}

/// The part of a header that changes while the segment lives, as copied by the reader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) state: u32,
    pub(crate) series: u32,
    pub(crate) requests: u32,
    pub(crate) gauges: u32,
    pub(crate) shards_used: u64,
}

/// Whether `name` may name a service or version: 1 to 64 visible ASCII characters.
pub(crate) fn label_is_good(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic())
}

/// The numbers that follow from a geometry: offset in the header, name, value.
fn numbers(geometry: Geometry) -> [(usize, &'static str, u64); 6] {
    [
        (at::TOTAL_BYTES, "total length", geometry.total_bytes() as u64),
        (at::FLAGS_OFFSET, "flag page offset", FLAGS_OFFSET as u64),
        (at::SERIES_OFFSET, "series table offset", SERIES_OFFSET as u64),
        (at::REQUESTS_OFFSET, "request table offset", geometry.requests_offset() as u64),
        (at::GAUGES_OFFSET, "gauge table offset", geometry.gauges_offset() as u64),
        (at::BLOCKS_OFFSET, "blocks offset", geometry.blocks_offset() as u64),
    ]
}

/// The constants every segment carries: offset in the header, name, value.
const CONSTANTS: [(usize, &str, usize); 5] = [
    (at::HEADER_BYTES, "header length", HEADER_BYTES),
    (at::REQUESTS_MAX, "request limit", SEGMENT_REQUESTS_MAX),
    (at::GAUGES_MAX, "gauge limit", SEGMENT_GAUGES_MAX),
    (at::BLOCK_STRIDE, "block stride", BLOCK_STRIDE),
    (at::BLOCK_SLOTS, "counters of a block", SLOTS),
];

impl Header {
    /// The header page, state "building", nothing published.
    pub(crate) fn encode(&self) -> Box<[u8; HEADER_BYTES]> {
        let mut out = Box::new([0; HEADER_BYTES]);
        let page = out.as_mut_slice();
        put(page, at::MAGIC, &MAGIC.to_le_bytes());
        put(page, at::MAJOR, &LAYOUT_MAJOR.to_ne_bytes());
        put(page, at::MINOR, &LAYOUT_MINOR.to_ne_bytes());
        put(page, at::BYTE_ORDER, &BYTE_ORDER.to_ne_bytes());
        let small = |value: usize| u32::try_from(value).expect("limits are far below 2^32");
        for (offset, _, value) in CONSTANTS {
            put(page, offset, &small(value).to_ne_bytes());
        }
        put(page, at::SHARDS, &small(self.geometry.shards()).to_ne_bytes());
        put(page, at::SERIES_MAX, &small(self.geometry.series_max()).to_ne_bytes());
        put(page, at::ARM, &u32::from(self.arm.code()).to_ne_bytes());
        for (offset, _, value) in numbers(self.geometry) {
            put(page, offset, &value.to_ne_bytes());
        }
        put(page, at::INCARNATION, &self.incarnation.to_ne_bytes());
        put(page, at::INCARNATION_AGAIN, &self.incarnation.to_ne_bytes());
        put(page, at::BOOT_ID, &self.boot_id.to_ne_bytes());
        put(page, at::PID, &self.pid.to_ne_bytes());
        put(page, at::START_TICKS, &self.start_ticks.to_ne_bytes());
        put(page, at::CREATED, &self.created.0.to_ne_bytes());
        put_text(page, at::SERVICE, &self.service);
        put_text(page, at::VERSION, &self.version);
        put_text(page, at::INSTANCE, self.instance.as_str());
        out
    }

    /// Reads a header from a private copy of the page.
    pub(crate) fn decode(page: &[u8; HEADER_BYTES]) -> Result<Self, HeaderFault> {
        if get_u64(page, at::MAGIC).to_ne_bytes() != MAGIC.to_le_bytes() {
            return Err(HeaderFault::Magic);
        }
        if get_u32(page, at::BYTE_ORDER) != BYTE_ORDER {
            return Err(HeaderFault::ByteOrder);
        }
        let major = get_u16(page, at::MAJOR);
        if major != LAYOUT_MAJOR {
            return Err(HeaderFault::Layout { major });
        }
        for (offset, field, expected) in CONSTANTS {
            let value = get_u32(page, offset);
            if value as usize != expected {
                return Err(HeaderFault::Number { field, value: u64::from(value) });
            }
        }
        let (shards, series_max) = (get_u32(page, at::SHARDS), get_u32(page, at::SERIES_MAX));
        let geometry = Geometry::new(shards as usize, series_max as usize).ok_or_else(|| {
            let number = |field, value| HeaderFault::Number { field, value: u64::from(value) };
            if Geometry::new(shards as usize, 1).is_none() {
                number("shard count", shards)
            } else {
                number("series limit", series_max)
            }
        })?;
        for (offset, field, expected) in numbers(geometry) {
            let value = get_u64(page, offset);
            if value != expected {
                return Err(HeaderFault::Number { field, value });
            }
        }
        let incarnation = get_u128(page, at::INCARNATION);
        if incarnation != get_u128(page, at::INCARNATION_AGAIN) {
            return Err(HeaderFault::Incarnation);
        }
        let arm = get_u32(page, at::ARM);
        let number = HeaderFault::Number { field: "arm", value: u64::from(arm) };
        let arm = u8::try_from(arm).ok().and_then(Arm::from_code).ok_or(number)?;
        let label = |offset, field| match get_text(page, offset, NAME_BYTES_MAX) {
            Some(text) if label_is_good(text) => Ok(Box::from(text)),
            _ => Err(HeaderFault::Name { field }),
        };
        let instance = get_text(page, at::INSTANCE, NAME_BYTES_MAX)
            .and_then(|text| InstanceName::new(text).ok())
            .ok_or(HeaderFault::Name { field: "instance" })?;
        Ok(Self {
            geometry,
            arm,
            incarnation,
            boot_id: get_u128(page, at::BOOT_ID),
            pid: get_u32(page, at::PID),
            start_ticks: get_u64(page, at::START_TICKS),
            created: UnixNanos(get_u64(page, at::CREATED)),
            service: label(at::SERVICE, "service")?,
            version: label(at::VERSION, "version")?,
            instance,
        })
    }
}

impl Live {
    /// Reads the live line from a private copy of it.
    pub(crate) fn decode(line: &[u8; at::LIVE_BYTES]) -> Self {
        Self {
            state: get_u32(line, at::STATE - at::LIVE),
            series: get_u32(line, at::SERIES_LEN - at::LIVE),
            requests: get_u32(line, at::REQUESTS_LEN - at::LIVE),
            gauges: get_u32(line, at::GAUGES_LEN - at::LIVE),
            shards_used: get_u64(line, at::SHARDS_USED - at::LIVE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            geometry: Geometry::new(4, 256).unwrap(),
            arm: Arm::Canary,
            incarnation: 0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100,
            boot_id: 7,
            pid: 4_711,
            start_ticks: 99,
            created: UnixNanos(1_700_000_000_000_000_000),
            service: "lens".into(),
            version: "1.4.2+7".into(),
            instance: InstanceName::new("node-7").unwrap(),
        }
    }

    #[test]
    fn a_header_reads_back_from_its_own_bytes() {
        assert_eq!(Header::decode(&header().encode()), Ok(header()));
    }

    /// Golden bytes: a change here is a change of layout and needs a new major number.
    #[test]
    #[cfg(target_endian = "little")]
    fn the_bytes_of_a_header_never_change() {
        let page = header().encode();
        let hex = |from: usize, to: usize| -> String {
            page[from..to].iter().map(|byte| format!("{byte:02x}")).collect()
        };
        assert_eq!(hex(0, 24), "4c454e535345473101000100001000000060f20000000000");
        assert_eq!(hex(24, 56), "0403020104000000000100008000000040000000403c0000010f000001000000");
        assert_eq!(
            hex(56, 96),
            "0010000000000000002000000000000000e000000000000000400100000000000060010000000000"
        );
        assert_eq!(hex(96, 112), "000102030405060708090a0b0c0d0e0f");
        assert_eq!(hex(4_080, 4_096), hex(96, 112));
        assert_eq!(
            hex(112, 152),
            "070000000000000000000000000000006712000000000000630000000000000000002a36fe9c9717"
        );
        assert_eq!(hex(160, 165), "046c656e73");
        assert_eq!(hex(232, 240), "07312e342e322b37");
        assert_eq!(hex(304, 311), "066e6f64652d37");
    }

    #[test]
    fn every_constant_field_is_compared() {
        let page = header().encode();
        let fields = (0..56).chain(56..112).filter(|at| !(10..12).contains(at));
        for at in fields {
            let mut broken = page.clone();
            broken[at] ^= 0x80;
            assert!(Header::decode(&broken).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_newer_minor_layout_is_read() {
        let mut page = header().encode();
        page[at::MINOR] = 9;
        assert!(Header::decode(&page).is_ok());
    }
}
