//! The embedded registry: the distribution API over a content store, as an axum router.
//!
//! 1. The path is split into repository and action by [`Action::parse`], since repository names hold
//!    slashes.
//! 2. The caller's [`Authorize`] hook decides by repository and access; it sees the request's
//!    extensions, where the caller left the identity.
//! 3. Blobs are linked to the repository they were pushed to: who may read one repository learns nothing
//!    of another's content by guessing digests.
//! 4. A manifest is stored once every blob it names is linked to its repository, so a tag never points at
//!    an image that can't be pulled.
//!
//! Invariant: bytes are verified against their digest before anything points at them.

use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use futures::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde_json::json;
use tokio_util::io::ReaderStream;

use super::error::{RegistryError, json_body};
use super::upload::{Upload, Uploads};
use crate::content_store::{BlobWriter, ContentStore};
use crate::digest::{Algorithm, Digest};
use crate::manifest::{Descriptor, Manifest};
use crate::reference::{is_repository, is_tag};

const DIGEST_HEADER: HeaderName = HeaderName::from_static("docker-content-digest");
const UPLOAD_HEADER: HeaderName = HeaderName::from_static("docker-upload-uuid");
const VERSION_HEADER: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const MAX_TAGS: usize = 1000;

/// What a request wants of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read blobs, manifests and tags.
    Pull,
    /// Write them.
    Push,
}

/// Why a request may not do what it wants.
#[derive(Clone, Debug)]
pub enum Denied {
    /// Nobody is logged in (401).
    Unauthenticated,
    /// Somebody is, who may not (403); the text says so.
    Forbidden(String),
}

/// Decides who may do what; given by the program that serves the registry.
#[async_trait]
pub trait Authorize: Send + Sync + 'static {
    /// Decides on a request by its extensions.
    ///
    /// # Errors
    /// The request may not go on.
    async fn authorize(
        &self,
        extensions: &http::Extensions,
        repository: &str,
        access: Access,
    ) -> Result<(), Denied>;
}

/// Bounds of what the registry takes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest blob in bytes.
    pub blob: u64,
    /// Largest manifest in bytes.
    pub manifest: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            blob: 512 << 20,
            manifest: 4 << 20,
        }
    }
}

/// The registry's routes, to be merged into a server: everything is below `/v2/`.
pub fn router(store: ContentStore, authorize: Arc<dyn Authorize>, limits: Limits) -> Router {
    let registry = Arc::new(Registry {
        store,
        authorize,
        limits,
        uploads: Uploads::default(),
    });
    Router::new()
        .route("/v2", any(serve))
        .route("/v2/", any(serve))
        .route("/v2/{*path}", any(serve))
        .with_state(registry)
}

struct Registry {
    store: ContentStore,
    authorize: Arc<dyn Authorize>,
    limits: Limits,
    uploads: Uploads,
}

async fn serve(State(registry): State<Arc<Registry>>, request: Request) -> Response {
    let mut response = match registry.answer(request).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    };
    response
        .headers_mut()
        .insert(VERSION_HEADER, HeaderValue::from_static("registry/2.0"));
    response
}

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
enum Action<'a> {
    Version,
    Manifest {
        repository: &'a str,
        reference: &'a str,
    },
    Blob {
        repository: &'a str,
        digest: &'a str,
    },
    NewUpload {
        repository: &'a str,
    },
    Upload {
        repository: &'a str,
        id: &'a str,
    },
    Tags {
        repository: &'a str,
    },
}

impl<'a> Action<'a> {
    fn parse(path: &'a str) -> Option<Self> {
        let path = path.strip_prefix("/v2")?;
        let path = path.strip_prefix('/').unwrap_or(path);
        if path.is_empty() {
            return Some(Self::Version);
        }
        if let Some(repository) = path.strip_suffix("/tags/list") {
            return Some(Self::Tags { repository });
        }
        let upload = path.strip_suffix('/').unwrap_or(path);
        if let Some(repository) = upload.strip_suffix("/blobs/uploads") {
            return Some(Self::NewUpload { repository });
        }
        let (rest, last) = path.rsplit_once('/')?;
        if let Some(repository) = rest.strip_suffix("/blobs/uploads") {
            Some(Self::Upload {
                repository,
                id: last,
            })
        } else if let Some(repository) = rest.strip_suffix("/blobs") {
            Some(Self::Blob {
                repository,
                digest: last,
            })
        } else {
            let repository = rest.strip_suffix("/manifests")?;
            Some(Self::Manifest {
                repository,
                reference: last,
            })
        }
    }

