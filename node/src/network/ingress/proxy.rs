//! One request of a client: which backend, and its answer.
//!
//! | answer of our own | when |
//! |---|---|
//! | 400 | the request could be read in two ways, or its body broke off |
//! | 404 | no Ingress has a rule for it |
//! | 502 | no endpoint can be reached, or the one that was asked broke off |
//! | 503 | the Service is not there, has no such port or no endpoints |
//! | 504 | the endpoint did not begin to answer in time |
//!
//! Bodies go through as they come, both ways, trailers included. An endpoint that nothing was sent to is no reason for a
//! failure as long as there is another; nor is one that broke off before it answered, for requests without a body whose
//! method may be repeated.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Version, header, request};
use http_body_util::{Either, Full};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;

use super::backends::{Backends, SendError};
use super::body::ClientBody;
use super::certificates::Shown;
use super::headers::{self, Asked, BadRequest, Origin};
use super::rules::{Backend, Target};
use crate::network::HostNetwork;
use crate::network::follow::ObjectKey;
use crate::network::host::BackendPort;

/// How long the endpoints may take for the head of an answer.
const ANSWER: Duration = Duration::from_secs(60);

/// Endpoints that are tried for one request.
const MAX_TRIES: usize = 3;

/// The body of an answer: a backend's, or a line of our own.
pub(super) type Body = Either<Incoming, Full<Bytes>>;

/// Why a client gets an answer of our own.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    BadRequest(#[from] BadRequest),
    #[error("no Ingress has a rule for this host and path")]
    NoRule,
    #[error("the backend is no Service")]
    NoService,
    #[error("service {}/{} has no such port", .0.service.namespace, .0.service.name)]
    NoPort(Backend),
    #[error("service {}/{} has no endpoints", .0.service.namespace, .0.service.name)]
    NoEndpoints(Backend),
    #[error("no answer from service {}/{} in time", .0.service.namespace, .0.service.name)]
    Late(Backend),
    #[error("no endpoint of service {}/{} can be reached", .0.namespace, .0.name)]
    Unreachable(ObjectKey),
    #[error("an endpoint of service {}/{} changes to a protocol that nobody asked for", .0.namespace, .0.name)]
    Unasked(ObjectKey),
    #[error("the client's body broke off")]
    Body(#[source] hyper::Error),
    #[error("endpoint {0} broke off")]
    Broken(SocketAddr, #[source] hyper::Error),
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) | Self::Body(_) => StatusCode::BAD_REQUEST,
            Self::NoRule => StatusCode::NOT_FOUND,
            Self::NoService | Self::NoPort(_) | Self::NoEndpoints(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Late(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Unreachable(_) | Self::Broken(..) | Self::Unasked(_) => StatusCode::BAD_GATEWAY,
        }
    }

    /// What a client is told: nothing about names and addresses within the cluster.
    fn text(&self) -> String {
        match self {
            Self::BadRequest(why) => why.to_string(),
            Self::NoRule | Self::Body(_) => self.to_string(),
            Self::NoService | Self::NoPort(_) => "the backend is not there".to_owned(),
            Self::NoEndpoints(_) => "the backend has nothing ready".to_owned(),
            Self::Late(_) => "the backend did not answer in time".to_owned(),
            Self::Unreachable(_) => "the backend cannot be reached".to_owned(),
            Self::Broken(..) | Self::Unasked(_) => "the backend broke off".to_owned(),
        }
    }

    fn answer(&self) -> Response<Body> {
        let status = self.status();
        let text = format!("{}: {}\n", status.as_u16(), self.text());
        let mut response = Response::new(Either::Right(Full::new(text.into())));
        *response.status_mut() = status;
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
        response
    }
}

/// Answers requests by the rules of the moment. Cheap to clone.
#[derive(Clone)]
pub(super) struct Proxy {
    shown: Arc<ArcSwap<Shown>>,
    host: HostNetwork,
    backends: Backends<ClientBody>,
}

impl Proxy {
    pub(super) fn new(host: HostNetwork, shown: Arc<ArcSwap<Shown>>) -> Self {
        Self {
            shown,
            backends: Backends::new(host.clone()),
            host,
        }
    }

    /// Answers one request; never fails.
    pub(super) async fn answer(
        self,
        origin: Origin,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        let (begin, mut service) = (Instant::now(), None);
        let response = match self.pass(origin, request, &mut service).await {
            Ok(response) => response.map(Either::Left),
            Err(refusal) => {
                tracing::debug!(client = %origin.client, %refusal, "a request is not passed on");
                refusal.answer()
            }
        };
        let status = response.status().as_u16();
        self.host
            .count_request(service.as_ref(), status, begin.elapsed());
        Ok(response)
    }

