//! The API server: bytes to objects and back. It knows verbs, not kinds.
//!
//! A request passes, in this order, and each step says why it stands there:
//!
//! 1. *panic isolation*: a fault in one request answers 500 and harms no other;
//! 2. *request info*: path, method and query in the API's terms, which all further steps read;
//! 3. *authentication*: before anything is spent on strangers;
//! 4. *limit*: a bound on requests in flight, by which an overloaded server says 429 instead of falling
//!    over; what lasts by nature is exempt;
//! 5. *authorization*: before the body is read;
//! 6. *dispatch*: health, discovery, OpenAPI, the image registry, or a verb on a resource, with a time
//!    limit unless the request lasts by nature.
//!
//! [`ApiServer`] is a tower service. Components of this process call it directly, with their identity as
//! an extension of the request (`in_process.rs`); everybody else comes through `listener.rs`.

pub mod authn;
pub mod authz;
pub mod codec;
pub mod connect;
mod discovery;
mod health;
pub mod in_process;
pub mod listener;
pub mod negotiation;
pub mod openapi;
pub mod request_info;
pub mod status;
mod verbs;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use futures::FutureExt;
use http::{HeaderMap, Method, Request, Uri};
use hyper::upgrade::OnUpgrade;
use tokio::sync::Semaphore;
use tower::ServiceExt;
use tracing::Instrument;

use crate::identity::UserInfo;
use crate::registry::Registry;
use crate::registry::error::ApiError;
use crate::store::Freshness;
use authn::{Authenticator, PeerCertificate};
use connect::NodeConnector;
use health::Health;
use openapi::OpenApi;
use request_info::{Query, RequestInfo};

/// Requests in flight at once, those that last by nature not counted.
const MAX_IN_FLIGHT: usize = 400;
/// How long a request may take that does not last by nature.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// What every request needs.
pub struct ApiServer {
    registry: Arc<Registry>,
    authenticator: Authenticator,
    tokens: Arc<crate::pki::service_account::Tokens>,
    openapi: OpenApi,
    nodes: NodeConnector,
    images: Option<axum::Router>,
    health: Health,
    in_flight: Semaphore,
}

/// What the server is built from.
pub struct Parts {
    /// Objects.
    pub registry: Arc<Registry>,
    /// ServiceAccount tokens.
    pub tokens: Arc<crate::pki::service_account::Tokens>,
    /// The way to node agents.
    pub nodes: NodeConnector,
    /// The image registry, served under `/v2/`, if there is one.
    pub images: Option<axum::Router>,
}

/// A request as verbs see it.
pub struct Context {
    /// Its method.
    pub method: Method,
    /// Its path and query, as they came.
    pub uri: Uri,
    /// What it asks for.
    pub info: RequestInfo,
    /// Its query.
    pub query: Query,
    /// Its headers.
    pub headers: HeaderMap,
    /// Who asks.
    pub user: UserInfo,
    /// The connection, for requests that ask to speak another protocol on it.
    pub upgrade: Option<OnUpgrade>,
}

