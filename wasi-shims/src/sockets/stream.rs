//! The halves of a connection as `wasi:io` streams.
//!
//! The socket keeps a handle on each half so that `shutdown` can close it under the guest's stream.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use async_trait::async_trait;
use bytes::Bytes;
use wasmtime_wasi_io::poll::Pollable;
use wasmtime_wasi_io::streams::{InputStream, OutputStream, StreamError, StreamResult};

use crate::pipe::{Chunk, Closed, Reader, Writer};

/// Bytes moved in one call.
const CALL_SIZE: usize = 64 * 1024;

/// A half that can be closed from elsewhere.
pub(super) struct Half<T>(Arc<Mutex<Option<T>>>);

impl<T> Half<T> {
    pub(super) fn new(half: Option<T>) -> Self {
        Self(Arc::new(Mutex::new(half)))
    }

    pub(super) fn close(&self) {
        let half = self.lock().take();
        drop(half);
    }

    fn lock(&self) -> MutexGuard<'_, Option<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Clone for Half<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

#[async_trait]
impl Pollable for Half<Reader> {
    async fn ready(&mut self) {
        let poll = |cx: &mut std::task::Context<'_>| match self.lock().as_mut() {
            Some(reader) => reader.poll_readable(cx),
            None => Poll::Ready(()),
        };
        std::future::poll_fn(poll).await;
    }
}

#[async_trait]
impl InputStream for Half<Reader> {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        let mut half = self.lock();
        let reader = half.as_mut().ok_or(StreamError::Closed)?;
        if size == 0 {
            return Ok(Bytes::new());
        }
        match reader.try_chunk(size.min(CALL_SIZE)) {
            None => Ok(Bytes::new()),
            Some(Chunk::Data(data)) => Ok(data),
            Some(Chunk::End) => Err(StreamError::Closed),
            Some(Chunk::Reset) => {
                let reset = io::Error::from(io::ErrorKind::ConnectionReset);
                Err(StreamError::LastOperationFailed(reset.into()))
            }
        }
    }
}

#[async_trait]
impl Pollable for Half<Writer> {
    async fn ready(&mut self) {
        let poll = |cx: &mut std::task::Context<'_>| match self.lock().as_mut() {
            Some(writer) => writer.poll_space(cx).map(|_| ()),
            None => Poll::Ready(()),
        };
        std::future::poll_fn(poll).await;
    }
}

impl From<Closed> for StreamError {
    fn from(_: Closed) -> Self {
        Self::Closed
    }
}

#[async_trait]
impl OutputStream for Half<Writer> {
    fn write(&mut self, data: Bytes) -> StreamResult<()> {
        let mut half = self.lock();
        let writer = half.as_mut().ok_or(StreamError::Closed)?;
        if data.len() > writer.space()? {
            return Err(StreamError::trap("write of more than check-write allowed"));
        }
        Ok(writer.push(data)?)
    }

    fn flush(&mut self) -> StreamResult<()> {
        // What is pushed is with the reader already.
        self.lock().as_ref().map(|_| ()).ok_or(StreamError::Closed)
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        let half = self.lock();
        let writer = half.as_ref().ok_or(StreamError::Closed)?;
        Ok(writer.space()?.min(CALL_SIZE))
    }
}
