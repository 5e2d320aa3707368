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
//! ```text
//! blobs.rs      blobs and uploads; sessions.rs keeps uploads between requests
//! manifests.rs  manifests, tags, referrers
//! collect.rs    removes what no manifest needs
//!
//! refs/blobs/REPOSITORY/_/DIGEST               a blob of the repository
//! refs/manifests/REPOSITORY/_/DIGEST           a manifest of it
//! refs/tags/REPOSITORY/_/TAG                   a tag
//! refs/referrers/REPOSITORY/SUBJECT/_/DIGEST   a manifest that is about another
//! ```
//!
//! Invariant: bytes are verified against their digest before anything points at them.

mod action;
mod blobs;
mod collect;
mod error;
mod manifests;
mod sessions;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde_json::json;
use tokio::sync::RwLock;

use crate::content_store::ContentStore;
use crate::digest::Digest;
use crate::manifest::Descriptor;
use crate::reference::is_repository;
use action::Action;
pub use collect::CollectionPolicy;
pub use error::refusal;
use error::{RegistryError, json_body};
use sessions::Sessions;

const DIGEST_HEADER: HeaderName = HeaderName::from_static("docker-content-digest");
const UPLOAD_HEADER: HeaderName = HeaderName::from_static("docker-upload-uuid");
const VERSION_HEADER: HeaderName = HeaderName::from_static("docker-distribution-api-version");
/// Most tags or referrers of an answer.
const MAX_PAGE: usize = 1000;
/// An upload whose body pauses for so long is interrupted.
const BODY_SILENCE: Duration = Duration::from_secs(60);

/// What a request wants of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read blobs, manifests and tags.
    Pull,
    /// Write them.
    Push,
    /// Delete them.
    Delete,
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
    /// Decides on a request for the registry itself, by which clients find out whether they are known.
    ///
    /// # Errors
    /// The request may not go on.
    async fn enter(&self, _extensions: &http::Extensions) -> Result<(), Denied> {
        Ok(())
    }

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

/// The routes of a registry from which nothing is removed.
pub fn router(store: ContentStore, authorize: Arc<dyn Authorize>, limits: Limits) -> Router {
    ImageRegistry::new(store, authorize, limits, CollectionPolicy::default()).router()
}

/// A registry; cheap to clone.
#[derive(Clone)]
pub struct ImageRegistry(Arc<Registry>);

impl ImageRegistry {
    /// A registry over a content store of its own.
    #[must_use]
    pub fn new(
        store: ContentStore,
        authorize: Arc<dyn Authorize>,
        limits: Limits,
        policy: CollectionPolicy,
    ) -> Self {
        Self(Arc::new(Registry {
            store,
            authorize,
            limits,
            policy,
            sessions: Sessions::default(),
            gate: RwLock::default(),
        }))
    }

    /// Its routes, to be merged into a server: everything is below `/v2/`.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/v2", any(serve))
            .route("/v2/", any(serve))
            .route("/v2/{*path}", any(serve))
            .with_state(self.0.clone())
    }
}

struct Registry {
    store: ContentStore,
    authorize: Arc<dyn Authorize>,
    limits: Limits,
    policy: CollectionPolicy,
    sessions: Sessions,
    /// Shared by who makes a manifest or a link from what is there, held alone by who removes links.
    gate: RwLock<()>,
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

impl Registry {
    async fn answer(&self, request: Request) -> Result<Response, RegistryError> {
        let path = request.uri().path().to_owned();
        let action = Action::parse(&path).ok_or(RegistryError::NotFound)?;
        let method = request.method().clone();
        match action.repository() {
            None => self.authorize.enter(request.extensions()).await?,
            Some(repository) => {
                check_repository(repository)?;
                let access = access_of(&action, &method);
                let extensions = request.extensions();
                let allowed = self.authorize.authorize(extensions, repository, access);
                allowed.await?;
            }
        }
        let reads = method == Method::GET || method == Method::HEAD;
        match action {
            Action::Version if reads => Ok(json_body(&json!({}))),
            Action::Manifest {
                repository,
                reference,
            } => self.manifest(repository, reference, request).await,
            Action::Blob { repository, digest } => {
                self.blob(repository, digest, &method, request.headers())
                    .await
            }
            Action::NewUpload { repository } if method == Method::POST => {
                self.begin_upload(repository, request).await
            }
            Action::Upload { repository, id } => self.upload(repository, id, request).await,
            Action::Tags { repository } if reads => {
                self.tags(repository, request.uri().query()).await
            }
            Action::Referrers { repository, digest } if reads => {
                let query = request.uri().query();
                self.referrers(repository, digest, query).await
            }
            _ => Err(RegistryError::Unsupported),
        }
    }

    async fn link(
        &self,
        repository: &str,
        kind: Link,
        digest: &Digest,
    ) -> Result<Option<Descriptor>, RegistryError> {
        let name = kind.name(repository);
        Ok(self.store.get_ref(&name, &leaf(digest)).await?)
    }

    async fn set_link(
        &self,
        repository: &str,
        kind: Link,
        descriptor: &Descriptor,
    ) -> Result<(), RegistryError> {
        let (name, leaf) = (kind.name(repository), leaf(&descriptor.digest));
        Ok(self.store.set_ref(&name, &leaf, descriptor).await?)
    }
}

/// Whoever uploads may also look at the upload and give it up.
fn access_of(action: &Action<'_>, method: &Method) -> Access {
    let uploads = matches!(action, Action::Upload { .. } | Action::NewUpload { .. });
    match *method {
        _ if uploads => Access::Push,
        Method::GET | Method::HEAD => Access::Pull,
        Method::DELETE => Access::Delete,
        _ => Access::Push,
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
