//! An in-memory byte stream with TCP's manners: ordered, back-pressured, half-closing.
//!
//! A [`Stream`] is one end of a connection and is made of two one-way pipes:
//!
//! ```text
//!   end A  Writer ──► queue of Bytes (at most CAPACITY) ──► Reader  end B
//!          Reader ◄── queue of Bytes                    ◄── Writer
//! ```
//!
//! 1. Chunks are handed over by reference count; nothing is copied between two guests.
//! 2. Dropping a [`Writer`] (or shutting it down) is FIN: the reader sees the rest, then the end.
//! 3. [`Writer::reset`] is RST: the reader sees an error, so that a cut-off message is not taken
//!    for a whole one.
//! 4. Dropping a [`Reader`] makes the other side's writes fail.
//!
//! Invariant: a waker is registered under the same lock as the check that found nothing to do, so
//! no wake-up is lost. Wakers are called after the lock is released.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that may wait in one direction of a connection: the "window".
pub const CAPACITY: usize = 256 * 1024;

/// Chunks that may wait in one direction, however short: bounds the bookkeeping of tiny writes.
const MAX_CHUNKS: usize = 1024;

/// How the writing side ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WriteEnd {
    Open,
    Finished,
    Reset,
}

struct State {
    chunks: VecDeque<Bytes>,
    queued: usize,
    writer: WriteEnd,
    reader_open: bool,
    read_waker: Option<Waker>,
    write_waker: Option<Waker>,
}

impl State {
    fn space(&self) -> usize {
        if self.chunks.len() >= MAX_CHUNKS {
            0
        } else {
            CAPACITY.saturating_sub(self.queued)
        }
    }

    /// Whether a read has something to report: data, the end, or a reset.
    fn readable(&self) -> bool {
        !self.chunks.is_empty() || self.writer != WriteEnd::Open
    }
}

fn keep_waker(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Counters that each byte of a pipe is added to.
pub type Meters = Vec<Arc<AtomicU64>>;

struct Pipe {
    state: Mutex<State>,
    meters: Meters,
}

impl Pipe {
    fn new(meters: Meters) -> Arc<Self> {
        let state = Mutex::new(State {
            chunks: VecDeque::new(),
            queued: 0,
            writer: WriteEnd::Open,
            reader_open: true,
            read_waker: None,
            write_waker: None,
        });
        Arc::new(Self { state, meters })
    }

    /// The state. A poisoned lock is taken over: no code that holds it can leave it half changed.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self, end: WriteEnd) {
        let mut state = self.lock();
        if state.writer != WriteEnd::Open {
            return;
        }
        state.writer = end;
        let waker = state.read_waker.take();
        drop(state);
        wake(waker);
    }
}

/// The other side no longer reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the other side of the connection has closed")]
pub struct Closed;

impl From<Closed> for io::Error {
    fn from(_: Closed) -> Self {
        io::ErrorKind::BrokenPipe.into()
    }
}

/// What a read of a [`Reader`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chunk {
    /// Bytes, never empty.
    Data(Bytes),
    /// The writer finished.
    End,
    /// The writer broke the connection.
    Reset,
}

/// The receiving half of a one-way pipe.
pub struct Reader(Arc<Pipe>);

impl Reader {
    /// Takes up to `max` bytes, which must not be 0.
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Chunk> {
        self.take(max, Some(cx)).map_or(Poll::Pending, Poll::Ready)
    }

    /// Takes up to `max` bytes, which must not be 0, if there is something to take.
    pub fn try_chunk(&mut self, max: usize) -> Option<Chunk> {
        self.take(max, None)
    }

    fn take(&mut self, max: usize, cx: Option<&mut Context<'_>>) -> Option<Chunk> {
        let mut state = self.0.lock();
        if state.writer == WriteEnd::Reset {
            return Some(Chunk::Reset);
        }
        let Some(mut chunk) = state.chunks.pop_front() else {
            if state.writer == WriteEnd::Finished {
                return Some(Chunk::End);
            }
            if let Some(cx) = cx {
                keep_waker(&mut state.read_waker, cx);
            }
            return None;
        };
        if chunk.len() > max {
            state.chunks.push_front(chunk.split_off(max));
        }
        state.queued -= chunk.len();
        let waker = state.write_waker.take();
        drop(state);
        wake(waker);
        Some(Chunk::Data(chunk))
    }

