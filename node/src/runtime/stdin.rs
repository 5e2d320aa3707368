//! Standard input of a running container.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use bytes::Bytes;
use tokio::sync::Semaphore;
use windlass_wasi_shims::pipe::Writer;

/// Nobody reads the input any more, or it was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("standard input is closed")]
pub struct StdinClosed;

/// Where a container's standard input is written to. Cheap to clone; stays open until it is closed.
#[derive(Clone)]
pub struct Stdin(Arc<Inner>);

struct Inner {
    writer: Mutex<Option<Writer>>,
    /// One writer waits for room at a time, since the pipe knows one.
    turn: Semaphore,
}

impl Stdin {
    /// An input over the sending half of a pipe.
    #[must_use]
    pub fn new(writer: Writer) -> Self {
        Self(Arc::new(Inner {
            writer: Mutex::new(Some(writer)),
            turn: Semaphore::new(1),
        }))
    }

    /// Writes all of `data`; waits while the container does not read.
    ///
    /// Dropping the future may leave a part of it written.
    ///
    /// # Errors
    /// [`StdinClosed`].
    pub async fn write(&self, mut data: Bytes) -> Result<(), StdinClosed> {
        let _turn = self.0.turn.acquire().await.map_err(|_| StdinClosed)?;
        while !data.is_empty() {
            self.push_some(&mut data).await?;
        }
        Ok(())
    }

    /// Waits until the container takes some of `data`, and takes that away from it.
    ///
    /// Cancel-safe: what is still there was not written.
    ///
    /// # Errors
    /// [`StdinClosed`].
    pub async fn write_some(&self, data: &mut Bytes) -> Result<(), StdinClosed> {
        let _turn = self.0.turn.acquire().await.map_err(|_| StdinClosed)?;
        self.push_some(data).await
    }

    async fn push_some(&self, data: &mut Bytes) -> Result<(), StdinClosed> {
        let space = poll_fn(|cx| match &mut *self.lock() {
            Some(writer) => writer.poll_space(cx).map_err(|_| StdinClosed),
            None => Poll::Ready(Err(StdinClosed)),
        });
        let length = space.await?.min(data.len());
        let piece = data.split_to(length);
        let mut writer = self.lock();
        let writer = writer.as_mut().ok_or(StdinClosed)?;
        writer.push(piece).map_err(|_| StdinClosed)
    }

    /// Ends the input: the container reads what is there, and then the end.
    pub fn close(&self) {
        let writer = self.lock().take();
        drop(writer);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Writer>> {
        self.0.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Stdin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stdin")
    }
}

#[cfg(test)]
mod tests {
    use windlass_wasi_shims::pipe::{Chunk, one_way};

    use super::*;

    #[tokio::test]
    async fn input_waits_for_its_reader_and_ends_when_closed() {
        let (writer, mut reader) = one_way();
        let stdin = Stdin::new(writer);
        let data = Bytes::from(vec![7; windlass_wasi_shims::pipe::CAPACITY + 1]);
        let write = tokio::spawn({
            let (stdin, data) = (stdin.clone(), data.clone());
            async move { stdin.write(data).await }
        });
        let mut got = 0;
        while got < data.len() {
            match poll_fn(|cx| reader.poll_chunk(cx, usize::MAX)).await {
                Chunk::Data(chunk) => got += chunk.len(),
                end => panic!("{end:?}"),
            }
        }
        assert_eq!(write.await.unwrap(), Ok(()));
        stdin.close();
        assert_eq!(reader.try_chunk(1), Some(Chunk::End));
        assert_eq!(
            stdin.write(Bytes::from_static(b"x")).await,
            Err(StdinClosed)
        );
    }
}
