//! `wasi:sockets/udp` and `udp-create-socket`.
//!
//! A socket is bound first and then opened as a pair of datagram streams, with or without a fixed
//! remote address. Sending never waits: like UDP itself the network loses what it can't take.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use wasmtime::component::Resource;
use wasmtime_wasi_io::poll::{DynPollable, Pollable, subscribe};

use super::bindings::wasi::sockets::network::{ErrorCode, IpAddressFamily, IpSocketAddress};
use super::bindings::wasi::sockets::udp::{
    Host, HostIncomingDatagramStream, HostOutgoingDatagramStream, HostUdpSocket, IncomingDatagram,
    OutgoingDatagram,
};
use super::bindings::wasi::sockets::udp_create_socket;
use super::options::{DATAGRAM_BUFFER, positive};
use super::{Network, NetworkView, SocketError, SocketResult, address};
use crate::net::{Datagram, NetError, UdpPort};

/// Datagrams handed over in one call.
const BATCH: usize = 16;

/// A guest's UDP socket.
pub struct UdpSocket {
    state: State,
    family: IpAddressFamily,
    remote: Option<SocketAddr>,
    hop_limit: u8,
    receive_buffer: u64,
    send_buffer: u64,
}

enum State {
    Unbound,
    Binding(Arc<dyn UdpPort>),
    Bound(Arc<dyn UdpPort>),
}

/// The receiving side of a UDP socket.
pub struct IncomingDatagramStream {
    port: Arc<dyn UdpPort>,
    remote: Option<SocketAddr>,
    next: Option<Result<Datagram, NetError>>,
}

impl IncomingDatagramStream {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.next.is_none() {
            let received = std::task::ready!(self.port.poll_receive(cx));
            // A socket with a remote address hears nobody else.
            if let (Ok(datagram), Some(remote)) = (&received, self.remote)
                && datagram.from != remote
            {
                continue;
            }
            self.next = Some(received);
        }
        Poll::Ready(())
    }
}

/// The sending side of a UDP socket.
pub struct OutgoingDatagramStream {
    port: Arc<dyn UdpPort>,
    family: IpAddressFamily,
    remote: Option<SocketAddr>,
    permitted: usize,
}

impl OutgoingDatagramStream {
    fn send(&self, datagram: OutgoingDatagram) -> Result<(), ErrorCode> {
        let given = datagram
            .remote_address
            .map(|given| address::remote(given, self.family));
        let to = match (given.transpose()?, self.remote) {
            (Some(given), Some(remote)) if given != remote => {
                return Err(ErrorCode::InvalidArgument);
            }
            (Some(to), _) | (None, Some(to)) => to,
            (None, None) => return Err(ErrorCode::InvalidArgument),
        };
        Ok(self.port.send(to, datagram.data.into())?)
    }
}

#[async_trait]
impl Pollable for UdpSocket {
    async fn ready(&mut self) {}
}

#[async_trait]
impl Pollable for OutgoingDatagramStream {
    async fn ready(&mut self) {}
}

#[async_trait]
impl Pollable for IncomingDatagramStream {
    async fn ready(&mut self) {
        std::future::poll_fn(|cx| self.poll_next(cx)).await;
    }
}

impl udp_create_socket::Host for NetworkView<'_> {
    fn create_udp_socket(&mut self, family: IpAddressFamily) -> SocketResult<Resource<UdpSocket>> {
        Ok(self.table.push(UdpSocket {
            state: State::Unbound,
            family,
            remote: None,
            hop_limit: 64,
            receive_buffer: DATAGRAM_BUFFER,
            send_buffer: DATAGRAM_BUFFER,
        })?)
    }
}

impl Host for NetworkView<'_> {}

type Socket = Resource<UdpSocket>;
type Streams = (
    Resource<IncomingDatagramStream>,
    Resource<OutgoingDatagramStream>,
);

