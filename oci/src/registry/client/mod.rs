//! A client of the distribution API over whatever connection its caller has.
//!
//! Requests carry only a path (`/v2/...`): the transport adds host, TLS and credentials. An agent passes
//! its API connection, so that the cluster's registry needs no address, name or certificate of its own; for any other
//! registry there is `registry/remote`. What fails in a way that may pass is tried again (`retry.rs`); a blob goes on
//! where it ended.
//!
//! Invariant: every blob and every manifest asked for by digest is verified before it is handed on.

mod error;
mod retry;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};

use crate::content_store::{BlobWriter, ContentError, ContentStore};
use crate::digest::Digest;
use crate::manifest::Descriptor;
use crate::media_type;
pub use error::{ClientError, Refused};
pub use retry::Patience;
use retry::Tries;

/// Any error, boxed.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body as it comes from or goes to a transport.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

const MAX_MANIFEST: usize = 4 << 20;
const MAX_ERROR: usize = 64 << 10;
/// So many bytes of a blob are progress, after which failures are counted anew.
const PROGRESS: u64 = 64 << 10;

/// Sends requests to one registry; adds host, TLS and credentials.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Sends one request whose URI is a path and query, or a whole URL where the registry has named one.
    ///
    /// # Errors
    /// The registry was not reached.
    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, BoxError>;
}

/// A client of one registry; cheap to clone.
#[derive(Clone)]
pub struct RegistryClient {
    transport: Arc<dyn Transport>,
    name: Arc<str>,
    patience: Patience,
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
    /// A client over a transport to the registry of this name, which errors show.
    #[must_use]
    pub fn new(transport: Arc<dyn Transport>, name: &str) -> Self {
        Self {
            transport,
            name: name.into(),
            patience: Patience::default(),
        }
    }

