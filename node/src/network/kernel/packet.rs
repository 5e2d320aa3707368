//! The packets that the kernel asks the switch about, and those that answer it: IPv4 with TCP, UDP or ICMP. Pure.

use std::net::{Ipv4Addr, SocketAddrV4};

use etherparse::icmpv4::DestUnreachableHeader;
use etherparse::{
    Icmpv4Type, IpHeaders, IpNumber, Ipv4Header, NetSlice, PacketBuilder, SlicedPacket,
    TransportSlice,
};

/// Hops that a packet made here may take: through this machine only.
const HOPS: u8 = 64;

/// Of a packet that is refused, its sender is shown the headers and so many bytes more.
const SHOWN: usize = 8;

/// What a packet wants.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Packet<'a> {
    /// To open a connection.
    Syn(Syn),
    /// To be delivered.
    Datagram {
        from: SocketAddrV4,
        to: SocketAddrV4,
        data: &'a [u8],
    },
    /// To be put together with others.
    Piece,
    /// To know whether somebody is there.
    Echo { from: Ipv4Addr, to: Ipv4Addr },
}

/// The begin of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Syn {
    pub(super) from: SocketAddrV4,
    pub(super) to: SocketAddrV4,
    sequence: u32,
}

/// Reads a packet; `None` for what is none of those, or is cut short.
pub(super) fn parse(bytes: &[u8]) -> Option<Packet<'_>> {
    let packet = SlicedPacket::from_ip(bytes).ok()?;
    let Some(NetSlice::Ipv4(ip)) = packet.net else {
        return None;
    };
    let header = ip.header();
    let (from, to) = (header.source_addr(), header.destination_addr());
    if ip.is_payload_fragmented() {
        return Some(Packet::Piece);
    }
    match packet.transport? {
        TransportSlice::Tcp(tcp) if tcp.syn() && !tcp.ack() && !tcp.rst() && !tcp.fin() => {
            Some(Packet::Syn(Syn {
                from: SocketAddrV4::new(from, tcp.source_port()),
                to: SocketAddrV4::new(to, tcp.destination_port()),
                sequence: tcp.sequence_number(),
            }))
        }
        TransportSlice::Udp(udp) => Some(Packet::Datagram {
            from: SocketAddrV4::new(from, udp.source_port()),
            to: SocketAddrV4::new(to, udp.destination_port()),
            data: udp.payload(),
        }),
        TransportSlice::Icmpv4(icmp) => match icmp.icmp_type() {
            Icmpv4Type::EchoRequest(_) => Some(Packet::Echo { from, to }),
            _ => None,
        },
        _ => None,
    }
}

/// A UDP packet. `None` if `data` is too long for one.
pub(super) fn datagram(from: SocketAddrV4, to: SocketAddrV4, data: &[u8]) -> Option<Vec<u8>> {
    let builder = PacketBuilder::ip(header(*from.ip(), *to.ip(), IpNumber::UDP)?);
    let builder = builder.udp(from.port(), to.port());
    let mut packet = Vec::with_capacity(builder.size(data.len()));
    builder.write(&mut packet, data).ok()?;
    Some(packet)
}

/// Tells who asked for a connection that nobody listens there.
pub(super) fn reset(syn: &Syn) -> Option<Vec<u8>> {
    let builder = PacketBuilder::ip(header(*syn.to.ip(), *syn.from.ip(), IpNumber::TCP)?);
    let builder = builder
        .tcp(syn.to.port(), syn.from.port(), 0, 0)
        .rst()
        .ack(syn.sequence.wrapping_add(1));
    let mut packet = Vec::with_capacity(builder.size(0));
    builder.write(&mut packet, &[]).ok()?;
    Some(packet)
}

/// Why a packet does not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreachable {
    /// There is no way to there.
    Host,
    /// Nobody takes datagrams there.
    Port,
    /// A rule forbids it.
    Prohibited,
}

