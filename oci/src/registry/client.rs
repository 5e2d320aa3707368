//! A client of the distribution API over whatever connection its caller has.
//!
//! Requests carry only a path (`/v2/...`): the transport adds host, TLS and credentials. An agent passes
//! its API connection, so that the cluster's registry needs no address, name or certificate of its own.
//!
//! Invariant: every blob and every manifest asked for by digest is verified before it is handed on.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};

use crate::content_store::{ContentError, ContentStore};
use crate::digest::Digest;
use crate::manifest::Descriptor;
use crate::media_type;

/// Any error, boxed.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body as it comes from or goes to a transport.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

const MAX_MANIFEST: usize = 4 << 20;
const MAX_ERROR: usize = 64 << 10;

/// Sends requests to one registry; adds host, TLS and credentials.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Sends one request whose URI is a path and query.
    ///
    /// # Errors
    /// The registry was not reached.
    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, BoxError>;
}

/// A client of one registry; cheap to clone.
#[derive(Clone)]
pub struct RegistryClient {
    transport: Arc<dyn Transport>,
}

/// Why the registry did not give or take something.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The registry was not reached.
    #[error("registry not reached: {0}")]
    Transport(#[source] BoxError),
    /// There is no such repository, tag or digest.
    #[error("{0}: not found")]
    NotFound(String),
    /// The registry does not let us.
    #[error("{what}: {message}")]
    Denied {
        /// What was asked for.
        what: String,
        /// The registry's words.
        message: String,
    },
    /// Any other answer.
    #[error("{what}: unexpected status {status}: {message}")]
    Status {
        /// What was asked for.
        what: String,
        /// HTTP status.
        status: StatusCode,
        /// The registry's words.
        message: String,
    },
    /// The answer breaks the protocol.
    #[error("{0}")]
    Protocol(String),
    /// The manifest does not have the digest it was asked for by.
    #[error("manifest has digest {actual}, expected {expected}")]
    DigestMismatch {
        /// What was asked for.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// The content store failed or refused the bytes.
    #[error(transparent)]
    Content(#[from] ContentError),
}

impl ClientError {
    /// Whether trying again later may help.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Transport(_) => true,
            Self::Status { status, .. } => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            _ => false,
        }
    }
}

/// A manifest as served.
#[derive(Clone, Debug)]
pub struct ServedManifest {
    /// Digest of the bytes, computed here.
    pub digest: Digest,
    /// The `Content-Type` it came with.
    pub media_type: Option<String>,
    /// The document.
    pub bytes: Bytes,
}

impl RegistryClient {
    /// A client over a transport.
    #[must_use]
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Self { transport }
    }

    /// Fetches a manifest by tag or digest.
    ///
    /// # Errors
    /// It is not there, is too large, or does not have the digest asked for.
    pub async fn manifest(
        &self,
        repository: &str,
        reference: &str,
    ) -> Result<ServedManifest, ClientError> {
        let what = format!("manifest {repository}:{reference}");
        let request = self.request(
            Method::GET,
            &format!("/v2/{repository}/manifests/{reference}"),
            &[(header::ACCEPT, media_type::ACCEPT_MANIFESTS)],
            empty(),
        )?;
        let response = self.expect(request, StatusCode::OK, &what).await?;
        let media_type = header_text(response.headers(), &header::CONTENT_TYPE);
        let bytes = collect(response.into_body(), MAX_MANIFEST, &what).await?;
        let expected: Option<Digest> = reference.parse().ok();
        let digest = match expected {
            Some(expected) if expected.matches(&bytes) => expected,
            Some(expected) => {
                return Err(ClientError::DigestMismatch {
                    expected,
                    actual: Digest::sha256(&bytes),
                });
            }
            None => Digest::sha256(&bytes),
        };
        Ok(ServedManifest {
            digest,
            media_type,
            bytes,
        })
    }

    /// Fetches a blob into a content store, verified while it streams.
    ///
    /// # Errors
    /// It is not there, is larger than announced, or has another digest.
    pub async fn pull_blob(
        &self,
        repository: &str,
        descriptor: &Descriptor,
        store: &ContentStore,
    ) -> Result<(), ClientError> {
        let digest = &descriptor.digest;
        let what = format!("blob {digest} of {repository}");
        let path = format!("/v2/{repository}/blobs/{digest}");
        let request = self.request(Method::GET, &path, &[], empty())?;
        let response = self.expect(request, StatusCode::OK, &what).await?;
        let mut writer = store.writer(digest.algorithm(), descriptor.size).await?;
        let mut chunks = response.into_body().into_data_stream();
        while let Some(chunk) = chunks.next().await {
            writer
                .write(&chunk.map_err(ClientError::Transport)?)
                .await?;
        }
        writer.commit(Some(digest)).await?;
        Ok(())
    }

    /// Whether the repository has a blob.
    ///
    /// # Errors
    /// The registry did not say.
    pub async fn has_blob(&self, repository: &str, digest: &Digest) -> Result<bool, ClientError> {
        let what = format!("blob {digest} of {repository}");
        let path = format!("/v2/{repository}/blobs/{digest}");
        let request = self.request(Method::HEAD, &path, &[], empty())?;
        match self.expect(request, StatusCode::OK, &what).await {
            Ok(_) => Ok(true),
            Err(ClientError::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Pushes a blob.
    ///
    /// # Errors
    /// The registry did not take it.
    pub async fn push_blob(
        &self,
        repository: &str,
        digest: &Digest,
        bytes: Bytes,
    ) -> Result<(), ClientError> {
        let what = format!("push blob {digest} to {repository}");
        let path = format!("/v2/{repository}/blobs/uploads/");
        let begin = self.request(Method::POST, &path, &[], empty())?;
        let response = self.expect(begin, StatusCode::ACCEPTED, &what).await?;
        let location = header_text(response.headers(), &header::LOCATION)
            .ok_or_else(|| ClientError::Protocol(format!("{what}: no Location")))?;
        let separator = if location.contains('?') { '&' } else { '?' };
        let request = self.request(
            Method::PUT,
            &format!("{}{separator}digest={digest}", path_of(&location)),
            &[(header::CONTENT_TYPE, "application/octet-stream")],
            full(bytes),
        )?;
        self.expect(request, StatusCode::CREATED, &what)
            .await
            .map(drop)
    }

    /// Pushes a manifest under a tag or its digest.
    ///
    /// # Errors
    /// The registry did not take it.
    pub async fn push_manifest(
        &self,
        repository: &str,
        reference: &str,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<(), ClientError> {
        let what = format!("push manifest {repository}:{reference}");
        let request = self.request(
            Method::PUT,
            &format!("/v2/{repository}/manifests/{reference}"),
            &[(header::CONTENT_TYPE, media_type)],
            full(bytes),
        )?;
        self.expect(request, StatusCode::CREATED, &what)
            .await
            .map(drop)
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(header::HeaderName, &str)],
        body: Body,
    ) -> Result<Request<Body>, ClientError> {
        let mut builder = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            builder = builder.header(name, HeaderValue::from_str(value).map_err(protocol)?);
        }
        builder.body(body).map_err(protocol)
    }

    async fn expect(
        &self,
        request: Request<Body>,
        status: StatusCode,
        what: &str,
    ) -> Result<Response<Body>, ClientError> {
        let response = self
            .transport
            .send(request)
            .await
            .map_err(ClientError::Transport)?;
        if response.status() == status {
            return Ok(response);
        }
        let (parts, body) = response.into_parts();
        let bytes = collect(body, MAX_ERROR, what).await.unwrap_or_default();
        let message = error_message(&bytes);
        let what = what.to_owned();
        Err(match parts.status {
            StatusCode::NOT_FOUND => ClientError::NotFound(what),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                ClientError::Denied { what, message }
            }
            status => ClientError::Status {
                what,
                status,
                message,
            },
        })
    }
}

