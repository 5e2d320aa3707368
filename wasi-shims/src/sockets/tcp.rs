//! `wasi:sockets/tcp` and `tcp-create-socket`.
//!
//! ```text
//!   Unbound ─bind─► Binding ─► Bound ─listen─► StartingToListen ─► Listening ─accept─► Connected
//!      └──────────────connect────┴──► Connecting ─► Connected        (a failed connect: Closed)
//! ```
//!
//! Spec: TcpSocketOperationalSemantics of the WASI sockets proposal, version 0.2.

use std::net::SocketAddr;
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use wasmtime::component::Resource;
use wasmtime_wasi_io::poll::{DynPollable, Pollable, subscribe};
use wasmtime_wasi_io::streams::{DynInputStream, DynOutputStream};

use super::bindings::wasi::sockets::network::{ErrorCode, IpAddressFamily, IpSocketAddress};
use super::bindings::wasi::sockets::tcp::{Host, HostTcpSocket, ShutdownType};
use super::bindings::wasi::sockets::tcp_create_socket;
use super::options::{Options, positive};
use super::stream::Half;
use super::{Network, NetworkView, SocketResult, address};
use crate::net::{NetError, NetFuture, Stream, TcpBinding, TcpListener};
use crate::pipe::{Reader, Writer};

/// A guest's TCP socket.
pub struct TcpSocket {
    state: State,
    family: IpAddressFamily,
    options: Options,
}

enum State {
    Unbound,
    Binding(Box<dyn TcpBinding>),
    Bound(Box<dyn TcpBinding>),
    StartingToListen(Box<dyn TcpListener>),
    Listening {
        listener: Box<dyn TcpListener>,
        next: Option<Result<Stream, NetError>>,
    },
    Connecting {
        attempt: NetFuture<Stream>,
        binding: Option<Box<dyn TcpBinding>>,
    },
    Answered {
        result: Result<Stream, NetError>,
        binding: Option<Box<dyn TcpBinding>>,
    },
    Connected(Connection),
    Closed,
}

struct Connection {
    local: SocketAddr,
    peer: SocketAddr,
    reader: Half<Reader>,
    writer: Half<Writer>,
    /// The port stays reserved for as long as the connection that uses it.
    _binding: Option<Box<dyn TcpBinding>>,
}

impl TcpSocket {
    fn new(family: IpAddressFamily) -> Self {
        Self {
            state: State::Unbound,
            family,
            options: Options::default(),
        }
    }

    /// The error of an operation that can't start in this state.
    fn refusal(&self) -> ErrorCode {
        match self.state {
            State::Binding(_)
            | State::StartingToListen(_)
            | State::Connecting { .. }
            | State::Answered { .. } => ErrorCode::ConcurrencyConflict,
            _ => ErrorCode::InvalidState,
        }
    }

    fn poll_progress(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.state {
            State::Connecting { attempt, binding } => {
                let result = std::task::ready!(attempt.as_mut().poll(cx));
                self.state = State::Answered {
                    result,
                    binding: binding.take(),
                };
            }
            State::Listening { listener, next } if next.is_none() => {
                *next = Some(std::task::ready!(listener.poll_accept(cx)));
            }
            _ => {}
        }
        Poll::Ready(())
    }

    /// Makes progress without waiting.
    fn advance(&mut self) {
        let _ready = self.poll_progress(&mut Context::from_waker(Waker::noop()));
    }

    /// Takes a connection over and answers its halves.
    fn adopt(
        &mut self,
        stream: Stream,
        binding: Option<Box<dyn TcpBinding>>,
    ) -> (DynInputStream, DynOutputStream) {
        let (local, peer) = (stream.local(), stream.peer());
        let (reader, writer) = stream.into_halves();
        let (reader, writer) = (Half::new(Some(reader)), Half::new(writer));
        let streams = (Box::new(reader.clone()) as _, Box::new(writer.clone()) as _);
        self.state = State::Connected(Connection {
            local,
            peer,
            reader,
            writer,
            _binding: binding,
        });
        streams
    }

    fn take_state(&mut self) -> State {
        std::mem::replace(&mut self.state, State::Closed)
    }
}

#[async_trait]
impl Pollable for TcpSocket {
    async fn ready(&mut self) {
        std::future::poll_fn(|cx| self.poll_progress(cx)).await;
    }
}

impl tcp_create_socket::Host for NetworkView<'_> {
    fn create_tcp_socket(&mut self, family: IpAddressFamily) -> SocketResult<Resource<TcpSocket>> {
        Ok(self.table.push(TcpSocket::new(family))?)
    }
}

