//! The store's tables and the rows in them.
//!
//! Names are kept once and everything else speaks of them by a dense number. Windows are keyed by
//! slot first, so that what is written together lies together and what is old lies in front.

use lens_model::{AgentName, Arm, InstanceName, SeriesKey, Slice, Stage};
use redb::TableDefinition;

use super::StoreError;
use crate::window::Host;

/// The format written and read.
pub(super) const FORMAT: u64 = 1;

/// `format`, `made_nanos`, `log_position` (next to read), `rolled_to` (seconds), `floor_0` … (seconds).
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Host number → its names.
pub(super) const HOSTS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("hosts");
/// Series number → host and key.
pub(super) const SERIES: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("series");
/// Request counter's number → host, slice and arm.
pub(super) const REQUESTS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("requests");
/// Gauge's number → host and name.
pub(super) const GAUGES: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("gauges");
/// Gauge's number → newest reading and its time.
pub(super) const READINGS: TableDefinition<'_, u32, (f64, u64)> = TableDefinition::new("readings");
/// Series number → samples ever merged, newest event time.
pub(super) const TOTALS: TableDefinition<'_, u32, (u64, u64)> = TableDefinition::new("totals");
/// Request counter's number → answered and failed, ever.
pub(super) const OUTCOME_TOTALS: TableDefinition<'_, u32, (u64, u64)> =
    TableDefinition::new("outcome_totals");
/// Series number → block of everything in slots before `rolled_to`.
pub(super) const LIFETIME: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("lifetime");
/// (slot, series) → block, by resolution.
pub(super) const WINDOWS: [TableDefinition<'_, (u64, u32), &[u8]>; 3] = [
    TableDefinition::new("windows_5s"),
    TableDefinition::new("windows_1m"),
    TableDefinition::new("windows_1h"),
];
/// (slot, request counter) → answered and failed, by resolution.
pub(super) const OUTCOMES: [TableDefinition<'_, (u64, u32), (u64, u64)>; 3] = [
    TableDefinition::new("outcomes_5s"),
    TableDefinition::new("outcomes_1m"),
    TableDefinition::new("outcomes_1h"),
];
/// (agent, incarnation) → last sequence merged, and when it arrived.
pub(super) const WATERMARKS: TableDefinition<'_, (&str, u128), (u64, u64)> =
    TableDefinition::new("watermarks");
/// Agent → what is known of it, JSON.
pub(super) const AGENTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("agents");

pub(super) const FLOORS: [&str; 3] = ["floor_5s", "floor_1m", "floor_1h"];

/// A host's row: its two names, the first as long as the first byte says.
pub(super) fn host_row(host: &Host) -> Vec<u8> {
    let mut row = vec![u8::try_from(host.agent.as_str().len()).unwrap_or(u8::MAX)];
    row.extend_from_slice(host.agent.as_str().as_bytes());
    row.extend_from_slice(host.instance.as_str().as_bytes());
    row
}

pub(super) fn read_host(row: &[u8]) -> Result<Host, StoreError> {
    let read = || {
        let (length, rest) = row.split_first()?;
        let (agent, instance) = rest.split_at_checked(usize::from(*length))?;
        Some(Host {
            agent: AgentName::new(std::str::from_utf8(agent).ok()?).ok()?,
            instance: InstanceName::new(std::str::from_utf8(instance).ok()?).ok()?,
        })
    };
    read().ok_or(StoreError::Row("hosts"))
}

/// A series' row: host, stage, arm, slice.
pub(super) fn series_row(host: u32, key: &SeriesKey) -> Vec<u8> {
    let mut row = host.to_le_bytes().to_vec();
    row.extend_from_slice(&[key.stage as u8, key.arm as u8]);
    row.extend_from_slice(key.slice.to_string().as_bytes());
    row
}

pub(super) fn read_series(row: &[u8]) -> Result<(u32, SeriesKey), StoreError> {
    let read = || {
        let (host, rest) = row.split_first_chunk()?;
        let ([stage, arm], slice) = rest.split_first_chunk()?;
        let stage = Stage::ALL.into_iter().find(|known| *known as u8 == *stage)?;
        let slice = std::str::from_utf8(slice).ok()?.parse().ok()?;
        Some((u32::from_le_bytes(*host), SeriesKey { slice, stage, arm: arm_of(*arm)? }))
    };
    read().ok_or(StoreError::Row("series"))
}

/// A request counter's row: host, arm, slice.
pub(super) fn requests_row(host: u32, slice: &Slice, arm: Arm) -> Vec<u8> {
    let mut row = host.to_le_bytes().to_vec();
    row.push(arm as u8);
    row.extend_from_slice(slice.to_string().as_bytes());
    row
}

pub(super) fn read_requests(row: &[u8]) -> Result<(u32, (Slice, Arm)), StoreError> {
    let read = || {
        let (host, rest) = row.split_first_chunk()?;
        let (arm, slice) = rest.split_first()?;
        let slice = std::str::from_utf8(slice).ok()?.parse().ok()?;
        Some((u32::from_le_bytes(*host), (slice, arm_of(*arm)?)))
    };
    read().ok_or(StoreError::Row("requests"))
}

/// A gauge's row: host, name.
pub(super) fn gauge_row(host: u32, name: &str) -> Vec<u8> {
    let mut row = host.to_le_bytes().to_vec();
    row.extend_from_slice(name.as_bytes());
    row
}

pub(super) fn read_gauge(row: &[u8]) -> Result<(u32, Box<str>), StoreError> {
    let read = || {
        let (host, name) = row.split_first_chunk()?;
        Some((u32::from_le_bytes(*host), std::str::from_utf8(name).ok()?.into()))
    };
    read().ok_or(StoreError::Row("gauges"))
}

fn arm_of(code: u8) -> Option<Arm> {
    Arm::ALL.into_iter().find(|known| *known as u8 == code)
}
