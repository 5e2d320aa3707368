//! Addresses to and from WIT, and the rules WASI has for them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use super::bindings::wasi::sockets::network::{
    IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress,
};
use crate::net::NetError;

pub(super) fn ip_to_wit(ip: IpAddr) -> IpAddress {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            IpAddress::Ipv4((a, b, c, d))
        }
        IpAddr::V6(v6) => {
            let [a, b, c, d, e, f, g, h] = v6.segments();
            IpAddress::Ipv6((a, b, c, d, e, f, g, h))
        }
    }
}

pub(super) fn to_wit(address: SocketAddr) -> IpSocketAddress {
    match address {
        SocketAddr::V4(v4) => {
            let [a, b, c, d] = v4.ip().octets();
            IpSocketAddress::Ipv4(Ipv4SocketAddress {
                port: v4.port(),
                address: (a, b, c, d),
            })
        }
        SocketAddr::V6(v6) => {
            let [a, b, c, d, e, f, g, h] = v6.ip().segments();
            IpSocketAddress::Ipv6(Ipv6SocketAddress {
                port: v6.port(),
                flow_info: v6.flowinfo(),
                address: (a, b, c, d, e, f, g, h),
                scope_id: v6.scope_id(),
            })
        }
    }
}

fn from_wit(address: IpSocketAddress) -> SocketAddr {
    match address {
        IpSocketAddress::Ipv4(v4) => {
            let (a, b, c, d) = v4.address;
            SocketAddrV4::new([a, b, c, d].into(), v4.port).into()
        }
        IpSocketAddress::Ipv6(v6) => {
            let (a, b, c, d, e, f, g, h) = v6.address;
            let ip = [a, b, c, d, e, f, g, h].into();
            SocketAddrV6::new(ip, v6.port, v6.flow_info, v6.scope_id).into()
        }
    }
}

pub(super) fn local(
    address: IpSocketAddress,
    family: IpAddressFamily,
) -> Result<SocketAddr, NetError> {
    usable_local(from_wit(address), family == IpAddressFamily::Ipv4)
}

pub(super) fn remote(
    address: IpSocketAddress,
    family: IpAddressFamily,
) -> Result<SocketAddr, NetError> {
    usable_remote(from_wit(address), family == IpAddressFamily::Ipv4)
}

/// All addresses of a family, and any port.
pub(super) fn any(is_ipv4: bool) -> SocketAddr {
    match is_ipv4 {
        true => (Ipv4Addr::UNSPECIFIED, 0).into(),
        false => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// A local address: of the socket's family, unicast, and not IPv4 in disguise.
pub(super) fn usable_local(address: SocketAddr, is_ipv4: bool) -> Result<SocketAddr, NetError> {
    let right_family = address.is_ipv4() == is_ipv4;
    let mapped = matches!(address.ip(), IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    let broadcast = matches!(address.ip(), IpAddr::V4(v4) if v4.is_broadcast());
    if !right_family || mapped || broadcast || address.ip().is_multicast() {
        return Err(NetError::InvalidArgument);
    }
    // The zone and the flow label mean nothing on a virtual network, and would keep equal
    // addresses from comparing equal.
    Ok(SocketAddr::new(address.ip(), address.port()))
}

/// A remote address: as a local one, with an address and a port that name somebody.
pub(super) fn usable_remote(address: SocketAddr, is_ipv4: bool) -> Result<SocketAddr, NetError> {
    let address = usable_local(address, is_ipv4)?;
    if address.ip().is_unspecified() || address.port() == 0 {
        return Err(NetError::InvalidArgument);
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use IpAddressFamily::{Ipv4, Ipv6};

    #[test]
    fn addresses_survive_the_border() {
        for text in ["1.2.3.4:5", "[::1]:80", "[2001:db8::7]:65535"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(from_wit(to_wit(address)), address);
        }
    }

    #[test]
    fn unusable_addresses_are_invalid() {
        for (text, family, as_local, as_remote) in [
            ("10.0.0.1:80", Ipv4, true, true),
            ("10.0.0.1:80", Ipv6, false, false),
            ("[::1]:80", Ipv4, false, false),
            ("[::1]:80", Ipv6, true, true),
            ("0.0.0.0:80", Ipv4, true, false),
            ("10.0.0.1:0", Ipv4, true, false),
            ("[::ffff:10.0.0.1]:80", Ipv6, false, false),
            ("224.0.0.1:80", Ipv4, false, false),
            ("255.255.255.255:80", Ipv4, false, false),
            ("[ff02::1]:80", Ipv6, false, false),
        ] {
            let address = to_wit(text.parse().unwrap());
            assert_eq!(
                local(address, family).is_ok(),
                as_local,
                "local {text} {family:?}"
            );
            assert_eq!(
                remote(address, family).is_ok(),
                as_remote,
                "remote {text} {family:?}"
            );
        }
    }
}
