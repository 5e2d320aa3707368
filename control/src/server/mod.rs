//! The API server: bytes to objects and back. It knows verbs, not kinds.
//!
//! A request passes, in this order, and each step says why it stands there:
//!
//! 1. *panic isolation*: a fault in one request answers 500 and harms no other;
//! 2. *request info*: path, method and query in the API's terms, which all further steps read;
//! 3. *authentication*: before anything is spent on strangers, who are bounded themselves (`peers.rs`); from here on it is known how much of the request is
//!    audited (`audit/`), and whoever may acts as somebody else (`authn/impersonation.rs`);
//! 4. *limit*: bounds on requests in flight (`limits.rs`), by which an overloaded server says 429 instead
//!    of falling over; watches and streams are exempt because they last;
//! 5. *authorization*: before the body is read;
//! 6. *dispatch*: health, discovery, OpenAPI, the image registry, or a verb on a resource, with a time
//!    limit unless the request lasts by nature.
//!
//! [`ApiServer`] is a tower service. Components of this process call it directly, with their identity as
//! an extension of the request (`in_process.rs`); everybody else comes through `listener.rs`.

pub mod audit;
pub mod authn;
pub mod authz;
pub mod codec;
mod compression;
pub mod connect;
pub mod dashboard;
mod discovery;
mod health;
pub mod in_process;
mod limits;
pub mod listener;
mod metrics;
pub mod negotiation;
pub mod openapi;
mod openid;
pub mod peers;
mod protobuf;
pub mod request_info;
pub mod status;
mod table;
pub mod tls;
mod verbs;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use futures::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use hyper::upgrade::OnUpgrade;
use tower::ServiceExt;
use tracing::Instrument;

use crate::identity::UserInfo;
use crate::images;
use crate::registry::Registry;
use crate::registry::error::ApiError;
use crate::store::{Freshness, Snapshot};
use audit::{Audit, Trail};
use authn::{Authenticator, PeerCertificate};
use authz::Grounds;
use connect::NodeConnector;
use health::Health;
use limits::{Class, Limits};
use listener::{PeerAddress, Responder};
use metrics::Metrics;
use openapi::OpenApi;
use peers::{PeerLimits, Peers};
use request_info::{Query, RequestInfo};

/// How long a request may take that does not last by nature.
const TIME_LIMIT: Duration = Duration::from_secs(60);
/// Names a request in answers and logs; a client may choose the name.
const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
/// Longest name of a request that a client may choose.
const MAX_AUDIT_ID: usize = 64;

/// What every request needs.
pub struct ApiServer {
    registry: Arc<Registry>,
    authenticator: Authenticator,
    tokens: Arc<crate::pki::service_account::Tokens>,
    openapi: OpenApi,
    nodes: NodeConnector,
    images: Option<axum::Router>,
    health: Health,
    limits: Limits,
    peers: Arc<Peers>,
    metrics: Arc<Metrics>,
    audit: Option<Arc<Audit>>,
}

/// What the server is built from.
pub struct Parts {
    /// Objects.
    pub registry: Arc<Registry>,
    /// Finds out who makes a request.
    pub authenticator: Authenticator,
    /// ServiceAccount tokens.
    pub tokens: Arc<crate::pki::service_account::Tokens>,
    /// The way to node agents.
    pub nodes: NodeConnector,
    /// The image registry, served under `/v2/`, if there is one.
    pub images: Option<axum::Router>,
    /// What is audited, if anything is.
    pub audit: Option<Audit>,
    /// What an address may cost.
    pub peers: PeerLimits,
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
    /// What is kept of the request.
    audit: Trail,
    /// The connection, for requests that ask to speak another protocol on it.
    pub upgrade: Option<OnUpgrade>,
}

impl ApiServer {
    /// A server over `parts`.
    ///
    /// # Errors
    /// When two metrics have one name; a bug.
    pub fn new(parts: Parts) -> Result<Arc<Self>, prometheus::Error> {
        let resources: Vec<_> = parts
            .registry
            .served()
            .iter()
            .map(|served| served.kind.info.clone())
            .collect();
        Ok(Arc::new(Self {
            authenticator: parts.authenticator,
            tokens: parts.tokens,
            openapi: OpenApi::new(resources, crate::VERSION.to_owned()),
            registry: parts.registry,
            nodes: parts.nodes,
            images: parts.images,
            health: Health::default(),
            limits: Limits::default(),
            peers: Peers::new(parts.peers),
            metrics: Arc::new(Metrics::new()?),
            audit: parts.audit.map(Arc::new),
        }))
    }

