//! Which pod addresses of this node are in use.
//!
//! Addresses are handed out in order around the range, so that a freed one is reused as late as
//! possible: a client that still holds an old address must not reach a new pod by it.
//!
//! Invariant: the network's own address, the gateway (first host) and the broadcast address of the
//! range are never handed out.

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

/// An IPv4 range in CIDR form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr {
    network: u32,
    prefix: u8,
}

/// A text that is no IPv4 range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an IPv4 range in CIDR form")]
pub struct CidrError(String);

impl Cidr {
    fn mask(self) -> u32 {
        u32::MAX
            .checked_shl(32 - u32::from(self.prefix))
            .unwrap_or(0)
    }

    /// Whether the address lies in the range.
    pub fn contains(self, address: IpAddr) -> bool {
        matches!(address, IpAddr::V4(v4) if u32::from(v4) & self.mask() == self.network)
    }

    /// How many addresses the range has.
    pub fn size(self) -> u64 {
        1 << (32 - u32::from(self.prefix))
    }

    /// The first host address, which stands for the node itself.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from(self.network.wrapping_add(1))
    }

    /// The range of that length around an address; `prefix` is at most 32.
    pub(super) fn of(address: Ipv4Addr, prefix: u8) -> Self {
        let mut cidr = Self { network: 0, prefix };
        cidr.network = u32::from(address) & cidr.mask();
        cidr
    }

    /// The first address of the range, as a number.
    pub(super) fn network(self) -> u32 {
        self.network
    }

    /// How many leading bits the addresses of the range share.
    pub(super) fn prefix(self) -> u8 {
        self.prefix
    }

    fn nth(self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.network.wrapping_add(n))
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            let address: Ipv4Addr = address.parse().ok()?;
            let prefix: u8 = prefix.parse().ok().filter(|prefix| *prefix <= 32)?;
            Some(Self::of(address, prefix))
        };
        parse().ok_or_else(|| CidrError(text.to_owned()))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.network), self.prefix)
    }
}

/// The addresses of one range.
#[derive(Debug)]
pub(super) struct AddressPool {
    cidr: Cidr,
    used: HashSet<Ipv4Addr>,
    next: u32,
}

impl AddressPool {
    pub(super) fn new(cidr: Cidr) -> Self {
        Self {
            cidr,
            used: HashSet::new(),
            next: FIRST,
        }
    }

    pub(super) fn cidr(&self) -> Cidr {
        self.cidr
    }

    /// A free address, or nothing if all are taken.
    pub(super) fn take(&mut self) -> Option<Ipv4Addr> {
        let end = u32::try_from(self.cidr.size())
            .unwrap_or(u32::MAX)
            .saturating_sub(1);
        if end <= FIRST || self.used.len() >= (end - FIRST) as usize {
            return None;
        }
        loop {
            let candidate = self.cidr.nth(self.next);
            self.next = if self.next + 1 >= end {
                FIRST
            } else {
                self.next + 1
            };
            if self.used.insert(candidate) {
                return Some(candidate);
            }
        }
    }

    /// Takes this address; `false` if it is taken, or none of the range's for pods.
    pub(super) fn take_this(&mut self, address: Ipv4Addr) -> bool {
        let offset = u32::from(address).wrapping_sub(self.cidr.network);
        let end = self.cidr.size().saturating_sub(1);
        let is_for_pods = offset >= FIRST && u64::from(offset) < end;
        is_for_pods && self.used.insert(address)
    }

    pub(super) fn give_back(&mut self, address: Ipv4Addr) {
        self.used.remove(&address);
    }
}

/// Offset of the first address given to a pod.
const FIRST: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_parsed_and_masked() {
        for (text, want) in [
            ("10.42.1.7/24", Some("10.42.1.0/24")),
            ("10.0.0.0/10", Some("10.0.0.0/10")),
            ("1.2.3.4/32", Some("1.2.3.4/32")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("10.0.0.0/33", None),
            ("10.0.0.0", None),
            ("fd00::/64", None),
            ("", None),
        ] {
            let got = text.parse::<Cidr>().ok().map(|cidr| cidr.to_string());
            assert_eq!(got.as_deref(), want, "{text}");
        }
    }

    #[test]
    fn a_range_contains_its_addresses_only() {
        let cidr: Cidr = "10.42.64.0/18".parse().unwrap();
        for (address, want) in [
            ("10.42.64.0", true),
            ("10.42.127.255", true),
            ("10.42.128.0", false),
            ("10.42.63.255", false),
            ("::ffff:10.42.64.1", false),
        ] {
            assert_eq!(cidr.contains(address.parse().unwrap()), want, "{address}");
        }
    }

    #[test]
    fn a_freed_address_is_the_last_to_be_used_again() {
        let mut pool = AddressPool::new("10.0.0.0/29".parse().unwrap());
        let first = pool.take().unwrap();
        assert_eq!(first, Ipv4Addr::new(10, 0, 0, 2));
        pool.give_back(first);
        let order: Vec<_> = (0..5).map(|_| pool.take().unwrap().octets()[3]).collect();
        assert_eq!(order, [3, 4, 5, 6, 2]);
        assert_eq!(pool.take(), None);
    }

    #[test]
    fn a_range_without_hosts_gives_nothing() {
        for text in ["10.0.0.0/32", "10.0.0.0/31", "10.0.0.0/30"] {
            let mut pool = AddressPool::new(text.parse().unwrap());
            let got: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
            assert_eq!(got.len(), usize::from(text.ends_with("30")), "{text}");
        }
    }

    #[test]
    fn an_address_is_given_again_if_it_is_free_and_a_pods() {
        let mut pool = AddressPool::new("10.1.0.0/29".parse().unwrap());
        let address = |last| Ipv4Addr::new(10, 1, 0, last);
        assert!(pool.take_this(address(3)));
        assert!(!pool.take_this(address(3)));
        for other in [0, 1, 7, 8, 255] {
            assert!(!pool.take_this(address(other)), "{other}");
        }
        assert!(!pool.take_this(Ipv4Addr::new(10, 0, 255, 255)));
        assert_eq!(pool.take(), Some(address(2)));
        assert_eq!(pool.take(), Some(address(4)));
        pool.give_back(address(3));
        assert!(pool.take_this(address(3)));
    }
}
