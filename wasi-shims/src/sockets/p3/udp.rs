//! UDP sockets of `wasi:sockets/types` 0.3.
//!
//! Sending never waits: like UDP itself the network loses what it can't take. A socket that sends or connects before it was
//! bound is bound to a free port of all addresses.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::Mutex;
use wasmtime::component::{Accessor, Resource};
use wasmtime_wasi::p3::bindings::sockets::types::{
    ErrorCode, HostUdpSocket, HostUdpSocketWithStore, IpAddressFamily, IpSocketAddress, UdpSocket,
};
use wasmtime_wasi::p3::sockets::{SocketError, SocketResult};

use super::refused;
use crate::net::{Datagram, NetError, UdpPort, VirtualNetwork};
use crate::sockets::options::{DATAGRAM_BUFFER, positive};
use crate::sockets::{HasNetwork, NetworkView, address};

/// A guest's UDP socket.
struct Socket {
    port: Option<Port>,
    family: IpAddressFamily,
    remote: Option<SocketAddr>,
    hop_limit: u8,
    receive_buffer: u64,
    send_buffer: u64,
}

#[derive(Clone)]
struct Port {
    port: Arc<dyn UdpPort>,
    /// One call waits at a time: the port keeps one waker.
    turn: Arc<Mutex<()>>,
}

impl Socket {
    fn is_ipv4(&self) -> bool {
        self.family == IpAddressFamily::Ipv4
    }

    fn bind(&mut self, network: &dyn VirtualNetwork, local: SocketAddr) -> Result<Port, NetError> {
        let port = Port {
            port: network.bind_udp(local)?,
            turn: Arc::default(),
        };
        self.port = Some(port.clone());
        Ok(port)
    }

    /// The port, which is opened if there is none yet.
    fn port(&mut self, network: &dyn VirtualNetwork) -> Result<Port, NetError> {
        match &self.port {
            Some(port) => Ok(port.clone()),
            None => self.bind(network, address::any(self.is_ipv4())),
        }
    }

    /// Whom a datagram goes to.
    fn destination(&self, given: Option<IpSocketAddress>) -> Result<SocketAddr, NetError> {
        let given = given.map(|given| address::usable_remote(given.into(), self.is_ipv4()));
        match (given.transpose()?, self.remote) {
            (Some(given), Some(remote)) if given != remote => Err(NetError::InvalidArgument),
            (Some(to), _) | (None, Some(to)) => Ok(to),
            (None, None) => Err(NetError::InvalidArgument),
        }
    }
}

impl NetworkView<'_> {
    fn udp(&mut self, socket: &Resource<UdpSocket>) -> SocketResult<&mut Socket> {
        let ours = Resource::<Socket>::new_borrow(socket.rep());
        self.table.get_mut(&ours).map_err(SocketError::trap)
    }
}

impl<T: Send + 'static> HostUdpSocketWithStore<T> for HasNetwork {
    async fn send(
        store: &Accessor<T, Self>,
        handle: Resource<UdpSocket>,
        data: Vec<u8>,
        remote: Option<IpSocketAddress>,
    ) -> SocketResult<()> {
        store.with(|mut store| {
            let mut view = store.get();
            let network = view.network;
            let socket = view.udp(&handle)?;
            let to = socket.destination(remote).map_err(refused)?;
            let Port { port, .. } = socket.port(network).map_err(refused)?;
            port.send(to, data.into()).map_err(refused)
        })
    }

    async fn receive(
        store: &Accessor<T, Self>,
        handle: Resource<UdpSocket>,
    ) -> SocketResult<(Vec<u8>, IpSocketAddress)> {
        let socket = store.with(|mut store| {
            let mut view = store.get();
            let socket = view.udp(&handle)?;
            let port = socket.port.clone().ok_or(ErrorCode::InvalidState)?;
            SocketResult::Ok((port, socket.remote))
        });
        let (Port { port, turn }, remote) = socket?;
        let _turn = turn.lock().await;
        loop {
            let Datagram { from, data } = poll_fn(|context| port.poll_receive(context))
                .await
                .map_err(refused)?;
            // A socket with a remote address hears nobody else.
            if remote.is_none_or(|remote| remote == from) {
                return Ok((data.into(), from.into()));
            }
        }
    }
}

