//! An http component served on a listener of a virtual network.
//!
//! ```text
//!   listener ─► connection task (hyper, http/1.1 and h2c) ─► request task (one instance) ─► guest
//! ```
//!
//! 1. A request waits for a permit first: so many instances at a time and no more.
//! 2. It gets an idle instance if instances may serve several requests, else a new one. With one
//!    request per instance nothing is kept between requests; kept ones are dropped when idle.
//! 3. A client that goes away aborts its instance; so does the end of the request's time.
//! 4. On a stop the listener refuses new connections, those it let in before are still accepted, each
//!    connection ends after its current request, and the server is done when all have ended. Who has
//!    connected and not asked yet gets a moment to ask: its request may be on the way.
//!
//! Invariant: dropping [`HttpServer::serve`]'s future ends every connection and every instance.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::HOST;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::task::JoinSet;

use super::body::{AbortGuard, GuardedBody};
use super::worker::{Answer, HttpPre, Instance, RequestError, Response, guest_body};
use crate::net::{NetError, Stream, TcpListener};
use crate::state::Grants;

/// How an http component is served.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// Requests one instance serves, one after the other, before it is dropped.
    pub requests_per_instance: usize,
    /// Requests served at a time; more wait.
    pub concurrent_requests: usize,
    /// Connections open at a time; more wait in the listener's queue.
    pub connections: usize,
    /// How long a request may take, its response's body included.
    pub request_timeout: Duration,
    /// How long an instance that may serve again is kept without a request.
    pub idle_timeout: Duration,
    /// Bounds the instances of all servers that share it.
    pub instances: Arc<Semaphore>,
}

impl HttpSettings {
    /// One request per instance, within the bound that `instances` sets for all.
    pub fn new(instances: Arc<Semaphore>) -> Self {
        Self {
            requests_per_instance: 1,
            concurrent_requests: 256,
            connections: 4096,
            request_timeout: Duration::from_secs(300),
            idle_timeout: Duration::from_secs(5),
            instances,
        }
    }
}

/// An http component and what it was granted.
pub struct HttpServer {
    pre: Arc<HttpPre>,
    grants: Arc<Grants>,
    settings: HttpSettings,
    requests: Arc<Semaphore>,
    idle: Mutex<Vec<Instance>>,
    sweeping: AtomicBool,
}

/// How often a connection's first bytes may be waited for before it is given up.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a connection that has asked for nothing yet outlives a stop.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

impl HttpServer {
    /// Nothing runs until a request comes.
    pub fn new(pre: Arc<HttpPre>, grants: Arc<Grants>, settings: HttpSettings) -> Arc<Self> {
        let requests = Arc::new(Semaphore::new(settings.concurrent_requests));
        let (idle, sweeping) = (Mutex::default(), AtomicBool::new(false));
        Arc::new(Self {
            pre,
            grants,
            settings,
            requests,
            idle,
            sweeping,
        })
    }

    /// Serves until `stop`, then until all connections have ended.
    ///
    /// # Errors
    /// The listener's, if it fails before the stop.
    pub async fn serve(
        self: Arc<Self>,
        mut listener: Box<dyn TcpListener>,
        stop: impl Future<Output = ()>,
    ) -> Result<(), NetError> {
        let (stopping, stopped) = watch::channel(false);
        let connections = Arc::new(Semaphore::new(self.settings.connections));
        let mut tasks = JoinSet::new();
        let mut stop = std::pin::pin!(stop);
        loop {
            let accept = async {
                let permit = connections.clone().acquire_owned().await;
                (
                    permit,
                    std::future::poll_fn(|cx| listener.poll_accept(cx)).await,
                )
            };
            tokio::select! {
                biased;
                () = &mut stop => break,
                Some(_ended) = tasks.join_next() => {}
                (permit, accepted) = accept => {
                    let stopped = stopped.clone();
                    tasks.spawn(self.clone().connection(accepted?, stopped, permit.ok()));
                }
            }
        }
        stopping.send_replace(true);
        listener.close();
        // A client whose connection was let in believes it is connected: it is served.
        while let Ok(stream) = std::future::poll_fn(|cx| listener.poll_accept(cx)).await {
            tasks.spawn(self.clone().connection(stream, stopped.clone(), None));
        }
        drop(listener);
        while tasks.join_next().await.is_some() {}
        Ok(())
    }

