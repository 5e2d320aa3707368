//! The addresses that load balancers may get, as `--load-balancer-pool` lists them: `192.0.2.0/28` or
//! `192.0.2.10-192.0.2.20`.

use std::net::Ipv4Addr;
use std::str::FromStr;

/// A range of IPv4 addresses, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    first: u32,
    last: u32,
}

/// A text that is no range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is neither a network such as 192.0.2.0/28 nor a range such as 192.0.2.10-192.0.2.20"
)]
pub struct AddressRangeError(String);

impl AddressRange {
    /// Whether the address is of the range.
    pub(super) fn contains(self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&address.into())
    }

    /// The addresses in order.
    pub(super) fn addresses(self) -> impl Iterator<Item = Ipv4Addr> {
        (self.first..=self.last).map(Ipv4Addr::from)
    }
}

impl FromStr for AddressRange {
    type Err = AddressRangeError;

    fn from_str(text: &str) -> Result<Self, AddressRangeError> {
        let parse = || {
            if let Some((first, last)) = text.split_once('-') {
                let first: Ipv4Addr = first.trim().parse().ok()?;
                let last: Ipv4Addr = last.trim().parse().ok()?;
                return Some((first.into(), last.into()));
            }
            let (network, bits) = text.split_once('/')?;
            let network: Ipv4Addr = network.parse().ok()?;
            let bits: u32 = bits.parse().ok().filter(|bits| *bits <= 32)?;
            let rest = u32::MAX.checked_shr(bits).unwrap_or(0);
            let first = u32::from(network) & !rest;
            // The ends of a network are its own address and the broadcast.
            Some(match rest {
                0 | 1 => (first, first | rest),
                _ => (first + 1, (first | rest) - 1),
            })
        };
        let range: Option<(u32, u32)> = parse();
        range
            .filter(|(first, last)| first <= last)
            .map(|(first, last)| Self { first, last })
            .ok_or_else(|| AddressRangeError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_in_both_forms() {
        for (text, want) in [
            ("192.0.2.9/30", Some(&["192.0.2.9", "192.0.2.10"][..])),
            ("192.0.2.8/31", Some(&["192.0.2.8", "192.0.2.9"])),
            ("192.0.2.8/32", Some(&["192.0.2.8"])),
            ("192.0.2.1-192.0.2.2", Some(&["192.0.2.1", "192.0.2.2"])),
            ("192.0.2.2-192.0.2.1", None),
            ("192.0.2.2", None),
            ("192.0.2.0/33", None),
        ] {
            let range: Result<AddressRange, _> = text.parse();
            let all = range.map(|it| it.addresses().map(|each| each.to_string()).collect());
            let want = want.map(|list| list.iter().map(|each| (*each).to_owned()).collect());
            assert_eq!(all.ok(), want as Option<Vec<String>>, "{text}");
        }
        let all: AddressRange = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains("9.9.9.9".parse().unwrap()));
    }
}