impl HostUdpSocket for NetworkView<'_> {
    async fn create(&mut self, family: IpAddressFamily) -> SocketResult<Resource<UdpSocket>> {
        let socket = Socket {
            port: None,
            family,
            remote: None,
            hop_limit: 64,
            receive_buffer: DATAGRAM_BUFFER,
            send_buffer: DATAGRAM_BUFFER,
        };
        let ours = self.table.push(socket);
        let ours = ours.map_err(SocketError::trap)?;
        Ok(Resource::new_own(ours.rep()))
    }

    async fn bind(
        &mut self,
        handle: Resource<UdpSocket>,
        local: IpSocketAddress,
    ) -> SocketResult<()> {
        let network = self.network;
        let socket = self.udp(&handle)?;
        if socket.port.is_some() {
            return Err(ErrorCode::InvalidState.into());
        }
        let local = address::usable_local(local.into(), socket.is_ipv4()).map_err(refused)?;
        socket.bind(network, local).map_err(refused)?;
        Ok(())
    }

    async fn connect(
        &mut self,
        handle: Resource<UdpSocket>,
        remote: IpSocketAddress,
    ) -> SocketResult<()> {
        let network = self.network;
        let socket = self.udp(&handle)?;
        let remote = address::usable_remote(remote.into(), socket.is_ipv4()).map_err(refused)?;
        socket.port(network).map_err(refused)?;
        socket.remote = Some(remote);
        Ok(())
    }

    fn disconnect(&mut self, handle: Resource<UdpSocket>) -> SocketResult<()> {
        let remote = self.udp(&handle)?.remote.take();
        remote
            .map(drop)
            .ok_or_else(|| ErrorCode::InvalidState.into())
    }

    fn get_local_address(&mut self, handle: Resource<UdpSocket>) -> SocketResult<IpSocketAddress> {
        let port = self.udp(&handle)?.port.as_ref();
        let port = port.ok_or(ErrorCode::InvalidState)?;
        Ok(port.port.local().into())
    }

    fn get_remote_address(&mut self, handle: Resource<UdpSocket>) -> SocketResult<IpSocketAddress> {
        let remote = self.udp(&handle)?.remote;
        Ok(remote.ok_or(ErrorCode::InvalidState)?.into())
    }

    fn get_address_family(
        &mut self,
        handle: Resource<UdpSocket>,
    ) -> wasmtime::Result<IpAddressFamily> {
        Ok(self.udp(&handle)?.family)
    }

    fn get_unicast_hop_limit(&mut self, handle: Resource<UdpSocket>) -> SocketResult<u8> {
        Ok(self.udp(&handle)?.hop_limit)
    }

    fn set_unicast_hop_limit(
        &mut self,
        handle: Resource<UdpSocket>,
        value: u8,
    ) -> SocketResult<()> {
        positive(value.into()).map_err(refused)?;
        self.udp(&handle)?.hop_limit = value;
        Ok(())
    }

    fn get_receive_buffer_size(&mut self, handle: Resource<UdpSocket>) -> SocketResult<u64> {
        Ok(self.udp(&handle)?.receive_buffer)
    }

    fn set_receive_buffer_size(
        &mut self,
        handle: Resource<UdpSocket>,
        value: u64,
    ) -> SocketResult<()> {
        self.udp(&handle)?.receive_buffer = positive(value).map_err(refused)?;
        Ok(())
    }

    fn get_send_buffer_size(&mut self, handle: Resource<UdpSocket>) -> SocketResult<u64> {
        Ok(self.udp(&handle)?.send_buffer)
    }

    fn set_send_buffer_size(
        &mut self,
        handle: Resource<UdpSocket>,
        value: u64,
    ) -> SocketResult<()> {
        self.udp(&handle)?.send_buffer = positive(value).map_err(refused)?;
        Ok(())
    }

    fn drop(&mut self, handle: Resource<UdpSocket>) -> wasmtime::Result<()> {
        self.table
            .delete(Resource::<Socket>::new_own(handle.rep()))?;
        Ok(())
    }
}