    /// Passes a request on; `service_of_rule` becomes where its rule leads.
    async fn pass(
        &self,
        origin: Origin,
        mut request: Request<Incoming>,
        service_of_rule: &mut Option<ObjectKey>,
    ) -> Result<Response<Incoming>, Refusal> {
        let client = request.extensions_mut().remove::<OnUpgrade>();
        let (mut head, body) = request.into_parts();
        let asked = Asked::read(&head)?;
        let may_be_quiet = head.version == Version::HTTP_2;
        let backend = self.backend(&asked, head.uri.path())?;
        let Backend { service, port } = &backend;
        *service_of_rule = Some(service.clone());
        let to = self.host.backend(service, port, origin.client.ip());
        let Some(to) = to else {
            return Err(Refusal::NoPort(backend));
        };
        headers::to_backend(&mut head, &asked, origin, to.speaks_h2);
        let client = client.filter(|_| head.headers.contains_key(header::UPGRADE));
        let request = Request::from_parts(head, ClientBody::new(body, may_be_quiet));
        let sending = self.send(&backend, &to, request);
        let sent = tokio::time::timeout(ANSWER, sending).await;
        let mut response = sent.map_err(|_| Refusal::Late(backend.clone()))??;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            headers::strip(response.headers_mut());
            return Ok(response);
        }
        let client = client.ok_or_else(|| Refusal::Unasked(backend.service.clone()))?;
        join_upgrades(client, &mut response);
        Ok(response)
    }

    fn backend(&self, asked: &Asked, path: &str) -> Result<Backend, Refusal> {
        match self.shown.load().rules.target(asked.host.as_deref(), path) {
            None => Err(Refusal::NoRule),
            Some(Target::Unknown) => Err(Refusal::NoService),
            Some(Target::Service(backend)) => Ok(backend.clone()),
        }
    }

    /// Sends the request to one endpoint after the other until one answers.
    async fn send(
        &self,
        backend: &Backend,
        to: &BackendPort,
        mut request: Request<ClientBody>,
    ) -> Result<Response<Incoming>, Refusal> {
        let again = repeatable(&request);
        let mut failure = Refusal::NoEndpoints(backend.clone());
        for endpoint in to.endpoints.iter().cycle().take(MAX_TRIES) {
            let is_repeatable = again.is_some();
            let sending = self
                .backends
                .send(*endpoint, to.speaks_h2, request, is_repeatable);
            match sending.await {
                Ok(response) => return Ok(response),
                Err(SendError::Unsent {
                    endpoint,
                    request: back,
                    source,
                }) => {
                    tracing::debug!(%endpoint, %source, "an endpoint cannot be reached");
                    request = *back;
                    failure = Refusal::Unreachable(backend.service.clone());
                }
                // The one user's error there is: that of the body.
                Err(SendError::Broken { source, .. }) if source.is_user() => {
                    return Err(Refusal::Body(source));
                }
                Err(SendError::Broken { endpoint, source }) => {
                    failure = Refusal::Broken(endpoint, source);
                    let Some(head) = &again else {
                        return Err(failure);
                    };
                    request = Request::from_parts(head.clone(), ClientBody::empty());
                }
            }
        }
        Err(failure)
    }
}

/// The head of a request that may be sent a second time: its method says so, and there is no body to send again.
fn repeatable(request: &Request<ClientBody>) -> Option<request::Parts> {
    let headers = request.headers();
    let is_plain = request.body().is_end_stream() && !headers.contains_key(header::UPGRADE);
    if !is_plain || !request.method().is_idempotent() {
        return None;
    }
    let (mut head, ()) = Request::new(()).into_parts();
    head.method.clone_from(request.method());
    head.uri.clone_from(request.uri());
    head.version = request.version();
    head.headers.clone_from(headers);
    Some(head)
}

/// Lets client and backend speak the protocol that both agreed on, until one of them ends.
fn join_upgrades(client: OnUpgrade, response: &mut Response<Incoming>) {
    let backend = hyper::upgrade::on(response);
    tokio::spawn(async move {
        let both = tokio::try_join!(client, backend);
        let copied = match both {
            Ok((client, backend)) => copy(client, backend).await,
            Err(error) => return tracing::debug!(%error, "an upgrade did not come about"),
        };
        if let Err(error) = copied {
            tracing::debug!(%error, "an upgraded connection broke off");
        }
    });
}

async fn copy(client: Upgraded, backend: Upgraded) -> std::io::Result<()> {
    let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
    tokio::io::copy_bidirectional(&mut client, &mut backend).await?;
    Ok(())
}
