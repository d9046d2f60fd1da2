//! Stage clock: the processor's time stamp counter where it is trustworthy, else the monotonic one.
//!
//! Why: two clock reads are most of a timed stage, and a time stamp read is half the cost of
//! `clock_gettime`. It is used only where the processor says it never stops or changes rate
//! (cpuid 0x8000_0007 EDX bit 8) and the kernel itself keeps time by it, which it stops doing the
//! moment its watchdog doubts the counter.
//! Promise: an interval is never negative; its rate is within 0.05 % of the monotonic clock's.
//! Units: ticks are the counter's, or nanoseconds when the monotonic clock is used.

use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Once;

use lens_model::{Nanos, UnixNanos};
use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds a tick × 2^64; 0 while the monotonic clock is used.
///
/// A full-width fraction, so that one multiplication's high half is the answer, without a shift.
static NANOS_PER_TICK_Q64: AtomicU64 = AtomicU64::new(0);
static CALIBRATE: Once = Once::new();

/// Plausible rates: above 1 GHz, for the fraction to be below one, to 20 GHz.
const Q64_MIN: u64 = u64::MAX / 20;

/// A point of the stage clock. Only differences mean something.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticks(u64);

/// Which clock times stages in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StageClock {
    /// The processor's time stamp counter, calibrated against the monotonic clock.
    Tsc,
    /// `clock_gettime(CLOCK_MONOTONIC)`.
    Monotonic,
}

/// Chooses and calibrates the clock. The first call takes some milliseconds; others are free.
pub(crate) fn prepare() {
    CALIBRATE.call_once(|| {
        // Relaxed: a thread that times a stage got its series through this call or after it, and
        // one clock's start is never paired with the other's end within a process's recorders.
        NANOS_PER_TICK_Q64.store(tsc::rate().unwrap_or(0), Ordering::Relaxed);
    });
}

/// Which clock was chosen.
pub(crate) fn chosen() -> StageClock {
    if NANOS_PER_TICK_Q64.load(Ordering::Relaxed) == 0 {
        StageClock::Monotonic
    } else {
        StageClock::Tsc
    }
}

/// The time now.
#[inline(always)]
pub(crate) fn now() -> Ticks {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if NANOS_PER_TICK_Q64.load(Ordering::Relaxed) != 0 {
        return Ticks(tsc::read());
    }
    Ticks(monotonic_nanos())
}

/// The wall clock as of the kernel's last tick, some milliseconds ago at most: a quarter of the cost
/// of an exact look.
#[allow(clippy::cast_sign_loss)]
pub(crate) fn wall_coarse() -> UnixNanos {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    let (secs, nanos) = (now.tv_sec.max(0) as u64, now.tv_nsec.max(0) as u64);
    UnixNanos(secs.saturating_mul(1_000_000_000).saturating_add(nanos))
}

impl Ticks {
    /// The time from `earlier` to this point; zero where a processor's counter lags another's.
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)]
    pub(crate) fn since(self, earlier: Self) -> Nanos {
        let ticks = self.0.saturating_sub(earlier.0);
        let rate = NANOS_PER_TICK_Q64.load(Ordering::Relaxed);
        if rate == 0 {
            return Nanos(ticks);
        }
        Nanos(((u128::from(ticks) * u128::from(rate)) >> 64) as u64)
    }
}

#[inline]
fn monotonic_nanos() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    // Both parts are non-negative by the kernel's contract.
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
mod tsc {
    pub(super) fn rate() -> Option<u64> {
        None
    }
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod tsc {
    use super::{Q64_MIN, monotonic_nanos};
    use core::arch::x86_64::{__cpuid, _rdtsc};
    use std::time::Duration;

    #[inline(always)]
    pub(super) fn read() -> u64 {
        // WHY: the instruction has no safe form.
        // SAFETY: every x86-64 processor has it; where the kernel forbids it (PR_TSC_SIGSEGV) the
        // process asked for that itself.
        unsafe { _rdtsc() }
    }

    /// Nanoseconds a tick × 2^64, or none where the counter is not to be trusted.
    pub(super) fn rate() -> Option<u64> {
        const INVARIANT: u32 = 1 << 8;
        if __cpuid(0x8000_0000).eax < 0x8000_0007 || __cpuid(0x8000_0007).edx & INVARIANT == 0 {
            return None;
        }
        let path = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
        if std::fs::read_to_string(path).ok()?.trim() != "tsc" {
            return None;
        }
        // Two windows that share no sample must agree: a pause of the machine inside a sample
        // shows as a difference, and then the slower clock is the honest one. Three attempts.
        (0..3).find_map(|_| {
            let points: [(u64, u64); 3] = core::array::from_fn(|_| {
                std::thread::sleep(Duration::from_millis(4));
                sample()
            });
            let (one, two) = (slope(points[0], points[1])?, slope(points[1], points[2])?);
            let whole = slope(points[0], points[2])?;
            let near = one.abs_diff(two) < whole / 2_000;
            (near && whole > Q64_MIN).then_some(whole)
        })
    }

    /// A tick and a time read as close together as 32 tries get.
    fn sample() -> (u64, u64) {
        let tries = (0..32).map(|_| {
            let before = read();
            let nanos = monotonic_nanos();
            let after = read();
            (after.wrapping_sub(before), before.wrapping_add(after.wrapping_sub(before) / 2), nanos)
        });
        tries.min().map_or((0, 0), |(_, ticks, nanos)| (ticks, nanos))
    }

    fn slope(from: (u64, u64), to: (u64, u64)) -> Option<u64> {
        let ticks = u128::from(to.0.checked_sub(from.0)?);
        let nanos = u128::from(to.1.checked_sub(from.1)?);
        u64::try_from((nanos << 64).checked_div(ticks)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn an_interval_is_what_the_monotonic_clock_says() {
        prepare();
        let (start, reference) = (now(), Instant::now());
        std::thread::sleep(Duration::from_millis(20));
        let (nanos, expected) =
            (now().since(start).0 as f64, reference.elapsed().as_nanos() as f64);
        assert!((nanos / expected - 1.0).abs() < 0.02, "{nanos} against {expected}");
    }

    #[test]
    fn an_interval_is_never_negative() {
        prepare();
        assert_eq!(Ticks(5).since(Ticks(9)), Nanos(0));
    }
}