/// Tells the sender of `refused` why it does not arrive; `by` is who says so.
pub(super) fn unreachable(by: Ipv4Addr, refused: &[u8], why: Unreachable) -> Option<Vec<u8>> {
    let ip = etherparse::Ipv4HeaderSlice::from_slice(refused).ok()?;
    let shown = refused.get(..ip.slice().len() + SHOWN)?;
    let why = match why {
        Unreachable::Host => DestUnreachableHeader::Host,
        Unreachable::Port => DestUnreachableHeader::Port,
        Unreachable::Prohibited => DestUnreachableHeader::FilterProhibited,
    };
    let builder = PacketBuilder::ip(header(by, ip.source_addr(), IpNumber::ICMP)?);
    let builder = builder.icmpv4(Icmpv4Type::DestinationUnreachable(why));
    let mut packet = Vec::with_capacity(builder.size(shown.len()));
    builder.write(&mut packet, shown).ok()?;
    Some(packet)
}

fn header(from: Ipv4Addr, to: Ipv4Addr, protocol: IpNumber) -> Option<IpHeaders> {
    // The length is filled in when the packet is written.
    let mut header = Ipv4Header::new(0, HOPS, protocol, from.octets(), to.octets()).ok()?;
    // A datagram longer than the pod's link takes is cut up by the kernel.
    header.dont_fragment = false;
    Some(IpHeaders::Ipv4(
        header,
        etherparse::Ipv4Extensions::default(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddrV4 {
        text.parse().unwrap()
    }

    fn syn(from: &str, to: &str) -> Vec<u8> {
        let (from, to) = (at(from), at(to));
        let builder = PacketBuilder::ipv4(from.ip().octets(), to.ip().octets(), 64)
            .tcp(from.port(), to.port(), 7, 1000)
            .syn();
        let mut packet = Vec::new();
        builder.write(&mut packet, &[]).unwrap();
        packet
    }

    #[test]
    fn a_datagram_is_read_as_it_was_made() {
        let (from, to) = (at("10.0.0.1:53"), at("10.0.0.2:4000"));
        for data in [&b""[..], b"answer", &[7; 65_507]] {
            let packet = datagram(from, to, data).unwrap();
            assert_eq!(parse(&packet), Some(Packet::Datagram { from, to, data }));
        }
        assert_eq!(datagram(from, to, &[7; 65_508]), None);
    }

    #[test]
    fn only_the_first_packet_of_a_connection_asks_for_it() {
        let packet = syn("10.0.0.1:4000", "10.0.0.2:80");
        let Some(Packet::Syn(read)) = parse(&packet) else {
            panic!("no SYN");
        };
        assert_eq!(
            (read.from, read.to),
            (at("10.0.0.1:4000"), at("10.0.0.2:80"))
        );
        let refusal = reset(&read).unwrap();
        assert_eq!(parse(&refusal), None);
        let sliced = SlicedPacket::from_ip(&refusal).unwrap();
        let Some(TransportSlice::Tcp(tcp)) = sliced.transport else {
            panic!("no TCP");
        };
        assert!(tcp.rst() && tcp.ack());
        assert_eq!((tcp.acknowledgment_number(), tcp.source_port()), (8, 80));
    }

    #[test]
    fn a_refusal_shows_the_begin_of_what_it_refuses() {
        let packet = syn("10.0.0.1:4000", "10.0.0.2:80");
        let by = Ipv4Addr::new(10, 0, 0, 254);
        for (why, code) in [
            (Unreachable::Host, 1),
            (Unreachable::Port, 3),
            (Unreachable::Prohibited, 13),
        ] {
            let refusal = unreachable(by, &packet, why).unwrap();
            let sliced = SlicedPacket::from_ip(&refusal).unwrap();
            let Some(TransportSlice::Icmpv4(icmp)) = sliced.transport else {
                panic!("no ICMP");
            };
            assert_eq!((icmp.type_u8(), icmp.code_u8()), (3, code));
            assert_eq!(icmp.payload(), &packet[..28]);
        }
    }

    #[test]
    fn what_is_cut_short_is_nothing() {
        let packet = syn("10.0.0.1:4000", "10.0.0.2:80");
        for length in 0..packet.len() {
            assert_eq!(parse(&packet[..length]), None, "{length}");
            let by = Ipv4Addr::LOCALHOST;
            assert_eq!(
                unreachable(by, &packet[..length], Unreachable::Host).is_some(),
                length >= 28,
                "{length}"
            );
        }
    }
}
