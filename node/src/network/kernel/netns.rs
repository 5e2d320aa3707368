//! Sockets within a pod's network namespace.
//!
//! A socket belongs to the namespace that its thread was in when it was made, and stays there. So a thread goes into the
//! pod's for as long as that takes, and ends: none that is used for anything else is ever anywhere but at home.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpSocket;

/// A network namespace, which stays there while this is held.
#[derive(Debug)]
pub(super) struct NetworkNamespace(File);

impl NetworkNamespace {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(File::open(path)?))
    }

    /// Does something as a program in the namespace would.
    pub(super) fn within<T: Send>(
        &self,
        act: impl FnOnce() -> io::Result<T> + Send,
    ) -> io::Result<T> {
        let enter = || {
            move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))?;
            act()
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("netns".to_owned());
            let thread = thread.spawn_scoped(scope, enter)?;
            let panicked = |_| Err(io::Error::other("a thread in a network namespace panicked"));
            thread.join().unwrap_or_else(panicked)
        })
    }

    /// A socket that listens there.
    pub(super) fn listen(&self, local: SocketAddr) -> io::Result<TcpListener> {
        self.within(|| {
            let socket = new_socket(local)?;
            socket.set_reuse_address(true)?;
            if local.is_ipv6() {
                // The wildcard of the other family is bound by whoever wants it.
                socket.set_only_v6(true)?;
            }
            socket.bind(&local.into())?;
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        })
    }

    /// A socket that can connect from there.
    pub(super) fn socket(&self, to: SocketAddr) -> io::Result<TcpSocket> {
        let socket = self.within(|| new_socket(to))?;
        Ok(TcpSocket::from_std_stream(TcpStream::from(socket)))
    }
}

/// Connections that may wait; the switch's queue is behind it.
const BACKLOG: i32 = 128;

fn new_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
