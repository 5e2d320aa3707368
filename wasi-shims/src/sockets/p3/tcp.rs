//! TCP sockets of `wasi:sockets/types` 0.3.
//!
//! ```text
//!   Unbound ─bind─► Bound ─listen─► Listening   (the stream of connections has the listener)
//!      └───connect────┴──► Connecting ─► Connected ─send, receive─► (the streams have the halves)
//!                               └─► Closed
//! ```
//!
//! Spec: `TcpSocketOperationalSemantics-0.3.0-draft` of the WASI sockets proposal.

use std::iter;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::oneshot;
use wasmtime::StoreContextMut;
use wasmtime::component::{
    Access, Accessor, Destination, FutureReader, Resource, Source, StreamConsumer, StreamProducer,
    StreamReader, StreamResult,
};
use wasmtime_wasi::p3::bindings::sockets::types::{
    Duration, ErrorCode, HostTcpSocket, HostTcpSocketWithStore, IpAddressFamily, IpSocketAddress,
    TcpSocket,
};
use wasmtime_wasi::p3::sockets::{SocketError, SocketResult};

use super::refused;
use crate::net::{NetError, Stream, TcpBinding, TcpListener};
use crate::pipe::{Chunk, Reader, Writer};
use crate::sockets::options::{Options, positive};
use crate::sockets::{HasNetwork, NetworkView, address};

/// Bytes moved at a time.
const CHUNK: usize = 64 * 1024;

/// Keeps a port for as long as something uses it.
type Binding = Arc<dyn TcpBinding>;
/// How what a stream carries ended.
type Outcome = Result<(), ErrorCode>;

/// A guest's TCP socket.
struct Socket {
    state: State,
    family: IpAddressFamily,
    options: Options,
}

enum State {
    Unbound,
    Bound(Box<dyn TcpBinding>),
    Connecting,
    Connected(Connection),
    Listening(SocketAddr),
    Closed,
}

struct Connection {
    local: SocketAddr,
    peer: SocketAddr,
    /// Until the guest takes them: each can be taken once.
    reader: Option<Reader>,
    writer: Option<Writer>,
    binding: Option<Binding>,
}

impl Socket {
    const fn new(family: IpAddressFamily, options: Options) -> Self {
        Self {
            state: State::Unbound,
            family,
            options,
        }
    }

    fn connected(&mut self, stream: Stream, binding: Option<Box<dyn TcpBinding>>) {
        let (local, peer) = (stream.local(), stream.peer());
        let (reader, writer) = stream.into_halves();
        self.state = State::Connected(Connection {
            local,
            peer,
            reader: Some(reader),
            writer,
            binding: binding.map(Arc::from),
        });
    }

    fn is_ipv4(&self) -> bool {
        self.family == IpAddressFamily::Ipv4
    }
}

impl NetworkView<'_> {
    fn tcp(&mut self, socket: &Resource<TcpSocket>) -> SocketResult<&mut Socket> {
        let ours = Resource::<Socket>::new_borrow(socket.rep());
        self.table.get_mut(&ours).map_err(SocketError::trap)
    }

    fn tcp_options(&mut self, socket: &Resource<TcpSocket>) -> SocketResult<&mut Options> {
        Ok(&mut self.tcp(socket)?.options)
    }

    fn push_tcp(&mut self, socket: Socket) -> wasmtime::Result<Resource<TcpSocket>> {
        let ours = self.table.push(socket)?;
        Ok(Resource::new_own(ours.rep()))
    }
}