    /// The objects behind the server.
    #[must_use]
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Finds out who makes a request.
    #[must_use]
    pub fn authenticator(&self) -> &Authenticator {
        &self.authenticator
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

    /// Says that the server is about to stop: `/readyz` fails, so that no new clients are sent here.
    pub fn set_stopping(&self) {
        self.health.set_stopping();
    }

    /// Answers a request. Never fails: an error is a response.
    pub async fn respond(self: Arc<Self>, request: Request<Body>) -> Response {
        let query = Query::of(request.uri());
        let info = RequestInfo::of(request.method(), request.uri(), &query);
        let id = audit_id(request.headers());
        let span = tracing::debug_span!("request", verb = info.verb, path = %info.path, ?id);
        let served = self
            .registry
            .find(&info.group, &info.version, &info.resource);
        let lasts = lasts(&info);
        let running = self.metrics.begin(&info, served, lasts);
        let encoding = negotiation::status_encoding(request.headers());
        let (parts, body) = request.into_parts();
        let trail = self.audit.as_ref();
        let trail = trail.map(|audit| audit.trail(&id, &parts, &info));
        let trail = trail.unwrap_or_default();
        let for_images = images::serves(&info.path);
        let answer = self.serve(parts, body, info, query, trail.clone());
        let answer = std::panic::AssertUnwindSafe(answer);
        let mut response = match answer.catch_unwind().instrument(span).await {
            Ok(Ok(response)) => trail.end(response, None, lasts).await,
            Ok(Err(error)) => {
                trail.answered(|| Some(status::of(&error)));
                let in_their_form = for_images.then(|| images::refused(&error)).flatten();
                let response = in_their_form.unwrap_or_else(|| status::response(&error, encoding));
                trail.end(response, Some(&error), lasts).await
            }
            Err(_) => {
                let error = ApiError::Internal("this request caused a panic".into());
                trail.panicked(&error).await;
                status::response(&error, encoding)
            }
        };
        response.headers_mut().insert(AUDIT_ID, id);
        running.answered(response)
    }

    async fn serve(
        &self,
        mut parts: http::request::Parts,
        body: Body,
        info: RequestInfo,
        query: Query,
        audit: Trail,
    ) -> Result<Response, ApiError> {
        let user = self.user_of(&parts).await.inspect_err(|error| {
            if matches!(error, ApiError::Unauthorized) {
                audit.unknown(&info, &parts.headers);
            }
        })?;
        audit.begin(&user, &info).await?;
        let lasts = lasts(&info);
        let local = parts.extensions.get::<in_process::Identity>().is_some();
        let _permit = if lasts || local {
            None
        } else {
            self.limits.enter(&user, Class::of(info.verb))?
        };
        if images::serves(&info.path) {
            return self
                .serve_images(Request::from_parts(parts, body), user)
                .await;
        }
        let snapshot = self.registry.store().snapshot(Freshness::Latest).await?;
        let grounds = self.grounds(&snapshot).await?;
        let user = impersonated(user, &parts.headers, grounds, &audit)?;
        let allowed = authz::authorize(&user, &info, grounds, query.get("fieldSelector"));
        audit.decided(allowed.is_ok());
        allowed?;
        drop(snapshot);
        self.authenticator.forget_credentials(&mut parts.headers);
        let context = Context {
            method: parts.method,
            uri: parts.uri,
            info,
            query,
            headers: parts.headers,
            user,
            audit,
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

    /// What it is decided on who may do what.
    ///
    /// # Errors
    /// What the store says.
    pub async fn grounds<'a>(&'a self, snapshot: &'a Snapshot) -> Result<Grounds<'a>, ApiError> {
        let rbac = self.registry.rbac().await?;
        Ok(Grounds { snapshot, rbac })
    }

    async fn user_of(&self, request: &http::request::Parts) -> Result<UserInfo, ApiError> {
        if let Some(own) = request.extensions.get::<in_process::Identity>() {
            return Ok(own.user().clone());
        }
        let certificate = request.extensions.get::<PeerCertificate>();
        let address = request.extensions.get::<PeerAddress>();
        let address = address.map(|peer| peer.0.ip());
        let is_stranger = certificate.is_none();
        if address.is_some_and(|address| is_stranger && !self.peers.may_try(address)) {
            let text = "too many requests with wrong credentials, please try again later";
            return Err(ApiError::TooManyRequests(text.into()));
        }
        let store = self.registry.store();
        let path = request.uri.path();
        let user = self
            .authenticator
            .authenticate(certificate, path, &request.headers, &**store);
        let user = user.await;
        if let (Err(ApiError::Unauthorized), Some(address)) = (&user, address) {
            self.peers.failed(address);
        }
        user
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
        let store = self.registry.store().snapshot(Freshness::Latest).await;
        if let Some(response) = self.health.respond(path, &context, store.is_ok()) {
            return Ok(response);
        }
        if path == "/metrics" {
            return self.serve_metrics().await;
        }
        if let Some(response) = openid::respond(path, &self.tokens) {
            return Ok(response);
        }
        if path.starts_with("/openapi/") {
            return discovery::openapi(self, path, &context);
        }
        discovery::respond(self, path, &context)
    }

    async fn serve_metrics(&self) -> Result<Response, ApiError> {
        let snapshot = self.registry.store().snapshot(Freshness::Latest).await?;
        let mut text = self.metrics.text(&self.registry, &snapshot)?;
        if let Some(audit) = &self.audit {
            text.push_str(&audit.metrics());
        }
        let mut response = Response::new(Body::from(text));
        let plain = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
        Ok(response)
    }
}

impl Responder for ApiServer {
    fn peers(&self) -> &Arc<Peers> {
        &self.peers
    }

    async fn respond(self: Arc<Self>, request: Request<Body>) -> Response {
        Self::respond(self, request).await
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
        || images::serves(&info.path)
}

/// The name of a request: the client's, or a new one.
fn audit_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(AUDIT_ID);
    let given = given.filter(|id| !id.is_empty() && id.len() <= MAX_AUDIT_ID);
    given.cloned().unwrap_or_else(|| {
        let id = uuid::Uuid::new_v4().to_string();
        // Hexadecimal digits and hyphens are a header's value.
        HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("unknown"))
    })
}

/// Who the request acts as: the user behind it, or the one it asks to be, if it may.
fn impersonated(
    user: UserInfo,
    headers: &HeaderMap,
    grounds: Grounds<'_>,
    audit: &Trail,
) -> Result<UserInfo, ApiError> {
    let Some(asked) = authn::impersonation::asked(headers)? else {
        return Ok(user);
    };
    audit.impersonated(&asked.user);
    for check in &asked.checks {
        let allowed = authz::authorize(&user, check, grounds, "");
        allowed.inspect_err(|_| audit.decided(false))?;
    }
    tracing::debug!(user = user.name, becomes = asked.user.name, "impersonation");
    Ok(asked.user)
}
