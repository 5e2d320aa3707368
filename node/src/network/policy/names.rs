//! Names that pods may connect to, as the annotation `network.windlass.dev/egress-names` of a NetworkPolicy lists
//! them: `api.example.com, *.example.org`.
//!
//! A rule about a name holds for the addresses that the pod was told when it looked such a name up. A pod
//! that dials an address it did not look up gets nothing from it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The annotation of a NetworkPolicy. Differs from Kubernetes: upstream has no rules by name.
pub(in crate::network) const ANNOTATION: &str = "network.windlass.dev/egress-names";

/// How long an answer counts: longer than most records live, so that a client which keeps its connections'
/// addresses for a while is not cut off.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// Addresses remembered per pod; the oldest go first.
const MAX_ADDRESSES: usize = 1024;

/// A name, or `*.` and a domain: any name below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::network) struct NamePattern {
    domain: String,
    below: bool,
}

impl NamePattern {
    /// The patterns of the annotation's value; those that are none are told back.
    pub(super) fn list(value: &str) -> (Vec<Self>, Vec<String>) {
        let (mut patterns, mut wrong) = (Vec::new(), Vec::new());
        for text in value
            .split([',', ' ', '\n'])
            .filter(|text| !text.is_empty())
        {
            match Self::parse(text) {
                Some(pattern) => patterns.push(pattern),
                None => wrong.push(text.to_owned()),
            }
        }
        (patterns, wrong)
    }

    /// One pattern.
    #[cfg(test)]
    pub(in crate::network) fn of(text: &str) -> Option<Self> {
        Self::parse(text)
    }

    fn parse(text: &str) -> Option<Self> {
        let text = text.trim_end_matches('.').to_ascii_lowercase();
        let (domain, below) = match text.strip_prefix("*.") {
            Some(domain) => (domain, true),
            None => (text.as_str(), false),
        };
        let label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        let sound = domain.len() <= 253 && domain.split('.').all(label);
        sound.then(|| Self {
            domain: domain.to_owned(),
            below,
        })
    }

    /// Whether a full name, in lower case and without the last dot, fits.
    pub(in crate::network) fn matches(&self, name: &str) -> bool {
        match name.strip_suffix(self.domain.as_str()) {
            Some("") => !self.below,
            Some(front) => self.below && front.len() > 1 && front.ends_with('.'),
            None => false,
        }
    }
}

/// What a pod was told about names outside of the cluster.
#[derive(Debug, Default)]
pub(in crate::network) struct KnownNames(Mutex<HashMap<IpAddr, Vec<(String, Instant)>>>);

impl KnownNames {
    /// The pod was told that the name has these addresses.
    pub(in crate::network) fn remember(&self, name: &str, addresses: &[IpAddr]) {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let now = Instant::now();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for address in addresses {
            if known.len() >= MAX_ADDRESSES && !known.contains_key(address) {
                make_room(&mut known, now);
            }
            let names = known.entry(*address).or_default();
            names.retain(|(each, told)| *each != name && now.duration_since(*told) < REMEMBERED);
            names.push((name.clone(), now));
        }
    }

    /// Whether the address was told for a name that fits.
    pub(in crate::network) fn fits(&self, address: IpAddr, pattern: &NamePattern) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&address).is_some_and(|names| {
            names
                .iter()
                .any(|(name, told)| told.elapsed() < REMEMBERED && pattern.matches(name))
        })
    }
}

/// Drops what is too old, or else the address that was told longest ago.
fn make_room(known: &mut HashMap<IpAddr, Vec<(String, Instant)>>, now: Instant) {
    known.retain(|_, names| {
        names
            .iter()
            .any(|(_, told)| now.duration_since(*told) < REMEMBERED)
    });
    if known.len() < MAX_ADDRESSES {
        return;
    }
    let last = |names: &[(String, Instant)]| names.iter().map(|(_, told)| *told).max();
    let oldest = known
        .iter()
        .min_by_key(|(_, names)| last(names))
        .map(|(address, _)| *address);
    if let Some(address) = oldest {
        known.remove(&address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_names_and_what_lies_below_domains() {
        let (patterns, wrong) =
            NamePattern::list("API.example.com., *.example.org,  *, a..b, *.*.c");
        assert_eq!(wrong, ["*", "a..b", "*.*.c"]);
        let fits = |name: &str| patterns.iter().any(|pattern| pattern.matches(name));
        for (name, want) in [
            ("api.example.com", true),
            ("x.api.example.com", false),
            ("xapi.example.com", false),
            ("example.com", false),
            ("a.example.org", true),
            ("a.b.example.org", true),
            ("example.org", false),
            (".example.org", false),
            ("badexample.org", false),
        ] {
            assert_eq!(fits(name), want, "{name}");
        }
    }

    #[test]
    fn the_oldest_addresses_make_room() {
        let known = KnownNames::default();
        let (pattern, _) = NamePattern::list("a.example");
        let address = |n: u32| IpAddr::from(std::net::Ipv4Addr::from(n));
        for n in 0..=MAX_ADDRESSES {
            known.remember("a.example", &[address(u32::try_from(n).unwrap())]);
        }
        assert!(!known.fits(address(0), &pattern[0]));
        assert!(known.fits(address(1024), &pattern[0]));
    }
}
