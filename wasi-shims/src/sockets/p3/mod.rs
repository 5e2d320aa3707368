//! `wasi:sockets` 0.3 over a [`VirtualNetwork`](crate::net::VirtualNetwork).
//!
//! Calls that wait are futures here, and bytes and connections come as streams: what polls them holds the half of the
//! connection, or the listener, itself.
//!
//! wasmtime-wasi's bindings fix the types of the resources. A handle of theirs is only a number in the table; behind it
//! stand sockets of ours, so that none of theirs, which would be the kernel's, is ever made.

mod tcp;
mod udp;

use std::net::IpAddr;

use wasmtime::component::{Accessor, Linker};
use wasmtime_wasi::p3::bindings::sockets::ip_name_lookup::{self, ErrorCode as LookupError};
use wasmtime_wasi::p3::bindings::sockets::types::{self, ErrorCode, IpAddress};
use wasmtime_wasi::p3::sockets::SocketError;

use super::name_lookup::look_up;
use super::{HasNetwork, NetworkView};
use crate::net::NetError;

pub(super) fn add_to_linker<T: Send + 'static>(
    linker: &mut Linker<T>,
    view: fn(&mut T) -> NetworkView<'_>,
) -> wasmtime::Result<()> {
    ip_name_lookup::add_to_linker::<T, HasNetwork>(linker, view)?;
    types::add_to_linker::<T, HasNetwork>(linker, view)
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
            NetError::DatagramTooLarge => Self::DatagramTooLarge,
            NetError::NotSupported => Self::NotSupported,
            // 0.3 has no code for these.
            NetError::NameUnresolvable
            | NetError::TemporaryResolverFailure
            | NetError::TooManySockets => Self::Other(Some(error.to_string())),
        }
    }
}

impl From<NetError> for LookupError {
    fn from(error: NetError) -> Self {
        match error {
            NetError::AccessDenied => Self::AccessDenied,
            NetError::InvalidArgument => Self::InvalidArgument,
            NetError::NameUnresolvable => Self::NameUnresolvable,
            NetError::TemporaryResolverFailure | NetError::Timeout => {
                Self::TemporaryResolverFailure
            }
            error => Self::Other(Some(error.to_string())),
        }
    }
}

/// The error of a call, of what the network said.
fn refused(error: NetError) -> SocketError {
    ErrorCode::from(error).into()
}

impl types::Host for NetworkView<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }
}

impl ip_name_lookup::Host for NetworkView<'_> {}

impl<T: Send + 'static> ip_name_lookup::HostWithStore<T> for HasNetwork {
    async fn resolve_addresses(
        store: &Accessor<T, Self>,
        name: String,
    ) -> wasmtime::Result<Result<Vec<IpAddress>, LookupError>> {
        let question = store.with(|mut store| look_up(store.get().network, &name));
        let found = match question {
            Some(question) => question.await,
            None => Err(NetError::InvalidArgument),
        };
        let to_wit = |found: Vec<IpAddr>| found.into_iter().map(IpAddress::from).collect();
        Ok(found.map(to_wit).map_err(LookupError::from))
    }
}
