//! Instants as people and JSON write them.

use std::time::SystemTime;

use lens_model::UnixNanos;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The instant in RFC 3339, UTC, as `2026-11-21T19:40:20.5Z`.
pub fn rfc3339(at: UnixNanos) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(at.0))
        .ok()
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_else(|| format!("{} ns after 1970", at.0))
}

/// Reads an RFC 3339 instant; `None` when it is none, or lies before 1970.
pub fn parse_rfc3339(text: &str) -> Option<UnixNanos> {
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    u64::try_from(at.unix_timestamp_nanos()).ok().map(UnixNanos)
}

/// The wall clock.
pub fn unix_now() -> UnixNanos {
    UnixNanos::from_system_time(SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_read_back_to_the_nanosecond() {
        let at = UnixNanos(1_763_754_020_123_456_789);
        assert_eq!(parse_rfc3339(&rfc3339(at)), Some(at));
        assert_eq!(rfc3339(UnixNanos(0)), "1970-01-01T00:00:00Z");
        assert_eq!(parse_rfc3339("yesterday"), None);
        assert_eq!(parse_rfc3339("1969-12-31T23:59:59Z"), None);
    }
}