impl<T: Send + 'static> HostTcpSocketWithStore<T> for HasNetwork {
    async fn connect(
        store: &Accessor<T, Self>,
        handle: Resource<TcpSocket>,
        remote: IpSocketAddress,
    ) -> SocketResult<()> {
        let begun = store.with(|mut store| {
            let mut view = store.get();
            let network = view.network;
            let socket = view.tcp(&handle)?;
            if !matches!(socket.state, State::Unbound | State::Bound(_)) {
                return Err(ErrorCode::InvalidState.into());
            }
            let remote = address::usable_remote(remote.into(), socket.is_ipv4());
            let remote = remote.map_err(refused)?;
            let binding = match std::mem::replace(&mut socket.state, State::Connecting) {
                State::Bound(binding) => Some(binding),
                _ => None,
            };
            let from = binding.as_ref().map(|binding| binding.local());
            SocketResult::Ok((network.connect(from, remote), binding))
        });
        let (attempt, binding) = begun?;
        // A guest that drops the call gives the attempt up, and has a socket that is good for nothing more.
        let answer = attempt.await;
        store.with(|mut store| {
            let mut view = store.get();
            let socket = view.tcp(&handle)?;
            match answer {
                Ok(stream) => {
                    socket.connected(stream, binding);
                    Ok(())
                }
                Err(error) => {
                    socket.state = State::Closed;
                    Err(refused(error))
                }
            }
        })
    }

    async fn listen(
        mut store: Access<'_, T, Self>,
        handle: Resource<TcpSocket>,
    ) -> SocketResult<StreamReader<Resource<TcpSocket>>> {
        let view_of = store.getter();
        let mut view = store.get();
        let network = view.network;
        let socket = view.tcp(&handle)?;
        let binding = match std::mem::replace(&mut socket.state, State::Closed) {
            State::Bound(binding) => Ok(binding),
            State::Unbound => network
                .bind_tcp(address::any(socket.is_ipv4()))
                .map_err(|error| (State::Unbound, refused(error))),
            other => Err((other, ErrorCode::InvalidState.into())),
        };
        let binding = match binding {
            Ok(binding) => binding,
            Err((state, error)) => {
                socket.state = state;
                return Err(error);
            }
        };
        let listener = binding.listen(socket.options.backlog).map_err(refused)?;
        socket.state = State::Listening(listener.local());
        let connections = Connections {
            listener,
            next: None,
            family: socket.family,
            options: socket.options,
            view_of,
        };
        StreamReader::new(&mut store, connections).map_err(SocketError::trap)
    }

    fn send(
        mut store: Access<'_, T, Self>,
        handle: Resource<TcpSocket>,
        mut data: StreamReader<u8>,
    ) -> wasmtime::Result<FutureReader<Outcome>> {
        let half = match &mut store.get().tcp(&handle)?.state {
            State::Connected(connection) => connection
                .writer
                .take()
                .map(|writer| (writer, connection.binding.clone())),
            _ => None,
        };
        let Some((writer, binding)) = half else {
            data.close(&mut store)?;
            return known(&mut store, Err(ErrorCode::InvalidState));
        };
        let (outcome, ended) = oneshot::channel();
        let sent = Sent {
            writer: Some(writer),
            outcome: Some(outcome),
            _binding: binding,
        };
        data.pipe(&mut store, sent)?;
        FutureReader::new(&mut store, ended)
    }

    fn receive(
        mut store: Access<'_, T, Self>,
        handle: Resource<TcpSocket>,
    ) -> wasmtime::Result<(StreamReader<u8>, FutureReader<Outcome>)> {
        let half = match &mut store.get().tcp(&handle)?.state {
            State::Connected(connection) => connection
                .reader
                .take()
                .map(|reader| (reader, connection.binding.clone())),
            _ => None,
        };
        let Some((reader, binding)) = half else {
            let nothing = StreamReader::new(&mut store, iter::empty())?;
            return Ok((nothing, known(&mut store, Err(ErrorCode::InvalidState))?));
        };
        let (outcome, ended) = oneshot::channel();
        let received = Received {
            reader: Some(reader),
            outcome: Some(outcome),
            _binding: binding,
        };
        let data = StreamReader::new(&mut store, received)?;
        Ok((data, FutureReader::new(&mut store, ended)?))
    }
}

/// A future whose outcome is known.
fn known<T: Send + 'static>(
    store: &mut Access<'_, T, HasNetwork>,
    outcome: Outcome,
) -> wasmtime::Result<FutureReader<Outcome>> {
    FutureReader::new(store, async move { wasmtime::error::Ok(outcome) })
}

/// The connections of a listening socket.
struct Connections<T: 'static> {
    listener: Box<dyn TcpListener>,
    /// One that the guest was told of before it had room for it.
    next: Option<Result<Stream, NetError>>,
    family: IpAddressFamily,
    options: Options,
    view_of: for<'a> fn(&'a mut T) -> NetworkView<'a>,
}

impl<T> StreamProducer<T> for Connections<T> {
    type Item = Resource<TcpSocket>;
    type Buffer = Option<Self::Item>;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut store: StoreContextMut<'a, T>,
        mut destination: Destination<'a, Self::Item, Self::Buffer>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let this = &mut *self;
        if this.next.is_none() {
            this.next = match this.listener.poll_accept(context) {
                Poll::Ready(accepted) => Some(accepted),
                Poll::Pending if finish => return Poll::Ready(Ok(StreamResult::Cancelled)),
                Poll::Pending => return Poll::Pending,
            };
        }
        // Spec: no room is a question whether there is something.
        if destination.remaining(&mut store) == Some(0) {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        let Some(Ok(stream)) = this.next.take() else {
            // Spec: the stream ends with the listener, and not before.
            return Poll::Ready(Ok(StreamResult::Dropped));
        };
        let mut socket = Socket::new(this.family, this.options);
        socket.connected(stream, None);
        let socket = (this.view_of)(store.data_mut()).push_tcp(socket)?;
        destination.set_buffer(Some(socket));
        Poll::Ready(Ok(StreamResult::Completed))
    }
}

