//! Bodies with a time limit, and bodies that end their instance.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep};
use wasmtime_wasi_http::{Error, WasiBody};

/// A response's body that may pause only for so long between two of its parts.
pub(super) struct TimedBody {
    body: Incoming,
    pause: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl TimedBody {
    pub(super) fn new(body: Incoming, pause: Duration) -> Self {
        Self {
            body,
            pause,
            timer: None,
        }
    }
}

impl Body for TimedBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            if let Some(timer) = self.timer.as_mut() {
                // Not armed again before the next wait: most frames are there already.
                timer
                    .as_mut()
                    .reset(Instant::now() + Duration::from_secs(u32::MAX.into()));
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Error::from)));
        }
        let pause = self.pause;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
        if timer.deadline() > Instant::now() + pause {
            timer.as_mut().reset(Instant::now() + pause);
        }
        std::task::ready!(timer.as_mut().poll(cx));
        Poll::Ready(Some(Err(Error::ConnectionReadTimeout)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Ends a task when dropped, unless it was disarmed: what a client no longer waits for is not
/// computed any further.
pub(super) struct AbortGuard(Option<AbortHandle>);

impl AbortGuard {
    pub(super) fn new(task: AbortHandle) -> Self {
        Self(Some(task))
    }

    pub(super) fn disarm(&mut self) {
        self.0 = None;
    }
}

impl Drop for AbortGuard {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
        }
    }
}

/// A guest's response body; dropping it before its end aborts the instance that makes it.
pub(super) struct GuardedBody {
    body: WasiBody,
    guard: AbortGuard,
}

impl GuardedBody {
    pub(super) fn new(body: WasiBody, guard: AbortGuard) -> Self {
        Self { body, guard }
    }
}

impl Body for GuardedBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() || self.body.is_end_stream() {
            self.guard.disarm();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
