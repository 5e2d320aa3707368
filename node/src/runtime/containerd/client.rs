//! Calls to containerd over its unix socket.
//!
//! The connection is made with the first call and again after it broke, so that a containerd that was restarted is
//! simply there again. Every call has a bound; those that wait for a container's end have none.

use std::error::Error as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::UnixStream;
use tokio_stream::Stream;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::service_fn;

/// How long a call may take, as with kubelet.
const LIMIT: Duration = Duration::from_secs(120);
/// Where containerd keeps everything of CRI's.
pub(crate) const NAMESPACE: &str = "k8s.io";
/// Larger than anything that containerd answers.
const MAX_ANSWER: usize = 16 << 20;

/// A client of one containerd; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    channel: Channel,
    socket: Arc<Path>,
}

/// Why a call failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody answers at the socket.
    #[error("container runtime is down: {socket}: {message}")]
    Unreachable {
        /// The socket.
        socket: String,
        /// Why.
        message: String,
    },
    /// containerd says no.
    #[error("{message}")]
    Refused {
        /// In which words.
        message: String,
        /// The kind of refusal.
        code: Code,
    },
    /// containerd does not come to an end.
    #[error("{call}: no answer from the container runtime within {}s", limit.as_secs())]
    TooSlow {
        /// What was asked.
        call: &'static str,
        /// How long was waited.
        limit: Duration,
    },
}

impl CallError {
    /// Whether what the call was about is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(Code::NotFound)
    }

    /// Whether what was to be made is there already.
    #[must_use]
    pub fn is_already_there(&self) -> bool {
        self.code() == Some(Code::AlreadyExists)
    }

    /// Whether containerd is gone, for now.
    #[must_use]
    pub const fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    const fn code(&self) -> Option<Code> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }
}

impl Client {
    /// A client of whoever listens at the socket, now or later.
    pub(crate) fn new(socket: &Path) -> Self {
        let socket: Arc<Path> = socket.into();
        let path = socket.clone();
        let connector = service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(&path).await.map(TokioIo::new) }
        });
        // The name is for the `Host` of requests only: there is one server at a socket.
        let channel =
            Endpoint::from_static("http://containerd").connect_with_connector_lazy(connector);
        Self { channel, socket }
    }

    /// Asks once and waits for the answer.
    pub(crate) async fn call<Q, A>(&self, path: &'static str, request: Q) -> Result<A, CallError>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        self.call_within(path, request, LIMIT).await
    }

    /// Asks once and waits so long for the answer.
    pub(crate) async fn call_within<Q, A>(
        &self,
        path: &'static str,
        request: Q,
        limit: Duration,
    ) -> Result<A, CallError>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let asked = self.call_with_lease(path, request, None);
        let answered = tokio::time::timeout(limit, asked).await;
        answered.unwrap_or(Err(CallError::TooSlow { call: path, limit }))
    }

    /// Asks once, in the name of a lease, and waits for the answer without a bound.
    pub(crate) async fn call_with_lease<Q, A>(
        &self,
        path: &'static str,
        request: Q,
        lease: Option<&str>,
    ) -> Result<A, CallError>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = self.ready().await?;
        let request = in_namespace(Request::new(request), lease);
        let codec = ProstCodec::<Q, A>::default();
        let answer = grpc.unary(request, PathAndQuery::from_static(path), codec);
        let answer = answer.await.map_err(|status| self.failed(&status))?;
        Ok(answer.into_inner())
    }

    /// Opens a stream of requests, in the name of a lease, and answers that of answers.
    pub(crate) async fn stream<Q, A>(
        &self,
        path: &'static str,
        requests: impl Stream<Item = Q> + Send + 'static,
        lease: &str,
    ) -> Result<Streaming<A>, CallError>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = self.ready().await?;
        let request = in_namespace(Request::new(requests), Some(lease));
        let codec = ProstCodec::<Q, A>::default();
        let answer = grpc.streaming(request, PathAndQuery::from_static(path), codec);
        let answer = answer.await.map_err(|status| self.failed(&status))?;
        Ok(answer.into_inner())
    }

    async fn ready(&self) -> Result<tonic::client::Grpc<Channel>, CallError> {
        let mut grpc = tonic::client::Grpc::new(self.channel.clone());
        grpc = grpc.max_decoding_message_size(MAX_ANSWER);
        let ready = grpc.ready().await;
        ready.map_err(|error| self.unreachable(&error))?;
        Ok(grpc)
    }

    /// What a status says.
    pub(crate) fn failed(&self, status: &Status) -> CallError {
        match (status.code(), status.source()) {
            (Code::Unavailable, Some(cause)) => self.unreachable(cause),
            // A connection that breaks in the middle of a call.
            (Code::Unavailable, None) => self.unreachable(&status.clone()),
            (Code::Unknown, Some(cause)) if cause.is::<tonic::transport::Error>() => {
                self.unreachable(cause)
            }
            (code, _) => CallError::Refused {
                message: status.message().to_owned(),
                code,
            },
        }
    }

    fn unreachable(&self, error: &(dyn std::error::Error + 'static)) -> CallError {
        let mut cause = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        CallError::Unreachable {
            socket: self.socket.display().to_string(),
            message: cause.to_string(),
        }
    }
}

/// A request in CRI's namespace of containerd.
fn in_namespace<T>(mut request: Request<T>, lease: Option<&str>) -> Request<T> {
    let metadata = request.metadata_mut();
    let namespace = MetadataValue::from_static(NAMESPACE);
    metadata.insert("containerd-namespace", namespace);
    if let Some(lease) = lease.and_then(|lease| lease.parse().ok()) {
        metadata.insert("containerd-lease", lease);
    }
    request
}