impl HostUdpSocket for NetworkView<'_> {
    fn start_bind(
        &mut self,
        socket: Socket,
        _: Resource<Network>,
        local: IpSocketAddress,
    ) -> SocketResult<()> {
        let socket = self.table.get_mut(&socket)?;
        match socket.state {
            State::Unbound => {}
            State::Binding(_) => return Err(ErrorCode::ConcurrencyConflict.into()),
            State::Bound(_) => return Err(ErrorCode::InvalidState.into()),
        }
        let local = address::local(local, socket.family)?;
        socket.state = State::Binding(self.network.bind_udp(local)?);
        Ok(())
    }

    fn finish_bind(&mut self, socket: Socket) -> SocketResult<()> {
        let socket = self.table.get_mut(&socket)?;
        let State::Binding(port) = &socket.state else {
            return Err(ErrorCode::NotInProgress.into());
        };
        socket.state = State::Bound(port.clone());
        Ok(())
    }

    fn stream(&mut self, handle: Socket, remote: Option<IpSocketAddress>) -> SocketResult<Streams> {
        let socket = self.table.get_mut(&handle)?;
        let State::Bound(port) = &socket.state else {
            return Err(ErrorCode::InvalidState.into());
        };
        let (port, family) = (port.clone(), socket.family);
        let remote = remote
            .map(|remote| address::remote(remote, family))
            .transpose()?;
        socket.remote = remote;
        let incoming = IncomingDatagramStream {
            port: port.clone(),
            remote,
            next: None,
        };
        let outgoing = OutgoingDatagramStream {
            port,
            family,
            remote,
            permitted: 0,
        };
        let incoming = self.table.push_child(incoming, &handle)?;
        Ok((incoming, self.table.push_child(outgoing, &handle)?))
    }

    fn local_address(&mut self, socket: Socket) -> SocketResult<IpSocketAddress> {
        match &self.table.get(&socket)?.state {
            State::Bound(port) => Ok(address::to_wit(port.local())),
            _ => Err(ErrorCode::InvalidState.into()),
        }
    }

    fn remote_address(&mut self, socket: Socket) -> SocketResult<IpSocketAddress> {
        let remote = self
            .table
            .get(&socket)?
            .remote
            .ok_or(ErrorCode::InvalidState)?;
        Ok(address::to_wit(remote))
    }

    fn address_family(&mut self, socket: Socket) -> wasmtime::Result<IpAddressFamily> {
        Ok(self.table.get(&socket)?.family)
    }

    fn unicast_hop_limit(&mut self, socket: Socket) -> SocketResult<u8> {
        Ok(self.table.get(&socket)?.hop_limit)
    }

    fn set_unicast_hop_limit(&mut self, socket: Socket, value: u8) -> SocketResult<()> {
        positive(value.into())?;
        self.table.get_mut(&socket)?.hop_limit = value;
        Ok(())
    }

    fn receive_buffer_size(&mut self, socket: Socket) -> SocketResult<u64> {
        Ok(self.table.get(&socket)?.receive_buffer)
    }

    fn set_receive_buffer_size(&mut self, socket: Socket, value: u64) -> SocketResult<()> {
        self.table.get_mut(&socket)?.receive_buffer = positive(value)?;
        Ok(())
    }

    fn send_buffer_size(&mut self, socket: Socket) -> SocketResult<u64> {
        Ok(self.table.get(&socket)?.send_buffer)
    }

    fn set_send_buffer_size(&mut self, socket: Socket, value: u64) -> SocketResult<()> {
        self.table.get_mut(&socket)?.send_buffer = positive(value)?;
        Ok(())
    }

    fn subscribe(&mut self, socket: Socket) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table, socket)
    }

    fn drop(&mut self, socket: Socket) -> wasmtime::Result<()> {
        self.table.delete(socket)?;
        Ok(())
    }
}

impl HostIncomingDatagramStream for NetworkView<'_> {
    fn receive(
        &mut self,
        stream: Resource<IncomingDatagramStream>,
        max: u64,
    ) -> SocketResult<Vec<IncomingDatagram>> {
        let stream = self.table.get_mut(&stream)?;
        let max = usize::try_from(max).unwrap_or(usize::MAX).min(BATCH);
        let mut received = Vec::new();
        while received.len() < max {
            let _ready = stream.poll_next(&mut Context::from_waker(Waker::noop()));
            match stream.next.take() {
                Some(Ok(Datagram { from, data })) => received.push(IncomingDatagram {
                    data: data.into(),
                    remote_address: address::to_wit(from),
                }),
                Some(Err(error)) if received.is_empty() => return Err(error.into()),
                Some(Err(error)) => {
                    stream.next = Some(Err(error));
                    break;
                }
                None => break,
            }
        }
        Ok(received)
    }

    fn subscribe(
        &mut self,
        stream: Resource<IncomingDatagramStream>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table, stream)
    }

    fn drop(&mut self, stream: Resource<IncomingDatagramStream>) -> wasmtime::Result<()> {
        self.table.delete(stream)?;
        Ok(())
    }
}

impl HostOutgoingDatagramStream for NetworkView<'_> {
    fn check_send(&mut self, stream: Resource<OutgoingDatagramStream>) -> SocketResult<u64> {
        self.table.get_mut(&stream)?.permitted = BATCH;
        Ok(BATCH as u64)
    }

    fn send(
        &mut self,
        stream: Resource<OutgoingDatagramStream>,
        datagrams: Vec<OutgoingDatagram>,
    ) -> SocketResult<u64> {
        let stream = self.table.get_mut(&stream)?;
        if datagrams.len() > stream.permitted {
            let trap = wasmtime::format_err!("more datagrams sent than check-send permitted");
            return Err(SocketError::Trap(trap));
        }
        stream.permitted -= datagrams.len();
        let mut sent = 0;
        for datagram in datagrams {
            match stream.send(datagram) {
                Ok(()) => sent += 1,
                // Spec: an error is told only if nothing was sent before it.
                Err(_) if sent > 0 => break,
                Err(code) => return Err(code.into()),
            }
        }
        Ok(sent)
    }

    fn subscribe(
        &mut self,
        stream: Resource<OutgoingDatagramStream>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table, stream)
    }

    fn drop(&mut self, stream: Resource<OutgoingDatagramStream>) -> wasmtime::Result<()> {
        self.table.delete(stream)?;
        Ok(())
    }
}