impl ApiServer {
    /// A server over `parts`.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        let resources: Vec<_> = parts
            .registry
            .served()
            .iter()
            .map(|served| served.kind.info.clone())
            .collect();
        Arc::new(Self {
            authenticator: Authenticator::new(Arc::clone(&parts.tokens)),
            tokens: parts.tokens,
            openapi: OpenApi::new(resources, crate::VERSION.to_owned()),
            registry: parts.registry,
            nodes: parts.nodes,
            images: parts.images,
            health: Health::default(),
            in_flight: Semaphore::new(MAX_IN_FLIGHT),
        })
    }

    /// The objects behind the server.
    #[must_use]
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// The way to node agents.
    #[must_use]
    pub fn nodes(&self) -> &NodeConnector {
        &self.nodes
    }

    /// Says that everything the cluster needs at its start is there: `/readyz` answers ok from now on.
    pub fn set_ready(&self) {
        self.health.set_ready();
    }

    /// Answers a request. Never fails: an error is a response.
    pub async fn respond(self: Arc<Self>, request: Request<Body>) -> Response {
        let query = Query::of(request.uri());
        let info = RequestInfo::of(request.method(), request.uri(), &query);
        let span = tracing::debug_span!("request", verb = info.verb, path = %info.path);
        let answer = std::panic::AssertUnwindSafe(self.serve(request, info, query));
        match answer.catch_unwind().instrument(span).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => status::response(&error),
            Err(_) => {
                let error = ApiError::Internal("this request caused a panic".into());
                status::response(&error)
            }
        }
    }

    async fn serve(
        &self,
        request: Request<Body>,
        info: RequestInfo,
        query: Query,
    ) -> Result<Response, ApiError> {
        let (mut parts, body) = request.into_parts();
        let user = self.user_of(&parts).await?;
        let lasts = lasts(&info);
        let _permit = if lasts { None } else { Some(self.enter()?) };
        if info.path == "/v2" || info.path.starts_with("/v2/") {
            return self
                .serve_images(Request::from_parts(parts, body), user)
                .await;
        }
        let snapshot = self.registry.store().snapshot(Freshness::Latest).await?;
        authz::authorize(&user, &info, &snapshot, query.get("fieldSelector"))?;
        drop(snapshot);
        authn::forget_credentials(&mut parts.headers);
        let context = Context {
            method: parts.method,
            uri: parts.uri,
            info,
            query,
            headers: parts.headers,
            user,
            upgrade: parts.extensions.remove::<OnUpgrade>(),
        };
        let answer = self.dispatch(context, body);
        if lasts {
            return answer.await;
        }
        let limited = tokio::time::timeout(TIME_LIMIT, answer).await;
        limited.unwrap_or_else(|_| {
            Err(ApiError::Timeout(
                "request did not complete within the allotted timeout".into(),
            ))
        })
    }

    async fn user_of(&self, request: &http::request::Parts) -> Result<UserInfo, ApiError> {
        if let Some(own) = request.extensions.get::<in_process::Identity>() {
            return Ok(own.user().clone());
        }
        let certificate = request.extensions.get::<PeerCertificate>();
        let store = self.registry.store();
        self.authenticator
            .authenticate(certificate, &request.headers, &**store)
            .await
    }

    fn enter(&self) -> Result<tokio::sync::SemaphorePermit<'_>, ApiError> {
        self.in_flight.try_acquire().map_err(|_| {
            ApiError::TooManyRequests("too many requests, please try again later".into())
        })
    }

    async fn serve_images(
        &self,
        mut request: Request<Body>,
        user: UserInfo,
    ) -> Result<Response, ApiError> {
        let images = self.images.clone().ok_or(ApiError::NoSuchPath)?;
        request.extensions_mut().insert(user);
        match images.oneshot(request).await {
            Ok(response) => Ok(response),
            Err(never) => match never {},
        }
    }

    async fn dispatch(&self, context: Context, body: Body) -> Result<Response, ApiError> {
        if context.info.is_resource {
            return verbs::dispatch(self, &context, body).await;
        }
        if !matches!(context.method, Method::GET | Method::HEAD) {
            return Err(ApiError::NoSuchPath);
        }
        let path = context.info.path.trim_end_matches('/');
        if let Some(response) = self.health.respond(path, &context) {
            return Ok(response);
        }
        if path.starts_with("/openapi/") {
            return discovery::openapi(self, path, &context);
        }
        discovery::respond(self, path, &context)
    }
}

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiServer").finish_non_exhaustive()
    }
}

/// Subresources whose requests last by nature.
const LASTING: [&str; 5] = ["attach", "exec", "log", "portforward", "proxy"];

/// Whether a request lasts by nature.
fn lasts(info: &RequestInfo) -> bool {
    info.verb == "watch"
        || LASTING.contains(&info.subresource.as_str())
        || info.path.starts_with("/v2/")
}