    async fn connection(
        self: Arc<Self>,
        stream: Stream,
        stopped: watch::Receiver<bool>,
        _permit: Option<OwnedSemaphorePermit>,
    ) {
        let (asks, asked) = watch::channel(false);
        let service = service_fn(move |request| {
            asks.send_replace(true);
            let server = self.clone();
            async move { Ok::<_, std::convert::Infallible>(server.answer(request).await) }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT);
        builder.http2().timer(TokioTimer::new());
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = may_end(stopped, asked) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection to an http component ended early");
        }
    }

    /// The guest's response, or one that tells why there is none.
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response {
        if request.uri().authority().is_none() && !request.headers().contains_key(HOST) {
            return plain(StatusCode::BAD_REQUEST, "the request names no host");
        }
        let running = self.clone().run(request);
        match tokio::time::timeout(self.settings.request_timeout, running).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                self.grants.report_trap(&format!("request failed: {error}"));
                plain(StatusCode::INTERNAL_SERVER_ERROR, "the component failed")
            }
            Err(_) => {
                self.grants.report("request failed: timed out");
                plain(StatusCode::GATEWAY_TIMEOUT, "the component took too long")
            }
        }
    }

    /// Runs one request in a task of its own, which ends with the response's body.
    async fn run(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        let (sender, receiver) = oneshot::channel();
        let permits = (
            self.requests.clone().acquire_owned().await,
            self.settings.instances.clone().acquire_owned().await,
        );
        let cpu = self.grants.cpu.clone();
        let server = self.clone();
        let task = tokio::spawn(cpu.meter(async move {
            let result = server.instance_run(request, sender).await;
            drop(permits);
            result
        }));
        let mut guard = AbortGuard::new(task.abort_handle());
        let Ok(answer) = receiver.await else {
            guard.disarm();
            // No answer: the instance trapped, or returned without one.
            return match task.await {
                Ok(Err(trap)) => Err(RequestError::Trap(trap)),
                Ok(Ok(())) | Err(_) => Err(RequestError::NoResponse),
            };
        };
        tokio::spawn(report_late_trap(self, task));
        let response = answer?;
        Ok(response.map(|body| GuardedBody::new(body, guard).boxed_unsync()))
    }

    async fn instance_run(
        self: Arc<Self>,
        request: Request<Incoming>,
        answer: oneshot::Sender<Answer>,
    ) -> wasmtime::Result<()> {
        let mut instance = match self.take_idle() {
            Some(instance) => instance,
            None => self.pre.instantiate(self.grants.store()).await?,
        };
        instance.serve(request.map(guest_body), answer).await?;
        if instance.served() < self.settings.requests_per_instance {
            self.keep(instance);
        }
        Ok(())
    }

    fn take_idle(&self) -> Option<Instance> {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
    }

    fn keep(self: Arc<Self>, instance: Instance) {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(instance);
        if !self.sweeping.swap(true, Ordering::AcqRel) {
            // The sweeper must not keep a stopped server alive.
            tokio::spawn(sweep(Arc::downgrade(&self), self.settings.idle_timeout));
        }
    }
}

/// Returns when a stop may end a connection: at once if it was asked something before, else when it is,
/// or after a moment.
async fn may_end(mut stopped: watch::Receiver<bool>, mut asked: watch::Receiver<bool>) {
    // The senders live as long as the server and the connection; without them there is nothing to end.
    if stopped.wait_for(|stopped| *stopped).await.is_err() {
        return std::future::pending().await;
    }
    let asked = asked.wait_for(|asked| *asked);
    let _in_time = tokio::time::timeout(FIRST_REQUEST, asked).await;
}

/// Drops what has been idle for a whole turn, and ends when nothing is left.
async fn sweep(server: std::sync::Weak<HttpServer>, turn: Duration) {
    let mut before = usize::MAX;
    loop {
        tokio::time::sleep(turn).await;
        let Some(server) = server.upgrade() else {
            return;
        };
        let mut idle = server.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // Instances are taken from the end: the first ones are those no load needed.
        let unused = idle.len().min(before);
        let dropped: Vec<_> = idle.drain(..unused).collect();
        before = idle.len();
        if idle.is_empty() {
            server.sweeping.store(false, Ordering::Release);
        }
        let done = idle.is_empty();
        drop(idle);
        drop(dropped);
        if done {
            return;
        }
    }
}

/// Reports a trap that came after the response had begun: the client has seen a cut-off body.
async fn report_late_trap(
    server: Arc<HttpServer>,
    task: tokio::task::JoinHandle<wasmtime::Result<()>>,
) {
    if let Ok(Err(trap)) = task.await {
        server.grants.report_trap(&format!(
            "request failed after its response had begun: {trap:?}"
        ));
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response {
    let body = Full::from(format!("{text}\n"))
        .map_err(|never| match never {})
        .boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}
