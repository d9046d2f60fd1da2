//! Who may hold a connection, how many, and for how long.
//!
//! The transport library bounds none of this. An address may hold `per_address` connections and
//! handshakes, an identity two (the old one and its replacement); a connection ends when it is
//! older than `age_max`, so that a renewed or ended certificate is looked at again, and at once
//! when whom it belongs to is revoked. Above `unvalidated_max` handshakes a new address must first
//! prove that it receives what is sent to it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use lens_model::AgentName;
use lens_model::limits::{
    CONNECTIONS_MAX, CONNECTIONS_PER_ADDRESS_MAX, CONNECTIONS_PER_AGENT_MAX,
    HANDSHAKES_UNVALIDATED_MAX,
};
use lens_service::tls::Peer;
use parking_lot::Mutex;
use quinn::{Connection, VarInt};
use tokio::time::Instant;

use crate::auth::Revoked;

/// How many and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections and handshakes in all.
    pub connections_max: usize,
    /// Of these, from one address.
    pub per_address_max: usize,
    /// Connections of one agent.
    pub per_agent_max: usize,
    /// Handshakes under way above which an address must first prove itself.
    pub unvalidated_max: usize,
    /// Longest a handshake may take.
    pub handshake_max: Duration,
    /// Longest from it to a valid HELLO.
    pub hello_max: Duration,
    /// Longest a connection stands.
    pub age_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: CONNECTIONS_MAX,
            per_address_max: CONNECTIONS_PER_ADDRESS_MAX,
            per_agent_max: CONNECTIONS_PER_AGENT_MAX,
            unvalidated_max: HANDSHAKES_UNVALIDATED_MAX,
            handshake_max: Duration::from_secs(3),
            hello_max: Duration::from_secs(1),
            age_max: Duration::from_secs(3_600),
        }
    }
}

/// What to do with one that asks to come in.
#[derive(Debug)]
pub(super) enum Answer {
    /// Go on with the handshake, holding this.
    Accept(Seat),
    /// Prove the address first.
    Retry,
    /// There is no room.
    Refuse,
}

#[derive(Debug)]
struct Held {
    address: IpAddr,
    /// Who, once the handshake is done.
    open: Option<(Peer, Connection, Instant)>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    seats: BTreeMap<u64, Held>,
    handshakes: usize,
}

/// Everyone who holds a place; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Admission {
    limits: Limits,
    table: Arc<Mutex<Table>>,
}

/// A place, given back on drop.
#[derive(Debug)]
pub(super) struct Seat {
    id: u64,
    of: Admission,
}

impl Admission {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, table: Arc::default() }
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    /// What to do with one that asks from this address.
    pub(super) fn ask(&self, address: IpAddr, validated: bool) -> Answer {
        let mut table = self.table.lock();
        if !validated && table.handshakes >= self.limits.unvalidated_max {
            return Answer::Retry;
        }
        let from_there = table.seats.values().filter(|held| held.address == address);
        if table.seats.len() >= self.limits.connections_max
            || from_there.count() >= self.limits.per_address_max
        {
            return Answer::Refuse;
        }
        let id = table.next;
        table.next += 1;
        table.handshakes += 1;
        table.seats.insert(id, Held { address, open: None });
        Answer::Accept(Seat { id, of: self.clone() })
    }

    /// Handshakes under way.
    #[cfg(test)]
    fn handshakes(&self) -> usize {
        self.table.lock().handshakes
    }

    /// Closes the connections of everyone who is kept out; gives how many.
    pub(super) fn close_revoked(&self, revoked: &Revoked) -> usize {
        let out = |peer: &Peer| revoked.agent(&peer.id.agent, &peer.serial);
        self.close(|peer, _| out(peer), CLOSE_REVOKED, b"certificate revoked")
    }

    /// Closes the connections that are too old, or whose certificate has ended; gives how many.
    /// What they had not acknowledged comes again on the next.
    pub(super) fn close_old(&self, now: Instant, wall: lens_model::UnixNanos) -> usize {
        let old = |peer: &Peer, id: u64, since: Instant| {
            now.duration_since(since) >= self.age_max_of(id) || peer.not_after < wall
        };
        let old = |peer: &Peer, (id, since): (u64, Instant)| old(peer, id, since);
        self.close(old, CLOSE_OLD, b"connection is as old as it may be: connect anew")
    }

    /// A fleet that connected together must not reconnect together: up to a tenth earlier.
    fn age_max_of(&self, id: u64) -> Duration {
        let share = u32::try_from(id % 64).unwrap_or(0);
        self.limits.age_max - self.limits.age_max / 10 * share / 64
    }

    fn close(
        &self,
        which: impl Fn(&Peer, (u64, Instant)) -> bool,
        code: VarInt,
        why: &[u8],
    ) -> usize {
        let table = self.table.lock();
        let open = table.seats.iter().filter_map(|(id, held)| Some((*id, held.open.as_ref()?)));
        let closed = open.filter(|(id, (peer, _, since))| which(peer, (*id, *since)));
        let closed: Vec<Connection> = closed.map(|(_, (_, held, _))| held.clone()).collect();
        drop(table);
        closed.iter().for_each(|connection| connection.close(code, why));
        closed.len()
    }
}