    fn repository(&self) -> Option<&'a str> {
        match self {
            Self::Version => None,
            Self::Manifest { repository, .. }
            | Self::Blob { repository, .. }
            | Self::NewUpload { repository }
            | Self::Upload { repository, .. }
            | Self::Tags { repository } => Some(repository),
        }
    }
}

impl Registry {
    async fn answer(&self, request: Request) -> Result<Response, RegistryError> {
        let path = request.uri().path().to_owned();
        let action = Action::parse(&path).ok_or(RegistryError::NotFound)?;
        let method = request.method().clone();
        if let Some(repository) = action.repository() {
            check_repository(repository)?;
            let reading = method == Method::GET || method == Method::HEAD;
            let uploading = matches!(action, Action::Upload { .. } | Action::NewUpload { .. });
            let access = if reading && !uploading {
                Access::Pull
            } else {
                Access::Push
            };
            self.authorize
                .authorize(request.extensions(), repository, access)
                .await?;
        }
        match action {
            Action::Version => Ok(json_body(&json!({}))),
            Action::Manifest {
                repository,
                reference,
            } => match method {
                Method::GET | Method::HEAD => {
                    self.get_manifest(repository, reference, &method).await
                }
                Method::PUT => self.put_manifest(repository, reference, request).await,
                Method::DELETE => self.delete_manifest(repository, reference).await,
                _ => Err(RegistryError::Unsupported),
            },
            Action::Blob { repository, digest } => match method {
                Method::GET | Method::HEAD => self.get_blob(repository, digest, &method).await,
                _ => Err(RegistryError::Unsupported),
            },
            Action::NewUpload { repository } if method == Method::POST => {
                self.begin_upload(repository, request).await
            }
            Action::Upload { repository, id } => {
                self.continue_upload(repository, id, request).await
            }
            Action::Tags { repository } if method == Method::GET => {
                self.list_tags(repository, request.uri().query()).await
            }
            _ => Err(RegistryError::Unsupported),
        }
    }

    // Manifests

    async fn find_manifest(
        &self,
        repository: &str,
        reference: &str,
    ) -> Result<Descriptor, RegistryError> {
        let found = if reference.contains(':') {
            let digest: Digest = reference
                .parse()
                .map_err(|_| RegistryError::DigestInvalid)?;
            self.link(repository, Link::Manifest, &digest).await?
        } else {
            self.store.get_ref(&tags_of(repository), reference).await?
        };
        found.ok_or_else(|| RegistryError::ManifestUnknown(format!("{repository}:{reference}")))
    }

    async fn get_manifest(
        &self,
        repository: &str,
        reference: &str,
        method: &Method,
    ) -> Result<Response, RegistryError> {
        let descriptor = self.find_manifest(repository, reference).await?;
        let headers = content_headers(&descriptor)?;
        let body = if method == Method::HEAD {
            Body::empty()
        } else {
            self.store
                .read(&descriptor.digest, self.limits.manifest)
                .await?
                .into()
        };
        Ok((headers, body).into_response())
    }

