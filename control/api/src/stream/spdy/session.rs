//! A session: the streams of one connection, what the peer said about them, and what is to be said.
//!
//! 1. The *reader* turns bytes into frames and takes each into [`State`]; it pauses while more than
//!    [`MAX_BUFFERED`] bytes wait for readers of streams, or too many answers for the writer.
//! 2. The *writer* sends what [`State`] has to say: control frames first, then the streams in turn, a
//!    piece of each.
//! 3. Streams (`stream.rs`) read from and write to [`State`] and wake the two.
//!
//! Invariant: a stream's entry stays until its handle is gone, both directions have ended and what it had
//! to send is sent. Every byte taken from the connection counts as buffered until it is read or thrown
//! away, and only then as credit for the peer's window.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;

use super::frame::{Decoder, Encoder, Frame, INITIAL_WINDOW};
use super::headers::Headers;
use super::stream::Stream;
use super::{SpdyError, status};
use crate::stream::{ByteStream, CLOSE_LIMIT};

/// Streams that one session may have.
const MAX_STREAMS: usize = 1024;
/// Bytes of all streams that may wait to be read before the connection is no longer read.
const MAX_BUFFERED: usize = 1 << 20;
/// Answers that may wait to be sent before the connection is no longer read.
const MAX_ANSWERS: usize = 64;
/// Bytes that one stream may have waiting to be sent.
pub(super) const MAX_OUTBOUND: usize = 64 << 10;
/// The window a stream and a session begin with.
const WINDOW: u32 = 64 << 10;
/// The largest window.
const MAX_WINDOW: i64 = 0x7fff_ffff;
/// Bytes of one data frame: small, so that streams take turns.
const PIECE: usize = 16 << 10;
/// Bytes read from the connection at once.
const READ: usize = 32 << 10;

/// Which end of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Asked for the upgrade; its streams are odd.
    Client,
    /// Granted it; its streams are even.
    Server,
}

/// The streams of one connection. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Session(Arc<Shared>);

/// What session, streams, reader and writer share.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// There is something to send.
    pub(super) work: Notify,
    /// There is room to read into.
    pub(super) room: Notify,
    /// A stream was opened by the peer, or the session is over.
    arrived: Notify,
}

/// A stream that the peer opened and that was not answered yet.
#[derive(Debug)]
pub struct Incoming {
    /// What it is for.
    pub headers: Headers,
    stream: Stream,
}

/// How far the peer's direction of a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remote {
    Open,
    Finished,
    Reset,
}

/// How far our direction of a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Local {
    Open,
    /// The end is to be sent behind what waits.
    Finishing,
    Finished,
}

/// One stream.
#[derive(Debug)]
pub(super) struct StreamState {
    pub(super) inbound: BytesMut,
    pub(super) outbound: BytesMut,
    pub(super) remote: Remote,
    pub(super) local: Local,
    /// What may be sent; below zero towards a peer that spoke of windows late.
    window: i64,
    /// Bytes read that the peer was not told of.
    credit: u32,
    /// It is in the queue of streams that have something to send.
    queued: bool,
    /// Nobody holds it any more.
    abandoned: bool,
    pub(super) read_waker: Option<Waker>,
    pub(super) write_waker: Option<Waker>,
}

/// All there is to know of a session.
#[derive(Debug)]
pub(super) struct State {
    role: Role,
    pub(super) streams: HashMap<u32, StreamState>,
    /// Control frames to be sent.
    answers: VecDeque<Frame>,
    /// Streams that have something to send.
    ready: VecDeque<u32>,
    arrivals: VecDeque<(u32, Headers)>,
    next_id: u32,
    last_remote: u32,
    buffered: usize,
    window: i64,
    initial_window: i64,
    credit: u32,
    /// The peer speaks of windows, so it keeps to them.
    windows: bool,
    closing: bool,
    /// The peer was told that we are leaving.
    said_goodbye: bool,
    pub(super) closed: Option<SpdyError>,
}

impl Session {
    /// A session over `connection`, and the future that drives it until the connection ends, the session
    /// is closed, or the future is dropped.
    pub fn new(
        connection: impl ByteStream,
        role: Role,
    ) -> (Self, impl Future<Output = Result<(), SpdyError>> + Send) {
        let shared = Arc::new(Shared {
            state: Mutex::new(State::new(role)),
            work: Notify::new(),
            room: Notify::new(),
            arrived: Notify::new(),
        });
        let end = End(Arc::clone(&shared));
        let driver = async move {
            let (reader, writer) = tokio::io::split(connection);
            let mut read = std::pin::pin!(read(reader, &end.0));
            let outcome = tokio::select! {
                outcome = &mut read => outcome,
                outcome = write(writer, &end.0) => match outcome {
                    Ok(()) => tokio::time::timeout(CLOSE_LIMIT, read).await.unwrap_or(Ok(())),
                    broken => broken,
                },
            };
            end.0
                .close(outcome.clone().err().unwrap_or(SpdyError::Closed));
            outcome
        };
        (Self(shared), driver)
    }

