//! Datagrams longer than a pod's link takes, put together again.
//!
//! The kernel has put them together before its rules looked at them, and cut them up again for the device: so the pieces
//! of what is not whole never come here, and those that do come at once. Only a full device loses one.

use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use etherparse::defrag::IpDefragPool;
use etherparse::{IpNumber, NetSlice, SlicedPacket, UdpSlice};

/// How long the other pieces may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// The pieces that wait for others.
pub(super) struct Fragments {
    waiting: IpDefragPool<Instant, ()>,
    swept: Instant,
}

/// A datagram that was in pieces.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Whole {
    pub(super) from: SocketAddrV4,
    pub(super) to: SocketAddrV4,
    pub(super) data: Vec<u8>,
}

impl Fragments {
    pub(super) fn new() -> Self {
        Self {
            waiting: IpDefragPool::new(),
            swept: Instant::now(),
        }
    }

    /// Takes a piece; answers the datagram that it completes.
    pub(super) fn add(&mut self, piece: &[u8]) -> Option<Whole> {
        let now = Instant::now();
        if now.duration_since(self.swept) > PATIENCE {
            self.waiting
                .retain(|since| now.duration_since(*since) <= PATIENCE);
            self.swept = now;
        }
        let packet = SlicedPacket::from_ip(piece).ok()?;
        let whole = self
            .waiting
            .process_sliced_packet(&packet, now, ())
            .ok()??;
        let Some(NetSlice::Ipv4(ip)) = &packet.net else {
            return None;
        };
        let (from, to) = (ip.header().source_addr(), ip.header().destination_addr());
        if whole.ip_number != IpNumber::UDP {
            return None;
        }
        let udp = UdpSlice::from_slice(&whole.payload).ok()?;
        Some(Whole {
            from: SocketAddrV4::new(from, udp.source_port()),
            to: SocketAddrV4::new(to, udp.destination_port()),
            data: udp.payload().to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::kernel::packet;

    /// The packet in two pieces, the second `at` bytes into what the packet carries.
    fn cut(whole: &[u8], at: usize) -> [Vec<u8>; 2] {
        let (header, carried) = whole.split_at(20);
        let piece = |part: &[u8], offset: usize, more: bool| {
            let mut header = etherparse::Ipv4Header::from_slice(header).unwrap().0;
            header.set_payload_len(part.len()).unwrap();
            header.identification = 7;
            header.more_fragments = more;
            header.fragment_offset = u16::try_from(offset / 8).unwrap().try_into().unwrap();
            header.header_checksum = header.calc_header_checksum();
            let mut piece = header.to_bytes().to_vec();
            piece.extend_from_slice(part);
            piece
        };
        [
            piece(&carried[..at], 0, true),
            piece(&carried[at..], at, false),
        ]
    }

    #[test]
    fn a_datagram_in_pieces_is_whole_with_the_last_of_them() {
        let (from, to) = (
            "10.0.0.1:53".parse().unwrap(),
            "10.0.0.2:9".parse().unwrap(),
        );
        let data = [7; 2000];
        let whole = packet::datagram(from, to, &data).unwrap();
        for order in [[0, 1], [1, 0]] {
            let pieces = cut(&whole, 1480);
            let mut fragments = Fragments::new();
            assert_eq!(
                packet::parse(&pieces[order[0]]),
                Some(packet::Packet::Piece)
            );
            assert_eq!(fragments.add(&pieces[order[0]]), None);
            let got = fragments.add(&pieces[order[1]]);
            let data = data.to_vec();
            assert_eq!(got, Some(Whole { from, to, data }));
        }
    }
}
