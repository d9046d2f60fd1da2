//! Who records: the names a node gives itself and what the system says of the process.

use std::time::SystemTime;

use lens_model::limits::{SEGMENT_SERIES_MAX, SEGMENT_SHARDS_MAX};
use lens_model::{Arm, InstanceName, UnixNanos};

use crate::create::CreateError;
use crate::header::{Header, STATE_BUILDING, label_is_good};
use crate::layout::Geometry;

/// Who records: shown with every sample, never used to decide anything here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node<'a> {
    /// The service, such as `lens`: 1 to 64 visible ASCII characters.
    pub service: &'a str,
    /// Its version, such as `1.4.2`: 1 to 64 visible ASCII characters.
    pub version: &'a str,
    /// This process among its like, such as `node-7`: see [`InstanceName`].
    pub instance: &'a str,
}

/// Sizes and the arm of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecorderOptions {
    /// Shards, 1 to 64: one for each recording thread and one that all further threads share with
    /// a locked addition (5 ns alone, 20 ns contended). Default: processors + 2, within 4 to 16.
    pub shards: usize,
    /// Series, 1 to 256. Default 256: unregistered ones cost address space only.
    pub series_max: usize,
    /// The arm of series registered without naming one. Default baseline.
    pub arm: Arm,
}

impl Default for RecorderOptions {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            shards: (processors + 2).clamp(4, 16).min(SEGMENT_SHARDS_MAX),
            series_max: SEGMENT_SERIES_MAX,
            arm: Arm::Baseline,
        }
    }
}

/// What tells a segment and its process apart from every other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The segment's random identity.
    pub incarnation: u128,
    /// The recording process.
    pub pid: u32,
    /// When that process started, clock ticks since boot.
    pub start_ticks: u64,
    /// The kernel's random identity of this boot; for people and logs, nothing decides by it.
    pub boot_id: u128,
    /// When the segment was made, by the node's wall clock.
    pub created: UnixNanos,
}

impl Origin {
    /// This process, now, with a fresh random incarnation.
    ///
    /// # Errors
    /// The operating system's, without randomness.
    pub fn system() -> std::io::Result<Self> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(std::io::Error::other)?;
        Ok(Self {
            incarnation: u128::from_ne_bytes(random),
            pid: std::process::id(),
            start_ticks: start_ticks().unwrap_or(0),
            boot_id: boot_id().unwrap_or(0),
            created: UnixNanos::from_system_time(SystemTime::now()),
        })
    }
}

/// The header of a new segment.
pub(crate) fn header(
    node: Node<'_>,
    options: RecorderOptions,
    origin: Origin,
) -> Result<Header, CreateError> {
    let refuse =
        |what, value: &str| CreateError::Name { what, value: value.chars().take(80).collect() };
    for (what, value) in [("service", node.service), ("version", node.version)] {
        if !label_is_good(value) {
            return Err(refuse(what, value));
        }
    }
    let instance =
        InstanceName::new(node.instance).map_err(|_| refuse("instance", node.instance))?;
    let RecorderOptions { shards, series_max, arm } = options;
    let geometry =
        Geometry::new(shards, series_max).ok_or(CreateError::Options { shards, series_max })?;
    debug_assert_eq!(STATE_BUILDING, 0, "a new page reads as building");
    Ok(Header {
        geometry,
        arm,
        incarnation: origin.incarnation,
        boot_id: origin.boot_id,
        pid: origin.pid,
        start_ticks: origin.start_ticks,
        created: origin.created,
        service: node.service.into(),
        version: node.version.into(),
        instance,
    })
}

/// The kernel's random identity of this boot; for people and logs, nothing decides by it.
fn boot_id() -> Option<u128> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    u128::from_str_radix(&text.trim().replace('-', ""), 16).ok()
}

/// When this process started, clock ticks since boot: field 22 of its stat line.
fn start_ticks() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let after_name = stat.rsplit_once(") ")?.1;
    after_name.split(' ').nth(19)?.parse().ok()
}
