//! Bounds on what an address may cost before anybody knows who is behind it.
//!
//! An address has so many connections open at most. Whoever sends credentials that are wrong pays for each from a bucket
//! that fills up slowly; with an empty one, requests of that address that bring no client certificate are refused
//! unread. What is remembered of an address is forgotten once it has nothing open and its bucket is full, and a bound on
//! all of them keeps memory small. An IPv6 address stands for its network of 64 bits.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Addresses that are remembered at most, besides those with connections.
const MAX_REMEMBERED: usize = 10_000;

/// What an address may cost.
#[derive(Clone, Copy, Debug)]
pub struct PeerLimits {
    /// Connections open at a time.
    pub connections: usize,
    /// Wrong credentials at once.
    pub failures: u32,
    /// How many of them are forgiven in a second.
    pub forgiven_per_second: u32,
    /// How long the head of a request may take.
    pub head: Duration,
}

impl Default for PeerLimits {
    fn default() -> Self {
        Self {
            connections: 4096,
            failures: 200,
            forgiven_per_second: 10,
            // As long as upstream gives it.
            head: Duration::from_secs(32),
        }
    }
}

/// The addresses that are known.
#[derive(Debug)]
pub(crate) struct Peers {
    limits: PeerLimits,
    known: Mutex<HashMap<IpAddr, Peer>>,
}

#[derive(Debug)]
struct Peer {
    open: usize,
    /// Wrong credentials that are not forgiven, as of `since`.
    failures: f64,
    since: Instant,
}

/// An open connection; it counts until it is dropped.
#[derive(Debug)]
pub(crate) struct Connected {
    peers: Arc<Peers>,
    address: IpAddr,
}

impl Peers {
    pub(super) fn new(limits: PeerLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            known: Mutex::default(),
        })
    }

    pub(super) fn limits(&self) -> &PeerLimits {
        &self.limits
    }

    /// Counts a connection in; `None` if the address has too many.
    pub(super) fn connect(self: &Arc<Self>, address: IpAddr) -> Option<Connected> {
        let address = network(address);
        let mut known = self.known();
        let peer = known.entry(address).or_insert_with(Peer::new);
        if peer.open >= self.limits.connections {
            return None;
        }
        peer.open += 1;
        Some(Connected {
            peers: Arc::clone(self),
            address,
        })
    }

    /// Whether credentials of the address are looked at.
    pub(super) fn may_try(&self, address: IpAddr) -> bool {
        let mut known = self.known();
        let peer = known.get_mut(&network(address));
        peer.is_none_or(|peer| {
            peer.forgive(self.limits.forgiven_per_second);
            peer.failures < f64::from(self.limits.failures)
        })
    }

    /// Counts wrong credentials.
    pub(super) fn failed(&self, address: IpAddr) {
        let mut known = self.known();
        if known.len() >= MAX_REMEMBERED {
            let per_second = self.limits.forgiven_per_second;
            known.retain(|_, peer| {
                peer.forgive(per_second);
                peer.open > 0 || peer.failures > 1.0
            });
        }
        if known.len() >= MAX_REMEMBERED {
            // So many attackers at once: they are forgiven rather than remembered.
            known.retain(|_, peer| peer.open > 0);
        }
        let peer = known.entry(network(address)).or_insert_with(Peer::new);
        peer.forgive(self.limits.forgiven_per_second);
        peer.failures += 1.0;
    }

    fn known(&self) -> MutexGuard<'_, HashMap<IpAddr, Peer>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peer {
    fn new() -> Self {
        Self {
            open: 0,
            failures: 0.0,
            since: Instant::now(),
        }
    }

    fn forgive(&mut self, per_second: u32) {
        let now = Instant::now();
        let forgiven = now.duration_since(self.since).as_secs_f64() * f64::from(per_second);
        self.failures = (self.failures - forgiven).max(0.0);
        self.since = now;
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let per_second = self.peers.limits.forgiven_per_second;
        let mut known = self.peers.known();
        if let Some(peer) = known.get_mut(&self.address) {
            peer.open = peer.open.saturating_sub(1);
            peer.forgive(per_second);
            if peer.open == 0 && peer.failures == 0.0 {
                known.remove(&self.address);
            }
        }
    }
}

/// What an address stands for.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let high = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(high))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_so_many_connections_and_no_more() {
        let limits = PeerLimits {
            connections: 2,
            ..PeerLimits::default()
        };
        let peers = Peers::new(limits);
        let first = peers.connect(address("2001:db8::1")).unwrap();
        let _second = peers.connect(address("2001:db8::2")).unwrap();
        assert!(peers.connect(address("2001:db8::3")).is_none());
        assert!(peers.connect(address("2001:db8:0:1::1")).is_some());
        assert!(peers.connect(address("::ffff:10.0.0.1")).is_some());
        drop(first);
        assert!(peers.connect(address("2001:db8::3")).is_some());
    }

    #[test]
    fn wrong_credentials_are_looked_at_so_often_and_forgiven_slowly() {
        let limits = PeerLimits {
            failures: 3,
            forgiven_per_second: 0,
            ..PeerLimits::default()
        };
        let peers = Peers::new(limits);
        let (one, other) = (address("10.0.0.1"), address("10.0.0.2"));
        for _ in 0..3 {
            assert!(peers.may_try(one));
            peers.failed(one);
        }
        assert!(!peers.may_try(one) && peers.may_try(other));
        let mut peer = Peer::new();
        peer.failures = 5.0;
        peer.since -= Duration::from_secs(2);
        peer.forgive(2);
        assert!(peer.failures < 1.1, "{peer:?}");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let peers = Peers::new(PeerLimits::default());
        let open = peers.connect(address("10.0.0.1")).unwrap();
        for at in 0..=MAX_REMEMBERED as u32 {
            peers.failed(IpAddr::V4(std::net::Ipv4Addr::from_bits(0x0b00_0000 + at)));
        }
        assert!(peers.known().len() <= MAX_REMEMBERED);
        assert!(peers.known().contains_key(&address("10.0.0.1")));
        drop(open);
        assert!(!peers.known().contains_key(&address("10.0.0.1")));
    }
}