impl Host for NetworkView<'_> {}

type Socket = Resource<TcpSocket>;
type Accepted = (Socket, Resource<DynInputStream>, Resource<DynOutputStream>);

impl HostTcpSocket for NetworkView<'_> {
    fn start_bind(
        &mut self,
        socket: Socket,
        _: Resource<Network>,
        local: IpSocketAddress,
    ) -> SocketResult<()> {
        let socket = self.table.get_mut(&socket)?;
        let State::Unbound = socket.state else {
            return Err(socket.refusal().into());
        };
        let local = address::local(local, socket.family)?;
        socket.state = State::Binding(self.network.bind_tcp(local)?);
        Ok(())
    }

    fn finish_bind(&mut self, socket: Socket) -> SocketResult<()> {
        let socket = self.table.get_mut(&socket)?;
        match socket.take_state() {
            State::Binding(binding) => {
                socket.state = State::Bound(binding);
                Ok(())
            }
            other => {
                socket.state = other;
                Err(ErrorCode::NotInProgress.into())
            }
        }
    }

    fn start_connect(
        &mut self,
        socket: Socket,
        _: Resource<Network>,
        remote: IpSocketAddress,
    ) -> SocketResult<()> {
        let socket = self.table.get_mut(&socket)?;
        if !matches!(socket.state, State::Unbound | State::Bound(_)) {
            return Err(socket.refusal().into());
        }
        let remote = address::remote(remote, socket.family)?;
        let binding = match socket.take_state() {
            State::Bound(binding) => Some(binding),
            _ => None,
        };
        let from = binding.as_ref().map(|binding| binding.local());
        let attempt = self.network.connect(from, remote);
        socket.state = State::Connecting { attempt, binding };
        Ok(())
    }

    fn finish_connect(
        &mut self,
        handle: Socket,
    ) -> SocketResult<(Resource<DynInputStream>, Resource<DynOutputStream>)> {
        let socket = self.table.get_mut(&handle)?;
        socket.advance();
        let (reader, writer) = match socket.take_state() {
            State::Answered { result, binding } => socket.adopt(result?, binding),
            other => {
                let waiting = matches!(other, State::Connecting { .. });
                socket.state = other;
                let code = if waiting {
                    ErrorCode::WouldBlock
                } else {
                    ErrorCode::NotInProgress
                };
                return Err(code.into());
            }
        };
        let reader = self.table.push_child(reader, &handle)?;
        Ok((reader, self.table.push_child(writer, &handle)?))
    }

    fn start_listen(&mut self, socket: Socket) -> SocketResult<()> {
        let socket = self.table.get_mut(&socket)?;
        if !matches!(socket.state, State::Bound(_)) {
            return Err(socket.refusal().into());
        }
        if let State::Bound(binding) = socket.take_state() {
            socket.state = State::StartingToListen(binding.listen(socket.options.backlog)?);
        }
        Ok(())
    }

    fn finish_listen(&mut self, socket: Socket) -> SocketResult<()> {
        let socket = self.table.get_mut(&socket)?;
        match socket.take_state() {
            State::StartingToListen(listener) => {
                socket.state = State::Listening {
                    listener,
                    next: None,
                };
                Ok(())
            }
            other => {
                socket.state = other;
                Err(ErrorCode::NotInProgress.into())
            }
        }
    }

    fn accept(&mut self, socket: Socket) -> SocketResult<Accepted> {
        let listening = self.table.get_mut(&socket)?;
        listening.advance();
        let State::Listening { next, .. } = &mut listening.state else {
            return Err(listening.refusal().into());
        };
        let stream = next.take().ok_or(ErrorCode::WouldBlock)??;
        let mut connection = TcpSocket::new(listening.family);
        let (reader, writer) = connection.adopt(stream, None);
        let connection = self.table.push(connection)?;
        let reader = self.table.push_child(reader, &connection)?;
        let writer = self.table.push_child(writer, &connection)?;
        Ok((connection, reader, writer))
    }

    fn local_address(&mut self, socket: Socket) -> SocketResult<IpSocketAddress> {
        let local = match &self.table.get(&socket)?.state {
            State::Bound(binding) => binding.local(),
            State::StartingToListen(listener) | State::Listening { listener, .. } => {
                listener.local()
            }
            State::Connecting {
                binding: Some(binding),
                ..
            } => binding.local(),
            State::Connected(connection) => connection.local,
            _ => return Err(ErrorCode::InvalidState.into()),
        };
        Ok(address::to_wit(local))
    }

    fn remote_address(&mut self, socket: Socket) -> SocketResult<IpSocketAddress> {
        match &self.table.get(&socket)?.state {
            State::Connected(connection) => Ok(address::to_wit(connection.peer)),
            _ => Err(ErrorCode::InvalidState.into()),
        }
    }

    fn is_listening(&mut self, socket: Socket) -> wasmtime::Result<bool> {
        Ok(matches!(
            self.table.get(&socket)?.state,
            State::Listening { .. }
        ))
    }

    fn address_family(&mut self, socket: Socket) -> wasmtime::Result<IpAddressFamily> {
        Ok(self.table.get(&socket)?.family)
    }

    fn set_listen_backlog_size(&mut self, socket: Socket, value: u64) -> SocketResult<()> {
        let backlog = usize::try_from(positive(value)?).unwrap_or(usize::MAX);
        let socket = self.table.get_mut(&socket)?;
        match socket.state {
            State::Unbound | State::Bound(_) => socket.options.backlog = backlog,
            // Spec: an implementation need not change the backlog of a listening socket.
            State::Listening { .. } => return Err(ErrorCode::NotSupported.into()),
            _ => return Err(socket.refusal().into()),
        }
        Ok(())
    }

    fn keep_alive_enabled(&mut self, socket: Socket) -> SocketResult<bool> {
        Ok(self.options(&socket)?.keep_alive)
    }

    fn set_keep_alive_enabled(&mut self, socket: Socket, value: bool) -> SocketResult<()> {
        self.options(&socket)?.keep_alive = value;
        Ok(())
    }

    fn keep_alive_idle_time(&mut self, socket: Socket) -> SocketResult<u64> {
        Ok(self.options(&socket)?.keep_alive_idle)
    }

    fn set_keep_alive_idle_time(&mut self, socket: Socket, value: u64) -> SocketResult<()> {
        self.options(&socket)?.keep_alive_idle = positive(value)?;
        Ok(())
    }

    fn keep_alive_interval(&mut self, socket: Socket) -> SocketResult<u64> {
        Ok(self.options(&socket)?.keep_alive_interval)
    }

    fn set_keep_alive_interval(&mut self, socket: Socket, value: u64) -> SocketResult<()> {
        self.options(&socket)?.keep_alive_interval = positive(value)?;
        Ok(())
    }

    fn keep_alive_count(&mut self, socket: Socket) -> SocketResult<u32> {
        Ok(self.options(&socket)?.keep_alive_count)
    }

    fn set_keep_alive_count(&mut self, socket: Socket, value: u32) -> SocketResult<()> {
        positive(value.into())?;
        self.options(&socket)?.keep_alive_count = value;
        Ok(())
    }

    fn hop_limit(&mut self, socket: Socket) -> SocketResult<u8> {
        Ok(self.options(&socket)?.hop_limit)
    }

    fn set_hop_limit(&mut self, socket: Socket, value: u8) -> SocketResult<()> {
        positive(value.into())?;
        self.options(&socket)?.hop_limit = value;
        Ok(())
    }

    fn receive_buffer_size(&mut self, socket: Socket) -> SocketResult<u64> {
        Ok(self.options(&socket)?.receive_buffer)
    }

    fn set_receive_buffer_size(&mut self, socket: Socket, value: u64) -> SocketResult<()> {
        self.options(&socket)?.receive_buffer = positive(value)?;
        Ok(())
    }

    fn send_buffer_size(&mut self, socket: Socket) -> SocketResult<u64> {
        Ok(self.options(&socket)?.send_buffer)
    }

    fn set_send_buffer_size(&mut self, socket: Socket, value: u64) -> SocketResult<()> {
        self.options(&socket)?.send_buffer = positive(value)?;
        Ok(())
    }

    fn subscribe(&mut self, socket: Socket) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table, socket)
    }

    fn shutdown(&mut self, socket: Socket, how: ShutdownType) -> SocketResult<()> {
        let socket = self.table.get(&socket)?;
        let State::Connected(connection) = &socket.state else {
            return Err(ErrorCode::InvalidState.into());
        };
        if !matches!(how, ShutdownType::Send) {
            connection.reader.close();
        }
        if !matches!(how, ShutdownType::Receive) {
            connection.writer.close();
        }
        Ok(())
    }

    fn drop(&mut self, socket: Socket) -> wasmtime::Result<()> {
        self.table.delete(socket)?;
        Ok(())
    }
}

impl NetworkView<'_> {
    fn options(&mut self, socket: &Socket) -> SocketResult<&mut Options> {
        Ok(&mut self.table.get_mut(socket)?.options)
    }
}