/// What the peer sends.
struct Received {
    reader: Option<Reader>,
    outcome: Option<oneshot::Sender<Outcome>>,
    _binding: Option<Binding>,
}

impl Received {
    /// The stream is over; a half that is dropped is closed.
    fn end(&mut self, outcome: Outcome) -> Poll<wasmtime::Result<StreamResult>> {
        self.reader = None;
        tell(&mut self.outcome, outcome);
        Poll::Ready(Ok(StreamResult::Dropped))
    }
}

impl<T> StreamProducer<T> for Received {
    type Item = u8;
    type Buffer = Bytes;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut store: StoreContextMut<'a, T>,
        mut destination: Destination<'a, Self::Item, Self::Buffer>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let Some(reader) = &mut self.reader else {
            return Poll::Ready(Ok(StreamResult::Dropped));
        };
        if reader.poll_readable(context).is_pending() {
            return pending(finish);
        }
        // Spec: no room is a question whether there is something.
        if destination.remaining(&mut store) == Some(0) {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        match reader.poll_chunk(context, CHUNK) {
            Poll::Ready(Chunk::Data(data)) => {
                destination.set_buffer(data);
                Poll::Ready(Ok(StreamResult::Completed))
            }
            Poll::Ready(Chunk::End) => self.end(Ok(())),
            Poll::Ready(Chunk::Reset) => self.end(Err(ErrorCode::ConnectionReset)),
            Poll::Pending => pending(finish),
        }
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        // A guest that wants no more has had no error.
        tell(&mut self.outcome, Ok(()));
    }
}

/// What the guest sends.
struct Sent {
    writer: Option<Writer>,
    outcome: Option<oneshot::Sender<Outcome>>,
    _binding: Option<Binding>,
}

impl<T> StreamConsumer<T> for Sent {
    type Item = u8;

    fn poll_consume(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        store: StoreContextMut<'_, T>,
        source: Source<'_, Self::Item>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let Some(writer) = &mut self.writer else {
            return Poll::Ready(Ok(StreamResult::Dropped));
        };
        let mut source = source.as_direct(store);
        let space = match writer.poll_space(context) {
            Poll::Ready(space) => space,
            Poll::Pending => return pending(finish),
        };
        let pushed = space.and_then(|space| {
            let data = source.remaining();
            let data = data.get(..space.min(CHUNK)).unwrap_or(data);
            // Nothing to send is a question whether there is room.
            if !data.is_empty() {
                writer.push(Bytes::copy_from_slice(data))?;
            }
            Ok(data.len())
        });
        match pushed {
            Ok(length) => {
                source.mark_read(length);
                Poll::Ready(Ok(StreamResult::Completed))
            }
            Err(_closed) => {
                self.writer = None;
                tell(&mut self.outcome, Err(ErrorCode::ConnectionBroken));
                Poll::Ready(Ok(StreamResult::Dropped))
            }
        }
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        // Spec: the guest closes its stream to close its half, which dropping the half does.
        tell(&mut self.outcome, Ok(()));
    }
}

fn tell(outcome: &mut Option<oneshot::Sender<Outcome>>, said: Outcome) {
    if let Some(sender) = outcome.take() {
        // A guest that dropped the future does not want to know.
        let _ = sender.send(said);
    }
}

/// Nothing to do yet: the guest waits, or wants its buffer back.
fn pending(finish: bool) -> Poll<wasmtime::Result<StreamResult>> {
    match finish {
        true => Poll::Ready(Ok(StreamResult::Cancelled)),
        false => Poll::Pending,
    }
}