    async fn put_manifest(
        &self,
        repository: &str,
        reference: &str,
        request: Request,
    ) -> Result<Response, RegistryError> {
        let content_type = header_text(request.headers(), &header::CONTENT_TYPE);
        let limit = usize::try_from(self.limits.manifest).unwrap_or(usize::MAX);
        let bytes = axum::body::to_bytes(request.into_body(), limit)
            .await
            .map_err(|_| RegistryError::TooLarge(self.limits.manifest))?;
        let manifest = Manifest::parse(&bytes, content_type.as_deref())
            .map_err(|error| RegistryError::ManifestInvalid(error.to_string()))?;
        self.check_children(repository, &manifest).await?;
        let digest = check_manifest_digest(reference, &bytes)?;
        self.store_manifest(&bytes, &digest).await?;
        let descriptor = Descriptor::new(manifest.media_type(), digest, bytes.len() as u64);
        self.store
            .set_ref(
                &Link::Manifest.name(repository),
                &leaf(&descriptor.digest),
                &descriptor,
            )
            .await?;
        if !reference.contains(':') {
            if !is_tag(reference) {
                return Err(RegistryError::ManifestInvalid(format!(
                    "invalid tag {reference:?}"
                )));
            }
            self.store
                .set_ref(&tags_of(repository), reference, &descriptor)
                .await?;
        }
        created(
            &format!("/v2/{repository}/manifests/{}", descriptor.digest),
            &descriptor.digest,
        )
    }

    async fn store_manifest(&self, bytes: &[u8], digest: &Digest) -> Result<(), RegistryError> {
        let mut writer = self
            .store
            .writer(digest.algorithm(), self.limits.manifest)
            .await?;
        writer.write(bytes).await?;
        writer.commit(Some(digest)).await?;
        Ok(())
    }

    async fn check_children(
        &self,
        repository: &str,
        manifest: &Manifest,
    ) -> Result<(), RegistryError> {
        let kind = match manifest {
            Manifest::Image(_) => Link::Blob,
            Manifest::Index(_) => Link::Manifest,
        };
        for child in manifest.children() {
            if self.link(repository, kind, &child.digest).await?.is_none() {
                return Err(RegistryError::ManifestBlobUnknown(child.digest.clone()));
            }
        }
        Ok(())
    }

    async fn delete_manifest(
        &self,
        repository: &str,
        reference: &str,
    ) -> Result<Response, RegistryError> {
        let descriptor = self.find_manifest(repository, reference).await?;
        if !reference.contains(':') {
            self.store
                .remove_ref(&tags_of(repository), reference)
                .await?;
            return Ok(StatusCode::ACCEPTED.into_response());
        }
        for tag in self.store.list_refs(&tags_of(repository)).await? {
            let target = self.store.get_ref(&tags_of(repository), &tag).await?;
            if target.is_some_and(|target| target.digest == descriptor.digest) {
                self.store.remove_ref(&tags_of(repository), &tag).await?;
            }
        }
        self.store
            .remove_ref(&Link::Manifest.name(repository), &leaf(&descriptor.digest))
            .await?;
        Ok(StatusCode::ACCEPTED.into_response())
    }

    async fn list_tags(
        &self,
        repository: &str,
        query: Option<&str>,
    ) -> Result<Response, RegistryError> {
        let mut tags = self.store.list_refs(&tags_of(repository)).await?;
        if tags.is_empty() {
            return Err(RegistryError::NameUnknown(repository.to_owned()));
        }
        if let Some(last) = query_value(query, "last") {
            tags.retain(|tag| *tag > last);
        }
        let limit = query_value(query, "n")
            .and_then(|text| text.parse().ok())
            .unwrap_or(MAX_TAGS);
        let more = tags.len() > limit;
        tags.truncate(limit.min(MAX_TAGS));
        let next = tags.last().filter(|_| more).map(|last| {
            format!("</v2/{repository}/tags/list?n={limit}&last={last}>; rel=\"next\"")
        });
        let mut response = json_body(&json!({ "name": repository, "tags": tags }));
        if let Some(next) = next {
            response
                .headers_mut()
                .insert(header::LINK, header_value(&next)?);
        }
        Ok(response)
    }

    // Blobs

    async fn link(
        &self,
        repository: &str,
        kind: Link,
        digest: &Digest,
    ) -> Result<Option<Descriptor>, RegistryError> {
        Ok(self
            .store
            .get_ref(&kind.name(repository), &leaf(digest))
            .await?)
    }

