//! Connections to endpoints of Services, kept for the next request.
//!
//! 1. A request that may be sent twice takes an idle connection of its endpoint, others a new one through the virtual network:
//!    an idle one may be ended by the endpoint while the request is on its way.
//! 2. HTTP/1.1 connections come back when the answer was read to its end; of HTTP/2 there is one for each endpoint, which
//!    all requests share.
//! 3. A request that a connection did not begin to send is given back, and goes to another one.
//!
//! An endpoint sees a pod of namespace `kube-system` with the label `app.kubernetes.io/name: windlass-ingress`: policies
//! may speak of it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use windlass_wasi_shims::net::NetError;

use crate::network::HostNetwork;

/// How long a connection may be idle: less than servers usually wait.
const IDLE: Duration = Duration::from_secs(30);

/// Idle connections of one endpoint.
const MAX_IDLE: usize = 128;

/// Endpoints whose connections are kept; beyond it those without a living one are forgotten.
const MAX_ENDPOINTS: usize = 1024;

/// How often a quiet HTTP/2 connection is asked whether it lives, and how long it may take to say so.
const PING: Duration = Duration::from_secs(20);

/// Why an endpoint gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError<B> {
    /// Nothing was sent: another endpoint may be asked.
    #[error("endpoint {endpoint} cannot be reached")]
    Unsent {
        endpoint: SocketAddr,
        request: Box<Request<B>>,
        #[source]
        source: UnsentReason,
    },
    /// It had the request, or a part of it.
    #[error("endpoint {endpoint} broke off")]
    Broken {
        endpoint: SocketAddr,
        #[source]
        source: hyper::Error,
    },
}

/// Why nothing was sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnsentReason {
    #[error(transparent)]
    Network(#[from] NetError),
    #[error(transparent)]
    Http(#[from] hyper::Error),
}

struct Idle<B> {
    sender: http1::SendRequest<B>,
    since: Instant,
}

struct Endpoint<B> {
    idle: Vec<Idle<B>>,
    shared: Option<http2::SendRequest<B>>,
}

impl<B> Default for Endpoint<B> {
    fn default() -> Self {
        Self {
            idle: Vec::new(),
            shared: None,
        }
    }
}

/// The connections of all endpoints. Cheap to clone.
pub(super) struct Backends<B>(Arc<Shared<B>>);

struct Shared<B> {
    host: HostNetwork,
    endpoints: Mutex<HashMap<SocketAddr, Endpoint<B>>>,
}

impl<B> Clone for Backends<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<B> Backends<B>
where
    B: hyper::body::Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub(super) fn new(host: HostNetwork) -> Self {
        Self(Arc::new(Shared {
            host,
            endpoints: Mutex::default(),
        }))
    }

    /// Sends a request to an endpoint and waits for the head of its answer.
    pub(super) async fn send(
        &self,
        endpoint: SocketAddr,
        h2: bool,
        request: Request<B>,
        is_repeatable: bool,
    ) -> Result<Response<Incoming>, SendError<B>> {
        let mut request = request;
        // A connection from before may have ended meanwhile; then a new one is tried.
        if (is_repeatable || h2)
            && let Some(sender) = self.known(endpoint, h2)
        {
            match self.over(endpoint, sender, request).await {
                Err(SendError::Unsent { request: back, .. }) => request = *back,
                outcome => return outcome,
            }
        }
        match self.connect(endpoint, h2).await {
            Ok(sender) => self.over(endpoint, sender, request).await,
            Err(source) => Err(SendError::Unsent {
                endpoint,
                request: Box::new(request),
                source,
            }),
        }
    }

    fn known(&self, endpoint: SocketAddr, h2: bool) -> Option<Sender<B>> {
        let mut endpoints = self.lock();
        let known = endpoints.get_mut(&endpoint)?;
        if h2 {
            let shared = known.shared.clone()?;
            if shared.is_closed() {
                known.shared = None;
                return None;
            }
            return Some(Sender::Two(shared));
        }
        while let Some(idle) = known.idle.pop() {
            if idle.since.elapsed() < IDLE && idle.sender.is_ready() {
                return Some(Sender::One(idle.sender));
            }
        }
        None
    }

    async fn connect(&self, endpoint: SocketAddr, h2: bool) -> Result<Sender<B>, UnsentReason> {
        let stream = TokioIo::new(self.0.host.connect_for_ingress(endpoint).await?);
        if !h2 {
            let (sender, connection) = http1::handshake(stream).await?;
            tokio::spawn(async move {
                if let Err(error) = connection.with_upgrades().await {
                    tracing::debug!(%endpoint, %error, "a connection to an endpoint ended");
                }
            });
            return Ok(Sender::One(sender));
        }
        let handshake = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .handshake(stream);
        let (sender, connection) = handshake.await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%endpoint, %error, "a connection to an endpoint ended");
            }
        });
        self.place(endpoint, |known| known.shared = Some(sender.clone()));
        Ok(Sender::Two(sender))
    }

    async fn over(
        &self,
        endpoint: SocketAddr,
        sender: Sender<B>,
        request: Request<B>,
    ) -> Result<Response<Incoming>, SendError<B>> {
        let outcome = match sender {
            Sender::One(mut sender) => {
                let outcome = sender.try_send_request(request).await;
                if outcome.is_ok() {
                    self.clone().take_back(endpoint, sender);
                }
                outcome
            }
            Sender::Two(mut sender) => sender.try_send_request(request).await,
        };
        outcome.map_err(|mut failed| match failed.take_message() {
            Some(request) => SendError::Unsent {
                endpoint,
                request: Box::new(request),
                source: failed.into_error().into(),
            },
            None => SendError::Broken {
                endpoint,
                source: failed.into_error(),
            },
        })
    }

    /// Keeps a connection, once it can be used again.
    fn take_back(self, endpoint: SocketAddr, mut sender: http1::SendRequest<B>) {
        tokio::spawn(async move {
            if sender.ready().await.is_ok() {
                let since = Instant::now();
                self.place(endpoint, |known| {
                    known.idle.retain(|idle| idle.since.elapsed() < IDLE);
                    if known.idle.len() < MAX_IDLE {
                        known.idle.push(Idle { sender, since });
                    }
                });
            }
        });
    }

    fn place(&self, endpoint: SocketAddr, change: impl FnOnce(&mut Endpoint<B>)) {
        let mut endpoints = self.lock();
        if endpoints.len() >= MAX_ENDPOINTS && !endpoints.contains_key(&endpoint) {
            endpoints.retain(|_, known| {
                known
                    .idle
                    .retain(|idle| idle.since.elapsed() < IDLE && !idle.sender.is_closed());
                let shares = known.shared.as_ref().is_some_and(|it| !it.is_closed());
                shares || !known.idle.is_empty()
            });
        }
        change(endpoints.entry(endpoint).or_default());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SocketAddr, Endpoint<B>>> {
        let endpoints = &self.0.endpoints;
        endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Sender<B> {
    One(http1::SendRequest<B>),
    Two(http2::SendRequest<B>),
}
