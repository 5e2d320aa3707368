//! Standard input, output and error of a guest.
//!
//! A container's own output goes straight from the guest's write to the embedder's [`OutputSink`]: no task and no
//! queue in between. What is run beside it writes into a pipe, and waits while its reader is slow. Input is either closed
//! (the default) or a pipe the embedder writes into. Either may be said to be a terminal.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

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

/// A guest's output stream; all its clones are one stream.
#[derive(Clone)]
pub struct Output {
    target: Target,
    terminal: bool,
}

#[derive(Clone)]
enum Target {
    Sink(Arc<dyn OutputSink>),
    Pipe(Arc<Piped>),
}

impl Output {
    /// A stream into `sink`.
    pub fn new(sink: Arc<dyn OutputSink>) -> Self {
        Self {
            target: Target::Sink(sink),
            terminal: false,
        }
    }

    /// A stream into a pipe: the guest waits while nobody reads.
    pub fn piped(writer: Writer) -> Self {
        let piped = Piped {
            writer: Mutex::new(writer),
            waiting: Mutex::default(),
        };
        Self {
            target: Target::Pipe(Arc::new(piped)),
            terminal: false,
        }
    }

    /// The same stream, of which the guest is told that it is a terminal's.
    #[must_use]
    pub fn on_terminal(self) -> Self {
        Self {
            terminal: true,
            ..self
        }
    }

    /// Writes what the host has to say; a pipe that is full or closed loses it.
    ///
    /// # Errors
    /// The sink's.
    pub fn report(&self, text: &str) -> io::Result<()> {
        let line = format!("{text}\n");
        match &self.target {
            Target::Sink(sink) => sink.write(line.as_bytes()),
            Target::Pipe(pipe) => {
                let mut writer = pipe.lock();
                if writer.space()? >= line.len() {
                    writer.push(line.into())?;
                }
                Ok(())
            }
        }
    }

    fn poll_space(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match &self.target {
            Target::Sink(_) => Poll::Ready(Ok(WRITE_SIZE)),
            Target::Pipe(pipe) => pipe.poll_space(cx),
        }
    }
}

/// The writing end of a pipe that several streams of a guest share, each with a waker of its own.
struct Piped {
    writer: Mutex<Writer>,
    waiting: Mutex<Vec<Waker>>,
}

impl Piped {
    fn lock(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Waker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll_space(self: &Arc<Self>, cx: &Context<'_>) -> Poll<io::Result<usize>> {
        let mut waiting = self.waiting();
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        drop(waiting);
        // The pipe knows one waker: this one wakes all.
        let all = Waker::from(self.clone());
        let space = self.lock().poll_space(&mut Context::from_waker(&all));
        if space.is_ready() {
            self.waiting().retain(|waker| !waker.will_wake(cx.waker()));
        }
        space.map_err(io::Error::from)
    }
}

impl Wake for Piped {
    fn wake(self: Arc<Self>) {
        let waiting = std::mem::take(&mut *self.waiting());
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        self.terminal
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
    async fn ready(&mut self) {
        // A closed pipe shows at the write.
        let _space = std::future::poll_fn(|cx| self.poll_space(cx)).await;
    }
}

impl OutputStream for Output {
    fn write(&mut self, data: Bytes) -> StreamResult<()> {
        match &self.target {
            Target::Sink(sink) => sink
                .write(&data)
                .map_err(|error| StreamError::LastOperationFailed(error.into())),
            Target::Pipe(pipe) => pipe.lock().push(data).map_err(|_| StreamError::Closed),
        }
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        match &self.target {
            Target::Sink(_) => Ok(WRITE_SIZE),
            Target::Pipe(pipe) => {
                let space = pipe.lock().space().map_err(|_| StreamError::Closed)?;
                Ok(space.min(WRITE_SIZE))
            }
        }
    }
}

impl AsyncWrite for Output {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let space = std::task::ready!(self.poll_space(cx))?;
        Poll::Ready(match &self.target {
            Target::Sink(sink) => sink.write(buf).map(|()| buf.len()),
            Target::Pipe(pipe) => {
                let (data, _) = buf.split_at(space.min(buf.len()));
                let pushed = pipe.lock().push(Bytes::copy_from_slice(data));
                pushed.map(|()| data.len()).map_err(io::Error::from)
            }
        })
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
pub struct Input {
    reader: Arc<Mutex<Reader>>,
    terminal: bool,
}

impl Input {
    /// An input and the end to write into; dropping that ends the input.
    pub fn piped() -> (Writer, Self) {
        let (writer, reader) = pipe::one_way();
        (writer, Self::new(reader))
    }

    /// An input that is read from this end of a pipe.
    pub fn new(reader: Reader) -> Self {
        Self {
            reader: Arc::new(Mutex::new(reader)),
            terminal: false,
        }
    }

    /// The same input, of which the guest is told that it is a terminal's.
    #[must_use]
    pub fn on_terminal(self) -> Self {
        Self {
            terminal: true,
            ..self
        }
    }

    fn lock(&self) -> MutexGuard<'_, Reader> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IsTerminal for Input {
    fn is_terminal(&self) -> bool {
        self.terminal
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

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::pipe::{CAPACITY, one_way};

    /// Two streams of one pipe, as standard output and error on a terminal are, each in a task of its own.
    #[tokio::test]
    async fn all_writers_of_a_full_pipe_go_on_when_it_is_read() {
        let (writer, mut reader) = one_way();
        let output = Output::piped(writer);
        let writers: Vec<_> = (0..3)
            .map(|_| {
                let mut stream = Pin::from(output.async_stream());
                tokio::spawn(async move { stream.write_all(&vec![1; CAPACITY]).await })
            })
            .collect();
        drop(output);
        let mut got = 0;
        while let Chunk::Data(data) =
            std::future::poll_fn(|cx| reader.poll_chunk(cx, usize::MAX)).await
        {
            got += data.len();
        }
        assert_eq!(got, 3 * CAPACITY);
        for writer in writers {
            writer.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn a_pipe_nobody_reads_is_closed() {
        let (writer, reader) = one_way();
        let mut output = Output::piped(writer);
        assert_eq!(output.check_write().unwrap(), WRITE_SIZE);
        drop(reader);
        assert!(matches!(output.check_write(), Err(StreamError::Closed)));
        output.ready().await;
        assert!(output.report("lost").is_err());
    }
}