    async fn get_blob(
        &self,
        repository: &str,
        digest: &str,
        method: &Method,
    ) -> Result<Response, RegistryError> {
        let digest: Digest = digest.parse().map_err(|_| RegistryError::DigestInvalid)?;
        let descriptor = self
            .link(repository, Link::Blob, &digest)
            .await?
            .ok_or_else(|| RegistryError::BlobUnknown(digest.clone()))?;
        let headers = content_headers(&descriptor)?;
        let body = if method == Method::HEAD {
            Body::empty()
        } else {
            let file = self.store.open_blob(&digest).await?;
            Body::from_stream(ReaderStream::with_capacity(file, 64 << 10))
        };
        Ok((headers, body).into_response())
    }

    async fn begin_upload(
        &self,
        repository: &str,
        request: Request,
    ) -> Result<Response, RegistryError> {
        let digest = query_value(request.uri().query(), "digest");
        // A cross-repository mount is answered with an ordinary upload, as the specification allows.
        let writer = self
            .store
            .writer(algorithm_of(digest.as_deref())?, self.limits.blob)
            .await?;
        match digest {
            Some(digest) => {
                self.finish_upload(repository, writer, &digest, request)
                    .await
            }
            None => self.keep_upload(repository, None, writer, StatusCode::ACCEPTED),
        }
    }

    async fn continue_upload(
        &self,
        repository: &str,
        id: &str,
        request: Request,
    ) -> Result<Response, RegistryError> {
        let upload = self
            .uploads
            .take(repository, id)
            .ok_or(RegistryError::UploadUnknown)?;
        let mut writer = upload.writer;
        match *request.method() {
            Method::GET => self.keep_upload(repository, Some(id), writer, StatusCode::NO_CONTENT),
            Method::DELETE => Ok(StatusCode::NO_CONTENT.into_response()),
            Method::PUT => {
                let digest = query_value(request.uri().query(), "digest")
                    .ok_or(RegistryError::DigestInvalid)?;
                self.finish_upload(repository, writer, &digest, request)
                    .await
            }
            Method::PATCH => {
                if !starts_at(request.headers(), writer.len()) {
                    let held = self.keep_upload(
                        repository,
                        Some(id),
                        writer,
                        StatusCode::RANGE_NOT_SATISFIABLE,
                    )?;
                    return Ok(held);
                }
                receive(&mut writer, request.into_body()).await?;
                self.keep_upload(repository, Some(id), writer, StatusCode::ACCEPTED)
            }
            _ => Err(RegistryError::Unsupported),
        }
    }

    fn keep_upload(
        &self,
        repository: &str,
        id: Option<&str>,
        writer: BlobWriter,
        status: StatusCode,
    ) -> Result<Response, RegistryError> {
        let id = id.map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned);
        let range = format!("0-{}", writer.len().saturating_sub(1));
        let upload = Upload {
            repository: repository.to_owned(),
            writer,
        };
        if !self.uploads.keep(id.clone(), upload) {
            return Err(RegistryError::TooManyUploads);
        }
        let headers = [
            (
                header::LOCATION,
                header_value(&format!("/v2/{repository}/blobs/uploads/{id}"))?,
            ),
            (header::RANGE, header_value(&range)?),
            (UPLOAD_HEADER, header_value(&id)?),
        ];
        Ok((status, headers).into_response())
    }

    async fn finish_upload(
        &self,
        repository: &str,
        mut writer: BlobWriter,
        digest: &str,
        request: Request,
    ) -> Result<Response, RegistryError> {
        let digest: Digest = digest.parse().map_err(|_| RegistryError::DigestInvalid)?;
        receive(&mut writer, request.into_body()).await?;
        let size = writer.len();
        writer.commit(Some(&digest)).await?;
        let descriptor = Descriptor::new("application/octet-stream", digest, size);
        let digest = &descriptor.digest;
        self.store
            .set_ref(&Link::Blob.name(repository), &leaf(digest), &descriptor)
            .await?;
        created(&format!("/v2/{repository}/blobs/{digest}"), digest)
    }
}

/// What a repository holds besides tags.
#[derive(Clone, Copy)]
enum Link {
    Blob,
    Manifest,
}

impl Link {
    fn name(self, repository: &str) -> String {
        match self {
            Self::Blob => format!("blobs/{repository}"),
            Self::Manifest => format!("manifests/{repository}"),
        }
    }
}

fn tags_of(repository: &str) -> String {
    format!("tags/{repository}")
}