    /// Ready when [`Self::poll_chunk`] would be.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if state.readable() {
            return Poll::Ready(());
        }
        keep_waker(&mut state.read_waker, cx);
        Poll::Pending
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.reader_open = false;
        state.queued = 0;
        let chunks = std::mem::take(&mut state.chunks);
        let waker = state.write_waker.take();
        drop(state);
        drop(chunks);
        wake(waker);
    }
}

/// The sending half of a one-way pipe.
pub struct Writer(Arc<Pipe>);

impl Writer {
    /// How many bytes may be pushed now, never 0.
    pub fn poll_space(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Closed>> {
        let mut state = self.0.lock();
        if !state.reader_open {
            return Poll::Ready(Err(Closed));
        }
        match state.space() {
            0 => {
                keep_waker(&mut state.write_waker, cx);
                Poll::Pending
            }
            space => Poll::Ready(Ok(space)),
        }
    }

    /// How many bytes may be pushed now, which may be 0.
    pub fn space(&self) -> Result<usize, Closed> {
        let state = self.0.lock();
        if state.reader_open {
            Ok(state.space())
        } else {
            Err(Closed)
        }
    }

    /// Queues `data`; callers keep within the space that [`Self::poll_space`] told.
    pub fn push(&mut self, data: Bytes) -> Result<(), Closed> {
        if data.is_empty() {
            return Ok(());
        }
        let mut state = self.0.lock();
        if !state.reader_open {
            return Err(Closed);
        }
        let length = data.len();
        state.queued += length;
        state.chunks.push_back(data);
        let waker = state.read_waker.take();
        drop(state);
        wake(waker);
        for meter in &self.0.meters {
            meter.fetch_add(length as u64, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Breaks the connection: the reader sees [`Chunk::Reset`] at once.
    pub fn reset(self) {
        self.0.finish(WriteEnd::Reset);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.finish(WriteEnd::Finished);
    }
}

/// A one-way pipe.
pub fn one_way() -> (Writer, Reader) {
    metered(Meters::new())
}

fn metered(meters: Meters) -> (Writer, Reader) {
    let pipe = Pipe::new(meters);
    (Writer(pipe.clone()), Reader(pipe))
}

/// One end of a connection.
pub struct Stream {
    reader: Reader,
    writer: Option<Writer>,
    local: SocketAddr,
    peer: SocketAddr,
}

impl Stream {
    /// A connection: the end at `a`, whose peer is `b_seen_by_a`, and the end at `b`.
    ///
    /// The addresses are each side's view, which differ behind a translated address.
    pub fn pair(a: SocketAddr, b_seen_by_a: SocketAddr, b: SocketAddr) -> (Self, Self) {
        Self::metered_pair(a, b_seen_by_a, b, [Meters::new(), Meters::new()])
    }

    /// As [`Self::pair`]; the bytes that `a` sends and those that `b` sends are counted.
    pub fn metered_pair(
        a: SocketAddr,
        b_seen_by_a: SocketAddr,
        b: SocketAddr,
        [from_a, from_b]: [Meters; 2],
    ) -> (Self, Self) {
        let (a_writer, b_reader) = metered(from_a);
        let (b_writer, a_reader) = metered(from_b);
        (
            Self {
                reader: a_reader,
                writer: Some(a_writer),
                local: a,
                peer: b_seen_by_a,
            },
            Self {
                reader: b_reader,
                writer: Some(b_writer),
                local: b,
                peer: a,
            },
        )
    }

    /// This end's address.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The other end's address.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The two halves; the writing one is absent after a shutdown.
    pub fn into_halves(self) -> (Reader, Option<Writer>) {
        (self.reader, self.writer)
    }

    /// Breaks the connection instead of finishing it.
    pub fn reset(self) {
        if let Some(writer) = self.writer {
            writer.reset();
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        match self.reader.poll_chunk(cx, buf.remaining()) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Chunk::Reset) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Poll::Ready(Chunk::End) => Poll::Ready(Ok(())),
            Poll::Ready(Chunk::Data(data)) => {
                buf.put_slice(&data);
                Poll::Ready(Ok(()))
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
        self.poll_write_vectored(cx, &[io::IoSlice::new(data)])
    }

    /// One chunk of all slices: a header and its body cost one wake-up.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Some(writer) = self.writer.as_mut() else {
            return Poll::Ready(Err(Closed.into()));
        };
        let space = match writer.poll_space(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(space) => space?,
        };
        let wanted = slices
            .iter()
            .map(|slice| slice.len())
            .sum::<usize>()
            .min(space);
        let mut chunk = BytesMut::with_capacity(wanted);
        for slice in slices {
            let part = slice
                .get(..slice.len().min(wanted - chunk.len()))
                .unwrap_or_default();
            chunk.extend_from_slice(part);
        }
        writer.push(chunk.freeze())?;
        Poll::Ready(Ok(wanted))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer = None;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn pair() -> (Stream, Stream) {
        let a = "10.0.0.1:1000".parse().unwrap();
        let b = "10.0.0.2:80".parse().unwrap();
        Stream::pair(a, b, b)
    }

    fn noop() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    #[tokio::test]
    async fn bytes_arrive_in_order_and_the_end_after_them() {
        let (mut a, mut b) = pair();
        a.write_all(b"hello ").await.unwrap();
        a.write_all(b"world").await.unwrap();
        a.shutdown().await.unwrap();
        let mut text = String::new();
        b.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello world");
    }

    #[tokio::test]
    async fn one_direction_stays_open_after_the_other_is_shut_down() {
        let (mut a, mut b) = pair();
        a.shutdown().await.unwrap();
        b.write_all(b"late answer").await.unwrap();
        drop(b);
        let mut text = String::new();
        a.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "late answer");
        assert_eq!(
            a.write(b"x").await.unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
    }

    #[tokio::test]
    async fn a_full_pipe_holds_the_writer_until_the_reader_reads() {
        let (mut a, mut b) = pair();
        let data = vec![7; CAPACITY * 3];
        let sent = data.clone();
        let writer = tokio::spawn(async move { a.write_all(&sent).await });
        let mut got = Vec::new();
        b.read_to_end(&mut got).await.unwrap();
        writer.await.unwrap().unwrap();
        assert!(got == data);
    }

    #[tokio::test]
    async fn tiny_writes_are_bounded_by_count_too() {
        let (mut writer, mut reader) = one_way();
        let mut pushed = 0;
        while let Poll::Ready(Ok(_)) = writer.poll_space(&mut noop()) {
            writer.push(Bytes::from_static(b"x")).unwrap();
            pushed += 1;
        }
        assert_eq!(pushed, MAX_CHUNKS);
        assert!(reader.poll_chunk(&mut noop(), 10).is_ready());
        assert!(writer.poll_space(&mut noop()).is_ready());
    }

    #[tokio::test]
    async fn a_reset_is_an_error_and_not_an_end() {
        let (mut a, mut b) = pair();
        a.write_all(b"half a mess").await.unwrap();
        a.reset();
        let mut got = Vec::new();
        let error = b.read_to_end(&mut got).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn writing_to_a_closed_peer_fails_even_when_it_was_waiting() {
        let (mut a, b) = pair();
        a.write_all(&vec![0; CAPACITY]).await.unwrap();
        let writer = tokio::spawn(async move { a.write_all(b"more").await });
        tokio::task::yield_now().await;
        drop(b);
        let error = writer.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn a_long_chunk_is_read_in_parts() {
        let (mut writer, mut reader) = one_way();
        writer.push(Bytes::from_static(b"abcdef")).unwrap();
        assert_eq!(
            reader.poll_chunk(&mut noop(), 4),
            Poll::Ready(Chunk::Data(Bytes::from_static(b"abcd")))
        );
        assert_eq!(
            reader.poll_chunk(&mut noop(), 4),
            Poll::Ready(Chunk::Data(Bytes::from_static(b"ef")))
        );
        assert!(reader.poll_chunk(&mut noop(), 4).is_pending());
        drop(writer);
        assert_eq!(reader.poll_chunk(&mut noop(), 4), Poll::Ready(Chunk::End));
    }
}
