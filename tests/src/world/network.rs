//! The network between hosts: loses, doubles, spoils and reorders datagrams as the seed says.
//!
//! Every link, one for each direction between two hosts, has chance of its own, so that a fault
//! taken away on one leaves the others as they were. A datagram takes at least a tick.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::TICK_NANOS;
use super::life::Life;
use super::random::Chance;
use super::socket::Socket;
use super::trace::Trace;

/// A host, by its place in the world.
pub type HostId = usize;

/// Most a datagram takes in fair weather, nanoseconds.
const FAIR_NANOS_MAX: u64 = TICK_NANOS + 5_000_000;

/// How a link treats datagrams, for each in a thousand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// Lost.
    pub lost: u64,
    /// Delivered twice.
    pub doubled: u64,
    /// Delivered with a byte changed.
    pub spoiled: u64,
    /// Longest further delay, drawn for each, nanoseconds: what reorders them.
    pub jitter_nanos: u64,
}

/// What became of all datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Traffic {
    pub sent: u64,
    pub lost: u64,
    pub doubled: u64,
    pub spoiled: u64,
    pub cut: u64,
}

/// A datagram at its destination.
#[derive(Debug)]
pub struct Arrival {
    /// When, virtual nanoseconds.
    pub at: u64,
    from: SocketAddr,
    bytes: Vec<u8>,
    socket: Option<Arc<Socket>>,
}

impl Arrival {
    pub(super) fn deliver(self) {
        if let Some(socket) = self.socket {
            socket.take_in(self.from, self.bytes);
        }
    }
}

#[derive(Debug)]
struct Link {
    chance: Chance,
    weather: Weather,
}

#[derive(Debug)]
struct OnTheWay {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct Inner {
    links: BTreeMap<(HostId, HostId), Link>,
    cuts: BTreeSet<(HostId, HostId)>,
    /// By destination, time and number.
    on_the_way: BTreeMap<HostId, BTreeMap<(u64, u64), OnTheWay>>,
    sockets: BTreeMap<SocketAddr, Weak<Socket>>,
    sent: u64,
    traffic: Traffic,
}

/// The network. Clones are the same network.
#[derive(Clone, Debug)]
pub struct Network {
    inner: Arc<Mutex<Inner>>,
    trace: Trace,
}

/// The address of a host.
pub fn address(host: HostId) -> IpAddr {
    let last = u8::try_from(host + 1).unwrap_or(u8::MAX);
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
}

fn host(of: IpAddr) -> Option<HostId> {
    match of {
        IpAddr::V4(address) => usize::from(address.octets()[3]).checked_sub(1),
        IpAddr::V6(_) => None,
    }
}

impl Network {
    /// A network between this many hosts.
    pub fn new(hosts: usize, chance: &Chance, trace: Trace) -> Self {
        let mut links = BTreeMap::new();
        for from in 0..hosts {
            for to in 0..hosts {
                let chance = chance.fork(&format!("link {from} {to}"));
                links.insert((from, to), Link { chance, weather: Weather::default() });
            }
        }
        let inner = Inner {
            links,
            cuts: BTreeSet::new(),
            on_the_way: BTreeMap::new(),
            sockets: BTreeMap::new(),
            sent: 0,
            traffic: Traffic::default(),
        };
        Self { inner: Arc::new(Mutex::new(inner)), trace }
    }

    /// Opens a socket, in place of any that had its address.
    pub(super) fn open(&self, address: SocketAddr, life: Arc<Life>) -> Arc<Socket> {
        let socket = Arc::new(Socket::new(address, self.clone(), life));
        self.inner.lock().sockets.insert(address, Arc::downgrade(&socket));
        socket
    }

    /// Takes a datagram on its way.
    pub(super) fn send(&self, now: u64, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let (Some(source), Some(target)) = (host(from.ip()), host(to.ip())) else { return };
        let numbers = [source as u64, u64::from(from.port()), target as u64, u64::from(to.port())];
        self.trace.add(now, "datagram", &numbers, bytes);
        let inner = &mut *self.inner.lock();
        inner.traffic.sent += 1;
        let cut = inner.cuts.contains(&(source, target));
        let Some(link) = inner.links.get_mut(&(source, target)) else { return };
        // Always the same number of draws, so that a cut changes no later datagram's fate.
        let fate = Fate::draw(&mut link.chance, link.weather, bytes.len());
        if cut || fate.lost {
            inner.traffic.cut += u64::from(cut);
            inner.traffic.lost += u64::from(!cut);
            return;
        }
        let mut bytes = bytes.to_vec();
        if let Some((at, bits)) = fate.spoiled {
            bytes[at] ^= bits;
            inner.traffic.spoiled += 1;
        }
        inner.traffic.doubled += u64::from(fate.doubled);
        let on_the_way = inner.on_the_way.entry(target).or_default();
        for delay in fate.delays.iter().take(1 + usize::from(fate.doubled)) {
            inner.sent += 1;
            let bytes = bytes.clone();
            on_the_way.insert((now + delay, inner.sent), OnTheWay { from, to, bytes });
        }
    }

    /// What arrives at a host before `until`, in order.
    pub(super) fn arrivals(&self, host: HostId, until: u64) -> Vec<Arrival> {
        let inner = &mut *self.inner.lock();
        let Some(on_the_way) = inner.on_the_way.get_mut(&host) else { return Vec::new() };
        let later = on_the_way.split_off(&(until, 0));
        let due = std::mem::replace(on_the_way, later);
        let arrival = |((at, _), OnTheWay { from, to, bytes })| {
            let socket = inner.sockets.get(&to).and_then(Weak::upgrade);
            Arrival { at, from, bytes, socket }
        };
        due.into_iter().map(arrival).collect()
    }

    /// Changes the weather from one host to another.
    pub fn set_weather(&self, from: HostId, to: HostId, weather: Weather) {
        if let Some(link) = self.inner.lock().links.get_mut(&(from, to)) {
            link.weather = weather;
        }
    }

    /// Cuts or mends the way from one host to another.
    pub fn set_cut(&self, from: HostId, to: HostId, cut: bool) {
        let mut inner = self.inner.lock();
        if cut {
            inner.cuts.insert((from, to));
        } else {
            inner.cuts.remove(&(from, to));
        }
    }

    /// Fair weather and no cut anywhere.
    pub fn heal(&self) {
        let mut inner = self.inner.lock();
        inner.cuts.clear();
        inner.links.values_mut().for_each(|link| link.weather = Weather::default());
    }

    /// What became of all datagrams so far.
    pub fn traffic(&self) -> Traffic {
        self.inner.lock().traffic
    }
}

/// What becomes of one datagram.
struct Fate {
    lost: bool,
    doubled: bool,
    spoiled: Option<(usize, u8)>,
    delays: [u64; 2],
}

impl Fate {
    fn draw(chance: &mut Chance, weather: Weather, length: usize) -> Self {
        let mut delay =
            || chance.between(TICK_NANOS, FAIR_NANOS_MAX) + chance.below(weather.jitter_nanos + 1);
        let delays = [delay(), delay()];
        let lost = chance.happens(weather.lost);
        let doubled = chance.happens(weather.doubled);
        let spoiled = chance.happens(weather.spoiled);
        let at = usize::try_from(chance.below(length.max(1) as u64)).unwrap_or(0);
        let bits = 1 << chance.below(8);
        Self { lost, doubled, spoiled: (spoiled && length > 0).then_some((at, bits)), delays }
    }
}