fn leaf(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm().as_str(), digest.hex())
}

/// Repositories are `NAMESPACE/NAME`, so that every one belongs to a namespace.
fn check_repository(repository: &str) -> Result<(), RegistryError> {
    if is_repository(repository) && repository.contains('/') {
        Ok(())
    } else {
        Err(RegistryError::NameInvalid(repository.to_owned()))
    }
}

fn check_manifest_digest(reference: &str, bytes: &[u8]) -> Result<Digest, RegistryError> {
    if !reference.contains(':') {
        return Ok(Digest::sha256(bytes));
    }
    let digest: Digest = reference
        .parse()
        .map_err(|_| RegistryError::DigestInvalid)?;
    if digest.matches(bytes) {
        Ok(digest)
    } else {
        Err(RegistryError::DigestInvalid)
    }
}

// A session begun without a digest is hashed as sha256, the only algorithm clients upload with.
fn algorithm_of(digest: Option<&str>) -> Result<Algorithm, RegistryError> {
    match digest {
        None => Ok(Algorithm::Sha256),
        Some(text) => text
            .parse::<Digest>()
            .map(|d| d.algorithm())
            .map_err(|_| RegistryError::DigestInvalid),
    }
}

async fn receive(writer: &mut BlobWriter, body: Body) -> Result<(), RegistryError> {
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| RegistryError::BodyInterrupted)?;
        writer.write(&chunk).await?;
    }
    Ok(())
}

fn starts_at(headers: &HeaderMap, length: u64) -> bool {
    match header_text(headers, &header::CONTENT_RANGE) {
        None => true,
        Some(range) => {
            let start = range
                .split_once('-')
                .and_then(|(start, _)| start.parse::<u64>().ok());
            start == Some(length)
        }
    }
}

fn header_text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

fn header_value(text: &str) -> Result<HeaderValue, RegistryError> {
    HeaderValue::from_str(text).map_err(|_| RegistryError::NotFound)
}

fn content_headers(
    descriptor: &Descriptor,
) -> Result<[(HeaderName, HeaderValue); 3], RegistryError> {
    Ok([
        (header::CONTENT_TYPE, header_value(&descriptor.media_type)?),
        (header::CONTENT_LENGTH, HeaderValue::from(descriptor.size)),
        (DIGEST_HEADER, header_value(&descriptor.digest.to_string())?),
    ])
}

fn created(location: &str, digest: &Digest) -> Result<Response, RegistryError> {
    let headers = [
        (header::LOCATION, header_value(location)?),
        (DIGEST_HEADER, header_value(&digest.to_string())?),
    ];
    Ok((StatusCode::CREATED, headers).into_response())
}

/// The value of a query parameter; digests and tags need only `%3A` decoded.
fn query_value(query: Option<&str>, name: &str) -> Option<String> {
    query?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key == name).then(|| value.replace("%3A", ":").replace("%3a", ":"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_split_at_the_action_not_at_slashes_of_the_name() {
        let cases = [
            ("/v2", Some(Action::Version)),
            ("/v2/", Some(Action::Version)),
            (
                "/v2/a/b/manifests/v1",
                Some(Action::Manifest {
                    repository: "a/b",
                    reference: "v1",
                }),
            ),
            (
                "/v2/a/b/c/blobs/d",
                Some(Action::Blob {
                    repository: "a/b/c",
                    digest: "d",
                }),
            ),
            (
                "/v2/a/b/blobs/uploads/",
                Some(Action::NewUpload { repository: "a/b" }),
            ),
            (
                "/v2/a/b/blobs/uploads",
                Some(Action::NewUpload { repository: "a/b" }),
            ),
            (
                "/v2/a/b/blobs/uploads/7",
                Some(Action::Upload {
                    repository: "a/b",
                    id: "7",
                }),
            ),
            (
                "/v2/a/b/tags/list",
                Some(Action::Tags { repository: "a/b" }),
            ),
            ("/v2/a", None),
            ("/v2/a/b/c", None),
        ];
        for (path, want) in cases {
            assert_eq!(Action::parse(path), want, "{path}");
        }
    }
}