    /// The next stream that the peer opens; `None` when the session is over. Cancel-safe; one caller at a
    /// time.
    pub async fn accept(&self) -> Option<Incoming> {
        loop {
            {
                let mut state = self.0.lock();
                if let Some((id, headers)) = state.arrivals.pop_front() {
                    let stream = Stream::new(id, Arc::clone(&self.0));
                    return Some(Incoming { headers, stream });
                }
                if state.closed.is_some() {
                    return None;
                }
            }
            self.0.arrived.notified().await;
        }
    }

    /// Opens a stream. The peer may still refuse it, which its reader sees.
    ///
    /// # Errors
    /// [`SpdyError::Closed`] if the session takes no more.
    pub fn open(&self, headers: Headers) -> Result<Stream, SpdyError> {
        let mut state = self.0.lock();
        if state.closed.is_some() || state.closing || state.streams.len() >= MAX_STREAMS {
            return Err(SpdyError::Closed);
        }
        let id = state.next_id;
        state.next_id = id.checked_add(2).ok_or(SpdyError::Closed)?;
        let stream = StreamState::new(state.initial_window);
        state.streams.insert(id, stream);
        state.answers.push_back(Frame::SynStream {
            id,
            fin: false,
            unidirectional: false,
            headers,
        });
        drop(state);
        self.0.work.notify_one();
        Ok(Stream::new(id, Arc::clone(&self.0)))
    }

    /// Ends the session once everything that waits is sent.
    pub fn close(&self) {
        self.0.lock().closing = true;
        self.0.work.notify_one();
    }
}

impl Incoming {
    /// Takes the stream.
    #[must_use]
    pub fn accept(self) -> Stream {
        let reply = Frame::SynReply {
            id: self.stream.id(),
            fin: false,
            headers: Headers::default(),
        };
        self.stream.shared().answer(reply);
        self.stream
    }

    /// Refuses the stream.
    pub fn refuse(self) {
        self.stream.reset(status::REFUSED_STREAM);
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, frame: Frame) {
        self.lock().answers.push_back(frame);
        self.work.notify_one();
    }

    /// The session is over: everybody who waits is told.
    fn close(&self, why: SpdyError) {
        let mut state = self.lock();
        if state.closed.is_some() {
            return;
        }
        state.closed = Some(why);
        let wakers: Vec<_> = state
            .streams
            .values_mut()
            .flat_map(StreamState::wakers)
            .collect();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        self.arrived.notify_one();
    }
}

/// Ends the session with the future that drives it.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.close(SpdyError::Closed);
    }
}

async fn read(mut reader: impl AsyncRead + Unpin, shared: &Shared) -> Result<(), SpdyError> {
    let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::new());
    loop {
        while !shared.lock().has_room() {
            shared.room.notified().await;
        }
        buffer.reserve(READ);
        if reader.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
        while let Some(frame) = decoder.decode(&mut buffer)? {
            let (arrived, waker) = {
                let mut state = shared.lock();
                let waker = state.take(frame)?;
                (!state.arrivals.is_empty(), waker)
            };
            waker.into_iter().flatten().flatten().for_each(Waker::wake);
            if arrived {
                shared.arrived.notify_one();
            }
        }
        shared.work.notify_one();
    }
}

