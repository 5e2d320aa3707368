//! The body of a client's request, which has to go on.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

/// How long a client may leave the next bytes of a body out.
const STALL: Duration = Duration::from_secs(30);

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
    /// None for a body that is known to be empty.
    inner: Option<Incoming>,
    /// When the client has stalled; streams of HTTP/2 may be quiet, their connection is asked whether it lives.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl ClientBody {
    pub(super) fn new(inner: Incoming, may_be_quiet: bool) -> Self {
        let ends = may_be_quiet || inner.is_end_stream();
        let stalled = (!ends).then(|| Box::pin(tokio::time::sleep(STALL)));
        let inner = Some(inner);
        Self { inner, stalled }
    }

    /// The body of a request that has none.
    pub(super) fn empty() -> Self {
        Self {
            inner: None,
            stalled: None,
        }
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
        let Some(inner) = &mut this.inner else {
            return Poll::Ready(None);
        };
        match Pin::new(inner).poll_frame(cx) {
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
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let inner = self.inner.as_ref();
        inner.map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
