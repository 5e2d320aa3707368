//! `wasi:sockets` 0.2 and 0.3 over a [`VirtualNetwork`].
//!
//! Every call of 0.2 returns at once: operations come as `start-*` and `finish-*` with a pollable in between. The calls
//! here only move state; what waits is polled by [`Pollable::ready`](wasmtime_wasi_io::poll::Pollable).
//!
//! - `tcp.rs`, `udp.rs`, `name_lookup.rs`: the interfaces of 0.2.
//! - `stream.rs`: a connection's halves as `wasi:io` streams.
//! - `p3/`: 0.3.
//! - `address.rs`, `options.rs`: what both versions say of addresses and of options.
//!
//! Invariant: no kernel socket is opened here; kernel-backed `wasi:sockets` are never linked.

use wasmtime::component::{HasData, Linker, Resource, ResourceTable, ResourceTableError};

use crate::net::{NetError, VirtualNetwork};

mod address;
mod name_lookup;
mod options;
mod p3;
mod stream;
mod tcp;
mod udp;

pub use name_lookup::ResolveAddressStream;
pub use tcp::TcpSocket;
pub use udp::{IncomingDatagramStream, OutgoingDatagramStream, UdpSocket};

mod bindings {
    wasmtime::component::bindgen!({
        path: "wit",
        world: "windlass:network/network",
        imports: { default: trappable },
        with: {
            "wasi:io": wasmtime_wasi_io::bindings::wasi::io,
            "wasi:clocks": wasmtime_wasi::p2::bindings::clocks,
            "wasi:sockets/network.network": super::Network,
            "wasi:sockets/tcp.tcp-socket": super::TcpSocket,
            "wasi:sockets/udp.udp-socket": super::UdpSocket,
            "wasi:sockets/udp.incoming-datagram-stream": super::IncomingDatagramStream,
            "wasi:sockets/udp.outgoing-datagram-stream": super::OutgoingDatagramStream,
            "wasi:sockets/ip-name-lookup.resolve-address-stream": super::ResolveAddressStream,
        },
        trappable_error_type: { "wasi:sockets/network.error-code" => super::SocketError },
        require_store_data_send: true,
    });
}

use bindings::wasi::sockets::network::{self, ErrorCode};
use bindings::wasi::sockets::{
    instance_network, ip_name_lookup, tcp as wit_tcp, tcp_create_socket, udp as wit_udp,
    udp_create_socket,
};

/// The handle by which a guest names its network; there is one, so it holds nothing.
pub struct Network;

/// What the socket calls of one store work on.
pub struct NetworkView<'a> {
    /// The guest's network.
    pub network: &'a dyn VirtualNetwork,
    /// The store's resources.
    pub table: &'a mut ResourceTable,
}

/// Names [`NetworkView`] as the data of the socket interfaces.
struct HasNetwork;

impl HasData for HasNetwork {
    type Data<'a> = NetworkView<'a>;
}

/// Links all of `wasi:sockets`, 0.2 and 0.3.
///
/// # Errors
/// If one of the interfaces is linked already.
pub fn add_to_linker<T: Send + 'static>(
    linker: &mut Linker<T>,
    view: fn(&mut T) -> NetworkView<'_>,
) -> wasmtime::Result<()> {
    let options = network::LinkOptions::default();
    network::add_to_linker::<T, HasNetwork>(linker, &options, view)?;
    instance_network::add_to_linker::<T, HasNetwork>(linker, view)?;
    ip_name_lookup::add_to_linker::<T, HasNetwork>(linker, view)?;
    wit_tcp::add_to_linker::<T, HasNetwork>(linker, view)?;
    tcp_create_socket::add_to_linker::<T, HasNetwork>(linker, view)?;
    wit_udp::add_to_linker::<T, HasNetwork>(linker, view)?;
    udp_create_socket::add_to_linker::<T, HasNetwork>(linker, view)?;
    p3::add_to_linker(linker, view)
}

/// The error of a socket call: a code for the guest, or a trap.
#[derive(Debug)]
pub enum SocketError {
    /// The guest may deal with it.
    Code(ErrorCode),
    /// The guest broke the rules, or its table is full: the instance ends.
    Trap(wasmtime::Error),
}

type SocketResult<T> = Result<T, SocketError>;

impl From<ErrorCode> for SocketError {
    fn from(code: ErrorCode) -> Self {
        Self::Code(code)
    }
}

impl From<NetError> for SocketError {
    fn from(error: NetError) -> Self {
        Self::Code(error.into())
    }
}

impl From<ResourceTableError> for SocketError {
    fn from(error: ResourceTableError) -> Self {
        Self::Trap(error.into())
    }
}

impl From<NetError> for ErrorCode {
    fn from(error: NetError) -> Self {
        match error {
            NetError::AccessDenied => Self::AccessDenied,
            NetError::AddressInUse => Self::AddressInUse,
            NetError::AddressNotBindable => Self::AddressNotBindable,
            NetError::ConnectionRefused => Self::ConnectionRefused,
            NetError::ConnectionReset => Self::ConnectionReset,
            NetError::RemoteUnreachable => Self::RemoteUnreachable,
            NetError::Timeout => Self::Timeout,
            NetError::InvalidArgument => Self::InvalidArgument,
            NetError::NameUnresolvable => Self::NameUnresolvable,
            NetError::TemporaryResolverFailure => Self::TemporaryResolverFailure,
            NetError::DatagramTooLarge => Self::DatagramTooLarge,
            NetError::TooManySockets => Self::NewSocketLimit,
            NetError::NotSupported => Self::NotSupported,
        }
    }
}

impl network::Host for NetworkView<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        match error {
            SocketError::Code(code) => Ok(code),
            SocketError::Trap(trap) => Err(trap),
        }
    }

    fn network_error_code(
        &mut self,
        error: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        let error = self.table.get(&error)?;
        let kind = error
            .downcast_ref::<std::io::Error>()
            .map(std::io::Error::kind);
        Ok(match kind {
            Some(std::io::ErrorKind::ConnectionReset) => Some(ErrorCode::ConnectionReset),
            _ => None,
        })
    }
}

impl network::HostNetwork for NetworkView<'_> {
    fn drop(&mut self, network: Resource<Network>) -> wasmtime::Result<()> {
        self.table.delete(network)?;
        Ok(())
    }
}

impl instance_network::Host for NetworkView<'_> {
    fn instance_network(&mut self) -> wasmtime::Result<Resource<Network>> {
        Ok(self.table.push(Network)?)
    }
}
