//! The link of a pod: its name and addresses follow from who the pod is, so that a crash leaves nothing nameless. Pure.

use std::fmt;
use std::net::Ipv4Addr;

use sha2::{Digest, Sha256};

use super::tables::LINK_PREFIX;

/// A hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mac([u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The link of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PodLink {
    /// Name of the end on this machine's side.
    pub(super) name: String,
    /// Address of the pod.
    pub(super) address: Ipv4Addr,
    /// Hardware addresses of the pod's end and of the other.
    pub(super) own_mac: Mac,
    pub(super) far_mac: Mac,
}

impl PodLink {
    /// The link of the pod with that uid.
    pub(super) fn new(uid: &str, address: Ipv4Addr) -> Self {
        let digest = Sha256::digest(uid.as_bytes());
        let mut name = LINK_PREFIX.to_owned();
        for byte in digest.iter().take(6) {
            name.push_str(&format!("{byte:02x}"));
        }
        // Locally administered, for one machine.
        let mac = |end: u8| {
            let mut mac = [0x02, 0x57, end, 0, 0, 0];
            for (to, from) in mac.iter_mut().skip(3).zip(digest.iter()) {
                *to = *from;
            }
            Mac(mac)
        };
        Self {
            name,
            address,
            own_mac: mac(1),
            far_mac: mac(2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_named_by_its_pod_and_fits_the_kernel() {
        let address = Ipv4Addr::new(10, 0, 0, 2);
        let [one, again, other] = ["a", "a", "b"].map(|uid| PodLink::new(uid, address));
        assert_eq!(one, again);
        assert_ne!(one.name, other.name);
        assert_ne!(one.own_mac, one.far_mac);
        assert!(one.name.len() <= 15, "{}", one.name);
        assert!(one.own_mac.to_string().starts_with("02:57:01:"));
    }
}