async fn write(mut writer: impl AsyncWrite + Unpin, shared: &Shared) -> Result<(), SpdyError> {
    let (mut encoder, mut out) = (Encoder::default(), BytesMut::new());
    loop {
        let (waker, over) = {
            let mut state = shared.lock();
            let waker = state.say(&mut encoder, &mut out);
            (waker, state.closing)
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        if !out.is_empty() {
            writer.write_all(&out).await?;
            out.clear();
            shared.room.notify_one();
        } else if over {
            writer.shutdown().await?;
            return Ok(());
        } else {
            writer.flush().await?;
            shared.work.notified().await;
        }
    }
}

/// Those who wait for a stream: its reader and its writer.
type Wakers = Option<[Option<Waker>; 2]>;

impl StreamState {
    fn new(window: i64) -> Self {
        Self {
            inbound: BytesMut::new(),
            outbound: BytesMut::new(),
            remote: Remote::Open,
            local: Local::Open,
            window,
            credit: 0,
            queued: false,
            abandoned: false,
            read_waker: None,
            write_waker: None,
        }
    }

    fn wakers(&mut self) -> impl Iterator<Item = Waker> + use<> {
        let wakers = [self.read_waker.take(), self.write_waker.take()];
        wakers.into_iter().flatten()
    }

    fn has_something(&self) -> bool {
        !self.outbound.is_empty() || self.local == Local::Finishing
    }

    fn is_over(&self) -> bool {
        self.abandoned && self.local == Local::Finished && self.remote != Remote::Open
    }
}

impl State {
    fn new(role: Role) -> Self {
        // Streams that nobody reads for a while must not use up the session's window.
        let delta = MAX_BUFFERED as u32 - WINDOW;
        Self {
            role,
            streams: HashMap::new(),
            answers: VecDeque::from([Frame::WindowUpdate { id: 0, delta }]),
            ready: VecDeque::new(),
            arrivals: VecDeque::new(),
            next_id: if role == Role::Client { 1 } else { 2 },
            last_remote: 0,
            buffered: 0,
            window: i64::from(WINDOW),
            initial_window: i64::from(WINDOW),
            credit: 0,
            windows: false,
            closing: false,
            said_goodbye: false,
            closed: None,
        }
    }

    fn has_room(&self) -> bool {
        self.buffered < MAX_BUFFERED && self.answers.len() < MAX_ANSWERS
    }

    /// Takes in what the peer said.
    fn take(&mut self, frame: Frame) -> Result<Wakers, SpdyError> {
        match frame {
            Frame::SynStream {
                id,
                fin,
                unidirectional,
                headers,
            } => self.take_stream(id, fin, unidirectional, headers)?,
            Frame::Data { id, fin, data } => return Ok(self.take_data(id, fin, &data)),
            Frame::SynReply { id, fin, .. } | Frame::Headers { id, fin, .. } => {
                return Ok(fin.then(|| self.end_remote(id, Remote::Finished)).flatten());
            }
            Frame::RstStream { id, .. } => return Ok(self.end_remote(id, Remote::Reset)),
            Frame::Settings(settings) => self.take_settings(&settings),
            Frame::WindowUpdate { id, delta } => return self.widen(id, i64::from(delta)),
            // The peer's pings have the parity of its streams; others answer ours, of which there are none.
            Frame::Ping(id) if self.is_remote(id) => self.answers.push_back(Frame::Ping(id)),
            Frame::Ping(_) => {}
            Frame::GoAway { .. } => self.closing |= self.streams.is_empty(),
        }
        Ok(None)
    }

    fn is_remote(&self, id: u32) -> bool {
        (id % 2 == 1) == (self.role == Role::Server)
    }

    fn take_stream(
        &mut self,
        id: u32,
        fin: bool,
        unidirectional: bool,
        headers: Headers,
    ) -> Result<(), SpdyError> {
        if !self.is_remote(id) || id <= self.last_remote {
            return Err(SpdyError::Protocol("a stream with a wrong identifier"));
        }
        self.last_remote = id;
        if self.closing || self.streams.len() >= MAX_STREAMS {
            let status = status::REFUSED_STREAM;
            self.answers.push_back(Frame::RstStream { id, status });
            return Ok(());
        }
        let mut stream = StreamState::new(self.initial_window);
        if fin {
            stream.remote = Remote::Finished;
        }
        if unidirectional {
            stream.local = Local::Finished;
        }
        self.streams.insert(id, stream);
        self.arrivals.push_back((id, headers));
        Ok(())
    }

    fn take_data(&mut self, id: u32, fin: bool, data: &[u8]) -> Wakers {
        let stream = self.streams.get_mut(&id);
        let Some(stream) = stream.filter(|stream| stream.remote == Remote::Open) else {
            self.refund(data.len());
            let status = status::INVALID_STREAM;
            self.answers.push_back(Frame::RstStream { id, status });
            return None;
        };
        if stream.abandoned {
            self.refund(data.len());
            if !data.is_empty() && !fin {
                let status = status::CANCEL;
                self.answers.push_back(Frame::RstStream { id, status });
                return self.end_remote(id, Remote::Reset);
            }
        } else {
            stream.inbound.extend_from_slice(data);
            self.buffered += data.len();
        }
        if fin {
            return self.end_remote(id, Remote::Finished);
        }
        let stream = self.streams.get_mut(&id)?;
        Some([stream.read_waker.take(), None])
    }

    fn end_remote(&mut self, id: u32, how: Remote) -> Wakers {
        let stream = self.streams.get_mut(&id)?;
        stream.remote = how;
        if how == Remote::Reset {
            stream.local = Local::Finished;
            stream.outbound.clear();
        }
        let wakers = [stream.read_waker.take(), stream.write_waker.take()];
        self.forget_if_over(id);
        Some(wakers)
    }

    fn take_settings(&mut self, settings: &[(u32, u32)]) {
        for (_, value) in settings.iter().filter(|(id, _)| *id == INITIAL_WINDOW) {
            self.windows = true;
            let window = i64::from(*value).min(MAX_WINDOW);
            let change = window - self.initial_window;
            self.initial_window = window;
            for stream in self.streams.values_mut() {
                stream.window += change;
            }
        }
        self.queue_all();
    }

    fn widen(&mut self, id: u32, delta: i64) -> Result<Wakers, SpdyError> {
        self.windows = true;
        if id == 0 {
            self.window += delta;
            if self.window > MAX_WINDOW {
                return Err(SpdyError::Protocol("the session's window is too large"));
            }
            self.queue_all();
            return Ok(None);
        }
        let Some(stream) = self.streams.get_mut(&id) else {
            return Ok(None);
        };
        stream.window += delta;
        if stream.window > MAX_WINDOW {
            let status = status::FLOW_CONTROL_ERROR;
            self.answers.push_back(Frame::RstStream { id, status });
            return Ok(self.end_remote(id, Remote::Reset));
        }
        self.queue(id);
        Ok(None)
    }

    /// Bytes that were taken from the connection and are gone: the peer may send as many again.
    fn refund(&mut self, bytes: usize) {
        self.credit = self.credit.saturating_add(bytes as u32);
        if self.credit >= WINDOW / 2 {
            let delta = std::mem::take(&mut self.credit);
            self.answers.push_back(Frame::WindowUpdate { id: 0, delta });
        }
    }

    /// Bytes of a stream were read.
    pub(super) fn read(&mut self, id: u32, bytes: usize) {
        self.buffered = self.buffered.saturating_sub(bytes);
        self.refund(bytes);
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.credit = stream.credit.saturating_add(bytes as u32);
        if stream.remote == Remote::Open && stream.credit >= WINDOW / 2 {
            let delta = std::mem::take(&mut stream.credit);
            self.answers.push_back(Frame::WindowUpdate { id, delta });
        }
    }

    /// Notes that a stream has something to send.
    pub(super) fn queue(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.has_something()
            && !std::mem::replace(&mut stream.queued, true)
        {
            self.ready.push_back(id);
        }
    }

    fn queue_all(&mut self) {
        let ids: Vec<u32> = self.streams.keys().copied().collect();
        for id in ids {
            self.queue(id);
        }
    }

    /// Ends a stream at once, in both directions.
    pub(super) fn reset(&mut self, id: u32, status: u32) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.remote == Remote::Reset || stream.is_over() {
            return;
        }
        stream.remote = Remote::Reset;
        stream.local = Local::Finished;
        stream.outbound.clear();
        self.answers.push_back(Frame::RstStream { id, status });
    }

    /// Nobody holds the stream any more: it ends in good order.
    pub(super) fn abandon(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.abandoned = true;
        let unread = std::mem::take(&mut stream.inbound).len();
        if stream.local == Local::Open {
            stream.local = Local::Finishing;
        }
        self.buffered = self.buffered.saturating_sub(unread);
        self.refund(unread);
        self.queue(id);
        self.forget_if_over(id);
    }

    fn forget_if_over(&mut self, id: u32) {
        if self.streams.get(&id).is_some_and(StreamState::is_over) {
            self.streams.remove(&id);
        }
    }

    /// Writes what is to be said next: all control frames and one piece of one stream; at the end, that
    /// we are leaving.
    fn say(&mut self, encoder: &mut Encoder, out: &mut BytesMut) -> Option<Waker> {
        for frame in self.answers.drain(..) {
            encoder.encode(&frame, out);
        }
        while let Some(id) = self.ready.pop_front() {
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.queued = false;
            }
            if let Some((frame, waker)) = self.piece(id) {
                encoder.encode(&frame, out);
                self.queue(id);
                self.forget_if_over(id);
                return waker;
            }
        }
        if self.closing && !std::mem::replace(&mut self.said_goodbye, true) {
            let last = self.last_remote;
            encoder.encode(&Frame::GoAway { last, status: 0 }, out);
        }
        None
    }

    /// The next frame of a stream, if its windows allow one.
    fn piece(&mut self, id: u32) -> Option<(Frame, Option<Waker>)> {
        let stream = self.streams.get_mut(&id)?;
        if !stream.has_something() {
            return None;
        }
        let mut length = stream.outbound.len().min(PIECE);
        if self.windows {
            let window = stream.window.min(self.window).max(0);
            length = length.min(usize::try_from(window).unwrap_or(length));
        }
        if length == 0 && !stream.outbound.is_empty() {
            return None;
        }
        let data = stream.outbound.split_to(length).freeze();
        stream.window -= length as i64;
        self.window -= length as i64;
        let fin = stream.local == Local::Finishing && stream.outbound.is_empty();
        if fin {
            stream.local = Local::Finished;
        }
        Some((Frame::Data { id, fin, data }, stream.write_waker.take()))
    }
}