fn protocol(error: impl std::fmt::Display) -> ClientError {
    ClientError::Protocol(error.to_string())
}

fn empty() -> Body {
    full(Bytes::new())
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes)
        .map_err(|never| match never {})
        .boxed_unsync()
}

async fn collect(body: Body, limit: usize, what: &str) -> Result<Bytes, ClientError> {
    let mut chunks = body.into_data_stream();
    let mut collected = BytesMut::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(ClientError::Transport)?;
        if collected.len() + chunk.len() > limit {
            return Err(ClientError::Protocol(format!(
                "{what}: larger than {limit} bytes"
            )));
        }
        collected.extend_from_slice(&chunk);
    }
    Ok(collected.freeze())
}

fn header_text(headers: &HeaderMap, name: &header::HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// A registry may answer with an absolute location; the transport knows the host already.
fn path_of(location: &str) -> &str {
    match location.split_once("://") {
        Some((_, rest)) => rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/"),
        None => location,
    }
}

/// The messages of a distribution error, or a Kubernetes `Status`, or the text itself.
fn error_message(bytes: &[u8]) -> String {
    let parsed: Option<serde_json::Value> = serde_json::from_slice(bytes).ok();
    let messages = parsed.as_ref().and_then(|value| {
        let errors = value.get("errors")?.as_array()?;
        let texts = errors
            .iter()
            .filter_map(|error| error.get("message")?.as_str());
        Some(texts.collect::<Vec<_>>().join("; "))
    });
    let status = || parsed.as_ref()?.get("message")?.as_str().map(str::to_owned);
    messages
        .or_else(status)
        .unwrap_or_else(|| String::from_utf8_lossy(bytes).into_owned())
}

/// A transport that calls an axum router in this process; for tests and all-in-one programs.
pub struct RouterTransport(axum::Router);

impl RouterTransport {
    /// Sends to this router.
    #[must_use]
    pub const fn new(router: axum::Router) -> Self {
        Self(router)
    }
}

#[async_trait]
impl Transport for RouterTransport {
    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let request = request.map(axum::body::Body::new);
        let response = tower::ServiceExt::oneshot(self.0.clone(), request).await?;
        Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_reduced_to_their_path() {
        assert_eq!(path_of("/v2/a/b?x=1"), "/v2/a/b?x=1");
        assert_eq!(path_of("https://host:1/v2/a"), "/v2/a");
        assert_eq!(path_of("https://host"), "/");
    }

    #[test]
    fn error_bodies_become_their_message() {
        assert_eq!(
            error_message(br#"{"errors":[{"message":"a"},{"message":"b"}]}"#),
            "a; b"
        );
        assert_eq!(
            error_message(br#"{"kind":"Status","message":"forbidden"}"#),
            "forbidden"
        );
        assert_eq!(error_message(b"plain"), "plain");
    }
}
