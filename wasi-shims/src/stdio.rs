//! Standard input, output and error of a guest.
//!
//! Output goes straight from the guest's write to the embedder's [`OutputSink`]: no task and no
//! queue in between. Input is either closed (the default) or a pipe the embedder writes into.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use wasmtime_wasi::cli::{IsTerminal, StdinStream, StdoutStream};
use wasmtime_wasi_io::poll::Pollable;
use wasmtime_wasi_io::streams::{InputStream, OutputStream, StreamError, StreamResult};

use crate::pipe::{self, Chunk, Reader, Writer};

/// Where a guest's output goes.
pub trait OutputSink: Send + Sync + 'static {
    /// Takes bytes as the guest wrote them; lines may be split or joined.
    ///
    /// # Errors
    /// The guest sees a failed write.
    fn write(&self, data: &[u8]) -> io::Result<()>;
}

/// Bytes a guest may write in one call.
const WRITE_SIZE: usize = 64 * 1024;

/// A guest's output stream.
#[derive(Clone)]
pub struct Output(Arc<dyn OutputSink>);

impl Output {
    /// A stream into `sink`.
    pub fn new(sink: Arc<dyn OutputSink>) -> Self {
        Self(sink)
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {}
}

impl OutputStream for Output {
    fn write(&mut self, data: Bytes) -> StreamResult<()> {
        self.0
            .write(&data)
            .map_err(|error| StreamError::LastOperationFailed(error.into()))
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_SIZE)
    }
}

impl AsyncWrite for Output {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(self.0.write(data).map(|()| data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A guest's input stream, fed by the [`Writer`] it was made with.
///
/// All streams a guest makes of it share one position, as WASI asks.
#[derive(Clone)]
pub struct Input(Arc<Mutex<Reader>>);

impl Input {
    /// An input and the end to write into; dropping that ends the input.
    pub fn piped() -> (Writer, Self) {
        let (writer, reader) = pipe::one_way();
        (writer, Self(Arc::new(Mutex::new(reader))))
    }

    fn lock(&self) -> MutexGuard<'_, Reader> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IsTerminal for Input {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdinStream for Input {
    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn InputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for Input {
    async fn ready(&mut self) {
        std::future::poll_fn(|cx| self.lock().poll_readable(cx)).await;
    }
}

#[async_trait]
impl InputStream for Input {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        if size == 0 {
            return Ok(Bytes::new());
        }
        match self.lock().try_chunk(size) {
            None => Ok(Bytes::new()),
            Some(Chunk::Data(data)) => Ok(data),
            Some(Chunk::End | Chunk::Reset) => Err(StreamError::Closed),
        }
    }
}

impl AsyncRead for Input {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let chunk = std::task::ready!(self.lock().poll_chunk(cx, buf.remaining()));
        if let Chunk::Data(data) = chunk {
            buf.put_slice(&data);
        }
        Poll::Ready(Ok(()))
    }
}