    /// Has the client wait for so long, and try so often.
    #[must_use]
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
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
        self.trying(|| self.manifest_once(repository, reference))
            .await
    }

    /// Does it until it succeeds, or fails in a way that does not pass.
    async fn trying<T, F>(&self, once: impl Fn() -> F) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let mut tries = Tries::new(self.patience);
        loop {
            match once().await {
                Ok(done) => return Ok(done),
                Err(error) => tries.again(error).await?,
            }
        }
    }

    async fn manifest_once(
        &self,
        repository: &str,
        reference: &str,
    ) -> Result<ServedManifest, ClientError> {
        let expected: Option<Digest> = reference.parse().ok();
        let separator = if expected.is_some() { '@' } else { ':' };
        let what = format!("manifest {}/{repository}{separator}{reference}", self.name);
        let request = self.request(
            Method::GET,
            &format!("/v2/{repository}/manifests/{reference}"),
            &[(header::ACCEPT, media_type::ACCEPT_MANIFESTS)],
            empty(),
        )?;
        let response = self.expect(request, StatusCode::OK, &what).await?;
        let media_type = header_text(response.headers(), &header::CONTENT_TYPE);
        let bytes = collect(response.into_body(), MAX_MANIFEST, self.patience, &what).await?;
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

    /// Fetches a blob into a content store, verified while it streams, and answers how many bytes had to be fetched.
    ///
    /// It goes on where an earlier call for this digest ended, of this process or one before it. There must be one call
    /// per digest and store at a time.
    ///
    /// # Errors
    /// It is not there, is not of the size announced, or has another digest.
    pub async fn pull_blob(
        &self,
        repository: &str,
        descriptor: &Descriptor,
        store: &ContentStore,
    ) -> Result<u64, ClientError> {
        let digest = &descriptor.digest;
        let mut writer = store.resume(digest, descriptor.size).await?;
        let mut fetched = 0;
        if !writer.is_empty() && writer.len() == descriptor.size && writer.digest() != *digest {
            // What an earlier process left is not the beginning of this blob.
            writer.restart().await?;
        }
        let mut tries = Tries::new(self.patience);
        let mut progress = writer.len();
        while writer.len() < descriptor.size {
            let before = writer.len();
            let outcome = self.go_on(repository, descriptor, &mut writer).await;
            fetched += writer.len().saturating_sub(before);
            if let Err(error) = outcome {
                // The next try reads what this one wrote.
                writer.flush().await?;
                if writer.len() >= progress + PROGRESS {
                    progress = writer.len();
                    tries.begin_anew();
                }
                tries.again(error).await?;
            } else {
                break;
            }
        }
        writer.commit(Some(digest)).await?;
        Ok(fetched)
    }

    /// Fetches what the writer does not have yet.
    async fn go_on(
        &self,
        repository: &str,
        descriptor: &Descriptor,
        writer: &mut BlobWriter,
    ) -> Result<(), ClientError> {
        let digest = &descriptor.digest;
        let what = format!("blob {digest} of {}/{repository}", self.name);
        let path = format!("/v2/{repository}/blobs/{digest}");
        let start = writer.len();
        let range = format!("bytes={start}-");
        let headers = [(header::RANGE, range.as_str())];
        let headers = if start == 0 { &[] } else { headers.as_slice() };
        let request = self.request(Method::GET, &path, headers, empty())?;
        let response = self.send(request, self.patience.silence, &what).await?;
        let status = response.status();
        let goes_on =
            status == StatusCode::PARTIAL_CONTENT && range_start(response.headers()) == Some(start);
        if !goes_on && start > 0 {
            // The registry does not know ranges, or gave another one.
            writer.restart().await?;
            let is_of_range = [
                StatusCode::PARTIAL_CONTENT,
                StatusCode::RANGE_NOT_SATISFIABLE,
            ];
            if is_of_range.contains(&status) {
                return Err(truncated(what, 0, descriptor));
            }
        }
        if !goes_on && status != StatusCode::OK {
            return Err(self.refusal(response, &what).await);
        }
        let mut chunks = response.into_body().into_data_stream();
        let (expected, silence) = (descriptor.size, self.patience.silence);
        while let Some(chunk) = within(silence, &what, chunks.next()).await? {
            let chunk = chunk.map_err(unreached(&what))?;
            writer.write(&chunk).await.map_err(|error| match error {
                ContentError::TooLarge { .. } => ClientError::Protocol(format!(
                    "{what}: larger than the {expected} bytes its descriptor says"
                )),
                error => error.into(),
            })?;
        }
        if writer.len() < expected {
            return Err(truncated(what, writer.len(), descriptor));
        }
        Ok(())
    }

    /// Whether the repository has a blob.
    ///
    /// # Errors
    /// The registry did not say.
    pub async fn has_blob(&self, repository: &str, digest: &Digest) -> Result<bool, ClientError> {
        self.trying(|| self.has_blob_once(repository, digest)).await
    }

    async fn has_blob_once(&self, repository: &str, digest: &Digest) -> Result<bool, ClientError> {
        let what = format!("blob {digest} of {}/{repository}", self.name);
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
        self.trying(|| self.push_blob_once(repository, digest, bytes.clone()))
            .await
    }

    async fn push_blob_once(
        &self,
        repository: &str,
        digest: &Digest,
        bytes: Bytes,
    ) -> Result<(), ClientError> {
        let what = format!("push blob {digest} to {}/{repository}", self.name);
        let path = format!("/v2/{repository}/blobs/uploads/");
        let begin = self.request(Method::POST, &path, &[], empty())?;
        let response = self.expect(begin, StatusCode::ACCEPTED, &what).await?;
        let location = header_text(response.headers(), &header::LOCATION)
            .ok_or_else(|| ClientError::Protocol(format!("{what}: no Location")))?;
        let separator = if location.contains('?') { '&' } else { '?' };
        let request = self.request(
            Method::PUT,
            &format!("{location}{separator}digest={digest}"),
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
        self.trying(|| self.push_manifest_once(repository, reference, media_type, bytes.clone()))
            .await
    }

    async fn push_manifest_once(
        &self,
        repository: &str,
        reference: &str,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<(), ClientError> {
        let what = format!("push manifest {}/{repository}:{reference}", self.name);
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
        let is_small = http_body::Body::size_hint(request.body()).upper() == Some(0);
        let patience = self.patience;
        let patience = if is_small {
            patience.silence
        } else {
            patience.upload
        };
        let response = self.send(request, patience, what).await?;
        if response.status() == status {
            return Ok(response);
        }
        Err(self.refusal(response, what).await)
    }

    async fn send(
        &self,
        request: Request<Body>,
        patience: Duration,
        what: &str,
    ) -> Result<Response<Body>, ClientError> {
        let response = within(patience, what, self.transport.send(request)).await?;
        response.map_err(unreached(what))
    }

    async fn refusal(&self, response: Response<Body>, what: &str) -> ClientError {
        let (parts, body) = response.into_parts();
        // Its words are a courtesy; the status is enough.
        let body = collect(body, MAX_ERROR, self.patience, what).await;
        let body = body.unwrap_or_default();
        ClientError::of_answer(what, parts.status, &parts.headers, &body)
    }
}

fn truncated(what: String, received: u64, descriptor: &Descriptor) -> ClientError {
    ClientError::Truncated {
        what,
        received,
        expected: descriptor.size,
    }
}

async fn within<T>(
    patience: Duration,
    what: &str,
    future: impl Future<Output = T>,
) -> Result<T, ClientError> {
    let done = tokio::time::timeout(patience, future).await;
    done.map_err(|_| ClientError::Stalled {
        what: what.to_owned(),
        after: patience,
    })
}

fn unreached(what: &str) -> impl FnOnce(BoxError) -> ClientError {
    let what = what.to_owned();
    move |source| ClientError::Transport { what, source }
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

async fn collect(
    body: Body,
    limit: usize,
    patience: Patience,
    what: &str,
) -> Result<Bytes, ClientError> {
    let mut chunks = body.into_data_stream();
    let mut collected = BytesMut::new();
    while let Some(chunk) = within(patience.silence, what, chunks.next()).await? {
        let chunk = chunk.map_err(unreached(what))?;
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

/// Where the bytes of a 206 begin: `bytes 5-9/10`.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let text = header_text(headers, &header::CONTENT_RANGE)?;
    let range = text.strip_prefix("bytes ")?;
    range.split_once('-')?.0.trim().parse().ok()
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
