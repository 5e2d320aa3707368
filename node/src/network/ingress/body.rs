//! The body of a client's request, which has to go on.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

/// How long a client may leave the next bytes of a body out.
const STALL: Duration = Duration::from_secs(60);

/// Why a body ends early.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the client sends no more of the body")]
    Stalled,
    #[error(transparent)]
    Client(#[from] hyper::Error),
}

/// A request's body as it comes from the client.
pub(super) struct ClientBody {
    inner: Incoming,
    /// When the client has stalled; streams of HTTP/2 may be quiet, their connection is asked whether it lives.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl ClientBody {
    pub(super) fn new(inner: Incoming, may_be_quiet: bool) -> Self {
        let ends = may_be_quiet || inner.is_end_stream();
        let stalled = (!ends).then(|| Box::pin(tokio::time::sleep(STALL)));
        Self { inner, stalled }
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(frame) => {
                if let Some(stalled) = &mut this.stalled {
                    stalled.as_mut().reset(Instant::now() + STALL);
                }
                Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)))
            }
            Poll::Pending => match &mut this.stalled {
                Some(stalled) => stalled
                    .as_mut()
                    .poll(cx)
                    .map(|()| Some(Err(BodyError::Stalled))),
                None => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