impl HostTcpSocket for NetworkView<'_> {
    async fn bind(
        &mut self,
        handle: Resource<TcpSocket>,
        local: IpSocketAddress,
    ) -> SocketResult<()> {
        let network = self.network;
        let socket = self.tcp(&handle)?;
        let State::Unbound = socket.state else {
            return Err(ErrorCode::InvalidState.into());
        };
        let local = address::usable_local(local.into(), socket.is_ipv4()).map_err(refused)?;
        socket.state = State::Bound(network.bind_tcp(local).map_err(refused)?);
        Ok(())
    }

    fn create(&mut self, family: IpAddressFamily) -> SocketResult<Resource<TcpSocket>> {
        let socket = Socket::new(family, Options::default());
        self.push_tcp(socket).map_err(SocketError::trap)
    }

    fn get_local_address(&mut self, handle: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        let local = match &self.tcp(&handle)?.state {
            State::Bound(binding) => binding.local(),
            State::Listening(local) => *local,
            State::Connected(connection) => connection.local,
            _ => return Err(ErrorCode::InvalidState.into()),
        };
        Ok(local.into())
    }

    fn get_remote_address(&mut self, handle: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        match &self.tcp(&handle)?.state {
            State::Connected(connection) => Ok(connection.peer.into()),
            _ => Err(ErrorCode::InvalidState.into()),
        }
    }

    fn get_is_listening(&mut self, handle: Resource<TcpSocket>) -> wasmtime::Result<bool> {
        Ok(matches!(self.tcp(&handle)?.state, State::Listening(_)))
    }

    fn get_address_family(
        &mut self,
        handle: Resource<TcpSocket>,
    ) -> wasmtime::Result<IpAddressFamily> {
        Ok(self.tcp(&handle)?.family)
    }

    fn set_listen_backlog_size(
        &mut self,
        handle: Resource<TcpSocket>,
        value: u64,
    ) -> SocketResult<()> {
        let backlog = usize::try_from(positive(value).map_err(refused)?).unwrap_or(usize::MAX);
        let socket = self.tcp(&handle)?;
        match socket.state {
            State::Unbound | State::Bound(_) => socket.options.backlog = backlog,
            // Spec: an implementation need not change the backlog of a listening socket.
            State::Listening(_) => return Err(ErrorCode::NotSupported.into()),
            _ => return Err(ErrorCode::InvalidState.into()),
        }
        Ok(())
    }

    fn get_keep_alive_enabled(&mut self, handle: Resource<TcpSocket>) -> SocketResult<bool> {
        Ok(self.tcp_options(&handle)?.keep_alive)
    }

    fn set_keep_alive_enabled(
        &mut self,
        handle: Resource<TcpSocket>,
        value: bool,
    ) -> SocketResult<()> {
        self.tcp_options(&handle)?.keep_alive = value;
        Ok(())
    }

    fn get_keep_alive_idle_time(&mut self, handle: Resource<TcpSocket>) -> SocketResult<Duration> {
        Ok(self.tcp_options(&handle)?.keep_alive_idle)
    }

    fn set_keep_alive_idle_time(
        &mut self,
        handle: Resource<TcpSocket>,
        value: Duration,
    ) -> SocketResult<()> {
        self.tcp_options(&handle)?.keep_alive_idle = positive(value).map_err(refused)?;
        Ok(())
    }

    fn get_keep_alive_interval(&mut self, handle: Resource<TcpSocket>) -> SocketResult<Duration> {
        Ok(self.tcp_options(&handle)?.keep_alive_interval)
    }

    fn set_keep_alive_interval(
        &mut self,
        handle: Resource<TcpSocket>,
        value: Duration,
    ) -> SocketResult<()> {
        self.tcp_options(&handle)?.keep_alive_interval = positive(value).map_err(refused)?;
        Ok(())
    }

    fn get_keep_alive_count(&mut self, handle: Resource<TcpSocket>) -> SocketResult<u32> {
        Ok(self.tcp_options(&handle)?.keep_alive_count)
    }

    fn set_keep_alive_count(
        &mut self,
        handle: Resource<TcpSocket>,
        value: u32,
    ) -> SocketResult<()> {
        positive(value.into()).map_err(refused)?;
        self.tcp_options(&handle)?.keep_alive_count = value;
        Ok(())
    }

    fn get_hop_limit(&mut self, handle: Resource<TcpSocket>) -> SocketResult<u8> {
        Ok(self.tcp_options(&handle)?.hop_limit)
    }

    fn set_hop_limit(&mut self, handle: Resource<TcpSocket>, value: u8) -> SocketResult<()> {
        positive(value.into()).map_err(refused)?;
        self.tcp_options(&handle)?.hop_limit = value;
        Ok(())
    }

    fn get_receive_buffer_size(&mut self, handle: Resource<TcpSocket>) -> SocketResult<u64> {
        Ok(self.tcp_options(&handle)?.receive_buffer)
    }

    fn set_receive_buffer_size(
        &mut self,
        handle: Resource<TcpSocket>,
        value: u64,
    ) -> SocketResult<()> {
        self.tcp_options(&handle)?.receive_buffer = positive(value).map_err(refused)?;
        Ok(())
    }

    fn get_send_buffer_size(&mut self, handle: Resource<TcpSocket>) -> SocketResult<u64> {
        Ok(self.tcp_options(&handle)?.send_buffer)
    }

    fn set_send_buffer_size(
        &mut self,
        handle: Resource<TcpSocket>,
        value: u64,
    ) -> SocketResult<()> {
        self.tcp_options(&handle)?.send_buffer = positive(value).map_err(refused)?;
        Ok(())
    }

    fn drop(&mut self, handle: Resource<TcpSocket>) -> wasmtime::Result<()> {
        self.table
            .delete(Resource::<Socket>::new_own(handle.rep()))?;
        Ok(())
    }
}
