//! Conversions between counts, nanoseconds and floating point, in one place with their rules.

/// Nanoseconds in a millisecond.
const NANOS_PER_MILLI: f64 = 1e6;

/// A non-negative number as whole nanoseconds: rounded, saturating, zero for NaN and below.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float-to-integer cast saturates at both ends and takes NaN to 0, as promised"
)]
pub(crate) fn whole(value: f64) -> u64 {
    value.round() as u64
}

/// Nanoseconds as milliseconds for people.
pub(crate) fn millis(nanos: u64) -> f64 {
    nanos as f64 / NANOS_PER_MILLI
}

/// Milliseconds as whole nanoseconds, saturating.
pub(crate) fn nanos_of_millis(millis: f64) -> u64 {
    whole(millis * NANOS_PER_MILLI)
}

/// A duration as whole nanoseconds, saturating at 584 years.
pub(crate) fn nanos_of(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A position or count that an index of 32 bits must hold; saturates, and callers bound it first.
pub(crate) fn index32(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// FNV-1a: a hash whose value is the same on every host and in every build.
pub(crate) fn fnv1a(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_saturates_and_never_wraps() {
        assert_eq!(whole(f64::NAN), 0);
        assert_eq!(whole(-3.0), 0);
        assert_eq!(whole(1e40), u64::MAX);
        assert_eq!(nanos_of_millis(2.5), 2_500_000);
    }
}
