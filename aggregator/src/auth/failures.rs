//! How often an address may be wrong before nothing more is listened to from it.
//!
//! Only what proves nothing counts: a token that was good once tells its bearer apart from a
//! guesser, and a page left open over night must not lock its office out. An IPv6 host commands its
//! whole /64, so that is what counts as its address.
//! Bounds: [`FAILURES_MAX`] within [`PERIOD`], [`ADDRESSES_MAX`] addresses; the one that was wrong
//! longest ago makes room.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use tokio::time::Instant;

/// Wrong credentials taken from one address.
pub const FAILURES_MAX: u32 = 10;

/// Within this long; and how long it is then not listened to.
pub const PERIOD: Duration = Duration::from_secs(60);

/// Addresses remembered.
pub const ADDRESSES_MAX: usize = 4_096;

#[derive(Clone, Copy, Debug)]
struct Wrong {
    count: u32,
    since: Instant,
    last: Instant,
}

/// Who was wrong, how often and when.
#[derive(Debug, Default)]
pub struct Failures(HashMap<IpAddr, Wrong>);

fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(six) => match six.to_ipv4_mapped() {
            Some(four) => IpAddr::V4(four),
            None => IpAddr::V6(Ipv6Addr::from_bits(six.to_bits() & !u128::from(u64::MAX))),
        },
    }
}

impl Failures {
    /// How long the address is still not listened to, if it is not.
    pub fn locked(&mut self, address: IpAddr, now: Instant) -> Option<Duration> {
        let address = network(address);
        let wrong = *self.0.get(&address)?;
        let until = wrong.last + PERIOD;
        if now.duration_since(wrong.since) >= PERIOD && wrong.count < FAILURES_MAX || now >= until {
            self.0.remove(&address);
            return None;
        }
        (wrong.count >= FAILURES_MAX).then(|| until.duration_since(now))
    }

    /// Counts one; to be asked with [`Failures::locked`] first.
    pub fn wrong(&mut self, address: IpAddr, now: Instant) {
        let address = network(address);
        if self.0.len() >= ADDRESSES_MAX && !self.0.contains_key(&address) {
            let oldest = self.0.iter().min_by_key(|(_, wrong)| wrong.last).map(|(at, _)| *at);
            oldest.map(|oldest| self.0.remove(&oldest));
        }
        let wrong = self.0.entry(address).or_insert(Wrong { count: 0, since: now, last: now });
        wrong.count = wrong.count.saturating_add(1);
        wrong.last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_locked_at_the_bound_and_listened_to_again_after_the_period() {
        let (mut failures, at) = (Failures::default(), "192.0.2.1".parse().unwrap());
        let now = Instant::now();
        for _ in 0..FAILURES_MAX - 1 {
            failures.wrong(at, now);
        }
        assert_eq!(failures.locked(at, now), None);
        failures.wrong(at, now);
        assert_eq!(failures.locked(at, now), Some(PERIOD));
        assert_eq!(failures.locked("192.0.2.2".parse().unwrap(), now), None, "nobody else is");
        let almost = now + PERIOD - Duration::from_millis(1);
        assert!(failures.locked(at, almost).is_some());
        assert_eq!(failures.locked(at, now + PERIOD), None);
    }

    #[test]
    fn a_few_mistakes_a_minute_lock_nobody_out() {
        let (mut failures, at) = (Failures::default(), "192.0.2.1".parse().unwrap());
        let mut now = Instant::now();
        for _ in 0..100 {
            assert_eq!(failures.locked(at, now), None);
            failures.wrong(at, now);
            now += PERIOD / (FAILURES_MAX - 2);
        }
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_and_memory_is_bounded() {
        let mut failures = Failures::default();
        let now = Instant::now();
        for host in 0..FAILURES_MAX {
            failures.wrong(format!("2001:db8::{host:x}").parse().unwrap(), now);
        }
        assert!(failures.locked("2001:db8::ffff".parse().unwrap(), now).is_some());
        assert!(failures.locked("2001:db8:0:1::1".parse().unwrap(), now).is_none());
        for host in 0..=u32::try_from(ADDRESSES_MAX).unwrap() {
            failures.wrong(IpAddr::V4(host.into()), now + Duration::from_secs(1));
        }
        assert_eq!(failures.0.len(), ADDRESSES_MAX);
    }
}
