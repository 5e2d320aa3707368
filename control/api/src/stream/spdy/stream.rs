//! One stream of a session, as a stream of bytes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Buf;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::session::{Local, MAX_OUTBOUND, Remote, Shared};

/// A stream. Shutting it down ends its direction; dropping it ends it once what was written is sent.
#[derive(Debug)]
pub struct Stream {
    id: u32,
    shared: Arc<Shared>,
}

impl Stream {
    pub(super) fn new(id: u32, shared: Arc<Shared>) -> Self {
        Self { id, shared }
    }

    pub(super) fn id(&self) -> u32 {
        self.id
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Ends the stream at once; what was not sent yet is lost.
    pub fn reset(self, status: u32) {
        self.shared.lock().reset(self.id, status);
        self.shared.work.notify_one();
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.lock().abandon(self.id);
        self.shared.work.notify_one();
        self.shared.room.notify_one();
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.shared.lock();
        let over = state.closed.is_some();
        let Some(stream) = state.streams.get_mut(&self.id) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        let length = stream.inbound.len().min(buf.remaining());
        if length > 0 {
            buf.put_slice(stream.inbound.get(..length).unwrap_or_default());
            stream.inbound.advance(length);
            state.read(self.id, length);
            drop(state);
            self.shared.room.notify_one();
            self.shared.work.notify_one();
            return Poll::Ready(Ok(()));
        }
        match stream.remote {
            _ if buf.remaining() == 0 => Poll::Ready(Ok(())),
            Remote::Finished => Poll::Ready(Ok(())),
            Remote::Reset => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Remote::Open if over => Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
            Remote::Open => {
                stream.read_waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.shared.lock();
        let over = state.closed.is_some();
        let stream = state.streams.get_mut(&self.id);
        let open = stream.filter(|stream| stream.local == Local::Open && !over);
        let Some(stream) = open else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let length = data.len().min(MAX_OUTBOUND - stream.outbound.len());
        if length == 0 && !data.is_empty() {
            stream.write_waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        stream
            .outbound
            .extend_from_slice(data.get(..length).unwrap_or_default());
        state.queue(self.id);
        drop(state);
        self.shared.work.notify_one();
        Poll::Ready(Ok(length))
    }

    /// Ready when all bytes were handed to the connection.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.shared.lock();
        let over = state.closed.is_some();
        match state.streams.get_mut(&self.id) {
            Some(stream) if !stream.outbound.is_empty() => {
                if over {
                    return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
                }
                stream.write_waker = Some(cx.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.shared.lock();
        if let Some(stream) = state.streams.get_mut(&self.id)
            && stream.local == Local::Open
        {
            stream.local = Local::Finishing;
            state.queue(self.id);
            drop(state);
            self.shared.work.notify_one();
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::stream::spdy::{Headers, Role, Session};

    /// A client's and a server's session over a pipe.
    fn sessions() -> (Session, Session) {
        let (near, far) = duplex(4096);
        let (client, drive_client) = Session::new(near, Role::Client);
        let (server, drive_server) = Session::new(far, Role::Server);
        tokio::spawn(drive_client);
        tokio::spawn(drive_server);
        (client, server)
    }

    async fn streams(client: &Session, server: &Session) -> (Stream, Stream) {
        let near = client.open(Headers::new(&[("a", "b")])).unwrap();
        let incoming = server.accept().await.unwrap();
        assert_eq!(incoming.headers.get("a"), "b");
        (near, incoming.accept())
    }

    #[tokio::test]
    async fn bytes_and_ends_travel_both_ways() {
        let (client, server) = sessions();
        let (mut near, mut far) = streams(&client, &server).await;
        near.write_all(b"ping").await.unwrap();
        near.shutdown().await.unwrap();
        let mut got = String::new();
        far.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "ping");
        far.write_all(b"pong").await.unwrap();
        drop(far);
        got.clear();
        near.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "pong");
    }

    #[tokio::test]
    async fn a_stream_that_nobody_reads_holds_up_no_other() {
        let (client, server) = sessions();
        let (mut idle, _unread) = streams(&client, &server).await;
        let (mut near, mut far) = streams(&client, &server).await;
        let flood = tokio::spawn(async move { idle.write_all(&vec![0; 4 << 20]).await });
        let data = vec![7; 300_000];
        let write = async {
            near.write_all(&data).await.unwrap();
            near.shutdown().await.unwrap();
        };
        let mut got = Vec::new();
        let (read, ()) = tokio::join!(far.read_to_end(&mut got), write);
        assert_eq!((read.unwrap(), got == data), (300_000, true));
        flood.abort();
    }

    #[tokio::test]
    async fn a_refused_or_reset_stream_is_a_broken_connection() {
        let (client, server) = sessions();
        let mut near = client.open(Headers::default()).unwrap();
        server.accept().await.unwrap().refuse();
        let error = near.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        let error = near.write_all(b"x").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn a_closed_session_ends_the_other_side() {
        let (client, server) = sessions();
        let (mut near, mut far) = streams(&client, &server).await;
        near.write_all(b"last").await.unwrap();
        client.close();
        let mut got = [0; 4];
        far.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"last");
        assert!(far.read(&mut got).await.is_err());
        assert!(server.accept().await.is_none());
        assert!(client.open(Headers::default()).is_err());
    }

    /// A server's session, and the raw end of its connection.
    fn raw() -> (Session, DuplexStream) {
        let (near, far) = duplex(1 << 16);
        let (server, drive) = Session::new(far, Role::Server);
        tokio::spawn(drive);
        (server, near)
    }

    #[tokio::test]
    async fn pings_are_answered_and_windows_granted() {
        let (_server, mut raw) = raw();
        let ping = [0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1];
        raw.write_all(&ping).await.unwrap();
        let mut got = [0; 28];
        raw.read_exact(&mut got).await.unwrap();
        let granted = [0x80, 3, 0, 9, 0, 0, 0, 8, 0, 0, 0, 0, 0, 15, 0, 0];
        assert_eq!(got[..], [&granted[..], &ping[..]].concat());
    }

    #[tokio::test]
    async fn a_peer_that_keeps_no_windows_gets_all_bytes_without_granting_any() {
        let (server, mut raw) = raw();
        let mut open = bytes::BytesMut::new();
        let frame = crate::stream::spdy::Frame::SynStream {
            id: 1,
            fin: true,
            unidirectional: false,
            headers: Headers::default(),
        };
        crate::stream::spdy::frame::Encoder::default().encode(&frame, &mut open);
        raw.write_all(&open).await.unwrap();
        let mut stream = server.accept().await.unwrap().accept();
        tokio::spawn(async move { stream.write_all(&vec![1; 500_000]).await });
        let mut got = 0;
        let mut buffer = [0; 4096];
        while got < 500_000 {
            got += raw.read(&mut buffer).await.unwrap();
        }
    }

    #[tokio::test]
    async fn an_identifier_used_twice_ends_the_session() {
        let (near, far) = duplex(4096);
        let (_server, drive) = Session::new(far, Role::Server);
        let (mut raw, mut out) = (near, bytes::BytesMut::new());
        let mut encoder = crate::stream::spdy::frame::Encoder::default();
        for id in [3, 1] {
            let frame = crate::stream::spdy::Frame::SynStream {
                id,
                fin: false,
                unidirectional: false,
                headers: Headers::default(),
            };
            encoder.encode(&frame, &mut out);
        }
        raw.write_all(&out).await.unwrap();
        let error = drive.await.unwrap_err();
        assert!(error.to_string().contains("wrong identifier"), "{error}");
    }
}