/// Codes of REFUSE (docs/wire.md), which say to an agent how long to stay away.
const CLOSE_REVOKED: VarInt = VarInt::from_u32(2);
const CLOSE_OLD: VarInt = VarInt::from_u32(6);

impl Seat {
    /// The handshake is done; gives whether this agent may hold one more connection.
    pub(super) fn open(&self, peer: &Peer, connection: &Connection) -> bool {
        let mut table = self.of.table.lock();
        table.handshakes = table.handshakes.saturating_sub(1);
        let open = table.seats.values().filter_map(|held| held.open.as_ref());
        let theirs = open.filter(|(held, ..)| held.id.agent == peer.id.agent).count();
        if let Some(held) = table.seats.get_mut(&self.id) {
            held.open = Some((peer.clone(), connection.clone(), Instant::now()));
        }
        theirs < self.of.limits.per_agent_max
    }

    /// The handshake failed, or named nobody.
    pub(super) fn failed(&self) {
        let mut table = self.of.table.lock();
        table.handshakes = table.handshakes.saturating_sub(1);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.of.table.lock().seats.remove(&self.id);
    }
}

/// The name a connection is known by, for a sentence.
pub(super) fn too_many(agent: &AgentName, most: usize) -> String {
    format!("agent {agent} holds {most} connections already")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(change: impl FnOnce(&mut Limits)) -> Admission {
        let mut limits = Limits::default();
        change(&mut limits);
        Admission::new(limits)
    }

    fn at(host: u8) -> IpAddr {
        [192, 0, 2, host].into()
    }

    fn seat(admission: &Admission, host: u8) -> Option<Seat> {
        match admission.ask(at(host), true) {
            Answer::Accept(seat) => Some(seat),
            Answer::Retry | Answer::Refuse => None,
        }
    }

    #[test]
    fn an_address_holds_as_many_as_it_may_and_not_one_more() {
        let admission = admission(|limits| limits.per_address_max = 3);
        let mut held: Vec<Seat> = (0..3).filter_map(|_| seat(&admission, 1)).collect();
        assert_eq!(held.len(), 3);
        assert!(seat(&admission, 1).is_none());
        assert!(seat(&admission, 2).is_some());
        held.pop();
        assert!(seat(&admission, 1).is_some(), "a place given back is free again");
    }

    #[test]
    fn all_addresses_together_hold_as_many_as_there_are_places() {
        let admission = admission(|limits| limits.connections_max = 4);
        let held: Vec<Seat> = (0..9).filter_map(|host| seat(&admission, host)).collect();
        assert_eq!(held.len(), 4);
    }

    #[test]
    fn when_it_is_busy_an_address_proves_itself_first_and_is_not_asked_twice() {
        let admission = admission(|limits| limits.unvalidated_max = 2);
        let first = admission.ask(at(1), false);
        let held = [seat(&admission, 2).unwrap(), seat(&admission, 3).unwrap()];
        assert!(matches!(first, Answer::Accept(_)));
        assert_eq!(admission.handshakes(), 3);
        assert!(matches!(admission.ask(at(4), false), Answer::Retry));
        assert!(matches!(admission.ask(at(4), true), Answer::Accept(_)));
        held.iter().for_each(Seat::failed);
        assert_eq!(admission.handshakes(), 2);
    }

    #[test]
    fn ages_differ_by_a_tenth_so_that_a_fleet_does_not_return_at_once() {
        let admission = admission(|limits| limits.age_max = Duration::from_secs(100));
        let ages: Vec<Duration> = (0..64).map(|id| admission.age_max_of(id)).collect();
        assert_eq!(ages[0], Duration::from_secs(100));
        assert!(ages.windows(2).all(|pair| pair[1] < pair[0]));
        assert!(ages[63] > Duration::from_secs(90));
    }
}
